//! Trains multilayer perceptrons.
//!
//! A [`Job`] names a model, a loss, an optimizer, its learning rate and the samples to train on; a [`Trainer`] runs it on an engine.
//! Every engine takes the same job, sees the same batches in the same order, and is held to the same recorded
//! trajectories. Semantics are PyTorch's: weights are (out, in), cross entropy is a mean over the batch, the tail
//! batch counts.
//!
//! | concept | here | in PyTorch |
//! |---|---|---|
//! | network | [`Mlp`] | `nn.Sequential(nn.Linear, nn.ReLU, ..)` |
//! | loss | [`Loss`] | `nn.CrossEntropyLoss`, or `((y - yhat) ** 2).sum() / (2 * N)` |
//! | optimizer | [`Sgd`], [`AdamW`] | `torch.optim.SGD`, `torch.optim.AdamW` |
//! | learning rate | [`Schedule`] | `torch.optim.lr_scheduler`, stepped once a training step |
//! | data | [`Samples`] | a pair of tensors |
//! | the loop | [`Trainer::epoch`], [`Trainer::evaluate`] | written by hand |
//! | save and continue | [`Trainer::state`], [`Trainer::restore`] | `state_dict`, `load_state_dict` of model, optimizer and scheduler |
//!
//! ```
//! use kiln_engine::{Job, Loss, Mlp, Samples, Schedule, Sgd, Targets, Trainer};
//!
//! # fn main() -> Result<(), kiln_engine::Error> {
//! let (pixels, labels) = ([0u8, 255, 255, 0, 128, 7], [0u8, 1, 0]);
//! let train = Samples::pixels(&pixels, 2, Targets::Labels(&labels))?;
//! let model = Mlp::new(&[2, 8, 2], 0)?;
//! let optimizer = Sgd { lr: 0.01, momentum: 0.9, ..Sgd::default() }.into();
//! let job = Job { model, loss: Loss::CrossEntropy, optimizer, schedule: Schedule::default(), train };
//! let mut trainer = Trainer::host(job, 1)?;
//! for epoch in 1..=10 {
//!     let trained = trainer.epoch(&[2, 0, 1], 2)?; // the order of the samples, the batch size
//!     println!("Epoch: {epoch}, Loss: {:.3}", trained.loss);
//! }
//! println!("{:?}", trainer.evaluate(&train)?);
//! # Ok(())
//! # }
//! ```
//!
//! The crate reads no files and writes to no terminal.

mod choices;
mod engine;
mod epochs;
mod error;
mod gpu;
mod graph;
mod host;
mod loss;
mod mlp;
mod nvtx;
mod optimizer;
mod precision;
mod resident;
mod samples;
mod schedule;
mod self_test;
mod state;
mod trainer;

pub use choices::Choices;
pub use engine::{Epoch, Evaluation, Gradients, Progress, Trained, TrainedEpochs};
pub use epochs::Epochs;
pub use error::Error;
pub use gpu::{
    CudaVersion, GpuInfo, LoadedKernels, Team, devices, driver, free_memory, inspect, load_kernels, probe,
};
pub use graph::{GraphOptions, Placement, StepRange, Submission};
pub use loss::Loss;
pub use mlp::{Mlp, Tensor};
pub use optimizer::{AdamW, Optimizer, Sgd};
pub use precision::Precision;
pub use resident::{PhaseCycles, PhaseProfile, ResidentOptions, Sweep, profile_phases, resident_fits};
pub use samples::{Inputs, Samples, Targets};
pub use schedule::{Curve, OneCycle, Schedule};
pub use self_test::{SelfTest, self_test, self_test_resident};
pub use state::TrainingState;
pub use trainer::{Job, Trainer, host_threads};
