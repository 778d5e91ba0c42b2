//! The frequent accesses, by the words of a whole warp.
//!
//! Weak accesses of 4-byte elements to the block's own shared memory or to one allocation, and loads of smaller ones from
//! that, by lanes that all know the same, are most of what a kernel does with memory. Nothing is decided here: whatever is
//! not plainly right goes the long way of [`super::access`], which says what is wrong with it.

mod global;

use crate::isa::{Access, Inst, Order, Place};
use crate::memory::{RANK_SHIFT, SHARED_WINDOW};

use super::Machine;
use super::access::{Spot, set_register};
use super::regs::{Row, Row64, lanes};
use super::step::Running;

/// Whether the lanes' accesses are as this module takes them.
fn is_plain(access: Access, run: &Running<'_>) -> bool {
    !access.wide && access.sem.order == Order::Weak && run.warp.view.same().is_some()
}

/// Offsets of the active lanes from `base`, in units of `unit` bytes, if all are multiples of `bytes` and end within `size`.
#[inline(always)]
fn offsets(address: &Row64, active: u32, base: u64, unit: u64, bytes: u64, size: u64) -> Option<Row> {
    if size < bytes {
        return None;
    }
    let mut found = [0; 32];
    for lane in 0..32 {
        let offset = address[lane].wrapping_sub(base);
        let fits = offset & (bytes - 1) == 0 && offset <= size - bytes;
        if !fits && active >> lane & 1 == 1 {
            return None;
        }
        found[lane] = if fits { (offset / unit) as u32 } else { 0 };
    }
    Some(found)
}

impl Machine<'_> {
    /// Loads by words, if that will do.
    #[inline(always)]
    pub(super) fn load_words(
        &mut self,
        inst: &Inst,
        access: Access,
        address: &Row64,
        run: &mut Running<'_>,
    ) -> bool {
        if access.place == Place::Param {
            return self.load_param(inst, access, address, run);
        }
        if !is_plain(access, run) {
            return false;
        }
        if access.element.bytes < 4 {
            return access.element.bytes * access.lanes <= 4 && self.load_part(inst, access, address, run);
        }
        if access.element.bytes != 4 {
            return false;
        }
        match self.shared_words(access, address, run) {
            Some(words) => self.load_shared(inst, usize::from(access.lanes), &words, run),
            None => match self.global_words(access, address, run) {
                Some((index, words)) => self.load_global(inst, usize::from(access.lanes), index, &words, run),
                None => return false,
            },
        }
        true
    }

    /// Loads the same parameter for all lanes, if that will do.
    fn load_param(&self, inst: &Inst, access: Access, address: &Row64, run: &mut Running<'_>) -> bool {
        let first = address[run.active.trailing_zeros() as usize];
        let bytes = u64::from(access.element.bytes) * u64::from(access.lanes);
        let fits = first & (bytes - 1) == 0 && first.saturating_add(bytes) <= self.launch.params.len() as u64;
        if !fits || lanes(run.active).any(|lane| address[lane] != first) {
            return false;
        }
        for n in 0..access.lanes {
            let at = u32::from(n * access.element.bytes);
            let value = self.read_element(Spot::Param(first as u32), at, access.element.bytes, run, 0);
            for lane in lanes(run.active) {
                set_register(run, inst, usize::from(n), lane, value, access);
            }
        }
        true
    }

    /// Stores by words, if that will do.
    #[inline]
    pub(super) fn store_words(
        &mut self,
        inst: &Inst,
        access: Access,
        address: &Row64,
        run: &mut Running<'_>,
    ) -> bool {
        if !is_plain(access, run)
            || access.element.bytes != 4
            || !self.launch.checks
            || !self.released.is_empty()
        {
            return false;
        }
        let count = usize::from(access.lanes);
        if let Some(words) = self.shared_words(access, address, run) {
            return self.store_shared(inst, count, &words, run);
        }
        match self.global_words(access, address, run) {
            Some((index, words)) if !self.memory[index].constant => {
                self.store_global(inst, count, index, &words, run)
            }
            _ => false,
        }
    }

    fn store_shared(&mut self, inst: &Inst, count: usize, words: &Row, run: &mut Running<'_>) -> bool {
        let block = &mut self.blocks[run.block];
        let warps = block.warps.len();
        let floor = run.warp.view.block_floor(0);
        // First see that nothing speaks against any of it: no later read or write of another thread.
        for lane in lanes(run.active) {
            let (first, who) = (words[lane] as usize, run.who | lane as u32);
            let written =
                block.cells[first..first + count].iter().all(|cell| cell.may_be_written(floor, who));
            let marks = &block.reads[first * warps..(first + count) * warps];
            if !written || marks.iter().any(|mark| mark.time > floor) {
                return false;
            }
        }
        for lane in lanes(run.active) {
            let (first, who) = (words[lane] as usize, run.who | lane as u32);
            for n in 0..count {
                // A lane before may have written the same word just now.
                if !block.cells[first + n].write_plainly(floor, who, self.now, run.pc) {
                    let own = run.block;
                    self.store_rest(inst, count, |lane| Spot::Shared(own, words[lane] * 4), lane, run);
                    return true;
                }
                block.shared[first + n] = run.warp.r32[run.base.r32 as usize + usize::from(inst.r[n])][lane];
            }
        }
        true
    }

    /// The lanes from one on that races with a lane before it.
    #[cold]
    fn store_rest(
        &mut self,
        inst: &Inst,
        count: usize,
        spot: impl Fn(usize) -> Spot,
        from: usize,
        run: &mut Running<'_>,
    ) {
        for lane in lanes(run.active).filter(|lane| *lane >= from) {
            self.check_write(spot(lane), 4 * count as u32, None, run, lane);
            for n in 0..count {
                let value = run.warp.r32[run.base.r32 as usize + usize::from(inst.r[n])][lane];
                self.write_element(spot(lane), 4 * n as u32, 4, u64::from(value), run, lane);
            }
        }
    }

    #[inline(always)]
    fn shared_words(&self, access: Access, address: &Row64, run: &Running<'_>) -> Option<Row> {
        let base = match access.place {
            Place::Shared => 0,
            Place::Generic => SHARED_WINDOW,
            _ => return None,
        };
        let size = u64::from(self.blocks[run.block].shared_bytes).min(1 << RANK_SHIFT);
        offsets(address, run.active, base, 4, 4 * u64::from(access.lanes), size)
    }

    #[inline(always)]
    fn load_shared(&mut self, inst: &Inst, count: usize, words: &Row, run: &mut Running<'_>) {
        let block = &self.blocks[run.block];
        for n in 0..count {
            let row = &mut run.warp.r32[run.base.r32 as usize + usize::from(inst.r[n])];
            if run.active == u32::MAX {
                for (slot, word) in row.iter_mut().zip(words) {
                    *slot = block.shared[*word as usize + n];
                }
            } else {
                lanes(run.active).for_each(|lane| row[lane] = block.shared[words[lane] as usize + n]);
            }
        }
        if self.launch.checks {
            self.check_words(words, count, run);
        }
    }

    /// Judges the reads of `count` words from each of `words` on.
    #[inline(always)]
    fn check_words(&mut self, words: &Row, count: usize, run: &Running<'_>) {
        let (now, pc, warp) = (self.now, run.pc, run.warp.index as usize);
        let block = &mut self.blocks[run.block];
        let (warps, number) = (block.warps.len(), block.number);
        let floor = run.warp.view.block_floor(0);
        let known = floor.max(run.warp.view.warp_floor);
        let mut doubtful = 0u32;
        let mut left = run.active;
        while left != 0 {
            let lane = left.trailing_zeros() as usize;
            let word = words[lane];
            // Neighbours often read the same word.
            let mut mask = 1u32 << lane;
            let mut next = lane + 1;
            while next < 32 && left >> next & 1 == 1 && words[next] == word {
                mask |= 1 << next;
                next += 1;
            }
            left &= !mask;
            for word in word as usize..word as usize + count {
                if !block.cells[word].is_settled(floor, number) {
                    doubtful |= mask;
                }
                block.reads[word * warps + warp].read(now, mask, pc, known);
            }
        }
        for lane in lanes(doubtful) {
            self.check_read(
                Spot::Shared(run.block, words[lane] * 4),
                4 * count as u32,
                None,
                run,
                lane,
                false,
            );
        }
    }
}
