//! Timelines: who gives out the numbers that the vector clocks of [`kiln_sim::stamp`] count.
//!
//! Every stream and every branch of a graph owns a timeline. What a host thread waited for counts as known to all
//! host threads. So a missing synchronisation *between host threads* is not found, and a program that hands
//! work from thread to thread through a channel is not accused.

use std::sync::Arc;

use kiln_sim::stamp::{Clock, Stamp};

/// Gives out timelines and numbers on them.
#[derive(Debug, Default)]
pub(crate) struct Timelines {
    issued: Vec<u64>,
    retired: Vec<usize>,
}

impl Timelines {
    /// A timeline for a new stream or branch. A retired one is used again only once the host knows all of it:
    /// before that, its old operations would wrongly count as finished before the new ones.
    pub(crate) fn open(&mut self, host: &Clock) -> usize {
        let finished = |&line: &usize| host.get(line) >= self.issued[line];
        if let Some(at) = self.retired.iter().position(finished) {
            return self.retired.swap_remove(at);
        }
        self.issued.push(0);
        self.issued.len() - 1
    }

    /// Takes back the timeline of a destroyed stream or branch.
    pub(crate) fn retire(&mut self, timeline: usize) {
        self.retired.push(timeline);
    }

    /// Issues the next operation of `timeline`, which comes after what `clock` and the host know.
    pub(crate) fn issue(
        &mut self,
        timeline: usize,
        clock: &Clock,
        host: &Arc<Clock>,
        label: Arc<str>,
    ) -> Stamp {
        let mut before = clock.clone();
        before.join(host);
        before.advance(timeline, self.issued[timeline]);
        self.issued[timeline] += 1;
        Stamp { timeline, number: self.issued[timeline], clock: Arc::new(before), host: host.clone(), label }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(lines: &mut Timelines, timeline: usize, known: &Clock) -> Stamp {
        lines.issue(timeline, known, &Arc::default(), Arc::from("test"))
    }

    fn after(stamp: &Stamp) -> Clock {
        let mut known = (*stamp.clock).clone();
        known.advance(stamp.timeline, stamp.number);
        known
    }

    #[test]
    fn operations_of_one_timeline_are_ordered() {
        let mut lines = Timelines::default();
        let a = lines.open(&Clock::default());
        let first = issue(&mut lines, a, &Clock::default());
        let second = issue(&mut lines, a, &Clock::default());
        assert!(second.follows(&first) && !first.follows(&second));
    }

    #[test]
    fn timelines_are_unordered_until_one_knows_the_other() {
        let mut lines = Timelines::default();
        let (a, b) = (lines.open(&Clock::default()), lines.open(&Clock::default()));
        let on_a = issue(&mut lines, a, &Clock::default());
        let on_b = issue(&mut lines, b, &Clock::default());
        assert!(!on_b.follows(&on_a) && !on_a.follows(&on_b));
        assert!(issue(&mut lines, b, &after(&on_a)).follows(&on_a));
    }

    #[test]
    fn what_the_host_knows_every_operation_follows() {
        let mut lines = Timelines::default();
        let (a, b) = (lines.open(&Clock::default()), lines.open(&Clock::default()));
        let on_a = issue(&mut lines, a, &Clock::default());
        let host = Arc::new(after(&on_a));
        assert!(lines.issue(b, &Clock::default(), &host, Arc::from("test")).follows(&on_a));
    }

    #[test]
    fn a_retired_timeline_waits_for_the_host() {
        let mut lines = Timelines::default();
        let a = lines.open(&Clock::default());
        let last = issue(&mut lines, a, &Clock::default());
        lines.retire(a);
        assert_ne!(lines.open(&Clock::default()), a);
        assert_eq!(lines.open(&after(&last)), a);
    }
}
