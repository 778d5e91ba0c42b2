//! A recorded trajectory, read from a safetensors file of which nothing is believed unchecked.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::optimizer::{GoldenOptimizer, GoldenSchedule};

/// Largest recording that is read.
const BYTES_MAX: u64 = 1 << 30;

/// A named tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct GoldenTensor<T> {
    /// PyTorch's name: `fc1.weight`, `fc1.bias`, ..
    pub name: String,
    /// (out, in) for a weight, (out) for a bias.
    pub shape: Vec<usize>,
    /// As many values as the shape has elements, all finite.
    pub data: Vec<T>,
}

/// The loss of a recorded run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoldenLoss {
    /// Mean cross entropy over the batch.
    CrossEntropy,
    /// 1/(2N) sum (y - yhat)².
    MeanSquaredError,
}

/// The samples of a recorded run.
#[derive(Debug, Clone, PartialEq)]
pub enum GoldenData {
    /// The first `samples` of MNIST's training set, pixels / 255 and labels.
    Mnist,
    /// In the file itself: inputs (samples, in) and targets (samples, out).
    Random {
        /// (samples, in).
        x: Vec<f32>,
        /// (samples, out).
        y: Vec<f32>,
    },
}

/// A recorded run.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// What it is called.
    pub name: String,
    /// Widths: inputs, hidden.., outputs.
    pub layers: Vec<usize>,
    /// Training steps.
    pub steps: usize,
    /// Samples a step.
    pub batch: usize,
    /// The loss.
    pub loss: GoldenLoss,
    /// The optimizer.
    pub optimizer: GoldenOptimizer,
    /// How its learning rate changes; `None` where it does not.
    pub schedule: Option<GoldenSchedule>,
    /// (steps): learning rate of each step, as PyTorch had it.
    pub lr: Vec<f64>,
    /// How many samples of the data are used.
    pub samples: usize,
    /// Where they come from.
    pub data: GoldenData,
    /// (steps, batch): the samples of each step, each below `samples`.
    pub order: Vec<u32>,
    /// Parameters before step 0: `fc1.weight`, `fc1.bias`, `fc2.weight`, ..
    pub init: Vec<GoldenTensor<f32>>,
    /// (steps): loss of each step before its update, in float64 arithmetic.
    pub loss_f64: Vec<f64>,
    /// Gradients at step 0, in float64 arithmetic.
    pub grad0_f64: Vec<GoldenTensor<f64>>,
    /// Parameters after the last step, in float64 arithmetic.
    pub final_f64: Vec<GoldenTensor<f64>>,
}

/// A recording that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct GoldenError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: GoldenErrorKind,
}

/// The ways in which a recording can be wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenErrorKind {
    /// It cannot be read.
    #[error("could not be read: {0}")]
    Io(#[from] io::Error),
    /// It is larger than any recording.
    #[error("expected at most {BYTES_MAX} bytes, found {found}")]
    Large {
        /// Its length.
        found: u64,
    },
    /// It is no safetensors file, or a truncated one.
    #[error("expected a safetensors file: {reason}")]
    Format {
        /// What the reader found.
        reason: String,
    },
    /// Its metadata lacks a key.
    #[error("metadata: {key} is missing")]
    MetadataMissing {
        /// The key.
        key: &'static str,
    },
    /// A value of its metadata does not say what it should.
    #[error("metadata: {key}: expected {expected}, found {found:?}")]
    Metadata {
        /// The key.
        key: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It lacks a tensor.
    #[error("tensor {name} is missing")]
    TensorMissing {
        /// The tensor.
        name: String,
    },
    /// A tensor has another type or shape.
    #[error("tensor {name}: expected {expected}, found {found}")]
    Tensor {
        /// The tensor.
        name: String,
        /// Type and shape that the metadata calls for.
        expected: String,
        /// Type and shape as they are.
        found: String,
    },
    /// A tensor holds NaN or infinity.
    #[error("tensor {name}: expected finite values, found {found} at index {index}")]
    NotFinite {
        /// The tensor.
        name: String,
        /// Index into the tensor, row-major.
        index: usize,
        /// The value.
        found: f64,
    },
    /// The order names a sample that is not used.
    #[error("order: position {position}: expected a sample below {samples}, found {found}")]
    Order {
        /// Index into the order.
        position: usize,
        /// How many samples there are.
        samples: usize,
        /// The index as given.
        found: i32,
    },
}

impl Golden {
    /// Reads a recording.
    ///
    /// # Errors
    /// [`GoldenError`], of one kind for each way in which the file can be wrong.
    pub fn read(path: &Path) -> Result<Self, GoldenError> {
        Self::read_kind(path).map_err(|kind| GoldenError { path: path.into(), kind })
    }

    fn read_kind(path: &Path) -> Result<Self, GoldenErrorKind> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        if size > BYTES_MAX {
            return Err(GoldenErrorKind::Large { found: size });
        }
        // A device or a pipe has no size, and may have no end.
        let bytes = read_at_most(BYTES_MAX, file)?.ok_or(GoldenErrorKind::Large { found: BYTES_MAX + 1 })?;
        let format = |error: SafeTensorError| GoldenErrorKind::Format { reason: error.to_string() };
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(format)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(format)?;
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Reader { metadata, tensors }.golden()
    }
}

/// All that there is, if it is not more than so many bytes.
fn read_at_most(most: u64, from: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// A file being read.
struct Reader<'a> {
    metadata: HashMap<String, String>,
    tensors: SafeTensors<'a>,
}

impl Reader<'_> {
    fn golden(&self) -> Result<Golden, GoldenErrorKind> {
        let layers = self.layers()?;
        let [steps, batch, samples] = [self.count("steps")?, self.count("batch")?, self.count("samples")?];
        let loss = match self.text("loss")? {
            "cross_entropy" => GoldenLoss::CrossEntropy,
            "mse" => GoldenLoss::MeanSquaredError,
            found => return Err(self.bad("loss", "cross_entropy or mse", found)),
        };
        let text = self.text("optimizer")?;
        let optimizer = GoldenOptimizer::parse(text).map_err(|e| {
            self.bad("optimizer", &format!("arguments of torch.optim.SGD or AdamW ({e})"), text)
        })?;
        let schedule = self.schedule()?;
        // Read first: a count of steps is believed once there are as many losses.
        let loss_f64 = self.f64s("loss.f64", &[steps])?;
        let lr = match schedule {
            Some(_) => self.f64s("lr", &[steps])?,
            None => vec![optimizer.lr(); steps],
        };
        let (inputs, outputs) = (layers[0], layers[layers.len() - 1]);
        let data = match self.text("data")? {
            "mnist" => GoldenData::Mnist,
            "random" => GoldenData::Random {
                x: self.f32s("x", &[samples, inputs])?,
                y: self.f32s("y", &[samples, outputs])?,
            },
            found => return Err(self.bad("data", "mnist or random", found)),
        };
        Ok(Golden {
            name: self.text("name")?.to_owned(),
            steps,
            batch,
            loss,
            optimizer,
            schedule,
            lr,
            samples,
            data,
            order: self.order(steps, batch, samples)?,
            init: self.parameters("init", &layers, Self::f32s)?,
            loss_f64,
            grad0_f64: self.parameters("grad0.f64", &layers, Self::f64s)?,
            final_f64: self.parameters("final.f64", &layers, Self::f64s)?,
            layers,
        })
    }

    fn text(&self, key: &'static str) -> Result<&str, GoldenErrorKind> {
        let missing = || GoldenErrorKind::MetadataMissing { key };
        self.metadata.get(key).map(String::as_str).ok_or_else(missing)
    }

    fn bad(&self, key: &'static str, expected: &str, found: &str) -> GoldenErrorKind {
        let (expected, found) = (expected.to_owned(), found.to_owned());
        GoldenErrorKind::Metadata { key, expected, found }
    }

    fn count(&self, key: &'static str) -> Result<usize, GoldenErrorKind> {
        let text = self.text(key)?;
        match text.parse() {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(self.bad(key, "a number, at least 1", text)),
        }
    }

    fn layers(&self) -> Result<Vec<usize>, GoldenErrorKind> {
        let text = self.text("layers")?;
        match serde_json::from_str::<Vec<usize>>(text) {
            Ok(layers) if layers.len() >= 2 && !layers.contains(&0) => Ok(layers),
            _ => Err(self.bad("layers", "a JSON list of two or more widths, all at least 1", text)),
        }
    }

    /// How the learning rate changes, where the metadata says that it does.
    fn schedule(&self) -> Result<Option<GoldenSchedule>, GoldenErrorKind> {
        let Some(text) = self.metadata.get("schedule") else { return Ok(None) };
        let expected = |e| format!("type and arguments of one of torch.optim.lr_scheduler ({e})");
        let parsed = serde_json::from_str(text).map_err(|e| self.bad("schedule", &expected(e), text))?;
        Ok(Some(parsed))
    }

    fn order(&self, steps: usize, batch: usize, samples: usize) -> Result<Vec<u32>, GoldenErrorKind> {
        let view = self.view("order", Dtype::I32, &[steps, batch])?;
        let index = |(position, bytes): (usize, &[u8])| {
            let found = i32::from_le_bytes(bytes.try_into().unwrap_or_default());
            let inside = u32::try_from(found).ok().filter(|&row| (row as usize) < samples);
            inside.ok_or(GoldenErrorKind::Order { position, samples, found })
        };
        view.data().chunks_exact(4).enumerate().map(index).collect()
    }

    /// `PREFIX.fc1.weight`, `PREFIX.fc1.bias`, .. in the shapes of the layers.
    fn parameters<T>(
        &self,
        prefix: &str,
        layers: &[usize],
        read: impl Fn(&Self, &str, &[usize]) -> Result<Vec<T>, GoldenErrorKind>,
    ) -> Result<Vec<GoldenTensor<T>>, GoldenErrorKind> {
        let mut tensors = Vec::new();
        for (i, width) in layers.windows(2).enumerate() {
            for (kind, shape) in [("weight", vec![width[1], width[0]]), ("bias", vec![width[1]])] {
                let name = format!("fc{}.{kind}", i + 1);
                let data = read(self, &format!("{prefix}.{name}"), &shape)?;
                tensors.push(GoldenTensor { name, shape, data });
            }
        }
        Ok(tensors)
    }

    fn f32s(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, GoldenErrorKind> {
        let view = self.view(name, Dtype::F32, shape)?;
        let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap_or_default());
        let values: Vec<f32> = view.data().chunks_exact(4).map(value).collect();
        self.all_finite(name, values.iter().copied().map(f64::from))?;
        Ok(values)
    }

    fn f64s(&self, name: &str, shape: &[usize]) -> Result<Vec<f64>, GoldenErrorKind> {
        let view = self.view(name, Dtype::F64, shape)?;
        let value = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap_or_default());
        let values: Vec<f64> = view.data().chunks_exact(8).map(value).collect();
        self.all_finite(name, values.iter().copied())?;
        Ok(values)
    }

    fn all_finite(&self, name: &str, mut values: impl Iterator<Item = f64>) -> Result<(), GoldenErrorKind> {
        let mut bad = None;
        let index = values.position(|value| {
            bad = Some(value);
            !value.is_finite()
        });
        match (index, bad) {
            (Some(index), Some(found)) => {
                Err(GoldenErrorKind::NotFinite { name: name.to_owned(), index, found })
            }
            _ => Ok(()),
        }
    }

    /// A tensor of this type and shape. The file's reader has checked that its bytes are as many.
    fn view(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<TensorView<'_>, GoldenErrorKind> {
        let missing = |_| GoldenErrorKind::TensorMissing { name: name.to_owned() };
        let view = self.tensors.tensor(name).map_err(missing)?;
        if view.dtype() == dtype && view.shape() == shape {
            return Ok(view);
        }
        let describe = |dtype: Dtype, shape: &[usize]| format!("{dtype} {shape:?}");
        Err(GoldenErrorKind::Tensor {
            name: name.to_owned(),
            expected: describe(dtype, shape),
            found: describe(view.dtype(), view.shape()),
        })
    }
}

#[cfg(test)]
mod tests;
