//! Integer instructions against wide arithmetic.

use super::*;
use crate::num::int::*;

const SIGNS: [Sign; 2] = [Sign::Unsigned, Sign::Signed];

/// Edges and random words.
pub(super) fn words(seed: u64) -> Vec<u64> {
    let mut rng = random(seed);
    let edges =
        [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7f_ffff, 0x80_0000, 0x7fff_ffff, 0x8000_0000];
    let edges =
        edges.into_iter().flat_map(|edge: u64| [edge, edge << 32, !edge, edge << 32 | edge, edge << 31]);
    edges.chain(std::iter::repeat_with(|| rng.next_u64() >> (rng.next_u32() % 64)).take(40)).collect()
}

#[test]
fn upper_halves_of_products() {
    for a in words(30) {
        for b in words(31) {
            let (x, y) = (a as i64, b as i64);
            let wide = |bits: u32| {
                (
                    (i128::from(x) << (128 - bits)) >> (128 - bits),
                    (i128::from(y) << (128 - bits)) >> (128 - bits),
                )
            };
            let high = |bits: u32| {
                let (x, y) = wide(bits);
                (x * y) >> bits
            };
            assert_eq!(i128::from(mulhi_s16(a as i16, b as i16)), high(16));
            assert_eq!(i128::from(mulhi_s32(a as i32, b as i32)), high(32));
            assert_eq!(i128::from(mulhi_s64(x, y)), high(64));
            let low = |value: u64, bits: u32| u128::from(value) & ((1 << bits) - 1);
            let high = |bits: u32| (low(a, bits) * low(b, bits)) >> bits;
            assert_eq!(u128::from(mulhi_u16(a as u16, b as u16)), high(16));
            assert_eq!(u128::from(mulhi_u32(a as u32, b as u32)), high(32));
            assert_eq!(u128::from(mulhi_u64(a, b)), high(64));
        }
    }
}

#[test]
fn products_of_24_bits_ignore_the_upper_byte() {
    let extend = |value: u64, sign| {
        let low = i128::from(value & 0xff_ffff);
        if sign == Sign::Signed && low >= 1 << 23 { low - (1 << 24) } else { low }
    };
    for a in words(32) {
        for b in words(33) {
            for sign in SIGNS {
                let product = extend(a, sign) * extend(b, sign);
                assert_eq!(mul24(a as u32, b as u32, sign), product as u32, "{a:#x} {b:#x}");
                assert_eq!(mul24hi(a as u32, b as u32, sign), (product >> 16) as u32, "{a:#x} {b:#x}");
            }
        }
    }
}

#[test]
fn sums_of_absolute_differences_wrap() {
    for a in words(34) {
        for b in words(35) {
            let c = a.rotate_left(17) ^ b;
            let expected = |x: i128, y: i128| i128::from(c) + (x - y).abs();
            assert_eq!(
                sad_u16(a as u16, b as u16, c as u16),
                expected((a as u16).into(), (b as u16).into()) as u16
            );
            assert_eq!(
                sad_s16(a as i16, b as i16, c as i16),
                expected((a as i16).into(), (b as i16).into()) as i16
            );
            assert_eq!(
                sad_u32(a as u32, b as u32, c as u32),
                expected((a as u32).into(), (b as u32).into()) as u32
            );
            assert_eq!(
                sad_s32(a as i32, b as i32, c as i32),
                expected((a as i32).into(), (b as i32).into()) as i32
            );
            assert_eq!(sad_u64(a, b, c), expected(a.into(), b.into()) as u64);
            assert_eq!(
                sad_s64(a as i64, b as i64, c as i64),
                expected((a as i64).into(), (b as i64).into()) as i64
            );
        }
    }
}

#[test]
fn saturating_sums_and_absolute_values() {
    let clamp = |value: i128| value.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
    for a in words(36) {
        for b in words(37) {
            let (x, y) = (a as i32, b as i32);
            let (wide_x, wide_y) = (i128::from(x), i128::from(y));
            assert_eq!(add_sat_s32(x, y), clamp(wide_x + wide_y));
            assert_eq!(sub_sat_s32(x, y), clamp(wide_x - wide_y));
            let c = (a >> 32) as i32;
            assert_eq!(mad_hi_sat_s32(x, y, c), clamp(((wide_x * wide_y) >> 32) + i128::from(c)));
        }
        assert_eq!(abs_s16(a as i16), i32::from(a as i16).abs() as i16);
        assert_eq!(abs_s32(a as i32), i64::from(a as i32).abs() as i32);
        assert_eq!(abs_s64(a as i64), i128::from(a as i64).abs() as i64);
    }
}

#[test]
fn shifts_clamp_their_amount() {
    for a in words(38) {
        for amount in (0..70).chain([127, 128, 255, 256, u32::MAX - 1, u32::MAX]) {
            // More than the width changes nothing, and fits 128 bits.
            let shift = amount.min(64);
            assert_eq!(shl_b16(a as u16, amount), (u128::from(a as u16) << shift) as u16);
            assert_eq!(shl_b32(a as u32, amount), (u128::from(a as u32) << shift) as u32);
            assert_eq!(shl_b64(a, amount), (u128::from(a) << shift) as u64);
            assert_eq!(shr_u16(a as u16, amount), (u128::from(a as u16) >> shift) as u16);
            assert_eq!(shr_u32(a as u32, amount), (u128::from(a as u32) >> shift) as u32);
            assert_eq!(shr_u64(a, amount), (u128::from(a) >> shift) as u64);
            assert_eq!(shr_s16(a as i16, amount), (i128::from(a as i16) >> shift) as i16);
            assert_eq!(shr_s32(a as i32, amount), (i128::from(a as i32) >> shift) as i32);
            assert_eq!(shr_s64(a as i64, amount), (i128::from(a as i64) >> shift) as i64);
        }
    }
}

#[test]
fn funnel_shifts_move_bits_of_the_pair() {
    for pair in words(39) {
        let (a, b) = (pair as u32, (pair >> 32) as u32);
        for amount in (0..70).chain([u32::MAX]) {
            for (beyond, n) in [(Beyond::Clamp, amount.min(32)), (Beyond::Wrap, amount & 31)] {
                // Bit by bit: out[i] is bit i + 32 - n of the pair, or bit i + n.
                let bit = |position: u32| (pair >> position & 1) as u32;
                let left = (0..32).fold(0, |word, i| word | bit(i + 32 - n) << i);
                let right = (0..32).fold(0, |word, i| word | if i + n < 64 { bit(i + n) } else { 0 } << i);
                assert_eq!(shf_l(a, b, amount, beyond), left, "{pair:#x} {amount} {beyond:?}");
                assert_eq!(shf_r(a, b, amount, beyond), right, "{pair:#x} {amount} {beyond:?}");
            }
        }
    }
}

/// Element `index` of `bits` bits, widened.
fn element(word: u32, bits: u32, index: u32, sign: Sign) -> i64 {
    let value = i64::from(word >> (bits * index)) & ((1 << bits) - 1);
    if sign == Sign::Signed && value >> (bits - 1) == 1 { value - (1 << bits) } else { value }
}

#[test]
fn dot_products_of_packed_operands() {
    let words: Vec<u32> = words(40).into_iter().map(|word| word as u32).collect();
    for &a in &words {
        for &b in &words {
            let c = a.rotate_left(9) ^ b;
            for a_sign in SIGNS {
                for b_sign in SIGNS {
                    let dot: i64 = (0..4).map(|i| element(a, 8, i, a_sign) * element(b, 8, i, b_sign)).sum();
                    assert_eq!(dp4a(a, b, c, a_sign, b_sign), (i64::from(c) + dot) as u32);
                    for (half, first) in [(HalfWord::Low, 0), (HalfWord::High, 2)] {
                        let dot: i64 = (0..2)
                            .map(|i| element(a, 16, i, a_sign) * element(b, 8, first + i, b_sign))
                            .sum();
                        assert_eq!(dp2a(a, b, c, a_sign, b_sign, half), (i64::from(c) + dot) as u32);
                    }
                }
            }
        }
    }
}

#[test]
fn halves_do_not_carry_into_each_other() {
    let pack = |high: i64, low: i64| (high as u32) << 16 | (low as u32 & 0xffff);
    let words: Vec<u32> = words(41).into_iter().map(|word| word as u32).collect();
    for &a in &words {
        for &b in &words {
            let both = |sign, op: fn(i64, i64) -> i64| {
                let [low, high] = [0, 1].map(|i| op(element(a, 16, i, sign), element(b, 16, i, sign)));
                pack(high, low)
            };
            assert_eq!(add_16x2(a, b), both(Sign::Unsigned, |a, b| a + b));
            assert_eq!(min_u16x2(a, b), both(Sign::Unsigned, i64::min));
            assert_eq!(max_u16x2(a, b), both(Sign::Unsigned, i64::max));
            assert_eq!(min_s16x2(a, b, false), both(Sign::Signed, i64::min));
            assert_eq!(max_s16x2(a, b, false), both(Sign::Signed, i64::max));
            assert_eq!(min_s16x2(a, b, true), both(Sign::Signed, |a, b| a.min(b).max(0)));
            assert_eq!(max_s16x2(a, b, true), both(Sign::Signed, |a, b| a.max(b).max(0)));
        }
    }
}
