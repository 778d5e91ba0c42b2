//! The frequent accesses to global memory: by words, or by bytes of one word.

use crate::check::cell::Reading;
use crate::isa::{Access, Inst, Place};
use crate::memory::window;

use super::super::Machine;
use super::super::access::{Spot, byte_bits, extended};
use super::super::regs::{Row, Row64, lanes};
use super::super::step::Running;
use super::offsets;

impl Machine<'_> {
    /// The allocation that this instruction hit last and where in it, in words, if all lanes lie in it.
    #[inline(always)]
    pub(super) fn global_words(
        &self,
        access: Access,
        address: &Row64,
        run: &Running<'_>,
    ) -> Option<(usize, Row)> {
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
    pub(super) fn load_global(
        &mut self,
        inst: &Inst,
        count: usize,
        index: usize,
        words: &Row,
        run: &mut Running<'_>,
    ) {
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

    /// Loads some bytes of a word a lane from global memory, if that will do.
    pub(super) fn load_part(
        &mut self,
        inst: &Inst,
        access: Access,
        address: &Row64,
        run: &mut Running<'_>,
    ) -> bool {
        let element = u32::from(access.element.bytes);
        let bytes = element * u32::from(access.lanes);
        let Some((index, places)) = self.global_offsets(access, address, run, 1, u64::from(bytes)) else {
            return false;
        };
        let memory = &self.memory[index];
        for n in 0..u32::from(access.lanes) {
            let row = &mut run.warp.r32[run.base.r32 as usize + usize::from(inst.r[n as usize])];
            for lane in lanes(run.active) {
                let place = places[lane] + n * element;
                let value =
                    memory.word(u64::from(place & !3)) >> (8 * (place & 3)) & ((1 << (8 * element)) - 1);
                row[lane] = extended(u64::from(value), access.element, false, access.half) as u32;
            }
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

    pub(super) fn store_global(
        &mut self,
        inst: &Inst,
        count: usize,
        index: usize,
        words: &Row,
        run: &mut Running<'_>,
    ) -> bool {
        let memory = &self.memory[index];
        let base = memory.base;
        let floor = run.warp.view.block_floor(0);
        let place = |lane: usize, n: usize| 4 * (u64::from(words[lane]) + n as u64);
        for lane in lanes(run.active) {
            let who = run.who | lane as u32;
            for n in 0..count {
                let (cell, _) = self.shadow.cell(index, base, base + place(lane, n));
                if !cell.may_be_written(floor, who) {
                    return false;
                }
            }
        }
        for lane in lanes(run.active) {
            let who = run.who | lane as u32;
            for n in 0..count {
                let at = place(lane, n);
                let (cell, _) = self.shadow.cell(index, base, base + at);
                if !cell.write_plainly(floor, who, self.now, run.pc) {
                    let spot = |lane| Spot::Global(index, place(lane, 0), base + place(lane, 0));
                    self.store_rest(inst, count, spot, lane, run);
                    return true;
                }
                let value = run.warp.r32[run.base.r32 as usize + usize::from(inst.r[n])][lane];
                memory.set_word(at, value, u32::MAX);
                memory.set_init(at, 15);
            }
        }
        true
    }
}
