//! What lies on the device, and where.
//!
//! Every width is padded with zeros to a multiple of 16, so that no matrix is badly aligned for tensor cores. Padding stays zero:
//! a padded unit has weights and bias zero, so its activation is zero, so the weights that it feeds have gradient zero.

use anyhow::Result;
use cudarc::driver::CudaSlice;
use kiln_data::Split;
use kiln_engine::Mlp;

use crate::device::Device;
use crate::lt::{Mask, Precision};

/// Rows of a block of the loss.
pub(crate) const LOSS_ROWS: u32 = 128;

/// Sizes of the job: what is in memory, and where.
pub(crate) struct Sizes {
    pub(crate) precision: Precision,
    /// Values of a sample, and classes.
    pub(crate) width: usize,
    pub(crate) classes: usize,
    /// Inputs, hidden.., outputs, padded.
    pub(crate) layers: Vec<usize>,
    pub(crate) batch: usize,
    pub(crate) samples: usize,
    /// Where each layer's weight begins in the parameters, and where the biases do.
    pub(crate) weights: Vec<usize>,
    pub(crate) weights_end: usize,
    /// Where each layer's bias begins among the biases.
    pub(crate) biases: Vec<usize>,
    pub(crate) parameters: usize,
}

impl Sizes {
    pub(crate) fn new(model: &Mlp, precision: Precision, samples: usize, batch: usize) -> Self {
        let layers: Vec<usize> = model.layers().iter().map(|width| width.next_multiple_of(16)).collect();
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        let (mut weights_end, mut biases_end) = (0, 0);
        for pair in layers.windows(2) {
            weights.push(weights_end);
            biases.push(biases_end);
            weights_end += pair[0] * pair[1]; // a multiple of 256
            biases_end += pair[1].next_multiple_of(128); // 256 bytes of bfloat16
        }
        let (width, classes) = (model.layers()[0], model.layers()[model.depth()]);
        let parameters = weights_end + biases_end;
        let batch = batch.min(samples);
        Self { precision, width, classes, layers, batch, samples, weights, weights_end, biases, parameters }
    }

    pub(crate) fn depth(&self) -> usize {
        self.layers.len() - 1
    }

    pub(crate) fn tail(&self) -> usize {
        self.samples % self.batch
    }

    pub(crate) fn steps(&self) -> usize {
        self.samples.div_ceil(self.batch)
    }

    /// Places for the loss of each step.
    pub(crate) fn places(&self) -> usize {
        self.batch.div_ceil(LOSS_ROWS as usize)
    }

    /// The model's parameters as they lie in memory.
    pub(crate) fn lay_out(&self, model: &Mlp) -> Vec<f32> {
        let mut all = vec![0.0; self.parameters];
        for (layer, pair) in model.layers().windows(2).enumerate() {
            let (weight, bias) = (&model.tensors()[2 * layer].data, &model.tensors()[2 * layer + 1].data);
            for (n, row) in weight.chunks(pair[0]).enumerate() {
                all[self.weights[layer] + n * self.layers[layer]..][..pair[0]].copy_from_slice(row);
            }
            all[self.weights_end + self.biases[layer]..][..pair[1]].copy_from_slice(bias);
        }
        all
    }
}

/// All memory on the device, made once. Bytes hold operands, of either type.
pub(crate) struct Memory {
    /// (samples, width) and (samples)
    pub(crate) pixels: CudaSlice<u8>,
    pub(crate) labels: CudaSlice<u8>,
    /// (samples): the epoch's order
    pub(crate) order: CudaSlice<u32>,
    /// (1): steps done in the epoch
    pub(crate) step: CudaSlice<u32>,
    /// (steps, places)
    pub(crate) losses: CudaSlice<f32>,
    /// All weights, then all biases; for bfloat16 a copy.
    pub(crate) parameters: CudaSlice<f32>,
    pub(crate) velocities: CudaSlice<f32>,
    pub(crate) low: CudaSlice<u8>,
    /// Of the biases: operands that DRELU_BGRAD writes, and float32.
    pub(crate) low_gradients: CudaSlice<u8>,
    pub(crate) gradients: CudaSlice<f32>,
    /// Operands (B, K of the layer): inputs of each layer, the batch first.
    pub(crate) inputs: Vec<CudaSlice<u8>>,
    /// Of each hidden layer: bits (B, stride).
    pub(crate) masks: Vec<CudaSlice<u8>>,
    /// (B, N of the last layer)
    pub(crate) outputs: CudaSlice<f32>,
    /// Operands (B, N of the layer): gradients of what each layer gives, before the ReLU.
    pub(crate) output_gradients: Vec<CudaSlice<u8>>,
}

impl Memory {
    pub(crate) fn new(device: &Device, sizes: &Sizes, train: &Split) -> Result<Self> {
        let bytes = sizes.precision.operand().bytes();
        let operands = |len: usize| device.zeros::<u8>(len * bytes);
        let (batch, layers) = (sizes.batch, &sizes.layers);
        let rows_of =
            |widths: &[usize]| widths.iter().map(|width| operands(batch * width)).collect::<Result<Vec<_>>>();
        let hidden = &layers[1..sizes.depth()];
        let masks = hidden.iter().map(|&width| device.zeros(batch * Mask::stride(width) / 8));
        let biases = sizes.parameters - sizes.weights_end;
        Ok(Self {
            pixels: device.stream.clone_htod(&train.images.pixels)?,
            labels: device.stream.clone_htod(&train.labels)?,
            order: device.zeros(sizes.samples)?,
            step: device.zeros(1)?,
            losses: device.zeros(sizes.steps() * sizes.places())?,
            parameters: device.zeros(sizes.parameters)?,
            velocities: device.zeros(sizes.parameters)?,
            low: operands(sizes.parameters)?,
            low_gradients: operands(biases)?,
            gradients: device.zeros(biases)?,
            inputs: rows_of(&layers[..sizes.depth()])?,
            masks: masks.collect::<Result<_>>()?,
            outputs: device.zeros(batch * layers[sizes.depth()])?,
            output_gradients: rows_of(&layers[1..])?,
        })
    }
}
