//! What a batch and an epoch need on the device, made once and made larger where a larger one is announced.

use super::Batch;
use crate::gpu::{Buffer, Gpu, Position, Region, Scalars, Source, Wanted};
use crate::{Error, Inputs, Loss, Samples, Targets};

/// Activations and their gradients, the epoch's order, and what its rows come to.
pub(super) struct Arenas {
    widths: Vec<usize>,
    /// Rows that a batch may have.
    batch: usize,
    /// Rows, and so at most steps, that an epoch may have.
    rows: usize,
    /// Outputs (B, N) of each layer; those of the last become the gradient there when the loss is taken.
    pub(super) outputs: Vec<Buffer<f32>>,
    /// Gradients (B, N) at the outputs of each layer but the last.
    deltas: Vec<Buffer<f32>>,
    /// (rows) samples.
    order: Buffer<u32>,
    /// (1): steps of the epoch that are done.
    pub(super) step: Buffer<u32>,
    /// (steps) learning rate and momentum.
    pub(super) scalars: Buffer<Scalars>,
    /// (rows)
    pub(super) losses: Buffer<f32>,
    /// (rows)
    pub(super) hits: Buffer<u32>,
    /// (steps)
    pub(super) step_losses: Buffer<f64>,
    /// (steps)
    pub(super) step_hits: Buffer<u32>,
}

impl Arenas {
    /// Empty arenas for a model of these widths.
    pub(super) fn new(gpu: &Gpu, widths: &[usize]) -> Result<Self, Error> {
        Ok(Self {
            widths: widths.to_vec(),
            batch: 0,
            rows: 0,
            outputs: Vec::new(),
            deltas: Vec::new(),
            order: Buffer::new(gpu, "the order of samples", 0)?,
            step: Buffer::new(gpu, "the step counter", 1)?,
            scalars: Buffer::new(gpu, "learning rates", 0)?,
            losses: Buffer::new(gpu, "losses", 0)?,
            hits: Buffer::new(gpu, "hits", 0)?,
            step_losses: Buffer::new(gpu, "losses of steps", 0)?,
            step_hits: Buffer::new(gpu, "hits of steps", 0)?,
        })
    }

    /// Makes room for batches of so many rows in epochs of so many; whether anything has moved.
    pub(super) fn reserve(&mut self, gpu: &Gpu, batch: usize, rows: usize) -> Result<bool, Error> {
        let (wider, longer) = (batch > self.batch, rows > self.rows);
        if wider {
            let arena = |width: &usize| Buffer::new(gpu, "activations", batch.saturating_mul(*width));
            let outputs = &self.widths[1..];
            self.batch = 0;
            (self.outputs, self.deltas) = (Vec::new(), Vec::new()); // their memory is free before more is asked for
            self.outputs = outputs.iter().map(arena).collect::<Result<_, _>>()?;
            self.deltas = outputs[..outputs.len() - 1].iter().map(arena).collect::<Result<_, _>>()?;
            self.batch = batch;
        }
        if longer {
            self.rows = 0;
            self.order = Buffer::new(gpu, "the order of samples", rows)?;
            self.scalars = Buffer::new(gpu, "learning rates", rows)?;
            self.losses = Buffer::new(gpu, "losses", rows)?;
            self.hits = Buffer::new(gpu, "hits", rows)?;
            self.step_losses = Buffer::new(gpu, "losses of steps", rows)?;
            self.step_hits = Buffer::new(gpu, "hits of steps", rows)?;
            self.rows = rows;
        }
        Ok(wider || longer)
    }

    /// Begins an epoch.
    pub(super) fn begin(&mut self, gpu: &Gpu, order: &[u32], scalars: &[Scalars]) -> Result<(), Error> {
        self.order.upload(gpu, order)?;
        self.scalars.upload(gpu, scalars)?;
        self.step.clear(gpu)
    }

    /// Where a batch stands in the epoch that has begun.
    pub(super) fn position(&self, batch: Batch) -> Position<'_> {
        Position { order: self.order.all(), step: self.step.all(), slot: batch.slot, batch: batch.stride }
    }

    /// The gradient (B, N) at the outputs of a layer.
    pub(super) fn delta(&self, layer: usize) -> Region<'_, f32> {
        self.deltas.get(layer).unwrap_or(&self.outputs[self.outputs.len() - 1]).all()
    }
}

/// Samples on the device, in the form that they have on the host.
pub(super) struct Feed {
    inputs: DeviceInputs,
    targets: DeviceTargets,
}

enum DeviceInputs {
    Pixels(Buffer<u8>),
    Floats(Buffer<f32>),
}

enum DeviceTargets {
    Labels(Buffer<u8>),
    Values(Buffer<f32>),
}

impl Feed {
    /// Copies samples to the device.
    pub(super) fn new(gpu: &Gpu, samples: &Samples<'_>) -> Result<Self, Error> {
        let inputs = match samples.inputs() {
            Inputs::Pixels(pixels) => DeviceInputs::Pixels(Buffer::with(gpu, "the data set", pixels)?),
            Inputs::Floats(floats) => DeviceInputs::Floats(Buffer::with(gpu, "the data set", floats)?),
        };
        let targets = match samples.targets() {
            Targets::Labels(labels) => DeviceTargets::Labels(Buffer::with(gpu, "labels", labels)?),
            Targets::Values(values) => DeviceTargets::Values(Buffer::with(gpu, "targets", values)?),
        };
        Ok(Self { inputs, targets })
    }

    /// Whether so many rows of these samples can take the place of those that are there.
    pub(super) fn fits(&self, samples: &Samples<'_>, rows: usize) -> bool {
        let one = samples.rows(0..rows.min(samples.len()));
        let inputs = match (&self.inputs, one.inputs()) {
            (DeviceInputs::Pixels(buffer), Inputs::Pixels(pixels)) => pixels.len() <= buffer.len(),
            (DeviceInputs::Floats(buffer), Inputs::Floats(floats)) => floats.len() <= buffer.len(),
            _ => false,
        };
        let targets = match (&self.targets, one.targets()) {
            (DeviceTargets::Labels(buffer), Targets::Labels(labels)) => labels.len() <= buffer.len(),
            (DeviceTargets::Values(buffer), Targets::Values(values)) => values.len() <= buffer.len(),
            _ => false,
        };
        inputs && targets
    }

    /// Puts other samples, no more of them, in the place of those that are there.
    pub(super) fn load(&mut self, gpu: &Gpu, samples: &Samples<'_>) -> Result<(), Error> {
        match (&mut self.inputs, samples.inputs()) {
            (DeviceInputs::Pixels(buffer), Inputs::Pixels(pixels)) => buffer.upload(gpu, pixels)?,
            (DeviceInputs::Floats(buffer), Inputs::Floats(floats)) => buffer.upload(gpu, floats)?,
            _ => unreachable!("samples of another form do not fit"),
        }
        match (&mut self.targets, samples.targets()) {
            (DeviceTargets::Labels(buffer), Targets::Labels(labels)) => buffer.upload(gpu, labels),
            (DeviceTargets::Values(buffer), Targets::Values(values)) => buffer.upload(gpu, values),
            _ => unreachable!("samples of another form do not fit"),
        }
    }

    /// What the first layer reads.
    pub(super) fn source(&self) -> Source<'_> {
        match &self.inputs {
            DeviceInputs::Pixels(pixels) => Source::Pixels(pixels.all()),
            DeviceInputs::Floats(floats) => Source::Floats(floats.all()),
        }
    }

    /// What a loss takes the outputs against.
    pub(super) fn wanted(&self, loss: Loss) -> Wanted<'_> {
        match (&self.targets, loss) {
            (DeviceTargets::Labels(labels), Loss::CrossEntropy) => Wanted::CrossEntropy(labels.all()),
            (DeviceTargets::Labels(labels), Loss::MeanSquaredError) => Wanted::OneHot(labels.all()),
            (DeviceTargets::Values(values), _) => Wanted::Values(values.all()),
        }
    }
}
