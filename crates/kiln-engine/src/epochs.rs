//! Several epochs, one after the other, and a look at the model after each.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Evaluation, Mlp, Progress, Samples, Trained, Trainer};

/// The epochs of a [`Trainer::epochs`]. An engine may train several of them before the first is handed out; what
/// [`Epochs::evaluate`] and [`Epochs::model`] answer is always for the one that was handed out last.
pub struct Epochs<'t, 'd> {
    trainer: &'t mut Trainer<'d>,
    /// The order of samples of an epoch, counted from 0.
    order: Box<dyn FnMut(usize) -> Vec<u32> + 't>,
    batch: usize,
    /// Epochs that were begun, and that there are in all.
    begun: usize,
    all: usize,
    /// Trained and not yet handed out.
    ready: VecDeque<Result<Trained, Error>>,
    /// How many of the last that were trained are handed out.
    seen: usize,
}

impl Drop for Epochs<'_, '_> {
    /// Where not all are handed out, the trainer still shows what it goes on from.
    fn drop(&mut self) {
        let trained = self.seen + self.ready.iter().filter(|trained| trained.is_ok()).count();
        if trained > self.seen {
            // What it cannot show now, the next call will tell.
            let _ = self.trainer.engine.look_at(trained - 1);
        }
    }
}

impl<'t, 'd> Epochs<'t, 'd> {
    pub(crate) fn new(
        trainer: &'t mut Trainer<'d>,
        all: usize,
        batch: usize,
        order: Box<dyn FnMut(usize) -> Vec<u32> + 't>,
    ) -> Self {
        Self { trainer, order, batch, begun: 0, all, ready: VecDeque::new(), seen: 0 }
    }

    /// The next epoch, trained; `None` after the last. Where `stop` is set, the epoch that is under way is the last.
    /// `progress` hears how far an epoch is, as often as the engine finds cheap.
    ///
    /// # Errors
    /// As [`Trainer::epoch`], after which there is no next.
    pub fn next_with(
        &mut self,
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Option<Trained>, Error> {
        if self.ready.is_empty() {
            if self.begun == self.all || stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            self.train(stop, progress)?;
        }
        let trained = self.ready.pop_front().transpose()?;
        if trained.is_some() {
            self.trainer.engine.look_at(self.seen)?;
            self.seen += 1;
        }
        Ok(trained)
    }

    fn train(&mut self, stop: &AtomicBool, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<(), Error> {
        let first = (self.order)(self.begun);
        self.trainer.check_epoch(&first, self.batch)?;
        let together = self.trainer.engine.together(first.len(), self.batch);
        let mut orders = vec![first];
        while orders.len() < together.min(self.all - self.begun) {
            let order = (self.order)(self.begun + orders.len());
            self.trainer.check_epoch(&order, self.batch)?;
            orders.push(order);
        }
        let trained = self.trainer.engine.epochs(&orders, self.batch, stop, progress);
        // Whatever came of it, there is no way back to an epoch that may have been trained.
        self.begun = trained.as_ref().map_or(self.all, |trained| self.begun + trained.len());
        self.ready = trained?.into();
        self.seen = 0;
        if self.ready.iter().any(Result::is_err) {
            self.begun = self.all;
        }
        Ok(())
    }

    /// Loss and accuracy on the given samples after the epoch that was handed out last.
    ///
    /// # Errors
    /// As [`Trainer::evaluate`].
    pub fn evaluate(&mut self, samples: &Samples<'_>) -> Result<Evaluation, Error> {
        self.trainer.evaluate(samples)
    }

    /// The model after the epoch that was handed out last.
    ///
    /// # Errors
    /// As [`Trainer::model`].
    pub fn model(&self) -> Result<Mlp, Error> {
        self.trainer.model()
    }
}
