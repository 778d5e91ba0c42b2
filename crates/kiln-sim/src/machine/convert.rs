//! `cvt`, lane by lane.

use crate::isa::{Cvt, CvtPair, CvtType, HalfType, Inst, Int, Op, RegClass};
use crate::num::{Round, convert, float};

use super::float::half_value;
use super::halves as half;
use super::regs::Regs;

/// Executes a conversion; false for any other instruction.
pub(super) fn execute(inst: &Inst, regs: &mut Regs<'_>) -> bool {
    match inst.op {
        Op::Cvt(cvt) => one(cvt, inst, regs),
        Op::CvtPair(pair) => two(pair, inst, regs),
        _ => return false,
    }
    true
}

/// A value on its way from one type to another.
enum Value {
    Int(i128),
    F32(f32),
    F64(f64),
}

fn int_of(bits: u64, int: Int) -> i128 {
    match int {
        Int::U16 => i128::from(bits as u16),
        Int::S16 => i128::from(bits as u16 as i16),
        Int::U32 => i128::from(bits as u32),
        Int::S32 => i128::from(bits as u32 as i32),
        Int::U64 => i128::from(bits),
        Int::S64 => i128::from(bits as i64),
    }
}

fn read(bits: u64, cvt: Cvt) -> Value {
    match cvt.from {
        CvtType::U8 => Value::Int(i128::from(bits as u8)),
        CvtType::S8 => Value::Int(i128::from(bits as u8 as i8)),
        CvtType::Int(int) => Value::Int(int_of(bits, int)),
        CvtType::Half(ty) => Value::F32(half_value(ty, bits as u16)),
        CvtType::F32 | CvtType::Tf32 => {
            let value = f32::from_bits(bits as u32);
            Value::F32(if cvt.ftz { float::ftz(value) } else { value })
        }
        CvtType::F64 => Value::F64(f64::from_bits(bits)),
    }
}

/// Bits and signedness of an integer type.
fn int_shape(ty: CvtType) -> Option<(u32, bool)> {
    match ty {
        CvtType::U8 => Some((8, false)),
        CvtType::S8 => Some((8, true)),
        CvtType::Int(int) => Some((int.bits(), int.signed())),
        _ => None,
    }
}

fn to_int(value: &Value, cvt: Cvt, bits: u32, signed: bool) -> u64 {
    match value {
        Value::Int(value) => {
            let (low, high) = if signed {
                (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
            } else {
                (0, (1i128 << bits) - 1)
            };
            (if cvt.sat { (*value).clamp(low, high) } else { *value }) as u64
        }
        Value::F32(value) => {
            convert::float_to_int(f64::from(*value), cvt.round, bits, signed, from_bits(cvt.from))
        }
        Value::F64(value) => convert::float_to_int(*value, cvt.round, bits, signed, 64),
    }
}

fn from_bits(ty: CvtType) -> u32 {
    match ty {
        CvtType::Half(_) => 16,
        CvtType::F64 => 64,
        _ => 32,
    }
}

fn to_f32(value: &Value, cvt: Cvt) -> f32 {
    let value = match value {
        Value::Int(value) => convert::int_to_f32(*value, cvt.round),
        Value::F32(value) if cvt.integral => convert::round_integral_f32(*value, cvt.round),
        Value::F32(value) => *value,
        Value::F64(value) => convert::f64_to_f32(*value, cvt.round),
    };
    let value = if cvt.ftz { float::ftz(value) } else { value };
    if cvt.sat { float::sat_f32(value) } else { value }
}

fn to_f64(value: &Value, cvt: Cvt) -> f64 {
    let value = match value {
        Value::Int(value) => convert::int_to_f64(*value, cvt.round),
        Value::F32(value) => f64::from(*value),
        Value::F64(value) if cvt.integral => convert::round_integral_f64(*value, cvt.round),
        Value::F64(value) => *value,
    };
    if cvt.sat { float::sat_f64(value) } else { value }
}

fn to_half(value: &Value, ty: HalfType, cvt: Cvt) -> u16 {
    let bits = match (value, ty) {
        (Value::Int(value), HalfType::F16) => convert::int_to_f16(*value, cvt.round),
        (Value::Int(value), HalfType::Bf16) => convert::int_to_bf16(*value, cvt.round),
        (Value::F64(value), HalfType::F16) => convert::f64_to_f16(*value, cvt.round),
        (Value::F64(value), HalfType::Bf16) => convert::f64_to_bf16(*value, cvt.round),
        (Value::F32(value), _) => {
            let value = if cvt.integral { convert::round_integral_f32(*value, cvt.round) } else { *value };
            match (ty, cvt.satfinite) {
                (HalfType::F16, false) => convert::f32_to_f16(value, cvt.round),
                (HalfType::F16, true) => convert::f32_to_f16_satfinite(value, cvt.round),
                (HalfType::Bf16, false) => convert::f32_to_bf16(value, cvt.round),
                (HalfType::Bf16, true) => convert::f32_to_bf16_satfinite(value, cvt.round),
            }
        }
    };
    let bits = if cvt.sat { half::sat(ty, bits) } else { bits };
    if cvt.relu { half::relu(ty, bits) } else { bits }
}

fn nan32(value: f32) -> u64 {
    u64::from(if value.is_nan() { 0x7fff_ffff } else { value.to_bits() })
}

fn convert(bits: u64, cvt: Cvt) -> u64 {
    let value = read(bits, cvt);
    match (cvt.to, int_shape(cvt.to)) {
        (_, Some((width, signed))) => {
            let found = to_int(&value, cvt, width, signed);
            let unused = 64 - width;
            // Extended to the width of the register, which may be larger.
            if signed { ((found << unused) as i64 >> unused) as u64 } else { found << unused >> unused }
        }
        (CvtType::Half(ty), _) => u64::from(to_half(&value, ty, cvt)),
        (CvtType::F64, _) => {
            let value = to_f64(&value, cvt);
            float::canonical_f64(value).to_bits()
        }
        (CvtType::Tf32, _) => {
            let value = to_f32(&value, Cvt { round: Round::Nearest, ..cvt });
            let value = if cvt.relu && value <= 0.0 { 0.0 } else { value };
            u64::from(convert::f32_to_tf32(value, cvt.round))
        }
        _ => nan32(to_f32(&value, cvt)),
    }
}

/// The frequent conversions, without the detour by [`Value`]; false for any other.
fn plain(cvt: Cvt, inst: &Inst, regs: &mut Regs<'_>) -> bool {
    match cvt.to {
        CvtType::F32 if cvt.round == Round::Nearest && inst.imm != 64 => {
            small_int_to_f32(cvt.from, inst, regs)
        }
        CvtType::Int(Int::U64 | Int::S64) if inst.imm == 64 => widen(cvt.from, inst, regs),
        _ => false,
    }
}

/// To nearest, which is what `as` does.
fn small_int_to_f32(from: CvtType, inst: &Inst, regs: &mut Regs<'_>) -> bool {
    let (a, d) = (regs.a(inst, 1), inst.r[0]);
    match from {
        CvtType::U8 => regs.write(d, |l| f32::from(a[l] as u8).to_bits()),
        CvtType::S8 => regs.write(d, |l| f32::from(a[l] as i8).to_bits()),
        CvtType::Int(Int::U16) => regs.write(d, |l| f32::from(a[l] as u16).to_bits()),
        CvtType::Int(Int::S16) => regs.write(d, |l| f32::from(a[l] as i16).to_bits()),
        CvtType::Int(Int::U32) => regs.write(d, |l| (a[l] as f32).to_bits()),
        CvtType::Int(Int::S32) => regs.write(d, |l| (a[l] as i32 as f32).to_bits()),
        _ => return false,
    }
    true
}

fn widen(from: CvtType, inst: &Inst, regs: &mut Regs<'_>) -> bool {
    let (a, d) = (regs.a(inst, 1), inst.r[0]);
    match from {
        CvtType::Int(Int::U32) => regs.write64(d, |l| u64::from(a[l])),
        CvtType::Int(Int::S32) => regs.write64(d, |l| i64::from(a[l] as i32) as u64),
        _ => return false,
    }
    true
}

fn one(cvt: Cvt, inst: &Inst, regs: &mut Regs<'_>) {
    let wide_from = inst.class(1) == Some(RegClass::R64);
    if !cvt.sat && !wide_from && plain(cvt, inst, regs) {
        return;
    }
    let a = if wide_from { regs.a64(inst, 1) } else { regs.a(inst, 1).map(u64::from) };
    match inst.imm {
        64 => regs.write64_each(inst.r[0], |l| convert(a[l], cvt)),
        16 => regs.write_each(inst.r[0], |l| convert(a[l], cvt) as u32 & 0xffff),
        8 => regs.write_each(inst.r[0], |l| convert(a[l], cvt) as u32 & 0xff),
        _ => regs.write_each(inst.r[0], |l| convert(a[l], cvt) as u32),
    }
}

fn two(pair: CvtPair, inst: &Inst, regs: &mut Regs<'_>) {
    let a = regs.a(inst, 1);
    let b = if inst.has(2) { regs.a(inst, 2) } else { [0; 32] };
    let join = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
    let relu32 = |relu: bool, bits: u32| {
        let value = f32::from_bits(bits);
        if relu && value <= 0.0 { 0.0 } else { value }
    };
    match pair {
        CvtPair::Half { ty, round, relu, satfinite } => regs.write_each(inst.r[0], |l| {
            let cvt = Cvt {
                to: CvtType::Half(ty),
                from: CvtType::F32,
                round,
                integral: false,
                ftz: false,
                sat: false,
                satfinite,
                relu,
            };
            let part = |bits: u32| to_half(&Value::F32(f32::from_bits(bits)), ty, cvt);
            join(part(a[l]), part(b[l]))
        }),
        CvtPair::Eight { e4m3, relu } => regs.write_each(inst.r[0], |l| {
            let part = |bits: u32| u32::from(eight(e4m3, relu32(relu, bits)));
            part(a[l]) << 8 | part(b[l])
        }),
        CvtPair::EightFromHalf { e4m3, relu } => regs.write_each(inst.r[0], |l| {
            let part = |bits: u32| {
                let value = convert::f16_to_f32(bits as u16);
                u32::from(eight(e4m3, relu32(relu, value.to_bits())))
            };
            part(a[l] >> 16) << 8 | part(a[l])
        }),
        CvtPair::HalfFromEight { e4m3, relu } => regs.write_each(inst.r[0], |l| {
            let part = |bits: u32| {
                let value =
                    if e4m3 { convert::e4m3_to_f32(bits as u8) } else { convert::e5m2_to_f32(bits as u8) };
                let bits = convert::f32_to_f16(value, Round::Nearest);
                if relu { half::relu(HalfType::F16, bits) } else { bits }
            };
            join(part(a[l] >> 8), part(a[l]))
        }),
    }
}

fn eight(e4m3: bool, value: f32) -> u8 {
    if e4m3 { convert::f32_to_e4m3(value) } else { convert::f32_to_e5m2(value) }
}
