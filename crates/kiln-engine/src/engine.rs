//! What every engine does, and what it answers.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::{Error, Mlp, Samples, Tensor, TrainingState};

/// What an epoch came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// Mean of the batch losses, each taken before its update; a tail batch counts as one batch.
    pub loss: f64,
    /// How many batches there were.
    pub steps: usize,
}

impl Epoch {
    /// What an epoch of `rows` samples in batches of `batch` came to, from the sum of the losses of each batch.
    ///
    /// # Errors
    /// [`Error::Diverged`] for the first that is not finite.
    pub(crate) fn of_sums(sums: &[f64], rows: usize, batch: usize) -> Result<Self, Error> {
        let mut total = 0.0;
        for (step, sum) in sums.iter().enumerate() {
            let loss = sum / (rows - step * batch).min(batch) as f64;
            if !loss.is_finite() {
                return Err(Error::Diverged { step, loss });
            }
            total += loss;
        }
        Ok(Self { loss: total / sums.len() as f64, steps: sums.len() })
    }
}

/// An epoch, and what it took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trained {
    /// What it came to.
    pub epoch: Epoch,
    /// Seconds of training alone by the host's clock, which waits for it. Those of epochs that were trained at once are shared out
    /// as the device's clock has it; those of epochs that were trained while others were looked at are the device's, from the end of
    /// one to the end of the next.
    pub seconds: f64,
    /// Seconds by the clock of the device, where that trains whole epochs on its own.
    pub device_seconds: Option<f64>,
}

/// Epochs of a run, one after the other, and what ended them early, if something did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainedEpochs {
    /// Those that were trained.
    pub epochs: Vec<Trained>,
    /// Why the one after them is lost, and with it the run.
    pub lost: Option<Error>,
}

impl TrainedEpochs {
    /// All of them, where none is lost.
    pub(crate) fn whole(self) -> Result<Vec<Trained>, Error> {
        self.lost.map_or(Ok(self.epochs), Err)
    }
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

    /// Before the clock of an epoch of `rows` rows in such batches starts: makes ready what is not there and is no part of training.
    fn prepare(&mut self, _rows: usize, _batch: usize) -> Result<(), Error> {
        Ok(())
    }

    /// How many epochs of so many rows it likes to train at once.
    fn together(&self, _rows: usize, _batch: usize) -> usize {
        1
    }

    /// Trains on at least the first of `orders`, an epoch each, and on all where there are no more than [`Engine::together`]
    /// says, unless one is lost. Where `stop` is set meanwhile, it may end after an epoch.
    fn epochs(
        &mut self,
        orders: &[Vec<u32>],
        batch: usize,
        _stop: &AtomicBool,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<TrainedEpochs, Error> {
        self.prepare(orders[0].len(), batch)?;
        let started = Instant::now();
        let epoch = self.epoch(&orders[0], batch, progress)?;
        let seconds = started.elapsed().as_secs_f64();
        let epochs = vec![Trained { epoch, seconds, device_seconds: None }];
        Ok(TrainedEpochs { epochs, lost: None })
    }

    /// How it trains while [`Engine::evaluate`] and [`Engine::model`] see an earlier epoch; `None` where it trains and is looked at by
    /// turns.
    fn pipeline(&mut self) -> Option<&mut dyn Pipeline> {
        None
    }

    /// Waits for all epochs of its [`Pipeline`] that are under way, of which the last is seen from then on.
    fn settle(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Samples that evaluations to come are of, and that do not change until the next call: none, or these.
    fn keep(&mut self, _samples: Option<&Samples<'_>>) -> Result<(), Error> {
        Ok(())
    }

    /// Lets [`Engine::evaluate`] and [`Engine::model`] see the parameters after one of the last [`Engine::epochs`].
    fn look_at(&mut self, _epoch: usize) -> Result<(), Error> {
        Ok(())
    }

    /// Loss and gradients of the training samples `rows` as one batch; no update.
    fn gradients(&mut self, rows: &[u32]) -> Result<Gradients, Error>;

    /// Loss and accuracy on other samples.
    fn evaluate(&mut self, samples: &Samples<'_>) -> Result<Evaluation, Error>;

    /// The parameters as they are.
    fn model(&self) -> Result<Mlp, Error>;

    /// The parameters as they are, and what belongs to them.
    fn state(&self) -> Result<TrainingState, Error>;

    /// Takes over what [`Engine::state`] gave for a job of the same layers and optimizer. No epoch is under way.
    fn restore(&mut self, state: &TrainingState) -> Result<(), Error>;
}

/// Epochs that are under way while an earlier one is looked at.
pub(crate) trait Pipeline {
    /// How many may be under way.
    fn depth(&self) -> usize;

    /// Submits an epoch, of `order` in batches of `batch`, behind those that are under way, which are fewer than [`Pipeline::depth`].
    fn submit(&mut self, order: &[u32], batch: usize) -> Result<(), Error>;

    /// Waits for the first of the epochs that are under way, which is seen from then on. After an error none is under way.
    fn collect(&mut self) -> Result<Trained, Error>;
}
