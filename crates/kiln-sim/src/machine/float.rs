//! Floating-point instructions, lane by lane.

use crate::isa::{Class, Float1, Float2, Half, HalfMode, HalfType, Inst, Mode, Op};
use crate::num::{approx, convert, float};

use super::halves as half;
use super::regs::{Regs, Row, bits};

/// Executes a floating-point instruction; false for any other.
#[inline(always)]
pub(super) fn execute(inst: &Inst, regs: &mut Regs<'_>) -> bool {
    match inst.op {
        Op::F32Fma(mode) => fma32(mode, inst, regs),
        Op::F32(op, mode) => binary32(op, mode, inst, regs),
        _ => return rare(inst, regs),
    }
    true
}

#[inline(always)]
fn fma32(mode: Mode, inst: &Inst, regs: &mut Regs<'_>) {
    let (a, b, c) = (regs.a(inst, 1), regs.a(inst, 2), regs.a(inst, 3));
    if mode.is_plain() {
        // The caller is compiled with the processor's fused multiply-add, if it has one.
        let f = f32::from_bits;
        return regs.write(inst.r[0], |l| canonical(f(a[l]).mul_add(f(b[l]), f(c[l]))));
    }
    regs.write_each(inst.r[0], |l| {
        let [x, y, z] = [a[l], b[l], c[l]].map(|bits| input(bits, mode));
        output(float::fma_f32(x, y, z, mode.round), mode)
    });
}

/// PTX's NaN for results of f32 arithmetic.
#[inline(always)]
fn canonical(value: f32) -> u32 {
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits() }
}

#[inline(always)]
fn canonical64(value: f64) -> u64 {
    float::canonical_f64(value).to_bits()
}

fn input(bits: u32, mode: Mode) -> f32 {
    let value = f32::from_bits(bits);
    if mode.ftz { float::ftz(value) } else { value }
}

fn output(value: f32, mode: Mode) -> u32 {
    let value = if mode.ftz { float::ftz(value) } else { value };
    canonical(if mode.sat { float::sat_f32(value) } else { value })
}

#[inline(always)]
fn binary32(op: Float2, mode: Mode, inst: &Inst, regs: &mut Regs<'_>) {
    let (a, b, d) = (regs.a(inst, 1), regs.a(inst, 2), inst.r[0]);
    if mode.is_plain() {
        let f = f32::from_bits;
        match op {
            Float2::Add => return regs.write(d, |l| canonical(f(a[l]) + f(b[l]))),
            Float2::Sub => return regs.write(d, |l| canonical(f(a[l]) - f(b[l]))),
            Float2::Mul => return regs.write(d, |l| canonical(f(a[l]) * f(b[l]))),
            Float2::Div => return regs.write(d, |l| canonical(f(a[l]) / f(b[l]))),
            _ => {}
        }
    }
    binary32_rare(op, mode, &a, &b, d, regs);
}

fn binary32_rare(op: Float2, mode: Mode, a: &Row, b: &Row, d: u16, regs: &mut Regs<'_>) {
    regs.write_each(d, |l| {
        let (x, y) = (input(a[l], mode), input(b[l], mode));
        let value = match op {
            Float2::Add => float::add_f32(x, y, mode.round),
            Float2::Sub => float::sub_f32(x, y, mode.round),
            Float2::Mul => float::mul_f32(x, y, mode.round),
            Float2::Div => float::div_f32(x, y, mode.round),
            Float2::DivApprox => approx::div(x, y, mode.ftz),
            Float2::DivFull => approx::div_full(x, y, mode.ftz),
            Float2::Min { nan, xorsign } => float::min_f32(x, y, nan, xorsign),
            Float2::Max { nan, xorsign } => float::max_f32(x, y, nan, xorsign),
            Float2::CopySign => return b[l] & 0x7fff_ffff | a[l] & 0x8000_0000,
        };
        output(value, mode)
    });
}

fn unary32(op: Float1, mode: Mode, inst: &Inst, regs: &mut Regs<'_>) {
    let a = regs.a(inst, 1);
    regs.write_each(inst.r[0], |l| {
        let x = input(a[l], mode);
        let value = match op {
            Float1::Neg => return (if mode.ftz { x.to_bits() } else { a[l] }) ^ 0x8000_0000,
            Float1::Abs => return (if mode.ftz { x.to_bits() } else { a[l] }) & 0x7fff_ffff,
            Float1::Sqrt => float::sqrt_f32(x, mode.round),
            Float1::Rcp => float::rcp_f32(x, mode.round),
            Float1::SqrtApprox => approx::sqrt(x, mode.ftz),
            Float1::RcpApprox => approx::rcp(x, mode.ftz),
            Float1::RsqrtApprox => approx::rsqrt(x, mode.ftz),
            Float1::Sin => approx::sin(x, mode.ftz),
            Float1::Cos => approx::cos(x, mode.ftz),
            Float1::Ex2 => approx::ex2(x, mode.ftz),
            Float1::Lg2 => approx::lg2(x, mode.ftz),
            Float1::Tanh => approx::tanh(x),
        };
        output(value, mode)
    });
}

fn binary64(op: Float2, mode: Mode, inst: &Inst, regs: &mut Regs<'_>) {
    let (a, b) = (regs.a64(inst, 1), regs.a64(inst, 2));
    regs.write64_each(inst.r[0], |l| {
        let (x, y) = (f64::from_bits(a[l]), f64::from_bits(b[l]));
        canonical64(match op {
            Float2::Add => float::add_f64(x, y, mode.round),
            Float2::Sub => float::sub_f64(x, y, mode.round),
            Float2::Mul => float::mul_f64(x, y, mode.round),
            Float2::Div | Float2::DivApprox | Float2::DivFull => float::div_f64(x, y, mode.round),
            Float2::Min { .. } => float::min_f64(x, y),
            Float2::Max { .. } => float::max_f64(x, y),
            Float2::CopySign => return b[l] & !(1 << 63) | a[l] & 1 << 63,
        })
    });
}

fn unary64(op: Float1, mode: Mode, inst: &Inst, regs: &mut Regs<'_>) {
    let a = regs.a64(inst, 1);
    regs.write64_each(inst.r[0], |l| {
        let x = f64::from_bits(a[l]);
        canonical64(match op {
            Float1::Neg => return a[l] ^ 1 << 63,
            Float1::Abs => return a[l] & !(1 << 63),
            Float1::Rcp => float::rcp_f64(x, mode.round),
            Float1::RcpApprox => approx::rcp_approx_ftz_f64(x),
            Float1::RsqrtApprox => approx::rsqrt_approx_ftz_f64(x),
            _ => float::sqrt_f64(x, mode.round),
        })
    });
}

fn rare(inst: &Inst, regs: &mut Regs<'_>) -> bool {
    match inst.op {
        Op::F32Unary(op, mode) => unary32(op, mode, inst, regs),
        Op::F64(op, mode) => binary64(op, mode, inst, regs),
        Op::F64Unary(op, mode) => unary64(op, mode, inst, regs),
        Op::F64Fma(mode) => {
            let (a, b, c) = (regs.a64(inst, 1), regs.a64(inst, 2), regs.a64(inst, 3));
            let f = f64::from_bits;
            regs.write64_each(inst.r[0], |l| {
                canonical64(float::fma_f64(f(a[l]), f(b[l]), f(c[l]), mode.round))
            });
        }
        Op::TestP(class, double) => {
            let found = if double {
                let a = regs.a64(inst, 1);
                bits(|l| is(class, f64::from_bits(a[l]).classify()))
            } else {
                let a = regs.a(inst, 1);
                bits(|l| is(class, f32::from_bits(a[l]).classify()))
            };
            regs.write_pred(inst.r[0], found);
        }
        Op::Half(op, mode) => half_lanes(op, mode, inst, regs),
        _ => return false,
    }
    true
}

fn is(class: Class, found: std::num::FpCategory) -> bool {
    use std::num::FpCategory as Found;
    match class {
        Class::Finite => !matches!(found, Found::Nan | Found::Infinite),
        Class::Infinite => found == Found::Infinite,
        Class::Number => found != Found::Nan,
        Class::NotANumber => found == Found::Nan,
        Class::Normal => found == Found::Normal,
        Class::Subnormal => found == Found::Subnormal,
    }
}

fn half_lanes(op: Half, mode: HalfMode, inst: &Inst, regs: &mut Regs<'_>) {
    let row = |slot: usize| if inst.has(slot) { regs.a(inst, slot) } else { [0; 32] };
    let (a, b, c) = (row(1), row(2), row(3));
    let one = |x: u32, y: u32, z: u32| u32::from(half_one(op, mode, x as u16, y as u16, z as u16));
    regs.write_each(inst.r[0], |l| {
        let low = one(a[l], b[l], c[l]);
        if mode.packed { low | one(a[l] >> 16, b[l] >> 16, c[l] >> 16) << 16 } else { low }
    });
}

fn half_one(op: Half, mode: HalfMode, a: u16, b: u16, c: u16) -> u16 {
    let ty = mode.ty;
    let flush = |x: u16| if mode.ftz { half::ftz(ty, x) } else { x };
    let (a, b, c) = (flush(a), flush(b), flush(c));
    let value = match op {
        Half::Add => half::add(ty, a, b),
        Half::Sub => half::sub(ty, a, b),
        Half::Mul => half::mul(ty, a, b),
        Half::Fma => half::fma(ty, a, b, c),
        Half::Neg => return half::neg(ty, a),
        Half::Abs => return half::abs(ty, a),
        Half::Min { nan, xorsign } => half::min(ty, a, b, nan, xorsign),
        Half::Max { nan, xorsign } => half::max(ty, a, b, nan, xorsign),
        Half::Tanh => half::tanh(ty, a),
        Half::Ex2 => half::ex2(ty, a),
    };
    let value = flush(value);
    let value = if mode.sat { half::sat(ty, value) } else { value };
    if mode.relu { half::relu(ty, value) } else { value }
}

/// A 16-bit number as f32.
pub(super) fn half_value(ty: HalfType, bits: u16) -> f32 {
    match ty {
        HalfType::F16 => convert::f16_to_f32(bits),
        HalfType::Bf16 => convert::bf16_to_f32(bits),
    }
}
