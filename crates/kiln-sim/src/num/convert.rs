//! `cvt`: conversions between formats, in bit patterns for those that Rust has no type for.
//!
//! NaN becomes the canonical NaN of the destination. An overflow gives infinity or the largest finite value, as the
//! rounding mode says; the `satfinite` forms give the largest finite value, for infinity too.
//! Subnormals are kept everywhere: `.ftz` is [`float::ftz`](super::float::ftz) on the f32 side.

use super::exact::{BF16, E4M3, E5M2, Exact, F16, F32, F64, Format};
use super::{NAN_16, NAN_F32, NAN_F64, Round};

/// `cvt.f32.f16`: exact.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff);
    let sign = u32::from(bits & 0x8000) << 16;
    // Exponent and mantissa at their places in an f32 are the value times 2^-112, subnormals included.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let finite = scaled.to_bits();
    let special = if magnitude > 0x7c00 { 0x7fff_ffff } else { sign | 0x7f80_0000 };
    f32::from_bits(if magnitude >= 0x7c00 { special } else { sign | finite })
}

/// `cvt.f32.bf16`: exact. A NaN, for which the ISA leaves the result open, keeps its payload.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// e4m3 as an f32: exact. `0x7f` and `0xff` are NaN, and there is no infinity.
pub fn e4m3_to_f32(bits: u8) -> f32 {
    let (exponent, fraction) = (u32::from(bits >> 3 & 15), u32::from(bits & 7));
    let magnitude = match (exponent, fraction) {
        (15, 7) => return NAN_F32,
        (0, _) => fraction as f32 / 512.0,
        _ => f32::from_bits((exponent + 127 - 7) << 23 | fraction << 20),
    };
    if bits & 0x80 != 0 { -magnitude } else { magnitude }
}

/// e5m2 as an f32: exact. It is the upper half of an f16.
pub fn e5m2_to_f32(bits: u8) -> f32 {
    f16_to_f32(u16::from(bits) << 8)
}

/// `cvt.f16.f32`.
#[inline(always)]
pub fn f32_to_f16(value: f32, round: Round) -> u16 {
    if round == Round::Nearest { f32_to_f16_rn(value) } else { f64_to_f16(f64::from(value), round) }
}

/// [`f32_to_f16`] for [`Round::Nearest`], without a branch.
#[inline(always)]
pub fn f32_to_f16_rn(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    // The last bit of an f32 near 0.5 weighs 2^-24, as that of an f16 subnormal: the host's sum rounds to it.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    // Half of the last bit, less one if that bit is even; the exponent is rebiased from 127 to 15. A carry out of the
    // largest exponent gives infinity.
    let normal = magnitude.wrapping_add(0xc800_0fff).wrapping_add(magnitude >> 13 & 1) >> 13;
    let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
    let result = if magnitude >= 0x4780_0000 { 0x7c00 } else { finite as u16 };
    if magnitude > 0x7f80_0000 { NAN_16 } else { sign | result }
}

/// `cvt.bf16.f32`.
#[inline(always)]
pub fn f32_to_bf16(value: f32, round: Round) -> u16 {
    (round_low_bits(value, 16, round) >> 16) as u16
}

/// `cvt.satfinite.f16.f32`.
pub fn f32_to_f16_satfinite(value: f32, round: Round) -> u16 {
    saturate(f32_to_f16(value, round), F16.max_finite as u16)
}

/// `cvt.satfinite.bf16.f32`.
pub fn f32_to_bf16_satfinite(value: f32, round: Round) -> u16 {
    saturate(f32_to_bf16(value, round), BF16.max_finite as u16)
}

/// Infinity, which lies right above `max_finite`, as `max_finite` of the same sign.
fn saturate(bits: u16, max_finite: u16) -> u16 {
    if bits & 0x7fff == max_finite + 1 { bits - 1 } else { bits }
}

/// `cvt.tf32.f32`: an f32 pattern whose low 13 bits are zero, or `0x7fffffff` for NaN.
#[inline(always)]
pub fn f32_to_tf32(value: f32, round: Round) -> u32 {
    round_low_bits(value, 13, round)
}

/// `cvt.satfinite.tf32.f32`.
pub fn f32_to_tf32_satfinite(value: f32, round: Round) -> u32 {
    let bits = round_low_bits(value, 13, round);
    if bits & 0x7fff_ffff == 0x7f80_0000 { bits - (1 << 13) } else { bits }
}

/// Rounds the low bits of an f32's pattern away. Formats that share f32's exponents need no more, subnormals included;
/// a carry out of the largest exponent gives infinity.
#[inline(always)]
fn round_low_bits(value: f32, low: u32, round: Round) -> u32 {
    let bits = value.to_bits();
    let (sign, magnitude) = (bits & 0x8000_0000, bits & 0x7fff_ffff);
    let mask = (1 << low) - 1;
    let add = match round {
        Round::Nearest => (mask >> 1) + (magnitude >> low & 1),
        Round::NearestAway => (mask >> 1) + 1,
        Round::Zero => 0,
        Round::Up => {
            if sign == 0 {
                mask
            } else {
                0
            }
        }
        Round::Down => {
            if sign == 0 {
                0
            } else {
                mask
            }
        }
    };
    // Infinity's low bits are zero: what is added never reaches its kept ones.
    let rounded = sign | ((magnitude + add) & !mask);
    if magnitude > 0x7f80_0000 { 0x7fff_ffff } else { rounded }
}

/// `cvt.rn.satfinite.e4m3x2.f32`, one of the two values.
pub fn f32_to_e4m3(value: f32) -> u8 {
    f64_to_8_bits(f64::from(value), &E4M3)
}

/// `cvt.rn.satfinite.e5m2x2.f32`, one of the two values.
pub fn f32_to_e5m2(value: f32) -> u8 {
    f64_to_8_bits(f64::from(value), &E5M2)
}

fn f64_to_8_bits(value: f64, format: &Format) -> u8 {
    if value.is_nan() { 0x7f } else { round_finite_or_infinite(value, format, Round::Nearest) as u8 }
}

/// `cvt.f32.f64`.
#[inline(always)]
pub fn f64_to_f32(value: f64, round: Round) -> f32 {
    if value.is_nan() {
        NAN_F32
    } else if round == Round::Nearest {
        value as f32
    } else {
        f32::from_bits(round_finite_or_infinite(value, &F32, round) as u32)
    }
}

/// `cvt.f64.f32`: exact.
#[inline(always)]
pub fn f32_to_f64(value: f32) -> f64 {
    if value.is_nan() { NAN_F64 } else { f64::from(value) }
}

/// `cvt.f16.f64`: rounded once.
pub fn f64_to_f16(value: f64, round: Round) -> u16 {
    if value.is_nan() { NAN_16 } else { round_finite_or_infinite(value, &F16, round) as u16 }
}

/// `cvt.bf16.f64`: rounded once.
pub fn f64_to_bf16(value: f64, round: Round) -> u16 {
    if value.is_nan() { NAN_16 } else { round_finite_or_infinite(value, &BF16, round) as u16 }
}

fn round_finite_or_infinite(value: f64, format: &Format, round: Round) -> u64 {
    if value.is_infinite() {
        return u64::from(value < 0.0) << format.sign_bit | format.infinity;
    }
    Exact::from(value).round(format, round)
}

/// `cvt.f32` from any integer type.
pub fn int_to_f32(value: i128, round: Round) -> f32 {
    if round == Round::Nearest {
        return value as f32;
    }
    f32::from_bits(Exact::from(value).round(&F32, round) as u32)
}

/// `cvt.f64` from any integer type.
pub fn int_to_f64(value: i128, round: Round) -> f64 {
    if round == Round::Nearest {
        return value as f64;
    }
    f64::from_bits(Exact::from(value).round(&F64, round))
}

/// `cvt.f16` from any integer type: rounded once.
pub fn int_to_f16(value: i128, round: Round) -> u16 {
    Exact::from(value).round(&F16, round) as u16
}

/// `cvt.bf16` from any integer type: rounded once.
pub fn int_to_bf16(value: i128, round: Round) -> u16 {
    Exact::from(value).round(&BF16, round) as u16
}

/// `cvt` from a float of `from_bits` bits (widened, which is exact) to an integer of `bits` bits (8, 16, 32, 64).
///
/// The rounded value is clamped to the destination's range, with or without `.sat`. NaN gives zero if the source is
/// no f64 and the destination has no 64 bits, else `1 << (bits - 1)`. The result is extended to 64 bits by its sign,
/// or with zeros where `signed` is false.
pub fn float_to_int(value: f64, round: Round, bits: u32, signed: bool, from_bits: u32) -> u64 {
    if value.is_nan() {
        let wide = from_bits == 64 || bits == 64;
        let top = if wide { 1u64 << (bits - 1) } else { 0 };
        return if signed { top.wrapping_neg() } else { top };
    }
    let integral = round_integral_f64(value, round);
    // `as` clamps too.
    match (bits, signed) {
        (64, true) => integral as i64 as u64,
        (64, false) => integral as u64,
        (_, true) => (integral as i64).clamp(-1 << (bits - 1), (1 << (bits - 1)) - 1) as u64,
        (_, false) => (integral as i64).clamp(0, (1 << bits) - 1) as u64,
    }
}

/// `cvt.rni.f32.f32` and its kin: to an integral value; zeros keep the sign of the input.
#[inline(always)]
pub fn round_integral_f32(value: f32, round: Round) -> f32 {
    let result = match round {
        Round::Nearest => value.round_ties_even(),
        Round::NearestAway => value.round(),
        Round::Zero => value.trunc(),
        Round::Up => value.ceil(),
        Round::Down => value.floor(),
    };
    if value.is_nan() { NAN_F32 } else { result }
}

/// `cvt.rni.f64.f64` and its kin.
#[inline(always)]
pub fn round_integral_f64(value: f64, round: Round) -> f64 {
    let result = match round {
        Round::Nearest => value.round_ties_even(),
        Round::NearestAway => value.round(),
        Round::Zero => value.trunc(),
        Round::Up => value.ceil(),
        Round::Down => value.floor(),
    };
    if value.is_nan() { NAN_F64 } else { result }
}

/// `cvt.rni.f16.f16` and its kin. Integral values of f16 are exact in f32 and back.
pub fn round_integral_f16(bits: u16, round: Round) -> u16 {
    f32_to_f16_rn(round_integral_f32(f16_to_f32(bits), round))
}

/// `cvt.rni.bf16.bf16` and its kin.
pub fn round_integral_bf16(bits: u16, round: Round) -> u16 {
    f32_to_bf16(round_integral_f32(bf16_to_f32(bits), round), Round::Nearest)
}
