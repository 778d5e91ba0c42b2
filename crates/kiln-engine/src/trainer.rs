//! The face of the crate: a job, and the trainer that runs it.

use crate::engine::Engine;
use crate::graph::{Graph, GraphOptions};
use crate::host::Host;
use crate::resident::{Resident, ResidentOptions};
use crate::{
    Epoch, Epochs, Error, Evaluation, Gradients, Loss, Mlp, Optimizer, Progress, Samples, Schedule,
    TrainingState,
};

/// What to train, how, and on what.
#[derive(Debug, Clone, PartialEq)]
pub struct Job<'d> {
    /// The model, with its initial parameters.
    pub model: Mlp,
    /// What is minimised.
    pub loss: Loss,
    /// How it is minimised.
    pub optimizer: Optimizer,
    /// The learning rate of each step, from the optimizer's. Steps are counted over all epochs of a [`Trainer`], and of those before
    /// it whose state it took over.
    pub schedule: Schedule,
    /// The training samples.
    pub train: Samples<'d>,
}

impl Job<'_> {
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.optimizer.check()?;
        self.schedule.check()?;
        self.train.check_for(self.model.layers(), self.loss)
    }
}

/// How many of `available` threads [`Trainer::host`] can keep busy with a model: one for every block of units.
pub fn host_threads(model: &Mlp, available: usize) -> usize {
    crate::host::useful_threads(model).min(available).max(1)
}

/// Runs a [`Job`] on an engine. Everything that comes in is checked here, once, for all engines.
pub struct Trainer<'d> {
    pub(crate) engine: Box<dyn Engine + 'd>,
    layers: Vec<usize>,
    loss: Loss,
    optimizer: Optimizer,
    samples: usize,
}

impl<'d> Trainer<'d> {
    /// A trainer on the CPU, on so many threads, but no more than [`host_threads`] finds work for. Results do not
    /// depend on their number, bit for bit.
    ///
    /// # Errors
    /// What is wrong with the job, [`Error::Threads`] or [`Error::OutOfMemory`].
    pub fn host(job: Job<'d>, threads: usize) -> Result<Self, Error> {
        job.check()?;
        let threads = host_threads(&job.model, threads);
        Self::new(job, |job| Ok(Box::new(Host::new(job, threads)?)))
    }

    /// A trainer on a GPU, with a training step captured in a CUDA graph.
    ///
    /// # Errors
    /// What is wrong with the job; [`Error::NoGpu`], [`Error::DriverBroken`], [`Error::DriverTooOld`] or [`Error::Capability`]
    /// where there is no device that it could run on; [`Error::DeviceMemory`]; [`Error::Gpu`] for what else the driver refuses.
    pub fn graph(job: Job<'d>, options: &GraphOptions) -> Result<Self, Error> {
        job.check()?;
        Self::new(job, |job| Ok(Box::new(Graph::new(job, *options)?)))
    }

    /// A trainer on a GPU that runs whole epochs in one launch, for models with one hidden layer of at most 256 units: see
    /// [`crate::resident_fits`].
    ///
    /// # Errors
    /// As [`Trainer::graph`], and [`Error::Resident`] for a job or a device that it is not made for.
    pub fn resident(job: Job<'d>, options: &ResidentOptions) -> Result<Self, Error> {
        job.check()?;
        Self::new(job, |job| Ok(Box::new(Resident::new(job, *options)?)))
    }

    /// A trainer on the engine that is made of a job that has been checked.
    fn new(
        job: Job<'d>,
        engine: impl FnOnce(Job<'d>) -> Result<Box<dyn Engine + 'd>, Error>,
    ) -> Result<Self, Error> {
        let layers = job.model.layers().to_vec();
        let (loss, optimizer, samples) = (job.loss, job.optimizer, job.train.len());
        Ok(Self { engine: engine(job)?, layers, loss, optimizer, samples })
    }

    /// What runs and where, for a person.
    pub fn describe(&self) -> String {
        self.engine.describe()
    }

    /// Trains once over the samples that `order` names, in batches of `batch`; the last may be smaller.
    ///
    /// # Errors
    /// [`Error::Batch`], [`Error::Empty`] and [`Error::Order`] for bad input, before anything is trained;
    /// [`Error::DeviceMemory`] and [`Error::Gpu`] where a device has no room for it, or refuses its kernels, before that, too;
    /// [`Error::Diverged`] where a loss is not finite, after which the parameters are lost; [`Error::Fault`] where a device
    /// failed, after which they are, too.
    pub fn epoch(&mut self, order: &[u32], batch: usize) -> Result<Epoch, Error> {
        self.epoch_with(order, batch, &mut |_| ())
    }

    /// As [`Trainer::epoch`], and tells how far it is, as often as the engine finds cheap.
    ///
    /// # Errors
    /// As [`Trainer::epoch`].
    pub fn epoch_with(
        &mut self,
        order: &[u32],
        batch: usize,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Epoch, Error> {
        self.check_epoch(order, batch)?;
        self.settle()?;
        self.engine.epoch(order, batch, progress)
    }

    /// Trains `epochs` times over the samples that `order` names for each epoch, counted from 0. The engine may take several
    /// epochs at once; [`Epochs`] hands them out one by one.
    pub fn epochs<'t>(
        &'t mut self,
        epochs: usize,
        batch: usize,
        order: impl FnMut(usize) -> Vec<u32> + 't,
    ) -> Epochs<'t, 'd> {
        Epochs::new(self, epochs, batch, Box::new(order))
    }

    /// Loss and gradients of the training samples `rows`, taken as one batch. Trains nothing.
    ///
    /// # Errors
    /// [`Error::Empty`] and [`Error::Order`] for bad input.
    pub fn gradients(&mut self, rows: &[u32]) -> Result<Gradients, Error> {
        check_order(rows, self.samples)?;
        self.settle()?;
        self.engine.gradients(rows)
    }

    /// Loss and accuracy on the given samples. Trains nothing.
    ///
    /// # Errors
    /// What does not fit between samples, model and loss; [`Error::EvaluationDiverged`]; [`Error::DeviceMemory`] and [`Error::Gpu`] of
    /// a device.
    pub fn evaluate(&mut self, samples: &Samples<'_>) -> Result<Evaluation, Error> {
        self.settle()?;
        self.evaluate_announced(samples)
    }

    /// Leaves nothing of an [`Epochs`]: none is under way, and what it has announced need not be there any more.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        let settled = self.engine.settle();
        self.engine.keep(None).and(settled)
    }

    /// [`Trainer::evaluate`] where samples that were announced are as they were.
    pub(crate) fn evaluate_announced(&mut self, samples: &Samples<'_>) -> Result<Evaluation, Error> {
        evaluate(&mut *self.engine, &self.layers, self.loss, samples)
    }

    /// The model with its parameters as they are now.
    ///
    /// # Errors
    /// [`Error::Gpu`] where they lie on a device that does not hand them out.
    pub fn model(&self) -> Result<Mlp, Error> {
        self.engine.model()
    }

    /// All that training goes on from, as it is now: see [`Trainer::restore`]. (After an [`Epochs`] that was forgotten, not dropped, as
    /// after the epoch that it handed out last, until something is trained or evaluated.)
    ///
    /// # Errors
    /// As [`Trainer::model`].
    pub fn state(&self) -> Result<TrainingState, Error> {
        self.engine.state()
    }

    /// Takes over the parameters, the optimizer's moments and the count of steps of another trainer of the same layers and the same
    /// kind of optimizer. Schedules go on from that step.
    ///
    /// ```
    /// # use kiln_engine::{Job, Loss, Mlp, Samples, Schedule, Sgd, Targets, Trainer};
    /// # let (pixels, labels) = ([0u8, 255, 255, 0, 128, 7], [0u8, 1, 0]);
    /// # let train = Samples::pixels(&pixels, 2, Targets::Labels(&labels))?;
    /// # let optimizer = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.into();
    /// # let model = Mlp::new(&[2, 8, 2], 0)?;
    /// # let job = Job { model, loss: Loss::CrossEntropy, optimizer, schedule: Schedule::default(), train };
    /// let mut trainer = Trainer::host(job.clone(), 1)?;
    /// trainer.epoch(&[2, 0, 1], 2)?;
    /// let state = trainer.state()?;
    ///
    /// let mut other = Trainer::host(job, 1)?;
    /// other.restore(&state)?;
    /// assert_eq!(other.epoch(&[1, 2, 0], 2)?, trainer.epoch(&[1, 2, 0], 2)?);
    /// assert_eq!(other.state()?, trainer.state()?);
    /// # Ok::<(), kiln_engine::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::State`] where it is not of such a trainer, before anything is taken over; [`Error::OutOfMemory`]; [`Error::Gpu`].
    pub fn restore(&mut self, state: &TrainingState) -> Result<(), Error> {
        state.check_for(&self.layers, &self.optimizer)?;
        self.settle()?;
        self.engine.restore(state)
    }

    pub(crate) fn check_evaluation(&self, samples: &Samples<'_>) -> Result<(), Error> {
        samples.check_for(&self.layers, self.loss)
    }

    pub(crate) fn check_epoch(&self, order: &[u32], batch: usize) -> Result<(), Error> {
        check_epoch(order, batch, self.samples)
    }
}

/// Checks that an epoch can be trained on so many samples.
pub(crate) fn check_epoch(order: &[u32], batch: usize, samples: usize) -> Result<(), Error> {
    if batch == 0 {
        return Err(Error::Batch);
    }
    check_order(order, samples)
}

fn check_order(order: &[u32], samples: usize) -> Result<(), Error> {
    if order.is_empty() {
        return Err(Error::Empty { what: "order" });
    }
    if order.len() > u32::MAX as usize {
        return Err(Error::OrderLength { found: order.len() });
    }
    match order.iter().position(|&row| row as usize >= samples) {
        Some(position) => Err(Error::Order { position, samples, found: order[position] }),
        None => Ok(()),
    }
}

/// Loss and accuracy of an engine's parameters on samples, which are checked for the model and the loss of its job.
pub(crate) fn evaluate(
    engine: &mut dyn Engine,
    layers: &[usize],
    loss: Loss,
    samples: &Samples<'_>,
) -> Result<Evaluation, Error> {
    samples.check_for(layers, loss)?;
    let evaluation = engine.evaluate(samples)?;
    if evaluation.loss.is_finite() {
        Ok(evaluation)
    } else {
        Err(Error::EvaluationDiverged { loss: evaluation.loss })
    }
}
