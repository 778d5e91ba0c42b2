//! A run held against a recorded one.

use std::fmt;

use crate::{Golden, GoldenTensor};

/// The tolerance for float32, from `tests/golden/README.md`: absolute for losses, relative in norm for tensors.
pub const BOUND: f64 = 1e-5;

/// What an engine did when it replayed a recording.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recording {
    /// Loss of each step, before its update.
    pub losses: Vec<f64>,
    /// Gradients of step 0, flat, in the order of [`Golden::init`].
    pub grad0: Vec<Vec<f64>>,
    /// Parameters after the last step, likewise.
    pub finals: Vec<Vec<f64>>,
}

/// A run that cannot be compared: not a matter of precision, but of shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected} values, found {found}")]
pub struct CompareError {
    /// Losses, or a tensor.
    pub what: String,
    /// How many the recording has.
    pub expected: usize,
    /// How many the run has.
    pub found: usize,
}

/// The worst difference of a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// The difference; NaN where something was not finite.
    pub difference: f64,
    /// What it may be.
    pub bound: f64,
    /// Where it is: a step, or a tensor and the index that differs most.
    pub at: String,
}

impl Gap {
    /// Whether the difference is within the bound. NaN never is.
    pub fn passes(&self) -> bool {
        self.difference <= self.bound
    }

    /// Share of the bound that is used; NaN where something was not finite.
    pub fn share(&self) -> f64 {
        self.difference / self.bound
    }

    /// Whether this is to be reported before `other`: NaN is the worst of all, and the first of equals counts.
    fn is_worse_than(&self, other: &Gap) -> bool {
        let of = |gap: &Gap| if gap.share().is_nan() { f64::INFINITY } else { gap.share() };
        of(self) > of(other)
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passes() { "ok" } else { "FAILED" };
        let (Gap { difference, bound, at }, share) = (self, 100.0 * self.share());
        write!(f, "{difference:.2e} of {bound:.0e} ({share:.1}%) at {at}: {verdict}")
    }
}

/// The comparison of a run with a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The recording's name.
    pub name: String,
    /// Worst |loss - recorded| over the steps.
    pub loss: Gap,
    /// Worst |g - recorded| / |recorded| over the tensors, at step 0.
    pub gradient: Gap,
    /// Likewise for the parameters after the last step.
    pub parameter: Gap,
}

impl Report {
    /// Whether all is within its bound.
    pub fn passes(&self) -> bool {
        [&self.loss, &self.gradient, &self.parameter].into_iter().all(Gap::passes)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, if self.passes() { "ok" } else { "FAILED" })?;
        writeln!(f, "  loss      {}", self.loss)?;
        writeln!(f, "  gradient  {}", self.gradient)?;
        write!(f, "  parameter {}", self.parameter)
    }
}

/// Compares a run with a recording, by the bounds for float32.
///
/// # Errors
/// [`CompareError`] where the run has other counts of values; a difference in values is told by the report.
pub fn compare(golden: &Golden, run: &Recording) -> Result<Report, CompareError> {
    same_count("losses", golden.loss_f64.len(), run.losses.len())?;
    let steps = golden.loss_f64.iter().zip(&run.losses).enumerate();
    let losses = steps.map(|(step, (recorded, got))| Gap {
        difference: (got - recorded).abs(),
        bound: BOUND,
        at: format!("step {step}"),
    });
    Ok(Report {
        name: golden.name.clone(),
        loss: worst(losses),
        gradient: worst_tensor("gradient", &golden.grad0_f64, &run.grad0)?,
        parameter: worst_tensor("parameter", &golden.final_f64, &run.finals)?,
    })
}

fn same_count(what: &str, expected: usize, found: usize) -> Result<(), CompareError> {
    if expected == found { Ok(()) } else { Err(CompareError { what: what.to_owned(), expected, found }) }
}

fn worst_tensor(what: &str, recorded: &[GoldenTensor<f64>], got: &[Vec<f64>]) -> Result<Gap, CompareError> {
    same_count(&format!("{what} tensors"), recorded.len(), got.len())?;
    for (tensor, got) in recorded.iter().zip(got) {
        same_count(&format!("{what} {}", tensor.name), tensor.data.len(), got.len())?;
    }
    Ok(worst(recorded.iter().zip(got).map(|(tensor, got)| tensor_gap(tensor, got))))
}

/// |got - recorded| / |recorded| in the Euclidean norm. Where the recorded norm is zero, so must the other be.
fn tensor_gap(tensor: &GoldenTensor<f64>, got: &[f64]) -> Gap {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let reference = norm(&mut tensor.data.iter().copied());
    let difference = norm(&mut tensor.data.iter().zip(got).map(|(r, g)| g - r));
    let relative = if difference == 0.0 { 0.0 } else { difference / reference };
    let (mut index, mut largest) = (0, 0.0);
    for (i, (recorded, got)) in tensor.data.iter().zip(got).enumerate() {
        let gap = (got - recorded).abs();
        let gap = if gap.is_nan() { f64::INFINITY } else { gap };
        if gap > largest {
            (index, largest) = (i, gap);
        }
    }
    Gap { difference: relative, bound: BOUND, at: format!("{}[{index}]", tensor.name) }
}

fn worst(gaps: impl Iterator<Item = Gap>) -> Gap {
    let none = Gap { difference: 0.0, bound: BOUND, at: "nothing".to_owned() };
    gaps.fold(none, |worst, gap| if worst.at == "nothing" || gap.is_worse_than(&worst) { gap } else { worst })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GoldenData, GoldenLoss, GoldenOptimizer, GoldenSgd};

    fn golden() -> Golden {
        let tensor = |name: &str, data: Vec<f64>| GoldenTensor {
            name: name.to_owned(),
            shape: vec![data.len()],
            data,
        };
        let parameters = || vec![tensor("fc1.weight", vec![3.0, 4.0]), tensor("fc1.bias", vec![2.0])];
        Golden {
            name: "small".to_owned(),
            layers: vec![2, 1],
            steps: 3,
            batch: 1,
            loss: GoldenLoss::MeanSquaredError,
            optimizer: GoldenOptimizer::Sgd(GoldenSgd {
                lr: 0.1,
                momentum: 0.0,
                dampening: 0.0,
                weight_decay: 0.0,
                nesterov: false,
            }),
            schedule: None,
            lr: vec![0.1; 3],
            samples: 1,
            data: GoldenData::Mnist,
            order: vec![0; 3],
            init: vec![],
            loss_f64: vec![1.0, 0.5, 0.25],
            grad0_f64: parameters(),
            final_f64: parameters(),
        }
    }

    fn exact(golden: &Golden) -> Recording {
        let flat = |tensors: &[GoldenTensor<f64>]| tensors.iter().map(|t| t.data.clone()).collect();
        Recording {
            losses: golden.loss_f64.clone(),
            grad0: flat(&golden.grad0_f64),
            finals: flat(&golden.final_f64),
        }
    }

    #[test]
    fn the_same_run_uses_nothing_of_the_bound() {
        let golden = golden();
        let report = compare(&golden, &exact(&golden)).unwrap();
        assert!(report.passes());
        assert_eq!((report.loss.share(), report.gradient.share(), report.parameter.share()), (0.0, 0.0, 0.0));
    }

    #[test]
    fn the_bound_is_where_it_should_be() {
        let golden = golden();
        // The norm of fc1.weight is 5, so that its second value may be off by 5e-5.
        for (share, passes) in [(0.99, true), (1.01, false)] {
            let mut run = exact(&golden);
            run.losses[2] += share * 1e-5;
            assert_eq!(compare(&golden, &run).unwrap().passes(), passes);
            let mut run = exact(&golden);
            run.grad0[0][1] += share * 5e-5;
            let report = compare(&golden, &run).unwrap();
            assert_eq!((report.passes(), report.gradient.at.as_str()), (passes, "fc1.weight[1]"));
            let mut run = exact(&golden);
            run.finals[1][0] -= share * 2e-5;
            let report = compare(&golden, &run).unwrap();
            assert_eq!((report.passes(), report.parameter.at.as_str()), (passes, "fc1.bias[0]"));
        }
    }

    #[test]
    fn what_is_not_finite_fails_and_is_reported_first() {
        let golden = golden();
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut run = exact(&golden);
            run.losses = vec![9.0, bad, 9.0];
            let report = compare(&golden, &run).unwrap();
            assert_eq!((report.passes(), report.loss.at.as_str()), (false, "step 1"), "{bad}");
            let mut run = exact(&golden);
            run.grad0[0][1] = bad;
            run.grad0[1][0] = 7.0;
            let report = compare(&golden, &run).unwrap();
            assert_eq!((report.passes(), report.gradient.at.as_str()), (false, "fc1.weight[1]"), "{bad}");
            let mut run = exact(&golden);
            run.finals[1][0] = bad;
            assert!(!compare(&golden, &run).unwrap().parameter.passes(), "{bad}");
        }
    }

    #[test]
    fn a_zero_reference_allows_only_zero() {
        let mut golden = golden();
        golden.grad0_f64[1].data[0] = 0.0;
        let mut run = exact(&golden);
        assert!(compare(&golden, &run).unwrap().passes());
        run.grad0[1][0] = 1e-100;
        assert!(!compare(&golden, &run).unwrap().passes());
    }

    #[test]
    fn other_counts_are_an_error() {
        let golden = golden();
        let mut run = exact(&golden);
        run.losses.pop();
        assert_eq!(compare(&golden, &run).unwrap_err().to_string(), "losses: expected 3 values, found 2");
        let mut run = exact(&golden);
        run.finals[0].push(0.0);
        assert_eq!(
            compare(&golden, &run).unwrap_err().to_string(),
            "parameter fc1.weight: expected 2 values, found 3"
        );
        let mut run = exact(&golden);
        run.grad0.pop();
        assert!(compare(&golden, &run).is_err());
    }
}
