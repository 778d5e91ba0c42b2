//! A run on the device: parameters and velocities; and what its epochs need and come to.

use crate::gpu::resident::{Run, Sizes};
use crate::gpu::{Buffer, Gpu, Scalars, SgdOptions, batch_sums};
use crate::graph::{Graph, scalars, sgd_options};
use crate::{Epoch, Error, Optimizer, Schedule, Sgd, Trained, TrainedEpochs};

/// What the buffer of snapshots holds, for a person.
const SNAPSHOTS: &str = "parameters and velocities after each epoch";

/// A run: its options, and what goes on from launch to launch.
pub(super) struct RunState {
    sgd: Sgd,
    schedule: Schedule,
    /// Steps of the run that are done, or under way.
    pub(super) steps: u64,
    /// Steps behind the parameters that the engine evaluates.
    pub(super) seen: u64,
    pub(super) parameters: Buffer<f32>,
    pub(super) velocities: Buffer<f32>,
    pub(super) span: Span,
}

/// What the epochs of one launch need and come to. The buffers are made larger where more epochs are announced.
pub(super) struct Span {
    order: Buffer<u32>,
    scalars: Buffer<Scalars>,
    losses: Buffer<f32>,
    hits: Buffer<u32>,
    step_losses: Buffer<f64>,
    step_hits: Buffer<u32>,
    /// (epochs, 2, parameters): parameters and velocities, where they are to be kept.
    pub(super) snapshots: Option<Buffer<f32>>,
    ended: Buffer<u64>,
}

/// Lets the engine see parameters and velocities, each from some value of a buffer on.
fn show(
    graph: &mut Graph<'_>,
    (parameters, p): (&Buffer<f32>, usize),
    (velocities, v): (&Buffer<f32>, usize),
) -> Result<(), Error> {
    let (gpu, to, to_velocities) = graph.arenas();
    to.copy_from(gpu, parameters, p..p + to.len())?;
    match to_velocities {
        Some(to) => to.copy_from(gpu, velocities, v..v + to.len()),
        None => Ok(()),
    }
}

/// Makes room for `len` values.
fn reserve<T: cudarc::driver::DeviceRepr + cudarc::driver::ValidAsZeroBits>(
    gpu: &Gpu,
    buffer: &mut Buffer<T>,
    what: &'static str,
    len: usize,
) -> Result<(), Error> {
    if buffer.len() < len {
        *buffer = Buffer::new(gpu, what, 0)?; // the old one's memory is free before more is asked for
        *buffer = Buffer::new(gpu, what, len)?;
    }
    Ok(())
}

impl RunState {
    /// A run at rest, from the parameters on that the engine evaluates.
    pub(super) fn new(graph: &mut Graph<'_>, sgd: Sgd, schedule: Schedule) -> Result<Self, Error> {
        let (gpu, arena) = graph.parameters();
        let mut parameters = Buffer::new(gpu, "parameters", arena.len())?;
        parameters.copy_from(gpu, arena, 0..arena.len())?;
        let velocities = Buffer::new(gpu, "velocities", arena.len())?;
        Ok(Self { sgd, schedule, steps: 0, seen: 0, parameters, velocities, span: Span::new(gpu)? })
    }

    /// Goes on from the state that the engine has taken over, which has so many steps behind it.
    pub(super) fn restore(&mut self, graph: &mut Graph<'_>, steps: u64) -> Result<(), Error> {
        let (gpu, parameters, velocities) = graph.arenas();
        self.parameters.copy_from(gpu, parameters, 0..parameters.len())?;
        match velocities {
            Some(velocities) => self.velocities.copy_from(gpu, velocities, 0..velocities.len())?,
            // Kernels multiply them by 0, which leaves infinite ones of a run that has diverged.
            None => self.velocities.clear(gpu)?,
        }
        (self.steps, self.seen) = (steps, steps);
        Ok(())
    }

    /// Keeps parameters and velocities after each epoch of a launch, too.
    pub(super) fn with_snapshots(mut self, gpu: &Gpu) -> Result<Self, Error> {
        self.span = self.span.with_snapshots(gpu)?;
        Ok(self)
    }

    /// Sends the orders of epochs and the learning rates of their steps, which follow those that are done.
    pub(super) fn begin(&mut self, gpu: &Gpu, sizes: &Sizes, orders: &[Vec<u32>]) -> Result<(), Error> {
        let rows = self.scalars(sizes, orders.len());
        self.span.begin(gpu, sizes, &orders.concat(), &rows)
    }

    /// The learning rates of the steps of the next epochs.
    pub(super) fn scalars(&self, sizes: &Sizes, epochs: usize) -> Vec<Scalars> {
        let steps = sizes.rows.div_ceil(sizes.batch) as usize * epochs;
        scalars(&Optimizer::Sgd(self.sgd), &self.schedule, self.steps, steps)
    }

    /// So many epochs are done, or under way.
    pub(super) fn went_on(&mut self, sizes: &Sizes, epochs: usize) {
        self.steps += (epochs * sizes.rows.div_ceil(sizes.batch) as usize) as u64;
    }

    /// Lets the engine see the parameters and velocities as they are.
    pub(super) fn show(&mut self, graph: &mut Graph<'_>) -> Result<(), Error> {
        show(graph, (&self.parameters, 0), (&self.velocities, 0))?;
        self.seen = self.steps;
        Ok(())
    }

    /// What the kernel is told of it.
    pub(super) fn run(&self) -> Run<'_> {
        self.run_over(&self.span)
    }

    /// The same for the epochs of another span.
    pub(super) fn run_over<'b>(&'b self, span: &'b Span) -> Run<'b> {
        let SgdOptions { weight_decay: decay, gradient_share, velocity_share } = sgd_options(&self.sgd);
        Run {
            parameters: self.parameters.all(),
            velocities: self.velocities.all(),
            order: span.order.all(),
            scalars: span.scalars.all(),
            losses: span.losses.all(),
            hits: span.hits.all(),
            snapshots: span.snapshots.as_ref().map(Buffer::all),
            ended: span.ended.all(),
            decay,
            gradient_share,
            velocity_share,
        }
    }

    /// What the first `epochs` epochs came to, up to one that has a loss that is not finite. Seconds are the device's.
    pub(super) fn end(&mut self, gpu: &Gpu, sizes: &Sizes, epochs: usize) -> Result<TrainedEpochs, Error> {
        self.went_on(sizes, epochs);
        self.span.end(gpu, sizes, &self.span.ended(gpu, epochs)?)
    }
}

impl Span {
    pub(super) fn new(gpu: &Gpu) -> Result<Self, Error> {
        Ok(Self {
            order: Buffer::new(gpu, "the order of samples", 0)?,
            scalars: Buffer::new(gpu, "learning rates", 0)?,
            losses: Buffer::new(gpu, "losses", 0)?,
            hits: Buffer::new(gpu, "hits", 0)?,
            step_losses: Buffer::new(gpu, "losses of steps", 0)?,
            step_hits: Buffer::new(gpu, "hits of steps", 0)?,
            snapshots: None,
            ended: Buffer::new(gpu, "times of epochs", 0)?,
        })
    }

    /// Keeps parameters and velocities after each epoch, too.
    pub(super) fn with_snapshots(mut self, gpu: &Gpu) -> Result<Self, Error> {
        self.snapshots = Some(Buffer::new(gpu, SNAPSHOTS, 0)?);
        Ok(self)
    }

    /// Makes room for the epochs and sends their order and the scalars of their steps.
    pub(super) fn begin(
        &mut self,
        gpu: &Gpu,
        sizes: &Sizes,
        order: &[u32],
        rows: &[Scalars],
    ) -> Result<(), Error> {
        let epochs = sizes.epochs as usize;
        reserve(gpu, &mut self.order, "the order of samples", order.len())?;
        reserve(gpu, &mut self.scalars, "learning rates", rows.len())?;
        reserve(gpu, &mut self.losses, "losses", order.len())?;
        reserve(gpu, &mut self.hits, "hits", order.len())?;
        reserve(gpu, &mut self.step_losses, "losses of steps", rows.len())?;
        reserve(gpu, &mut self.step_hits, "hits of steps", rows.len())?;
        if let Some(snapshots) = &mut self.snapshots {
            reserve(gpu, snapshots, SNAPSHOTS, epochs * sizes.snapshot())?;
        }
        reserve(gpu, &mut self.ended, "times of epochs", 1 + epochs)?;
        self.order.upload(gpu, order)?;
        self.scalars.upload(gpu, rows)
    }

    /// Lets the engine see the parameters and velocities after an epoch, counted from 0.
    pub(super) fn show(&self, graph: &mut Graph<'_>, epoch: usize) -> Result<(), Error> {
        let Some(snapshots) = &self.snapshots else { return Ok(()) };
        let len = graph.parameters().1.len();
        show(graph, (snapshots, 2 * epoch * len), (snapshots, (2 * epoch + 1) * len))
    }

    /// When the first of so many epochs began and each ended, in nanoseconds of the device.
    pub(super) fn ended(&self, gpu: &Gpu, epochs: usize) -> Result<Vec<u64>, Error> {
        let mut ended = vec![0u64; 1 + epochs];
        self.ended.download(gpu, &mut ended)?;
        Ok(ended)
    }

    /// Sum of the losses of each step of the first `epochs` epochs.
    pub(super) fn sums(&self, gpu: &Gpu, sizes: &Sizes, epochs: usize) -> Result<Vec<f64>, Error> {
        let (rows, steps) = (sizes.rows as usize, sizes.rows.div_ceil(sizes.batch) as usize);
        for epoch in 0..epochs {
            let (of_rows, of_steps) = (epoch * rows..(epoch + 1) * rows, epoch * steps..(epoch + 1) * steps);
            batch_sums(
                gpu,
                self.losses.part(of_rows.clone()),
                self.hits.part(of_rows),
                self.step_losses.part(of_steps.clone()),
                self.step_hits.part(of_steps),
                sizes.rows,
                sizes.batch,
            )?;
        }
        let mut sums = vec![0.0; epochs * steps];
        self.step_losses.download(gpu, &mut sums)?;
        Ok(sums)
    }

    /// What the first epochs came to, up to one that has a loss that is not finite. Seconds are the device's, of times as
    /// [`Span::ended`] gives them.
    pub(super) fn end(&self, gpu: &Gpu, sizes: &Sizes, ended: &[u64]) -> Result<TrainedEpochs, Error> {
        let (rows, batch) = (sizes.rows as usize, sizes.batch as usize);
        let steps = rows.div_ceil(batch);
        let sums = self.sums(gpu, sizes, ended.len() - 1)?;
        let mut trained = TrainedEpochs::default();
        for (sums, ends) in sums.chunks(steps).zip(ended.windows(2)) {
            let epoch = match Epoch::of_sums(sums, rows, batch) {
                Ok(epoch) => epoch,
                Err(error) => {
                    trained.lost = Some(error);
                    break;
                }
            };
            let seconds = ends[1].saturating_sub(ends[0]) as f64 * 1e-9;
            trained.epochs.push(Trained { epoch, seconds, device_seconds: Some(seconds) });
        }
        Ok(trained)
    }
}
