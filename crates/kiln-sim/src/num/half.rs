//! Arithmetic of f16 and bf16 scalars in their bit patterns; packed types apply it to each half.
//!
//! Sums, products and fused multiply-adds are rounded once, to nearest. NaN results are `0x7fff`. Subnormals are kept;
//! `.ftz` (f16 only) is [`ftz_f16`] on inputs and result, `.sat` is [`sat_f16`] and `.relu` [`relu_f16`] on the result.

use super::convert::{bf16_to_f32, f16_to_f32, f64_to_bf16, f64_to_f16};
use super::{NAN_16, Round};

/// `a + b` in f64, rounded to odd: inexact sums end in a set bit, so that a rounding to fewer bits that follows acts on
/// the exact sum. Method: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008.
#[inline(always)]
fn add_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    // Knuth's two-sum: what the rounding of the sum lost. No f16 or bf16 comes near f64's limits.
    let other = sum - a;
    let lost = (a - (sum - other)) + (b - other);
    let bits = sum.to_bits();
    if lost == 0.0 || bits & 1 == 1 || !lost.is_finite() {
        return sum;
    }
    // The odd neighbour on the side of the exact sum.
    let away_from_zero = (lost > 0.0) == (sum > 0.0);
    f64::from_bits(if away_from_zero { bits + 1 } else { bits - 1 })
}

macro_rules! half {
    ($to_f32:ident, $from_f64:ident, $infinity:literal, $one:literal,
     $add:ident, $sub:ident, $mul:ident, $fma:ident, $neg:ident, $abs:ident, $min:ident, $max:ident,
     $relu:ident, $sat:ident, $ftz:ident, $tanh:ident, $ex2:ident) => {
        /// `add.rn`.
        pub fn $add(a: u16, b: u16) -> u16 {
            let sum = add_to_odd(f64::from($to_f32(a)), f64::from($to_f32(b)));
            $from_f64(sum, Round::Nearest)
        }

        /// `sub.rn`.
        pub fn $sub(a: u16, b: u16) -> u16 {
            $add(a, b ^ 0x8000)
        }

        /// `mul.rn`.
        pub fn $mul(a: u16, b: u16) -> u16 {
            // Exact in f64.
            $from_f64(f64::from($to_f32(a)) * f64::from($to_f32(b)), Round::Nearest)
        }

        /// `fma.rn`: one rounding.
        pub fn $fma(a: u16, b: u16, c: u16) -> u16 {
            let product = f64::from($to_f32(a)) * f64::from($to_f32(b));
            $from_f64(add_to_odd(product, f64::from($to_f32(c))), Round::Nearest)
        }

        /// `neg`; NaN becomes canonical.
        #[inline(always)]
        pub fn $neg(a: u16) -> u16 {
            if a & 0x7fff > $infinity { NAN_16 } else { a ^ 0x8000 }
        }

        /// `abs`; NaN becomes canonical.
        #[inline(always)]
        pub fn $abs(a: u16) -> u16 {
            if a & 0x7fff > $infinity { NAN_16 } else { a & 0x7fff }
        }

        /// `min`, with `.NaN` and `.xorsign.abs`: -0.0 is below +0.0, and one NaN yields to a number unless `nan`.
        #[inline(always)]
        pub fn $min(a: u16, b: u16, nan: bool, xorsign: bool) -> u16 {
            min_max(a, b, nan, xorsign, $infinity, |a, b| a < b)
        }

        /// `max`, with `.NaN` and `.xorsign.abs`: +0.0 is above -0.0, and one NaN yields to a number unless `nan`.
        #[inline(always)]
        pub fn $max(a: u16, b: u16, nan: bool, xorsign: bool) -> u16 {
            min_max(a, b, nan, xorsign, $infinity, |a, b| a > b)
        }

        /// `.relu`: negative values, -0.0 among them, become +0.0, and NaN the canonical one.
        #[inline(always)]
        pub fn $relu(a: u16) -> u16 {
            if a & 0x7fff > $infinity {
                NAN_16
            } else if a & 0x8000 != 0 {
                0
            } else {
                a
            }
        }

        /// `.sat`: clamps to [0, 1]; NaN and -0.0 become +0.0.
        #[inline(always)]
        pub fn $sat(a: u16) -> u16 {
            if a > $infinity { 0 } else { a.min($one) }
        }

        /// A subnormal becomes zero of the same sign.
        #[inline(always)]
        pub fn $ftz(a: u16) -> u16 {
            if a & $infinity == 0 { a & 0x8000 } else { a }
        }

        /// `tanh.approx`, correctly rounded but for ties of the last bit of f64. The ISA's bounds are 2^-10.987 for
        /// f16 and 2^-8 for bf16, absolute.
        pub fn $tanh(a: u16) -> u16 {
            $from_f64(f64::from($to_f32(a)).tanh(), Round::Nearest)
        }

        /// `ex2.approx`, correctly rounded. The ISA's bounds are 2^-9.9 for f16 and 2^-7 for bf16, relative. Flushes
        /// no subnormals; for bf16, whose only form is `.ftz`, the caller does.
        pub fn $ex2(a: u16) -> u16 {
            $from_f64(f64::from($to_f32(a)).exp2(), Round::Nearest)
        }
    };
}

#[inline(always)]
fn min_max(a: u16, b: u16, nan: bool, xorsign: bool, infinity: u16, first: impl Fn(i16, i16) -> bool) -> u16 {
    let sign = (a ^ b) & 0x8000;
    let (a, b) = if xorsign { (a & 0x7fff, b & 0x7fff) } else { (a, b) };
    let (a_nan, b_nan) = (a & 0x7fff > infinity, b & 0x7fff > infinity);
    // Patterns are ordered as signed integers once the magnitude bits of the negative ones are flipped.
    let order = |bits: u16| (bits ^ ((bits as i16 >> 15) as u16 & 0x7fff)) as i16;
    let number = if b_nan || !a_nan && first(order(a), order(b)) { a } else { b };
    if a_nan & b_nan | nan & (a_nan | b_nan) {
        NAN_16
    } else if xorsign {
        number & 0x7fff | sign
    } else {
        number
    }
}

half!(
    f16_to_f32, f64_to_f16, 0x7c00, 0x3c00, add_f16, sub_f16, mul_f16, fma_f16, neg_f16, abs_f16, min_f16,
    max_f16, relu_f16, sat_f16, ftz_f16, tanh_f16, ex2_f16
);
half!(
    bf16_to_f32,
    f64_to_bf16,
    0x7f80,
    0x3f80,
    add_bf16,
    sub_bf16,
    mul_bf16,
    fma_bf16,
    neg_bf16,
    abs_bf16,
    min_bf16,
    max_bf16,
    relu_bf16,
    sat_bf16,
    ftz_bf16,
    tanh_bf16,
    ex2_bf16
);
