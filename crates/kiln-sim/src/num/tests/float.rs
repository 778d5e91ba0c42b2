//! Flushing, saturation, extrema, tests of kinds.

use super::*;
use crate::num::float::*;

#[test]
fn ftz_flushes_subnormals_only() {
    for value in special_f32() {
        let expected = if value.is_subnormal() { value.to_bits() & 0x8000_0000 } else { value.to_bits() };
        assert_eq!(ftz(value).to_bits(), expected, "{value:e}");
    }
}

#[test]
fn sat_clamps_and_drops_nan() {
    for value in special_f32() {
        let expected = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) + 0.0 };
        assert_eq!(sat_f32(value).to_bits(), expected.to_bits(), "{value:e}");
        let expected = f64::from(expected);
        assert_eq!(sat_f64(value.into()).to_bits(), expected.to_bits(), "{value:e}");
    }
}

/// The extremum as the ISA prints it.
fn extremum(a: f32, b: f32, nan: bool, xorsign: bool, max: bool) -> f32 {
    let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
    let (a, b) = if xorsign { (a.abs(), b.abs()) } else { (a, b) };
    let canonical = f32::from_bits(0x7fff_ffff);
    let result = match (a.is_nan(), b.is_nan()) {
        (true, true) => return canonical,
        (true, false) | (false, true) if nan => return canonical,
        (true, false) => b,
        (false, true) => a,
        // The total order puts -0.0 below +0.0.
        _ if (a.total_cmp(&b) == Ordering::Greater) == max => a,
        _ => b,
    };
    if xorsign { f32::from_bits(result.to_bits() & 0x7fff_ffff | sign) } else { result }
}

#[test]
fn extrema_of_all_pairs_of_special_values() {
    for a in special_f32() {
        for b in special_f32() {
            for (nan, xorsign) in [(false, false), (false, true), (true, false), (true, true)] {
                let (min, max) = (min_f32(a, b, nan, xorsign), max_f32(a, b, nan, xorsign));
                let expected = extremum(a, b, nan, xorsign, false);
                assert_eq!(min.to_bits(), expected.to_bits(), "min {a:e} {b:e} {nan} {xorsign}");
                let expected = extremum(a, b, nan, xorsign, true);
                assert_eq!(max.to_bits(), expected.to_bits(), "max {a:e} {b:e} {nan} {xorsign}");
            }
            for max in [false, true] {
                let result = if max { max_f64(a.into(), b.into()) } else { min_f64(a.into(), b.into()) };
                let expected = extremum(a, b, false, false, max);
                if expected.is_nan() {
                    assert_eq!(result.to_bits(), 0x7ff8_0000_0000_0000);
                } else {
                    assert_eq!(result.to_bits(), f64::from(expected).to_bits(), "{a:e} {b:e}");
                }
            }
        }
    }
}

#[test]
fn copysign_takes_the_sign_of_the_first_operand() {
    assert_eq!(copysign_f32(-1.0, 2.0), -2.0);
    assert_eq!(copysign_f32(0.0, -2.0), 2.0);
    assert_eq!(copysign_f64(-0.0, 3.0), -3.0);
}

#[test]
fn testp_takes_zero_for_normal() {
    use TestKind::*;
    let kinds = [Finite, Infinite, Number, NotANumber, Normal, Subnormal];
    let cases = [
        (0.0, [true, false, true, false, true, false]),
        (-1.5, [true, false, true, false, true, false]),
        (1e-40, [true, false, true, false, false, true]),
        (f32::NEG_INFINITY, [false, true, true, false, false, false]),
        (f32::NAN, [false, false, false, true, false, false]),
    ];
    for (value, expected) in cases {
        assert_eq!(kinds.map(|kind| testp_f32(kind, value)), expected, "{value}");
        // 1e-40 is a normal f64.
        let wide = if value.is_subnormal() { 1e-310 } else { f64::from(value) };
        assert_eq!(kinds.map(|kind| testp_f64(kind, wide)), expected, "{wide}");
    }
}

#[test]
fn the_vector_fma_rounds_once() {
    // 1 + 2^-24 as a sum would tie, and lose the product's last bit.
    let (a, c) = (f32::from_bits(0x3f80_0001), -1.0);
    assert_eq!(fma_rn_f32(a, a, c), 2f32.powi(-22) + 2f32.powi(-46));
}
