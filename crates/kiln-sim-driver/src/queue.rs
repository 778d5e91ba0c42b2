//! Operations on their way to the device.
//!
//! An operation runs as soon as everything that it waits for is done, which is at once unless a function of the
//! program (`cuLaunchHostFunc`) runs before it: that runs on a thread of its own, and what follows it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use kiln_sim::stamp::Stamp;

use crate::driver::{self, Driver, Session};
use crate::entry;
use crate::ffi::HostCall;
use crate::handle::Handle;
use crate::order::Point;
use crate::status::{Outcome, Status};
use crate::work::{Failure, Work};

/// The promise that an operation gets done, held by whatever waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Ticket(Arc<State>);

#[derive(Debug, Default)]
struct State {
    done: AtomicBool,
    end_ns: AtomicU64,
    refused: AtomicI32,
}

impl Ticket {
    fn new() -> Ticket {
        Ticket(Arc::default())
    }

    /// Whether both are of the same operation.
    pub(crate) fn is(&self, other: &Ticket) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the operation is done.
    pub(crate) fn is_done(&self) -> bool {
        self.0.done.load(Ordering::Acquire)
    }

    /// When it ended, in simulated nanoseconds; 0 before that.
    pub(crate) fn end_ns(&self) -> u64 {
        self.0.end_ns.load(Ordering::Acquire)
    }

    fn finish(&self, end_ns: u64) {
        self.0.end_ns.store(end_ns, Ordering::Release);
        self.0.done.store(true, Ordering::Release);
    }

    /// An error if the operation was refused for how it was asked for.
    fn accepted(&self) -> Outcome {
        match self.0.refused.load(Ordering::Acquire) {
            0 => Ok(()),
            code => Err(Status(code)),
        }
    }
}

/// One operation.
#[derive(Debug)]
pub(crate) struct Task {
    ticket: Ticket,
    after: Point,
    stamp: Stamp,
    context: Handle,
    work: Work,
}

impl Driver {
    /// Submits an operation on a timeline, after `after`, and runs it at once if it can. Gives the point after it.
    pub(crate) fn submit(
        &mut self,
        context: Handle,
        line: usize,
        mut after: Point,
        label: &str,
        work: Work,
    ) -> Outcome<Point> {
        let ticket = Ticket::new();
        after.not_before(self.order.submit_ns());
        let stamp = self.order.issue(line, &after, Arc::from(label));
        let point = Point::after(&stamp, ticket.clone());
        self.waiting.push(Task { ticket: ticket.clone(), after, stamp, context, work });
        self.drain();
        ticket.accepted()?;
        Ok(point)
    }

    /// Runs whatever can run, in the order in which it was submitted.
    fn drain(&mut self) {
        while let Some(at) = self.waiting.iter().position(|task| task.after.is_reached()) {
            let task = self.waiting.remove(at);
            self.run(task);
        }
    }

    fn run(&mut self, task: Task) {
        let Task { ticket, after, stamp, context, work } = task;
        let start_ns = after.end_ns();
        if self.contexts.get(context).map_or(true, |context| context.error.is_some()) {
            // As on hardware: after an error, what is left in the context's streams is dropped.
            return ticket.finish(start_ns);
        }
        if let Work::Host(call) = work {
            return call_on_a_thread(call, ticket, start_ns);
        }
        match self.perform(context, &stamp, &work) {
            Ok(took_ns) => return ticket.finish(start_ns + took_ns),
            Err(Failure::Refused(status)) => ticket.0.refused.store(status.0, Ordering::Release),
            Err(Failure::Broken(status)) => self.fail(context, status),
        }
        ticket.finish(start_ns);
    }

    /// Puts the context into the state from which only its destruction leads out.
    pub(crate) fn fail(&mut self, context: Handle, status: Status) {
        if let Ok(context) = self.contexts.get_mut(context) {
            context.error.get_or_insert(status);
        }
    }
}

fn call_on_a_thread(call: HostCall, ticket: Ticket, start_ns: u64) {
    let done = ticket.clone();
    let run = move || {
        driver::in_a_stream(|| call.call());
        let drained = entry::contain("a host function", || {
            let mut session = Session::open()?;
            ticket.finish(start_ns);
            session.drain();
            Ok(())
        });
        if drained.is_err() {
            ticket.finish(start_ns);
        }
        Session::changed();
    };
    if std::thread::Builder::new().name("kiln-sim host function".into()).spawn(run).is_err() {
        // Without a thread the function cannot run beside the caller; what follows must not wait for ever.
        crate::report::note("cuLaunchHostFunc", "no thread for the host function: it did not run");
        done.finish(start_ns);
    }
}
