//! Several epochs, one after the other, and a look at the model after each.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Evaluation, Mlp, Progress, Samples, Trained, TrainedEpochs, Trainer, TrainingState};

/// The epochs of a [`Trainer::epochs`]. An engine may train several of them before the first is handed out; what
/// [`Epochs::evaluate`], [`Epochs::model`] and [`Epochs::state`] answer is always for the one that was handed out last.
pub struct Epochs<'t, 'd> {
    trainer: &'t mut Trainer<'d>,
    /// The order of samples of an epoch, counted from 0.
    order: Box<dyn FnMut(usize) -> Vec<u32> + 't>,
    batch: usize,
    /// Epochs that were begun, and that there are in all.
    begun: usize,
    all: usize,
    /// Trained and not yet handed out.
    ready: VecDeque<Trained>,
    /// How many of the last that were trained are handed out.
    seen: usize,
    /// How many may be under way while the one that was handed out is evaluated, and the rows of those that are.
    depth: usize,
    under_way: VecDeque<usize>,
    /// Why the one after those that are ready or under way is lost, or could not be submitted.
    failed: Option<Error>,
    /// Whether the trainer has been made ready: an [`Epochs`] before it may have been forgotten.
    entered: bool,
}

impl Drop for Epochs<'_, '_> {
    /// Where not all are handed out, the trainer still shows what it goes on from.
    fn drop(&mut self) {
        // What it cannot show or give back now, the next call will tell.
        let _ = self.trainer.settle();
        if !self.ready.is_empty() {
            let _ = self.trainer.engine.look_at(self.seen + self.ready.len() - 1);
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
        let ready = VecDeque::new();
        Self {
            trainer,
            order,
            batch,
            begun: 0,
            all,
            ready,
            seen: 0,
            depth: 0,
            under_way: VecDeque::new(),
            failed: None,
            entered: false,
        }
    }

    /// Announces that [`Epochs::evaluate`] will be asked of these samples after the epochs. An engine may keep them where it computes,
    /// and train on while it evaluates: then epochs come one by one, not several from one launch. Same results.
    ///
    /// # Errors
    /// As [`Trainer::evaluate`] for samples that do not fit.
    pub fn evaluating(mut self, samples: &'t Samples<'t>) -> Result<Self, Error> {
        self.trainer.check_evaluation(samples)?;
        self.enter()?;
        self.trainer.engine.keep(Some(samples))?;
        self.depth = self.trainer.engine.pipeline().map_or(0, |pipeline| pipeline.depth());
        Ok(self)
    }

    /// Leaves nothing of one that was forgotten.
    fn enter(&mut self) -> Result<(), Error> {
        if !std::mem::replace(&mut self.entered, true) {
            self.trainer.settle()?;
        }
        Ok(())
    }

    /// The next epoch, trained; `None` after the last. Where `stop` is set, the epoch that is under way is the last, or the two that
    /// are ([`Epochs::evaluating`]).
    /// `progress` hears how far an epoch is, as often as the engine finds cheap.
    ///
    /// # Errors
    /// As [`Trainer::epoch`], after which there is no next.
    pub fn next_with(
        &mut self,
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Option<Trained>, Error> {
        self.enter()?;
        if self.depth > 0 && self.ready.is_empty() {
            return self.next_of_many(stop, progress);
        }
        if self.ready.is_empty() && self.begun < self.all && !stop.load(Ordering::Relaxed) {
            self.train(stop, progress)?;
        }
        let Some(trained) = self.ready.pop_front() else { return self.failed.take().map_or(Ok(None), Err) };
        self.trainer.engine.look_at(self.seen)?;
        self.seen += 1;
        Ok(Some(trained))
    }

    /// The next epoch, where others are under way meanwhile. Those that are when `stop` is set are handed out, too.
    fn next_of_many(
        &mut self,
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Option<Trained>, Error> {
        self.submit(stop);
        let (Some(rows), Some(pipeline)) = (self.under_way.pop_front(), self.trainer.engine.pipeline())
        else {
            return self.failed.take().map_or(Ok(None), Err);
        };
        let trained = pipeline.collect().inspect_err(|_| {
            self.begun = self.all;
            self.under_way.clear();
        })?;
        progress(Progress { samples: rows, loss: trained.epoch.loss });
        self.submit(stop); // the device goes on while the caller looks
        Ok(Some(trained))
    }

    /// Submits as many epochs as may be under way. What is wrong with one is told when those before it are handed out.
    fn submit(&mut self, stop: &AtomicBool) {
        while self.under_way.len() < self.depth && self.begun < self.all && !stop.load(Ordering::Relaxed) {
            let order = (self.order)(self.begun);
            let checked = self.trainer.check_epoch(&order, self.batch);
            let Some(pipeline) = self.trainer.engine.pipeline() else { return };
            match checked.and_then(|()| pipeline.submit(&order, self.batch)) {
                Ok(()) => self.under_way.push_back(order.len()),
                Err(error) => {
                    self.failed = Some(error);
                    self.begun = self.all;
                    return;
                }
            }
            self.begun += 1;
        }
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
        let TrainedEpochs { epochs, lost } = trained.inspect_err(|_| self.begun = self.all)?;
        self.begun = if lost.is_some() { self.all } else { self.begun + epochs.len() };
        (self.ready, self.failed, self.seen) = (epochs.into(), lost, 0);
        Ok(())
    }

    /// Loss and accuracy on the given samples after the epoch that was handed out last.
    ///
    /// # Errors
    /// As [`Trainer::evaluate`].
    pub fn evaluate(&mut self, samples: &Samples<'_>) -> Result<Evaluation, Error> {
        self.enter()?;
        self.trainer.evaluate_announced(samples)
    }

    /// The model after the epoch that was handed out last.
    ///
    /// # Errors
    /// As [`Trainer::model`].
    pub fn model(&self) -> Result<Mlp, Error> {
        self.trainer.model()
    }

    /// All that training goes on from after the epoch that was handed out last.
    ///
    /// # Errors
    /// As [`Trainer::state`].
    pub fn state(&self) -> Result<TrainingState, Error> {
        self.trainer.state()
    }
}
