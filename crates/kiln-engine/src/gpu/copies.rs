//! Launches of `kernels/copies.cu`, `linear_copies.cu` and `weight_gradient_copies.cu`: layers whose operands lie in device memory
//! as bfloat16 copies. The kernels are those of [`super::COPIES`].

use super::kernels::{Launch, STRIDING_THREADS, striding_grid};
use super::{Dims, Gpu, Position, Region, Sink, Source};
use crate::Error;
use crate::nvtx::range;

/// A value of a copy: the bits of a bfloat16.
pub(crate) type Bf16 = u16;

/// Values that a line of a copy begins at a multiple of.
const ALIGN: usize = 8;

/// Values of a copy of a matrix (lines, width), gaps included.
pub(crate) fn copy_len(lines: usize, width: usize) -> usize {
    lines.saturating_mul(width.next_multiple_of(ALIGN))
}

/// The side of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tile {
    Side32,
    Side64,
    Side128,
}

/// Threads of a block of any tile.
const THREADS: u32 = 128;

impl Tile {
    /// The largest that gives every multiprocessor a block, for a product of rows x columns.
    fn pick(gpu: &Gpu, rows: u32, columns: u32) -> Self {
        let fills = |tile: &Tile| {
            let (x, y, _) = tile.grid(rows, columns);
            u64::from(x) * u64::from(y) >= u64::from(gpu.multiprocessors)
        };
        [Tile::Side128, Tile::Side64].into_iter().find(fills).unwrap_or(Tile::Side32)
    }

    fn side(self) -> u32 {
        match self {
            Tile::Side32 => 32,
            Tile::Side64 => 64,
            Tile::Side128 => 128,
        }
    }

    /// Of a block: `SHARED` in `kernels/pipeline.cuh`.
    fn shared_bytes(self) -> u32 {
        match self {
            Tile::Side32 | Tile::Side64 => 40 << 10,
            Tile::Side128 => 80 << 10,
        }
    }

    fn grid(self, rows: u32, columns: u32) -> (u32, u32, u32) {
        (rows.div_ceil(self.side()), columns.div_ceil(self.side()), 1)
    }
}

/// What a layer reads: a copy (B, K), and what its values are to be multiplied by.
#[derive(Clone, Copy)]
pub(crate) struct Input<'b> {
    pub(crate) x: Region<'b, Bf16>,
    pub(crate) scale: f32,
}

/// A gradient (B, N): its copy, and the sums of parts of its rows (count, N).
#[derive(Clone, Copy)]
pub(crate) struct Gradient<'b> {
    pub(crate) dz: Region<'b, Bf16>,
    pub(crate) parts: Region<'b, f32>,
    pub(crate) count: u32,
}

/// Rows of a part of what [`gradient`] copies.
const PART_ROWS: u32 = 32;

/// Parts of the gradient at the outputs of the last layer.
pub(crate) fn parts_of_last(rows: u32) -> u32 {
    rows.div_ceil(PART_ROWS)
}

/// Parts of a gradient (rows, columns) that [`input_gradient`] makes.
pub(crate) fn parts_of_hidden(gpu: &Gpu, rows: u32, columns: u32) -> u32 {
    rows.div_ceil(Tile::pick(gpu, rows, columns).side())
}

/// The most parts that a gradient of so many rows has.
pub(crate) fn parts_max(rows: usize) -> usize {
    rows.div_ceil(PART_ROWS as usize)
}

/// The grid for a copy (lines, width): a thread makes 8 values at a time.
fn copy_grid(gpu: &Gpu, lines: u32, width: u32) -> (u32, u32, u32) {
    striding_grid(gpu, (copy_len(lines as usize, width as usize) / ALIGN) as u64)
}

/// Threads of a block of [`gradient`].
const GRADIENT_THREADS: u32 = 256;

/// Copies the rows (B, K) of a batch. Pixels stay whole numbers.
pub(crate) fn batch(
    gpu: &Gpu,
    from: &Source<'_>,
    at: &Position<'_>,
    to: Region<'_, Bf16>,
    (b, k): (u32, u32),
) -> Result<(), Error> {
    let _range = range(format_args!("copy batch"));
    let dims = Dims { b, k, n: 1 };
    let name = format!("copy_{}", from.name());
    from.push(Launch::new(gpu, &name, dims), at, dims)
        .pointer(&to, copy_len(b as usize, k as usize))
        .number(&b)
        .number(&k)
        .submit(copy_grid(gpu, b, k), STRIDING_THREADS)
}

/// Copies a matrix (lines, width).
pub(crate) fn matrix(
    gpu: &Gpu,
    from: Region<'_, f32>,
    to: Region<'_, Bf16>,
    (lines, width): (u32, u32),
) -> Result<(), Error> {
    let _range = range(format_args!("copy matrix"));
    Launch::new(gpu, "copy_matrix", Dims { b: lines, k: width, n: 1 })
        .pointer(&from, lines as usize * width as usize)
        .pointer(&to, copy_len(lines as usize, width as usize))
        .number(&lines)
        .number(&width)
        .submit(copy_grid(gpu, lines, width), STRIDING_THREADS)
}

/// Copies a gradient (B, N) and sums its parts, [`parts_of_last`] of them.
pub(crate) fn gradient(
    gpu: &Gpu,
    from: Region<'_, f32>,
    to: &Gradient<'_>,
    (b, n): (u32, u32),
) -> Result<(), Error> {
    let _range = range(format_args!("copy gradient"));
    Launch::new(gpu, "copy_gradient", Dims { b, k: n, n: 1 })
        .pointer(&from, b as usize * n as usize)
        .pointer(&to.dz, copy_len(b as usize, n as usize))
        .pointer(&to.parts, to.count as usize * n as usize)
        .number(&b)
        .number(&n)
        .submit((b.div_ceil(PART_ROWS), n.div_ceil(32), 1), GRADIENT_THREADS)
}

/// What a layer makes.
#[derive(Clone, Copy)]
pub(crate) enum Output<'b> {
    /// A copy (B, N) of `relu(..)`.
    Hidden(Region<'b, Bf16>),
    /// (B, N), as it is.
    Last(Region<'b, f32>),
}

/// `y (B, N) = x (B, K) w (N, K)ᵀ + b (N)`, with w a copy.
pub(crate) fn linear(
    gpu: &Gpu,
    input: &Input<'_>,
    w: Region<'_, Bf16>,
    b: Region<'_, f32>,
    y: &Output<'_>,
    dims: Dims,
) -> Result<(), Error> {
    let _range = range(format_args!("linear"));
    let tile = Tile::pick(gpu, dims.b, dims.n);
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let what = if matches!(y, Output::Hidden(_)) { "hidden" } else { "outputs" };
    let name = format!("linear_copies_{what}_{}", tile.side());
    let launch = Launch::new(gpu, &name, dims)
        .pointer(&input.x, copy_len(rows, inputs))
        .number(&input.scale)
        .pointer(&w, copy_len(outputs, inputs))
        .pointer(&b, outputs);
    match y {
        Output::Hidden(y) => launch.pointer(y, copy_len(rows, outputs)),
        Output::Last(y) => launch.pointer(y, rows * outputs),
    }
    .dims(&dims)
    .shared(tile.shared_bytes())
    .submit(tile.grid(dims.b, dims.n), THREADS)
}

/// `dx (B, K) = dz (B, N) w (N, K)` where `x (B, K) > 0`, else 0, and its parts, [`parts_of_hidden`] of them.
pub(crate) fn input_gradient(
    gpu: &Gpu,
    dz: Region<'_, Bf16>,
    w: Region<'_, Bf16>,
    x: Region<'_, Bf16>,
    dx: &Gradient<'_>,
    dims: Dims,
) -> Result<(), Error> {
    let _range = range(format_args!("input_gradient"));
    let tile = Tile::pick(gpu, dims.b, dims.k);
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let name = format!("input_gradient_copies_{}", tile.side());
    Launch::new(gpu, &name, dims)
        .pointer(&dz, copy_len(rows, outputs))
        .pointer(&w, copy_len(outputs, inputs))
        .pointer(&x, copy_len(rows, inputs))
        .pointer(&dx.dz, copy_len(rows, inputs))
        .pointer(&dx.parts, rows.div_ceil(tile.side() as usize) * inputs)
        .dims(&dims)
        .shared(tile.shared_bytes())
        .submit(tile.grid(dims.b, dims.k), THREADS)
}

/// `dw (N, K) = dz (B, N)ᵀ x (B, K)` and `db (N)`, the sum of the parts, into the sink. Where the sink updates the weights (N, K),
/// their copy follows.
pub(crate) fn weight_gradient(
    gpu: &Gpu,
    input: &Input<'_>,
    at: &Position<'_>,
    gradient: &Gradient<'_>,
    sink: &Sink<'_>,
    copy: Region<'_, Bf16>,
    dims: Dims,
) -> Result<(), Error> {
    let _range = range(format_args!("weight_gradient"));
    let tile = Tile::pick(gpu, dims.n, dims.k);
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let name = format!("weight_gradient_copies_{}_{}", sink.name(), tile.side());
    let mut launch = Launch::new(gpu, &name, dims)
        .pointer(&input.x, copy_len(rows, inputs))
        .number(&input.scale)
        .pointer(&gradient.dz, copy_len(rows, outputs))
        .pointer(&gradient.parts, gradient.count as usize * outputs)
        .number(&gradient.count);
    if !matches!(sink, Sink::Store { .. } | Sink::Add { .. }) {
        launch = launch.pointer(&copy, copy_len(outputs, inputs)).pointer(&at.step, 1).number(&at.slot);
    }
    sink.push(launch, at.slot, dims)
        .dims(&dims)
        .shared(tile.shared_bytes())
        .submit(tile.grid(dims.n, dims.k), THREADS)
}
