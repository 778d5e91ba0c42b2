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

impl Wanted<'_> {
    /// The loss, as kernels are named.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Wanted::CrossEntropy(_) => "softmax_cross_entropy",
            Wanted::OneHot(_) => "mse_labels",
            Wanted::Values(_) => "mse_values",
        }
    }

    /// The first parameter of a loss; rows of the data set are checked where the order is made.
    pub(super) fn push<'a>(&'a self, launch: Launch<'a>, classes: u32) -> Launch<'a> {
        match self {
            Wanted::CrossEntropy(labels) | Wanted::OneHot(labels) => launch.pointer(labels, 1),
            Wanted::Values(values) => launch.pointer(values, classes as usize),
        }
    }
}

/// Where what the rows come to is written.
#[derive(Clone, Copy)]
pub(crate) struct RowResults<'b> {
    /// (rows of the epoch)
    pub(crate) losses: Region<'b, f32>,
    /// (rows of the epoch), for labels.
    pub(crate) hits: Region<'b, u32>,
}

impl RowResults<'_> {
    /// The parameters of a loss that say where.
    pub(super) fn push<'a>(
        &'a self,
        launch: Launch<'a>,
        wanted: &Wanted<'_>,
        at: &Position<'_>,
        rows: u32,
    ) -> Launch<'a> {
        let rows = at.slot as usize * at.batch as usize + rows as usize;
        let launch = launch.pointer(&self.losses, rows);
        if matches!(wanted, Wanted::Values(_)) { launch } else { launch.pointer(&self.hits, rows) }
    }
}

/// Rows of a block: one a warp.
const ROWS: u32 = 8;

/// Turns outputs `z (B, C)` into the gradient of the mean loss of `mean` rows, of which these may be a part, and writes loss and hit of
/// each row at its place in the epoch.
pub(crate) fn loss(
    gpu: &Gpu,
    wanted: &Wanted<'_>,
    at: &Position<'_>,
    z: Region<'_, f32>,
    results: &RowResults<'_>,
    mean: u32,
    dims: Dims,
) -> Result<(), Error> {
    let _range = range(format_args!("loss"));
    let launch = wanted.push(Launch::new(gpu, wanted.name(), dims), dims.n);
    let launch = launch.position(at).pointer(&z, dims.b as usize * dims.n as usize);
    results
        .push(launch, wanted, at, dims.b)
        .number(&mean)
        .number(&dims.b)
        .number(&dims.n)
        .submit((dims.b.div_ceil(ROWS), 1, 1), 32 * ROWS)
}
