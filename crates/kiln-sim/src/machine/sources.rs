//! What asynchronous copies read, and products of warpgroups.
//!
//! The bytes are taken when a copy is issued, and the read lasts until it is known to have ended: for `cp.async` and bulk copies to
//! global memory at their own thread's wait, which counts as a read at that time for all others; for copies that complete on an
//! mbarrier, when they complete; for products ([`super::wgmma`]) at their warp's wait. Cells of a source carry a mark, so that only
//! writes to them look for the copies.
//!
//! Errs towards silence: a copy that completes on an mbarrier and has come through in this schedule is not told from one that the
//! writer has waited for; nor is one that `cp.async.mbarrier.arrive` has handed over.

use crate::check::cell::{Event, Judge, READING};
use crate::check::view::{COPIER, Who};

use super::Machine;
use super::access::{Spot, byte_bits};
use super::step::Running;

/// A source under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) spot: Spot,
    pub(super) bytes: u32,
    /// Thread and instruction that have issued the copy.
    pub(super) who: Who,
    pub(super) pc: u32,
}

/// A bulk copy's source, and how many of its destinations it still has to reach; none if its thread waits for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct BulkSource {
    pub(super) source: Source,
    pub(super) left: u32,
}

impl Source {
    /// Whether it overlaps a word.
    fn has(&self, word: Spot) -> bool {
        let overlaps =
            |start: u64, word: u64| start < word / 4 * 4 + 4 && word / 4 * 4 < start + u64::from(self.bytes);
        match (self.spot, word) {
            (Spot::Global(a, start, _), Spot::Global(b, word, _)) => a == b && overlaps(start, word),
            (Spot::Shared(a, start), Spot::Shared(b, word)) => {
                a == b && overlaps(u64::from(start), u64::from(word))
            }
            _ => false,
        }
    }

    /// Its words, and the bytes of each.
    fn words(&self) -> impl Iterator<Item = (Spot, u8)> + use<> {
        let Source { spot, bytes, .. } = *self;
        (0..bytes).step_by(4).map(move |at| (spot.moved(at), byte_bits(0, bytes - at)))
    }
}

impl Machine<'_> {
    /// A copy begins to read.
    pub(super) fn mark_source(&mut self, source: Source) {
        if self.launch.checks {
            for (word, _) in source.words() {
                self.set_reading(word, true);
            }
        }
    }

    /// A copy has read, and its thread knows.
    pub(super) fn end_source(&mut self, source: Source, run: &Running<'_>, lane: usize) {
        if !self.launch.checks {
            return;
        }
        let judge = Judge { pc: source.pc, ..self.judge(run, lane, None) };
        for (word, bytes) in source.words() {
            if let Some((cell, lists)) = self.cell(word) {
                judge.read_bytes(cell, bytes, lists);
            }
        }
    }

    /// Words are written, of which the one `first` bytes on carries the mark: by whom they are being read.
    pub(super) fn check_sources(
        &mut self,
        spot: Spot,
        first: u32,
        bytes: u32,
        run: &Running<'_>,
        lane: usize,
    ) {
        (first..bytes).step_by(4).for_each(|at| self.check_source(spot.moved(at), run, lane));
    }

    fn check_source(&mut self, word: Spot, run: &Running<'_>, lane: usize) {
        let found = |source: Source| Event { who: COPIER | source.who, time: self.now, pc: source.pc };
        let bulk = self.sources.values().map(|bulk| bulk.source).find(|source| source.has(word)).map(found);
        let reader = bulk.or_else(|| match word {
            Spot::Shared(block, offset) => self.product_that_reads(block, offset as usize / 4, run),
            // Of global memory alone.
            _ => self.copy_that_reads(word, run).map(found),
        });
        let Some(first) = reader else {
            self.set_reading(word, false);
            return;
        };
        let (space, address) = self.spot_name(word, 0, run);
        self.race(self.event(run, lane), first, space, address, 4);
    }

    /// A `cp.async` of any thread that reads a word.
    fn copy_that_reads(&self, word: Spot, run: &Running<'_>) -> Option<Source> {
        let others = self.blocks.iter().flat_map(|block| &block.warps);
        let copies = others.chain([&*run.warp]).flat_map(|warp| &warp.copies);
        let copies = copies.flat_map(|copies| copies.groups.iter().flatten().chain(&copies.open));
        copies.filter_map(|copy| copy.source).find(|source| source.has(word))
    }

    pub(super) fn set_reading(&mut self, word: Spot, reading: bool) {
        if let Some((cell, _)) = self.cell(word) {
            cell.init = if reading { cell.init | READING } else { cell.init & !READING };
        }
    }
}
