//! Events.

#![allow(non_snake_case)]

use crate::entry::calls;
use crate::ffi::Out;
use crate::handle::Handle;
use crate::status::Status;
use crate::stream::Event;

/// `CU_EVENT_*`: blocking sync, no timing, between processes.
const DISABLE_TIMING: u32 = 2;
const INTERPROCESS: u32 = 4;
const FLAGS: u32 = 7;

calls! {
    fn cuEventCreate(event: Out<Handle>, flags: u32) |session| {
        event.check()?;
        let context = session.context()?;
        if flags & !FLAGS != 0 || flags & INTERPROCESS != 0 {
            return Err(if flags & !FLAGS != 0 { Status::INVALID_VALUE } else { Status::NOT_SUPPORTED });
        }
        let timing = flags & DISABLE_TIMING == 0;
        let created = session.events.insert(Event { context, timing, point: None, captured: None });
        event.set(created)
    }

    fn cuEventDestroy_v2(event: Handle) |session| {
        let context = session.events.get(event)?.context;
        session.check(context)?;
        session.events.remove(event).map(drop)
    }

    fn cuEventRecord(event: Handle, stream: Handle) |session| {
        let stream = session.stream(stream)?;
        session.record(event, stream)
    }

    fn cuEventRecordWithFlags(event: Handle, stream: Handle, flags: u32) |session| {
        if flags != 0 {
            return Err(if flags == 1 { Status::NOT_SUPPORTED } else { Status::INVALID_VALUE });
        }
        let stream = session.stream(stream)?;
        session.record(event, stream)
    }

    fn cuEventQuery(event: Handle) |session| {
        session.query_event(event)
    }

    fn cuEventSynchronize(event: Handle) |session| {
        session.synchronize_event(event)
    }

    fn cuEventElapsedTime(milliseconds: Out<f32>, start: Handle, end: Handle) |session| {
        milliseconds.set(session.elapsed(start, end)?)
    }

    fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: Handle, end: Handle) |session| {
        milliseconds.set(session.elapsed(start, end)?)
    }
}
