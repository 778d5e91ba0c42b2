//! Element by element, each with a bound of its own: for single operations, whose error has a derivation.

/// Unit roundoff of float32.
const U: f64 = 1.0 / (1u64 << 24) as f64;

/// `k u / (1 - k u)` with u = 2^-24: a sum of k float32 products, in any order, is off by at most this share of
/// the sum of their absolute values.
///
/// Source: Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1.
pub fn gamma(k: usize) -> f64 {
    let ku = k as f64 * U;
    ku / (1.0 - ku)
}

/// The element that uses the largest share of its bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worst {
    /// Where it is.
    pub index: usize,
    /// Difference over bound.
    pub share: f64,
}

/// Why two slices do not agree.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// They are not as long as each other.
    #[error("expected {expected} values, found {found}")]
    Length {
        /// Of the reference.
        expected: usize,
        /// Of what was compared with it, or of its bounds.
        found: usize,
    },
    /// An element is off by more than its bound, or not finite.
    #[error(
        "index {index}: expected {expected} within {bound:e}, found {found} ({over} of {len} values are off)"
    )]
    Value {
        /// The element that is off the most.
        index: usize,
        /// The reference.
        expected: f64,
        /// What was found.
        found: f64,
        /// How far it may be off.
        bound: f64,
        /// How many elements are off by more than their bounds.
        over: usize,
        /// How many elements there are.
        len: usize,
    },
}

/// Compares `got` with `reference`, element by element, each within its own bound.
///
/// # Errors
/// [`Mismatch`]; an element that is not finite, or whose bound is not, is a mismatch.
pub fn close(got: &[f32], reference: &[f64], bounds: &[f64]) -> Result<Worst, Mismatch> {
    let expected = reference.len();
    if let Some(found) = [got.len(), bounds.len()].into_iter().find(|&len| len != expected) {
        return Err(Mismatch::Length { expected, found });
    }
    let (mut worst, mut over) = (Worst { index: 0, share: 0.0 }, 0);
    for (index, ((&got, &reference), &bound)) in got.iter().zip(reference).zip(bounds).enumerate() {
        let difference = (f64::from(got) - reference).abs();
        let within = bound.is_finite() && difference <= bound;
        over += usize::from(!within);
        let share = match (within, difference == 0.0) {
            (true, true) => 0.0,
            (true, false) => difference / bound,
            (false, _) if difference.is_finite() && bound > 0.0 => difference / bound,
            (false, _) => f64::INFINITY,
        };
        if share > worst.share {
            worst = Worst { index, share };
        }
    }
    if over == 0 {
        return Ok(worst);
    }
    let index = worst.index;
    Err(Mismatch::Value {
        index,
        expected: reference[index],
        found: f64::from(got[index]),
        bound: bounds[index],
        over,
        len: expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_is_highams() {
        assert_eq!(gamma(0), 0.0);
        assert!((gamma(1) / U - 1.0).abs() < 1e-7 && gamma(784) > 784.0 * U);
    }

    #[test]
    fn the_worst_share_is_found() {
        let worst = close(&[1.0, 2.0, 3.0], &[1.0, 2.25, 3.125], &[0.0, 0.5, 1.0]).unwrap();
        assert_eq!(worst, Worst { index: 1, share: 0.5 });
        assert_eq!(close(&[1.0], &[1.5], &[0.5]).unwrap().share, 1.0);
    }

    #[test]
    fn over_the_bound_by_one_step_fails() {
        let found = close(&[1.0, 1.0], &[1.0, 1.5_f64.next_up()], &[0.5, 0.5]);
        assert!(matches!(found, Err(Mismatch::Value { index: 1, over: 1, .. })), "{found:?}");
        assert!(close(&[1e-45], &[0.0], &[0.0]).is_err());
    }

    #[test]
    fn what_is_not_finite_never_passes() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(close(&[0.0, bad], &[0.0, 0.0], &[1.0, 1.0]).is_err());
            assert!(close(&[0.0, bad], &[0.0, f64::from(bad)], &[1.0, f64::INFINITY]).is_err());
        }
        assert!(close(&[0.0], &[f64::NAN], &[1.0]).is_err());
        assert!(close(&[0.0], &[0.0], &[f64::NAN]).is_err());
        assert!(close(&[0.0], &[0.0], &[f64::INFINITY]).is_err());
    }

    #[test]
    fn lengths_must_agree() {
        assert_eq!(close(&[0.0], &[], &[]), Err(Mismatch::Length { expected: 0, found: 1 }));
        assert_eq!(close(&[], &[], &[1.0]), Err(Mismatch::Length { expected: 0, found: 1 }));
        assert!(close(&[], &[], &[]).is_ok());
    }
}
