//! Integer instructions, lane by lane.

use crate::isa::{Inst, Int, Int1, Int2, Int3, Op};
use crate::num::int;

use super::regs::Regs;

/// Executes an integer instruction; false for any other.
#[inline(always)]
pub(super) fn execute(inst: &Inst, regs: &mut Regs<'_>) -> bool {
    match inst.op {
        Op::Int2(op, ty) => match ty {
            Int::U32 | Int::S32 => binary32(op, ty, inst, regs),
            Int::U64 | Int::S64 => binary64(op, ty, inst, regs),
            Int::U16 | Int::S16 => binary16(op, ty, inst, regs),
        },
        Op::Int1(op, ty) => unary(op, ty, inst, regs),
        Op::Int3(op, ty) => ternary(op, ty, inst, regs),
        Op::MulWide(ty) => wide(ty, inst, regs, false),
        Op::MadWide(ty) => wide(ty, inst, regs, true),
        _ => return rare(inst, regs),
    }
    true
}

#[inline(always)]
fn binary32(op: Int2, ty: Int, inst: &Inst, regs: &mut Regs<'_>) {
    let (a, b, d) = (regs.a(inst, 1), regs.a(inst, 2), inst.r[0]);
    let signed = ty == Int::S32;
    match op {
        Int2::Add => regs.write(d, |l| a[l].wrapping_add(b[l])),
        Int2::Sub => regs.write(d, |l| a[l].wrapping_sub(b[l])),
        Int2::Mul => regs.write(d, |l| a[l].wrapping_mul(b[l])),
        Int2::MulHi if signed => {
            regs.write(d, |l| ((i64::from(a[l] as i32) * i64::from(b[l] as i32)) >> 32) as u32)
        }
        Int2::MulHi => regs.write(d, |l| ((u64::from(a[l]) * u64::from(b[l])) >> 32) as u32),
        Int2::Min if signed => regs.write(d, |l| (a[l] as i32).min(b[l] as i32) as u32),
        Int2::Min => regs.write(d, |l| a[l].min(b[l])),
        Int2::Max if signed => regs.write(d, |l| (a[l] as i32).max(b[l] as i32) as u32),
        Int2::Max => regs.write(d, |l| a[l].max(b[l])),
        Int2::And => regs.write(d, |l| a[l] & b[l]),
        Int2::Or => regs.write(d, |l| a[l] | b[l]),
        Int2::Xor => regs.write(d, |l| a[l] ^ b[l]),
        Int2::Shl => regs.write(d, |l| if b[l] > 31 { 0 } else { a[l] << (b[l] & 31) }),
        Int2::Shr if signed => regs.write(d, |l| (a[l] as i32 >> b[l].min(31)) as u32),
        Int2::Shr => regs.write(d, |l| if b[l] > 31 { 0 } else { a[l] >> (b[l] & 31) }),
        Int2::AddSat => regs.write(d, |l| (a[l] as i32).saturating_add(b[l] as i32) as u32),
        Int2::SubSat => regs.write(d, |l| (a[l] as i32).saturating_sub(b[l] as i32) as u32),
        // Division by zero gives what hardware gives: all ones, and the dividend as the remainder.
        Int2::Div if signed => {
            regs.write_each(d, |l| {
                if b[l] == 0 { u32::MAX } else { (a[l] as i32).wrapping_div(b[l] as i32) as u32 }
            });
        }
        Int2::Div => regs.write_each(d, |l| a[l].checked_div(b[l]).unwrap_or(u32::MAX)),
        Int2::Rem if signed => {
            regs.write_each(
                d,
                |l| if b[l] == 0 { a[l] } else { (a[l] as i32).wrapping_rem(b[l] as i32) as u32 },
            );
        }
        Int2::Rem => regs.write_each(d, |l| a[l].checked_rem(b[l]).unwrap_or(a[l])),
    }
}

#[inline(always)]
fn binary64(op: Int2, ty: Int, inst: &Inst, regs: &mut Regs<'_>) {
    let (a, d) = (regs.a64(inst, 1), inst.r[0]);
    let signed = ty == Int::S64;
    if matches!(op, Int2::Shl | Int2::Shr) {
        let b = regs.a(inst, 2);
        match op {
            Int2::Shl => regs.write64(d, |l| if b[l] > 63 { 0 } else { a[l] << (b[l] & 63) }),
            _ if signed => regs.write64(d, |l| (a[l] as i64 >> b[l].min(63)) as u64),
            _ => regs.write64(d, |l| if b[l] > 63 { 0 } else { a[l] >> (b[l] & 63) }),
        }
        return;
    }
    let b = regs.a64(inst, 2);
    match op {
        Int2::Sub => regs.write64(d, |l| a[l].wrapping_sub(b[l])),
        Int2::Mul => regs.write64(d, |l| a[l].wrapping_mul(b[l])),
        Int2::MulHi if signed => {
            regs.write64(d, |l| ((i128::from(a[l] as i64) * i128::from(b[l] as i64)) >> 64) as u64);
        }
        Int2::MulHi => regs.write64(d, |l| ((u128::from(a[l]) * u128::from(b[l])) >> 64) as u64),
        Int2::Min if signed => regs.write64(d, |l| (a[l] as i64).min(b[l] as i64) as u64),
        Int2::Min => regs.write64(d, |l| a[l].min(b[l])),
        Int2::Max if signed => regs.write64(d, |l| (a[l] as i64).max(b[l] as i64) as u64),
        Int2::Max => regs.write64(d, |l| a[l].max(b[l])),
        Int2::And => regs.write64(d, |l| a[l] & b[l]),
        Int2::Or => regs.write64(d, |l| a[l] | b[l]),
        Int2::Xor => regs.write64(d, |l| a[l] ^ b[l]),
        Int2::Div if signed => regs.write64_each(d, |l| {
            if b[l] == 0 { u64::MAX } else { (a[l] as i64).wrapping_div(b[l] as i64) as u64 }
        }),
        Int2::Div => regs.write64_each(d, |l| a[l].checked_div(b[l]).unwrap_or(u64::MAX)),
        Int2::Rem if signed => regs.write64_each(d, |l| {
            if b[l] == 0 { a[l] } else { (a[l] as i64).wrapping_rem(b[l] as i64) as u64 }
        }),
        Int2::Rem => regs.write64_each(d, |l| a[l].checked_rem(b[l]).unwrap_or(a[l])),
        // `.sat` exists for s32 only; the decoder sees to that.
        Int2::Add | Int2::AddSat | Int2::SubSat | Int2::Shl | Int2::Shr => {
            regs.write64(d, |l| a[l].wrapping_add(b[l]));
        }
    }
}

#[inline(always)]
fn binary16(op: Int2, ty: Int, inst: &Inst, regs: &mut Regs<'_>) {
    let (a, b, d) = (regs.a(inst, 1), regs.a(inst, 2), inst.r[0]);
    let signed = ty == Int::S16;
    let wide = move |x: u32| if signed { i64::from(x as u16 as i16) } else { i64::from(x as u16) };
    regs.write_each(d, |l| {
        let (x, y) = (wide(a[l]), wide(b[l]));
        let value = match op {
            Int2::Add | Int2::AddSat => x + y,
            Int2::Sub | Int2::SubSat => x - y,
            Int2::Mul => x * y,
            Int2::MulHi => (x * y) >> 16,
            Int2::Min => x.min(y),
            Int2::Max => x.max(y),
            Int2::Div => x.checked_div(y).unwrap_or(-1),
            Int2::Rem => x.checked_rem(y).unwrap_or(x),
            Int2::And => x & y,
            Int2::Or => x | y,
            Int2::Xor => x ^ y,
            Int2::Shl => {
                if b[l] > 15 {
                    0
                } else {
                    x << b[l]
                }
            }
            Int2::Shr if signed => x >> b[l].min(15),
            Int2::Shr => {
                if b[l] > 15 {
                    0
                } else {
                    x >> b[l]
                }
            }
        };
        value as u32 & 0xffff
    });
}

fn unary(op: Int1, ty: Int, inst: &Inst, regs: &mut Regs<'_>) {
    let bits = ty.bits();
    let signed = ty.signed();
    let narrow = bits < 64;
    let (a32, a64) = if narrow { (regs.a(inst, 1), [0; 32]) } else { ([0; 32], regs.a64(inst, 1)) };
    let mask = if narrow { (1u64 << bits) - 1 } else { u64::MAX };
    let value = |l: usize| -> u64 {
        let x = if narrow { u64::from(a32[l]) & mask } else { a64[l] };
        let negative = signed && x >> (bits - 1) & 1 == 1;
        match op {
            Int1::Neg => x.wrapping_neg(),
            Int1::Abs => {
                if negative {
                    x.wrapping_neg()
                } else {
                    x
                }
            }
            Int1::Not => !x,
            Int1::Cnot => u64::from(x == 0),
            Int1::Popc => u64::from(x.count_ones()),
            Int1::Clz => u64::from(x.leading_zeros() - (64 - bits)),
            Int1::Brev => x.reverse_bits() >> (64 - bits),
            Int1::Bfind | Int1::BfindShift => {
                let seen = if negative { !x & mask } else { x };
                if seen == 0 {
                    u64::from(u32::MAX)
                } else {
                    let at = 63 - seen.leading_zeros();
                    u64::from(if op == Int1::BfindShift { bits - 1 - at } else { at })
                }
            }
        }
    };
    let counts = matches!(op, Int1::Popc | Int1::Clz | Int1::Bfind | Int1::BfindShift);
    match (narrow, counts) {
        (false, false) => regs.write64_each(inst.r[0], value),
        (_, true) => regs.write_each(inst.r[0], |l| value(l) as u32),
        (true, false) => regs.write_each(inst.r[0], |l| (value(l) & mask) as u32),
    }
}

#[inline(always)]
fn ternary(op: Int3, ty: Int, inst: &Inst, regs: &mut Regs<'_>) {
    let d = inst.r[0];
    match (op, ty) {
        (Int3::Mad, Int::U32 | Int::S32) => {
            let (a, b, c) = (regs.a(inst, 1), regs.a(inst, 2), regs.a(inst, 3));
            regs.write(d, |l| a[l].wrapping_mul(b[l]).wrapping_add(c[l]));
        }
        (Int3::Mad, Int::U64 | Int::S64) => {
            let (a, b, c) = (regs.a64(inst, 1), regs.a64(inst, 2), regs.a64(inst, 3));
            regs.write64(d, |l| a[l].wrapping_mul(b[l]).wrapping_add(c[l]));
        }
        _ => ternary_rare(op, ty, inst, regs),
    }
}

fn ternary_rare(op: Int3, ty: Int, inst: &Inst, regs: &mut Regs<'_>) {
    let d = inst.r[0];
    let signed = ty.signed();
    if ty.bits() == 64 {
        let a = regs.a64(inst, 1);
        match op {
            Int3::Bfe => {
                let (b, c) = (regs.a(inst, 2), regs.a(inst, 3));
                if signed {
                    regs.write64_each(d, |l| int::bfe_s64(a[l] as i64, b[l], c[l]) as u64);
                } else {
                    regs.write64_each(d, |l| int::bfe_u64(a[l], b[l], c[l]));
                }
            }
            Int3::Bfi => {
                let (b, c, n) = (regs.a64(inst, 2), regs.a(inst, 3), regs.a(inst, 4));
                regs.write64_each(d, |l| int::bfi_64(a[l], b[l], c[l], n[l]));
            }
            _ => {
                let (b, c) = (regs.a64(inst, 2), regs.a64(inst, 3));
                regs.write64_each(d, |l| {
                    let (x, y) = if signed {
                        (i128::from(a[l] as i64), i128::from(b[l] as i64))
                    } else {
                        (i128::from(a[l]), i128::from(b[l]))
                    };
                    let value = if op == Int3::Sad {
                        (x - y).abs()
                    } else if signed {
                        (x * y) >> 64
                    } else {
                        ((x as u128 * y as u128) >> 64) as i128
                    };
                    (value as u64).wrapping_add(c[l])
                });
            }
        }
        return;
    }
    let (a, b, c) = (regs.a(inst, 1), regs.a(inst, 2), regs.a(inst, 3));
    match op {
        Int3::Bfe if signed => regs.write_each(d, |l| int::bfe_s32(a[l] as i32, b[l], c[l]) as u32),
        Int3::Bfe => regs.write_each(d, |l| int::bfe_u32(a[l], b[l], c[l])),
        Int3::Bfi => {
            let n = regs.a(inst, 4);
            regs.write_each(d, |l| int::bfi_32(a[l], b[l], c[l], n[l]));
        }
        Int3::Mad | Int3::MadHi | Int3::Sad => {
            let (bits, mask) = (ty.bits(), if ty.bits() == 16 { 0xffff } else { u32::MAX });
            let wide = |x: u32| match ty {
                Int::S16 => i64::from(x as u16 as i16),
                Int::U16 => i64::from(x as u16),
                Int::S32 => i64::from(x as i32),
                _ => i64::from(x),
            };
            regs.write_each(d, |l| {
                let (x, y) = (wide(a[l]), wide(b[l]));
                let value = match op {
                    Int3::Mad => x.wrapping_mul(y) as u32,
                    Int3::Sad => x.abs_diff(y) as u32,
                    _ if signed => (x.wrapping_mul(y) >> bits) as u32,
                    _ => ((x as u64).wrapping_mul(y as u64) >> bits) as u32,
                };
                value.wrapping_add(c[l]) & mask
            });
        }
    }
}

#[inline(always)]
fn wide(ty: Int, inst: &Inst, regs: &mut Regs<'_>, add: bool) {
    let (a, b, d) = (regs.a(inst, 1), regs.a(inst, 2), inst.r[0]);
    if ty.bits() == 16 {
        let c = if add { regs.a(inst, 3) } else { [0; 32] };
        let signed = ty.signed();
        regs.write(d, |l| {
            let product = if signed {
                (i32::from(a[l] as u16 as i16) * i32::from(b[l] as u16 as i16)) as u32
            } else {
                u32::from(a[l] as u16) * u32::from(b[l] as u16)
            };
            product.wrapping_add(c[l])
        });
        return;
    }
    let c = if add { regs.a64(inst, 3) } else { [0; 32] };
    if ty.signed() {
        regs.write64(d, |l| {
            (i64::from(a[l] as i32) * i64::from(b[l] as i32)).wrapping_add(c[l] as i64) as u64
        });
    } else {
        regs.write64(d, |l| (u64::from(a[l]) * u64::from(b[l])).wrapping_add(c[l]));
    }
}

fn rare(inst: &Inst, regs: &mut Regs<'_>) -> bool {
    let d = inst.r[0];
    match inst.op {
        Op::Lop3(table) => {
            let (a, b, c) = (regs.a(inst, 1), regs.a(inst, 2), regs.a(inst, 3));
            regs.write(d, |l| int::lop3(a[l], b[l], c[l], table));
        }
        Op::Prmt(mode) => {
            let (a, b, c) = (regs.a(inst, 1), regs.a(inst, 2), regs.a(inst, 3));
            regs.write_each(d, |l| int::prmt(a[l], b[l], c[l], mode));
        }
        Op::Shf { left, wrap } => {
            let (a, b, c) = (regs.a(inst, 1), regs.a(inst, 2), regs.a(inst, 3));
            regs.write_each(d, |l| {
                let amount = if wrap { c[l] & 31 } else { c[l].min(32) };
                let both = u64::from(b[l]) << 32 | u64::from(a[l]);
                if left { ((u128::from(both) << amount) >> 32) as u32 } else { (both >> amount) as u32 }
            });
        }
        Op::Mul24 { hi, signed } | Op::Mad24 { hi, signed } => {
            let (a, b) = (regs.a(inst, 1), regs.a(inst, 2));
            let c = if matches!(inst.op, Op::Mad24 { .. }) { regs.a(inst, 3) } else { [0; 32] };
            let cut =
                |x: u32| if signed { i64::from((x << 8) as i32 >> 8) } else { i64::from(x & 0xff_ffff) };
            regs.write_each(d, |l| {
                let product = cut(a[l]) * cut(b[l]);
                (if hi { (product >> 16) as u32 } else { product as u32 }).wrapping_add(c[l])
            });
        }
        Op::Fns => {
            let (a, b, c) = (regs.a(inst, 1), regs.a(inst, 2), regs.a(inst, 3));
            regs.write_each(d, |l| int::fns(a[l], b[l], c[l] as i32));
        }
        Op::Bmsk { wrap } => {
            let (a, b) = (regs.a(inst, 1), regs.a(inst, 2));
            regs.write_each(d, |l| int::bmsk(a[l], b[l], beyond(wrap)));
        }
        Op::Szext { signed, wrap } => {
            let (a, b) = (regs.a(inst, 1), regs.a(inst, 2));
            regs.write_each(d, |l| int::szext(a[l], b[l], beyond(wrap), sign(signed)));
        }
        Op::Dp4a { a_signed, b_signed } => {
            let (a, b, c) = (regs.a(inst, 1), regs.a(inst, 2), regs.a(inst, 3));
            regs.write_each(d, |l| int::dp4a(a[l], b[l], c[l], sign(a_signed), sign(b_signed)));
        }
        Op::Dp2a { a_signed, b_signed, hi } => {
            let (a, b, c) = (regs.a(inst, 1), regs.a(inst, 2), regs.a(inst, 3));
            regs.write_each(d, |l| {
                int::dp2a(
                    a[l],
                    b[l],
                    c[l],
                    sign(a_signed),
                    sign(b_signed),
                    if hi { int::HalfWord::High } else { int::HalfWord::Low },
                )
            });
        }
        Op::Carry { wide, subtract, input, output } => carry(inst, regs, wide, subtract, input, output),
        _ => return false,
    }
    true
}

fn sign(signed: bool) -> int::Sign {
    if signed { int::Sign::Signed } else { int::Sign::Unsigned }
}

fn beyond(wrap: bool) -> int::Beyond {
    if wrap { int::Beyond::Wrap } else { int::Beyond::Clamp }
}

/// `add.cc` and kin; a borrow is kept as a carry of the same sense.
fn carry(inst: &Inst, regs: &mut Regs<'_>, wide: bool, subtract: bool, input: bool, output: bool) {
    let carried = if input { regs.p(inst, 3) } else { 0 };
    let bits = if wide { 64 } else { 32 };
    let (a, b) = if wide {
        (regs.a64(inst, 1), regs.a64(inst, 2))
    } else {
        (regs.a(inst, 1).map(u64::from), regs.a(inst, 2).map(u64::from))
    };
    let mut sums = [0; 32];
    let mut out = 0;
    for l in 0..32 {
        let c = i128::from(carried >> l & 1);
        let sum = if subtract {
            i128::from(a[l]) - i128::from(b[l]) - c
        } else {
            i128::from(a[l]) + i128::from(b[l]) + c
        };
        sums[l] = sum as u64;
        out |= u32::from(sum < 0 || sum >> bits != 0) << l;
    }
    if wide {
        regs.write64(inst.r[0], |l| sums[l]);
    } else {
        regs.write(inst.r[0], |l| sums[l] as u32);
    }
    if output {
        regs.write_pred(inst.r[4], out);
    }
}
