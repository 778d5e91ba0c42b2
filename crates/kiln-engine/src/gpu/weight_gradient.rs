//! Launches of `kernels/weight_gradient.cuh`.

use super::kernels::{Launch, Tile};
use super::{Dims, Gpu, Position, Region, Scalars, Source};
use crate::Error;
use crate::nvtx::range;

/// Where the gradient of a layer goes.
#[derive(Clone, Copy)]
pub(crate) enum Sink<'b> {
    /// Into memory: weights (N, K), biases (N).
    Store { dw: Region<'b, f32>, db: Region<'b, f32> },
    /// Added to what is there.
    Add { dw: Region<'b, f32>, db: Region<'b, f32> },
    /// Into the parameters: `p -= lr (g + decay p)`.
    Descent { w: Region<'b, f32>, b: Region<'b, f32>, scalars: Region<'b, Scalars>, decay: f32 },
    /// Into velocities and parameters: `v = keep v + fresh g`, `p -= lr (gradient_share g + velocity_share v)`.
    Momentum {
        w: Region<'b, f32>,
        b: Region<'b, f32>,
        vw: Region<'b, f32>,
        vb: Region<'b, f32>,
        scalars: Region<'b, Scalars>,
        decay: f32,
        gradient_share: f32,
        velocity_share: f32,
    },
}

impl Sink<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Sink::Store { .. } => "store",
            Sink::Add { .. } => "add",
            Sink::Descent { .. } => "descent",
            Sink::Momentum { .. } => "momentum",
        }
    }

    /// The parameters that say where the gradient goes.
    pub(super) fn push<'a>(&'a self, launch: Launch<'a>, slot: u32, dims: Dims) -> Launch<'a> {
        let (weights, biases, row) = (dims.n as usize * dims.k as usize, dims.n as usize, slot as usize + 1);
        match self {
            Sink::Store { dw, db } | Sink::Add { dw, db } => launch.pointer(dw, weights).pointer(db, biases),
            Sink::Descent { w, b, scalars, decay } => {
                launch.pointer(w, weights).pointer(b, biases).pointer(scalars, row).number(decay)
            }
            Sink::Momentum { w, b, vw, vb, scalars, decay, gradient_share, velocity_share } => launch
                .pointer(w, weights)
                .pointer(b, biases)
                .pointer(vw, weights)
                .pointer(vb, biases)
                .pointer(scalars, row)
                .number(decay)
                .number(gradient_share)
                .number(velocity_share),
        }
    }
}

/// Side of the small tile.
const SMALL: u32 = 32;

/// `dw (N, K) = dz (B, N)ᵀ x (B, K)` and `db (N)`, the sum of dz over the batch, into the sink.
pub(crate) fn weight_gradient(
    gpu: &Gpu,
    x: &Source<'_>,
    at: &Position<'_>,
    dz: Region<'_, f32>,
    sink: &Sink<'_>,
    dims: Dims,
) -> Result<(), Error> {
    let _range = range(format_args!("weight_gradient"));
    let tile = Tile::pick(gpu, dims.n, dims.k);
    let threads = if tile == Tile::Large { 256 } else { 128 };
    let name = format!("weight_gradient_{}_{}_{}", x.name(), sink.name(), tile.name());
    let mut launch = x.push(Launch::new(gpu, &name, dims), at, dims);
    if matches!(x, Source::Hidden(_)) {
        launch = launch.pointer(&at.step, 1).number(&at.slot);
    }
    sink.push(launch.pointer(&dz, dims.b as usize * dims.n as usize), at.slot, dims)
        .dims(&dims)
        .submit(tile.grid(SMALL, dims.k, dims.n), threads)
}
