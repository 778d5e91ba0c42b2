//! Streams and events.

use crate::driver::{Driver, Session};
use crate::handle::Handle;
use crate::order::Point;
use crate::status::{Outcome, Status};
use crate::work::Work;

/// What a stream is to the default stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The default stream itself: it waits for all that block, and they for it.
    Legacy,
    /// A thread's own default stream.
    PerThread,
    /// Created without `CU_STREAM_NON_BLOCKING`.
    Blocking,
    NonBlocking,
}

impl Role {
    /// Whether the default stream and this wait for each other.
    pub(crate) fn blocks(self) -> bool {
        matches!(self, Role::PerThread | Role::Blocking)
    }
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) context: Handle,
    /// Its timeline.
    pub(crate) line: usize,
    pub(crate) role: Role,
    pub(crate) priority: i32,
    /// Its number in its context, from 0, which is the default stream.
    pub(crate) number: u64,
    /// The point after its last operation.
    pub(crate) point: Point,
    /// The capture that it takes part in.
    pub(crate) part: Option<Part>,
}

/// A stream's part in a capture.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The number of the capture.
    pub(crate) capture: u64,
    /// The nodes that the next one comes after.
    pub(crate) frontier: Vec<Handle>,
}

impl Stream {
    pub(crate) fn new(context: Handle, line: usize, role: Role, priority: i32, number: u64) -> Stream {
        Stream { context, line, role, priority, number, point: Point::default(), part: None }
    }

    /// For findings: `stream 2`.
    fn name(&self) -> String {
        match self.role {
            Role::Legacy => "the default stream".into(),
            _ => format!("stream {}", self.number),
        }
    }
}

/// An event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) context: Handle,
    /// Whether it takes the time.
    pub(crate) timing: bool,
    /// The point at which it was last recorded.
    pub(crate) point: Option<Point>,
    /// Where it was last recorded, if in a capture.
    pub(crate) captured: Option<Part>,
}

impl Driver {
    /// The point that an operation submitted to a stream now would wait for.
    pub(crate) fn here(&self, stream: Handle) -> Outcome<Point> {
        let this = self.streams.get(stream)?;
        let mut point = this.point.clone();
        let joined = |other: &Stream| match this.role {
            Role::Legacy => other.role.blocks(),
            Role::PerThread | Role::Blocking => other.role == Role::Legacy,
            Role::NonBlocking => false,
        };
        for (_, other) in
            self.streams.iter().filter(|(_, other)| other.context == this.context && joined(other))
        {
            point.join(&other.point);
        }
        if this.role == Role::Legacy {
            point.join(&self.contexts.get(this.context)?.gone[1]);
        }
        Ok(point)
    }

    /// Submits an operation to a stream, or makes a node of it if the stream is captured.
    pub(crate) fn enqueue(&mut self, stream: Handle, what: &str, work: Work) -> Outcome {
        if let Some(part) = self.part(stream)? {
            return self.capture_work(stream, part, work);
        }
        let before = self.here(stream)?;
        let Stream { context, line, .. } = *self.streams.get(stream)?;
        let label = format!("{what} on {}", self.streams.get(stream)?.name());
        let after = self.submit(context, line, before, &label, work)?;
        self.streams.get_mut(stream)?.point = after;
        Ok(())
    }

    /// Records an event in a stream.
    pub(crate) fn record(&mut self, event: Handle, stream: Handle) -> Outcome {
        let context = self.streams.get(stream)?.context;
        if self.events.get(event)?.context != context {
            return Err(Status::INVALID_HANDLE);
        }
        if let Some(part) = self.part(stream)? {
            let event = self.events.get_mut(event)?;
            (event.captured, event.point) = (Some(part), None);
            return Ok(());
        }
        let mut point = self.here(stream)?;
        point.not_before(self.order.submit_ns());
        let event = self.events.get_mut(event)?;
        (event.captured, event.point) = (None, Some(point));
        Ok(())
    }

    /// Has a stream wait for an event.
    pub(crate) fn wait_event(&mut self, stream: Handle, event: Handle) -> Outcome {
        let Event { point, captured, .. } = self.events.get(event)?;
        match (point.clone(), captured.clone()) {
            (_, Some(from)) => self.join_capture(stream, &from),
            (Some(point), None) => {
                if self.part(stream)?.is_some() {
                    self.invalidate_capture_of(stream);
                    return Err(Status::STREAM_CAPTURE_ISOLATION);
                }
                // To the default stream, this is an operation, which waits for all that block, and they for it.
                let mut now = match self.streams.get(stream)?.role {
                    Role::Legacy => self.here(stream)?,
                    _ => self.streams.get(stream)?.point.clone(),
                };
                now.join(&point);
                self.streams.get_mut(stream)?.point = now;
                Ok(())
            }
            (None, None) => Ok(()), // never recorded: nothing to wait for
        }
    }

    /// The event's point, unless it was recorded in a capture, which such a question ends.
    fn event_point(&mut self, event: Handle) -> Outcome<(Handle, Point)> {
        let Event { context, point, captured, .. } = self.events.get(event)?;
        if let Some(part) = captured {
            let capture = part.capture;
            self.invalidate(capture);
            return Err(Status::CAPTURED_EVENT);
        }
        Ok((*context, point.clone().unwrap_or_default()))
    }

    /// Milliseconds between two events.
    pub(crate) fn elapsed(&mut self, start: Handle, end: Handle) -> Outcome<f32> {
        let mut times = [0; 2];
        for (time, event) in times.iter_mut().zip([start, end]) {
            let Event { timing, point, captured, .. } = self.events.get(event)?;
            let Some(point) = point.as_ref().filter(|_| *timing && captured.is_none()) else {
                return Err(Status::INVALID_HANDLE);
            };
            if !point.is_reached() {
                return Err(Status::NOT_READY);
            }
            *time = point.end_ns();
        }
        Ok(((times[1] as f64 - times[0] as f64) / 1e6) as f32)
    }
}

impl Session {
    /// Whether a point has been reached, which the host then knows.
    fn query(&mut self, context: Handle, point: &Point) -> Outcome {
        if !point.is_reached() {
            return Err(Status::NOT_READY);
        }
        self.reach(context, point)
    }

    pub(crate) fn query_event(&mut self, event: Handle) -> Outcome {
        let (context, point) = self.event_point(event)?;
        self.not_while_capturing("cuEventQuery")?;
        self.query(context, &point)
    }

    pub(crate) fn synchronize_event(&mut self, event: Handle) -> Outcome {
        let (context, point) = self.event_point(event)?;
        self.reach(context, &point)
    }

    pub(crate) fn query_stream(&mut self, stream: Handle) -> Outcome {
        let (context, point) = self.uncaptured(stream)?;
        self.query(context, &point)
    }

    pub(crate) fn synchronize_stream(&mut self, stream: Handle) -> Outcome {
        let (context, point) = self.uncaptured(stream)?;
        self.reach(context, &point)
    }

    /// What a stream waits for. A captured stream cannot be waited for; the attempt ends the capture.
    fn uncaptured(&mut self, stream: Handle) -> Outcome<(Handle, Point)> {
        if self.part(stream)?.is_some() {
            self.invalidate_capture_of(stream);
            return Err(Status::STREAM_CAPTURE_UNSUPPORTED);
        }
        Ok((self.streams.get(stream)?.context, self.here(stream)?))
    }
}
