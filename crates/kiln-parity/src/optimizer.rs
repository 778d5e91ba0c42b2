//! Optimizers and schedules of recorded runs, in PyTorch's own terms. What they do not know, they refuse.

use serde::Deserialize;
use serde::de::Error as _;

/// The optimizer of a recorded run, with the arguments that it was made with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GoldenOptimizer {
    /// `torch.optim.SGD`.
    Sgd(GoldenSgd),
    /// `torch.optim.AdamW`.
    AdamW(GoldenAdamW),
}

/// The arguments of `torch.optim.SGD`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenSgd {
    /// Learning rate.
    pub lr: f64,
    /// Momentum.
    #[serde(default)]
    pub momentum: f64,
    /// Dampening.
    #[serde(default)]
    pub dampening: f64,
    /// Weight decay.
    #[serde(default)]
    pub weight_decay: f64,
    /// Nesterov's momentum.
    #[serde(default)]
    pub nesterov: bool,
}

/// The arguments of `torch.optim.AdamW`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenAdamW {
    /// Learning rate.
    #[serde(default = "defaults::lr")]
    pub lr: f64,
    /// Shares of the two moments that are kept.
    #[serde(default = "defaults::betas")]
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[serde(default = "defaults::eps")]
    pub eps: f64,
    /// Decoupled weight decay.
    #[serde(default = "defaults::weight_decay")]
    pub weight_decay: f64,
}

/// PyTorch's.
mod defaults {
    pub(super) fn lr() -> f64 {
        1e-3
    }
    pub(super) fn betas() -> [f64; 2] {
        [0.9, 0.999]
    }
    pub(super) fn eps() -> f64 {
        1e-8
    }
    pub(super) fn weight_decay() -> f64 {
        0.01
    }
    pub(super) fn pct_start() -> f64 {
        0.3
    }
    pub(super) fn div_factor() -> f64 {
        25.0
    }
    pub(super) fn final_div_factor() -> f64 {
        1e4
    }
}

impl GoldenOptimizer {
    /// The learning rate that the optimizer was made with.
    pub fn lr(&self) -> f64 {
        match self {
            GoldenOptimizer::Sgd(sgd) => sgd.lr,
            GoldenOptimizer::AdamW(adamw) => adamw.lr,
        }
    }

    /// From JSON: the arguments, and the optimizer's name as `type`, which SGD may leave out.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let mut arguments: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)?;
        let name = arguments.remove("type").unwrap_or_else(|| "SGD".into());
        let arguments = serde_json::Value::Object(arguments);
        match name.as_str() {
            Some("SGD") => serde_json::from_value(arguments).map(GoldenOptimizer::Sgd),
            Some("AdamW") => serde_json::from_value(arguments).map(GoldenOptimizer::AdamW),
            _ => Err(serde_json::Error::custom(format!("unknown type {name}"))),
        }
    }
}

/// The scheduler of a recorded run, of `torch.optim.lr_scheduler`, with the arguments that it was made with; stepped once a
/// training step.
///
/// Where `warmup_steps` is n > 0, it follows a `LinearLR(start_factor=1 / (n + 1), total_iters=n)`, in a `SequentialLR`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum GoldenSchedule {
    /// The learning rate stays.
    ConstantLR {
        /// Steps of the warm-up.
        #[serde(default)]
        warmup_steps: u64,
    },
    /// Decay every so many steps.
    StepLR {
        /// Steps from one decay to the next.
        step_size: u64,
        /// What a decay multiplies by.
        gamma: f64,
        /// Steps of the warm-up.
        #[serde(default)]
        warmup_steps: u64,
    },
    /// Half a cosine.
    CosineAnnealingLR {
        /// Steps from the first learning rate to the lowest.
        #[serde(rename = "T_max")]
        t_max: u64,
        /// The lowest learning rate.
        #[serde(default)]
        eta_min: f64,
        /// Steps of the warm-up.
        #[serde(default)]
        warmup_steps: u64,
    },
    /// One cycle of the learning rate, `cycle_momentum=False`.
    OneCycleLR {
        /// The highest learning rate.
        max_lr: f64,
        /// Steps of the cycle.
        total_steps: u64,
        /// Share of the steps that go up.
        #[serde(default = "defaults::pct_start")]
        pct_start: f64,
        /// The highest learning rate over the first.
        #[serde(default = "defaults::div_factor")]
        div_factor: f64,
        /// The first learning rate over the last.
        #[serde(default = "defaults::final_div_factor")]
        final_div_factor: f64,
        /// Steps of the warm-up.
        #[serde(default)]
        warmup_steps: u64,
    },
}
