//! Memory pools.

#![allow(non_snake_case)]

use crate::abi::{Access, Location, PoolProperties};
use crate::entry::calls;
use crate::ffi::{In, Out};
use crate::handle::Handle;
use crate::pool::{Pool, Value};
use crate::status::Status;

const PINNED: i32 = 1;
const ON_DEVICE: i32 = 1;
/// `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
const READ_WRITE: i32 = 3;

calls! {
    fn cuDeviceGetDefaultMemPool(pool: Out<Handle>, device: i32) |session| {
        let gpu = session.gpu(device)?;
        pool.set(session.gpus[gpu].default_pool)
    }

    fn cuDeviceGetMemPool(pool: Out<Handle>, device: i32) |session| {
        let gpu = session.gpu(device)?;
        pool.set(session.gpus[gpu].pool)
    }

    fn cuDeviceSetMemPool(device: i32, pool: Handle) |session| {
        let gpu = session.gpu(device)?;
        if session.pools.get(pool)?.gpu != gpu {
            return Err(Status::INVALID_VALUE);
        }
        session.gpus[gpu].pool = pool;
        Ok(())
    }

    fn cuMemPoolCreate(pool: Out<Handle>, properties: In<PoolProperties>) |session| {
        pool.check()?;
        let PoolProperties { allocation, handles, location, .. } = properties.get()?;
        if allocation != PINNED || location.kind != ON_DEVICE {
            return Err(Status::INVALID_VALUE);
        }
        if handles != 0 {
            return Err(Status::NOT_SUPPORTED); // to share with other processes
        }
        let gpu = session.gpu(location.id)?;
        let created = session.pools.insert(Pool::new(gpu, false));
        pool.set(created)
    }

    fn cuMemPoolDestroy(pool: Handle) |session| {
        let Pool { gpu, is_default, .. } = *session.pools.get(pool)?;
        if is_default {
            return Err(Status::INVALID_VALUE);
        }
        session.pools.remove(pool)?;
        if session.gpus[gpu].pool == pool {
            session.gpus[gpu].pool = session.gpus[gpu].default_pool;
        }
        Ok(())
    }

    // Nothing is kept back that could be trimmed.
    fn cuMemPoolTrimTo(pool: Handle, _keep: usize) |session| {
        session.pools.get(pool).map(drop)
    }

    fn cuMemPoolGetAttribute(pool: Handle, attribute: i32, value: Out<u8>) |session| {
        match session.pools.get(pool)?.get(attribute)? {
            Value::Flag(flag) => value.cast::<i32>().set(flag),
            Value::Bytes(bytes) => value.cast::<u64>().set(bytes),
        }
    }

    fn cuMemPoolSetAttribute(pool: Handle, attribute: i32, value: Out<u8>) |session| {
        let value = match Pool::is_flag(attribute)? {
            true => Value::Flag(value.cast::<i32>().get()?),
            false => Value::Bytes(value.cast::<u64>().get()?),
        };
        session.pools.get_mut(pool)?.set(attribute, value)
    }

    fn cuMemPoolSetAccess(pool: Handle, map: In<Access>, count: usize) |session| {
        let own = session.pools.get(pool)?.gpu;
        for Access { location, flags } in map.all(count)? {
            let gpu = session.gpu(location.id)?;
            if location.kind != ON_DEVICE || gpu == own && flags != READ_WRITE {
                return Err(Status::INVALID_VALUE);
            }
            if gpu != own && flags != 0 {
                return Err(Status::NOT_SUPPORTED); // from another device
            }
        }
        Ok(())
    }

    fn cuMemPoolGetAccess(flags: Out<i32>, pool: Handle, location: In<Location>) |session| {
        let Location { kind, id } = location.get()?;
        let own = session.gpu(id)? == session.pools.get(pool)?.gpu;
        flags.set(if kind == ON_DEVICE && own { READ_WRITE } else { 0 })
    }

    fn cuMemAllocFromPoolAsync(result: Out<u64>, bytes: usize, pool: Handle, stream: Handle) |session| {
        super::memory::allocate_async(&mut session, result, bytes, Some(pool), stream)
    }
}
