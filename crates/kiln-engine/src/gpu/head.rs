//! Launches of `kernels/head.cuh`.

use super::kernels::Launch;
use super::{Dims, Gpu, Position, Region, RowResults, Wanted};
use crate::Error;
use crate::nvtx::range;

/// A last layer, and the places of its gradients.
#[derive(Clone, Copy)]
pub(crate) struct Head<'b> {
    /// Outputs (B, K) of the layer below, after its ReLU.
    pub(crate) x: Region<'b, f32>,
    /// (C, K)
    pub(crate) w: Region<'b, f32>,
    /// (C)
    pub(crate) b: Region<'b, f32>,
    /// Gradient (B, C) at the outputs.
    pub(crate) dz: Region<'b, f32>,
    /// Gradient (B, K) at the outputs of the layer below, before its ReLU.
    pub(crate) dx: Region<'b, f32>,
}

impl Head<'_> {
    /// Most classes that the kernel takes.
    const CLASSES_MAX: u32 = 32;
    /// Most inputs: a warp goes through all of them, twice. A guess.
    const INPUTS_MAX: u32 = 1024;
    /// Classes that are summed together, needed or not.
    const GROUP: u32 = 16;

    /// Whether a last layer and its batch are few enough.
    pub(crate) fn fits(gpu: &Gpu, Dims { b, k, n }: Dims) -> bool {
        if k > Self::INPUTS_MAX || n > Self::CLASSES_MAX {
            return false;
        }
        u64::from(b) * u64::from(k * n.next_multiple_of(Self::GROUP)) <= gpu.choices.head_products_max
    }
}

/// Rows of a block: one a warp.
const ROWS: u32 = 4;

/// The last layer, the loss, the gradient of the mean loss of `mean` rows, of which these may be a part, and the gradient at the layer
/// below. N of the dimensions are the classes C.
pub(crate) fn head(
    gpu: &Gpu,
    wanted: &Wanted<'_>,
    at: &Position<'_>,
    layer: &Head<'_>,
    results: &RowResults<'_>,
    mean: u32,
    dims: Dims,
) -> Result<(), Error> {
    let _range = range(format_args!("head"));
    let name = format!("head_{}", wanted.name());
    let Dims { b, k, n } = dims;
    assert!(Head::fits(gpu, dims), "a head of {k} inputs and {n} classes for {b} rows");
    let (rows, inputs, classes) = (b as usize, k as usize, n as usize);
    let launch = wanted
        .push(Launch::new(gpu, &name, dims), n)
        .position(at)
        .pointer(&layer.x, rows * inputs)
        .pointer(&layer.w, classes * inputs)
        .pointer(&layer.b, classes)
        .pointer(&layer.dz, rows * classes)
        .pointer(&layer.dx, rows * inputs);
    results.push(launch, wanted, at, b).number(&mean).dims(&dims).submit((b.div_ceil(ROWS), 1, 1), 32 * ROWS)
}
