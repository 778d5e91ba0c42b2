//! Launches of `kernels/softmax_loss.cu` and `kernels/mse.cu`.

use super::kernels::Launch;
use super::{Dims, Gpu, Position, Region};
use crate::Error;
use crate::nvtx::range;

/// The loss, and the targets that it is taken against.
#[derive(Clone, Copy)]
pub(crate) enum Wanted<'b> {
    /// Cross entropy against (samples) labels.
    CrossEntropy(Region<'b, u8>),
    /// Mean squared error against one-hot rows of (samples) labels.
    OneHot(Region<'b, u8>),
    /// Mean squared error against (samples, C) values.
    Values(Region<'b, f32>),
}

/// Rows of a block: one a warp.
const ROWS: u32 = 8;

/// Turns outputs `z (B, C)` into the gradient of the mean loss of `mean` rows, of which these may be a part, and writes loss and hit of
/// each row at its place in the epoch.
#[allow(clippy::too_many_arguments)] // what a loss is, no more
pub(crate) fn loss(
    gpu: &Gpu,
    wanted: &Wanted<'_>,
    at: &Position<'_>,
    z: Region<'_, f32>,
    losses: Region<'_, f32>,
    hits: Region<'_, u32>,
    mean: u32,
    dims: Dims,
) -> Result<(), Error> {
    let _range = range(format_args!("loss"));
    let rows = at.slot as usize * at.batch as usize + dims.b as usize;
    let launch = match wanted {
        Wanted::CrossEntropy(labels) => Launch::new(gpu, "softmax_cross_entropy", dims).pointer(labels, 1),
        Wanted::OneHot(labels) => Launch::new(gpu, "mse_labels", dims).pointer(labels, 1),
        Wanted::Values(values) => Launch::new(gpu, "mse_values", dims).pointer(values, dims.n as usize),
    };
    let mut launch =
        launch.position(at).pointer(&z, dims.b as usize * dims.n as usize).pointer(&losses, rows);
    if !matches!(wanted, Wanted::Values(_)) {
        launch = launch.pointer(&hits, rows);
    }
    launch.number(&mean).number(&dims.b).number(&dims.n).submit((dims.b.div_ceil(ROWS), 1, 1), 32 * ROWS)
}
