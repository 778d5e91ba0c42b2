//! A run held against a recorded one.

use std::fmt;

use crate::{Golden, GoldenTensor};

/// The tolerance for float32, from `tests/golden/README.md`: absolute for losses, relative in norm for tensors.
pub const BOUND: f64 = 1e-5;

/// What two runs of a recording may differ by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Of losses, absolute, and of parameters, relative in norm.
    pub step: f64,
    /// Of gradients, relative in norm.
    pub gradient: f64,
}

impl Bounds {
    /// Of a float32 run and a float64 run: [`BOUND`].
    pub const FLOAT32: Bounds = Bounds { step: BOUND, gradient: BOUND };

    /// Of an engine that rounds the operands of its products and a computation in float64 that rounds the same ones, in so many `layers`, by
    /// a relative error of `roundoff` at most; each step begins with the same parameters.
    ///
    /// Float32 leaves them apart by less than [`BOUND`], but where that parts two values at a border between rounded ones, they differ by
    /// twice the roundoff from there on. How often is chance, so these are measured, not derived: for random models of one to five layers of
    /// up to 150 units in TF32 and bfloat16 gradients differ by 0.14 to 0.40 roundoffs at most, and a step of the recordings by 2.1e-5.
    /// `docs/NUMERICS.md` has the figures, and what the roundings themselves weigh.
    pub fn beside_rounding(roundoff: f64, layers: usize) -> Bounds {
        Bounds { step: 1e-4, gradient: BOUND + roundoff * (1 + layers) as f64 / 8.0 }
    }
}

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
        write!(f, "{difference:.2e} of {bound:.1e} ({share:.1}%) at {at}: {verdict}")
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

/// Compares a run with a recording, by the bound for float32.
///
/// # Errors
/// [`CompareError`] where the run has other counts of values; a difference in values is told by the report.
pub fn compare(golden: &Golden, run: &Recording) -> Result<Report, CompareError> {
    let flat = |tensors: &[GoldenTensor<f64>]| tensors.iter().map(|t| t.data.clone()).collect::<Vec<_>>();
    same_count("losses", golden.loss_f64.len(), run.losses.len())?;
    let mut comparison = Comparison::new(golden, Bounds::FLOAT32);
    for (step, (recorded, got)) in golden.loss_f64.iter().zip(&run.losses).enumerate() {
        comparison.loss(step, *recorded, *got);
    }
    comparison.gradients(&flat(&golden.grad0_f64), &run.grad0)?;
    comparison.parameters(None, &flat(&golden.final_f64), &run.finals)?;
    Ok(comparison.report())
}

/// A comparison of two runs of one recording that is made piece by piece.
#[derive(Debug)]
pub struct Comparison {
    name: String,
    bounds: Bounds,
    tensors: Vec<String>,
    loss: Option<Gap>,
    gradient: Option<Gap>,
    parameter: Option<Gap>,
}

impl Comparison {
    /// Of runs of this recording.
    pub fn new(golden: &Golden, bounds: Bounds) -> Self {
        let tensors = golden.init.iter().map(|tensor| tensor.name.clone()).collect();
        Self { name: golden.name.clone(), bounds, tensors, loss: None, gradient: None, parameter: None }
    }

    /// The losses of a step.
    pub fn loss(&mut self, step: usize, expected: f64, got: f64) {
        let gap =
            Gap { difference: (got - expected).abs(), bound: self.bounds.step, at: format!("step {step}") };
        keep_worst(&mut self.loss, gap);
    }

    /// Gradients, flat, in the order of [`Golden::init`].
    ///
    /// # Errors
    /// Where the counts of values differ.
    pub fn gradients(&mut self, expected: &[Vec<f64>], got: &[Vec<f64>]) -> Result<(), CompareError> {
        let gaps = self.tensor_gaps("gradient", expected, got, self.bounds.gradient)?;
        gaps.into_iter().for_each(|gap| keep_worst(&mut self.gradient, gap));
        Ok(())
    }

    /// Parameters, likewise: after a step, where one is given, and after the last one otherwise.
    ///
    /// # Errors
    /// Where the counts of values differ.
    pub fn parameters(
        &mut self,
        step: Option<usize>,
        expected: &[Vec<f64>],
        got: &[Vec<f64>],
    ) -> Result<(), CompareError> {
        for gap in self.tensor_gaps("parameter", expected, got, self.bounds.step)? {
            let at = step.map_or_else(|| gap.at.clone(), |step| format!("step {step}, {}", gap.at));
            keep_worst(&mut self.parameter, Gap { at, ..gap });
        }
        Ok(())
    }

    /// The worst of each kind.
    pub fn report(self) -> Report {
        let of =
            |gap: Option<Gap>, bound| gap.unwrap_or(Gap { difference: 0.0, bound, at: "nothing".to_owned() });
        let Bounds { step, gradient } = self.bounds;
        let (loss, gradient, parameter) =
            (of(self.loss, step), of(self.gradient, gradient), of(self.parameter, step));
        Report { name: self.name, loss, gradient, parameter }
    }

    fn tensor_gaps(
        &self,
        what: &str,
        expected: &[Vec<f64>],
        got: &[Vec<f64>],
        bound: f64,
    ) -> Result<Vec<Gap>, CompareError> {
        same_count(&format!("{what} tensors"), self.tensors.len(), expected.len())?;
        same_count(&format!("{what} tensors"), self.tensors.len(), got.len())?;
        let gap = |(name, (expected, got)): (&String, (&Vec<f64>, &Vec<f64>))| {
            same_count(&format!("{what} {name}"), expected.len(), got.len())?;
            Ok(tensor_gap(name, expected, got, bound))
        };
        self.tensors.iter().zip(expected.iter().zip(got)).map(gap).collect()
    }
}

fn keep_worst(kept: &mut Option<Gap>, gap: Gap) {
    if kept.as_ref().is_none_or(|kept| gap.is_worse_than(kept)) {
        *kept = Some(gap);
    }
}

fn same_count(what: &str, expected: usize, found: usize) -> Result<(), CompareError> {
    if expected == found { Ok(()) } else { Err(CompareError { what: what.to_owned(), expected, found }) }
}

/// |got - expected| / |expected| in the Euclidean norm, of tensors of one shape: 0 where they are equal, infinite where nothing but
/// zeros is expected and they are not, infinite or NaN where anything is not finite, which no bound lets pass.
///
/// # Panics
/// Where they have not as many values.
pub fn relative_error(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len(), "values of one shape");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(expected).map(|(got, expected)| got - expected));
    if difference == 0.0 { 0.0 } else { difference / norm(&mut expected.iter().copied()) }
}

fn tensor_gap(name: &str, expected: &[f64], got: &[f64], bound: f64) -> Gap {
    let (mut index, mut largest) = (0, 0.0);
    for (i, (expected, got)) in expected.iter().zip(got).enumerate() {
        let gap = (got - expected).abs();
        let gap = if gap.is_nan() { f64::INFINITY } else { gap };
        if gap > largest {
            (index, largest) = (i, gap);
        }
    }
    Gap { difference: relative_error(got, expected), bound, at: format!("{name}[{index}]") }
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
        let init = |t: GoldenTensor<f64>| GoldenTensor {
            name: t.name,
            shape: t.shape,
            data: vec![0.0; t.data.len()],
        };
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
            init: parameters().into_iter().map(init).collect(),
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

    /// Every step counts, by the bound that is asked for.
    #[test]
    fn the_worst_of_all_steps_is_kept() {
        let golden = golden();
        let run = exact(&golden);
        for (bound, passes) in [(1e-3, true), (1e-5, false)] {
            let mut comparison = Comparison::new(&golden, Bounds { step: bound, gradient: bound });
            comparison.loss(3, 1.0, 1.0001);
            comparison.loss(4, 1.0, 1.0);
            comparison.gradients(&run.grad0, &run.grad0).unwrap();
            for (step, off) in [1e-5, 1e-4, 0.0].into_iter().enumerate() {
                let mut moved = run.finals.clone();
                moved[1][0] += off * 2.0;
                comparison.parameters(Some(step), &run.finals, &moved).unwrap();
            }
            let report = comparison.report();
            assert_eq!((report.loss.passes(), report.parameter.passes()), (passes, passes));
            assert_eq!(
                (report.loss.at.as_str(), report.parameter.at.as_str()),
                ("step 3", "step 1, fc1.bias[0]")
            );
            assert!((report.parameter.difference - 1e-4).abs() < 1e-9 && report.gradient.difference == 0.0);
        }
    }

    /// Gradients and steps have a bound each.
    #[test]
    fn bounds_are_of_what_they_say() {
        let golden = golden();
        let exact = exact(&golden);
        let mut off = exact.clone();
        (off.grad0[1][0], off.finals[1][0]) = (2.0 + 1e-3, 2.0 + 1e-3); // 5e-4 of them
        for (step, gradient) in [(1e-3, 1e-5), (1e-5, 1e-3)] {
            let mut comparison = Comparison::new(&golden, Bounds { step, gradient });
            comparison.loss(0, 0.0, 5e-4);
            comparison.gradients(&exact.grad0, &off.grad0).unwrap();
            comparison.parameters(None, &exact.finals, &off.finals).unwrap();
            let report = comparison.report();
            let passes = [&report.loss, &report.gradient, &report.parameter].map(Gap::passes);
            assert_eq!(passes, [step > gradient, gradient > step, step > gradient]);
        }
        assert_eq!(Bounds::beside_rounding(0.0, 3).gradient, BOUND);
        assert_eq!(Bounds::beside_rounding(1.0 / 256.0, 1).gradient, BOUND + 1.0 / 1024.0);
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
