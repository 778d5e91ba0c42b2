//! Copies.
//!
//! What a copy waits for, and who waits for it, follows the driver API's page "API synchronization behavior": a copy
//! from pageable host memory returns once the bytes are taken, one to pageable host memory once they have arrived,
//! whether or not it is called asynchronous; a copy within a device is waited for by nobody. So another stream that
//! does not block sees the bytes of a synchronous copy to the device only after a synchronisation, and a kernel
//! that reads them without one is a race.

#![allow(non_snake_case)]

use crate::abi::{Copy2d, Copy3d, MEMORY_DEVICE, MEMORY_HOST, MEMORY_UNIFIED, Side2d, Side3d};
use crate::driver::{Driver, Session};
use crate::entry::calls;
use crate::ffi::{HostAddress, In};
use crate::handle::Handle;
use crate::status::{Outcome, Status};
use crate::stream::Role;
use crate::work::{Copy, Side, Span, Work};

/// Whether the caller waits for a copy, beside what its memory demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Synchronous,
    Asynchronous,
}

/// Where a host address lies, for a copy: what kernels can reach, the simulator must see.
pub(super) fn host(driver: &Driver, address: HostAddress) -> Side {
    if driver.memory.is_mapped(address) { Side::Device(address.0 as u64) } else { Side::Host(address) }
}

/// Where an address lies of which the caller does not say.
fn either(driver: &Driver, address: u64) -> Side {
    let known = driver.memory.at(address).is_some()
        || driver.gpus.iter().any(|gpu| gpu.device.allocation(address).is_some());
    if known { Side::Device(address) } else { Side::Host(HostAddress(address as usize)) }
}

/// Whether the host knows a copy to be finished when the call returns.
fn is_waited_for(driver: &Driver, call: Call, copy: &Copy) -> bool {
    let is_mapped = |side| matches!(side, Side::Device(address) if driver.memory.is_mapped(HostAddress(address as usize)));
    match (copy.from.side, copy.to.side) {
        (_, Side::Host(_)) => true,
        (from, to) => call == Call::Synchronous && (is_mapped(from) || is_mapped(to)),
    }
}

/// Submits a copy to a stream, and waits for it as far as CUDA does.
fn transfer(session: &mut Session, name: &str, call: Call, stream: Handle, copy: Copy) -> Outcome {
    let stream = session.stream(stream)?;
    if call == Call::Synchronous {
        session.not_while_capturing(name)?;
    }
    let label = copy.label();
    if session.part(stream)?.is_some() {
        return session.enqueue(stream, label, Work::Copy(copy));
    }
    let pageable = [copy.from.side, copy.to.side].iter().any(|side| matches!(side, Side::Host(_)));
    if pageable || call == Call::Synchronous {
        // Then the bytes are taken from the host before this returns. Another thread may submit while this one waits.
        loop {
            let before = session.here(stream)?;
            if before.is_reached() {
                break;
            }
            session.wait(before.pending());
        }
    }
    let waited_for = is_waited_for(session, call, &copy);
    session.enqueue(stream, label, Work::Copy(copy))?;
    let context = session.streams.get(stream)?.context;
    if waited_for {
        let point = session.streams.get(stream)?.point.clone();
        return session.reach(context, &point);
    }
    if call == Call::Synchronous { session.surface(context) } else { Ok(()) }
}

/// One side of a copy as CUDA's structures describe it.
#[derive(Clone, Copy)]
struct Described {
    memory: u32,
    host: HostAddress,
    device: u64,
    array: Handle,
    /// Byte, row and slice at which the copy begins.
    origin: [usize; 3],
    pitch: usize,
    /// Rows in a slice; 0 if there is one slice.
    height: usize,
}

impl From<Side2d> for Described {
    fn from(side: Side2d) -> Described {
        let Side2d { x, y, memory, host, device, array, pitch } = side;
        Described { memory, host, device, array, origin: [x, y, 0], pitch, height: 0 }
    }
}

impl From<Side3d> for Described {
    fn from(side: Side3d) -> Described {
        let Side3d { x, y, z, memory, host, device, array, pitch, height, .. } = side;
        Described { memory, host, device, array, origin: [x, y, z], pitch, height }
    }
}

/// The span that a side covers; `extent` is what the pitch must have room for.
fn span(driver: &Driver, side: Described, extent: [usize; 3]) -> Outcome<Span> {
    let [x, y, z] = side.origin;
    let pitch = if side.pitch == 0 { extent[0] } else { side.pitch };
    let height = if side.height == 0 { extent[1] } else { side.height };
    let rows_fit =
        extent[1].saturating_mul(extent[2]) <= 1 || x.checked_add(extent[0]).is_some_and(|row| row <= pitch);
    let slices_fit = extent[2] <= 1 || y.checked_add(extent[1]).is_some_and(|slice| slice <= height);
    if side.array != 0 || !rows_fit || !slices_fit {
        return Err(Status::INVALID_VALUE);
    }
    let slice = pitch.checked_mul(height).ok_or(Status::INVALID_VALUE)?;
    let offset = x.wrapping_add(y.wrapping_mul(pitch)).wrapping_add(z.wrapping_mul(slice));
    let start = match side.memory {
        MEMORY_HOST => host(driver, side.host.offset(offset)),
        MEMORY_DEVICE => Side::Device(side.device.wrapping_add(offset as u64)),
        MEMORY_UNIFIED => either(driver, side.device.wrapping_add(offset as u64)),
        _ => return Err(Status::INVALID_VALUE), // an array
    };
    Ok(Span { side: start, pitch: pitch as u64, slice: slice as u64 })
}

/// A copy as `CUDA_MEMCPY3D` describes it.
pub(super) fn described_3d(driver: &Driver, copy: Copy3d) -> Outcome<Copy> {
    described(driver, copy.target.into(), copy.source.into(), [copy.width, copy.height, copy.depth])
}

fn described_2d(driver: &Driver, copy: Copy2d) -> Outcome<Copy> {
    described(driver, copy.target.into(), copy.source.into(), [copy.width, copy.height, 1])
}

fn described(driver: &Driver, to: Described, from: Described, extent: [usize; 3]) -> Outcome<Copy> {
    let (to, from) = (span(driver, to, extent)?, span(driver, from, extent)?);
    Ok(Copy { from, to, extent: extent.map(|size| size as u64) })
}

/// A copy as `CUDA_MEMCPY3D` would describe it, for a caller who asks.
pub(super) fn describe(copy: &Copy) -> Copy3d {
    let side = |span: &Span| {
        let (memory, host, device) = match span.side {
            Side::Host(address) => (MEMORY_HOST, address, 0),
            Side::Device(address) => (MEMORY_DEVICE, HostAddress(0), address),
        };
        let height = span.slice.checked_div(span.pitch).unwrap_or(0) as usize;
        let pitch = span.pitch as usize;
        Side3d { x: 0, y: 0, z: 0, level: 0, memory, host, device, array: 0, context: 0, pitch, height }
    };
    let [width, height, depth] = copy.extent.map(|size| size as usize);
    Copy3d { source: side(&copy.from), target: side(&copy.to), width, height, depth }
}

/// A copy of bytes in one piece.
fn linear(
    session: &mut Session,
    name: &str,
    call: Call,
    stream: Handle,
    to: Side,
    from: Side,
    bytes: usize,
) -> Outcome {
    transfer(session, name, call, stream, Copy::linear(to, from, bytes as u64))
}

/// A copy between contexts, from the second to the first. In the default stream it comes after all that either device was
/// given before, and before all that it is given later (CUDA C++ Programming Guide, "Peer-to-Peer Memory Copy").
fn peer(
    session: &mut Session,
    name: &str,
    call: Call,
    stream: Handle,
    [(to, to_context), (from, from_context)]: [(u64, Handle); 2],
    bytes: usize,
) -> Outcome {
    session.check(to_context)?;
    session.check(from_context)?;
    let stream = session.stream(stream)?;
    let both = (session.streams.get(stream)?.role == Role::Legacy && to_context != from_context)
        .then_some([to_context, from_context]);
    for context in both.into_iter().flatten() {
        let end = session.end_of(context);
        session.streams.get_mut(stream)?.point.join(&end);
    }
    linear(session, name, call, stream, Side::Device(to), Side::Device(from), bytes)?;
    let after = session.streams.get(stream)?.point.clone();
    for other in session.streams.iter_mut() {
        if both.is_some_and(|both| both.contains(&other.context)) {
            other.point.join(&after);
        }
    }
    Ok(())
}

use Call::{Asynchronous, Synchronous};

calls! {
    fn cuMemcpy(to: u64, from: u64, bytes: usize) |session| {
        let (to, from) = (either(&session, to), either(&session, from));
        linear(&mut session, "cuMemcpy", Synchronous, 0, to, from, bytes)
    }

    fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: Handle) |session| {
        let (to, from) = (either(&session, to), either(&session, from));
        linear(&mut session, "cuMemcpyAsync", Asynchronous, stream, to, from, bytes)
    }

    fn cuMemcpyHtoD_v2(to: u64, from: HostAddress, bytes: usize) |session| {
        let from = host(&session, from);
        linear(&mut session, "cuMemcpyHtoD", Synchronous, 0, Side::Device(to), from, bytes)
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: HostAddress, bytes: usize, stream: Handle) |session| {
        let from = host(&session, from);
        linear(&mut session, "cuMemcpyHtoDAsync", Asynchronous, stream, Side::Device(to), from, bytes)
    }

    fn cuMemcpyDtoH_v2(to: HostAddress, from: u64, bytes: usize) |session| {
        let to = host(&session, to);
        linear(&mut session, "cuMemcpyDtoH", Synchronous, 0, to, Side::Device(from), bytes)
    }

    fn cuMemcpyDtoHAsync_v2(to: HostAddress, from: u64, bytes: usize, stream: Handle) |session| {
        let to = host(&session, to);
        linear(&mut session, "cuMemcpyDtoHAsync", Asynchronous, stream, to, Side::Device(from), bytes)
    }

    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) |session| {
        linear(&mut session, "cuMemcpyDtoD", Synchronous, 0, Side::Device(to), Side::Device(from), bytes)
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) |session| {
        linear(&mut session, "cuMemcpyDtoDAsync", Asynchronous, stream, Side::Device(to), Side::Device(from), bytes)
    }

    // An address says by itself on which device it lies.
    fn cuMemcpyPeer(to: u64, to_context: Handle, from: u64, from_context: Handle, bytes: usize) |session| {
        peer(&mut session, "cuMemcpyPeer", Synchronous, 0, [(to, to_context), (from, from_context)], bytes)
    }

    fn cuMemcpyPeerAsync(
        to: u64,
        to_context: Handle,
        from: u64,
        from_context: Handle,
        bytes: usize,
        stream: Handle,
    ) |session| {
        peer(&mut session, "cuMemcpyPeerAsync", Asynchronous, stream, [(to, to_context), (from, from_context)], bytes)
    }

    fn cuMemcpy2D_v2(copy: In<Copy2d>) |session| {
        let copy = described_2d(&session, copy.get()?)?;
        transfer(&mut session, "cuMemcpy2D", Synchronous, 0, copy)
    }

    fn cuMemcpy2DUnaligned_v2(copy: In<Copy2d>) |session| {
        let copy = described_2d(&session, copy.get()?)?;
        transfer(&mut session, "cuMemcpy2DUnaligned", Synchronous, 0, copy)
    }

    fn cuMemcpy2DAsync_v2(copy: In<Copy2d>, stream: Handle) |session| {
        let copy = described_2d(&session, copy.get()?)?;
        transfer(&mut session, "cuMemcpy2DAsync", Asynchronous, stream, copy)
    }

    fn cuMemcpy3D_v2(copy: In<Copy3d>) |session| {
        let copy = described_3d(&session, copy.get()?)?;
        transfer(&mut session, "cuMemcpy3D", Synchronous, 0, copy)
    }

    fn cuMemcpy3DAsync_v2(copy: In<Copy3d>, stream: Handle) |session| {
        let copy = described_3d(&session, copy.get()?)?;
        transfer(&mut session, "cuMemcpy3DAsync", Asynchronous, stream, copy)
    }

    fn cuMemcpy3DPeer(copy: In<Copy3d>) |session| {
        let copy = described_3d(&session, copy.get()?)?;
        transfer(&mut session, "cuMemcpy3DPeer", Synchronous, 0, copy)
    }

    fn cuMemcpy3DPeerAsync(copy: In<Copy3d>, stream: Handle) |session| {
        let copy = described_3d(&session, copy.get()?)?;
        transfer(&mut session, "cuMemcpy3DPeerAsync", Asynchronous, stream, copy)
    }
}
