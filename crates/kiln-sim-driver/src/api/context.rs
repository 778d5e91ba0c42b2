//! Contexts.

#![allow(non_snake_case)]

use crate::abi::ContextParams;
use crate::context::{current, pop, push, set_current};
use crate::driver::Session;
use crate::entry::calls;
use crate::ffi::{In, Out};
use crate::handle::Handle;
use crate::report::note;
use crate::status::{Outcome, Status};

/// Flags that a context can have: how to wait (one of four), mapping, local memory, core dumps, synchronous copies.
const FLAGS: u32 = 0xff;
/// `CUlimit`s with their defaults: stack, printf buffer, heap, two of dynamic parallelism, L2 fetch granularity,
/// persisting L2.
const LIMITS: [usize; 7] = [1024, 1 << 20, 8 << 20, 2, 2048, 64, 0];
const LIMIT_SYNC_DEPTH: i32 = 3;

fn check_flags(flags: u32) -> Outcome {
    if flags & !FLAGS != 0 || !matches!(flags & 7, 0 | 1 | 2 | 4) {
        Err(Status::INVALID_VALUE)
    } else {
        Ok(())
    }
}

fn create(session: &mut Session, context: Out<Handle>, flags: u32, device: i32) -> Outcome {
    context.check()?;
    check_flags(flags)?;
    let gpu = session.gpu(device)?;
    let created = session.create_context(gpu, flags)?;
    push(created);
    context.set(created)
}

/// Releases the primary context once, or for good.
fn release(session: &mut Session, device: i32, all: bool) -> Outcome {
    let gpu = session.gpu(device)?;
    let Some(primary) = session.gpus[gpu].primary else {
        return if all { Ok(()) } else { Err(Status::INVALID_CONTEXT) };
    };
    session.gpus[gpu].retained -= if all { session.gpus[gpu].retained } else { 1 };
    if session.gpus[gpu].retained > 0 {
        return Ok(());
    }
    session.gpus[gpu].primary = None;
    session.destroy_context(primary)
}

calls! {
    fn cuDevicePrimaryCtxRetain(context: Out<Handle>, device: i32) |session| {
        context.check()?;
        let gpu = session.gpu(device)?;
        let primary = match session.gpus[gpu].primary {
            Some(primary) => primary,
            None => {
                let flags = session.gpus[gpu].primary_flags;
                session.create_context(gpu, flags)?
            }
        };
        session.gpus[gpu].primary = Some(primary);
        session.gpus[gpu].retained += 1;
        context.set(primary)
    }

    fn cuDevicePrimaryCtxRelease_v2(device: i32) |session| {
        release(&mut session, device, false)
    }

    fn cuDevicePrimaryCtxReset_v2(device: i32) |session| {
        release(&mut session, device, true)
    }

    fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) |session| {
        check_flags(flags)?;
        let gpu = session.gpu(device)?;
        session.gpus[gpu].primary_flags = flags;
        if let Some(primary) = session.gpus[gpu].primary {
            session.contexts.get_mut(primary)?.flags = flags;
        }
        Ok(())
    }

    fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) |session| {
        let gpu = session.gpu(device)?;
        flags.set(session.gpus[gpu].primary_flags)?;
        active.set(i32::from(session.gpus[gpu].primary.is_some()))
    }

    fn cuCtxCreate_v2(context: Out<Handle>, flags: u32, device: i32) |session| {
        create(&mut session, context, flags, device)
    }

    fn cuCtxCreate_v3(context: Out<Handle>, affinity: In<u64>, count: i32, flags: u32, device: i32) |session| {
        if !affinity.is_null() || count != 0 {
            note("cuCtxCreate_v3", "execution affinity is not supported by the simulator");
            return Err(Status::UNSUPPORTED_EXEC_AFFINITY);
        }
        create(&mut session, context, flags, device)
    }

    // The parameters that may be passed ask for execution affinity or a graphics context.
    fn cuCtxCreate_v4(context: Out<Handle>, params: In<ContextParams>, flags: u32, device: i32) |session| {
        let asked = |given: ContextParams| given.affinity != 0 || given.affinities != 0 || given.graphics != 0;
        if !params.is_null() && asked(params.get()?) {
            note("cuCtxCreate_v4", "execution affinity and graphics contexts are not supported by the simulator");
            return Err(Status::NOT_SUPPORTED);
        }
        create(&mut session, context, flags, device)
    }

    fn cuCtxDestroy_v2(context: Handle) |session| {
        session.contexts.get(context)?;
        if session.gpus.iter().any(|gpu| gpu.primary == Some(context)) {
            return Err(Status::INVALID_CONTEXT);
        }
        session.destroy_context(context)?;
        if current() == Some(context) {
            pop();
        }
        Ok(())
    }

    fn cuCtxSetCurrent(context: Handle) |session| {
        if context != 0 {
            session.contexts.get(context)?;
        }
        set_current(context);
        Ok(())
    }

    fn cuCtxGetCurrent(context: Out<Handle>) |_session| {
        context.set(current().unwrap_or(0))
    }

    fn cuCtxPushCurrent_v2(context: Handle) |session| {
        session.contexts.get(context)?;
        push(context);
        Ok(())
    }

    fn cuCtxPopCurrent_v2(context: Out<Handle>) |_session| {
        let popped = pop().ok_or(Status::INVALID_CONTEXT)?;
        context.set_if_wanted(popped)
    }

    fn cuCtxGetDevice(device: Out<i32>) |session| {
        let context = session.context()?;
        device.set(session.gpu_of(context)? as i32)
    }

    fn cuCtxGetFlags(flags: Out<u32>) |session| {
        let context = session.context()?;
        flags.set(session.contexts.get(context)?.flags)
    }

    fn cuCtxSetFlags(flags: u32) |session| {
        check_flags(flags)?;
        let context = session.context()?;
        session.contexts.get_mut(context)?.flags = flags;
        Ok(())
    }

    fn cuCtxGetId(context: Handle, id: Out<u64>) |session| {
        let context = if context == 0 { session.context()? } else { context };
        session.contexts.get(context)?;
        id.set(context as u64)
    }

    fn cuCtxGetApiVersion(context: Handle, version: Out<u32>) |session| {
        if context != 0 {
            session.contexts.get(context)?;
        }
        version.set(3020)
    }

    fn cuCtxSynchronize() |session| {
        let context = session.context()?;
        session.not_while_capturing("cuCtxSynchronize")?;
        session.synchronize(context)
    }

    fn cuCtxGetLimit(value: Out<usize>, limit: i32) |session| {
        let context = session.context()?;
        let default = usize::try_from(limit).ok().and_then(|limit| LIMITS.get(limit));
        let default = *default.ok_or(Status::UNSUPPORTED_LIMIT)?;
        value.set(session.contexts.get(context)?.limits.get(&limit).copied().unwrap_or(default))
    }

    // Limits are remembered. None of them limits the simulator.
    fn cuCtxSetLimit(limit: i32, value: usize) |session| {
        let context = session.context()?;
        let known = usize::try_from(limit).is_ok_and(|limit| limit < LIMITS.len());
        if !known || (limit == LIMIT_SYNC_DEPTH && session.limits.capability.0 >= 9) {
            return Err(Status::UNSUPPORTED_LIMIT);
        }
        session.contexts.get_mut(context)?.limits.insert(limit, value);
        Ok(())
    }

    fn cuCtxGetCacheConfig(config: Out<i32>) |session| {
        let context = session.context()?;
        config.set(session.contexts.get(context)?.cache)
    }

    fn cuCtxSetCacheConfig(config: i32) |session| {
        let context = session.context()?;
        if !(0..=3).contains(&config) {
            return Err(Status::INVALID_VALUE);
        }
        session.contexts.get_mut(context)?.cache = config;
        Ok(())
    }

    fn cuCtxGetSharedMemConfig(config: Out<i32>) |session| {
        let context = session.context()?;
        config.set(session.contexts.get(context)?.shared_banks)
    }

    fn cuCtxSetSharedMemConfig(config: i32) |session| {
        let context = session.context()?;
        if !(0..=2).contains(&config) {
            return Err(Status::INVALID_VALUE);
        }
        session.contexts.get_mut(context)?.shared_banks = config;
        Ok(())
    }

    // Priorities are remembered, and change nothing.
    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) |session| {
        session.context()?;
        least.set_if_wanted(0)?;
        greatest.set_if_wanted(crate::api::stream::PRIORITY_GREATEST)
    }

    fn cuCtxResetPersistingL2Cache() |session| {
        session.context().map(drop)
    }

    fn cuCtxEnablePeerAccess(peer: Handle, flags: u32) |session| {
        session.context()?;
        session.contexts.get(peer)?;
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        note("cuCtxEnablePeerAccess", "kernels of the simulator cannot reach another device's memory");
        Err(Status::PEER_ACCESS_UNSUPPORTED)
    }

    fn cuCtxDisablePeerAccess(peer: Handle) |session| {
        session.context()?;
        session.contexts.get(peer)?;
        Err(Status::PEER_ACCESS_NOT_ENABLED)
    }
}
