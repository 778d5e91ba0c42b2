//! Fills. Nobody waits for one, not even the caller of a synchronous one, unless it fills host memory.

#![allow(non_snake_case)]

use crate::driver::Session;
use crate::entry::calls;
use crate::ffi::HostAddress;
use crate::handle::Handle;
use crate::status::{Outcome, Status};
use crate::work::{Fill, Work};

/// A rectangle to fill: pitch in bytes, width in elements, height in rows.
#[derive(Clone, Copy)]
struct Area {
    target: u64,
    pitch: usize,
    width: usize,
    height: usize,
}

/// Elements that follow each other.
fn row(target: u64, count: usize) -> Area {
    Area { target, pitch: 0, width: count, height: 1 }
}

/// A checked fill of an area with one element, given by its bytes.
pub(super) fn fill_of(
    target: u64,
    pitch: usize,
    [width, height]: [usize; 2],
    element: &[u8],
) -> Outcome<Fill> {
    let bytes = width.checked_mul(element.len()).ok_or(Status::INVALID_VALUE)?;
    let aligned = |value: u64| value.is_multiple_of(element.len() as u64);
    if !aligned(target) || height > 1 && (bytes > pitch || !aligned(pitch as u64)) {
        return Err(Status::INVALID_VALUE);
    }
    Ok(Fill { target, pattern: element.to_vec(), pitch: pitch as u64, extent: [width as u64, height as u64] })
}

fn make(area: Area, element: &[u8]) -> Outcome<Fill> {
    fill_of(area.target, area.pitch, [area.width, area.height], element)
}

fn submit(session: &mut Session, stream: Handle, fill: Fill) -> Outcome<Handle> {
    let stream = session.stream(stream)?;
    session.enqueue(stream, "fill", Work::Fill(fill))?;
    Ok(stream)
}

fn asynchronous(session: &mut Session, stream: Handle, area: Area, element: &[u8]) -> Outcome {
    submit(session, stream, make(area, element)?).map(drop)
}

fn synchronous(session: &mut Session, area: Area, element: &[u8]) -> Outcome {
    session.not_while_capturing("cuMemset")?;
    let on_host = session.memory.is_mapped(HostAddress(area.target as usize));
    let stream = submit(session, 0, make(area, element)?)?;
    if on_host {
        return session.synchronize_stream(stream);
    }
    let context = session.streams.get(stream)?.context;
    session.surface(context)
}

calls! {
    fn cuMemsetD8_v2(target: u64, value: u8, count: usize) |session| {
        synchronous(&mut session, row(target, count), &[value])
    }

    fn cuMemsetD16_v2(target: u64, value: u16, count: usize) |session| {
        synchronous(&mut session, row(target, count), &value.to_le_bytes())
    }

    fn cuMemsetD32_v2(target: u64, value: u32, count: usize) |session| {
        synchronous(&mut session, row(target, count), &value.to_le_bytes())
    }

    fn cuMemsetD8Async(target: u64, value: u8, count: usize, stream: Handle) |session| {
        asynchronous(&mut session, stream, row(target, count), &[value])
    }

    fn cuMemsetD16Async(target: u64, value: u16, count: usize, stream: Handle) |session| {
        asynchronous(&mut session, stream, row(target, count), &value.to_le_bytes())
    }

    fn cuMemsetD32Async(target: u64, value: u32, count: usize, stream: Handle) |session| {
        asynchronous(&mut session, stream, row(target, count), &value.to_le_bytes())
    }

    fn cuMemsetD2D8_v2(target: u64, pitch: usize, value: u8, width: usize, height: usize) |session| {
        synchronous(&mut session, Area { target, pitch, width, height }, &[value])
    }

    fn cuMemsetD2D16_v2(target: u64, pitch: usize, value: u16, width: usize, height: usize) |session| {
        synchronous(&mut session, Area { target, pitch, width, height }, &value.to_le_bytes())
    }

    fn cuMemsetD2D32_v2(target: u64, pitch: usize, value: u32, width: usize, height: usize) |session| {
        synchronous(&mut session, Area { target, pitch, width, height }, &value.to_le_bytes())
    }

    fn cuMemsetD2D8Async(target: u64, pitch: usize, value: u8, width: usize, height: usize, stream: Handle) |session| {
        asynchronous(&mut session, stream, Area { target, pitch, width, height }, &[value])
    }

    fn cuMemsetD2D16Async(target: u64, pitch: usize, value: u16, width: usize, height: usize, stream: Handle) |session| {
        asynchronous(&mut session, stream, Area { target, pitch, width, height }, &value.to_le_bytes())
    }

    fn cuMemsetD2D32Async(target: u64, pitch: usize, value: u32, width: usize, height: usize, stream: Handle) |session| {
        asynchronous(&mut session, stream, Area { target, pitch, width, height }, &value.to_le_bytes())
    }
}
