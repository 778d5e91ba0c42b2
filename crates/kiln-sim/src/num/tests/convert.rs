//! Float to float.

use super::*;
use crate::num::convert::*;

/// A value from its fields, by the definition of the formats: `bits` patterns of sign, exponent and `fraction` bits.
fn decode(bits: u32, exponent_bits: i32, fraction_bits: i32) -> f64 {
    let fraction = f64::from(bits & ((1 << fraction_bits) - 1)) / f64::from(1u32 << fraction_bits);
    let exponent = (bits >> fraction_bits & ((1 << exponent_bits) - 1)) as i32;
    let bias = (1 << (exponent_bits - 1)) - 1;
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(1 - bias),
        _ => (1.0 + fraction) * 2f64.powi(exponent - bias),
    };
    if bits >> (exponent_bits + fraction_bits) & 1 == 1 { -magnitude } else { magnitude }
}

#[test]
fn f16_and_bf16_widen_exactly() {
    for bits in 0..=u16::MAX {
        let (wide, magnitude) = (f16_to_f32(bits), bits & 0x7fff);
        match magnitude {
            0x7c00 => assert_eq!(wide, if bits >> 15 == 1 { f32::NEG_INFINITY } else { f32::INFINITY }),
            0x7c01.. => assert_eq!(wide.to_bits(), 0x7fff_ffff),
            _ => {
                assert_eq!(f64::from(wide).to_bits(), decode(u32::from(bits), 5, 10).to_bits(), "{bits:#06x}")
            }
        }
        let wide = bf16_to_f32(bits);
        match magnitude {
            0x7f80 => assert_eq!(wide, if bits >> 15 == 1 { f32::NEG_INFINITY } else { f32::INFINITY }),
            0x7f81.. => assert!(wide.is_nan()),
            _ => {
                assert_eq!(f64::from(wide).to_bits(), decode(u32::from(bits), 8, 7).to_bits(), "{bits:#06x}")
            }
        }
    }
}

#[test]
fn eight_bit_formats_widen_exactly() {
    for bits in 0..=u8::MAX {
        let (magnitude, wide) = (bits & 0x7f, e4m3_to_f32(bits));
        if magnitude == 0x7f {
            assert!(wide.is_nan());
        } else {
            assert_eq!(
                f64::from(wide).to_bits(),
                decode(u32::from(bits), 4, 3).to_bits(),
                "e4m3 {bits:#04x}"
            );
        }
        let wide = e5m2_to_f32(bits);
        match magnitude {
            0x7c => assert!(wide.is_infinite() && wide.is_sign_negative() == (bits >> 7 == 1)),
            0x7d.. => assert!(wide.is_nan()),
            _ => assert_eq!(
                f64::from(wide).to_bits(),
                decode(u32::from(bits), 5, 2).to_bits(),
                "e5m2 {bits:#04x}"
            ),
        }
    }
}

/// The pattern that a finite value rounds to, by search among all patterns of a format below `infinity`'s.
struct Search {
    values: Vec<f64>,
}

impl Search {
    fn new(infinity: u32, exponent_bits: i32, fraction_bits: i32) -> Search {
        Search { values: (0..=infinity).map(|bits| decode(bits, exponent_bits, fraction_bits)).collect() }
    }

    /// Without sign; the last pattern is infinity.
    fn round(&self, value: f64, round: Round) -> u32 {
        let (magnitude, negative) = (value.abs(), value.is_sign_negative());
        let upper = self.values.partition_point(|&entry| entry < magnitude);
        if upper == self.values.len() {
            // Above infinity's place.
            let stops = round == Round::Zero || round == if negative { Round::Up } else { Round::Down };
            return (upper - 1 - usize::from(stops)) as u32;
        }
        if self.values[upper] == magnitude && upper != self.values.len() - 1 {
            return upper as u32;
        }
        // Halves of neighbours and their sums are exact in f64.
        let middle = magnitude.total_cmp(&((self.values[upper] + self.values[upper - 1]) / 2.0));
        let outward = match round {
            Round::Up => !negative,
            Round::Down => negative,
            _ => takes_upper(round, false, middle, upper % 2 == 0) && round != Round::Zero,
        };
        (if outward { upper } else { upper - 1 }) as u32
    }

    /// Every value, every middle, and their f64 and f32 neighbours.
    fn probes(&self) -> impl Iterator<Item = f64> + '_ {
        let middles = self.values.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
        let points = self.values.iter().copied().chain(middles);
        let beyond = [self.values[self.values.len() - 1] * 1.5, 1e-60, 1e60];
        let near = |point: f64| {
            let single = point as f32;
            [point, point.next_up(), point.next_down(), single.next_up().into(), single.next_down().into()]
        };
        points
            .flat_map(near)
            .chain(beyond)
            .flat_map(|value| [value, -value])
            .filter(|value| value.is_finite())
    }
}

#[test]
fn narrowing_to_16_bits_finds_the_neighbour_that_the_rounding_asks_for() {
    for round in ROUNDS {
        let search = Search::new(0x7c00, 5, 10);
        for value in search.probes() {
            let expected = search.round(value, round) as u16 | u16::from(value.is_sign_negative()) << 15;
            assert_eq!(f64_to_f16(value, round), expected, "f16 of {value:e}, {round:?}");
            if f64::from(value as f32) == value {
                assert_eq!(f32_to_f16(value as f32, round), expected, "f16 of f32 {value:e}, {round:?}");
                let finite = if expected & 0x7fff == 0x7c00 { expected - 1 } else { expected };
                assert_eq!(f32_to_f16_satfinite(value as f32, round), finite);
            }
        }
        let search = Search::new(0x7f80, 8, 7);
        for value in search.probes() {
            let expected = search.round(value, round) as u16 | u16::from(value.is_sign_negative()) << 15;
            assert_eq!(f64_to_bf16(value, round), expected, "bf16 of {value:e}, {round:?}");
            if f64::from(value as f32) == value {
                assert_eq!(f32_to_bf16(value as f32, round), expected, "bf16 of f32 {value:e}, {round:?}");
                let finite = if expected & 0x7fff == 0x7f80 { expected - 1 } else { expected };
                assert_eq!(f32_to_bf16_satfinite(value as f32, round), finite);
            }
        }
    }
}

#[test]
fn eight_bit_formats_round_to_nearest_and_saturate() {
    let (e4m3, e5m2) = (Search::new(0x7f, 4, 3), Search::new(0x7c, 5, 2));
    for value in e4m3.probes().chain(e5m2.probes()).filter(|value| f64::from(*value as f32) == *value) {
        let sign = u8::from(value < 0.0 || value.is_sign_negative()) << 7;
        let expected = sign | e4m3.round(value, Round::Nearest).min(0x7e) as u8;
        assert_eq!(f32_to_e4m3(value as f32), expected, "e4m3 of {value:e}");
        let expected = sign | e5m2.round(value, Round::Nearest).min(0x7b) as u8;
        assert_eq!(f32_to_e5m2(value as f32), expected, "e5m2 of {value:e}");
    }
    assert_eq!((f32_to_e4m3(f32::INFINITY), f32_to_e4m3(f32::NEG_INFINITY)), (0x7e, 0xfe));
    assert_eq!((f32_to_e5m2(f32::INFINITY), f32_to_e5m2(f32::NEG_INFINITY)), (0x7b, 0xfb));
    assert_eq!((f32_to_e4m3(-f32::NAN), f32_to_e5m2(f32::NAN)), (0x7f, 0x7f));
}

#[test]
fn rounding_to_nearest_agrees_with_the_half_crate() {
    let mut rng = random(1);
    let values = std::iter::repeat_with(|| any_f32(&mut rng)).take(1_000_000);
    for value in values.filter(|value| !value.is_nan()) {
        let expected = ::half::f16::from_f32_const(value).to_bits();
        assert_eq!(f32_to_f16(value, Round::Nearest), expected, "{value:e}");
        assert_eq!(f32_to_bf16(value, Round::Nearest), ::half::bf16::from_f32(value).to_bits(), "{value:e}");
    }
}

#[test]
fn tf32_takes_one_of_two_neighbours() {
    let mut rng = random(2);
    let ties = (0..20_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x0d65_4321) & !0x1fff | 0x1000));
    let values: Vec<f32> = std::iter::repeat_with(|| any_f32(&mut rng)).take(300_000).chain(ties).collect();
    for value in values.into_iter().chain(special_f32()) {
        for round in ROUNDS {
            let bits = f32_to_tf32(value, round);
            if value.is_nan() {
                assert_eq!(bits, 0x7fff_ffff);
                continue;
            }
            // Towards zero and away from it, by magnitude; the next value of the largest is infinity.
            let inner = value.to_bits() & !0x1fff;
            let outer = if inner == value.to_bits() { inner } else { inner + 0x2000 };
            // The low bits are the distance, as exponents agree below the carry.
            let middle = (value.to_bits() & 0x1fff).cmp(&0x1000);
            let outward = match round {
                Round::Up => value > 0.0,
                Round::Down => value < 0.0,
                Round::Zero => false,
                _ => takes_upper(round, false, middle, outer >> 13 & 1 == 0),
            };
            assert_eq!(bits, if outward { outer } else { inner }, "{value:e} {round:?}");
            let finite = if bits & 0x7fff_ffff == 0x7f80_0000 { bits - 0x2000 } else { bits };
            assert_eq!(f32_to_tf32_satfinite(value, round), finite);
        }
    }
}

#[test]
fn f64_to_f32_finds_the_neighbour_that_the_rounding_asks_for() {
    let mut rng = random(3);
    let near = std::iter::repeat_with(|| {
        let base = f64::from(any_f32(&mut rng));
        f64::from_bits(base.to_bits().wrapping_add(rng.next_u64() >> (rng.next_u32() % 40 + 24)))
    });
    let values: Vec<f64> = near.take(300_000).chain(special_f64()).chain([1e300, -1e300, 1e-320]).collect();
    for value in values.into_iter().filter(|value| !value.is_nan()) {
        // By definition: the largest f32 that is not above, the smallest that is not below.
        let nearest = value as f32;
        let below = if f64::from(nearest) > value { nearest.next_down() } else { nearest };
        let above = if f64::from(nearest) < value { nearest.next_up() } else { nearest };
        let zero = if value > 0.0 { below } else { above };
        for (round, expected) in
            [(Round::Nearest, nearest), (Round::Down, below), (Round::Up, above), (Round::Zero, zero)]
        {
            let expected = expected.copysign(value as f32);
            assert_eq!(f64_to_f32(value, round).to_bits(), expected.to_bits(), "{value:e} {round:?}");
        }
    }
    for round in ROUNDS {
        assert_eq!(f64_to_f32(f64::NAN, round).to_bits(), 0x7fff_ffff);
        assert_eq!(f64_to_f32(f64::NEG_INFINITY, round), f32::NEG_INFINITY);
    }
}

#[test]
fn infinity_stays_unless_it_saturates() {
    for round in ROUNDS {
        for (value, sign) in [(f32::INFINITY, 0), (f32::NEG_INFINITY, 0x8000)] {
            assert_eq!(
                (f32_to_f16(value, round), f64_to_f16(value.into(), round)),
                (sign | 0x7c00, sign | 0x7c00)
            );
            assert_eq!(
                (f32_to_bf16(value, round), f64_to_bf16(value.into(), round)),
                (sign | 0x7f80, sign | 0x7f80)
            );
            assert_eq!(f32_to_f16_satfinite(value, round), sign | 0x7bff);
            assert_eq!(f32_to_bf16_satfinite(value, round), sign | 0x7f7f);
        }
    }
}

#[test]
fn every_nan_becomes_canonical() {
    for bits in [0x7f80_0001, 0x7fc0_0000, 0xff80_0001, 0xffff_ffff] {
        let nan = f32::from_bits(bits);
        for round in ROUNDS {
            assert_eq!(f32_to_f16(nan, round), 0x7fff);
            assert_eq!(f32_to_bf16(nan, round), 0x7fff);
            assert_eq!(f32_to_f16_satfinite(nan, round), 0x7fff);
            assert_eq!(f32_to_bf16_satfinite(nan, round), 0x7fff);
            assert_eq!(f32_to_tf32_satfinite(nan, round), 0x7fff_ffff);
            assert_eq!(f64_to_f16(nan.into(), round), 0x7fff);
            assert_eq!(f64_to_bf16(nan.into(), round), 0x7fff);
        }
    }
}
