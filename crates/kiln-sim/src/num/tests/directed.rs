//! Directed roundings of arithmetic.

use super::*;
use crate::num::exact::{Exact, F32, F64};
use crate::num::float::*;

/// A real number as an unevaluated sum, the second far below the first's last bit.
type Sum = (f64, f64);

/// The exact sum of two values (Knuth).
fn two_sum(a: f64, b: f64) -> Sum {
    let sum = a + b;
    let other = sum - a;
    (sum, (a - (sum - other)) + (b - other))
}

/// How an f64 lies to a sum.
fn compare(value: f64, sum: Sum) -> Ordering {
    value.partial_cmp(&sum.0).expect("numbers").then_with(|| 0.0f64.partial_cmp(&sum.1).expect("numbers"))
}

/// Checks a directed result of f32 by `order`, which says how an f32 lies to the exact value. The nearest one is known.
fn check_f32(result: f32, round: Round, nearest: f32, order: impl Fn(f32) -> Ordering, what: &str) {
    let below = if order(nearest) == Ordering::Greater { nearest.next_down() } else { nearest };
    let above = if order(nearest) == Ordering::Less { nearest.next_up() } else { nearest };
    let positive = order(0.0) == Ordering::Less;
    let expected = match round {
        Round::Nearest => nearest,
        Round::Down => below,
        Round::Up => above,
        _ => {
            if positive {
                below
            } else {
                above
            }
        }
    };
    // `==` takes the zeros for equal: their signs are another test's.
    assert_eq!(result, expected, "{what} {round:?}");
    if expected == 0.0 && order(0.0) != Ordering::Equal {
        assert_eq!(result.is_sign_positive(), positive, "sign of {what} {round:?}");
    }
}

/// Operands of which sums cancel, results are subnormal or overflow, and roundings tie.
fn operands(seed: u64, count: usize) -> Vec<[f32; 3]> {
    let mut rng = random(seed);
    let specials: Vec<f32> = special_f32().into_iter().filter(|value| value.is_finite()).collect();
    let mut pick = |like: f32| match rng.next_u32() % 8 {
        0 => specials[rng.next_u32() as usize % specials.len()],
        // Near the other operand in exponent, or in all but the last bits.
        1 | 2 => -f32::from_bits(like.to_bits() & 0xff80_0000 | rng.next_u32() >> 9),
        3 => f32::from_bits((like.to_bits() ^ 0x8000_0000).wrapping_add(rng.next_u32() % 5)),
        // Few bits.
        4 => (rng.next_u32() % 64) as f32 * 2f32.powi(rng.next_u32() as i32 % 60),
        _ => any_f32(&mut rng),
    };
    std::iter::repeat_with(|| {
        let a = pick(1.0);
        let b = pick(a);
        [a, b, pick(-a * b)]
    })
    .filter(|all| all.iter().all(|value| value.is_finite()))
    .take(count)
    .collect()
}

#[test]
fn f32_sums_and_products() {
    for [a, b, c] in operands(20, 150_000) {
        let (x, y, z) = (f64::from(a), f64::from(b), f64::from(c));
        // A product of two f32 is exact in f64.
        let (sum, difference, product, fma) =
            (two_sum(x, y), two_sum(x, -y), (x * y, 0.0), two_sum(x * y, z));
        for round in IEEE {
            let order = |sum| move |value| compare(f64::from(value), sum);
            check_f32(add_f32(a, b, round), round, a + b, order(sum), &format!("{a:e} + {b:e}"));
            check_f32(sub_f32(a, b, round), round, a - b, order(difference), &format!("{a:e} - {b:e}"));
            check_f32(mul_f32(a, b, round), round, a * b, order(product), &format!("{a:e} * {b:e}"));
            let what = format!("{a:e} * {b:e} + {c:e}");
            check_f32(fma_f32(a, b, c, round), round, a.mul_add(b, c), order(fma), &what);
        }
    }
}

#[test]
fn f32_quotients_and_roots() {
    for [a, b, _] in operands(21, 150_000).into_iter().filter(|all| all[1] != 0.0) {
        // r < a / b where r b < a, or > for negative b; r b is exact in f64.
        let quotient = |r: f32| {
            let order = (f64::from(r) * f64::from(b)).partial_cmp(&f64::from(a)).expect("numbers");
            if b < 0.0 { order.reverse() } else { order }
        };
        let root = |r: f32| match r {
            ..0.0 => Ordering::Less,
            _ => (f64::from(r) * f64::from(r)).partial_cmp(&f64::from(a.abs())).expect("numbers"),
        };
        let reciprocal = |r: f32| {
            let order = (f64::from(r) * f64::from(b)).partial_cmp(&1.0).expect("numbers");
            if b < 0.0 { order.reverse() } else { order }
        };
        for round in IEEE {
            check_f32(div_f32(a, b, round), round, a / b, quotient, &format!("{a:e} / {b:e}"));
            check_f32(rcp_f32(b, round), round, 1.0 / b, reciprocal, &format!("1 / {b:e}"));
            check_f32(sqrt_f32(a.abs(), round), round, a.abs().sqrt(), root, &format!("sqrt {a:e}"));
        }
    }
}

#[test]
fn exact_values_rounded_to_nearest_are_the_hosts_results() {
    let mut rng = random(22);
    let specials: Vec<f64> = special_f64().into_iter().filter(|value| value.is_finite()).collect();
    let pairs = specials.iter().flat_map(|&a| specials.iter().map(move |&b| (a, b)));
    let random = std::iter::repeat_with(|| {
        let a = any_f64(&mut rng);
        let near = f64::from_bits(a.to_bits() ^ (1 << 63) ^ rng.next_u64() >> (rng.next_u32() % 64));
        (a, if rng.next_u32().is_multiple_of(2) { near } else { any_f64(&mut rng) })
    });
    let mut other = super::random(122);
    for (a, b) in pairs.chain(random.take(300_000)).filter(|(a, b)| a.is_finite() && b.is_finite()) {
        let (x, y) = (Exact::from(a), Exact::from(b));
        let bits = |exact: Exact| exact.round(&F64, Round::Nearest);
        assert_eq!(bits(x.plus(y, Round::Nearest)), (a + b).to_bits(), "{a:e} + {b:e}");
        assert_eq!(bits(x.times(y)), (a * b).to_bits(), "{a:e} * {b:e}");
        if b != 0.0 {
            assert_eq!(bits(x.over(y)), (a / b).to_bits(), "{a:e} / {b:e}");
        }
        assert_eq!(bits(Exact::from(a.abs()).sqrt()), a.abs().sqrt().to_bits(), "sqrt {a:e}");
        // A third operand that meets the product's bits, or its rounding.
        let c = -(a * b) * if other.next_u32().is_multiple_of(2) { 1.0 } else { 2f64.powi(-54) };
        for c in [c, any_f64(&mut other), f64::from_bits(1)].into_iter().filter(|c| c.is_finite()) {
            let fma = x.times(y).plus(Exact::from(c), Round::Nearest);
            assert_eq!(bits(fma), a.mul_add(b, c).to_bits(), "{a:e} * {b:e} + {c:e}");
        }
        assert_eq!(Exact::from(a).round(&F32, Round::Nearest) as u32, (a as f32).to_bits(), "{a:e} to f32");
    }
}

/// The f64 below and above a value of which the nearest one and the sign of `value - nearest` are known.
fn check_f64(operation: impl Fn(Round) -> f64, nearest: f64, rest: f64, what: &str) {
    let below = if rest < 0.0 { nearest.next_down() } else { nearest };
    let above = if rest > 0.0 { nearest.next_up() } else { nearest };
    let zero = if nearest > 0.0 { below } else { above };
    let results = [Round::Nearest, Round::Down, Round::Up, Round::Zero].map(operation);
    assert_eq!(results, [nearest, below, above, zero], "{what}");
}

#[test]
fn f64_directed_results_follow_the_sign_of_the_rest() {
    let mut rng = random(23);
    // Exponents at which no rest underflows.
    let mut value = || {
        let exponent = 700 + u64::from(rng.next_u32() % 600);
        f64::from_bits(rng.next_u64() & 0x800f_ffff_ffff_ffff | exponent << 52)
    };
    for _ in 0..100_000 {
        let (a, b) = (value(), value());
        let near = f64::from_bits(a.to_bits() ^ (1 << 63) ^ b.to_bits() & 0xfff);
        for b in [b, near] {
            let (sum, rest) = two_sum(a, b);
            check_f64(|round| add_f64(a, b, round), sum, rest, "sum");
            check_f64(|round| sub_f64(a, -b, round), sum, rest, "difference");
            let product = a * b;
            check_f64(|round| mul_f64(a, b, round), product, a.mul_add(b, -product), "product");
            let quotient = a / b;
            check_f64(
                |round| div_f64(a, b, round),
                quotient,
                (-quotient).mul_add(b, a) * b.signum(),
                "quotient",
            );
            let inverse = 1.0 / b;
            check_f64(
                |round| rcp_f64(b, round),
                inverse,
                (-inverse).mul_add(b, 1.0) * b.signum(),
                "reciprocal",
            );
            let root = a.abs().sqrt();
            check_f64(|round| sqrt_f64(a.abs(), round), root, (-root).mul_add(root, a.abs()), "root");
        }
    }
}

#[test]
fn f64_fma_of_integers_rounds_their_exact_sum() {
    let mut rng = random(24);
    for _ in 0..100_000 {
        let (a, b) = ((rng.next_u64() >> 11) as i64, -((rng.next_u64() >> 11) as i64));
        let shift = rng.next_u32() % 60;
        let c = i128::from(rng.next_u64() >> 11) << shift;
        let exact = i128::from(a) * i128::from(b) + c;
        let nearest = exact as f64;
        let rest = (exact - nearest as i128) as f64;
        check_f64(|round| fma_f64(a as f64, b as f64, c as f64, round), nearest, rest, "fma");
    }
}

#[test]
fn zeros_and_infinities_follow_ieee_754() {
    for round in IEEE {
        let zero = if round == Round::Down { -0.0f32 } else { 0.0 };
        let same = |result: f32, expected: f32| assert_eq!(result.to_bits(), expected.to_bits(), "{round:?}");
        same(add_f32(1.5, -1.5, round), zero);
        same(sub_f32(0.0, 0.0, round), zero);
        same(fma_f32(2.0, 3.0, -6.0, round), zero);
        same(fma_f32(-0.0, 3.0, 0.0, round), zero);
        same(add_f32(-0.0, -0.0, round), -0.0);
        same(fma_f32(0.0, -1.0, -0.0, round), -0.0);
        same(mul_f32(-0.0, 5.0, round), -0.0);
        same(div_f32(0.0, -5.0, round), -0.0);
        same(div_f32(-1.0, 0.0, round), f32::NEG_INFINITY);
        same(rcp_f32(-0.0, round), f32::NEG_INFINITY);
        same(rcp_f32(f32::NEG_INFINITY, round), -0.0);
        same(sqrt_f32(-0.0, round), -0.0);
        same(add_f32(f32::INFINITY, f32::MIN, round), f32::INFINITY);
        same(fma_f32(f32::MAX, f32::MAX, f32::NEG_INFINITY, round), f32::NEG_INFINITY);
        for nan in [
            add_f32(f32::INFINITY, f32::NEG_INFINITY, round),
            mul_f32(0.0, f32::INFINITY, round),
            div_f32(0.0, -0.0, round),
            div_f32(f32::INFINITY, f32::INFINITY, round),
            fma_f32(f32::INFINITY, 0.0, 1.0, round),
            sqrt_f32(-1.0, round),
            sqrt_f32(-f32::NAN, round),
            add_f32(f32::from_bits(0xff80_0001), 1.0, round),
        ] {
            assert_eq!(nan.to_bits(), 0x7fff_ffff, "{round:?}");
        }
        assert_eq!(add_f64(f64::INFINITY, f64::NEG_INFINITY, round).to_bits(), 0x7ff8_0000_0000_0000);
        assert_eq!(sqrt_f64(-1.0, round).to_bits(), 0x7ff8_0000_0000_0000);
        assert_eq!(sub_f64(3.0, 3.0, round).to_bits(), f64::from(zero).to_bits());
    }
}
