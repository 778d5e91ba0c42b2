//! The frequent accesses to shared memory, by the words of a whole warp.
//!
//! Weak loads of 4-byte elements from the block's own memory, by lanes that all know the same, are most of what a kernel
//! does with memory. Nothing is decided here: whatever is not plainly right goes the long way of [`super::access`].

use crate::check::view::Level;
use crate::isa::{Access, Inst, Order, Place};
use crate::memory::{RANK_SHIFT, SHARED_WINDOW};

use super::Machine;
use super::access::Spot;
use super::regs::{Row64, lanes};
use super::step::Running;

impl Machine<'_> {
    /// Loads by words, if that will do.
    #[inline]
    pub(super) fn load_words(
        &mut self,
        inst: &Inst,
        access: Access,
        address: &Row64,
        run: &mut Running<'_>,
    ) -> bool {
        let plain = access.element.bytes == 4 && !access.wide && access.sem.order == Order::Weak;
        let base = match access.place {
            Place::Shared => 0,
            Place::Generic => SHARED_WINDOW,
            _ => return false,
        };
        let count = usize::from(access.lanes);
        let bytes = 4 * count as u64;
        let size = u64::from(self.blocks[run.block].shared_bytes).min(1 << RANK_SHIFT);
        if !plain || run.warp.view.same().is_none() || size < bytes {
            return false;
        }
        let mut words = [0u32; 32];
        let mut fits = true;
        for (word, address) in words.iter_mut().zip(address) {
            let offset = address.wrapping_sub(base);
            *word = (offset / 4) as u32;
            fits &= offset % bytes == 0 && offset <= size - bytes;
        }
        if !fits
            && lanes(run.active).any(|lane| {
                let offset = address[lane].wrapping_sub(base);
                offset % bytes != 0 || offset > size - bytes
            })
        {
            return false;
        }
        let block = &self.blocks[run.block];
        for n in 0..count {
            let row = &mut run.warp.r32[run.base.r32 as usize + usize::from(inst.r[n])];
            if run.active == u32::MAX {
                for (slot, word) in row.iter_mut().zip(&words) {
                    *slot = block.shared[*word as usize + n];
                }
            } else {
                lanes(run.active).for_each(|lane| row[lane] = block.shared[words[lane] as usize + n]);
            }
        }
        if self.launch.checks {
            self.check_words(&words, count, run);
        }
        true
    }

    /// Judges the reads of `count` words from each of `words` on.
    fn check_words(&mut self, words: &[u32; 32], count: usize, run: &Running<'_>) {
        let (now, pc, warp) = (self.now, run.pc, run.warp.index as usize);
        let block = &mut self.blocks[run.block];
        let warps = block.warps.len();
        let number = block.number;
        let floor = run.warp.view.lane(0).get(Level::Block(number));
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
                let cell = &block.cells[word];
                if !cell.is_settled(floor, number) {
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
