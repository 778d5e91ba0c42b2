//! Batches: rows of the data set, picked by an order, as the float32 matrix that the first layer reads.

use crate::{Inputs, Samples};

/// Fills `out` (B, K) with the inputs of `rows`. Pixels stay whole numbers 0..=255: the first layer's products
/// carry the factor of [`input_scale`], so that a pixel is never rounded.
pub(crate) fn gather(samples: &Samples<'_>, rows: impl ExactSizeIterator<Item = usize>, out: &mut [f32]) {
    let width = samples.width();
    debug_assert_eq!(out.len(), rows.len() * width);
    match samples.inputs() {
        Inputs::Pixels(pixels) => {
            for (out, row) in out.chunks_exact_mut(width).zip(rows) {
                for (value, &pixel) in out.iter_mut().zip(&pixels[row * width..(row + 1) * width]) {
                    *value = f32::from(pixel);
                }
            }
        }
        Inputs::Floats(floats) => {
            for (out, row) in out.chunks_exact_mut(width).zip(rows) {
                out.copy_from_slice(&floats[row * width..(row + 1) * width]);
            }
        }
    }
}

/// What a gathered value is to be multiplied by.
pub(crate) fn input_scale(samples: &Samples<'_>) -> f32 {
    match samples.inputs() {
        Inputs::Pixels(_) => 1.0 / 255.0,
        Inputs::Floats(_) => 1.0,
    }
}
