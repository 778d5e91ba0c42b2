//! Adam with decoupled weight decay, with PyTorch's meaning of every option.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::at_least_zero;
use crate::Error;

/// `torch.optim.AdamW`, without amsgrad. Its defaults are PyTorch's.
///
/// With `g` the gradient and t = 1, 2, .. the step: `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g²`, both from
/// zero, and `p = (1 - lr weight_decay) p - lr c1 m / (c2 sqrt(v) + eps)` with `c1 = 1 / (1 - beta1^t)` and
/// `c2 = 1 / sqrt(1 - beta2^t)`.
///
/// Sources: Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019), algorithm 2;
/// <https://pytorch.org/docs/stable/generated/torch.optim.AdamW.html>.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// Learning rate, at least 0.
    pub lr: f64,
    /// Share of the first moment that is kept from step to step, at least 0 and below 1.
    pub beta1: f64,
    /// Share of the second moment that is kept from step to step, at least 0 and below 1.
    pub beta2: f64,
    /// Added to the root of the second moment, at least 0.
    pub eps: f64,
    /// Share of a parameter, times the learning rate, that a step takes away; at least 0.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

impl AdamW {
    /// Checks the ranges, as PyTorch's constructor does, and that every value is finite.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] names the first option that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        at_least_zero("lr", self.lr)?;
        for (name, found) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            // Below 1 in float32 too: rounded to 1, nothing of a gradient would enter.
            if !(found >= 0.0 && (found as f32) < 1.0) {
                return Err(Error::Hyperparameter { name, expected: "at least 0 and below 1", found });
            }
        }
        at_least_zero("eps", self.eps)?;
        at_least_zero("weight_decay", self.weight_decay)
    }

    /// `1 / (1 - beta1^t)` and `1 / sqrt(1 - beta2^t)` of a step, counted from 0, so that t = step + 1. In float64: in
    /// float32 the difference from 1 would lose its digits.
    pub(crate) fn corrections(&self, step: u64) -> (f64, f64) {
        let t = (step as f64) + 1.0;
        (1.0 / (1.0 - self.beta1.powf(t)), 1.0 / (1.0 - self.beta2.powf(t)).sqrt())
    }
}

/// All of its options: `AdamW lr 0.001 betas 0.9 0.999 eps 1e-8 weight decay 0.01`.
impl fmt::Display for AdamW {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lr, beta1, beta2, eps, weight_decay } = self;
        write!(f, "AdamW lr {lr} betas {beta1} {beta2} eps {eps:e} weight decay {weight_decay}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_named() {
        let fine = AdamW::default();
        assert_eq!(fine.check(), Ok(()));
        let cases = [
            ("lr", AdamW { lr: f64::INFINITY, ..fine }),
            ("lr", AdamW { lr: -0.1, ..fine }),
            ("beta1", AdamW { beta1: 1.0, ..fine }),
            ("beta1", AdamW { beta1: f64::NAN, ..fine }),
            ("beta2", AdamW { beta2: -0.1, ..fine }),
            ("beta2", AdamW { beta2: 1.0 - 1e-9, ..fine }),
            ("eps", AdamW { eps: -1e-8, ..fine }),
            ("weight_decay", AdamW { weight_decay: f64::NAN, ..fine }),
        ];
        for (option, adamw) in cases {
            match adamw.check() {
                Err(Error::Hyperparameter { name, .. }) => assert_eq!(name, option, "{adamw:?}"),
                other => panic!("{adamw:?}: {other:?}"),
            }
        }
    }

    /// The first step's corrections undo the first step's shares; those of a late one are nothing.
    #[test]
    fn corrections_begin_large_and_go_to_one() {
        let (first, second) = AdamW::default().corrections(0);
        assert!((first - 10.0).abs() < 1e-12 && (second - 1000f64.sqrt()).abs() < 1e-9, "{first} {second}");
        assert_eq!(AdamW::default().corrections(1 << 40), (1.0, 1.0));
        assert_eq!(AdamW { beta1: 0.0, beta2: 0.0, ..AdamW::default() }.corrections(0), (1.0, 1.0));
    }

    #[test]
    fn a_person_reads_all_of_it() {
        let text = "AdamW lr 0.001 betas 0.9 0.999 eps 1e-8 weight decay 0.01";
        assert_eq!(AdamW::default().to_string(), text);
    }
}
