//! Memory: allocation, freeing, and what an address is.

#![allow(non_snake_case)]

use crate::abi::Location;
use crate::driver::Session;
use crate::entry::calls;
use crate::ffi::{HostAddress, Out};
use crate::handle::Handle;
use crate::memory::{Block, Kind};
use crate::report::note;
use crate::status::{Outcome, Status};
use crate::work::Work;

/// Rows of a pitched allocation begin at multiples of this many bytes.
const PITCH: usize = 512;
/// `CU_MEMHOSTALLOC_*`: portable, mapped, write-combined. All is mapped on every device here.
const HOST_FLAGS: u32 = 7;
/// `CU_MEMHOSTREGISTER_*`: portable, mapped, I/O memory, read-only.
const REGISTER_FLAGS: u32 = 0xf;

/// `CU_POINTER_ATTRIBUTE_*`.
mod pointer {
    pub(super) const CONTEXT: i32 = 1;
    pub(super) const MEMORY_TYPE: i32 = 2;
    pub(super) const DEVICE_POINTER: i32 = 3;
    pub(super) const HOST_POINTER: i32 = 4;
    pub(super) const BUFFER_ID: i32 = 7;
    pub(super) const IS_MANAGED: i32 = 8;
    pub(super) const DEVICE_ORDINAL: i32 = 9;
    pub(super) const RANGE_START: i32 = 11;
    pub(super) const RANGE_SIZE: i32 = 12;
    pub(super) const MAPPED: i32 = 13;
}

fn allocate_host(
    session: &mut Session,
    result: Out<HostAddress>,
    bytes: usize,
    kind: Kind,
    call: &'static str,
    flags: u32,
) -> Outcome {
    result.check()?;
    let context = session.context()?;
    session.not_while_capturing(call)?;
    if bytes == 0 {
        return Err(Status::INVALID_VALUE);
    }
    let address = session.allocate_host(context, bytes, kind, call, flags)?;
    result.set(address)
}

/// Frees a block, after all that was submitted to its context.
fn free(session: &mut Session, call: &str, address: u64, wanted: impl Fn(Kind) -> bool) -> Outcome {
    session.context()?;
    session.not_while_capturing(call)?;
    if address == 0 {
        return Ok(());
    }
    session.check_freeable(call, address, wanted)?;
    let Block { context: owner, pool, .. } =
        *session.memory.starting(address).ok_or(Status::INVALID_VALUE)?;
    let end = session.end_of(owner);
    session.wait(end.pending());
    session.surface(owner)?;
    if pool.is_some() {
        session.check_free_by_host(owner, address, call)?;
    }
    session.release(address)
}

/// Submits an allocation to a stream. The memory is there at once; but only what comes after it in order may touch it.
pub(super) fn allocate_async(
    session: &mut Session,
    result: Out<u64>,
    bytes: usize,
    pool: Option<Handle>,
    stream: Handle,
) -> Outcome {
    result.check()?;
    let stream = session.stream(stream)?;
    if session.part(stream)?.is_some() {
        session.invalidate_capture_of(stream);
        note("cuMemAllocAsync", "the simulator has no graph nodes that allocate or free");
        return Err(Status::NOT_SUPPORTED);
    }
    if bytes == 0 {
        return result.set(0);
    }
    let context = session.streams.get(stream)?.context;
    let pool = match pool {
        Some(pool) => pool,
        None => session.gpus[session.gpu_of(context)?].pool,
    };
    if session.pools.get(pool)?.gpu != session.gpu_of(context)? {
        note("cuMemAllocFromPoolAsync", "the pool belongs to another device");
        return Err(Status::INVALID_VALUE);
    }
    let address = session.allocate(context, bytes as u64, Some(pool), "cuMemAllocAsync")?;
    session.enqueue(stream, "allocation", Work::Allocate(address))?;
    result.set(address)
}

fn block(session: &Session, address: u64) -> Outcome<(u64, Block)> {
    session.memory.at(address).map(|(base, block)| (base, block.clone())).ok_or(Status::INVALID_VALUE)
}

/// The value of a pointer attribute, in the type that CUDA gives it.
fn write_attribute(session: &Session, data: Out<u8>, attribute: i32, address: u64) -> Outcome {
    let (base, block) = block(session, address)?;
    let gpu = match block.kind {
        Kind::Device(gpu) => gpu,
        _ => session.gpu_of(block.context)?,
    };
    let on_host = !matches!(block.kind, Kind::Device(_));
    match attribute {
        pointer::CONTEXT => data.cast::<Handle>().set(block.context),
        pointer::MEMORY_TYPE => {
            data.cast::<u32>().set(if matches!(block.kind, Kind::Pinned | Kind::Registered) { 1 } else { 2 })
        }
        pointer::DEVICE_POINTER => data.cast::<u64>().set(address),
        pointer::HOST_POINTER if on_host => data.cast::<u64>().set(address),
        pointer::BUFFER_ID => data.cast::<u64>().set(base),
        pointer::IS_MANAGED => data.cast::<u32>().set(u32::from(block.kind == Kind::Managed)),
        pointer::DEVICE_ORDINAL => data.cast::<i32>().set(gpu as i32),
        pointer::RANGE_START => data.cast::<u64>().set(base),
        pointer::RANGE_SIZE => data.cast::<u64>().set(block.bytes),
        pointer::MAPPED => data.cast::<u32>().set(1),
        _ => Err(Status::INVALID_VALUE),
    }
}

/// Checks that a range is managed memory, of which advice and prefetches speak.
fn check_managed(session: &Session, address: u64, bytes: usize) -> Outcome {
    let (base, block) = block(session, address)?;
    let fits = address - base <= block.bytes && bytes as u64 <= block.bytes - (address - base);
    if block.kind == Kind::Managed && fits { Ok(()) } else { Err(Status::INVALID_VALUE) }
}

fn prefetch(session: &mut Session, address: u64, bytes: usize, stream: Handle) -> Outcome {
    let stream = session.stream(stream)?;
    check_managed(session, address, bytes)?;
    session.enqueue(stream, "prefetch", Work::Nothing)
}

calls! {
    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) |session| {
        let context = session.context()?;
        let gpu = session.gpu_of(context)?;
        let (left, all) = session.gpus[gpu].device.memory_info();
        free.set(left as usize)?;
        total.set(all as usize)
    }

    fn cuMemAlloc_v2(result: Out<u64>, bytes: usize) |session| {
        result.check()?;
        let context = session.context()?;
        session.not_while_capturing("cuMemAlloc")?;
        if bytes == 0 {
            return Err(Status::INVALID_VALUE);
        }
        let address = session.allocate(context, bytes as u64, None, "cuMemAlloc")?;
        result.set(address)
    }

    fn cuMemAllocPitch_v2(result: Out<u64>, pitch: Out<usize>, width: usize, height: usize, element: u32) |session| {
        result.check()?;
        pitch.check()?;
        let context = session.context()?;
        session.not_while_capturing("cuMemAllocPitch")?;
        let row = width.checked_next_multiple_of(PITCH);
        let bytes = row.and_then(|row| row.checked_mul(height)).filter(|&bytes| bytes > 0);
        let (Some(row), Some(bytes), 4 | 8 | 16) = (row, bytes, element) else { return Err(Status::INVALID_VALUE) };
        let address = session.allocate(context, bytes as u64, None, "cuMemAllocPitch")?;
        pitch.set(row)?;
        result.set(address)
    }

    fn cuMemFree_v2(address: u64) |session| {
        free(&mut session, "cuMemFree", address, |kind| matches!(kind, Kind::Device(_) | Kind::Managed))
    }

    fn cuMemAllocAsync(result: Out<u64>, bytes: usize, stream: Handle) |session| {
        allocate_async(&mut session, result, bytes, None, stream)
    }

    fn cuMemFreeAsync(address: u64, stream: Handle) |session| {
        let stream = session.stream(stream)?;
        if address == 0 {
            return Ok(());
        }
        session.check_freeable("cuMemFreeAsync", address, |kind| matches!(kind, Kind::Device(_)))?;
        session.enqueue(stream, "free", Work::Free(address))
    }

    fn cuMemAllocManaged(result: Out<HostAddress>, bytes: usize, flags: u32) |session| {
        if !matches!(flags, 1 | 2) {
            return Err(Status::INVALID_VALUE);
        }
        allocate_host(&mut session, result, bytes, Kind::Managed, "cuMemAllocManaged", flags)
    }

    fn cuMemHostAlloc(result: Out<HostAddress>, bytes: usize, flags: u32) |session| {
        if flags & !HOST_FLAGS != 0 {
            return Err(Status::INVALID_VALUE);
        }
        allocate_host(&mut session, result, bytes, Kind::Pinned, "cuMemHostAlloc", flags)
    }

    fn cuMemAllocHost_v2(result: Out<HostAddress>, bytes: usize) |session| {
        allocate_host(&mut session, result, bytes, Kind::Pinned, "cuMemAllocHost", 0)
    }

    fn cuMemFreeHost(address: HostAddress) |session| {
        free(&mut session, "cuMemFreeHost", address.0 as u64, |kind| kind == Kind::Pinned)
    }

    fn cuMemHostRegister_v2(address: HostAddress, bytes: usize, flags: u32) |session| {
        let context = session.context()?;
        session.not_while_capturing("cuMemHostRegister")?;
        if flags & !REGISTER_FLAGS != 0 {
            return Err(Status::INVALID_VALUE);
        }
        session.register_host(context, address, bytes, flags)
    }

    fn cuMemHostUnregister(address: HostAddress) |session| {
        if !session.memory.is_mapped(address) {
            return Err(Status::HOST_MEMORY_NOT_REGISTERED);
        }
        free(&mut session, "cuMemHostUnregister", address.0 as u64, |kind| kind == Kind::Registered)
    }

    fn cuMemHostGetDevicePointer_v2(result: Out<u64>, address: HostAddress, flags: u32) |session| {
        session.context()?;
        if flags != 0 || !session.memory.is_mapped(address) {
            return Err(Status::INVALID_VALUE);
        }
        result.set(address.0 as u64)
    }

    fn cuMemHostGetFlags(flags: Out<u32>, address: HostAddress) |session| {
        session.context()?;
        let (_, block) = block(&session, address.0 as u64)?;
        if block.kind != Kind::Pinned {
            return Err(Status::INVALID_VALUE);
        }
        flags.set(block.flags)
    }

    fn cuMemGetAddressRange_v2(base: Out<u64>, bytes: Out<usize>, address: u64) |session| {
        session.context()?;
        let (start, block) = block(&session, address).map_err(|_| Status::NOT_FOUND)?;
        base.set_if_wanted(start)?;
        bytes.set_if_wanted(block.bytes as usize)
    }

    fn cuPointerGetAttribute(data: Out<u8>, attribute: i32, address: u64) |session| {
        write_attribute(&session, data, attribute, address)
    }

    // Advice and prefetches move pages; the simulator has none.
    fn cuMemAdvise(address: u64, bytes: usize, advice: i32, _device: i32) |session| {
        session.context()?;
        if !(1..=6).contains(&advice) {
            return Err(Status::INVALID_VALUE);
        }
        check_managed(&session, address, bytes)
    }

    fn cuMemAdvise_v2(address: u64, bytes: usize, advice: i32, _location: Location) |session| {
        session.context()?;
        if !(1..=6).contains(&advice) {
            return Err(Status::INVALID_VALUE);
        }
        check_managed(&session, address, bytes)
    }

    fn cuMemPrefetchAsync(address: u64, bytes: usize, _device: i32, stream: Handle) |session| {
        prefetch(&mut session, address, bytes, stream)
    }

    fn cuMemPrefetchAsync_v2(address: u64, bytes: usize, location: Location, flags: u32, stream: Handle) |session| {
        match location.kind {
            1 => drop(session.gpu(location.id)?),
            2..=4 => {}
            _ => return Err(Status::INVALID_VALUE),
        }
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        prefetch(&mut session, address, bytes, stream)
    }
}
