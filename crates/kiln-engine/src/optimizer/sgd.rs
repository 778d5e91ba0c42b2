//! Stochastic gradient descent, with PyTorch's meaning of every option.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::at_least_zero;
use crate::Error;

/// `torch.optim.SGD`. All options zero but `lr` is plain gradient descent, `p -= lr g`.
///
/// With `g` the gradient plus `weight_decay * p`: the velocity is `v = g` at the first step and
/// `v = momentum v + (1 - dampening) g` after it; then `p -= lr v`, or `p -= lr (g + momentum v)` with `nesterov`.
/// Without momentum there is no velocity, and dampening has no effect.
///
/// Source: <https://pytorch.org/docs/stable/generated/torch.optim.SGD.html>.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sgd {
    /// Learning rate, at least 0.
    pub lr: f64,
    /// Share of the velocity that is kept from step to step, at least 0.
    pub momentum: f64,
    /// Share of the gradient that does not enter the velocity.
    pub dampening: f64,
    /// L2 penalty, at least 0, added to the gradient of weights and biases.
    pub weight_decay: f64,
    /// Look ahead along the velocity. Needs momentum and no dampening.
    pub nesterov: bool,
}

impl Sgd {
    /// Checks the ranges, as PyTorch's constructor does, and that every value is finite.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] names the first option that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        at_least_zero("lr", self.lr)?;
        at_least_zero("momentum", self.momentum)?;
        at_least_zero("weight_decay", self.weight_decay)?;
        if !(self.dampening as f32).is_finite() {
            let expected = "a finite number";
            return Err(Error::Hyperparameter { name: "dampening", expected, found: self.dampening });
        }
        if self.nesterov && self.momentum == 0.0 {
            let expected = "above 0, since nesterov needs it";
            return Err(Error::Hyperparameter { name: "momentum", expected, found: self.momentum });
        }
        if self.nesterov && self.dampening != 0.0 {
            let expected = "0, since nesterov needs it";
            return Err(Error::Hyperparameter { name: "dampening", expected, found: self.dampening });
        }
        Ok(())
    }
}

/// The options that are not zero: `SGD lr 0.01 momentum 0.9`.
impl fmt::Display for Sgd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SGD lr {}", self.lr)?;
        let options =
            [("momentum", self.momentum), ("dampening", self.dampening), ("weight decay", self.weight_decay)];
        for (name, value) in options.into_iter().filter(|option| option.1 != 0.0) {
            write!(f, " {name} {value}")?;
        }
        f.write_str(if self.nesterov { " nesterov" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_named() {
        let fine = Sgd { lr: 0.01, momentum: 0.9, ..Sgd::default() };
        assert_eq!(fine.check(), Ok(()));
        let cases = [
            ("lr", Sgd { lr: f64::NAN, ..fine }),
            ("lr", Sgd { lr: -0.1, ..fine }),
            ("lr", Sgd { lr: 1e39, ..fine }),
            ("lr", Sgd { lr: 1e-50, ..fine }),
            ("momentum", Sgd { momentum: f64::INFINITY, ..fine }),
            ("weight_decay", Sgd { weight_decay: -1.0, ..fine }),
            ("dampening", Sgd { dampening: f64::NAN, ..fine }),
            ("momentum", Sgd { momentum: 0.0, nesterov: true, ..fine }),
            ("dampening", Sgd { dampening: 0.1, nesterov: true, ..fine }),
        ];
        for (option, sgd) in cases {
            match sgd.check() {
                Err(Error::Hyperparameter { name, .. }) => assert_eq!(name, option, "{sgd:?}"),
                other => panic!("{sgd:?}: {other:?}"),
            }
        }
    }
    #[test]
    fn a_person_reads_what_is_set() {
        let sgd = Sgd { lr: 0.01, momentum: 0.9, ..Sgd::default() };
        assert_eq!(sgd.to_string(), "SGD lr 0.01 momentum 0.9");
        assert_eq!(Sgd { lr: 0.5, ..Sgd::default() }.to_string(), "SGD lr 0.5");
        let all = Sgd { dampening: 0.1, weight_decay: 1e-4, nesterov: true, ..sgd };
        assert_eq!(all.to_string(), "SGD lr 0.01 momentum 0.9 dampening 0.1 weight decay 0.0001 nesterov");
    }
}
