//! SGD and AdamW over candle's tensors, written down as PyTorch's documentation has them.

use candle_core::Tensor;

/// How a loss is minimised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// `torch.optim.SGD`.
    Sgd(Sgd),
    /// `torch.optim.AdamW`.
    AdamW(AdamW),
}

/// `torch.optim.SGD`: weight decay is added to the gradient; `v = g` first, then
/// `v = momentum v + (1 - dampening) g`; `p -= lr v`, or `p -= lr (g + momentum v)` with `nesterov`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Momentum; without it there is no velocity, and dampening has no effect.
    pub momentum: f64,
    /// Dampening of the gradient that enters the velocity.
    pub dampening: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
}

/// `torch.optim.AdamW`: `p *= 1 - lr weight_decay`; the moments `m` and `v` are running means of `g` and `g²`, from zero; with
/// both over what they still lack, `1 - beta^t`, `p -= lr m / (sqrt(v) + eps)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Shares of the two moments that are kept.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
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

impl Optimizer {
    pub(crate) fn lr(&self) -> f64 {
        match self {
            Optimizer::Sgd(sgd) => sgd.lr,
            Optimizer::AdamW(adamw) => adamw.lr,
        }
    }
}

/// What an optimizer keeps of one parameter; nothing before the first step.
#[derive(Default)]
pub(crate) struct State {
    /// Velocity, or first moment.
    first: Option<Tensor>,
    /// Second moment.
    second: Option<Tensor>,
    /// Steps of AdamW.
    steps: i32,
}

impl State {
    /// The parameter `p` after a step along the gradient `g`.
    pub(crate) fn moved(
        &mut self,
        optimizer: &Optimizer,
        lr: f64,
        p: &Tensor,
        g: &Tensor,
    ) -> Result<Tensor, candle_core::Error> {
        match optimizer {
            Optimizer::Sgd(sgd) => self.sgd(sgd, lr, p, g),
            Optimizer::AdamW(adamw) => self.adamw(adamw, lr, p, g),
        }
    }

    fn sgd(&mut self, sgd: &Sgd, lr: f64, p: &Tensor, g: &Tensor) -> Result<Tensor, candle_core::Error> {
        let g = (g + (p * sgd.weight_decay)?)?;
        let along = if sgd.momentum == 0.0 {
            g
        } else {
            let velocity = match self.first.take() {
                None => g.clone(),
                Some(old) => ((old * sgd.momentum)? + (&g * (1.0 - sgd.dampening))?)?,
            };
            self.first = Some(velocity.clone());
            if sgd.nesterov { (g + (velocity * sgd.momentum)?)? } else { velocity }
        };
        p - (along * lr)?
    }

    fn adamw(
        &mut self,
        adamw: &AdamW,
        lr: f64,
        p: &Tensor,
        g: &Tensor,
    ) -> Result<Tensor, candle_core::Error> {
        let [beta1, beta2] = adamw.betas;
        let mean = |old: Option<Tensor>, share: f64, new: Tensor| match old {
            None => new * (1.0 - share),
            Some(old) => (old * share)? + (new * (1.0 - share))?,
        };
        let m = mean(self.first.take(), beta1, g.clone())?;
        let v = mean(self.second.take(), beta2, g.sqr()?)?;
        (self.first, self.second) = (Some(m.clone()), Some(v.clone()));
        self.steps += 1;
        let (m, v) = ((m / (1.0 - beta1.powi(self.steps)))?, (v / (1.0 - beta2.powi(self.steps)))?);
        let decayed = (p * (1.0 - lr * adamw.weight_decay))?;
        decayed - ((m / (v.sqrt()? + adamw.eps)?)? * lr)?
    }
}
