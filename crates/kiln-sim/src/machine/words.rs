//! The frequent accesses, by the words of a whole warp.
//!
//! Weak accesses of 4-byte elements to the block's own shared memory or to one allocation, and loads of smaller ones from
//! that, by lanes that all know the same, are most of what a kernel does with memory. Nothing is decided here: whatever is
//! not plainly right goes the long way of [`super::access`], which says what is wrong with it.

mod global;

use crate::check::reads::{Mark, Read};
use crate::check::shared::Write;
use crate::isa::{Access, Inst, Order, Place};
use crate::memory::{RANK_SHIFT, SHARED_WINDOW};

use super::Machine;
use super::access::{Spot, set_register};
use super::regs::{LANES, Row, Row64, lanes};
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
            Some(words) => match access.lanes {
                1 => self.load_shared::<1>(inst, &words, run),
                2 => self.load_shared::<2>(inst, &words, run),
                4 => self.load_shared::<4>(inst, &words, run),
                // Eight, which a kernel for sm_100 may have.
                _ => return false,
            },
            None => match self.global_words(access, address, run) {
                Some((index, words)) => match access.lanes {
                    1 => self.load_global::<1>(inst, index, &words, run),
                    2 => self.load_global::<2>(inst, index, &words, run),
                    4 => self.load_global::<4>(inst, index, &words, run),
                    _ => return false,
                },
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
        if !is_plain(access, run) || access.element.bytes != 4 || !self.released.is_empty() {
            return false;
        }
        if let Some(words) = self.shared_words(access, address, run) {
            match access.lanes {
                1 => self.store_shared::<1>(inst, &words, run),
                2 => self.store_shared::<2>(inst, &words, run),
                4 => self.store_shared::<4>(inst, &words, run),
                _ => return false,
            }
            return true;
        }
        match self.global_words(access, address, run) {
            Some((index, words)) if !self.memory[index].constant => {
                match access.lanes {
                    1 => self.store_global::<1>(inst, index, &words, run),
                    2 => self.store_global::<2>(inst, index, &words, run),
                    4 => self.store_global::<4>(inst, index, &words, run),
                    _ => return false,
                }
                true
            }
            _ => false,
        }
    }

    fn store_shared<const N: usize>(&mut self, inst: &Inst, words: &Row, run: &mut Running<'_>) {
        let values = chunks::<N>(inst, run);
        let block = &mut self.blocks[run.block];
        let (now, pc, floor) = (self.now, run.pc, run.warp.view.block_floor(0));
        for lane in lanes(run.active) {
            let (word, who) = (words[lane] as usize, run.who | lane as u32);
            if self.launch.checks && !block.shadow.write::<N>(word, Write { who, now, pc, floor }) {
                let own = run.block;
                return self.store_rest(inst, N, |lane| Spot::Shared(own, words[lane] * 4), lane, run);
            }
            block.shared[word..word + N].copy_from_slice(&values[lane]);
        }
    }

    /// The lanes from one on against which something speaks: what it is, the long way says.
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
        self.own_words(access.place, u64::from(access.lanes), address, run.active, run)
    }

    /// Where in the block's own shared memory `count` words a lane lie, if all of them do.
    #[inline(always)]
    fn own_words(
        &self,
        place: Place,
        count: u64,
        address: &Row64,
        active: u32,
        run: &Running<'_>,
    ) -> Option<Row> {
        let base = match place {
            Place::Shared | Place::SharedCluster => 0,
            Place::Generic => SHARED_WINDOW,
            _ => return None,
        };
        let size = u64::from(self.blocks[run.block].shared_bytes).min(1 << RANK_SHIFT);
        offsets(address, active, base, 4, 4 * count, size)
    }

    /// The rows of matrices, of four words each, for the lanes that hold their addresses, if that will do.
    pub(super) fn load_rows(
        &mut self,
        address: &Row64,
        holders: u32,
        run: &Running<'_>,
    ) -> Option<[[u32; 4]; LANES]> {
        run.warp.view.same()?;
        let words = self.own_words(Place::Shared, 4, address, holders, run)?;
        if self.launch.checks {
            self.check_words::<4>(&words, holders, run);
        }
        Some(chunks_at(&self.blocks[run.block].shared, &words))
    }

    #[inline(always)]
    fn load_shared<const N: usize>(&mut self, inst: &Inst, words: &Row, run: &mut Running<'_>) {
        let shared = &self.blocks[run.block].shared;
        let found = chunks_at::<N>(shared, words);
        set_chunks(inst, run, &found);
        if self.launch.checks {
            self.check_words::<N>(words, run.active, run);
        }
    }

    /// Judges the reads of `N` words from each of `words` on, by the lanes of a mask.
    #[inline(always)]
    fn check_words<const N: usize>(&mut self, words: &Row, active: u32, run: &Running<'_>) {
        let shadow = &mut self.blocks[run.block].shadow;
        let floor = run.warp.view.block_floor(0);
        let known = floor.max(run.warp.view.warp_floor);
        let mut doubtful = 0u32;
        let mut left = active;
        while left != 0 {
            let lane = left.trailing_zeros() as usize;
            let word = words[lane];
            // Neighbours often read the same word.
            let mut mask = 1u32 << lane;
            let mut next = lane + 1;
            while next < LANES && left >> next & 1 == 1 && words[next] == word {
                mask |= 1 << next;
                next += 1;
            }
            left &= !mask;
            let mark = Mark { time: self.now, lanes: mask, pc: run.pc };
            let read = Read { warp: run.warp.index as usize, mark, known };
            if !shadow.read::<N>(word as usize, floor, read) {
                doubtful |= mask;
            }
        }
        for lane in lanes(doubtful) {
            let spot = Spot::Shared(run.block, words[lane] * 4);
            self.check_read(spot, 4 * N as u32, None, run, lane, false);
        }
    }
}

/// `N` words of shared memory from each of `words` on.
#[inline(always)]
fn chunks_at<const N: usize>(shared: &[u32], words: &Row) -> [[u32; N]; LANES] {
    words.map(|word| {
        let mut chunk = [0; N];
        chunk.copy_from_slice(&shared[word as usize..word as usize + N]);
        chunk
    })
}

/// What the lanes store, `N` words each.
fn chunks<const N: usize>(inst: &Inst, run: &mut Running<'_>) -> [[u32; N]; LANES] {
    let regs = run.regs();
    let rows: [Row; N] = std::array::from_fn(|n| regs.a(inst, n));
    std::array::from_fn(|lane| std::array::from_fn(|n| rows[n][lane]))
}

/// Gives the lanes what they load, `N` words each.
#[inline(always)]
fn set_chunks<const N: usize>(inst: &Inst, run: &mut Running<'_>, chunks: &[[u32; N]; LANES]) {
    let mut regs = run.regs();
    for (n, reg) in inst.r[..N].iter().enumerate() {
        regs.write(*reg, |lane| chunks[lane][n]);
    }
}
