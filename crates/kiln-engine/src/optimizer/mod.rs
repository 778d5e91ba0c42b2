//! Optimizers: what a step makes of a gradient, with PyTorch's meaning of every option.

mod adamw;
mod sgd;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;
pub use adamw::AdamW;
pub use sgd::Sgd;

/// How a loss is minimised. An [`Sgd`] or an [`AdamW`] turns into one with `into()`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Gradient descent, with or without momentum.
    Sgd(Sgd),
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
}

impl Optimizer {
    /// The learning rate that a [`crate::Schedule`] starts from.
    pub fn lr(&self) -> f64 {
        match self {
            Optimizer::Sgd(sgd) => sgd.lr,
            Optimizer::AdamW(adamw) => adamw.lr,
        }
    }

    /// Checks the ranges, as PyTorch's constructors do, and that every value is finite.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] names the first option that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Optimizer::Sgd(sgd) => sgd.check(),
            Optimizer::AdamW(adamw) => adamw.check(),
        }
    }

    /// What is kept from step to step, a value for every parameter, under PyTorch's names: the velocity, `momentum_buffer`, if there
    /// is momentum; or AdamW's two moments, `exp_avg` and `exp_avg_sq`.
    pub fn moments(&self) -> &'static [&'static str] {
        match self {
            Optimizer::Sgd(sgd) if sgd.momentum == 0.0 => &[],
            Optimizer::Sgd(_) => &["momentum_buffer"],
            Optimizer::AdamW(_) => &["exp_avg", "exp_avg_sq"],
        }
    }
}

impl From<Sgd> for Optimizer {
    fn from(sgd: Sgd) -> Self {
        Optimizer::Sgd(sgd)
    }
}

impl From<AdamW> for Optimizer {
    fn from(adamw: AdamW) -> Self {
        Optimizer::AdamW(adamw)
    }
}

impl fmt::Display for Optimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Optimizer::Sgd(sgd) => sgd.fmt(f),
            Optimizer::AdamW(adamw) => adamw.fmt(f),
        }
    }
}

/// 0, or a number that is finite and more than 0 in float32, too.
fn at_least_zero(name: &'static str, found: f64) -> Result<(), Error> {
    let rounded = found as f32;
    if found == 0.0 || (rounded > 0.0 && rounded.is_finite()) {
        Ok(())
    } else {
        Err(Error::Hyperparameter { name, expected: "0, or a number from 1e-45 to 3.4e38", found })
    }
}
