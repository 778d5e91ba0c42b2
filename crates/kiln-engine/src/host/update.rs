//! The optimizer's arithmetic, one value after the other, on whatever stretch of parameters is in cache.

use std::ops::Range;

use crate::mlp::zeros;
use crate::{AdamW, Error, Optimizer, Sgd};

/// What an optimizer keeps for each of some parameters: SGD's velocity in the first, AdamW's moments in both; those that it
/// has no use for are empty.
pub(crate) struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Moments {
    pub(crate) fn new(optimizer: &Optimizer, len: usize) -> Result<Self, Error> {
        let moment = |wanted| zeros("the optimizer's state", &[if wanted { len } else { 0 }]);
        let count = optimizer.moments().len();
        Ok(Self { first: moment(count > 0)?, second: moment(count > 1)? })
    }

    /// One of them, counted from 0.
    pub(crate) fn get(&self, which: usize) -> &[f32] {
        [&self.first, &self.second][which]
    }

    pub(crate) fn get_mut(&mut self, which: usize) -> &mut [f32] {
        [&mut self.first, &mut self.second][which]
    }

    /// Those of some of the parameters.
    pub(crate) fn stretch(&mut self, range: Range<usize>) -> [&mut [f32]; 2] {
        // Empty ones stay empty.
        let of = |moment: &mut Vec<f32>| if moment.is_empty() { 0..0 } else { range.clone() };
        let (first, second) = (of(&mut self.first), of(&mut self.second));
        [&mut self.first[first], &mut self.second[second]]
    }
}

/// The optimizer's options at one step, in the precision of the parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Update {
    /// `p -= lr (g + decay p)`.
    Descent { lr: f32, decay: f32 },
    /// `v = keep v + fresh (g + decay p)`, `p -= lr v`.
    Momentum { lr: f32, decay: f32, keep: f32, fresh: f32 },
    /// The same `v`, and `p -= lr (g + decay p + look_ahead v)`.
    Nesterov { lr: f32, decay: f32, keep: f32, fresh: f32, look_ahead: f32 },
    /// See [`AdamW`].
    AdamW(AdamWUpdate),
}

/// `m = (m - fresh1 m) + fresh1 g`, `v = (v - fresh2 v) + fresh2 g²`, `p -= decay p + rate m / (correction sqrt(v) + eps)`.
///
/// The shares that are taken keep their digits in float32, the shares that are kept would not: 0.999 is off by 1e-8, and
/// 1 - 0.999 by a hundred thousandth, which the second moment would be off by once it has settled. And g² does not meet v before
/// its share is taken: in `v + fresh2 (g² - v)` a small gradient after a large one would be lost, and v be 0 where beta2 is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamWUpdate {
    /// 1 - beta1.
    fresh1: f32,
    /// 1 - beta2.
    fresh2: f32,
    /// lr weight_decay.
    decay: f32,
    /// lr / (1 - beta1^t).
    rate: f32,
    /// 1 / sqrt(1 - beta2^t).
    correction: f32,
    eps: f32,
}

impl Update {
    /// The update of a step, counted from 0, with the learning rate that it has.
    pub(crate) fn new(optimizer: &Optimizer, lr: f64, step: u64) -> Self {
        match optimizer {
            Optimizer::Sgd(sgd) => Self::sgd(sgd, lr as f32, step),
            Optimizer::AdamW(adamw) => Self::AdamW(AdamWUpdate::new(adamw, lr, step)),
        }
    }

    fn sgd(sgd: &Sgd, lr: f32, step: u64) -> Self {
        let (decay, momentum) = (sgd.weight_decay as f32, sgd.momentum as f32);
        // The velocity of the first step has no past: it is the gradient.
        let (keep, fresh) = if step == 0 { (0.0, 1.0) } else { (momentum, (1.0 - sgd.dampening) as f32) };
        match (sgd.momentum != 0.0, sgd.nesterov) {
            (false, _) => Self::Descent { lr, decay },
            (true, false) => Self::Momentum { lr, decay, keep, fresh },
            (true, true) => Self::Nesterov { lr, decay, keep, fresh, look_ahead: momentum },
        }
    }

    /// Moves parameters `p` along their gradients `g`. The moments that the optimizer has are as many.
    #[inline(always)]
    pub(crate) fn apply(&self, p: &mut [f32], [v, second]: [&mut [f32]; 2], g: &[f32]) {
        match *self {
            Update::Descent { lr, decay } => {
                for (p, &g) in p.iter_mut().zip(g) {
                    *p -= lr * (g + decay * *p);
                }
            }
            Update::Momentum { lr, decay, keep, fresh } => {
                for ((p, v), &g) in p.iter_mut().zip(v).zip(g) {
                    *v = keep * *v + fresh * (g + decay * *p);
                    *p -= lr * *v;
                }
            }
            Update::Nesterov { lr, decay, keep, fresh, look_ahead } => {
                for ((p, v), &g) in p.iter_mut().zip(v).zip(g) {
                    let g = g + decay * *p;
                    *v = keep * *v + fresh * g;
                    *p -= lr * (g + look_ahead * *v);
                }
            }
            Update::AdamW(update) => update.apply(p, v, second, g),
        }
    }
}

impl AdamWUpdate {
    fn new(adamw: &AdamW, lr: f64, step: u64) -> Self {
        let (first, second) = adamw.corrections(step);
        Self {
            fresh1: (1.0 - adamw.beta1) as f32,
            fresh2: (1.0 - adamw.beta2) as f32,
            decay: (lr * adamw.weight_decay) as f32,
            rate: (lr * first) as f32,
            correction: second as f32,
            eps: adamw.eps as f32,
        }
    }

    #[inline(always)]
    fn apply(&self, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
        for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
            *m = (*m - self.fresh1 * *m) + self.fresh1 * g;
            *v = (*v - self.fresh2 * *v) + self.fresh2 * (g * g);
            *p -= self.decay * *p + self.rate * *m / (self.correction * v.sqrt() + self.eps);
        }
    }
}
