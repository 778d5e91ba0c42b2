//! A linear layer: forward, input gradient, and the weight gradient that becomes an update while it is in cache.
//!
//! Output units are cut into blocks of [`BLOCK`], whatever the number of threads, and each block owns its weights,
//! transposed to (K, units). That way every product reads its operands as they lie (packing them would cost a
//! tenth of the time), threads share nothing, and results are equal bit for bit on any number of threads.

use super::matmul::{View, matmul};
use super::threads::{each, each_chunk};
use super::update::{Moments, Update};
use crate::mlp::zeros;
use crate::{Error, Optimizer};

/// Output units a block: four AVX-512 or eight AVX registers wide.
pub(crate) const BLOCK: usize = 64;
/// Inputs a stretch of the weight gradient: (128, 64) values, 32 KiB, stay in the first-level cache.
const STRETCH: usize = 128;
/// Batch rows a task of the input gradient.
const ROWS: usize = 32;
/// Batch rows a task of the outputs, where the batch is tall: its inputs and outputs stay in the second-level cache.
const TALL_ROWS: usize = 256;
/// Batch rows from which on a batch is tall.
const TALL: usize = 1024;

/// A layer of `inputs` (K) to `outputs` (N) units.
pub(crate) struct Layer {
    inputs: usize,
    outputs: usize,
    relu: bool,
    blocks: Vec<Block>,
}

/// Up to [`BLOCK`] output units, n of them, with their parameters.
struct Block {
    start: usize,
    units: usize,
    weight: Vec<f32>,        // (K, n)
    weight_moments: Moments, // (K, n) each
    bias: Vec<f32>,          // (n)
    bias_moments: Moments,   // (n) each
    gradient: Vec<f32>,      // (STRETCH, n)
    out: Vec<f32>,           // (B, n), before bias and ReLU
}

/// Where a layer's gradient goes.
pub(crate) enum Sink<'a> {
    /// Into the parameters.
    Update(Update),
    /// Into a weight (N, K) and a bias (N) gradient, in PyTorch's layout; parameters stay.
    Store(&'a mut [f32], &'a mut [f32]),
}

/// What a layer keeps from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Parameters,
    /// One of the optimizer's moments, counted from 0.
    Moment(usize),
}

impl Layer {
    /// A layer with parameters in PyTorch's layout: weight (N, K), bias (N).
    pub(crate) fn new(
        weight: &[f32],
        bias: &[f32],
        relu: bool,
        optimizer: &Optimizer,
    ) -> Result<Self, Error> {
        let outputs = bias.len();
        let inputs = weight.len() / outputs;
        let mut blocks = Vec::new();
        for start in (0..outputs).step_by(BLOCK) {
            let units = BLOCK.min(outputs - start);
            blocks.push(Block {
                start,
                units,
                weight: zeros("parameters", &[inputs, units])?,
                weight_moments: Moments::new(optimizer, inputs * units)?,
                bias: zeros("parameters", &[units])?,
                bias_moments: Moments::new(optimizer, units)?,
                gradient: zeros("gradients", &[STRETCH, units])?,
                out: Vec::new(),
            });
        }
        let mut layer = Self { inputs, outputs, relu, blocks };
        layer.load(Kept::Parameters, weight, bias);
        Ok(layer)
    }

    /// Writes values in PyTorch's layout: those of the weight (N, K) and of the bias (N).
    pub(crate) fn store(&self, kept: Kept, weight: &mut [f32], bias: &mut [f32]) {
        for block in &self.blocks {
            let (w, b) = match kept {
                Kept::Parameters => (&block.weight[..], &block.bias[..]),
                Kept::Moment(which) => (block.weight_moments.get(which), block.bias_moments.get(which)),
            };
            block.scatter(w, 0, self.inputs, weight);
            bias[block.start..block.start + block.units].copy_from_slice(b);
        }
    }

    /// Takes over values as [`Layer::store`] gives them.
    pub(crate) fn load(&mut self, kept: Kept, weight: &[f32], bias: &[f32]) {
        for block in &mut self.blocks {
            let (start, units) = (block.start, block.units);
            let (w, b) = match kept {
                Kept::Parameters => (&mut block.weight[..], &mut block.bias[..]),
                Kept::Moment(which) => {
                    (block.weight_moments.get_mut(which), block.bias_moments.get_mut(which))
                }
            };
            for (unit, row) in weight.chunks_exact(self.inputs).skip(start).take(units).enumerate() {
                for (k, &value) in row.iter().enumerate() {
                    w[k * units + unit] = value;
                }
            }
            b.copy_from_slice(&bias[start..start + units]);
        }
    }

    /// Makes room for batches of so many rows.
    pub(crate) fn reserve(&mut self, batch: usize) -> Result<(), Error> {
        let rows = batch.min(TALL - 1); // a tall batch needs none, its tail may
        for block in &mut self.blocks {
            if block.out.len() < rows * block.units {
                block.out = zeros("activations", &[rows, block.units])?;
            }
        }
        Ok(())
    }

    /// `out` (B, N) = scale x Wᵀ + b of the rows `x` (B, K), through ReLU where the layer has one.
    pub(crate) fn forward(&mut self, x: &[f32], scale: f32, out: &mut [f32]) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let batch = x.len() / inputs;
        if batch >= TALL {
            return self.forward_tall(x, scale, out);
        }
        let x = View::by_rows(x, batch, inputs, inputs);
        each(&mut self.blocks, batch * inputs * outputs, |block| {
            let weight = View::by_rows(&block.weight, inputs, block.units, block.units);
            matmul(&mut block.out, block.units, 0.0, scale, x, weight);
        });
        for block in &self.blocks {
            let rows = block.out.chunks_exact(block.units);
            for (row, out) in rows.zip(out.chunks_exact_mut(outputs)) {
                let out = &mut out[block.start..block.start + block.units];
                for ((out, &sum), &bias) in out.iter_mut().zip(row).zip(&block.bias) {
                    *out = self.activated(sum + bias);
                }
            }
        }
    }

    /// [`Layer::forward`], of some rows after others: a task has all units of its rows, and leaves its outputs where they belong.
    fn forward_tall(&self, x: &[f32], scale: f32, out: &mut [f32]) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        each_chunk(out, TALL_ROWS * outputs, x.len() * outputs, |task, out| {
            let rows = out.len() / outputs;
            let x = View::by_rows(&x[task * TALL_ROWS * inputs..], rows, inputs, inputs);
            for block in &self.blocks {
                let weight = View::by_rows(&block.weight, inputs, block.units, block.units);
                matmul(&mut out[block.start..], outputs, 0.0, scale, x, weight);
            }
            for out in out.chunks_exact_mut(outputs) {
                for block in &self.blocks {
                    let out = &mut out[block.start..block.start + block.units];
                    out.iter_mut()
                        .zip(&block.bias)
                        .for_each(|(out, &bias)| *out = self.activated(*out + bias));
                }
            }
        });
    }

    /// Through ReLU, where the layer has one. Not `max`, which would turn NaN into 0 and hide a run that has diverged.
    fn activated(&self, value: f32) -> f32 {
        if self.relu && value < 0.0 { 0.0 } else { value }
    }

    /// `dx` (B, K) = dz W of the output gradient `dz` (B, N), and zero where the ReLU below let nothing through:
    /// where `below` (B, K), its output, is not above zero.
    pub(crate) fn input_gradient(&self, dz: &[f32], below: &[f32], dx: &mut [f32]) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        each_chunk(dx, ROWS * inputs, below.len() * outputs, |i, dx| {
            let first = i * ROWS;
            let rows = dx.len() / inputs;
            for (b, block) in self.blocks.iter().enumerate() {
                let dz = View::by_rows(&dz[first * outputs + block.start..], rows, block.units, outputs);
                let weight = View::by_rows(&block.weight, inputs, block.units, block.units);
                let keep = if b == 0 { 0.0 } else { 1.0 };
                matmul(dx, inputs, keep, 1.0, dz, weight.transposed());
            }
            for (dx, &below) in dx.iter_mut().zip(&below[first * inputs..]) {
                *dx = if below > 0.0 { *dx } else { 0.0 };
            }
        });
    }

    /// The gradients dW = scale dzᵀ x and db = sum of dz, stretch by stretch, each used up by the sink at once.
    pub(crate) fn weight_gradient(&mut self, x: &[f32], scale: f32, dz: &[f32], sink: Sink<'_>) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        match sink {
            Sink::Update(update) => each(&mut self.blocks, x.len() * outputs, |block| {
                block.bias_gradient(dz, outputs);
                let moments = block.bias_moments.stretch(0..block.units);
                update.apply(&mut block.bias, moments, &block.gradient[..block.units]);
                for first in (0..inputs).step_by(STRETCH) {
                    let stretch = block.stretch_gradient(first, x, inputs, scale, dz, outputs);
                    let moments = block.weight_moments.stretch(stretch.clone());
                    update.apply(&mut block.weight[stretch], moments, &block.gradient);
                }
            }),
            Sink::Store(weight, bias) => {
                for block in &mut self.blocks {
                    block.bias_gradient(dz, outputs);
                    bias[block.start..block.start + block.units]
                        .copy_from_slice(&block.gradient[..block.units]);
                    for first in (0..inputs).step_by(STRETCH) {
                        let stretch = block.stretch_gradient(first, x, inputs, scale, dz, outputs);
                        block.scatter(&block.gradient[..stretch.len()], first, inputs, weight);
                    }
                }
            }
        }
    }
}

impl Block {
    /// The bias gradient (n) of this block's columns of `dz` (B, N), left in `gradient`.
    fn bias_gradient(&mut self, dz: &[f32], outputs: usize) {
        let sums = &mut self.gradient[..self.units];
        sums.fill(0.0);
        for row in dz.chunks_exact(outputs) {
            for (sum, &dz) in sums.iter_mut().zip(&row[self.start..]) {
                *sum += dz;
            }
        }
    }

    /// The weight gradient of up to [`STRETCH`] inputs from `first` on, left in `gradient`; answers where they
    /// stand in `weight`.
    fn stretch_gradient(
        &mut self,
        first: usize,
        x: &[f32],
        inputs: usize,
        scale: f32,
        dz: &[f32],
        outputs: usize,
    ) -> std::ops::Range<usize> {
        let (batch, count) = (x.len() / inputs, STRETCH.min(inputs - first));
        let x = View::by_rows(&x[first..], batch, count, inputs);
        let dz = View::by_rows(&dz[self.start..], batch, self.units, outputs);
        matmul(&mut self.gradient, self.units, 0.0, scale, x.transposed(), dz);
        first * self.units..(first + count) * self.units
    }

    /// Writes (count, n) values that belong to the inputs from `first` on into a weight (N, K).
    fn scatter(&self, values: &[f32], first: usize, inputs: usize, weight: &mut [f32]) {
        for (k, row) in values.chunks_exact(self.units).enumerate() {
            for (unit, &value) in row.iter().enumerate() {
                weight[(self.start + unit) * inputs + first + k] = value;
            }
        }
    }
}
