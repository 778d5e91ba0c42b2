//! The approximate functions (`.approx`, `.full`).
//!
//! The ISA bounds their errors and leaves the rest open. Here each is computed in f64, whose error is below 2^-50, and
//! rounded to nearest: the best that the format can hold, and inside every bound. So a kernel that passes here has
//! seen results that a device may give, not those that one does give.
//!
//! With `ftz`, subnormal inputs and results become zeros of their sign.

use super::NAN_F32;
use super::float::{canonical_f32, canonical_f64, ftz};

/// Flushes the input and the result if asked, and makes NaN canonical.
#[inline(always)]
fn apply(a: f32, flush: bool, function: impl Fn(f64) -> f64) -> f32 {
    let a = if flush { ftz(a) } else { a };
    let result = function(f64::from(a)) as f32;
    canonical_f32(if flush { ftz(result) } else { result })
}

/// `rcp.approx.f32`: 1 ulp over the full range. Zeros give infinities of their sign, and infinities zeros.
pub fn rcp(a: f32, flush: bool) -> f32 {
    apply(a, flush, |a| 1.0 / a)
}

/// `sqrt.approx.f32`: relative error 2^-23. -0.0 gives -0.0, values below give NaN.
pub fn sqrt(a: f32, flush: bool) -> f32 {
    apply(a, flush, f64::sqrt)
}

/// `rsqrt.approx.f32`: relative error 2^-22.9. Zeros give infinities of their sign, values below give NaN.
pub fn rsqrt(a: f32, flush: bool) -> f32 {
    apply(a, flush, |a| 1.0 / a.sqrt())
}

/// `div.approx.f32`: 2 ulp for |b| in [2^-126, 2^126]. For larger finite |b|, infinity gives NaN and any other number a
/// zero of the quotient's sign, as `a * (1 / b)` does on a device whose reciprocal underflows.
pub fn div(a: f32, b: f32, flush: bool) -> f32 {
    let (a, b) = if flush { (ftz(a), ftz(b)) } else { (a, b) };
    let beyond = b.is_finite() && b.abs() > f32::from_bits((126 + 127) << 23);
    if !beyond || a.is_nan() {
        return quotient(a, b, flush);
    }
    if a.is_infinite() { NAN_F32 } else { 0f32.copysign(a) * 1f32.copysign(b) }
}

/// `div.full.f32`: 2 ulp over the full range.
pub fn div_full(a: f32, b: f32, flush: bool) -> f32 {
    let (a, b) = if flush { (ftz(a), ftz(b)) } else { (a, b) };
    quotient(a, b, flush)
}

fn quotient(a: f32, b: f32, flush: bool) -> f32 {
    let result = a / b;
    canonical_f32(if flush { ftz(result) } else { result })
}

/// `ex2.approx.f32`: 2 ulp over the full range. -Inf gives +0.0, +Inf gives +Inf.
pub fn ex2(a: f32, flush: bool) -> f32 {
    apply(a, flush, f64::exp2)
}

/// `lg2.approx.f32`: error 2^-22, absolute for inputs in (0.5, 2) and relative elsewhere. Zeros give -Inf, values below
/// give NaN.
pub fn lg2(a: f32, flush: bool) -> f32 {
    apply(a, flush, f64::log2)
}

/// `sin.approx.f32`: absolute error 2^-20.5 in [-2 pi, 2 pi] and 2^-14.7 in [-100 pi, 100 pi]. Infinities give NaN.
pub fn sin(a: f32, flush: bool) -> f32 {
    apply(a, flush, f64::sin)
}

/// `cos.approx.f32`: bounds as [`sin`].
pub fn cos(a: f32, flush: bool) -> f32 {
    apply(a, flush, f64::cos)
}

/// `tanh.approx.f32`: relative error 2^-11. It has no `.ftz`; subnormals pass.
pub fn tanh(a: f32) -> f32 {
    apply(a, false, f64::tanh)
}

/// `rsqrt.approx.f64`, for which the ISA gives no bound: two roundings of f64. Zeros give infinities of their sign.
pub fn rsqrt_f64(a: f64) -> f64 {
    canonical_f64(1.0 / a.sqrt())
}

/// `rcp.approx.ftz.f64`, a gross approximation: of the upper word of `a` alone, its own lower word zero, rounded to
/// nearest. NaN is `0x7fffffff_00000000`; subnormal inputs and results become zeros of their sign.
pub fn rcp_approx_ftz_f64(a: f64) -> f64 {
    upper_word(a, |a| 1.0 / a)
}

/// `rsqrt.approx.ftz.f64`: as [`rcp_approx_ftz_f64`].
pub fn rsqrt_approx_ftz_f64(a: f64) -> f64 {
    upper_word(a, |a| 1.0 / a.sqrt())
}

fn upper_word(a: f64, function: impl Fn(f64) -> f64) -> f64 {
    let result = function(ftz_f64(f64::from_bits(a.to_bits() & !0xffff_ffff)));
    if result.is_nan() {
        return f64::from_bits(0x7fff_ffff_0000_0000);
    }
    // No carry reaches infinity: the largest result is the reciprocal of the smallest normal number.
    let rounded = (result.to_bits() + 0x8000_0000) & !0xffff_ffff;
    ftz_f64(f64::from_bits(rounded))
}

fn ftz_f64(value: f64) -> f64 {
    if value.is_subnormal() { 0f64.copysign(value) } else { value }
}
