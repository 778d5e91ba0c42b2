//! Where an operation of a device stands among the others: what it is known to come after.
//!
//! Operations (launches, copies, fills) run one after the other, in the order in which they are submitted, which is
//! one of the orders that the program allows. Whether the program *demanded* that order is kept apart from it, in
//! vector clocks (Mattern, "Virtual Time and Global States of Distributed Systems", 1989): every stream and the host
//! own a timeline, and an operation carries, for each timeline, the number of its operations that are known to be
//! finished before it starts. Two operations of which neither knows the other may run at the same time on a GPU; if
//! they touch the same bytes and one of them writes, that is a race.

use std::sync::Arc;

/// For each timeline, how many of its operations are known to be finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clock(Vec<u64>);

impl Clock {
    /// Learns all that `other` knows.
    pub fn join(&mut self, other: &Clock) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// Learns that the first `count` operations of `timeline` are finished.
    pub fn advance(&mut self, timeline: usize, count: u64) {
        if self.0.len() <= timeline {
            self.0.resize(timeline + 1, 0);
        }
        self.0[timeline] = self.0[timeline].max(count);
    }

    /// How many operations of `timeline` are known to be finished.
    pub fn get(&self, timeline: usize) -> u64 {
        self.0.get(timeline).copied().unwrap_or(0)
    }
}

/// Where one operation stands in the order.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// The timeline that it is on.
    pub timeline: usize,
    /// Its number on that timeline, from 1.
    pub number: u64,
    /// What it comes after: for each timeline the operations that are finished before it starts.
    pub clock: Arc<Clock>,
    /// What the host knew to be finished when it submitted this: any later operation comes after that too.
    pub host: Arc<Clock>,
    /// What it is, for a finding that names it: `copy to the device on stream 2`.
    pub label: Arc<str>,
}

impl Stamp {
    /// Whether `earlier` is known to be finished before this one starts.
    pub fn follows(&self, earlier: &Stamp) -> bool {
        self.clock.get(earlier.timeline) >= earlier.number
    }

    /// A stamp on a single timeline, each operation after the last: what a program with one stream has.
    pub fn sequential(number: u64, label: &str) -> Stamp {
        let mut clock = Clock::default();
        clock.advance(0, number.saturating_sub(1));
        let clock = Arc::new(clock);
        Stamp { timeline: 0, number, host: clock.clone(), clock, label: Arc::from(label) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequential_stamps_follow_each_other_and_never_the_other_way() {
        let (first, second) = (Stamp::sequential(1, "first"), Stamp::sequential(2, "second"));
        assert!(second.follows(&first));
        assert!(!first.follows(&second) && !first.follows(&first));
    }

    #[test]
    fn timelines_are_unordered_until_joined() {
        let on = |timeline, clock: Clock| Stamp {
            timeline,
            number: 1,
            host: Arc::default(),
            clock: Arc::new(clock),
            label: Arc::from("test"),
        };
        let (a, b) = (on(0, Clock::default()), on(1, Clock::default()));
        assert!(!b.follows(&a) && !a.follows(&b));
        let mut known = Clock::default();
        known.advance(0, 1);
        let mut both = Clock::default();
        both.join(&known);
        assert!(on(1, both).follows(&a));
    }
}
