//! The `host` engine: forward, loss, backward and update derived by hand, on the CPU.
//!
//! [`Host::train_step`] is the order of a training step. A step allocates nothing: activations and their
//! gradients are arenas, made when a larger batch than before is announced. (`gemm` itself allocates a few flags a
//! product, and packs operands whose width its vectors do not divide.)

mod gather;
mod layer;
mod loss;
mod matmul;
mod threads;
mod update;

use std::ops::Range;

use crate::engine::Engine;
use crate::mlp::zeros;
use crate::{
    Epoch, Error, Evaluation, Gradients, Job, Loss, Mlp, Optimizer, Progress, Samples, Schedule, Targets,
    Tensor, TrainingState,
};
use gather::{Rows, gather, input_scale};
use layer::{Kept, Layer, Sink};
use loss::{BatchLoss, loss_and_gradient};
use threads::Threads;
use update::Update;

/// Rows a batch of an evaluation: fixed, so that its result does not depend on the training's batch.
const EVALUATION_BATCH: usize = 256;
/// Steps between two reports of progress.
const PROGRESS_STEPS: usize = 32;

/// The engine and its arenas.
pub(crate) struct Host<'d> {
    threads: Threads,
    net: Net,
    optimizer: Optimizer,
    schedule: Schedule,
    train: Samples<'d>,
    /// Steps done, over all epochs.
    step: u64,
}

/// Layers and the arenas of a batch.
struct Net {
    model: Mlp, // widths and names; its values are those that training started from
    loss: Loss,
    layers: Vec<Layer>,
    /// Inputs of each layer, (B, K): the gathered batch, then the hidden units.
    inputs: Vec<Vec<f32>>,
    /// Gradients at the outputs of each layer, (B, N); the last holds the outputs themselves until the loss is taken.
    deltas: Vec<Vec<f32>>,
}

impl<'d> Host<'d> {
    /// Takes over a job that has been checked.
    pub(crate) fn new(job: Job<'d>, threads: usize) -> Result<Self, Error> {
        let Job { model, loss, optimizer, schedule, train } = job;
        let net = Net::new(model, loss, &optimizer)?;
        Ok(Self { threads: Threads::new(threads)?, net, optimizer, schedule, train, step: 0 })
    }

    /// One training step on the training samples `rows`; answers the loss before the update.
    fn train_step(net: &mut Net, train: &Samples<'_>, rows: &[u32], update: Update) -> f64 {
        let (batch, scale) = (rows.len(), input_scale(train));
        gather(train, rows, net.batch_inputs(batch));
        net.forward(batch, scale);
        let loss = net.loss(train, rows);
        for layer in (0..net.layers.len()).rev() {
            net.input_gradient(layer, batch);
            net.weight_gradient(layer, batch, scale, Sink::Update(update));
        }
        loss.sum / batch as f64
    }
}

/// Threads beyond the blocks of the widest layer would idle.
pub(crate) fn useful_threads(model: &Mlp) -> usize {
    model.layers()[1..].iter().map(|width| width.div_ceil(layer::BLOCK)).max().unwrap_or(1)
}

impl Net {
    fn new(model: Mlp, loss: Loss, optimizer: &Optimizer) -> Result<Self, Error> {
        let depth = model.depth();
        let layer = |i: usize| {
            let (weight, bias) = model.linear(i);
            Layer::new(weight, bias, i + 1 < depth, optimizer)
        };
        let layers = (0..depth).map(layer).collect::<Result<_, _>>()?;
        let mut net = Self { model, loss, layers, inputs: vec![], deltas: vec![] };
        net.inputs = vec![Vec::new(); depth];
        net.deltas = vec![Vec::new(); depth];
        Ok(net)
    }

    /// Values as they are, under their parameters' names.
    fn kept(&self, kept: Kept) -> Mlp {
        let mut model = self.model.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            let (weight, bias) = model.linear_mut(i);
            layer.store(kept, weight, bias);
        }
        model
    }

    /// Takes over such values, in the order of [`Mlp::tensors`].
    fn keep(&mut self, kept: Kept, tensors: &[Tensor]) {
        for (layer, tensors) in self.layers.iter_mut().zip(tensors.chunks_exact(2)) {
            layer.load(kept, &tensors[0].data, &tensors[1].data);
        }
    }

    /// Makes room for batches of so many rows.
    fn reserve(&mut self, batch: usize) -> Result<(), Error> {
        let widths = self.model.layers();
        for (i, layer) in self.layers.iter_mut().enumerate() {
            layer.reserve(batch)?;
            for (buffer, width) in [(&mut self.inputs[i], widths[i]), (&mut self.deltas[i], widths[i + 1])] {
                if buffer.len() / width < batch {
                    *buffer = zeros("activations", &[batch, width])?;
                }
            }
        }
        Ok(())
    }

    /// (B, inputs): where the batch is gathered.
    fn batch_inputs(&mut self, batch: usize) -> &mut [f32] {
        let width = self.model.layers()[0];
        &mut self.inputs[0][..batch * width]
    }

    /// From the gathered batch to the outputs, which are left in the last of the deltas.
    fn forward(&mut self, batch: usize, scale: f32) {
        let widths = self.model.layers();
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let (below, above) = self.inputs.split_at_mut(i + 1);
            let out = above.first_mut().unwrap_or(&mut self.deltas[i]);
            let scale = if i == 0 { scale } else { 1.0 };
            layer.forward(&below[i][..batch * widths[i]], scale, &mut out[..batch * widths[i + 1]]);
        }
    }

    /// Turns the outputs into the gradient of the loss at the outputs.
    fn loss(&mut self, samples: &Samples<'_>, rows: &(impl Rows + ?Sized)) -> BatchLoss {
        let width = self.model.layers()[self.layers.len()];
        let outputs = &mut self.deltas[self.layers.len() - 1][..rows.count() * width];
        loss_and_gradient(self.loss, samples, rows, outputs)
    }

    /// The gradient at the outputs of the layer below; there is none below the first.
    fn input_gradient(&mut self, layer: usize, batch: usize) {
        if layer == 0 {
            return;
        }
        let widths = self.model.layers();
        let (below, above) = self.deltas.split_at_mut(layer);
        let dz = &above[0][..batch * widths[layer + 1]];
        let dx = &mut below[layer - 1][..batch * widths[layer]];
        self.layers[layer].input_gradient(dz, &self.inputs[layer][..batch * widths[layer]], dx);
    }

    /// The gradient of a layer's parameters, into the sink.
    fn weight_gradient(&mut self, layer: usize, batch: usize, scale: f32, sink: Sink<'_>) {
        let widths = self.model.layers();
        let x = &self.inputs[layer][..batch * widths[layer]];
        let dz = &self.deltas[layer][..batch * widths[layer + 1]];
        let scale = if layer == 0 { scale } else { 1.0 };
        self.layers[layer].weight_gradient(x, scale, dz, sink);
    }
}

impl Engine for Host<'_> {
    fn describe(&self) -> String {
        match self.threads.count() {
            1 => "host, 1 thread".to_owned(),
            threads => format!("host, {threads} threads"),
        }
    }

    fn epoch(
        &mut self,
        order: &[u32],
        batch: usize,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Epoch, Error> {
        let Self { threads, net, optimizer, schedule, train, step } = self;
        net.reserve(batch.min(order.len()))?;
        threads.enter(|| {
            let (mut sum, mut steps) = (0.0, 0);
            for rows in order.chunks(batch) {
                let update = Update::new(optimizer, schedule.lr(optimizer.lr(), *step), *step);
                let loss = Self::train_step(net, train, rows, update);
                *step += 1;
                if !loss.is_finite() {
                    return Err(Error::Diverged { step: steps, loss });
                }
                sum += loss;
                steps += 1;
                if steps % PROGRESS_STEPS == 0 {
                    progress(Progress { samples: steps * batch, loss: sum / steps as f64 });
                }
            }
            let loss = sum / steps as f64;
            progress(Progress { samples: order.len(), loss });
            Ok(Epoch { loss, steps })
        })
    }

    fn gradients(&mut self, rows: &[u32]) -> Result<Gradients, Error> {
        let Self { threads, net, train, .. } = self;
        let (batch, scale) = (rows.len(), input_scale(train));
        net.reserve(batch)?;
        let mut stored = net.model.clone();
        threads.enter(|| {
            gather(train, rows, net.batch_inputs(batch));
            net.forward(batch, scale);
            let loss = net.loss(train, rows);
            for layer in (0..net.layers.len()).rev() {
                let (weight, bias) = stored.linear_mut(layer);
                net.input_gradient(layer, batch);
                net.weight_gradient(layer, batch, scale, Sink::Store(weight, bias));
            }
            Ok(Gradients { loss: loss.sum / batch as f64, tensors: stored.tensors().to_vec() })
        })
    }

    fn evaluate(&mut self, samples: &Samples<'_>) -> Result<Evaluation, Error> {
        let Self { threads, net, .. } = self;
        net.reserve(EVALUATION_BATCH.min(samples.len()))?;
        threads.enter(|| {
            let mut total = BatchLoss::default();
            for first in (0..samples.len()).step_by(EVALUATION_BATCH) {
                let rows: Range<usize> = first..samples.len().min(first + EVALUATION_BATCH);
                gather(samples, &rows, net.batch_inputs(rows.len()));
                net.forward(rows.len(), input_scale(samples));
                let BatchLoss { sum, hits } = net.loss(samples, &rows);
                total.sum += sum;
                total.hits += hits;
            }
            let all = samples.len() as f64;
            let labelled = matches!(samples.targets(), Targets::Labels(_));
            Ok(Evaluation { loss: total.sum / all, accuracy: labelled.then_some(total.hits as f64 / all) })
        })
    }

    fn model(&self) -> Result<Mlp, Error> {
        Ok(self.net.kept(Kept::Parameters))
    }

    fn state(&self) -> Result<TrainingState, Error> {
        let moment = |which| self.net.kept(Kept::Moment(which)).into_tensors();
        let moments = (0..self.optimizer.moments().len()).map(moment).collect();
        Ok(TrainingState { model: self.model()?, moments, steps: self.step })
    }

    fn restore(&mut self, state: &TrainingState) -> Result<(), Error> {
        self.net.keep(Kept::Parameters, state.model.tensors());
        for (which, tensors) in state.moments.iter().enumerate() {
            self.net.keep(Kept::Moment(which), tensors);
        }
        self.step = state.steps;
        Ok(())
    }
}
