//! Loss, hits and the gradient at the outputs, row by row, in one pass.

use super::gather::Rows;
use crate::{Loss, Samples, Targets};

/// What a batch came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct BatchLoss {
    /// Sum over the rows; the mean squared error's factor of a half is in it, the mean over the batch is not.
    pub(crate) sum: f64,
    /// Rows whose largest output is their label's; the first of equals counts as the largest.
    pub(crate) hits: usize,
}

/// Turns the outputs `z` (B, C) of the samples `rows` into the gradient of the mean loss, in place.
pub(crate) fn loss_and_gradient(
    loss: Loss,
    samples: &Samples<'_>,
    rows: &(impl Rows + ?Sized),
    z: &mut [f32],
) -> BatchLoss {
    let per_row = 1.0 / rows.count() as f32;
    let classes = z.len() / rows.count();
    let mut total = BatchLoss::default();
    for (at, z) in z.chunks_exact_mut(classes).enumerate() {
        let row = rows.sample(at);
        match (samples.targets(), loss) {
            (Targets::Labels(labels), Loss::CrossEntropy) => {
                let label = usize::from(labels[row]);
                total.hits += usize::from(is_largest(z, label));
                total.sum += cross_entropy_row(z, label, per_row);
            }
            (Targets::Labels(labels), Loss::MeanSquaredError) => {
                let label = usize::from(labels[row]);
                total.hits += usize::from(is_largest(z, label));
                total.sum += squared_error_row(z, |c| f32::from(c == label), per_row);
            }
            (Targets::Values(values), _) => {
                let target = &values[row * classes..(row + 1) * classes];
                total.sum += squared_error_row(z, |c| target[c], per_row);
            }
        }
    }
    total
}

/// `logsumexp(z) - z[label]`, shifted by the largest so that no exponential overflows; z becomes
/// `(softmax(z) - onehot) * per_row`.
fn cross_entropy_row(z: &mut [f32], label: usize, per_row: f32) -> f64 {
    let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let of_label = z[label] - max;
    let mut sum = 0.0;
    for value in z.iter_mut() {
        *value = (*value - max).exp();
        sum += *value;
    }
    let factor = per_row / sum;
    for value in z.iter_mut() {
        *value *= factor;
    }
    z[label] -= per_row;
    f64::from(sum).ln() - f64::from(of_label)
}

/// `1/2 sum (y - yhat)²`; z becomes `(yhat - y) * per_row`.
fn squared_error_row(z: &mut [f32], target: impl Fn(usize) -> f32, per_row: f32) -> f64 {
    let mut sum = 0.0;
    for (c, value) in z.iter_mut().enumerate() {
        let difference = *value - target(c);
        sum += 0.5 * f64::from(difference) * f64::from(difference);
        *value = difference * per_row;
    }
    sum
}

/// Whether `label` holds the largest output; of equals the first counts, and NaN is never the largest.
fn is_largest(z: &[f32], label: usize) -> bool {
    let best = z[label];
    z.iter().enumerate().all(|(c, &value)| if c < label { value < best } else { value <= best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_outputs_do_not_overflow() {
        let mut z = [1e4f32, -1e4, 0.0];
        assert_eq!(cross_entropy_row(&mut z, 0, 1.0), 0.0);
        assert_eq!(z, [0.0, 0.0, 0.0]);
        let mut z = [1e4f32, -1e4, 0.0];
        assert_eq!(cross_entropy_row(&mut z, 1, 1.0), 2e4);
        assert_eq!(z, [1.0, -1.0, 0.0]);
    }

    #[test]
    fn not_a_number_stays_visible() {
        assert!(cross_entropy_row(&mut [f32::NAN, 0.0], 1, 1.0).is_nan());
        assert!(cross_entropy_row(&mut [f32::INFINITY, 0.0], 1, 1.0).is_nan());
        assert!(squared_error_row(&mut [f32::NAN, 0.0], |_| 0.0, 1.0).is_nan());
    }

    #[test]
    fn the_first_of_equals_is_the_largest() {
        assert!(is_largest(&[2.0, 2.0, 1.0], 0));
        assert!(!is_largest(&[2.0, 2.0, 1.0], 1));
        assert!(!is_largest(&[f32::NAN, 2.0], 1));
        assert!(!is_largest(&[f32::NAN, 2.0], 0));
        assert!(is_largest(&[0.0], 0));
    }

    #[test]
    fn one_class_has_no_loss() {
        let mut z = [3.5f32];
        assert_eq!(cross_entropy_row(&mut z, 0, 1.0), 0.0);
        assert_eq!(z, [0.0]);
    }
}
