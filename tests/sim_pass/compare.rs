//! Comparisons with a reference.

/// Half a unit in the last place of 1 in float32.
pub(crate) const U: f64 = 1.0 / (1 << 24) as f64;

/// How far a sum of `terms` rounded products may be from the exact one, as a share of the sum of absolute values (Higham,
/// "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1).
pub(crate) fn gamma(terms: usize) -> f64 {
    let k = terms as f64 * U;
    assert!(k < 1.0);
    k / (1.0 - k)
}

/// The value that used most of its bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Worst {
    pub(crate) index: usize,
    /// 1 is all of the bound.
    pub(crate) share: f64,
}

/// Compares `got` with `expected`, each within its bound. What is no number, on either side, is refused.
pub(crate) fn compare(got: &[f64], expected: &[f64], bounds: &[f64]) -> Result<Worst, String> {
    if got.len() != expected.len() || got.len() != bounds.len() {
        let (a, b, c) = (got.len(), expected.len(), bounds.len());
        return Err(format!("{a} values, {b} expected, {c} bounds"));
    }
    let mut worst = Worst { index: 0, share: 0.0 };
    for (index, ((got, expected), bound)) in got.iter().zip(expected).zip(bounds).enumerate() {
        let difference = if got == expected { 0.0 } else { (got - expected).abs() };
        // False for NaN, and for a bound that is none.
        let within = difference <= *bound && bound.is_finite();
        if !within || got.is_nan() {
            return Err(format!("at {index}: {got}, expected {expected} within {bound:e}"));
        }
        let share = if difference == 0.0 { 0.0 } else { difference / bound };
        if share > worst.share {
            worst = Worst { index, share };
        }
    }
    Ok(worst)
}

/// [`compare`] for float32 results: panics with `what`, prints the worst.
pub(crate) fn within(what: &str, got: &[f32], expected: &[f64], bounds: &[f64]) {
    let got: Vec<f64> = got.iter().map(|value| f64::from(*value)).collect();
    report(what, compare(&got, expected, bounds));
}

pub(crate) fn report(what: &str, result: Result<Worst, String>) {
    match result {
        Ok(Worst { index, share }) => println!("{what}: {:.1}% of the bound at {index}", 100.0 * share),
        Err(message) => panic!("{what}: {message}"),
    }
}

/// The distance between neighbours of float32 around a value.
pub(crate) fn ulp32(value: f64) -> f64 {
    let exponent = value.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
    2f64.powf(exponent - 23.0)
}

/// The same of float64.
pub(crate) fn ulp64(value: f64) -> f64 {
    let value = value.abs().max(f64::MIN_POSITIVE);
    value.next_up() - value
}

/// Equal, element by element; the first difference is named.
pub(crate) fn exactly<T: PartialEq + std::fmt::Debug>(what: &str, got: &[T], expected: &[T]) {
    assert_eq!(got.len(), expected.len(), "{what}: values");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(got == expected, "{what} at {index}: {got:?}, expected {expected:?}");
    }
}

/// Equal bit for bit.
pub(crate) fn bits(what: &str, got: &[f32], expected: &[f32]) {
    let pattern = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    exactly(what, &pattern(got), &pattern(expected));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_and_infinity_are_refused_on_either_side() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(compare(&[bad], &[1.0], &[1e9]).is_err(), "{bad}");
            assert!(compare(&[1.0], &[bad], &[1e9]).is_err(), "{bad}");
            assert!(compare(&[1.0], &[1.0], &[bad]).is_err(), "{bad}");
        }
        assert!(compare(&[f64::NAN], &[f64::NAN], &[1.0]).is_err());
        assert!(compare(&[f64::INFINITY], &[f64::NEG_INFINITY], &[1.0]).is_err());
        assert_eq!(compare(&[f64::INFINITY], &[f64::INFINITY], &[1.0]).unwrap().share, 0.0);
    }

    #[test]
    fn the_worst_is_by_share_of_the_bound_and_not_by_difference() {
        let worst = compare(&[1.0, 2.5, 3.1], &[1.0, 2.0, 3.0], &[1.0, 1.0, 0.125]).unwrap();
        assert_eq!(worst.index, 2);
        assert!((worst.share - 0.8).abs() < 1e-9, "{worst:?}");
    }

    #[test]
    fn what_is_just_outside_its_bound_or_missing_is_refused() {
        assert!(compare(&[1.0], &[2.0], &[1.0]).is_ok());
        assert!(compare(&[1.0], &[2.0], &[1.0f64.next_down()]).is_err());
        assert!(compare(&[1.0], &[1.0, 2.0], &[1.0, 1.0]).is_err());
        assert!(compare(&[0.0], &[f64::MIN_POSITIVE], &[0.0]).is_err());
    }

    #[test]
    #[should_panic(expected = "at 1")]
    fn signed_zeros_are_different_bits() {
        bits("zero", &[1.0, 0.0], &[1.0, -0.0]);
    }

    #[test]
    fn units_in_the_last_place_are_those_of_the_format() {
        assert_eq!(ulp32(1.0), f64::from(f32::EPSILON));
        assert_eq!(ulp32(0.75), f64::from(f32::EPSILON) / 2.0);
        assert_eq!(ulp32(0.0), f64::from(f32::from_bits(1)));
        assert_eq!(ulp64(1.5), f64::EPSILON);
    }
}
