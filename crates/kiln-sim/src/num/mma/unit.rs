//! How tensor cores add: not as a chain of fused multiply-adds, but block by block.
//!
//! The products of a block and the sum so far are written with the exponent of the largest of them, to a few bits more than a
//! float32 has. What lies below is cut off. They are added exactly, and the sum is cut off to the result's format; the next
//! block goes on from there. So the order within a block means nothing, and errors lean towards zero. A product keeps the
//! exponent that its factors' exponents add up to, even where it is 2 or more times that power.
//!
//! NVIDIA documents none of it. Method and parameters: F. A. Khattak and M. Mikaitis, Accurate Models of NVIDIA Tensor Cores,
//! [arXiv:2512.07004](https://arxiv.org/abs/2512.07004), who compared them with the hardware bit by bit.

use super::super::Round;
use super::super::exact::{Exact, F16, F32, Format};
use crate::arch::Arch;

/// The tensor cores of a generation of GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorCore {
    /// sm_80, sm_86 and sm_89.
    Ampere,
    /// sm_90 and newer.
    Hopper,
}

impl From<Arch> for TensorCore {
    fn from(arch: Arch) -> TensorCore {
        match arch {
            Arch::Sm80 | Arch::Sm86 | Arch::Sm89 => TensorCore::Ampere,
            Arch::Sm90 | Arch::Sm100 | Arch::Sm120 => TensorCore::Hopper,
        }
    }
}

/// Operands of a product, for what of their format the hardware shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// f16.
    F16,
    /// bf16.
    Bf16,
    /// tf32.
    Tf32,
}

impl Operand {
    /// Exponent that subnormal values have, too.
    fn smallest(self) -> i32 {
        if self == Operand::F16 { -14 } else { -126 }
    }
}

/// The exponent of zero: below all others, also when two are added.
const NONE: i32 = -(1 << 20);
/// The exponent of what is not finite: above all others, also with zero's.
const INFINITE: i32 = 1 << 22;

/// Exponents of sums with which all steps below are exact in the formats that they are made in.
const MODERATE: std::ops::RangeInclusive<i32> = -90..=100;

#[inline(always)]
fn exponent(value: f32, smallest: i32) -> i32 {
    let bits = value.to_bits();
    let exponent = ((bits >> 23 & 255) as i32 - 127).max(smallest);
    match bits << 1 {
        0 => NONE,
        0xff00_0000.. => INFINITE,
        _ => exponent,
    }
}

/// `2^exponent` of a normal number.
#[inline(always)]
fn power(exponent: i32) -> f32 {
    f32::from_bits(((127 + exponent) as u32) << 23)
}

#[inline(always)]
fn power64(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

impl TensorCore {
    /// Products of a block.
    pub(super) const fn block(self, operand: Operand) -> usize {
        match (self, operand) {
            (TensorCore::Ampere, Operand::Tf32) => 4,
            (TensorCore::Ampere, _) | (TensorCore::Hopper, Operand::Tf32) => 8,
            (TensorCore::Hopper, _) => 16,
        }
    }

    /// Bits after the point that aligned terms keep: those of a float32 and a few more.
    const fn fraction(self) -> i32 {
        match self {
            TensorCore::Ampere => 23 + 1,
            TensorCore::Hopper => 23 + 2,
        }
    }

    /// The smallest exponent that terms are aligned with.
    const fn floor(self, half: bool) -> i32 {
        match (self, half) {
            (TensorCore::Ampere, false) => -132,
            (TensorCore::Hopper, false) => -133,
            (TensorCore::Ampere, true) => -20,
            (TensorCore::Hopper, true) => -21,
        }
    }

    /// `a b + c` in f32.
    #[inline(always)]
    pub(super) fn product<const K: usize, const M: usize>(
        self,
        operand: Operand,
        a: &[[f32; K]; M],
        b: &[[f32; 8]; K],
        c: [[f32; 8]; M],
    ) -> [[f32; 8]; M] {
        // The size of a block as a constant: its loops are unrolled.
        match self.block(operand) {
            16.. => self.product_of_blocks::<K, M, 16>(operand, a, b, c),
            8.. => self.product_of_blocks::<K, M, 8>(operand, a, b, c),
            _ => self.product_of_blocks::<K, M, 4>(operand, a, b, c),
        }
    }

    #[inline(always)]
    fn product_of_blocks<const K: usize, const M: usize, const BLOCK: usize>(
        self,
        operand: Operand,
        a: &[[f32; K]; M],
        b: &[[f32; 8]; K],
        mut c: [[f32; 8]; M],
    ) -> [[f32; 8]; M] {
        let smallest = operand.smallest();
        let of_b = b.map(|line| line.map(|value| exponent(value, smallest)));
        for (a, sums) in a.iter().zip(&mut c) {
            let of_a = a.map(|value| exponent(value, smallest));
            for first in (0..K).step_by(BLOCK) {
                let ks = first..(first + BLOCK).min(K);
                let mut high = sums.map(|sum| exponent(sum, -126));
                for k in ks.clone() {
                    for (high, of_b) in high.iter_mut().zip(&of_b[k]) {
                        *high = (*high).max(of_a[k].wrapping_add(*of_b)); // which cannot overflow, and is not looked at for that
                    }
                }
                let moderate = |high: &i32| MODERATE.contains(high) || *high < -1000;
                if high.iter().all(moderate) {
                    *sums = self.block_sums(&a[ks.clone()], &b[ks], *sums, high);
                } else {
                    for (column, sum) in sums.iter_mut().enumerate() {
                        let terms = ks.clone().map(|k| (a[k], b[k][column]));
                        *sum = self.any_sum(operand, terms, *sum, false);
                    }
                }
            }
        }
        c
    }

    /// One block of a row, where the largest exponents are moderate or zeros'.
    #[inline(always)]
    fn block_sums(self, a: &[f32], b: &[[f32; 8]], sums: [f32; 8], high: [i32; 8]) -> [f32; 8] {
        let high = high.map(|high| if high < -1000 { 0 } else { high });
        let scale = high.map(|high| power(self.fraction() - high));
        // A product is exact unless it is so small that all of it is cut off; scaling is exact, `trunc` cuts off. A term is below 2^27, so
        // that sums are exact. From zero on, which stays +0 where all terms are -0. (Not as integers: hosts convert those one by one.)
        let mut totals = [0f64; 8];
        for (column, total) in totals.iter_mut().enumerate() {
            *total += f64::from((sums[column] * scale[column]).trunc());
        }
        for (a, b) in a.iter().zip(b) {
            for (column, total) in totals.iter_mut().enumerate() {
                *total += f64::from((a * b[column] * scale[column]).trunc());
            }
        }
        std::array::from_fn(|column| {
            let total = totals[column];
            // 29 digits more than a float32 has.
            let cut = f64::from_bits(total.to_bits() & !((1 << 29) - 1));
            (cut * power64(high[column] - self.fraction())) as f32
        })
    }

    /// One sum of a block, whatever its terms are; `half`, its result is an f16.
    pub(super) fn any_sum(
        self,
        operand: Operand,
        terms: impl Iterator<Item = (f32, f32)> + Clone,
        start: f32,
        half: bool,
    ) -> f32 {
        let smallest = operand.smallest();
        if !start.is_finite() || terms.clone().any(|(a, b)| !(a.is_finite() && b.is_finite())) {
            // In f64, where no product of finite factors overflows.
            let wide = terms.fold(f64::from(start), |sum, (a, b)| f64::from(a) * f64::from(b) + sum);
            return wide as f32;
        }
        let exponents = terms.clone().map(|(a, b)| exponent(a, smallest) + exponent(b, smallest));
        let high = exponents.fold(exponent(start, -126), i32::max).max(self.floor(half));
        let scale = power64(self.fraction() - high);
        let aligned = |value: f64| (value * scale) as i64;
        let products = terms.map(|(a, b)| aligned(f64::from(a) * f64::from(b)));
        let total = aligned(f64::from(start)) + products.sum::<i64>();
        let total = Exact::from(total as f64 * power64(high - self.fraction()));
        let rounded = |format: &Format, round| total.round(format, round);
        match half {
            true => super::f16_to_f32(rounded(&F16, Round::Nearest) as u16),
            false if total.reaches(128) => f32::INFINITY.copysign(if total.negative { -1.0 } else { 1.0 }),
            false => f32::from_bits(rounded(&F32, Round::Zero) as u32),
        }
    }

    /// `a b + c` with f16 accumulators.
    pub(super) fn half_product<const K: usize, const M: usize>(
        self,
        a: &[[f32; K]; M],
        b: &[[f32; 8]; K],
        mut c: [[f32; 8]; M],
    ) -> [[f32; 8]; M] {
        for (a, sums) in a.iter().zip(&mut c) {
            for (column, sum) in sums.iter_mut().enumerate() {
                for first in (0..K).step_by(self.block(Operand::F16)) {
                    let ks = first..(first + self.block(Operand::F16)).min(K);
                    let terms = ks.map(|k| (a[k], b[k][column]));
                    *sum = self.any_sum(Operand::F16, terms, *sum, true);
                }
            }
        }
        c
    }
}
