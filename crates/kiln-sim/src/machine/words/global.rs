//! The frequent accesses to global memory: by words, or by bytes of one word.

use std::ops::Range;

use crate::check::cell::Reading;
use crate::isa::{Access, Inst, Place};
use crate::memory::window;

use super::super::Machine;
use super::super::access::{Spot, byte_bits, extended};
use super::super::regs::{LANES, Row, Row64, lanes};
use super::super::step::Running;
use super::{chunks, offsets, set_chunks};

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

    pub(super) fn load_global<const N: usize>(
        &mut self,
        inst: &Inst,
        index: usize,
        words: &Row,
        run: &mut Running<'_>,
    ) {
        let by = self.reading(run);
        let mut found = [[0; N]; LANES];
        let mut doubtful = 0;
        for part in parts::<N>(words, run.active) {
            let offset = 4 * u64::from(part.word);
            self.memory[index].read_words(offset, found[part.apart()].as_flattened_mut());
            if part.same {
                let value = found[part.lanes.start];
                found[part.lanes.clone()].fill(value);
            }
            if self.launch.checks {
                doubtful |= self.read_plainly::<N>(index, &part, by);
            }
        }
        set_chunks(inst, run, &found);
        for lane in lanes(doubtful) {
            let offset = 4 * u64::from(words[lane]);
            let spot = Spot::Global(index, offset, self.memory[index].base + offset);
            self.check_read(spot, 4 * N as u32, None, run, lane, false);
        }
    }

    /// Records the read of some lanes; those of which there is more to say.
    #[inline(always)]
    fn read_plainly<const N: usize>(&mut self, index: usize, part: &Part, by: Reading) -> u32 {
        let memory = &self.memory[index];
        let (offset, count) = (4 * u64::from(part.word), N * part.apart().len());
        if !memory.is_written(offset, count) {
            return part.mask();
        }
        let (mut at, mut doubtful) = (0, 0);
        while at < count {
            let address = memory.base + offset + 4 * at as u64;
            let (cells, _) = self.shadow.row(index, memory.base, address, count - at);
            for (n, cell) in cells.iter_mut().enumerate() {
                let lanes = if part.same { part.mask() } else { 1 << (part.lanes.start + (at + n) / N) };
                if !cell.read_plainly(by, lanes) {
                    doubtful |= lanes;
                }
            }
            at += cells.len();
        }
        doubtful
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

    pub(super) fn store_global<const N: usize>(
        &mut self,
        inst: &Inst,
        index: usize,
        words: &Row,
        run: &mut Running<'_>,
    ) {
        let values = chunks::<N>(inst, run);
        let memory = &self.memory[index];
        let (now, pc, floor) = (self.now, run.pc, run.warp.view.block_floor(0));
        for lane in lanes(run.active) {
            let (offset, who) = (4 * u64::from(words[lane]), run.who | lane as u32);
            if self.launch.checks {
                let mut at = 0;
                while at < N {
                    let address = memory.base + offset + 4 * at as u64;
                    let (cells, _) = self.shadow.row(index, memory.base, address, N - at);
                    if !cells.iter_mut().all(|cell| cell.write_plainly(floor, who, now, pc)) {
                        let spot = |lane: usize| {
                            let offset = 4 * u64::from(words[lane]);
                            Spot::Global(index, offset, self.memory[index].base + offset)
                        };
                        return self.store_rest(inst, N, spot, lane, run);
                    }
                    at += cells.len();
                }
            }
            memory.write_words(offset, &values[lane]);
        }
    }
}

/// Lanes that access words one after the other, or all the same ones.
struct Part {
    lanes: Range<usize>,
    /// The first lane's first word.
    word: u32,
    same: bool,
}

impl Part {
    /// The lanes whose words differ.
    fn apart(&self) -> Range<usize> {
        if self.same { self.lanes.start..self.lanes.start + 1 } else { self.lanes.clone() }
    }

    fn mask(&self) -> u32 {
        u32::MAX >> (LANES - self.lanes.len()) << self.lanes.start
    }
}

/// An access of `N` words a lane in parts, each as long as it may be.
fn parts<const N: usize>(words: &Row, active: u32) -> impl Iterator<Item = Part> {
    let mut left = active;
    std::iter::from_fn(move || {
        let first = left.trailing_zeros() as usize;
        if first == LANES {
            return None;
        }
        let follows = |lane: usize, step: usize| {
            left >> lane & 1 == 1 && words[lane] == words[lane - 1].wrapping_add(step as u32)
        };
        let same = first + 1 < LANES && follows(first + 1, 0);
        let end = (first + 1..LANES).find(|lane| !follows(*lane, if same { 0 } else { N })).unwrap_or(LANES);
        let part = Part { lanes: first..end, word: words[first], same };
        left &= !part.mask();
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<const N: usize>(words: &Row, active: u32) -> Vec<(usize, usize, u32, bool)> {
        parts::<N>(words, active)
            .map(|part| (part.lanes.start, part.lanes.end, part.word, part.same))
            .collect()
    }

    #[test]
    fn an_access_falls_into_parts_of_neighbouring_words() {
        let row: Row = std::array::from_fn(|lane| 100 + 2 * lane as u32);
        assert_eq!(found::<2>(&row, u32::MAX), [(0, 32, 100, false)]);
        assert_eq!(found::<1>(&row, 0b1101).len(), 3);
        assert_eq!(found::<2>(&row, 0b1101), [(0, 1, 100, false), (2, 4, 104, false)]);
        assert_eq!(found::<2>(&row, 1 << 31), [(31, 32, 162, false)]);
        assert_eq!(found::<2>(&row, 0), []);
    }

    #[test]
    fn lanes_with_the_same_words_are_a_part() {
        let row: Row = std::array::from_fn(|lane| if lane < 10 { 7 } else { lane as u32 });
        assert_eq!(found::<1>(&row, u32::MAX), [(0, 10, 7, true), (10, 32, 10, false)]);
        let pairs: Row = std::array::from_fn(|lane| lane as u32 / 2);
        assert_eq!(found::<1>(&pairs, u32::MAX).len(), 16);
        assert_eq!(found::<1>(&[u32::MAX; 32], u32::MAX), [(0, 32, u32::MAX, true)]);
    }
}
