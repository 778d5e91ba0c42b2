//! Golden trajectories: training runs recorded from PyTorch, and the comparison of other runs with them.
//!
//! [`Golden::read`] reads a recording, an engine replays it and fills a [`Recording`], and [`compare`] holds the
//! one against the other. The crate knows no engine and no data set. `tests/golden/README.md` gives the format and
//! the bounds; every comparison fails on a value that is not finite.

mod close;
mod compare;
mod golden;
mod optimizer;

pub use close::{Mismatch, Worst, close, gamma};
pub use compare::{BOUND, Bounds, CompareError, Comparison, Gap, Recording, Report, compare, relative_error};
pub use golden::{Golden, GoldenData, GoldenError, GoldenErrorKind, GoldenLoss, GoldenTensor};
pub use optimizer::{GoldenAdamW, GoldenOptimizer, GoldenSchedule, GoldenSgd};
