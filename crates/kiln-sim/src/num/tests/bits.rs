//! Bit instructions against the loops that the ISA prints.

use super::int::words;
use crate::num::int::*;

/// `bfe` of the ISA, for `msb + 1` bits.
fn bfe(a: u64, b: u32, c: u32, msb: u32, signed: bool) -> u64 {
    let (pos, len) = (b & 0xff, c & 0xff);
    let bit = |index: u32| a >> index & 1;
    let sbit = if !signed || len == 0 { 0 } else { bit((pos + len - 1).min(msb)) };
    (0..=msb).fold(0, |d, i| d | if i < len && pos + i <= msb { bit(pos + i) } else { sbit } << i)
}

/// `bfi` of the ISA.
fn bfi(a: u64, b: u64, c: u32, d: u32, msb: u32) -> u64 {
    let (pos, len) = (c & 0xff, d & 0xff);
    let mut f = b;
    for i in (0..len).take_while(|i| pos + i <= msb) {
        f = f & !(1 << (pos + i)) | (a >> i & 1) << (pos + i);
    }
    f
}

#[test]
fn bit_fields() {
    let lengths = [0, 1, 2, 7, 8, 16, 31, 32, 33, 63, 64, 65, 128, 255, 256, 258];
    for a in words(50) {
        for b in lengths {
            for c in lengths {
                let what = format!("{a:#x} {b} {c}");
                assert_eq!(
                    u64::from(bfe_u32(a as u32, b, c)),
                    bfe(a & 0xffff_ffff, b, c, 31, false),
                    "{what}"
                );
                assert_eq!(
                    bfe_s32(a as i32, b, c) as u32,
                    bfe(a & 0xffff_ffff, b, c, 31, true) as u32,
                    "{what}"
                );
                assert_eq!(bfe_u64(a, b, c), bfe(a, b, c, 63, false), "{what}");
                assert_eq!(bfe_s64(a as i64, b, c) as u64, bfe(a, b, c, 63, true), "{what}");
                let base = a.rotate_left(29) ^ 0x5555_5555_5555_5555;
                assert_eq!(bfi_32(a as u32, base as u32, b, c), bfi(a, base, b, c, 31) as u32, "{what}");
                assert_eq!(bfi_64(a, base, b, c), bfi(a, base, b, c, 63), "{what}");
            }
        }
    }
}

#[test]
fn the_highest_bit_that_is_no_sign() {
    let find = |a: u64, msb: u32, signed: bool, shift_amount: bool| {
        let a = if signed && a >> msb & 1 == 1 { !a } else { a };
        match (0..=msb).rev().find(|&bit| a >> bit & 1 == 1) {
            Some(bit) if shift_amount => msb - bit,
            Some(bit) => bit,
            None => 0xffff_ffff,
        }
    };
    for a in words(51) {
        for shift in [false, true] {
            assert_eq!(bfind_u32(a as u32, shift), find(a, 31, false, shift), "{a:#x}");
            assert_eq!(bfind_s32(a as i32, shift), find(a, 31, true, shift), "{a:#x}");
            assert_eq!(bfind_u64(a, shift), find(a, 63, false, shift), "{a:#x}");
            assert_eq!(bfind_s64(a as i64, shift), find(a, 63, true, shift), "{a:#x}");
        }
    }
}

#[test]
fn the_nth_set_bit() {
    for mask in words(52).into_iter().map(|word| word as u32).chain([0xaaaa_aaaa]) {
        for base in 0..32 {
            for offset in (-34..=34).chain([i32::MIN, i32::MAX]) {
                // The ISA's loop.
                let (mut d, mut pos) = (0xffff_ffff, base as i32);
                let mut count = offset.unsigned_abs().wrapping_sub(1);
                if offset == 0 {
                    d = if mask >> base & 1 == 1 { base } else { d };
                } else {
                    while (0..32).contains(&pos) {
                        if mask >> pos & 1 == 1 {
                            if count == 0 {
                                d = pos as u32;
                                break;
                            }
                            count -= 1;
                        }
                        pos += offset.signum();
                    }
                }
                assert_eq!(fns(mask, base, offset), d, "{mask:#x} {base} {offset}");
            }
        }
    }
    // The ISA's examples.
    let examples = [(3, 1), (3, -1), (2, 1), (2, -1)].map(|(base, offset)| fns(0xaaaa_aaaa, base, offset));
    assert_eq!(examples, [3, 3, 3, 1]);
    assert_eq!(fns(u32::MAX, 32, 1), u32::MAX);
}

#[test]
fn permutations_follow_the_tables() {
    let (a, b) = (0x83_82_01_00, 0x07_86_05_84);
    let bytes = [0x00, 0x01, 0x82, 0x83, 0x84, 0x05, 0x86, 0x07];
    for control in (0..=0xffff).step_by(7) {
        let expected = (0..4).fold(0, |word, i| {
            let selector = control >> (4 * i) & 15;
            let byte: u32 = bytes[selector as usize & 7];
            let byte = if selector < 8 { byte } else { (byte >> 7) * 0xff };
            word | byte << (8 * i)
        });
        assert_eq!(prmt(a, b, control | 0xabcd_0000, Permute::Index), expected, "{control:#x}");
    }
    // Source bytes from the highest to the lowest, for the selectors 0 to 3.
    let tables = [
        (Permute::F4e, [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]),
        (Permute::B4e, [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]]),
        (Permute::Rc8, [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        (Permute::Ecl, [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]]),
        (Permute::Ecr, [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]]),
        (Permute::Rc16, [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]]),
    ];
    for (mode, rows) in tables {
        for (selector, row) in rows.into_iter().enumerate() {
            let expected = row.into_iter().fold(0, |word, index: usize| word << 8 | bytes[index]);
            // Only two bits of the control count.
            assert_eq!(prmt(a, b, selector as u32 | 0x58, mode), expected, "{mode:?} {selector}");
        }
    }
}

#[test]
fn lop3_looks_its_function_up() {
    let (a, b, c) = (0xf0f0_1234, 0xcccc_5678, 0xaaaa_9abc);
    // The ISA's recipe: a function of the three constants is the table of that function.
    let functions: [fn(u32, u32, u32) -> u32; 6] = [
        |a, b, c| a & b & c,
        |a, b, c| a | b | c,
        |a, b, c| a & b & !c,
        |a, b, c| (a & b | c) ^ a,
        |a, b, c| a ^ b ^ c,
        |a, b, c| (a & b) | (!a & c),
    ];
    for function in functions {
        let table = function(0xf0, 0xcc, 0xaa) as u8;
        assert_eq!(lop3(a, b, c, table), function(a, b, c), "{table:#x}");
    }
    for table in 0..=255 {
        let expected = (0..32).fold(0, |word, i| {
            let index = (a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1;
            word | (u32::from(table) >> index & 1) << i
        });
        assert_eq!(lop3(a, b, c, table), expected, "{table:#x}");
    }
}

#[test]
fn extension_and_masks() {
    for a in words(53).into_iter().map(|word| word as u32) {
        for b in (0..70).chain([255, 256, u32::MAX]) {
            for beyond in [Beyond::Clamp, Beyond::Wrap] {
                let b1 = b & 0x1f;
                let too_large = b >= 32 && beyond == Beyond::Clamp;
                let mask = if too_large { 0 } else { !0 << b1 };
                let sign_bit = b1 != 0 && !too_large && a >> (b1.wrapping_sub(1) & 0x1f) & 1 == 1;
                assert_eq!(szext(a, b, beyond, Sign::Unsigned), a & !mask, "{a:#x} {b}");
                let expected = a & !mask | if sign_bit { mask } else { 0 };
                assert_eq!(szext(a, b, beyond, Sign::Signed), expected, "{a:#x} {b}");
            }
        }
    }
    let amounts = || (0..70).chain([255, 256, u32::MAX]);
    for a in amounts() {
        for b in amounts() {
            for beyond in [Beyond::Clamp, Beyond::Wrap] {
                assert_eq!(bmsk(a, b, beyond), isa_bmsk(a, b, beyond), "{a} {b} {beyond:?}");
            }
        }
    }
    assert_eq!(bmsk(1, 2, Beyond::Wrap), 6);
}

/// `bmsk` of the ISA.
fn isa_bmsk(a: u32, b: u32, beyond: Beyond) -> u32 {
    let (a1, b1) = (a & 0x1f, b & 0x1f);
    let clamp = beyond == Beyond::Clamp;
    let mask0 = if clamp && a >= 32 { 0 } else { !0u32 << a1 };
    let overflow = a1 + b1 >= 32 || clamp && (a >= 32 || b >= 32);
    let mask1 = if overflow {
        0
    } else if b1 == 0 {
        !0
    } else {
        !0 << (a1 + b1)
    };
    mask0 & !mask1
}
