//! Batches: rows of the data set, picked by an order, as the float32 matrix that the first layer reads.

use std::ops::Range;

use super::threads::each_chunk;
use crate::{Inputs, Samples};

/// Rows of a task.
const ROWS: usize = 64;

/// Fills `out` (B, K) with the inputs of the samples `rows`. Pixels stay whole numbers 0..=255: the first layer's products
/// carry the factor of [`input_scale`], so that a pixel is never rounded.
pub(crate) fn gather(samples: &Samples<'_>, rows: &(impl Rows + ?Sized), out: &mut [f32]) {
    let width = samples.width();
    debug_assert_eq!(out.len(), rows.count() * width);
    // A value comes from memory, which takes as long as some multiply-adds.
    let cost = 8 * out.len();
    each_chunk(out, ROWS * width, cost, |task, out| {
        for (at, out) in out.chunks_exact_mut(width).enumerate() {
            let row = rows.sample(task * ROWS + at);
            let values = row * width..(row + 1) * width;
            match samples.inputs() {
                Inputs::Pixels(pixels) => {
                    for (value, &pixel) in out.iter_mut().zip(&pixels[values]) {
                        *value = f32::from(pixel);
                    }
                }
                Inputs::Floats(floats) => out.copy_from_slice(&floats[values]),
            }
        }
    });
}

/// The samples of a batch.
pub(crate) trait Rows: Sync {
    /// How many there are.
    fn count(&self) -> usize;
    /// The one at a row of the batch.
    fn sample(&self, row: usize) -> usize;
}

impl Rows for [u32] {
    fn count(&self) -> usize {
        self.len()
    }
    fn sample(&self, row: usize) -> usize {
        self[row] as usize
    }
}

impl Rows for Range<usize> {
    fn count(&self) -> usize {
        self.len()
    }
    fn sample(&self, row: usize) -> usize {
        self.start + row
    }
}

/// What a gathered value is to be multiplied by.
pub(crate) fn input_scale(samples: &Samples<'_>) -> f32 {
    match samples.inputs() {
        Inputs::Pixels(_) => 1.0 / 255.0,
        Inputs::Floats(_) => 1.0,
    }
}
