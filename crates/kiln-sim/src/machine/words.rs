//! The frequent accesses, by the words of a whole warp.
//!
//! Weak accesses of 4-byte elements to the block's own shared memory or to one allocation, by lanes that all know the
//! same, are most of what a kernel does with memory. Nothing is decided here: whatever is not plainly right goes the long
//! way of [`super::access`], which says what is wrong with it.

use crate::check::cell::Reading;
use crate::isa::{Access, Inst, Order, Place};
use crate::memory::{RANK_SHIFT, SHARED_WINDOW, window};

use super::Machine;
use super::access::{Spot, byte_bits, extended};
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
        if !is_plain(access, run) {
            return false;
        }
        if access.element.bytes < 4 {
            return access.lanes == 1 && self.load_part(inst, access, address, run);
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

    /// Stores by words, if that will do: to shared memory, one word a lane.
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
            || access.lanes != 1
            || !self.launch.checks
            || !self.released.is_empty()
        {
            return false;
        }
        let Some(words) = self.shared_words(access, address, run) else { return false };
        let block = &mut self.blocks[run.block];
        let warps = block.warps.len();
        let floor = run.warp.view.block_floor(0);
        // First see that nothing speaks against any of it: no later read or write of another thread.
        for lane in lanes(run.active) {
            let word = words[lane] as usize;
            let cell = &block.cells[word];
            let who = run.who | lane as u32;
            let marks = &block.reads[word * warps..(word + 1) * warps];
            if !cell.may_be_written(floor, who) || marks.iter().any(|mark| mark.time > floor) {
                return false;
            }
        }
        let row = run.regs().a(inst, 0);
        for lane in lanes(run.active) {
            let word = words[lane] as usize;
            let who = run.who | lane as u32;
            // A lane before may have written the same word just now.
            if !block.cells[word].write_plainly(floor, who, self.now, run.pc) {
                self.check_write(Spot::Shared(run.block, words[lane] * 4), 4, None, run, lane);
                self.blocks[run.block].shared[word] = row[lane];
                return self.store_rest(&words, &row, lane, run);
            }
            block.shared[word] = row[lane];
        }
        true
    }

    /// The lanes after one that raced.
    fn store_rest(&mut self, words: &Row, row: &Row, after: usize, run: &mut Running<'_>) -> bool {
        for lane in lanes(run.active).filter(|lane| *lane > after) {
            self.check_write(Spot::Shared(run.block, words[lane] * 4), 4, None, run, lane);
            self.blocks[run.block].shared[words[lane] as usize] = row[lane];
        }
        true
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

    /// The allocation that this instruction hit last and where in it, in words, if all lanes lie in it.
    #[inline(always)]
    fn global_words(&self, access: Access, address: &Row64, run: &Running<'_>) -> Option<(usize, Row)> {
        self.global_offsets(access, address, run, 4, 4 * u64::from(access.lanes))
    }

    #[inline(always)]
    fn global_offsets(
        &self,
        access: Access,
        address: &Row64,
        run: &Running<'_>,
        unit: u64,
        bytes: u64,
    ) -> Option<(usize, Row)> {
        let first = address[run.active.trailing_zeros() as usize];
        if !matches!(access.place, Place::Global | Place::Generic) || window(first).is_some() {
            return None;
        }
        let index = self.hints[run.pc as usize] as usize;
        let memory = self.memory.get(index)?;
        let size = memory.bytes.min(unit << 31);
        offsets(address, run.active, memory.base, unit, bytes, size).map(|found| (index, found))
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

    #[inline(always)]
    fn load_global(&mut self, inst: &Inst, count: usize, index: usize, words: &Row, run: &mut Running<'_>) {
        let memory = &self.memory[index];
        for n in 0..count {
            let row = &mut run.warp.r32[run.base.r32 as usize + usize::from(inst.r[n])];
            lanes(run.active)
                .for_each(|lane| row[lane] = memory.word(4 * (u64::from(words[lane]) + n as u64)));
        }
        if !self.launch.checks {
            return;
        }
        let base = memory.base;
        let by = self.reading(run);
        let mut doubtful = 0u32;
        for lane in lanes(run.active) {
            for n in 0..count as u64 {
                let offset = 4 * (u64::from(words[lane]) + n);
                let (cell, _) = self.shadow.cell(index, base, base + offset);
                if memory.init(offset) != 15 || !cell.read_plainly(by, lane) {
                    doubtful |= 1 << lane;
                }
            }
        }
        for lane in lanes(doubtful) {
            let offset = 4 * u64::from(words[lane]);
            self.check_read(
                Spot::Global(index, offset, base + offset),
                4 * count as u32,
                None,
                run,
                lane,
                false,
            );
        }
    }

    /// An ordinary read of global memory, by lanes that all know the same.
    #[inline(always)]
    fn reading(&self, run: &Running<'_>) -> Reading {
        let view = &run.warp.view;
        Reading {
            warp: run.who >> 5,
            now: self.now,
            pc: run.pc,
            known: view.block_floor(0).max(view.warp_floor),
            neighbours: self.blocks[run.block].neighbours,
        }
    }

    /// Loads a byte or two a lane from global memory, if that will do.
    fn load_part(&mut self, inst: &Inst, access: Access, address: &Row64, run: &mut Running<'_>) -> bool {
        let bytes = u32::from(access.element.bytes);
        let Some((index, places)) = self.global_offsets(access, address, run, 1, u64::from(bytes)) else {
            return false;
        };
        let memory = &self.memory[index];
        let row = &mut run.warp.r32[run.base.r32 as usize + usize::from(inst.r[0])];
        for lane in lanes(run.active) {
            let place = places[lane];
            let value = memory.word(u64::from(place & !3)) >> (8 * (place & 3)) & ((1 << (8 * bytes)) - 1);
            row[lane] = extended(u64::from(value), access.element, false, access.half) as u32;
        }
        if !self.launch.checks {
            return true;
        }
        let base = memory.base;
        let by = self.reading(run);
        let mut doubtful = 0u32;
        for lane in lanes(run.active) {
            let place = u64::from(places[lane]);
            let needed = byte_bits(place, bytes);
            let (cell, lists) = self.shadow.cell(index, base, base + place);
            if memory.init(place & !3) & needed != needed || !lists.read_part_plainly(cell, needed, by, lane)
            {
                doubtful |= 1 << lane;
            }
        }
        for lane in lanes(doubtful) {
            let place = u64::from(places[lane]);
            self.check_read(Spot::Global(index, place, base + place), bytes, None, run, lane, false);
        }
        true
    }
}
