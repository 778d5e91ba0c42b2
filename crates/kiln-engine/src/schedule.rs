//! Learning rate schedules: the learning rate of every step of a run, with PyTorch's meaning of every option.

use std::f64::consts::PI;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The learning rate of each training step, counted from 0 and on over epochs: a linear warm-up, then a curve.
///
/// With n = `warmup_steps` and `f(s)` the curve, step t has `f(0) (t + 1) / (n + 1)` while t < n, and `f(t - n)` after. That is
/// `SequentialLR` of `LinearLR(start_factor=1 / (n + 1), total_iters=n)` and the curve's scheduler, with `milestones=[n]`,
/// stepped once a training step. Held to values recorded from PyTorch, `tests/golden/schedules.tsv`.
///
/// Without a warm-up the default keeps the optimizer's learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Steps of the warm-up, n; 0 for none.
    pub warmup_steps: u64,
    /// What follows it.
    pub curve: Curve,
}

/// A learning rate as a function of the step s since the warm-up, from 0. `lr` is the optimizer's.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Curve {
    /// `lr`.
    #[default]
    Constant,
    /// `torch.optim.lr_scheduler.StepLR`: `lr gamma^floor(s / every_steps)`.
    Step {
        /// Steps from one decay to the next, at least 1.
        every_steps: u64,
        /// What a decay multiplies by, at least 0.
        gamma: f64,
    },
    /// `torch.optim.lr_scheduler.CosineAnnealingLR`: `min_lr + (lr - min_lr) (1 + cos(pi s / half_period_steps)) / 2`. As in
    /// PyTorch it rises again after `half_period_steps`.
    Cosine {
        /// Steps from `lr` to `min_lr`, PyTorch's `T_max`; at least 1.
        half_period_steps: u64,
        /// The lowest learning rate, PyTorch's `eta_min`; at least 0.
        min_lr: f64,
    },
    /// A cycle that replaces the optimizer's learning rate, see [`OneCycle`].
    OneCycle(OneCycle),
}

/// `torch.optim.lr_scheduler.OneCycleLR` with `anneal_strategy="cos"`, `three_phase=False` and `cycle_momentum=False`: the learning
/// rate alone, momentum and betas stay. [`OneCycle::new`] has PyTorch's defaults.
///
/// From `max_lr / div_factor` up to `max_lr` at step `pct_start total_steps - 1`, and down to
/// `max_lr / (div_factor final_div_factor)` at step `total_steps - 1`, each by half a cosine. PyTorch refuses further steps;
/// here they keep the last learning rate.
///
/// Source: Smith and Topin, "Super-convergence" (2018), arXiv 1708.07120.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneCycle {
    /// The highest learning rate, at least 0.
    pub max_lr: f64,
    /// Steps of the whole cycle, at least 1.
    pub total_steps: u64,
    /// Share of the steps that go up, 0 to 1.
    pub pct_start: f64,
    /// The highest learning rate over the first, above 0.
    pub div_factor: f64,
    /// The first learning rate over the last, above 0.
    pub final_div_factor: f64,
}

impl OneCycle {
    /// PyTorch's defaults: up over 30% of the steps, from 1/25 of the highest learning rate, and down to 1/10,000 of the first.
    pub fn new(max_lr: f64, total_steps: u64) -> Self {
        Self { max_lr, total_steps, pct_start: 0.3, div_factor: 25.0, final_div_factor: 1e4 }
    }

    fn lr(&self, step: u64) -> f64 {
        let first = self.max_lr / self.div_factor;
        let (peak, end) = (self.pct_start * self.total_steps as f64 - 1.0, self.total_steps as f64 - 1.0);
        let step = (step as f64).min(end);
        // A peak before the second step has no way up, and PyTorch enters the way down with it behind.
        if step <= peak && peak > 0.0 {
            half_cosine(first, self.max_lr, step / peak)
        } else {
            // Where all steps go up there is no way down either: the one step of such a cycle stands at the peak.
            let share = if end > peak { (step - peak) / (end - peak) } else { 0.0 };
            half_cosine(self.max_lr, first / self.final_div_factor, share)
        }
    }
}

/// From `start`, where `share` is 0, to `end`, where it is 1.
fn half_cosine(start: f64, end: f64, share: f64) -> f64 {
    end + (start - end) / 2.0 * ((PI * share).cos() + 1.0)
}

impl Curve {
    fn lr(&self, lr: f64, step: u64) -> f64 {
        match *self {
            Curve::Constant => lr,
            Curve::Step { every_steps, gamma } => lr * gamma.powf((step / every_steps) as f64),
            Curve::Cosine { half_period_steps, min_lr } => {
                min_lr + (lr - min_lr) * (1.0 + (PI * step as f64 / half_period_steps as f64).cos()) / 2.0
            }
            Curve::OneCycle(cycle) => cycle.lr(step),
        }
    }

    fn check(&self) -> Result<(), Error> {
        match *self {
            Curve::Constant => Ok(()),
            Curve::Step { every_steps, gamma } => {
                steps("every_steps", every_steps)?;
                range("gamma", "a finite number, at least 0", gamma, gamma >= 0.0)
            }
            Curve::Cosine { half_period_steps, min_lr } => {
                steps("half_period_steps", half_period_steps)?;
                learning_rate("min_lr", min_lr)
            }
            Curve::OneCycle(OneCycle { max_lr, total_steps, pct_start, div_factor, final_div_factor }) => {
                learning_rate("max_lr", max_lr)?;
                steps("total_steps", total_steps)?;
                range("pct_start", "a share from 0 to 1", pct_start, (0.0..=1.0).contains(&pct_start))?;
                range("div_factor", "a finite number above 0", div_factor, div_factor > 0.0)?;
                range("final_div_factor", "a finite number above 0", final_div_factor, final_div_factor > 0.0)
            }
        }
    }
}

fn steps(name: &'static str, found: u64) -> Result<(), Error> {
    range(name, "1 or more", found as f64, found > 0)
}

/// 0, or a number that is finite and more than 0 in float32, too.
fn learning_rate(name: &'static str, found: f64) -> Result<(), Error> {
    range(name, "0, or a number from 1e-45 to 3.4e38", found, found == 0.0 || found as f32 > 0.0)
}

fn range(name: &'static str, expected: &'static str, found: f64, inside: bool) -> Result<(), Error> {
    let fits = inside && (found as f32).is_finite();
    if fits { Ok(()) } else { Err(Error::Schedule { name, expected, found }) }
}

impl Schedule {
    /// The learning rate of a step, counted from 0, where the optimizer's is `lr`.
    pub fn lr(&self, lr: f64, step: u64) -> f64 {
        match step.checked_sub(self.warmup_steps) {
            Some(step) => self.curve.lr(lr, step),
            None => self.curve.lr(lr, 0) * (step as f64 + 1.0) / (self.warmup_steps as f64 + 1.0),
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Schedule`] names the first option that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        self.curve.check()
    }
}

impl From<Curve> for Schedule {
    fn from(curve: Curve) -> Self {
        Self { warmup_steps: 0, curve }
    }
}

/// `warm-up of 100 steps, cosine to 0 over 9280 steps`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.warmup_steps > 0 {
            write!(f, "warm-up of {} steps, ", self.warmup_steps)?;
        }
        match self.curve {
            Curve::Constant => f.write_str("constant"),
            Curve::Step { every_steps, gamma } => write!(f, "times {gamma} every {every_steps} steps"),
            Curve::Cosine { half_period_steps, min_lr } => {
                write!(f, "cosine to {min_lr} over {half_period_steps} steps")
            }
            Curve::OneCycle(cycle) => {
                write!(f, "one cycle to {} over {} steps", cycle.max_lr, cycle.total_steps)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_named() {
        let cycle = OneCycle::new(0.1, 100);
        let one_cycle = Curve::OneCycle;
        let cases = [
            ("every_steps", Curve::Step { every_steps: 0, gamma: 0.1 }),
            ("gamma", Curve::Step { every_steps: 1, gamma: -0.1 }),
            ("gamma", Curve::Step { every_steps: 1, gamma: f64::NAN }),
            ("half_period_steps", Curve::Cosine { half_period_steps: 0, min_lr: 0.0 }),
            ("min_lr", Curve::Cosine { half_period_steps: 1, min_lr: f64::INFINITY }),
            ("max_lr", one_cycle(OneCycle { max_lr: -1.0, ..cycle })),
            ("total_steps", one_cycle(OneCycle { total_steps: 0, ..cycle })),
            ("pct_start", one_cycle(OneCycle { pct_start: 1.1, ..cycle })),
            ("pct_start", one_cycle(OneCycle { pct_start: f64::NAN, ..cycle })),
            ("div_factor", one_cycle(OneCycle { div_factor: 0.0, ..cycle })),
            ("final_div_factor", one_cycle(OneCycle { final_div_factor: f64::INFINITY, ..cycle })),
        ];
        for (option, curve) in cases {
            match Schedule::from(curve).check() {
                Err(Error::Schedule { name, .. }) => assert_eq!(name, option, "{curve:?}"),
                other => panic!("{curve:?}: {other:?}"),
            }
        }
        assert_eq!(Schedule::from(Curve::OneCycle(cycle)).check(), Ok(()));
        assert_eq!(Schedule::default().check(), Ok(()));
    }

    /// Every learning rate of the shortest schedules and of the last step that can be counted is a number.
    #[test]
    fn the_ends_are_finite() {
        let mut curves = vec![Curve::Constant, Curve::Cosine { half_period_steps: 1, min_lr: 0.0 }];
        for (total_steps, pct_start) in [(1, 0.0), (1, 1.0), (1, 0.3), (2, 0.5), (10, 0.1), (u64::MAX, 0.3)] {
            curves.push(Curve::OneCycle(OneCycle { pct_start, ..OneCycle::new(0.1, total_steps) }));
        }
        for curve in curves {
            for warmup_steps in [0, 1, u64::MAX] {
                for step in [0, 1, 2, u64::MAX - 1, u64::MAX] {
                    let lr = Schedule { warmup_steps, curve }.lr(0.1, step);
                    assert!((0.0..=0.1 + 1e-15).contains(&lr), "{curve:?} {warmup_steps} {step}: {lr}");
                }
            }
        }
    }

    #[test]
    fn a_person_reads_what_is_set() {
        let curve = Curve::Cosine { half_period_steps: 9280, min_lr: 0.0 };
        let schedule = Schedule { warmup_steps: 100, curve };
        assert_eq!(schedule.to_string(), "warm-up of 100 steps, cosine to 0 over 9280 steps");
        let cycle = Curve::OneCycle(OneCycle::new(0.5, 9));
        assert_eq!(Schedule::from(cycle).to_string(), "one cycle to 0.5 over 9 steps");
        assert_eq!(Schedule::default().to_string(), "constant");
        let step = Curve::Step { every_steps: 30, gamma: 0.1 };
        assert_eq!(Schedule::from(step).to_string(), "times 0.1 every 30 steps");
    }
}
