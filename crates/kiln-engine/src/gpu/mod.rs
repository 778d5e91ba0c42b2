//! CUDA devices: what engines that run on one share.
//!
//! `probe` finds a GPU and says what is wrong where it cannot; `device` opens one; `memory` holds buffers on it; `kernels` the embedded PTX and the
//! functions in it, each of which `modules` loads when it is first launched; the other modules launch one family of kernels each, under the name of its source in `kernels/`. A launch
//! wrapper checks shapes, chooses the tile, and names kernel and dimensions in its error.
//!
//! Everything is computed on one stream, in the order of the calls; `pinned` copies on a second one, and the resident engine trains
//! on one of its own ([`Gpu::beside`]) while it evaluates.

pub(crate) mod copies;
mod device;
mod epoch;
mod head;
mod kernels;
mod linear;
mod loss;
mod memory;
mod modules;
mod optimizer;
mod pinned;
mod probe;
pub(crate) mod resident;
mod weight_gradients;

pub(crate) use device::{Gpu, fault, passed};
pub use device::{LoadedKernels, load_kernels};
pub(crate) use epoch::{advance, batch_sums};
pub(crate) use head::{Head, head};
pub use kernels::Team;
pub(crate) use kernels::{Dims, InputForm, Position, resident_modules};
pub(crate) use linear::{Activation, Source, input_gradient, linear};
pub(crate) use loss::{RowResults, Wanted, loss};
pub(crate) use memory::{Buffer, Region};
pub(crate) use optimizer::{AdamWOptions, Moments, Scalars, SgdOptions, adamw, sgd};
pub(crate) use pinned::{Copies, Staged};
pub use probe::{CudaVersion, GpuInfo, devices, driver, free_memory, inspect, probe};
pub(crate) use weight_gradients::{LayerGradient, Sink, weight_gradients};

#[cfg(test)]
mod tests;
