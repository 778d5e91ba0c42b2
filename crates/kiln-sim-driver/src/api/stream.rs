//! Streams and their capture.

#![allow(non_snake_case)]

use crate::capture::{self, Mode};
use crate::driver::Session;
use crate::entry::calls;
use crate::ffi::{HostCall, Out};
use crate::handle::Handle;
use crate::status::{Outcome, Status};
use crate::stream::Role;
use crate::work::Work;

/// The highest priority; the lowest is 0.
pub(crate) const PRIORITY_GREATEST: i32 = -5;
const NON_BLOCKING: u32 = 1;

fn create(session: &mut Session, stream: Out<Handle>, flags: u32, priority: i32) -> Outcome {
    stream.check()?;
    let context = session.context()?;
    let role = match flags {
        0 => Role::Blocking,
        NON_BLOCKING => Role::NonBlocking,
        _ => return Err(Status::INVALID_VALUE),
    };
    let created = session.create_stream(context, role, priority.clamp(PRIORITY_GREATEST, 0))?;
    stream.set(created)
}

/// What the two versions of the question have in common: status, number, graph.
fn capture_info(
    session: &Session,
    stream: Handle,
    status: Out<i32>,
    id: Out<u64>,
    graph: Out<Handle>,
) -> Outcome {
    let code = session.capture_status(stream)?;
    status.set(code)?;
    if let Some(part) = session.streams.get(stream)?.part.as_ref().filter(|_| code == 1) {
        id.set_if_wanted(part.capture)?;
        graph.set_if_wanted(session.captures.get(&part.capture).ok_or(Status::ILLEGAL_STATE)?.graph)?;
    }
    Ok(())
}

/// The nodes that the next one comes after: where they are, and how many. They stay there until the stream moves on.
fn frontier(session: &Session, stream: Handle, nodes: Out<*const Handle>, count: Out<usize>) -> Outcome {
    let part = session.streams.get(stream)?.part.as_ref();
    let frontier = part.map_or(&[][..], |part| &part.frontier);
    nodes.set_if_wanted(frontier.as_ptr())?;
    count.set_if_wanted(frontier.len())
}

calls! {
    fn cuStreamCreate(stream: Out<Handle>, flags: u32) |session| {
        create(&mut session, stream, flags, 0)
    }

    fn cuStreamCreateWithPriority(stream: Out<Handle>, flags: u32, priority: i32) |session| {
        create(&mut session, stream, flags, priority)
    }

    fn cuStreamDestroy_v2(stream: Handle) |session| {
        if stream <= 2 {
            return Err(Status::INVALID_HANDLE);
        }
        let stream = session.stream(stream)?;
        session.destroy_stream(stream)
    }

    fn cuStreamQuery(stream: Handle) |session| {
        let stream = session.stream(stream)?;
        session.query_stream(stream)
    }

    fn cuStreamSynchronize(stream: Handle) |session| {
        let stream = session.stream(stream)?;
        session.synchronize_stream(stream)
    }

    fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: u32) |session| {
        if flags != 0 {
            return Err(if flags == 1 { Status::NOT_SUPPORTED } else { Status::INVALID_VALUE });
        }
        let stream = session.stream(stream)?;
        session.wait_event(stream, event)
    }

    fn cuLaunchHostFunc(stream: Handle, function: Option<extern "C" fn(usize)>, argument: usize) |session| {
        let call = HostCall::new(function, argument)?;
        let stream = session.stream(stream)?;
        session.enqueue(stream, "host function", Work::Host(call))
    }

    // Attachment says who may touch managed memory when; the simulator has it coherent at any time.
    fn cuStreamAttachMemAsync(stream: Handle, address: u64, _bytes: usize, flags: u32) |session| {
        let stream = session.stream(stream)?;
        let managed = session.memory.at(address).is_some_and(|(_, block)| block.kind == crate::memory::Kind::Managed);
        if !managed || !matches!(flags, 1 | 2 | 4) {
            return Err(Status::INVALID_VALUE);
        }
        session.enqueue(stream, "attachment", Work::Nothing)
    }

    fn cuStreamGetPriority(stream: Handle, priority: Out<i32>) |session| {
        let stream = session.stream(stream)?;
        priority.set(session.streams.get(stream)?.priority)
    }

    fn cuStreamGetFlags(stream: Handle, flags: Out<u32>) |session| {
        let stream = session.stream(stream)?;
        flags.set(u32::from(session.streams.get(stream)?.role == Role::NonBlocking))
    }

    fn cuStreamGetId(stream: Handle, id: Out<u64>) |session| {
        let stream = session.stream(stream)?;
        id.set(stream as u64)
    }

    fn cuStreamGetCtx(stream: Handle, context: Out<Handle>) |session| {
        let stream = session.stream(stream)?;
        context.set(session.streams.get(stream)?.context)
    }

    fn cuStreamGetDevice(stream: Handle, device: Out<i32>) |session| {
        let stream = session.stream(stream)?;
        let context = session.streams.get(stream)?.context;
        device.set(session.gpu_of(context)? as i32)
    }

    fn cuStreamBeginCapture_v2(stream: Handle, mode: i32) |session| {
        let mode = Mode::new(mode)?;
        let stream = session.stream(stream)?;
        session.begin_capture(stream, mode)
    }

    fn cuStreamEndCapture(stream: Handle, graph: Out<Handle>) |session| {
        graph.check()?;
        graph.set(0)?;
        let stream = session.stream(stream)?;
        graph.set(session.end_capture(stream)?)
    }

    fn cuStreamIsCapturing(stream: Handle, status: Out<i32>) |session| {
        let stream = session.stream(stream)?;
        status.set(session.capture_status(stream)?)
    }

    fn cuStreamGetCaptureInfo_v2(
        stream: Handle,
        status: Out<i32>,
        id: Out<u64>,
        graph: Out<Handle>,
        nodes: Out<*const Handle>,
        count: Out<usize>,
    ) |session| {
        let stream = session.stream(stream)?;
        capture_info(&session, stream, status, id, graph)?;
        frontier(&session, stream, nodes, count)
    }

    fn cuStreamGetCaptureInfo_v3(
        stream: Handle,
        status: Out<i32>,
        id: Out<u64>,
        graph: Out<Handle>,
        nodes: Out<*const Handle>,
        edges: Out<usize>,
        count: Out<usize>,
    ) |session| {
        let stream = session.stream(stream)?;
        capture_info(&session, stream, status, id, graph)?;
        edges.set_if_wanted(0)?;
        frontier(&session, stream, nodes, count)
    }

    fn cuThreadExchangeStreamCaptureMode(mode: Out<i32>) {
        let new = Mode::new(mode.get()?)?;
        mode.set(capture::exchange_mode(new) as i32)
    }
}
