//! The second opinion on gradients: the same multilayer perceptron, losses and optimizers, but by candle's autograd.
//!
//! Shares no code with the engines that it checks. In float64 ([`Precision::F64`]) it is the truth to some twelve
//! digits, in float32 it shows what an honest float32 computation loses. It is slow, and runs on the CPU only.
//!
//! Three things of candle's own are not used, because they are not PyTorch's: its `Linear` (Kaiming initialisation;
//! parameters come in from outside here), its `SGD` (no momentum), and its `relu`, whose gradient at zero is one.

mod optimizer;
mod rounding;

use candle_core::{D, DType, Device, Tensor, Var};

use optimizer::State;
pub use optimizer::{AdamW, Optimizer, Sgd};
pub use rounding::{Operands, Rounding};

/// The arithmetic of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

/// What is minimised, a mean over the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Mean of `logsumexp(z) - z[label]`.
    CrossEntropy,
    /// `1/(2N) sum (y - yhat)²` over samples and outputs.
    MeanSquaredError,
}

/// What a batch should give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Targets<'a> {
    /// (B) classes, for cross entropy.
    Labels(&'a [u32]),
    /// (B, outputs) values, for mean squared error.
    Values(&'a [f64]),
}

/// Samples that are taken together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch<'a> {
    /// (B, inputs).
    pub inputs: &'a [f64],
    /// As many targets.
    pub targets: Targets<'a>,
}

/// What is wrong with a model or a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fewer than two widths, or a zero among them.
    #[error("layers: expected two or more widths, all at least 1, found {found:?}")]
    Layers {
        /// The widths.
        found: Vec<usize>,
    },
    /// A slice has another length than its shape calls for.
    #[error("{what}: expected {expected} values, found {found}")]
    Count {
        /// Which slice.
        what: String,
        /// How many it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// A batch of no samples.
    #[error("batch: expected 1 or more samples, found none")]
    Empty,
    /// A label names no class.
    #[error("label {index}: expected a class below {classes}, found {found}")]
    Label {
        /// Position in the batch.
        index: usize,
        /// How many classes there are.
        classes: usize,
        /// The label.
        found: u32,
    },
    /// Labels for mean squared error, or values for cross entropy.
    #[error("{loss:?}: expected {expected} as targets")]
    Targets {
        /// The loss.
        loss: Loss,
        /// What it takes.
        expected: &'static str,
    },
    /// candle failed.
    #[error("candle: {0}")]
    Candle(#[from] candle_core::Error),
}

/// A model under training.
pub struct Reference {
    layers: Vec<usize>,
    loss: Loss,
    optimizer: Optimizer,
    dtype: DType,
    /// Weight (out, in) and bias (out) of each layer, flat: fc1.weight, fc1.bias, fc2.weight, ..
    parameters: Vec<Var>,
    /// As many: what the optimizer keeps of each.
    states: Vec<State>,
    operands: Operands,
}

impl Reference {
    /// A model of these widths; `parameters` are `fc1.weight` (out, in), `fc1.bias` (out), `fc2.weight`, ..
    ///
    /// # Errors
    /// [`Error::Layers`], [`Error::Count`], or a failure of candle.
    pub fn new(
        layers: &[usize],
        parameters: &[Vec<f64>],
        loss: Loss,
        optimizer: impl Into<Optimizer>,
        precision: Precision,
    ) -> Result<Self, Error> {
        if layers.len() < 2 || layers.contains(&0) {
            return Err(Error::Layers { found: layers.to_vec() });
        }
        let dtype = match precision {
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        };
        let shapes: Vec<Vec<usize>> =
            layers.windows(2).flat_map(|w| [vec![w[1], w[0]], vec![w[1]]]).collect();
        count("parameter tensors", shapes.len(), parameters.len())?;
        let mut vars = Vec::new();
        for (i, (values, shape)) in parameters.iter().zip(shapes).enumerate() {
            count(&format!("parameter tensor {i}"), shape.iter().product(), values.len())?;
            let tensor = Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(dtype)?;
            vars.push(Var::from_tensor(&tensor)?);
        }
        let states = vars.iter().map(|_| State::default()).collect();
        let operands = Operands::exact(layers.len() - 1);
        let (layers, optimizer) = (layers.to_vec(), optimizer.into());
        Ok(Self { layers, loss, optimizer, dtype, parameters: vars, states, operands })
    }

    /// A model in float64 that rounds the operands of its matrix products. Sums, biases and their gradients, losses and updates are not
    /// rounded.
    ///
    /// # Errors
    /// As [`Reference::new`], and [`Error::Count`] where there are not as many roundings as layers.
    pub fn rounding(
        layers: &[usize],
        parameters: &[Vec<f64>],
        loss: Loss,
        optimizer: impl Into<Optimizer>,
        operands: Operands,
    ) -> Result<Self, Error> {
        let exact = Self::new(layers, parameters, loss, optimizer, Precision::F64)?;
        count("roundings of layers", layers.len() - 1, operands.layers.len())?;
        Ok(Self { operands, ..exact })
    }

    /// The loss of a batch, and the gradient of every parameter, flat and in the order of [`Reference::new`].
    ///
    /// # Errors
    /// What is wrong with the batch, or a failure of candle.
    pub fn gradients(&self, batch: &Batch<'_>) -> Result<(f64, Vec<Vec<f64>>), Error> {
        let (loss, gradients) = self.backward(batch)?;
        Ok((loss, gradients.iter().map(flat).collect::<Result<_, _>>()?))
    }

    /// One step of training with the optimizer's own learning rate; answers the loss before it.
    ///
    /// # Errors
    /// As [`Reference::gradients`].
    pub fn step(&mut self, batch: &Batch<'_>) -> Result<f64, Error> {
        self.step_with(batch, self.optimizer.lr())
    }

    /// One step of training with a learning rate of its own, as a schedule gives it; answers the loss before it.
    ///
    /// # Errors
    /// As [`Reference::gradients`].
    pub fn step_with(&mut self, batch: &Batch<'_>, lr: f64) -> Result<f64, Error> {
        let (loss, gradients) = self.backward(batch)?;
        for ((parameter, state), gradient) in self.parameters.iter().zip(&mut self.states).zip(&gradients) {
            parameter.set(&state.moved(&self.optimizer, lr, parameter.as_tensor(), gradient)?)?;
        }
        Ok(loss)
    }

    /// Goes on from other parameters, flat and in the order of [`Reference::new`], with what the optimizer keeps.
    ///
    /// # Errors
    /// [`Error::Count`], or a failure of candle.
    pub fn set_parameters(&mut self, parameters: &[Vec<f64>]) -> Result<(), Error> {
        count("parameter tensors", self.parameters.len(), parameters.len())?;
        for (i, (var, values)) in self.parameters.iter().zip(parameters).enumerate() {
            count(&format!("parameter tensor {i}"), var.elem_count(), values.len())?;
            var.set(&Tensor::from_slice(values, var.shape(), &Device::Cpu)?.to_dtype(self.dtype)?)?;
        }
        Ok(())
    }

    /// The parameters as they are, flat and in the order of [`Reference::new`].
    ///
    /// # Errors
    /// A failure of candle.
    pub fn parameters(&self) -> Result<Vec<Vec<f64>>, Error> {
        self.parameters.iter().map(|var| flat(var.as_tensor())).collect()
    }

    /// (B): how far each sample keeps from the kinks of ReLU. The margin of a hidden unit is `|z| / (sum |w||x| + |b|)`, z being what comes
    /// before its ReLU, and a sample has the smallest of its units; infinity without hidden layers. Computations that differ by less than
    /// the margin, relative to the sum of the terms' sizes, agree on what flows through the unit.
    ///
    /// # Errors
    /// As [`Reference::gradients`].
    pub fn margins(&self, batch: &Batch<'_>) -> Result<Vec<f64>, Error> {
        let inputs = self.inputs(batch)?;
        let mut margins = vec![f64::INFINITY; inputs.dim(0)?];
        self.forward(inputs, |operand, weight, bias, z| {
            let sizes = operand.abs()?.matmul(&weight.abs()?.t()?)?.broadcast_add(&bias.abs()?)?;
            let of_layer = (z.abs()? / sizes)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
            for (margin, units) in margins.iter_mut().zip(of_layer) {
                *margin = units.into_iter().fold(*margin, f64::min); // 0 / 0 is no margin: such a unit is zero whoever computes it
            }
            Ok(())
        })?;
        Ok(margins)
    }

    fn backward(&self, batch: &Batch<'_>) -> Result<(f64, Vec<Tensor>), Error> {
        let loss = self.loss_of(batch)?;
        let gradients = loss.backward()?;
        let of = |var: &Var| match gradients.get(var) {
            Some(gradient) => Ok(gradient.detach()),
            None => var.zeros_like(), // nothing of the loss depends on it
        };
        let gradients = self.parameters.iter().map(of).collect::<Result<_, _>>()?;
        Ok((loss.to_dtype(DType::F64)?.to_scalar()?, gradients))
    }

    fn loss_of(&self, batch: &Batch<'_>) -> Result<Tensor, Error> {
        let outputs = self.layers[self.layers.len() - 1];
        let inputs = self.inputs(batch)?;
        let rows = inputs.dim(0)?;
        let z = self.forward(inputs, |_, _, _, _| Ok(()))?;
        match (self.loss, batch.targets) {
            (Loss::CrossEntropy, Targets::Labels(labels)) => {
                count("labels", rows, labels.len())?;
                if let Some(index) = labels.iter().position(|&label| label as usize >= outputs) {
                    return Err(Error::Label { index, classes: outputs, found: labels[index] });
                }
                let labels = Tensor::from_slice(labels, (rows, 1), &Device::Cpu)?;
                let likelihood = candle_nn::ops::log_softmax(&z, D::Minus1)?.gather(&labels, D::Minus1)?;
                Ok((likelihood.sum_all()? * (-1.0 / rows as f64))?)
            }
            (Loss::MeanSquaredError, Targets::Values(values)) => {
                count("values", rows * outputs, values.len())?;
                let squares = (self.tensor(values, rows, outputs)? - z)?.sqr()?;
                Ok((squares.sum_all()? * (0.5 / rows as f64))?)
            }
            (loss @ Loss::CrossEntropy, _) => Err(Error::Targets { loss, expected: "labels" }),
            (loss @ Loss::MeanSquaredError, _) => Err(Error::Targets { loss, expected: "values" }),
        }
    }

    /// (B, inputs).
    fn inputs(&self, batch: &Batch<'_>) -> Result<Tensor, Error> {
        let width = self.layers[0];
        let rows = batch.inputs.len() / width;
        count("inputs", rows * width, batch.inputs.len())?;
        if rows == 0 { Err(Error::Empty) } else { self.tensor(batch.inputs, rows, width) }
    }

    fn tensor(&self, values: &[f64], rows: usize, width: usize) -> Result<Tensor, Error> {
        Ok(Tensor::from_slice(values, (rows, width), &Device::Cpu)?.to_dtype(self.dtype)?)
    }

    /// The outputs; of each hidden layer `see` gets x and w as they are multiplied, b, and what goes into ReLU.
    fn forward(
        &self,
        mut x: Tensor,
        mut see: impl FnMut(&Tensor, &Tensor, &Tensor, &Tensor) -> Result<(), candle_core::Error>,
    ) -> Result<Tensor, candle_core::Error> {
        let depth = self.layers.len() - 1;
        let Operands { inputs, layers } = &self.operands;
        for (i, (pair, rounding)) in self.parameters.chunks_exact(2).zip(layers).enumerate() {
            let x_rounding = if i == 0 { inputs } else { rounding };
            let (operand, weight) = (x_rounding.operand(&x)?, rounding.operand(pair[0].as_tensor())?);
            let sum = rounding.gradient(&operand.matmul(&weight.t()?)?)?;
            x = sum.broadcast_add(pair[1].as_tensor())?;
            if i + 1 < depth {
                see(&operand, &weight, pair[1].as_tensor(), &x)?;
                x = relu(&x)?;
            }
        }
        Ok(x)
    }
}

/// `max(x, 0)` with PyTorch's gradient, zero at zero.
fn relu(x: &Tensor) -> Result<Tensor, candle_core::Error> {
    let mask = x.detach().gt(0.0)?.to_dtype(x.dtype())?;
    x * mask
}

fn flat(tensor: &Tensor) -> Result<Vec<f64>, Error> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}

fn count(what: &str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::Count { what: what.to_owned(), expected, found }) }
}

#[cfg(test)]
mod tests;
