//! Integers to floats and back.

use super::*;
use crate::num::convert::*;

fn integers() -> Vec<i128> {
    let mut rng = random(10);
    let random = (0..60_000).map(|_| i128::from(rng.next_u64() as i64 >> (rng.next_u32() % 63)));
    let mut values: Vec<i128> = random.collect();
    for bit in 0..64 {
        for low in -3..=3 {
            values.push((1i128 << bit) + low);
            // Around the middle of two f16, bf16, f32 and f64 neighbours.
            values
                .extend([8, 11, 24, 53].map(|precision| (1i128 << bit) + (1i128 << bit >> precision) + low));
        }
    }
    values.extend([0, i128::from(u64::MAX), i128::from(i64::MIN), 65519, 65520, 65535, 65536]);
    let negative: Vec<i128> = values.iter().map(|value| -value).collect();
    values.into_iter().chain(negative).collect()
}

#[test]
fn integers_to_f32_and_f64() {
    for value in integers() {
        let nearest = value as f32;
        // Up to 2^64, floats are exact in i128.
        let below = if nearest as i128 > value { nearest.next_down() } else { nearest };
        let above = if (nearest as i128) < value { nearest.next_up() } else { nearest };
        let zero = if value > 0 { below } else { above };
        let results =
            [Round::Nearest, Round::Down, Round::Up, Round::Zero].map(|round| int_to_f32(value, round));
        assert_eq!(results, [nearest, below, above, zero], "{value}");

        let nearest = value as f64;
        let below = if nearest as i128 > value { nearest.next_down() } else { nearest };
        let above = if (nearest as i128) < value { nearest.next_up() } else { nearest };
        let zero = if value > 0 { below } else { above };
        let results =
            [Round::Nearest, Round::Down, Round::Up, Round::Zero].map(|round| int_to_f64(value, round));
        assert_eq!(results, [nearest, below, above, zero], "{value}");
    }
}

#[test]
fn integers_to_f16_and_bf16_round_once() {
    let f16 = f16_table();
    // bf16 from 2^-8 to 2^66 in units of 2^-24, which covers every integer but zero; below, an even zero.
    let bf16 = Table::new(0x6100, |bits| (f64::from(bf16_to_f32(bits)) * 2f64.powi(24)) as i128);
    for value in integers() {
        for round in ROUNDS {
            let expected = f16.round(value << 24, 0, round, value < 0);
            assert_eq!(int_to_f16(value, round), expected, "f16 of {value} {round:?}");
            let expected = if value == 0 { 0 } else { bf16.round(value << 24, 0, round, value < 0) };
            assert_eq!(int_to_bf16(value, round), expected, "bf16 of {value} {round:?}");
        }
    }
}

/// The integer that a finite value rounds to, from its exact parts.
fn rounded(value: f64, round: Round) -> i128 {
    let (floor, ceil) = (value.floor(), value.ceil());
    let middle = value.total_cmp(&(floor + 0.5));
    let even = ceil % 2.0 == 0.0;
    let integral = if floor == ceil || !takes_upper(round, value < 0.0, middle, even) { floor } else { ceil };
    integral as i128
}

fn floats() -> Vec<f64> {
    let mut rng = random(11);
    let mut values: Vec<f64> = (-600..600).map(|half| f64::from(half) / 2.0).collect();
    values.extend((-600..600).map(|half| (f64::from(half) / 2.0).next_up()));
    for bit in [7, 8, 15, 16, 31, 32, 63, 64] {
        let edge = 2f64.powi(bit);
        values.extend([edge, edge.next_down(), edge.next_up(), edge - 0.5, edge - 1.0, edge + 0.5]);
    }
    values.extend((0..50_000).map(|_| any_f64(&mut rng)));
    values
        .extend((0..50_000).map(|_| rng.next_u64() as i64 as f64 / 2f64.powi((rng.next_u32() % 64) as i32)));
    let negative: Vec<f64> = values.iter().map(|value| -value).collect();
    values.into_iter().chain(negative).filter(|value| !value.is_nan()).collect()
}

#[test]
fn floats_to_integers_clamp() {
    for value in floats() {
        for round in ROUNDS {
            let integer = rounded(value, round);
            for bits in [8, 16, 32, 64] {
                let clamped = integer.clamp(-1 << (bits - 1), (1 << (bits - 1)) - 1);
                assert_eq!(
                    float_to_int(value, round, bits, true, 64),
                    clamped as u64,
                    "s{bits} {value:e} {round:?}"
                );
                let clamped = integer.clamp(0, (1 << bits) - 1);
                assert_eq!(
                    float_to_int(value, round, bits, false, 64),
                    clamped as u64,
                    "u{bits} {value:e} {round:?}"
                );
            }
        }
    }
}

#[test]
fn nan_to_integer_depends_on_both_widths() {
    let convert = |bits, signed, from| float_to_int(f64::NAN, Round::Zero, bits, signed, from);
    for from in [16, 32] {
        for bits in [8, 16, 32] {
            assert_eq!((convert(bits, false, from), convert(bits, true, from)), (0, 0));
        }
        assert_eq!((convert(64, false, from), convert(64, true, from)), (1 << 63, 1 << 63));
    }
    assert_eq!((convert(32, false, 64), convert(64, false, 64)), (0x8000_0000, 1 << 63));
    assert_eq!((convert(8, true, 64), convert(16, true, 64)), (-128i64 as u64, i64::from(i16::MIN) as u64));
    assert_eq!(convert(32, true, 64), i64::from(i32::MIN) as u64);
}

#[test]
fn rounding_to_integral_values_keeps_the_sign_of_zero() {
    for value in floats().into_iter().filter(|value| value.abs() < 2f64.powi(64)) {
        for round in ROUNDS {
            let result = round_integral_f64(value, round);
            assert_eq!((result as i128, result.fract()), (rounded(value, round), 0.0), "{value:e} {round:?}");
            assert_eq!(result.is_sign_negative(), value.is_sign_negative());
            let single = value as f32;
            let result = round_integral_f32(single, round);
            assert_eq!(
                (result as i128, result.fract()),
                (rounded(single.into(), round), 0.0),
                "{single:e} {round:?}"
            );
            assert_eq!(result.is_sign_negative(), value.is_sign_negative());
        }
    }
    for bits in 0..=u16::MAX {
        for round in ROUNDS {
            let value = f16_to_f32(bits);
            let expected = f32_to_f16(round_integral_f32(value, round), Round::Zero);
            assert_eq!(round_integral_f16(bits, round), expected, "{bits:#06x}");
            let wide = bf16_to_f32(round_integral_bf16(bits, round));
            let expected = round_integral_f32(bf16_to_f32(bits), round);
            assert!(
                wide.to_bits() == expected.to_bits() || wide.is_nan() && expected.is_nan(),
                "{bits:#06x}"
            );
        }
    }
    assert_eq!(round_integral_f32(-f32::NAN, Round::Up).to_bits(), 0x7fff_ffff);
    assert_eq!(round_integral_f64(-f64::NAN, Round::Up).to_bits(), 0x7ff8_0000_0000_0000);
}
