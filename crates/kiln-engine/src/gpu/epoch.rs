//! Launches of `kernels/epoch.cu`.

use super::kernels::Launch;
use super::{Dims, Gpu, Region};
use crate::Error;
use crate::nvtx::range;

const ONE: Dims = Dims { b: 1, k: 1, n: 1 };

/// Moves the epoch's counter on by so many steps.
pub(crate) fn advance(gpu: &Gpu, step: Region<'_, u32>, steps: u32) -> Result<(), Error> {
    let _range = range(format_args!("advance"));
    Launch::new(gpu, "advance", ONE).pointer(&step, 1).number(&steps).submit((1, 1, 1), 1)
}

/// Sums losses and hits of the first `rows` rows by batches of `batch`.
pub(crate) fn batch_sums(
    gpu: &Gpu,
    losses: Region<'_, f32>,
    hits: Region<'_, u32>,
    step_losses: Region<'_, f64>,
    step_hits: Region<'_, u32>,
    rows: u32,
    batch: u32,
) -> Result<(), Error> {
    let _range = range(format_args!("batch_sums"));
    let steps = rows.div_ceil(batch.max(1));
    Launch::new(gpu, "batch_sums", Dims { b: batch, ..ONE })
        .pointer(&losses, rows as usize)
        .pointer(&hits, rows as usize)
        .pointer(&step_losses, steps as usize)
        .pointer(&step_hits, steps as usize)
        .number(&rows)
        .number(&batch)
        .submit((steps, 1, 1), 256)
}
