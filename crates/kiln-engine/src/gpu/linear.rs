//! Launches of `kernels/linear.cuh`.

use super::kernels::{Launch, Tile, fills, grid};
use super::{Dims, Gpu, Position, Region};
use crate::Error;
use crate::nvtx::range;

/// What a layer reads.
#[derive(Clone, Copy)]
pub(crate) enum Source<'b> {
    /// (samples, K) pixels 0..=255 of the data set.
    Pixels(Region<'b, u8>),
    /// (samples, K) values of the data set.
    Floats(Region<'b, f32>),
    /// (B, K), the outputs of the layer below.
    Hidden(Region<'b, f32>),
}

impl Source<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Source::Pixels(_) => "pixels",
            Source::Floats(_) => "floats",
            Source::Hidden(_) => "hidden",
        }
    }

    /// The first parameters of a kernel that gathers; rows of the data set are checked where the order is made.
    pub(super) fn push<'a>(&'a self, launch: Launch<'a>, at: &'a Position<'_>, dims: Dims) -> Launch<'a> {
        match self {
            Source::Hidden(x) => launch.pointer(x, dims.b as usize * dims.k as usize),
            _ => self.push_rows(launch, at, dims.k as usize),
        }
    }

    /// Those of a kernel that may gather, from rows of at least `width` values.
    pub(super) fn push_rows<'a>(
        &'a self,
        launch: Launch<'a>,
        at: &'a Position<'_>,
        width: usize,
    ) -> Launch<'a> {
        match self {
            Source::Pixels(x) => launch.pointer(x, width).position(at),
            Source::Floats(x) => launch.pointer(x, width).position(at),
            Source::Hidden(_) => unreachable!("the outputs of a layer are gathered by nobody"),
        }
    }
}

/// What follows the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Relu,
    Identity,
}

/// Rows and columns of a tile.
fn sides(tile: Tile) -> (u32, u32) {
    match tile {
        Tile::Tiny => (16, 8),
        Tile::Small => (16, 16),
        Tile::Large => Tile::LARGE,
    }
}

/// Threads of a block that makes one, with sums of so many terms, of which a warp of a small tile takes `at_once`: one for each output
/// at least, and 16 warps at most.
fn threads(tile: Tile, terms: u32, at_once: u32) -> u32 {
    match tile {
        Tile::Large => 256,
        Tile::Tiny | Tile::Small => {
            let (rows, columns) = sides(tile);
            (terms.div_ceil(at_once).min(16) * 32).max(rows * columns)
        }
    }
}

/// Terms that a warp of a small tile takes at a time, as `STEPS` in `linear.cuh` says: of pixels and of others whose lines are loaded by
/// several values, and of lines that are not.
const PIXELS_AT_ONCE: u32 = 64;
const FLOATS_AT_ONCE: u32 = 32;
const SINGLY_AT_ONCE: u32 = 16;

/// The tile for a product of rows x columns: as large as still gives every multiprocessor a block.
fn pick(gpu: &Gpu, rows: u32, columns: u32) -> Tile {
    let tile = Tile::pick(gpu, rows, columns);
    if fills(gpu, grid(sides(tile), rows, columns)) { tile } else { Tile::Tiny }
}

/// `y (B, N) = activation(x (B, K) w (N, K)ᵀ + b (N))`.
#[allow(clippy::too_many_arguments)] // what a layer is, no more
pub(crate) fn linear(
    gpu: &Gpu,
    x: &Source<'_>,
    at: &Position<'_>,
    w: Region<'_, f32>,
    b: Region<'_, f32>,
    y: Region<'_, f32>,
    activation: Activation,
    dims: Dims,
) -> Result<(), Error> {
    let _range = range(format_args!("linear"));
    let tile = pick(gpu, dims.b, dims.n);
    let relu = if activation == Activation::Relu { "_relu" } else { "" };
    let name = format!("linear_{}{relu}_{}", x.name(), tile.name());
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let launch = x
        .push(Launch::new(gpu, &name, dims), at, dims)
        .pointer(&w, outputs * inputs)
        .pointer(&b, outputs)
        .pointer(&y, rows * outputs)
        .dims(&dims);
    let at_once = match x {
        _ if !dims.k.is_multiple_of(4) => SINGLY_AT_ONCE,
        Source::Pixels(_) => PIXELS_AT_ONCE,
        Source::Floats(_) | Source::Hidden(_) => FLOATS_AT_ONCE,
    };
    launch.submit(grid(sides(tile), dims.b, dims.n), threads(tile, dims.k, at_once))
}

/// `dx (B, K) = dz (B, N) w (N, K)` where `x (B, K) > 0`, else 0.
pub(crate) fn input_gradient(
    gpu: &Gpu,
    dz: Region<'_, f32>,
    w: Region<'_, f32>,
    x: Region<'_, f32>,
    dx: Region<'_, f32>,
    dims: Dims,
) -> Result<(), Error> {
    let _range = range(format_args!("input_gradient"));
    let tile = pick(gpu, dims.b, dims.k);
    let name = format!("input_gradient_{}", tile.name());
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let launch = Launch::new(gpu, &name, dims)
        .pointer(&dz, rows * outputs)
        .pointer(&w, outputs * inputs)
        .pointer(&x, rows * inputs)
        .pointer(&dx, rows * inputs)
        .dims(&dims);
    // Of w it takes as many neighbours as the tile has columns for each eight.
    let neighbours = sides(tile).1 / 8;
    let together = dims.n.is_multiple_of(4) && dims.k.is_multiple_of(neighbours);
    let at_once = if together { FLOATS_AT_ONCE } else { SINGLY_AT_ONCE };
    launch.submit(grid(sides(tile), dims.b, dims.k), threads(tile, dims.n, at_once))
}
