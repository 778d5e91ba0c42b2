//! What can be wrong with a job, a batch or a run.

use std::ops::Range;

/// An error of model, data or training, each saying what was expected and what was found.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fewer than two widths, or a width of zero.
    #[error(
        "layers: expected two or more widths, all at least 1 (inputs, hidden.., outputs), found {found:?}"
    )]
    Layers {
        /// The widths as given.
        found: Vec<usize>,
    },
    /// A [`crate::TrainingState`] is not of this job.
    #[error("training state: {what}: expected {expected}, found {found}")]
    State {
        /// The part of it.
        what: String,
        /// What the job calls for.
        expected: String,
        /// What it has.
        found: String,
    },
    /// A tensor that a model needs is missing.
    #[error("model: tensor {name} is missing; a model of layers {layers:?} has fc1..fc{depth}, weight and bias", depth = layers.len().saturating_sub(1))]
    TensorMissing {
        /// PyTorch's name of the tensor.
        name: String,
        /// The widths of the model.
        layers: Vec<usize>,
    },
    /// A tensor of a model has the wrong shape.
    #[error("model: tensor {name}: expected shape {expected:?}, found {found:?}")]
    TensorShape {
        /// PyTorch's name of the tensor.
        name: String,
        /// The shape that the layers call for.
        expected: Vec<usize>,
        /// The shape, or the count of values, as given.
        found: Vec<usize>,
    },
    /// A parameter is NaN or infinite.
    #[error("model: tensor {name}: expected finite values, found {found} at index {index}")]
    TensorValue {
        /// PyTorch's name of the tensor.
        name: String,
        /// Index into the tensor, row-major.
        index: usize,
        /// The value.
        found: f32,
    },
    /// A hyperparameter is outside its range.
    #[error("optimizer: {name}: expected {expected}, found {found}")]
    Hyperparameter {
        /// Its field in [`crate::Sgd`] or [`crate::AdamW`].
        name: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it was.
        found: f64,
    },
    /// An option of a learning rate schedule is outside its range.
    #[error("schedule: {name}: expected {expected}, found {found}")]
    Schedule {
        /// Its field in [`crate::Schedule`] or its curve.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it was.
        found: f64,
    },
    /// Lengths of inputs and targets do not fit each other.
    #[error("samples: {what}: expected {expected} values, found {found}")]
    SampleCount {
        /// Which of the slices.
        what: &'static str,
        /// How many values would fit.
        expected: String,
        /// How many there are.
        found: usize,
    },
    /// An input or a target value is NaN or infinite.
    #[error("samples: {what}: expected finite values, found {found} at sample {sample}")]
    SampleValue {
        /// `inputs` or `targets`.
        what: &'static str,
        /// The sample that holds it.
        sample: usize,
        /// The value.
        found: f32,
    },
    /// A label names a class that the model does not have.
    #[error("samples: label of sample {sample}: expected a class below {classes}, found {found}")]
    Label {
        /// The sample.
        sample: usize,
        /// How many classes the model has.
        classes: usize,
        /// The label.
        found: u8,
    },
    /// The widths of the data are not those of the model.
    #[error("samples: {what}: expected {expected}, as the model has it, found {found}")]
    SampleWidth {
        /// `values an input` or `values a target`.
        what: &'static str,
        /// The model's width.
        expected: usize,
        /// The data's width.
        found: usize,
    },
    /// Cross entropy wants labels.
    #[error("loss: cross entropy expects labels as targets, found values; use mean squared error for values")]
    TargetsForLoss,
    /// A batch of zero samples.
    #[error("batch: expected 1 or more samples, found 0")]
    Batch,
    /// An epoch over no samples at all.
    #[error("{what}: expected 1 or more samples, found none")]
    Empty {
        /// What was empty.
        what: &'static str,
    },
    /// An epoch of more rows than 32 bits count.
    #[error("order: expected at most {} rows, found {found}", u32::MAX)]
    OrderLength {
        /// Its rows.
        found: usize,
    },
    /// The order names a sample that does not exist.
    #[error("order: position {position}: expected a sample below {samples}, found {found}")]
    Order {
        /// Index into the order.
        position: usize,
        /// How many samples there are.
        samples: usize,
        /// The index as given.
        found: u32,
    },
    /// The loss became NaN or infinite: the parameters are lost.
    #[error("training: expected a finite loss, found {loss} at step {step}; a lower learning rate may help")]
    Diverged {
        /// The step within the epoch, from 0.
        step: usize,
        /// The loss of its batch.
        loss: f64,
    },
    /// The loss of an evaluation is NaN or infinite.
    #[error("evaluation: expected a finite loss, found {loss}")]
    EvaluationDiverged {
        /// The loss over the samples.
        loss: f64,
    },
    /// The host refused memory.
    #[error("memory: {what}: the system refused {bytes} bytes; smaller layers or a smaller batch need less")]
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// How much was asked for.
        bytes: u128,
    },
    /// No GPU that could be used.
    #[error("GPU: {reason}")]
    NoGpu {
        /// What is missing.
        reason: String,
    },
    /// There is a driver, and it does not start.
    #[error(
        "GPU: the CUDA driver does not start: {reason}; it may have been updated since the machine was started, or its parts may \
         be of different versions"
    )]
    DriverBroken {
        /// The driver's reason.
        reason: String,
    },
    /// The driver is older than the kernels need.
    #[error(
        "GPU: the driver supports CUDA {found}, expected {needed} or newer (driver R550): update NVIDIA's driver, or use the \
         host engine"
    )]
    DriverTooOld {
        /// The version that the driver supports.
        found: String,
        /// The version that the kernels need.
        needed: String,
    },
    /// The device is older than the kernels need.
    #[error(
        "GPU: {device} has compute capability {}.{}, expected {}.{} or newer",
        found.0,
        found.1,
        needed.0,
        needed.1
    )]
    Capability {
        /// The device's name.
        device: String,
        /// What it has.
        found: (i32, i32),
        /// What the kernels need.
        needed: (i32, i32),
    },
    /// The device has too little memory.
    #[error(
        "GPU memory: {what}: {bytes} bytes asked for, {free} of {total} free; a smaller batch or smaller layers need less, and \
         other programs may hold the rest"
    )]
    DeviceMemory {
        /// What it was for.
        what: &'static str,
        /// How much was asked for.
        bytes: u128,
        /// How much was free.
        free: usize,
        /// How much there is.
        total: usize,
    },
    /// A job, or a device, that the `resident` engine is not made for.
    #[error("resident engine: {what}: expected {expected}, found {found}; the graph engine trains it")]
    Resident {
        /// What does not fit.
        what: &'static str,
        /// What would.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The driver refused something, or a kernel failed.
    #[error("GPU: {what}: {reason}")]
    Gpu {
        /// What was done: an operation, or a kernel and its dimensions.
        what: String,
        /// The driver's reason.
        reason: String,
    },
    /// The driver refused something, or a kernel failed, while training steps ran.
    #[error("GPU: {}: {what}: {reason}", span(steps))]
    Fault {
        /// The steps that may have failed, counted over the run from 0: one where each kernel is waited for, otherwise all
        /// since the device was last waited for.
        steps: Range<usize>,
        /// What was done: an operation, or a kernel and its dimensions.
        what: String,
        /// The driver's reason.
        reason: String,
    },
    /// The host's threads could not be started.
    #[error("threads: {threads} threads could not be started: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's reason.
        reason: String,
    },
}

/// Steps, for a person.
fn span(steps: &Range<usize>) -> String {
    match steps.len() {
        1 => format!("step {}", steps.start),
        _ => format!("one of the steps {}..{}", steps.start, steps.end),
    }
}

impl Error {
    /// Whether a device has too little memory for samples, which need not be on it: [`crate::Placement::Streamed`].
    pub fn lacks_memory_for_samples(&self) -> bool {
        matches!(self, Error::DeviceMemory { what, .. } if crate::graph::is_of_samples(what))
    }

    /// The same error, said of these steps where it is the device's.
    pub(crate) fn during(self, steps: Range<usize>) -> Self {
        match self {
            Error::Gpu { what, reason } => Error::Fault { steps, what, reason },
            other => other,
        }
    }
}
