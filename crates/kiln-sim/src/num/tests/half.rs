//! f16 and bf16 arithmetic against exact integers.

use super::*;
use crate::num::convert::{bf16_to_f32, f32_to_bf16};
use crate::num::half::*;

fn any_finite(rng: &mut StdRng, exponent: impl Fn(u32) -> u16, fraction_bits: u32) -> u16 {
    let random = rng.next_u32();
    let fraction = (random as u16) & ((1 << fraction_bits) - 1);
    // Few bits set, half of the time: products then tie.
    let fraction = if random >> 31 == 1 { fraction & fraction << 3 } else { fraction };
    exponent(rng.next_u32()) << fraction_bits | fraction | (random >> 16) as u16 & 0x8000
}

#[test]
fn f16_arithmetic_rounds_the_exact_value_once() {
    let table = f16_table();
    let mut rng = random(60);
    for round in 0..200_000 {
        let mut value = || any_finite(&mut rng, |random| (random % 31) as u16, 10);
        let (a, b, mut c) = (value(), value(), value());
        if round % 4 == 0 {
            // A sum that cancels.
            c = mul_f16(a, b) ^ 0x8000;
        }
        if c & 0x7fff == 0x7c00 {
            continue;
        }
        let [x, y, z] = [a, b, c].map(f16_units);
        let signed = |exact: i128, zero: u16| if exact == 0 { zero } else { u16::from(exact < 0) << 15 };
        let expected = |exact: i128, scale, zero| match exact {
            0 => zero,
            _ => table.round(exact, scale, Round::Nearest, signed(exact, 0) != 0),
        };
        let sum_zero = a & b & 0x8000;
        assert_eq!(add_f16(a, b), expected(x + y, 0, sum_zero), "{a:#x} + {b:#x}");
        assert_eq!(sub_f16(a, b), expected(x - y, 0, a & !b & 0x8000), "{a:#x} - {b:#x}");
        let product_sign = (a ^ b) & 0x8000;
        let product = if x * y == 0 { product_sign } else { expected(x * y, 24, 0) };
        assert_eq!(mul_f16(a, b), product, "{a:#x} * {b:#x}");
        let exact = x * y + (z << 24);
        let zero = if x * y == 0 { product_sign & c } else { 0 };
        assert_eq!(fma_f16(a, b, c), expected(exact, 24, zero & 0x8000), "{a:#x} * {b:#x} + {c:#x}");
    }
}

/// A bf16 of exponent 2^-20 to 2^20 in units of 2^-27.
fn bf16_units(bits: u16) -> i128 {
    (f64::from(bf16_to_f32(bits)) * 2f64.powi(27)) as i128
}

#[test]
fn bf16_arithmetic_rounds_the_exact_value_once() {
    let mut rng = random(61);
    // Exact results lie between 2^-54 and 2^42 and come as f64 pairs of which the first holds all bits that matter:
    // their distance to a bf16 is an integer of 2^-54.
    let units = |bits: u16| (f64::from(bf16_to_f32(bits)) * 2f64.powi(54)) as i128;
    let check = |result: u16, exact: i128, what: &str| {
        if exact == 0 {
            assert_eq!(result & 0x7fff, 0, "{what}");
            return;
        }
        // No neighbour is closer, and of two as close the even one is taken.
        let distance = |bits: u16| (units(bits) - exact).abs();
        for neighbour in [result - 1, result + 1] {
            let even = distance(neighbour) > distance(result) || result & 1 == 0;
            assert!(distance(neighbour) >= distance(result) && even, "{what} = {result:#x}");
        }
        assert_eq!(result >> 15 == 1, exact < 0, "{what}");
    };
    for round in 0..200_000 {
        let mut value = || any_finite(&mut rng, |random| (107 + random % 41) as u16, 7);
        let (a, b, mut c) = (value(), value(), value());
        if round % 4 == 0 {
            c = a ^ 0x8000;
        }
        let [x, y, z] = [a, b, c].map(bf16_units);
        check(add_bf16(a, b), (x + y) << 27, &format!("{a:#x} + {b:#x}"));
        check(sub_bf16(a, b), (x - y) << 27, &format!("{a:#x} - {b:#x}"));
        check(mul_bf16(a, b), x * y, &format!("{a:#x} * {b:#x}"));
        check(fma_bf16(a, b, c), x * y + (z << 27), &format!("{a:#x} * {b:#x} + {c:#x}"));
    }
}

#[test]
fn a_bit_far_below_decides_a_tie() {
    let bf16 = |value: f32| f32_to_bf16(value, Round::Nearest);
    // 3 * 87 = 261 lies in the middle of 260 and 262.
    let (a, b, tiny) = (bf16(3.0), bf16(87.0), 0x0001);
    assert_eq!(fma_bf16(a, b, 0), bf16(260.0));
    assert_eq!(fma_bf16(a, b, tiny), bf16(262.0));
    assert_eq!(fma_bf16(a, b, tiny | 0x8000), bf16(260.0));
    // 3 * 89 = 267 lies in the middle of 266 and 268.
    let b = bf16(89.0);
    assert_eq!(fma_bf16(a, b, 0), bf16(268.0));
    assert_eq!(fma_bf16(a, b, tiny | 0x8000), bf16(266.0));
    assert_eq!(fma_bf16(a | 0x8000, b, tiny), bf16(-266.0));
    assert_eq!(add_bf16(0x7f7f, 0x7f7f), 0x7f80);
}

#[test]
fn special_values_follow_ieee_754() {
    let infinities = [(0x7c00, 0x3c00), (0x7f80, 0x3f80)];
    let operations = [(add_f16 as fn(u16, u16) -> u16, mul_f16 as fn(u16, u16) -> u16), (add_bf16, mul_bf16)];
    let fmas = [fma_f16 as fn(u16, u16, u16) -> u16, fma_bf16];
    for (((infinity, one), (add, mul)), fma) in infinities.into_iter().zip(operations).zip(fmas) {
        let minus = |bits: u16| bits | 0x8000;
        assert_eq!(add(infinity, one), infinity);
        assert_eq!(add(infinity, minus(infinity)), 0x7fff);
        assert_eq!(mul(infinity, 0), 0x7fff);
        assert_eq!(mul(minus(infinity), one), minus(infinity));
        assert_eq!(fma(infinity, one, minus(infinity)), 0x7fff);
        assert_eq!(fma(one, one, minus(infinity)), minus(infinity));
        assert_eq!(fma(one, one, minus(one)), 0);
        assert_eq!(fma(0x8000, one, 0x8000), 0x8000);
        assert_eq!(add(infinity | 1, one), 0x7fff);
        assert_eq!(add(infinity - 1, infinity - 1), infinity);
        assert_eq!(mul(1, 1), 0);
        assert_eq!(mul(minus(1), 1), 0x8000);
    }
}

/// What a unary operation does to every pattern of a format, by its value.
fn check_unary(widen: impl Fn(u16) -> f32, infinity: u16, one: u16, operations: [fn(u16) -> u16; 5]) {
    for bits in 0..=u16::MAX {
        let value = widen(bits);
        let results = operations.map(|operation| operation(bits));
        let flushed = if bits & 0x7fff < (infinity & !(infinity << 1)) { bits & 0x8000 } else { bits };
        let saturated = if value >= 1.0 { one } else { bits };
        let expected = match value {
            _ if value.is_nan() => [0x7fff, 0x7fff, 0x7fff, 0, bits],
            _ if bits >> 15 == 1 => [bits & 0x7fff, bits & 0x7fff, 0, 0, flushed],
            _ => [bits | 0x8000, bits, bits, saturated, flushed],
        };
        assert_eq!(results, expected, "{bits:#06x}");
    }
}

#[test]
fn signs_and_clamps_of_every_pattern() {
    use crate::num::convert::f16_to_f32;
    check_unary(f16_to_f32, 0x7c00, 0x3c00, [neg_f16, abs_f16, relu_f16, sat_f16, ftz_f16]);
    check_unary(bf16_to_f32, 0x7f80, 0x3f80, [neg_bf16, abs_bf16, relu_bf16, sat_bf16, ftz_bf16]);
}

#[test]
fn extrema_follow_those_of_f32() {
    use crate::num::convert::f16_to_f32;
    use crate::num::float::{max_f32, min_f32};
    let patterns = |infinity: u16| {
        let positive = [0, 1, 2, infinity >> 1, infinity - 1, infinity, infinity + 1, 0x7fff, 0x3c00, 0x3f80];
        positive.into_iter().flat_map(|bits| [bits, bits | 0x8000]).collect::<Vec<u16>>()
    };
    let narrow = |value: f32, back: &dyn Fn(f32) -> u16| if value.is_nan() { 0x7fff } else { back(value) };
    for (nan, xorsign) in [(false, false), (false, true), (true, false), (true, true)] {
        for &a in &patterns(0x7c00) {
            for &b in &patterns(0x7c00) {
                let back = |value: f32| ::half::f16::from_f32(value).to_bits();
                let (x, y) = (f16_to_f32(a), f16_to_f32(b));
                // f16_to_f32 makes NaN positive, and the sign of a NaN counts in `.xorsign`.
                let (x, y) = (signed(x, a), signed(y, b));
                let what = format!("{a:#x} {b:#x} {nan} {xorsign}");
                assert_eq!(min_f16(a, b, nan, xorsign), narrow(min_f32(x, y, nan, xorsign), &back), "{what}");
                assert_eq!(max_f16(a, b, nan, xorsign), narrow(max_f32(x, y, nan, xorsign), &back), "{what}");
            }
        }
        for &a in &patterns(0x7f80) {
            for &b in &patterns(0x7f80) {
                let back = |value: f32| (value.to_bits() >> 16) as u16;
                let (x, y) = (bf16_to_f32(a), bf16_to_f32(b));
                let what = format!("{a:#x} {b:#x} {nan} {xorsign}");
                assert_eq!(
                    min_bf16(a, b, nan, xorsign),
                    narrow(min_f32(x, y, nan, xorsign), &back),
                    "{what}"
                );
                assert_eq!(
                    max_bf16(a, b, nan, xorsign),
                    narrow(max_f32(x, y, nan, xorsign), &back),
                    "{what}"
                );
            }
        }
    }
}

fn signed(value: f32, bits: u16) -> f32 {
    value.copysign(if bits >> 15 == 1 { -1.0 } else { 1.0 })
}
