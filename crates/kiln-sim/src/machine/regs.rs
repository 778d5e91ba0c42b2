//! A frame's registers, and loops over the lanes of a warp.

use crate::isa::{Inst, Reg};

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;
/// A 32-bit register of each lane.
pub(crate) type Row = [u32; LANES];
/// A 64-bit register of each lane.
pub(crate) type Row64 = [u64; LANES];

/// The registers of the frame that runs. Predicates are one bit a lane.
pub(crate) struct Regs<'a> {
    pub(crate) pred: &'a mut [u32],
    pub(crate) r32: &'a mut [Row],
    pub(crate) r64: &'a mut [Row64],
    /// The lanes that execute.
    pub(crate) active: u32,
}

/// The lanes of a mask.
#[inline(always)]
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let lane = left.trailing_zeros() as usize;
        left &= left - 1;
        Some(lane)
    })
}

impl Regs<'_> {
    #[inline(always)]
    pub(crate) fn a(&self, inst: &Inst, slot: usize) -> Row {
        self.r32[usize::from(inst.r[slot])]
    }

    #[inline(always)]
    pub(crate) fn a64(&self, inst: &Inst, slot: usize) -> Row64 {
        self.r64[usize::from(inst.r[slot])]
    }

    #[inline(always)]
    pub(crate) fn p(&self, inst: &Inst, slot: usize) -> u32 {
        self.pred[usize::from(inst.r[slot])]
    }

    /// Writes a row where lanes are active; `value` must be total, as it is asked for all lanes.
    #[inline(always)]
    pub(crate) fn write(&mut self, reg: Reg, value: impl Fn(usize) -> u32) {
        let active = self.active;
        let row = &mut self.r32[usize::from(reg)];
        if active == u32::MAX {
            for (lane, slot) in row.iter_mut().enumerate() {
                *slot = value(lane);
            }
        } else {
            for (lane, slot) in row.iter_mut().enumerate() {
                let new = value(lane);
                *slot = if active >> lane & 1 == 1 { new } else { *slot };
            }
        }
    }

    #[inline(always)]
    pub(crate) fn write64(&mut self, reg: Reg, value: impl Fn(usize) -> u64) {
        let active = self.active;
        let row = &mut self.r64[usize::from(reg)];
        if active == u32::MAX {
            for (lane, slot) in row.iter_mut().enumerate() {
                *slot = value(lane);
            }
        } else {
            for (lane, slot) in row.iter_mut().enumerate() {
                let new = value(lane);
                *slot = if active >> lane & 1 == 1 { new } else { *slot };
            }
        }
    }

    /// Writes a row for the active lanes only: for values that are costly or partial.
    #[inline(always)]
    pub(crate) fn write_each(&mut self, reg: Reg, value: impl Fn(usize) -> u32) {
        let row = &mut self.r32[usize::from(reg)];
        for lane in lanes(self.active) {
            row[lane] = value(lane);
        }
    }

    #[inline(always)]
    pub(crate) fn write64_each(&mut self, reg: Reg, value: impl Fn(usize) -> u64) {
        let row = &mut self.r64[usize::from(reg)];
        for lane in lanes(self.active) {
            row[lane] = value(lane);
        }
    }

    /// Writes a predicate where lanes are active.
    #[inline(always)]
    pub(crate) fn write_pred(&mut self, reg: Reg, bits: u32) {
        let slot = &mut self.pred[usize::from(reg)];
        *slot = *slot & !self.active | bits & self.active;
    }
}

/// One bit for each lane for which `test` holds.
#[inline(always)]
pub(crate) fn bits(test: impl Fn(usize) -> bool) -> u32 {
    let mut found = 0;
    for lane in 0..LANES {
        found |= u32::from(test(lane)) << lane;
    }
    found
}
