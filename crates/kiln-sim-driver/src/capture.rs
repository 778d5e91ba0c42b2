//! Stream capture: operations become nodes of a graph in place of being done.

use std::cell::Cell;

use crate::context::thread;
use crate::driver::Driver;
use crate::graph::Graph;
use crate::handle::Handle;
use crate::report::note;
use crate::status::{Outcome, Status};
use crate::stream::{Part, Role};
use crate::work::Work;

/// `CUstreamCaptureMode`: which calls a capture forbids that could disturb it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Global = 0,
    ThreadLocal = 1,
    Relaxed = 2,
}

impl Mode {
    pub(crate) fn new(mode: i32) -> Outcome<Mode> {
        match mode {
            0 => Ok(Mode::Global),
            1 => Ok(Mode::ThreadLocal),
            2 => Ok(Mode::Relaxed),
            _ => Err(Status::INVALID_VALUE),
        }
    }
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Global) };
}

/// Exchanges the calling thread's own mode.
pub(crate) fn exchange_mode(mode: Mode) -> Mode {
    MODE.replace(mode)
}

/// A capture under way.
#[derive(Debug)]
pub(crate) struct Capture {
    /// The stream on which it began.
    origin: Handle,
    mode: Mode,
    /// The thread that began it.
    thread: u64,
    pub(crate) graph: Handle,
    /// Whether something was done that a graph cannot hold.
    pub(crate) invalid: bool,
}

impl Driver {
    /// Begins a capture on a stream.
    pub(crate) fn begin_capture(&mut self, stream: Handle, mode: Mode) -> Outcome {
        let this = self.streams.get(stream)?;
        if this.role == Role::Legacy {
            return Err(Status::STREAM_CAPTURE_UNSUPPORTED);
        }
        if this.part.is_some() {
            return Err(Status::ILLEGAL_STATE);
        }
        let graph = self.graphs.insert(Graph::default());
        self.captures_begun += 1;
        let number = self.captures_begun;
        self.captures
            .insert(number, Capture { origin: stream, mode, thread: thread(), graph, invalid: false });
        self.streams.get_mut(stream)?.part = Some(Part { capture: number, frontier: Vec::new() });
        Ok(())
    }

    /// Ends the capture that began on a stream; gives the graph.
    pub(crate) fn end_capture(&mut self, stream: Handle) -> Outcome<Handle> {
        let Some(part) = self.streams.get(stream)?.part.clone() else { return Err(Status::ILLEGAL_STATE) };
        let capture = self.captures.get(&part.capture).ok_or(Status::ILLEGAL_STATE)?;
        if capture.origin != stream {
            self.invalidate(part.capture);
            return Err(Status::STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != Mode::Relaxed && capture.thread != thread() {
            return Err(Status::STREAM_CAPTURE_WRONG_THREAD);
        }
        let (graph, invalid) = (capture.graph, capture.invalid);
        let unjoined = self.leave_capture(part.capture, stream, &part.frontier)?;
        self.captures.remove(&part.capture);
        if invalid || unjoined {
            self.destroy_graph(graph)?;
            let unjoined = Err(Status::STREAM_CAPTURE_UNJOINED);
            return if invalid { Err(Status::STREAM_CAPTURE_INVALIDATED) } else { unjoined };
        }
        Ok(graph)
    }

    /// Ends a capture whose stream is about to go: one that began there can never be ended otherwise.
    pub(crate) fn abandon_capture(&mut self, stream: Handle) -> Outcome {
        self.invalidate_capture_of(stream);
        let began = self.captures.iter().find(|(_, capture)| capture.origin == stream);
        let Some((&number, &Capture { graph, .. })) = began else { return Ok(()) };
        self.captures.remove(&number);
        for stream in self.streams.iter_mut() {
            stream.part.take_if(|part| part.capture == number);
        }
        // The program may have destroyed it: `cuStreamGetCaptureInfo` gives it away.
        let _ = self.destroy_graph(graph);
        Ok(())
    }

    /// Takes all streams out of a capture; whether one of them has work that its origin does not wait for.
    fn leave_capture(&mut self, capture: u64, origin: Handle, joined: &[Handle]) -> Outcome<bool> {
        let known = self.ancestors(joined)?;
        let streams: Vec<Handle> = self.streams.iter().map(|(stream, _)| stream).collect();
        let mut unjoined = false;
        for stream in streams {
            let this = self.streams.get_mut(stream)?;
            if let Some(part) = this.part.take_if(|part| part.capture == capture) {
                unjoined |= stream != origin && part.frontier.iter().any(|node| !known.contains(node));
            }
        }
        Ok(unjoined)
    }

    /// `CUstreamCaptureStatus`: 0 without a capture, 1 in one, 2 in one that is no longer valid.
    pub(crate) fn capture_status(&self, stream: Handle) -> Outcome<i32> {
        let part = self.streams.get(stream)?.part.as_ref();
        let capture = part.and_then(|part| self.captures.get(&part.capture));
        Ok(capture.map_or(0, |capture| if capture.invalid { 2 } else { 1 }))
    }

    /// The stream's part in a capture, for an operation that is submitted to it. Work for the default stream is
    /// refused while a stream that blocks it is captured.
    pub(crate) fn part(&mut self, stream: Handle) -> Outcome<Option<Part>> {
        let this = self.streams.get(stream)?;
        if let Some(part) = &this.part {
            let capture = self.captures.get(&part.capture).ok_or(Status::ILLEGAL_STATE)?;
            return if capture.invalid {
                Err(Status::STREAM_CAPTURE_INVALIDATED)
            } else {
                Ok(Some(part.clone()))
            };
        }
        if this.role != Role::Legacy {
            return Ok(None);
        }
        let blocked = |other: &crate::stream::Stream| other.context == this.context && other.role.blocks();
        let captured: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, other)| blocked(other))
            .filter_map(|(_, other)| other.part.as_ref().map(|part| part.capture))
            .collect();
        if captured.is_empty() {
            return Ok(None);
        }
        captured.into_iter().for_each(|capture| self.invalidate(capture));
        Err(Status::STREAM_CAPTURE_IMPLICIT)
    }

    /// Marks a capture as no longer valid.
    pub(crate) fn invalidate(&mut self, capture: u64) {
        if let Some(capture) = self.captures.get_mut(&capture) {
            capture.invalid = true;
        }
    }

    /// Marks the capture of a stream as no longer valid.
    pub(crate) fn invalidate_capture_of(&mut self, stream: Handle) {
        let part = self.streams.get(stream).ok().and_then(|stream| stream.part.as_ref());
        if let Some(capture) = part.map(|part| part.capture) {
            self.invalidate(capture);
        }
    }

    /// Refuses a call that could disturb a capture under way, as CUDA's capture modes define it.
    pub(crate) fn not_while_capturing(&mut self, call: &str) -> Outcome {
        let (own, me) = (MODE.get(), thread());
        let disturbed = |capture: &Capture| match own {
            Mode::Relaxed => false,
            _ if capture.thread == me => capture.mode != Mode::Relaxed,
            Mode::ThreadLocal => false,
            Mode::Global => capture.mode == Mode::Global,
        };
        let mut refused = false;
        for capture in self.captures.values_mut().filter(|capture| disturbed(capture)) {
            (capture.invalid, refused) = (true, true);
        }
        if refused {
            note(call, "not permitted while a stream is captured");
            return Err(Status::STREAM_CAPTURE_UNSUPPORTED);
        }
        Ok(())
    }

    /// Makes a node of an operation, after the stream's others.
    pub(crate) fn capture_work(&mut self, stream: Handle, part: Part, work: Work) -> Outcome {
        if matches!(work, Work::Allocate(_) | Work::Free(_)) {
            note("cuMemFreeAsync", "the simulator has no graph nodes that allocate or free");
            self.invalidate(part.capture);
            return Err(Status::NOT_SUPPORTED);
        }
        let graph = self.captures.get(&part.capture).ok_or(Status::ILLEGAL_STATE)?.graph;
        let node = self.add_node(graph, &part.frontier, work)?;
        self.streams.get_mut(stream)?.part = Some(Part { frontier: vec![node], ..part });
        Ok(())
    }

    /// Has a stream wait for an event that was recorded in a capture: the stream joins the capture.
    pub(crate) fn join_capture(&mut self, stream: Handle, from: &Part) -> Outcome {
        if !self.captures.contains_key(&from.capture) {
            return Err(Status::CAPTURED_EVENT);
        }
        let this = self.streams.get_mut(stream)?;
        match &mut this.part {
            Some(part) if part.capture == from.capture => {
                let new = from.frontier.iter().filter(|node| !part.frontier.contains(node)).copied();
                let new: Vec<Handle> = new.collect();
                part.frontier.extend(new);
                Ok(())
            }
            Some(part) => {
                let other = part.capture;
                self.invalidate(other);
                self.invalidate(from.capture);
                Err(Status::STREAM_CAPTURE_MERGE)
            }
            None if this.role == Role::Legacy => {
                self.invalidate(from.capture);
                Err(Status::STREAM_CAPTURE_IMPLICIT)
            }
            None => {
                this.part = Some(from.clone());
                Ok(())
            }
        }
    }
}
