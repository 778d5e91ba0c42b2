//! What every engine does, and what it answers.

use crate::{Error, Mlp, Samples, Tensor};

/// What an epoch came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// Mean of the batch losses, each taken before its update; a tail batch counts as one batch.
    pub loss: f64,
    /// How many batches there were.
    pub steps: usize,
}

/// What a model is worth on some samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// The loss over all samples as one batch.
    pub loss: f64,
    /// Share of the samples whose largest output is their label's; `None` where targets are values.
    pub accuracy: Option<f64>,
}

/// Loss and gradients of one batch, at the parameters as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// The loss of the batch.
    pub loss: f64,
    /// Gradients under their parameters' names, in the order of [`Mlp::tensors`].
    pub tensors: Vec<Tensor>,
}

/// How far an epoch is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Samples trained on so far.
    pub samples: usize,
    /// Mean of the batch losses so far.
    pub loss: f64,
}

/// One way of running a job. [`crate::Trainer`] has checked everything that is passed in.
pub(crate) trait Engine {
    /// What runs and where, for a person: `host, 2 threads`.
    fn describe(&self) -> String;

    /// Trains on `order`, cut into batches of `batch` and a tail.
    fn epoch(
        &mut self,
        order: &[u32],
        batch: usize,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Epoch, Error>;

    /// Loss and gradients of the training samples `rows` as one batch; no update.
    fn gradients(&mut self, rows: &[u32]) -> Result<Gradients, Error>;

    /// Loss and accuracy on other samples.
    fn evaluate(&mut self, samples: &Samples<'_>) -> Result<Evaluation, Error>;

    /// The parameters as they are.
    fn model(&self) -> Result<Mlp, Error>;
}
