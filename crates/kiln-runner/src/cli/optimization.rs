//! The optimizer and its learning rate, as they can be typed. A flag that would have no effect is refused.

use std::num::NonZeroU64;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use kiln_engine::{AdamW, Curve, OneCycle, Optimizer, Schedule, Sgd};

use super::{Usage, at_least_one, at_least_zero, at_least_zero_whole};

#[derive(Debug, Args)]
pub(crate) struct OptimizerArgs {
    /// What a step makes of a gradient, with PyTorch's meaning of every option
    #[arg(long, value_enum, default_value_t = OptimizerChoice::Sgd)]
    optimizer: OptimizerChoice,
    /// Learning rate, before a schedule changes it [default: 0.01 with sgd, 0.001 with adamw]
    #[arg(long, value_parser = at_least_zero)]
    lr: Option<f64>,
    /// sgd: momentum; 0 with the other options at 0 is plain gradient descent [default: 0.9]
    #[arg(long, value_parser = at_least_zero)]
    momentum: Option<f64>,
    /// sgd: dampening of the momentum [default: 0]
    #[arg(long, value_parser = at_least_zero)]
    dampening: Option<f64>,
    /// sgd: Nesterov's momentum
    #[arg(long)]
    nesterov: bool,
    /// adamw: share of the first moment that is kept [default: 0.9]
    #[arg(long, value_parser = below_one)]
    beta1: Option<f64>,
    /// adamw: share of the second moment that is kept [default: 0.999]
    #[arg(long, value_parser = below_one)]
    beta2: Option<f64>,
    /// adamw: added to the root of the second moment [default: 1e-8]
    #[arg(long, value_parser = at_least_zero)]
    eps: Option<f64>,
    /// Weight decay: with sgd an L2 penalty, added to the gradient [default: 0]; with adamw decoupled from it [default: 0.01]
    #[arg(long, value_parser = at_least_zero)]
    weight_decay: Option<f64>,
    /// Learning rate of each step, as PyTorch's schedulers have it
    #[arg(long, value_enum, default_value_t = ScheduleChoice::Constant)]
    schedule: ScheduleChoice,
    /// Steps over which the learning rate first rises to where the schedule begins
    #[arg(long, default_value_t = 0, value_parser = at_least_zero_whole::<u64>, value_name = "N")]
    warmup_steps: u64,
    /// step: from one decay to the next; cosine: down to the lowest learning rate; one-cycle: the whole cycle [default, but for
    /// step: what the warm-up leaves of the run]
    #[arg(long, value_parser = at_least_one::<NonZeroU64>, value_name = "N")]
    schedule_steps: Option<NonZeroU64>,
    /// step: what a decay multiplies by [default: 0.1]
    #[arg(long, value_parser = factor)]
    gamma: Option<f64>,
    /// cosine: the lowest learning rate [default: 0]
    #[arg(long, value_parser = at_least_zero, value_name = "LR")]
    min_lr: Option<f64>,
    /// one-cycle: the highest learning rate, in the place of --lr
    #[arg(long, value_parser = at_least_zero, value_name = "LR")]
    max_lr: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OptimizerChoice {
    /// Gradient descent with momentum
    Sgd,
    /// Adam with decoupled weight decay
    #[value(name = "adamw")]
    AdamW,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScheduleChoice {
    /// It stays
    Constant,
    /// Times --gamma every --schedule-steps
    Step,
    /// Half a cosine down to --min-lr
    Cosine,
    /// Up to --max-lr over 30% of the steps, from 1/25 of it, and down to next to nothing
    OneCycle,
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 && (value as f32).is_finite() => Ok(value),
        _ => Err("expected a number from 0 to 3.4e38".to_owned()),
    }
}

fn below_one(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // In float32 too: rounded to 1, nothing of a gradient would enter.
        Ok(value) if value >= 0.0 && (value as f32) < 1.0 => Ok(value),
        _ => Err("expected a number, at least 0 and below 1, in float32 too".to_owned()),
    }
}

impl OptimizerArgs {
    pub(super) fn is_sgd(&self) -> bool {
        self.optimizer == OptimizerChoice::Sgd
    }

    /// Finds flags that do not go together, where these momenta are to be tried, or none but --momentum.
    ///
    /// # Errors
    /// Which and why, for a person.
    pub(super) fn check(&self, momenta: &[f64]) -> Result<(), String> {
        use {OptimizerChoice as O, ScheduleChoice as S};
        let o = self.optimizer;
        let of_optimizer = [
            ("--momentum", self.momentum.is_some(), O::Sgd),
            ("--dampening", self.dampening.is_some(), O::Sgd),
            ("--nesterov", self.nesterov, O::Sgd),
            ("--beta1", self.beta1.is_some(), O::AdamW),
            ("--beta2", self.beta2.is_some(), O::AdamW),
            ("--eps", self.eps.is_some(), O::AdamW),
        ];
        if let Some((flag, _, owner)) = of_optimizer.iter().find(|(_, given, owner)| *given && *owner != o) {
            return Err(format!("{flag} belongs to --optimizer {}, not to {}", name(owner), name(&o)));
        }
        let without_momentum = self.momentum == Some(0.0) || momenta.contains(&0.0);
        let dampened = self.dampening.is_some_and(|dampening| dampening > 0.0);
        let of_momentum = [
            (self.nesterov && without_momentum, "--nesterov needs a momentum above 0"),
            (self.nesterov && dampened, "--nesterov needs a --dampening of 0"),
            (dampened && without_momentum, "--dampening has no effect with a momentum of 0"),
        ];
        if let Some((_, reason)) = of_momentum.iter().find(|(wrong, _)| *wrong) {
            return Err((*reason).to_owned());
        }
        let s = self.schedule;
        let of_schedule = [
            ("--schedule-steps", self.schedule_steps.is_some(), s != S::Constant),
            ("--gamma", self.gamma.is_some(), s == S::Step),
            ("--min-lr", self.min_lr.is_some(), s == S::Cosine),
            ("--max-lr", self.max_lr.is_some(), s == S::OneCycle),
            ("--lr", self.lr.is_some(), s != S::OneCycle),
        ];
        if let Some((flag, ..)) = of_schedule.iter().find(|(_, given, has_effect)| *given && !has_effect) {
            return Err(format!("{flag} has no effect with --schedule {}", name(&s)));
        }
        match s {
            S::Step if self.schedule_steps.is_none() => {
                Err("--schedule step needs --schedule-steps".to_owned())
            }
            S::OneCycle if self.max_lr.is_none() => Err("--schedule one-cycle needs --max-lr".to_owned()),
            _ => Ok(()),
        }
    }

    /// The optimizer and the schedule of a run of so many steps.
    ///
    /// # Errors
    /// Where the warm-up leaves nothing of the run for a schedule that would take the rest of it.
    pub(crate) fn optimization(&self, run_steps: u64) -> anyhow::Result<(Optimizer, Schedule)> {
        let rest = || match self.schedule_steps {
            Some(steps) => Ok(steps.get()),
            None => {
                let rest = run_steps.saturating_sub(self.warmup_steps);
                let (warmup, schedule) = (self.warmup_steps, name(&self.schedule));
                let reason =
                    || format!("--warmup-steps {warmup} leaves nothing of {run_steps} steps to {schedule}");
                ensure!(rest > 0, Usage::new(reason()));
                Ok(rest)
            }
        };
        let curve = match self.schedule {
            ScheduleChoice::Constant => Curve::Constant,
            ScheduleChoice::Step => {
                let every_steps =
                    self.schedule_steps.context("--schedule step needs --schedule-steps")?.get();
                Curve::Step { every_steps, gamma: self.gamma.unwrap_or(0.1) }
            }
            ScheduleChoice::Cosine => {
                Curve::Cosine { half_period_steps: rest()?, min_lr: self.min_lr.unwrap_or(0.0) }
            }
            ScheduleChoice::OneCycle => {
                let max_lr = self.max_lr.context("--schedule one-cycle needs --max-lr")?;
                Curve::OneCycle(OneCycle::new(max_lr, rest()?))
            }
        };
        let schedule = Schedule { warmup_steps: self.warmup_steps, curve };
        // A cycle brings its own learning rate: what is said of the optimizer is where it begins, as in PyTorch.
        let first = |cycle: OneCycle| cycle.max_lr / cycle.div_factor;
        let lr = if let Curve::OneCycle(cycle) = curve { Some(first(cycle)) } else { self.lr };
        Ok((self.with_lr(lr), schedule))
    }

    fn with_lr(&self, lr: Option<f64>) -> Optimizer {
        match self.optimizer {
            OptimizerChoice::Sgd => Optimizer::Sgd(Sgd {
                lr: lr.unwrap_or(0.01),
                momentum: self.momentum.unwrap_or(0.9),
                dampening: self.dampening.unwrap_or(0.0),
                weight_decay: self.weight_decay.unwrap_or(0.0),
                nesterov: self.nesterov,
            }),
            OptimizerChoice::AdamW => {
                let default = AdamW::default();
                Optimizer::AdamW(AdamW {
                    lr: lr.unwrap_or(default.lr),
                    beta1: self.beta1.unwrap_or(default.beta1),
                    beta2: self.beta2.unwrap_or(default.beta2),
                    eps: self.eps.unwrap_or(default.eps),
                    weight_decay: self.weight_decay.unwrap_or(default.weight_decay),
                })
            }
        }
    }
}

/// What a choice is typed as.
fn name(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
