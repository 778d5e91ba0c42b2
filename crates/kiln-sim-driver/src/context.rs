//! Contexts: which one a thread uses, what belongs to one, and how one ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_sim::finding::{Finding, Kind, Location, Place};

use crate::driver::{Driver, Session};
use crate::handle::Handle;
use crate::order::Point;
use crate::status::{Outcome, Status};
use crate::stream::{Role, Stream};

/// A context.
#[derive(Debug)]
pub(crate) struct Context {
    /// The GPU that it is on.
    pub(crate) gpu: usize,
    pub(crate) flags: u32,
    /// What went wrong, from which only destruction leads out.
    pub(crate) error: Option<Status>,
    /// Whether a synchronising call has answered with the error; from then on, every call does.
    pub(crate) surfaced: bool,
    /// The stream that the handles 0 and 1 mean.
    pub(crate) legacy: Handle,
    /// The points after what was submitted to streams that are gone: of all, and of those for which the default stream waits.
    pub(crate) gone: [Point; 2],
    /// The streams that the handle 2 means, by thread.
    per_thread: BTreeMap<u64, Handle>,
    /// `CUlimit`, by number; defaults where there is none.
    pub(crate) limits: BTreeMap<i32, usize>,
    pub(crate) cache: i32,
    pub(crate) shared_banks: i32,
    /// Streams created so far, for their numbers.
    streams: u64,
}

thread_local! {
    static STACK: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// The calling thread's current context.
pub(crate) fn current() -> Option<Handle> {
    STACK.with_borrow(|stack| stack.last().copied())
}

/// Replaces the current context; 0 removes it.
pub(crate) fn set_current(context: Handle) {
    STACK.with_borrow_mut(|stack| {
        stack.pop();
        if context != 0 {
            stack.push(context);
        }
    });
}

/// Makes a context current on top of the present one.
pub(crate) fn push(context: Handle) {
    STACK.with_borrow_mut(|stack| stack.push(context));
}

/// Takes the current context off the stack.
pub(crate) fn pop() -> Option<Handle> {
    STACK.with_borrow_mut(Vec::pop)
}

/// A number for the calling thread, from 1.
pub(crate) fn thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static ID: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
    ID.with(|&id| id)
}

impl Driver {
    /// Creates a context on a GPU.
    pub(crate) fn create_context(&mut self, gpu: usize, flags: u32) -> Outcome<Handle> {
        if self.gpus[gpu].lost {
            return Err(Status::DEVICE_UNAVAILABLE);
        }
        let context = self.contexts.insert(Context {
            gpu,
            flags,
            error: None,
            surfaced: false,
            legacy: 0,
            gone: Default::default(),
            per_thread: BTreeMap::new(),
            limits: BTreeMap::new(),
            cache: 0,
            shared_banks: 0,
            streams: 0,
        });
        let legacy = self.create_stream(context, Role::Legacy, 0)?;
        self.contexts.get_mut(context)?.legacy = legacy;
        Ok(context)
    }

    /// Creates a stream of a context.
    pub(crate) fn create_stream(&mut self, context: Handle, role: Role, priority: i32) -> Outcome<Handle> {
        let line = self.order.open();
        let owner = self.contexts.get_mut(context)?;
        let number = owner.streams;
        owner.streams += 1;
        Ok(self.streams.insert(Stream::new(context, line, role, priority, number)))
    }

    /// The stream that a handle means in the current context.
    pub(crate) fn stream(&mut self, raw: Handle) -> Outcome<Handle> {
        let context = self.context()?;
        match raw {
            0 | 1 => Ok(self.contexts.get(context)?.legacy),
            2 => {
                let thread = thread();
                if let Some(&stream) = self.contexts.get(context)?.per_thread.get(&thread) {
                    return Ok(stream);
                }
                let stream = self.create_stream(context, Role::PerThread, 0)?;
                self.contexts.get_mut(context)?.per_thread.insert(thread, stream);
                Ok(stream)
            }
            handle => {
                // A stream can be used whichever context is current, but not after its own has failed.
                let owner = self.streams.get(handle)?.context;
                self.check(owner)?;
                Ok(handle)
            }
        }
    }

    /// Removes a stream. What was submitted to it still runs.
    pub(crate) fn destroy_stream(&mut self, stream: Handle) -> Outcome {
        self.abandon_capture(stream)?;
        let Stream { context, line, role, point, .. } = self.streams.remove(stream)?;
        self.order.timelines.retire(line);
        let [all, blocking] = &mut self.contexts.get_mut(context)?.gone;
        all.join(&point);
        if role.blocks() {
            blocking.join(&point);
        }
        Ok(())
    }

    /// The GPU of a context.
    pub(crate) fn gpu_of(&self, context: Handle) -> Outcome<usize> {
        Ok(self.contexts.get(context)?.gpu)
    }

    /// The point after all that was submitted to a context.
    pub(crate) fn end_of(&self, context: Handle) -> Point {
        let mut point = self.contexts.get(context).map_or_else(|_| Point::default(), |it| it.gone[0].clone());
        for (_, stream) in self.streams.iter().filter(|(_, stream)| stream.context == context) {
            point.join(&stream.point);
        }
        point
    }

    /// What is still allocated in a context, as findings.
    fn leaks(&self, context: Handle) -> Vec<Finding> {
        let Ok(owner) = self.contexts.get(context) else { return Vec::new() };
        if owner.error.is_some() {
            return Vec::new(); // after an error, freeing is refused
        }
        let place = Place::outside(Arc::from(format!("the end of a context of device {}", owner.gpu)));
        let leak = |(address, block): (u64, &crate::memory::Block)| Finding {
            kind: Kind::Leak,
            message: format!("{} bytes of {} were never freed", block.bytes, block.kind.name()),
            place: place.clone(),
            other: None,
            location: Some(Location {
                space: "global",
                address,
                bytes: u32::try_from(block.bytes).unwrap_or(u32::MAX),
                what: format!("allocated by {}", block.call),
            }),
        };
        self.memory.of(context).map(leak).collect()
    }

    /// Reports what is still allocated in any context.
    pub(crate) fn report_leaks_of_all(&mut self) {
        let contexts: Vec<Handle> = self.contexts.iter().map(|(handle, _)| handle).collect();
        for context in contexts {
            let leaks = self.leaks(context);
            self.reporter.report(&leaks);
        }
    }

    /// Reports what is still allocated in a context, and takes down all that belongs to it.
    fn tear_down(&mut self, context: Handle) -> Outcome {
        let leaks = self.leaks(context);
        self.reporter.report(&leaks);
        for address in self.memory.of(context).map(|(address, _)| address).collect::<Vec<_>>() {
            // In a context that failed or was lost there may be nothing left to free.
            let _ = self.release(address);
        }
        let gpu = self.gpu_of(context)?;
        for module in self.modules.take(|module| module.context == context) {
            self.gpus[gpu].device.unload(&module.loaded);
        }
        self.functions.take(|function| function.context == context);
        self.events.take(|event| event.context == context);
        let own = |stream: &(Handle, &Stream)| stream.1.context == context;
        for stream in self.streams.iter().filter(own).map(|(stream, _)| stream).collect::<Vec<_>>() {
            self.destroy_stream(stream)?;
        }
        self.contexts.remove(context).map(drop)
    }
}

impl Session {
    /// Waits until all that was submitted to a context is done, and ends the context.
    pub(crate) fn destroy_context(&mut self, context: Handle) -> Outcome {
        let end = self.end_of(context);
        self.wait(end.pending());
        self.order.host_waited(&end);
        self.check_sources();
        self.tear_down(context)
    }

    /// Waits until all that was submitted to a context is done.
    pub(crate) fn synchronize(&mut self, context: Handle) -> Outcome {
        let end = self.end_of(context);
        self.reach(context, &end)
    }

    /// Waits until a point is reached, after which the host knows all before it, and any error of the context.
    pub(crate) fn reach(&mut self, context: Handle, point: &Point) -> Outcome {
        self.wait(point.pending());
        self.order.host_waited(point);
        self.check_sources();
        self.surface(context)
    }

    /// Answers with the context's error, if there is one, as every call will from now on.
    pub(crate) fn surface(&mut self, context: Handle) -> Outcome {
        let context = self.contexts.get_mut(context)?;
        context.surfaced |= context.error.is_some();
        context.error.map_or(Ok(()), Err)
    }
}
