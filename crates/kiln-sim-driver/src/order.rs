//! The order of operations as a whole: points in it, what the host knows, and a clock for event timing.
//!
//! Times are simulated: an operation starts when all that it waits for has ended and lasts as long as a simple
//! model says (see [`duration`]). So the time between two events does not depend on the machine or its load,
//! two kernels on two streams overlap, and two on one stream do not. It says nothing about how long the
//! work would take on a GPU. Each host thread has its own present: that another thread waits for something does not make
//! this one late.

use std::cell::Cell;
use std::sync::Arc;

use kiln_sim::stamp::{Clock, Stamp};

use crate::clock::Timelines;
use crate::queue::Ticket;

/// A point in the order: all that comes before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Point {
    /// What comes before, by timeline.
    pub(crate) clock: Clock,
    /// Operations before it that are not done, as far as they are not implied by others.
    pending: Vec<Ticket>,
    /// When the last of those that are done ended.
    end_ns: u64,
}

impl Point {
    /// The point just after an operation.
    pub(crate) fn after(stamp: &Stamp, ticket: Ticket) -> Point {
        let mut clock = (*stamp.clock).clone();
        clock.advance(stamp.timeline, stamp.number);
        Point { clock, pending: vec![ticket], end_ns: 0 }
    }

    /// Comes after `other` too.
    pub(crate) fn join(&mut self, other: &Point) {
        self.clock.join(&other.clock);
        self.end_ns = self.end_ns.max(other.end_ns);
        for ticket in &other.pending {
            if !self.pending.iter().any(|mine| mine.is(ticket)) {
                self.pending.push(ticket.clone());
            }
        }
        self.settle();
    }

    /// Is not reached before `time_ns`.
    pub(crate) fn not_before(&mut self, time_ns: u64) {
        self.end_ns = self.end_ns.max(time_ns);
    }

    /// The operations that it waits for.
    pub(crate) fn pending(&self) -> &[Ticket] {
        &self.pending
    }

    /// Whether all before it is done.
    pub(crate) fn is_reached(&self) -> bool {
        self.pending.iter().all(Ticket::is_done)
    }

    /// When all before it ended, in simulated nanoseconds; of use once it is reached.
    pub(crate) fn end_ns(&self) -> u64 {
        self.pending.iter().map(Ticket::end_ns).fold(self.end_ns, u64::max)
    }

    /// Forgets operations that are done, but for when they ended.
    fn settle(&mut self) {
        let end_ns = self.end_ns();
        self.pending.retain(|ticket| !ticket.is_done());
        self.end_ns = end_ns;
    }
}

thread_local! {
    /// What the calling thread has come to, in simulated nanoseconds; none before its first operation.
    static NOW_NS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Timelines, the host's knowledge and the host's time.
#[derive(Debug, Default)]
pub(crate) struct Order {
    pub(crate) timelines: Timelines,
    /// What is known to be finished because some host thread waited for it.
    pub(crate) host: Arc<Clock>,
    /// The latest that any host thread has come to, where a new thread begins.
    latest_ns: u64,
}

impl Order {
    /// A new timeline.
    pub(crate) fn open(&mut self) -> usize {
        self.timelines.open(&self.host)
    }

    /// The stamp of an operation on `line` that comes after `point`.
    pub(crate) fn issue(&mut self, line: usize, point: &Point, label: Arc<str>) -> Stamp {
        self.timelines.issue(line, &point.clock, &self.host, label)
    }

    /// The host has waited until `point` was reached.
    pub(crate) fn host_waited(&mut self, point: &Point) {
        Arc::make_mut(&mut self.host).join(&point.clock);
        self.come_to(self.now_ns().max(point.end_ns()));
    }

    /// The calling thread submits something; gives when.
    pub(crate) fn submit_ns(&mut self) -> u64 {
        let now_ns = self.now_ns() + duration::SUBMIT_NS;
        self.come_to(now_ns);
        now_ns
    }

    /// Nanoseconds of simulated time since the driver was initialised, as the calling thread sees it.
    fn now_ns(&self) -> u64 {
        NOW_NS.get().unwrap_or(self.latest_ns)
    }

    fn come_to(&mut self, now_ns: u64) {
        NOW_NS.set(Some(now_ns));
        self.latest_ns = self.latest_ns.max(now_ns);
    }
}

/// How long operations last, in simulated nanoseconds.
pub(crate) mod duration {
    /// What submitting an operation costs the host.
    pub(super) const SUBMIT_NS: u64 = 1_000;
    /// What any operation costs the device.
    const START_NS: u64 = 2_000;
    /// Bytes that a copy or fill moves in a nanosecond.
    const BYTES_PER_NS: u64 = 10;

    /// A copy or fill of `bytes`.
    pub(crate) fn transfer(bytes: u64) -> u64 {
        START_NS + bytes / BYTES_PER_NS
    }

    /// A kernel that executed `instructions`, counted once a warp, at one a nanosecond on each of `processors`.
    pub(crate) fn launch(instructions: u64, blocks: u64, processors: u64) -> u64 {
        START_NS + instructions / blocks.clamp(1, processors.max(1))
    }
}
