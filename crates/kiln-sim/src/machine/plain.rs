//! Moves, comparisons, selections and predicates, lane by lane.

use crate::isa::{Cmp, CmpType, HalfType, Inst, Int, Logic, Op, SetType};
use crate::num::float;

use super::float::half_value;
use super::regs::{Regs, bits};

/// Executes one of these; false for any other instruction.
#[inline(always)]
pub(super) fn execute(inst: &Inst, regs: &mut Regs<'_>) -> bool {
    match inst.op {
        Op::Mov32 => {
            let a = regs.a(inst, 1);
            regs.write(inst.r[0], |l| a[l]);
        }
        Op::Mov64 => {
            let a = regs.a64(inst, 1);
            regs.write64(inst.r[0], |l| a[l]);
        }
        Op::Setp { cmp, ty, combine, negated, second } => setp(inst, regs, cmp, ty, combine, negated, second),
        Op::Select32 => {
            let (a, b, p) = (regs.a(inst, 1), regs.a(inst, 2), regs.p(inst, 3));
            regs.write(inst.r[0], |l| if p >> l & 1 == 1 { a[l] } else { b[l] });
        }
        Op::Select64 => {
            let (a, b, p) = (regs.a64(inst, 1), regs.a64(inst, 2), regs.p(inst, 3));
            regs.write64(inst.r[0], |l| if p >> l & 1 == 1 { a[l] } else { b[l] });
        }
        _ => return rare(inst, regs),
    }
    true
}

fn rare(inst: &Inst, regs: &mut Regs<'_>) -> bool {
    match inst.op {
        Op::MovPred => {
            let a = regs.p(inst, 1);
            regs.write_pred(inst.r[0], a);
        }
        Op::SetPred(value) => regs.write_pred(inst.r[0], if value { u32::MAX } else { 0 }),
        Op::PredNot => {
            let a = regs.p(inst, 1);
            regs.write_pred(inst.r[0], !a);
        }
        Op::Pred2(logic) => {
            let (a, b) = (regs.p(inst, 1), regs.p(inst, 2));
            regs.write_pred(inst.r[0], combined(Some(logic), a, b));
        }
        Op::Set { cmp, ty, to, combine, negated } => set(inst, regs, cmp, ty, to, combine, negated),
        Op::Slct { wide, float, ftz } => slct(inst, regs, wide, float, ftz),
        _ => return pack(inst, regs),
    }
    true
}

/// Packing and unpacking.
fn pack(inst: &Inst, regs: &mut Regs<'_>) -> bool {
    match inst.op {
        Op::Join64 => {
            let (low, high) = (regs.a(inst, 1), regs.a(inst, 2));
            regs.write64(inst.r[0], |l| u64::from(high[l]) << 32 | u64::from(low[l]));
        }
        Op::Split64 => {
            let a = regs.a64(inst, 2);
            regs.write(inst.r[0], |l| a[l] as u32);
            regs.write(inst.r[1], |l| (a[l] >> 32) as u32);
        }
        Op::Join32 => {
            let (low, high) = (regs.a(inst, 1), regs.a(inst, 2));
            regs.write(inst.r[0], |l| high[l] << 16 | low[l] & 0xffff);
        }
        Op::Split32 => {
            let a = regs.a(inst, 2);
            regs.write(inst.r[0], |l| a[l] & 0xffff);
            regs.write(inst.r[1], |l| a[l] >> 16);
        }
        Op::Join64x16 => {
            let parts = [1, 2, 3, 4].map(|slot| regs.a(inst, slot));
            regs.write64(inst.r[0], |l| {
                parts.iter().rev().fold(0, |value, part| value << 16 | u64::from(part[l] & 0xffff))
            });
        }
        Op::Split64x16 => {
            let a = regs.a64(inst, 4);
            for part in 0..4 {
                regs.write(inst.r[part], |l| (a[l] >> (16 * part)) as u32 & 0xffff);
            }
        }
        Op::Extract => {
            let (a, shift, width) = (regs.a(inst, 1), inst.imm & 0xff, inst.imm >> 8);
            regs.write(inst.r[0], |l| a[l] >> shift & ((1u64 << width) - 1) as u32);
        }
        Op::Insert => {
            let (a, b, shift, width) = (regs.a(inst, 1), regs.a(inst, 2), inst.imm & 0xff, inst.imm >> 8);
            let mask = (((1u64 << width) - 1) << shift) as u32;
            regs.write(inst.r[0], |l| a[l] & !mask | b[l] << shift & mask);
        }
        _ => return false,
    }
    true
}

fn combined(logic: Option<Logic>, a: u32, b: u32) -> u32 {
    match logic {
        None => a,
        Some(Logic::And) => a & b,
        Some(Logic::Or) => a | b,
        Some(Logic::Xor) => a ^ b,
    }
}

#[inline(always)]
fn compare_ordered<T: PartialOrd>(cmp: Cmp, a: T, b: T) -> bool {
    let unordered = a.partial_cmp(&b).is_none();
    match cmp {
        Cmp::Eq => a == b,
        // An ordered comparison: false with a NaN.
        Cmp::Ne => !unordered && a != b,
        Cmp::Lt => a < b,
        Cmp::Le => a <= b,
        Cmp::Gt => a > b,
        Cmp::Ge => a >= b,
        Cmp::EqU => unordered || a == b,
        Cmp::NeU => unordered || a != b,
        Cmp::LtU => unordered || a < b,
        Cmp::LeU => unordered || a <= b,
        Cmp::GtU => unordered || a > b,
        Cmp::GeU => unordered || a >= b,
        Cmp::Num => !unordered,
        Cmp::Nan => unordered,
    }
}

/// The comparison of each lane; the second word is that of the upper halves of packed operands.
#[inline(always)]
fn compared(inst: &Inst, regs: &Regs<'_>, at: usize, cmp: Cmp, ty: CmpType) -> (u32, u32) {
    macro_rules! rows {
        ($row:ident, $cast:expr) => {{
            let (a, b) = (regs.$row(inst, at), regs.$row(inst, at + 1));
            let cast = $cast;
            match cmp {
                Cmp::Eq => bits(|l| cast(a[l]) == cast(b[l])),
                Cmp::Ne => bits(|l| cast(a[l]) != cast(b[l])),
                Cmp::Lt => bits(|l| cast(a[l]) < cast(b[l])),
                Cmp::Le => bits(|l| cast(a[l]) <= cast(b[l])),
                Cmp::Gt => bits(|l| cast(a[l]) > cast(b[l])),
                _ => bits(|l| cast(a[l]) >= cast(b[l])),
            }
        }};
    }
    let found = match ty {
        CmpType::Int(Int::U32) => rows!(a, |x: u32| x),
        CmpType::Int(Int::S32) => rows!(a, |x: u32| x as i32),
        CmpType::Int(Int::U64) => rows!(a64, |x: u64| x),
        CmpType::Int(Int::S64) => rows!(a64, |x: u64| x as i64),
        CmpType::Int(Int::U16) => rows!(a, |x: u32| x as u16),
        CmpType::Int(Int::S16) => rows!(a, |x: u32| x as u16 as i16),
        _ => return compared_float(inst, regs, at, cmp, ty),
    };
    (found, 0)
}

fn compared_float(inst: &Inst, regs: &Regs<'_>, at: usize, cmp: Cmp, ty: CmpType) -> (u32, u32) {
    let half = |ty: HalfType, shift: u32| {
        let (a, b) = (regs.a(inst, at), regs.a(inst, at + 1));
        bits(|l| {
            let part = |x: u32| half_value(ty, (x >> shift) as u16);
            compare_ordered(cmp, part(a[l]), part(b[l]))
        })
    };
    match ty {
        CmpType::F16(ty) => (half(ty, 0), 0),
        CmpType::F16x2(ty) => (half(ty, 0), half(ty, 16)),
        CmpType::F64 => {
            let (a, b) = (regs.a64(inst, at), regs.a64(inst, at + 1));
            (bits(|l| compare_ordered(cmp, f64::from_bits(a[l]), f64::from_bits(b[l]))), 0)
        }
        CmpType::F32 { ftz } => {
            let (a, b) = (regs.a(inst, at), regs.a(inst, at + 1));
            let value = |x: u32| if ftz { float::ftz(f32::from_bits(x)) } else { f32::from_bits(x) };
            (bits(|l| compare_ordered(cmp, value(a[l]), value(b[l]))), 0)
        }
        CmpType::Int(_) => (0, 0),
    }
}

#[inline(always)]
fn setp(
    inst: &Inst,
    regs: &mut Regs<'_>,
    cmp: Cmp,
    ty: CmpType,
    combine: Option<Logic>,
    negated: bool,
    second: bool,
) {
    let (found, upper) = compared(inst, regs, 2, cmp, ty);
    let other = match combine {
        Some(_) => regs.p(inst, 4) ^ if negated { u32::MAX } else { 0 },
        None => 0,
    };
    regs.write_pred(inst.r[0], combined(combine, found, other));
    if second {
        let second = if matches!(ty, CmpType::F16x2(_)) { upper } else { !found };
        regs.write_pred(inst.r[1], combined(combine, second, other));
    }
}

fn set(
    inst: &Inst,
    regs: &mut Regs<'_>,
    cmp: Cmp,
    ty: CmpType,
    to: SetType,
    combine: Option<Logic>,
    negated: bool,
) {
    let (found, upper) = compared(inst, regs, 1, cmp, ty);
    let other = match combine {
        Some(_) => regs.p(inst, 3) ^ if negated { u32::MAX } else { 0 },
        None => 0,
    };
    let (found, upper) = (combined(combine, found, other), combined(combine, upper, other));
    let one = |half: HalfType| match half {
        HalfType::F16 => 0x3c00u32,
        HalfType::Bf16 => 0x3f80,
    };
    regs.write(inst.r[0], |l| {
        let (low, high) = (found >> l & 1 == 1, upper >> l & 1 == 1);
        match to {
            SetType::Mask32 => {
                if low {
                    u32::MAX
                } else {
                    0
                }
            }
            SetType::Mask16 => {
                if low {
                    0xffff
                } else {
                    0
                }
            }
            SetType::F32 => {
                if low {
                    0x3f80_0000
                } else {
                    0
                }
            }
            SetType::Half(half) => {
                if low {
                    one(half)
                } else {
                    0
                }
            }
            SetType::Half2(half) => (u32::from(low) * one(half)) | ((u32::from(high) * one(half)) << 16),
        }
    });
}

fn slct(inst: &Inst, regs: &mut Regs<'_>, wide: bool, float: bool, ftz: bool) {
    let c = regs.a(inst, 3);
    let first = |l: usize| {
        if float {
            let value = f32::from_bits(c[l]);
            (if ftz { float::ftz(value) } else { value }) >= 0.0
        } else {
            c[l] as i32 >= 0
        }
    };
    if wide {
        let (a, b) = (regs.a64(inst, 1), regs.a64(inst, 2));
        regs.write64(inst.r[0], |l| if first(l) { a[l] } else { b[l] });
    } else {
        let (a, b) = (regs.a(inst, 1), regs.a(inst, 2));
        regs.write(inst.r[0], |l| if first(l) { a[l] } else { b[l] });
    }
}
