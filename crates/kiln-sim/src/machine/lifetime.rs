//! From when and until when a block's shared memory can be accessed by the others of its cluster.
//!
//! The blocks of a cluster are placed together, but start and end each in its own time: an access from elsewhere needs to know
//! that the block has started, and something that the block waits for must come after it (CUDA C++ Programming Guide,
//! "Distributed Shared Memory"). Both are judged by what orders them, on any schedule: here all blocks of a cluster are there
//! from the first instruction on.
//!
//! Errs towards reports: what tells of a start is the barrier of the cluster or whatever makes accesses of the block known. A
//! relaxed flag without a fence tells of neither, though on hardware its value cannot come from a block that has not started.
//! An arrival at an mbarrier has been waited for, too, once a thread of the block has seen its phase complete, whatever the scopes.

use crate::check::cell::Event;
use crate::check::view::{COPIER, Level, MBARRIER, START, View, block_of};
use crate::finding::{Finding, Kind, Location};

use super::Machine;
use super::access::Spot;
use super::report::place;
use super::step::Running;

impl Machine<'_> {
    /// Whether a block is known to have started by a lane that reaches for its shared memory; a finding if it is not.
    #[inline]
    pub(super) fn has_started(
        &mut self,
        block: usize,
        address: u64,
        bytes: u32,
        run: &Running<'_>,
        lane: usize,
    ) -> bool {
        if block == run.block || !self.launch.checks {
            return true;
        }
        let started = run.warp.view.lane(lane).has_started(self.blocks[block].number);
        if !started {
            let message = "an access to the shared memory of a block that may not have started: no barrier of the cluster comes before";
            let who = run.who | lane as u32;
            self.fault_at(Kind::Misuse, run.pc, who, message, "shared", address, bytes);
        }
        started
    }

    /// What a barrier of the cluster makes known beside what the arrivals release: its blocks have started.
    pub(super) fn starts(&self, cluster: usize) -> View {
        let cluster = &self.clusters[cluster];
        let mut view = View::default();
        for block in &self.blocks[cluster.blocks()] {
            view.learn(Level::Block(block.number), START);
        }
        view
    }

    /// A lane accesses shared memory of another block, which must not end before.
    pub(super) fn visit(&mut self, block: usize, offset: u32, run: &Running<'_>, lane: usize) {
        if block != run.block {
            let visit = self.event(run, lane);
            self.blocks[block].visitors.insert(visit.who, (visit, offset));
        }
    }

    /// Threads of a block exit: what they know happened before its end.
    pub(super) fn note_end(&mut self, run: &Running<'_>, gone: u32) {
        let block = &self.blocks[run.block];
        let alone = self.cluster_blocks == 1 && block.mbars.is_empty() && self.sources.is_empty();
        if alone || !self.launch.checks {
            return;
        }
        let known = run.warp.view.joined(gone);
        self.blocks[run.block].known_at_end.join(&known);
        if self.blocks[run.block].live_threads == gone.count_ones() {
            self.end_block(run, gone);
        }
    }

    /// The last threads of a block exit: judges what others do to its shared memory.
    fn end_block(&mut self, run: &Running<'_>, gone: u32) {
        let block = &mut self.blocks[run.block];
        let (visitors, known) =
            (std::mem::take(&mut block.visitors), std::mem::take(&mut block.known_at_end));
        let calls = block.mbars.iter().flat_map(|(offset, mbar)| {
            mbar.calls.iter().chain(&mbar.unseen_calls).map(|call| (*call, *offset))
        });
        let access = (visitors.into_values().chain(calls))
            .find(|(event, _)| !known.knows(event.who, event.time))
            .map(|found| (found, "an access to its shared memory that it does not wait for"));
        let read = || {
            let (source, offset) = self.sources.values().find_map(|bulk| match bulk.source.spot {
                Spot::Shared(at, offset) if at == run.block => Some((bulk.source, offset)),
                _ => None,
            })?;
            let event = Event { who: source.who, time: self.now, pc: source.pc };
            Some(((event, offset), "a copy of its shared memory that may not have read it yet"))
        };
        let landing = || {
            let found = block.shadow.cells().find_map(|(word, cell)| {
                let write = cell.last_write().filter(|write| write.who & MBARRIER == MBARRIER)?;
                (!known.knows(write.who, write.time)).then_some((write, 4 * word as u32))
            })?;
            Some((found, "a copy into its shared memory that it has not waited for"))
        };
        let Some(((event, offset), what)) = access.or_else(read).or_else(landing) else { return };
        let who = run.who | gone.trailing_zeros();
        let finding = Finding {
            kind: Kind::UseAfterFree,
            message: format!("a block ends before {what}"),
            place: place(self.launch, run.pc, Some(who)),
            other: Some(place(self.launch, event.pc, (event.who & COPIER == 0).then_some(event.who))),
            location: Some(Location {
                space: "shared",
                address: u64::from(offset),
                bytes: 4,
                what: self.describe("shared", u64::from(offset), block_of(who)),
            }),
        };
        self.report(finding, run.pc, event.pc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_knows_of_a_start_by_anything_that_the_block_did() {
        for level in [Level::Block(3), Level::Warp(3 << 5 | 31), Level::Thread(3 << 10 | 1023)] {
            let mut view = View::default();
            view.learn(level, START);
            assert!(view.has_started(3) && !view.has_started(2) && !view.has_started(4), "{level:?}");
        }
        let mut agents = View::default();
        agents.learn(Level::Thread(MBARRIER | 3 << 10), 9);
        assert!(!agents.has_started(3));
    }
}
