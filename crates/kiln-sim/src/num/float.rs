//! Arithmetic of f32 and f64: all four IEEE roundings, exact with subnormals, signed zeros and infinities.
//!
//! Rounding to nearest is the host's. The directed roundings are computed from the exact value (module `exact`).
//! A NaN result is the canonical one. `.ftz` is [`ftz`] on inputs and result, `.sat` is [`sat_f32`] on the result.

use std::num::FpCategory;

use super::exact::{Exact, F32, F64};
use super::{NAN_F32, NAN_F64, Round};

/// A subnormal becomes zero of the same sign.
#[inline(always)]
pub fn ftz(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits })
}

/// Any NaN becomes `0x7fffffff`.
#[inline(always)]
pub fn canonical_f32(value: f32) -> f32 {
    if value.is_nan() { NAN_F32 } else { value }
}

/// Any NaN becomes `0x7ff8000000000000`.
#[inline(always)]
pub fn canonical_f64(value: f64) -> f64 {
    if value.is_nan() { NAN_F64 } else { value }
}

/// `.sat`: clamps to [0, 1]; NaN and -0.0 become +0.0.
#[inline(always)]
pub fn sat_f32(value: f32) -> f32 {
    if value > 0.0 { if value < 1.0 { value } else { 1.0 } } else { 0.0 }
}

/// `.sat`: clamps to [0, 1]; NaN and -0.0 become +0.0.
#[inline(always)]
pub fn sat_f64(value: f64) -> f64 {
    if value > 0.0 { if value < 1.0 { value } else { 1.0 } } else { 0.0 }
}

/// `fma.rn.f32` as one instruction of the host, for loops that vectorise. Its NaN is not canonical.
#[inline(always)]
pub fn fma_rn_f32(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// The exact value is needed where the operands are finite and the rounding is directed.
macro_rules! arithmetic {
    ($float:ident, $format:ident, $bits:ident, $canonical:ident,
     $add:ident, $sub:ident, $mul:ident, $div:ident, $fma:ident, $sqrt:ident, $rcp:ident) => {
        /// `add`.
        #[inline(always)]
        pub fn $add(a: $float, b: $float, round: Round) -> $float {
            // Infinities and NaN have no exact value, and one rounding.
            if round == Round::Nearest || !(a.is_finite() && b.is_finite()) {
                return $canonical(a + b);
            }
            let exact = Exact::from(a).plus(Exact::from(b), round);
            $float::from_bits(exact.round(&$format, round) as $bits)
        }

        /// `sub`.
        #[inline(always)]
        pub fn $sub(a: $float, b: $float, round: Round) -> $float {
            $add(a, -b, round)
        }

        /// `mul`.
        #[inline(always)]
        pub fn $mul(a: $float, b: $float, round: Round) -> $float {
            if round == Round::Nearest || !(a.is_finite() && b.is_finite()) {
                return $canonical(a * b);
            }
            let exact = Exact::from(a).times(Exact::from(b));
            $float::from_bits(exact.round(&$format, round) as $bits)
        }

        /// `div` with IEEE rounding.
        #[inline(always)]
        pub fn $div(a: $float, b: $float, round: Round) -> $float {
            if round == Round::Nearest || !(a.is_finite() && b.is_finite()) || b == 0.0 {
                return $canonical(a / b);
            }
            let exact = Exact::from(a).over(Exact::from(b));
            $float::from_bits(exact.round(&$format, round) as $bits)
        }

        /// `fma`: one rounding.
        #[inline(always)]
        pub fn $fma(a: $float, b: $float, c: $float, round: Round) -> $float {
            if round == Round::Nearest || !(a.is_finite() && b.is_finite() && c.is_finite()) {
                return $canonical(a.mul_add(b, c));
            }
            let exact = Exact::from(a).times(Exact::from(b)).plus(Exact::from(c), round);
            $float::from_bits(exact.round(&$format, round) as $bits)
        }

        /// `sqrt` with IEEE rounding: -0.0 for -0.0, NaN below.
        #[inline(always)]
        pub fn $sqrt(a: $float, round: Round) -> $float {
            if round == Round::Nearest || !a.is_finite() || a < 0.0 {
                return $canonical(a.sqrt());
            }
            let exact = Exact::from(a).sqrt();
            $float::from_bits(exact.round(&$format, round) as $bits)
        }

        /// `rcp` with IEEE rounding.
        #[inline(always)]
        pub fn $rcp(a: $float, round: Round) -> $float {
            $div(1.0, a, round)
        }
    };
}

arithmetic!(f32, F32, u32, canonical_f32, add_f32, sub_f32, mul_f32, div_f32, fma_f32, sqrt_f32, rcp_f32);
arithmetic!(f64, F64, u64, canonical_f64, add_f64, sub_f64, mul_f64, div_f64, fma_f64, sqrt_f64, rcp_f64);

macro_rules! min_max {
    ($visibility:vis $name:ident, $float:ident, $nan:ident, $a_first:expr) => {
        /// With `.NaN` and `.xorsign.abs`: +0.0 is above -0.0, and one NaN yields to a number unless `nan`.
        #[inline(always)]
        $visibility fn $name(a: $float, b: $float, nan: bool, xorsign: bool) -> $float {
            let sign = if a.is_sign_negative() != b.is_sign_negative() { -1.0 } else { 1.0 };
            let (a, b) = if xorsign { (a.abs(), b.abs()) } else { (a, b) };
            let number = if $a_first(a, b) || b.is_nan() { a } else { b };
            let number = if xorsign { number.copysign(sign) } else { number };
            let (a, b) = (a.is_nan(), b.is_nan());
            if a & b | nan & (a | b) { $nan } else { number }
        }
    };
}

min_max!(pub min_f32, f32, NAN_F32, |a: f32, b: f32| a < b || a == b && a.is_sign_negative());
min_max!(pub max_f32, f32, NAN_F32, |a: f32, b: f32| a > b || a == b && a.is_sign_positive());
min_max!(min_f64_flags, f64, NAN_F64, |a: f64, b: f64| a < b || a == b && a.is_sign_negative());
min_max!(max_f64_flags, f64, NAN_F64, |a: f64, b: f64| a > b || a == b && a.is_sign_positive());

/// `min.f64`, which has no flags.
#[inline(always)]
pub fn min_f64(a: f64, b: f64) -> f64 {
    min_f64_flags(a, b, false, false)
}

/// `max.f64`, which has no flags.
#[inline(always)]
pub fn max_f64(a: f64, b: f64) -> f64 {
    max_f64_flags(a, b, false, false)
}

/// `copysign`: the value of `b` with the sign of `a`.
#[inline(always)]
pub fn copysign_f32(a: f32, b: f32) -> f32 {
    b.copysign(a)
}

/// `copysign`: the value of `b` with the sign of `a`.
#[inline(always)]
pub fn copysign_f64(a: f64, b: f64) -> f64 {
    b.copysign(a)
}

/// What `testp` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestKind {
    /// Neither infinity nor NaN.
    Finite,
    /// Either infinity.
    Infinite,
    /// Not NaN.
    Number,
    /// NaN.
    NotANumber,
    /// Finite and not subnormal: zeros count as normal.
    Normal,
    /// Subnormal.
    Subnormal,
}

/// `testp.f32`.
pub fn testp_f32(kind: TestKind, value: f32) -> bool {
    testp(kind, value.classify())
}

/// `testp.f64`.
pub fn testp_f64(kind: TestKind, value: f64) -> bool {
    testp(kind, value.classify())
}

fn testp(kind: TestKind, class: FpCategory) -> bool {
    match kind {
        TestKind::Finite => !matches!(class, FpCategory::Infinite | FpCategory::Nan),
        TestKind::Infinite => class == FpCategory::Infinite,
        TestKind::Number => class != FpCategory::Nan,
        TestKind::NotANumber => class == FpCategory::Nan,
        TestKind::Normal => matches!(class, FpCategory::Normal | FpCategory::Zero),
        TestKind::Subnormal => class == FpCategory::Subnormal,
    }
}
