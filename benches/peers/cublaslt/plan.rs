//! A step: its products for a number of rows, and the order in which they are submitted.

use std::fmt;
use std::rc::Rc;

use anyhow::Result;
use cudarc::driver::CudaSlice;

use crate::device::Device;
use crate::launches::{column_sums, gather_batch, loss, relu_backward, update};
use crate::lt::{Element, Epilogue, Library, Mask, Matrix, Product, Spec};
use crate::memory::{Memory, Sizes};

const LR: f32 = 0.01;
pub(crate) const MOMENTUM: f32 = 0.9;
/// Steps that are measured to choose between epilogues, after one that is not.
const MEASURED_STEPS: usize = 5;

/// Which work of a backward pass cuBLASLt's epilogues do; small kernels do the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fusion {
    /// The forward pass keeps a mask of each ReLU (RELU_AUX_BIAS), and the backward pass takes it and sums the bias gradients of
    /// the layer below (DRELU_BGRAD). Otherwise RELU_BIAS, and a kernel that looks at the activations.
    pub(crate) mask: bool,
    /// The other bias gradients are sums that a weight gradient's product makes (BGRADB).
    pub(crate) sums: bool,
}

impl Fusion {
    pub(crate) const ALL: [Fusion; 4] = [
        Fusion { mask: true, sums: true },
        Fusion { mask: true, sums: false },
        Fusion { mask: false, sums: true },
        Fusion { mask: false, sums: false },
    ];
}

impl fmt::Display for Fusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.mask, self.sums) {
            (true, true) => "mask-sums",
            (true, false) => "mask",
            (false, true) => "sums",
            (false, false) => "none",
        })
    }
}

/// The products of a step on `rows` rows.
pub(crate) struct Step {
    pub(crate) rows: usize,
    pub(crate) fusion: Fusion,
    pub(crate) forward: Vec<Product>,
    /// Of each layer but the first.
    pub(crate) backward: Vec<Product>,
    pub(crate) weights: Vec<Product>,
}

impl Step {
    /// One training step. Parameters change last, all at once.
    pub(crate) fn submit(&self, device: &Device, sizes: &Sizes, memory: &Memory) -> Result<()> {
        let (rows, depth) = (self.rows, sizes.depth());
        gather_batch(device, sizes, memory, rows)?;
        for product in &self.forward {
            product.submit(device)?;
        }
        loss(device, sizes, memory, rows)?;
        for layer in (0..depth).rev() {
            if layer > 0 {
                self.backward[layer - 1].submit(device)?;
                if !self.fusion.mask {
                    relu_backward(device, sizes, memory, layer, rows)?;
                }
            }
            self.weights[layer].submit(device)?;
            let summed = self.fusion.sums || (self.fusion.mask && layer + 1 < depth);
            if !summed {
                column_sums(device, sizes, memory, layer, rows)?;
            }
        }
        let low_count = if self.fusion.mask { sizes.biases[depth - 1] } else { 0 };
        update(device, sizes, memory, low_count, LR)
    }
}

/// Makes steps with certain epilogues.
pub(crate) struct Maker<'a> {
    pub(crate) device: &'a Device,
    pub(crate) library: &'a Rc<Library>,
    pub(crate) sizes: &'a Sizes,
    pub(crate) memory: &'a mut Memory,
    pub(crate) fusion: Fusion,
}

impl Maker<'_> {
    /// Microseconds of a step on a whole batch, it, and the one for the tail.
    pub(crate) fn steps(mut self) -> Result<(f32, Step, Option<Step>)> {
        let tail = match self.sizes.tail() {
            0 => None,
            rows => Some(self.step(rows)?),
        };
        let whole = self.step(self.sizes.batch)?;
        let Self { device, sizes, memory, .. } = self;
        let graph = device.capture(|| {
            device.stream.memset_zeros(&mut memory.step)?; // each is the first of an epoch
            whole.submit(device, sizes, memory)
        })?;
        graph.launch()?;
        let time = device.timed(|| (0..MEASURED_STEPS).try_for_each(|_| Ok(graph.launch()?)))?;
        Ok((time * 1e3 / MEASURED_STEPS as f32, whole, tail))
    }

    /// Chooses the algorithms of a step's products in the order in which they run, on data as it comes.
    fn step(&mut self, rows: usize) -> Result<Step> {
        let Self { device, library, sizes, fusion, .. } = *self;
        device.stream.memset_zeros(&mut self.memory.step)?;
        update(device, sizes, self.memory, 0, 0.0)?;
        device.stream.memset_zeros(&mut self.memory.step)?;
        let depth = sizes.depth();
        let make = |spec| Product::new(device, library, spec);
        gather_batch(device, sizes, self.memory, rows)?;
        let forward = (0..depth).map(|l| make(self.forward(l, rows))).collect::<Result<_>>()?;
        loss(device, sizes, self.memory, rows)?;
        let backward = (1..depth).rev().map(|l| make(self.backward(l, rows))).collect::<Result<Vec<_>>>()?;
        let weights = (0..depth).map(|l| make(self.weights(l, rows))).collect::<Result<_>>()?;
        Ok(Step { rows, fusion, forward, backward: backward.into_iter().rev().collect(), weights })
    }

    fn operand(&self, memory: &CudaSlice<u8>, rows: usize, columns: usize) -> Matrix {
        Matrix {
            address: self.device.address(memory),
            element: self.sizes.precision.operand(),
            rows,
            columns,
        }
    }

    /// Weight of a layer as an operand: (N, K) in rows, so K x N here.
    fn weight(&self, layer: usize) -> Matrix {
        let address =
            self.parameters() + (self.sizes.weights[layer] * self.sizes.precision.operand().bytes()) as u64;
        let (rows, columns) = (self.sizes.layers[layer], self.sizes.layers[layer + 1]);
        Matrix { address, element: self.sizes.precision.operand(), rows, columns }
    }

    /// The parameters as operands.
    fn parameters(&self) -> u64 {
        match self.sizes.precision.operand() {
            Element::F32 => self.device.address(&self.memory.parameters),
            Element::Bf16 => self.device.address(&self.memory.low),
        }
    }

    fn mask(&self, hidden: usize) -> Mask {
        Mask { address: self.device.address(&self.memory.masks[hidden]) }
    }

    /// z = W x + b of a layer, and the ReLU: (N x K) (K x B).
    fn forward(&self, layer: usize, rows: usize) -> Spec {
        let Sizes { precision, layers, .. } = self.sizes;
        let at = self.sizes.weights_end + self.sizes.biases[layer];
        let outputs = layers[layer + 1];
        let (d, epilogue) = if layer + 1 == self.sizes.depth() {
            let address = self.device.address(&self.memory.outputs);
            let bias = self.device.address(&self.memory.parameters) + 4 * at as u64;
            (Matrix { address, element: Element::F32, rows: outputs, columns: rows }, Epilogue::Bias { bias })
        } else {
            let bias = self.parameters() + (precision.operand().bytes() * at) as u64;
            let epilogue = match self.fusion.mask {
                true => Epilogue::ReluAuxBias { bias, mask: self.mask(layer) },
                false => Epilogue::ReluBias { bias },
            };
            (self.operand(&self.memory.inputs[layer + 1], outputs, rows), epilogue)
        };
        let b = self.operand(&self.memory.inputs[layer], layers[layer], rows);
        Spec {
            precision: *precision,
            a: self.weight(layer),
            transpose_a: true,
            b,
            transpose_b: false,
            d,
            beta: 0.0,
            epilogue,
        }
    }

    /// Gradient of what the layer below gives: (K x N) (N x B), where its ReLU was on.
    fn backward(&self, layer: usize, rows: usize) -> Spec {
        let Sizes { precision, layers, .. } = self.sizes;
        let epilogue = if self.fusion.mask {
            let at = self.sizes.biases[layer - 1] * precision.operand().bytes();
            let sums = self.device.address(&self.memory.low_gradients) + at as u64;
            Epilogue::DreluBgrad { sums, mask: self.mask(layer - 1) }
        } else {
            Epilogue::None
        };
        Spec {
            precision: *precision,
            a: self.weight(layer),
            transpose_a: false,
            b: self.operand(&self.memory.output_gradients[layer], layers[layer + 1], rows),
            transpose_b: false,
            d: self.operand(&self.memory.output_gradients[layer - 1], layers[layer], rows),
            beta: 0.0,
            epilogue,
        }
    }

    /// Velocity of a weight, v = momentum v + dW: (K x B) (B x N), added up by the product itself.
    fn weights(&self, layer: usize, rows: usize) -> Spec {
        let Sizes { precision, layers, .. } = self.sizes;
        let sums = self.device.address(&self.memory.gradients) + 4 * self.sizes.biases[layer] as u64;
        let summed = self.fusion.mask && layer + 1 < self.sizes.depth();
        let address = self.device.address(&self.memory.velocities) + 4 * self.sizes.weights[layer] as u64;
        Spec {
            precision: *precision,
            a: self.operand(&self.memory.inputs[layer], layers[layer], rows),
            transpose_a: false,
            b: self.operand(&self.memory.output_gradients[layer], layers[layer + 1], rows),
            transpose_b: true,
            d: Matrix { address, element: Element::F32, rows: layers[layer], columns: layers[layer + 1] },
            beta: MOMENTUM,
            epilogue: if self.fusion.sums && !summed { Epilogue::Bgradb { sums } } else { Epilogue::None },
        }
    }
}
