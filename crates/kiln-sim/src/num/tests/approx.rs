//! Approximate functions: the ISA's tables and bounds, against formulas other than those that compute them.

use super::*;
use crate::num::approx::*;
use crate::num::convert::{bf16_to_f32, f16_to_f32};
use crate::num::half::{ex2_bf16, ex2_f16, tanh_bf16, tanh_f16};

const INF: f32 = f32::INFINITY;

/// The distance of neighbouring f32 at a value.
fn ulp(value: f64) -> f64 {
    let single = (value.abs() as f32).min(f32::MAX.next_down());
    f64::from(single.next_up()) - f64::from(single)
}

fn samples(seed: u64, count: usize) -> impl Iterator<Item = f32> {
    let mut rng = random(seed);
    std::iter::repeat_with(move || any_f32(&mut rng)).filter(|value| value.is_finite()).take(count)
}

fn uniform(seed: u64, count: u32, from: f64, to: f64) -> impl Iterator<Item = f32> {
    let mut rng = random(seed);
    (0..count).map(move |_| (from + (to - from) * (f64::from(rng.next_u32()) / 4294967296.0)) as f32)
}

fn same(result: f32, expected: f32, what: &str) {
    let expected = if expected.is_nan() { 0x7fff_ffff } else { expected.to_bits() };
    assert_eq!(result.to_bits(), expected, "{what}: {result:e}");
}

#[test]
fn special_values_are_those_of_the_tables() {
    type Function = fn(f32, bool) -> f32;
    // -Inf, -normal, -0.0, +0.0, +Inf, NaN.
    let inputs = [-INF, -2.0, -0.0, 0.0, INF, f32::NAN];
    let nan = f32::NAN;
    let tables: [(Function, [f32; 6]); 7] = [
        (rcp, [-0.0, -0.5, -INF, INF, 0.0, nan]),
        (sqrt, [nan, nan, -0.0, 0.0, INF, nan]),
        (rsqrt, [nan, nan, -INF, INF, 0.0, nan]),
        (ex2, [0.0, 0.25, 1.0, 1.0, INF, nan]),
        (lg2, [nan, nan, -INF, -INF, INF, nan]),
        (|a, flush| if a == -2.0 { 0.0 } else { sin(a, flush) }, [nan, 0.0, -0.0, 0.0, nan, nan]),
        (|a, flush| if a == -2.0 { 0.0 } else { cos(a, flush) }, [nan, 0.0, 1.0, 1.0, nan, nan]),
    ];
    for (index, (function, expected)) in tables.into_iter().enumerate() {
        for (input, expected) in inputs.into_iter().zip(expected) {
            for flush in [false, true] {
                same(function(input, flush), expected, &format!("table {index} of {input}"));
            }
        }
    }
    for (input, expected) in [(-INF, -1.0), (-0.0, -0.0), (0.0, 0.0), (INF, 1.0), (nan, nan), (1e-40, 1e-40)]
    {
        same(tanh(input), expected, &format!("tanh of {input}"));
    }
}

#[test]
fn ftz_flushes_inputs_and_results() {
    let tiny = f32::from_bits(5);
    let (big, minus_big) = (f32::MAX, f32::MIN);
    let cases = [
        (rcp(tiny, true), INF, "rcp"),
        (rcp(-tiny, true), -INF, "rcp"),
        (rcp(big, true), 0.0, "rcp of a large value"),
        (rcp(minus_big, true), -0.0, "rcp of a large value"),
        (sqrt(-tiny, true), -0.0, "sqrt"),
        (rsqrt(-tiny, true), -INF, "rsqrt"),
        (ex2(-130.0, true), 0.0, "ex2"),
        (ex2(-130.0, false), 2f32.powi(-130), "ex2"),
        (lg2(tiny, true), -INF, "lg2"),
        (lg2(f32::from_bits(1), false), -149.0, "lg2"),
        (sin(-tiny, true), -0.0, "sin"),
        (sin(-tiny, false), -tiny, "sin"),
        (div(tiny, 1.0, true), 0.0, "div"),
        (div(1.0, -tiny, true), -INF, "div"),
        (div_full(-1e-30, 1e20, true), -0.0, "div.full"),
        (div_full(f32::from_bits(8), 2.0, false), f32::from_bits(4), "div.full"),
    ];
    for (result, expected, what) in cases {
        same(result, expected, what);
    }
}

#[test]
fn reciprocals_and_roots_within_their_bounds() {
    for a in samples(70, 100_000).filter(|a| *a != 0.0) {
        let (x, r) = (f64::from(a), f64::from(rcp(a, false)));
        if r.is_infinite() {
            assert!(x.abs() < 2f64.powi(-128), "rcp of {a:e}");
        } else {
            // |r - 1 / x| <= ulp, times |x|.
            assert!((r * x - 1.0).abs() <= ulp(1.0 / x) * x.abs(), "rcp of {a:e}");
        }
        let x = x.abs();
        let root = f64::from(sqrt(a.abs(), false));
        // (1 + e)^2 = 1 + 2 e, but for e^2.
        assert!((root * root / x - 1.0).abs() <= 2.0 * 2f64.powi(-23) * 1.0001, "sqrt of {a:e}");
        let inverse = f64::from(rsqrt(a.abs(), false));
        assert!((inverse * inverse * x - 1.0).abs() <= 2.0 * 2f64.powf(-22.9) * 1.0001, "rsqrt of {a:e}");
        assert!((rsqrt_f64(x) * x.sqrt() - 1.0).abs() <= 2f64.powi(-51));
    }
}

#[test]
fn quotients_within_two_ulp() {
    for (a, b) in samples(71, 100_000).zip(samples(72, 100_000)).filter(|(_, b)| *b != 0.0) {
        let (x, y) = (f64::from(a), f64::from(b));
        for (result, exact) in [(div(a, b, false), y.abs() <= 2f64.powi(126)), (div_full(a, b, false), true)]
        {
            if !exact {
                same(result, if (a < 0.0) == (b < 0.0) { 0.0 } else { -0.0 }, "a divisor beyond 2^126");
            } else if result.is_infinite() {
                assert!((x / y).abs() >= f64::from(f32::MAX) - ulp(f64::from(f32::MAX)), "{a:e} / {b:e}");
            } else {
                assert!((f64::from(result) - x / y).abs() <= 2.0 * ulp(x / y), "{a:e} / {b:e}");
            }
        }
    }
    let large = 2f32.powi(126);
    same(div(INF, large, false), INF, "at 2^126");
    same(div(INF, large.next_up(), false), f32::NAN, "beyond 2^126");
    same(div(-1.0, large.next_up(), false), -0.0, "beyond 2^126");
    same(div(f32::NAN, large.next_up(), false), f32::NAN, "NaN");
    same(div(3.0, -INF, false), -0.0, "by infinity");
    same(div(0.0, -0.0, false), f32::NAN, "0 / 0");
}

#[test]
fn powers_and_logarithms_within_their_bounds() {
    for a in uniform(73, 100_000, -160.0, 130.0) {
        let exact = (f64::from(a) * std::f64::consts::LN_2).exp();
        let result = f64::from(ex2(a, false));
        if exact > f64::from(f32::MAX) {
            assert!(result >= f64::from(f32::MAX), "ex2 of {a}");
        } else {
            assert!((result - exact).abs() <= 2.0 * ulp(exact), "ex2 of {a}");
        }
    }
    let bound = 2f64.powi(-22);
    for a in samples(74, 50_000).map(f32::abs).chain(uniform(75, 50_000, 0.5, 2.0)).filter(|a| *a > 0.0) {
        let exact = f64::from(a).ln() / std::f64::consts::LN_2;
        let error = (f64::from(lg2(a, false)) - exact).abs();
        assert!(error <= if a > 0.5 && a < 2.0 { bound } else { bound * exact.abs() }, "lg2 of {a:e}");
    }
}

#[test]
fn trigonometric_functions_within_their_bounds() {
    let pi = std::f64::consts::PI;
    for (bound, range) in [(2f64.powf(-20.5), 2.0 * pi), (2f64.powf(-14.7), 100.0 * pi)] {
        for a in uniform(76, 50_000, -range, range) {
            // By the half angle, whose functions differ from those computed.
            let half = f64::from(a) / 2.0;
            let (s, c) = half.sin_cos();
            assert!((f64::from(sin(a, false)) - 2.0 * s * c).abs() <= bound, "sin {a}");
            assert!((f64::from(cos(a, false)) - (c * c - s * s)).abs() <= bound, "cos {a}");
        }
    }
    for a in samples(77, 50_000).filter(|a| *a != 0.0) {
        let x = f64::from(a);
        // sinh / cosh through expm1, stable for small and large arguments.
        let e = (-2.0 * x.abs()).exp_m1();
        let exact = (-e / (2.0 + e)).copysign(x);
        assert!((f64::from(tanh(a)) - exact).abs() <= 2f64.powi(-11) * exact.abs(), "tanh {a:e}");
    }
}

#[test]
fn gross_approximations_of_f64_use_the_upper_words() {
    for value in samples(78, 50_000) {
        let wide = f64::from(value) * 1.000_000_1;
        let noisy = f64::from_bits(wide.to_bits() | 0xffff_ffff);
        let r = rcp_approx_ftz_f64(wide);
        assert_eq!(r.to_bits() as u32, 0);
        assert_eq!(r.to_bits(), rcp_approx_ftz_f64(noisy).to_bits(), "the low word counts");
        let x = f64::from_bits(wide.to_bits() >> 32 << 32);
        if x != 0.0 {
            assert!((r * x - 1.0).abs() <= 2f64.powi(-21) * 1.0001, "{x:e}");
            let s = rsqrt_approx_ftz_f64(x.abs());
            assert!(
                s.to_bits() as u32 == 0 && (s * s * x.abs() - 1.0).abs() <= 2f64.powi(-20) * 1.0001,
                "{x:e}"
            );
        }
    }
    let nan = 0x7fff_ffff_0000_0000;
    let cases = [
        (f64::NEG_INFINITY, -0.0, f64::NAN),
        (-1e-310, f64::NEG_INFINITY, f64::NEG_INFINITY),
        (-0.0, f64::NEG_INFINITY, f64::NEG_INFINITY),
        (0.0, f64::INFINITY, f64::INFINITY),
        (1e-310, f64::INFINITY, f64::INFINITY),
        (f64::INFINITY, 0.0, 0.0),
        (f64::NAN, f64::NAN, f64::NAN),
    ];
    let bits = |value: f64| if value.is_nan() { nan } else { value.to_bits() };
    for (input, reciprocal, root) in cases {
        assert_eq!(rcp_approx_ftz_f64(input).to_bits(), bits(reciprocal), "rcp of {input:e}");
        assert_eq!(rsqrt_approx_ftz_f64(input).to_bits(), bits(root), "rsqrt of {input:e}");
    }
    assert_eq!(rcp_approx_ftz_f64(f64::MAX).to_bits(), 0, "a subnormal result is flushed");
    assert_eq!(rcp_approx_ftz_f64(-f64::MAX).to_bits(), 1 << 63, "a subnormal result is flushed");
}

#[test]
fn half_precision_functions_within_their_bounds() {
    for bits in 0..=u16::MAX {
        let (a, result) = (f64::from(f16_to_f32(bits)), f64::from(f16_to_f32(ex2_f16(bits))));
        let exact = (a * std::f64::consts::LN_2).exp();
        if a.is_nan() {
            assert_eq!((ex2_f16(bits), tanh_f16(bits)), (0x7fff, 0x7fff));
            continue;
        }
        // Subnormal results have no relative precision; their last bit is 2^-24.
        let bound = (exact * 2f64.powf(-9.9)).max(2f64.powi(-25) * 1.0001);
        let overflow = exact >= 65520.0 && result == f64::INFINITY;
        assert!(overflow || (result - exact).abs() <= bound, "ex2 of {a}");
        let tanh = f64::from(f16_to_f32(tanh_f16(bits)));
        assert!((tanh - a.tanh()).abs() <= 2f64.powf(-10.987), "tanh of {a}");
    }
    for bits in 0..=u16::MAX {
        let (a, result) = (f64::from(bf16_to_f32(bits)), f64::from(bf16_to_f32(ex2_bf16(bits))));
        let exact = (a * std::f64::consts::LN_2).exp();
        if a.is_nan() {
            assert_eq!((ex2_bf16(bits), tanh_bf16(bits)), (0x7fff, 0x7fff));
            continue;
        }
        let bound = (exact * 2f64.powi(-7)).max(2f64.powi(-134) * 1.0001);
        let overflow = exact >= 2f64.powi(127) && result == f64::INFINITY;
        assert!(overflow || (result - exact).abs() <= bound, "ex2 of {a}");
        let tanh = f64::from(bf16_to_f32(tanh_bf16(bits)));
        assert!((tanh - a.tanh()).abs() <= 2f64.powi(-8), "tanh of {a}");
    }
    for (input, ex2, tanh) in [(0x8000, 0x3c00, 0x8000), (0xfc00, 0, 0xbc00), (0x7c00, 0x7c00, 0x3c00)] {
        assert_eq!((ex2_f16(input), tanh_f16(input)), (ex2, tanh));
    }
    for (input, ex2, tanh) in [(0x8000, 0x3f80, 0x8000), (0xff80, 0, 0xbf80), (0x7f80, 0x7f80, 0x3f80)] {
        assert_eq!((ex2_bf16(input), tanh_bf16(input)), (ex2, tanh));
    }
}
