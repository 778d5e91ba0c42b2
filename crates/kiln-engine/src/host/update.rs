//! The optimizer's arithmetic, one value after the other, on whatever stretch of parameters is in cache.

use crate::Sgd;

/// The optimizer's options in the precision of the parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Update {
    lr: f32,
    /// 0 at the first step, where the velocity is the gradient.
    momentum: f32,
    /// 1 - dampening, and 1 at the first step.
    fresh: f32,
    weight_decay: f32,
    rule: Rule,
    /// The momentum that Nesterov's look-ahead uses, at the first step too.
    look_ahead: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    Plain,
    Momentum,
    Nesterov,
}

impl Update {
    /// The update of a step; `first` is the very first one, whose velocity has no past.
    pub(crate) fn new(sgd: &Sgd, first: bool) -> Self {
        let rule = match (sgd.momentum != 0.0, sgd.nesterov) {
            (false, _) => Rule::Plain,
            (true, false) => Rule::Momentum,
            (true, true) => Rule::Nesterov,
        };
        Self {
            lr: sgd.lr as f32,
            momentum: if first { 0.0 } else { sgd.momentum as f32 },
            fresh: if first { 1.0 } else { (1.0 - sgd.dampening) as f32 },
            weight_decay: sgd.weight_decay as f32,
            rule,
            look_ahead: sgd.momentum as f32,
        }
    }

    /// Moves parameters `p` along their gradients `g`. The velocities `v` are as many, or none without momentum.
    #[inline(always)]
    pub(crate) fn apply(&self, p: &mut [f32], v: &mut [f32], g: &[f32]) {
        match self.rule {
            Rule::Plain => {
                for (p, &g) in p.iter_mut().zip(g) {
                    *p -= self.lr * (g + self.weight_decay * *p);
                }
            }
            Rule::Momentum => {
                for ((p, v), &g) in p.iter_mut().zip(v).zip(g) {
                    *v = self.momentum * *v + self.fresh * (g + self.weight_decay * *p);
                    *p -= self.lr * *v;
                }
            }
            Rule::Nesterov => {
                for ((p, v), &g) in p.iter_mut().zip(v).zip(g) {
                    let g = g + self.weight_decay * *p;
                    *v = self.momentum * *v + self.fresh * g;
                    *p -= self.lr * (g + self.look_ahead * *v);
                }
            }
        }
    }
}
