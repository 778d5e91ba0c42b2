//! Launches of `kernels/copies.cuh`, `linear_copies.cuh` and `weight_gradient_copies.cuh`: layers whose operands lie in device
//! memory as copies, made of what tensor cores multiply. The kernels are those of [`super::copies_modules`]
//! and [`super::warpgroup_modules`].

use super::kernels::{Launch, STRIDING_THREADS, fills, striding_grid};
use super::{Dims, Gpu, Position, Region, Sink, Source};
use crate::nvtx::range;
use crate::{Error, Precision};

/// What the values of copies are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// bfloat16, 2 bytes.
    Bf16,
    /// TF32: float32 whose last 13 bits are zero.
    Tf32,
    /// float32, as it is: three planes of bfloat16 that add up to it.
    Bf16x3,
}

impl Format {
    /// That of a precision.
    pub(crate) fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Format::Bf16x3,
            Precision::Tf32 => Format::Tf32,
            Precision::Bf16 => Format::Bf16,
        }
    }

    /// As kernels are named: those of one format must not be given copies in another.
    fn name(self) -> &'static str {
        match self {
            Format::Bf16 => "bf16",
            Format::Tf32 => "tf32",
            Format::Bf16x3 => "bf16x3",
        }
    }

    /// Values of a chunk.
    pub(super) const fn values(self) -> usize {
        match self {
            Format::Bf16 | Format::Bf16x3 => 8,
            Format::Tf32 => 4,
        }
    }

    /// Matrices that make a copy.
    pub(super) const fn planes(self) -> usize {
        match self {
            Format::Bf16 | Format::Tf32 => 1,
            Format::Bf16x3 => 3,
        }
    }

    /// Chunks of a copy of a matrix (lines, width): lines begin at chunks.
    pub(crate) fn chunks(self, lines: usize, width: usize) -> usize {
        self.chunks_of_plane(lines, width).saturating_mul(self.planes())
    }

    /// Those of one plane.
    pub(super) fn chunks_of_plane(self, lines: usize, width: usize) -> usize {
        lines.saturating_mul(width.div_ceil(self.values()))
    }
}

/// 16 bytes of a copy.
pub(crate) type Chunk = u128;

/// A copy of a matrix, or room for one.
#[derive(Clone, Copy)]
pub(crate) struct Copied<'b> {
    pub(crate) chunks: Region<'b, Chunk>,
    pub(crate) format: Format,
}

impl Copied<'_> {
    /// The next parameter: a copy of a matrix (lines, width).
    fn push<'a>(&'a self, launch: Launch<'a>, lines: usize, width: usize) -> Launch<'a> {
        assert!(
            launch.name().split('_').any(|part| part == self.format.name()),
            "a copy in {:?} for {}",
            self.format,
            launch.name()
        );
        launch.pointer(&self.chunks, self.format.chunks(lines, width))
    }
}

/// A tile of a product, and who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tile {
    /// A square, by warps.
    Side32,
    Side64,
    Side128,
    /// 128 rows and so many columns, by two warpgroups.
    Warpgroups128,
    Warpgroups256,
}

impl Tile {
    /// The largest that gives every multiprocessor a block, for a product of rows x columns.
    fn pick(gpu: &Gpu, format: Format, rows: u32, columns: u32) -> Self {
        let by_warpgroups = gpu.warpgroups && format != Format::Tf32;
        let has = |tile: &Tile| match tile {
            Tile::Warpgroups128 | Tile::Warpgroups256 => {
                by_warpgroups && tile.columns() <= gpu.choices.warpgroup_columns_max
            }
            _ => true,
        };
        let fills = |tile: &Tile| fills(gpu, tile.grid(rows, columns));
        [Tile::Warpgroups256, Tile::Warpgroups128, Tile::Side128, Tile::Side64]
            .into_iter()
            .find(|tile| has(tile) && fills(tile))
            .unwrap_or(Tile::Side32)
    }

    /// As kernels are named.
    fn name(self) -> &'static str {
        match self {
            Tile::Side32 => "32",
            Tile::Side64 => "64",
            Tile::Side128 => "128",
            Tile::Warpgroups128 => "warpgroups_128",
            Tile::Warpgroups256 => "warpgroups_256",
        }
    }

    fn rows(self) -> u32 {
        match self {
            Tile::Side32 => 32,
            Tile::Side64 => 64,
            Tile::Side128 | Tile::Warpgroups128 | Tile::Warpgroups256 => 128,
        }
    }

    fn columns(self) -> u32 {
        if self == Tile::Warpgroups256 { 256 } else { self.rows() }
    }

    /// Of a block.
    fn threads(self) -> u32 {
        match self {
            Tile::Side32 | Tile::Side64 | Tile::Side128 => 128,
            Tile::Warpgroups128 | Tile::Warpgroups256 => 256,
        }
    }

    /// Of a block: `SHARED` in `kernels/pipeline.cuh` and `warpgroups.cuh`.
    fn shared_bytes(self) -> u32 {
        match self {
            Tile::Side32 | Tile::Side64 => 40 << 10,
            Tile::Side128 => 80 << 10,
            Tile::Warpgroups128 => 97 << 10,
            Tile::Warpgroups256 => 193 << 10,
        }
    }

    fn grid(self, rows: u32, columns: u32) -> (u32, u32, u32) {
        (rows.div_ceil(self.rows()), columns.div_ceil(self.columns()), 1)
    }

    /// Submits a launch for a product of rows x columns.
    fn submit(self, launch: Launch<'_>, rows: u32, columns: u32) -> Result<(), Error> {
        launch.shared(self.shared_bytes()).submit(self.grid(rows, columns), self.threads())
    }
}

/// What a layer reads: a copy (B, K).
#[derive(Clone, Copy)]
pub(crate) struct Input<'b> {
    x: Copied<'b>,
    /// What its values are to be multiplied by.
    scale: f32,
    /// Planes of it that are written; the others are taken for zero.
    planes: u32,
}

impl<'b> Input<'b> {
    /// Pixels, whole numbers 0..=255, which stand for 1/255 each.
    pub(crate) fn pixels(x: Copied<'b>) -> Self {
        Self { x, scale: 1.0 / 255.0, planes: 1 }
    }

    /// Values as they are.
    pub(crate) fn floats(x: Copied<'b>) -> Self {
        Self { x, scale: 1.0, planes: x.format.planes() as u32 }
    }

    /// The next parameters: `x (B, K)`.
    fn push<'a>(&'a self, launch: Launch<'a>, rows: usize, inputs: usize) -> Launch<'a> {
        self.x.push(launch, rows, inputs).number(&self.planes).number(&self.scale)
    }
}

/// A gradient (B, N): its copy, and the sums of parts of its rows (count, N).
#[derive(Clone, Copy)]
pub(crate) struct Gradient<'b> {
    pub(crate) dz: Copied<'b>,
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
pub(crate) fn parts_of_hidden(gpu: &Gpu, format: Format, rows: u32, columns: u32) -> u32 {
    rows.div_ceil(Tile::pick(gpu, format, rows, columns).rows())
}

/// The most parts that a gradient of so many rows has.
pub(crate) fn parts_max(rows: usize) -> usize {
    rows.div_ceil(PART_ROWS as usize)
}

/// The grid for a copy (lines, width): a thread makes a chunk at a time.
fn copy_grid(gpu: &Gpu, format: Format, lines: u32, width: u32) -> (u32, u32, u32) {
    striding_grid(gpu, format.chunks_of_plane(lines as usize, width as usize) as u64)
}

/// Threads of a block of [`gradient`].
const GRADIENT_THREADS: u32 = 256;

/// Copies the rows (B, K) of a batch. Pixels stay whole numbers, and write one plane: [`Input::pixels`].
pub(crate) fn batch(
    gpu: &Gpu,
    from: &Source<'_>,
    at: &Position<'_>,
    to: Copied<'_>,
    (b, k): (u32, u32),
) -> Result<(), Error> {
    let _range = range(format_args!("copy batch"));
    let dims = Dims { b, k, n: 1 };
    let name = format!("copy_{}_{}", from.name(), to.format.name());
    let launch = from.push(Launch::new(gpu, &name, dims), at, dims);
    to.push(launch, b as usize, k as usize)
        .number(&b)
        .number(&k)
        .submit(copy_grid(gpu, to.format, b, k), STRIDING_THREADS)
}

/// Copies a matrix (lines, width).
pub(crate) fn matrix(
    gpu: &Gpu,
    from: Region<'_, f32>,
    to: Copied<'_>,
    (lines, width): (u32, u32),
) -> Result<(), Error> {
    let _range = range(format_args!("copy matrix"));
    let name = format!("copy_matrix_{}", to.format.name());
    let launch = Launch::new(gpu, &name, Dims { b: lines, k: width, n: 1 })
        .pointer(&from, lines as usize * width as usize);
    to.push(launch, lines as usize, width as usize)
        .number(&lines)
        .number(&width)
        .submit(copy_grid(gpu, to.format, lines, width), STRIDING_THREADS)
}

/// Copies a gradient (B, N) and sums its parts, [`parts_of_last`] of them.
pub(crate) fn gradient(
    gpu: &Gpu,
    from: Region<'_, f32>,
    to: &Gradient<'_>,
    (b, n): (u32, u32),
) -> Result<(), Error> {
    let _range = range(format_args!("copy gradient"));
    let name = format!("copy_gradient_{}", to.dz.format.name());
    let launch = Launch::new(gpu, &name, Dims { b, k: n, n: 1 }).pointer(&from, b as usize * n as usize);
    to.dz
        .push(launch, b as usize, n as usize)
        .pointer(&to.parts, to.count as usize * n as usize)
        .number(&b)
        .number(&n)
        .submit((b.div_ceil(PART_ROWS), n.div_ceil(32), 1), GRADIENT_THREADS)
}

/// What a layer makes.
#[derive(Clone, Copy)]
pub(crate) enum Output<'b> {
    /// A copy (B, N) of `relu(..)`.
    Hidden(Copied<'b>),
    /// (B, N), as it is.
    Last(Region<'b, f32>),
}

/// `y (B, N) = x (B, K) w (N, K)ᵀ + b (N)`, with w a copy.
pub(crate) fn linear(
    gpu: &Gpu,
    input: &Input<'_>,
    w: Copied<'_>,
    b: Region<'_, f32>,
    y: &Output<'_>,
    dims: Dims,
) -> Result<(), Error> {
    let _range = range(format_args!("linear"));
    let tile = Tile::pick(gpu, w.format, dims.b, dims.n);
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let what = if matches!(y, Output::Hidden(_)) { "hidden" } else { "outputs" };
    let name = format!("linear_copies_{what}_{}_{}", w.format.name(), tile.name());
    let launch = input.push(Launch::new(gpu, &name, dims), rows, inputs);
    let launch = w.push(launch, outputs, inputs).pointer(&b, outputs);
    let launch = match y {
        Output::Hidden(y) => y.push(launch, rows, outputs),
        Output::Last(y) => launch.pointer(y, rows * outputs),
    };
    tile.submit(launch.dims(&dims), dims.b, dims.n)
}

/// `dx (B, K) = dz (B, N) w (N, K)` where `x (B, K) > 0`, else 0, and its parts, [`parts_of_hidden`] of them.
pub(crate) fn input_gradient(
    gpu: &Gpu,
    dz: Copied<'_>,
    w: Copied<'_>,
    x: Copied<'_>,
    dx: &Gradient<'_>,
    dims: Dims,
) -> Result<(), Error> {
    let _range = range(format_args!("input_gradient"));
    let tile = Tile::pick(gpu, w.format, dims.b, dims.k);
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let name = format!("input_gradient_copies_{}_{}", w.format.name(), tile.name());
    let launch = dz.push(Launch::new(gpu, &name, dims), rows, outputs);
    let launch = x.push(w.push(launch, outputs, inputs), rows, inputs);
    let launch = dx.dz.push(launch, rows, inputs);
    let launch = launch.pointer(&dx.parts, rows.div_ceil(tile.rows() as usize) * inputs);
    tile.submit(launch.dims(&dims), dims.b, dims.k)
}

/// `dw (N, K) = dz (B, N)ᵀ x (B, K)` and `db (N)`, the sum of the parts, into the sink. Where the sink updates the weights (N, K),
/// their copy follows.
pub(crate) fn weight_gradient(
    gpu: &Gpu,
    input: &Input<'_>,
    at: &Position<'_>,
    gradient: &Gradient<'_>,
    sink: &Sink<'_>,
    copy: Copied<'_>,
    dims: Dims,
) -> Result<(), Error> {
    let _range = range(format_args!("weight_gradient"));
    let tile = Tile::pick(gpu, copy.format, dims.n, dims.k);
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let name = format!("weight_gradient_copies_{}_{}_{}", sink.name(), copy.format.name(), tile.name());
    let launch = input.push(Launch::new(gpu, &name, dims), rows, inputs);
    let mut launch = gradient
        .dz
        .push(launch, rows, outputs)
        .pointer(&gradient.parts, gradient.count as usize * outputs)
        .number(&gradient.count);
    if !matches!(sink, Sink::Store { .. } | Sink::Add { .. }) {
        launch = copy.push(launch, outputs, inputs).pointer(&at.step, 1).number(&at.slot);
    }
    tile.submit(sink.push(launch, at.slot, dims).dims(&dims), dims.n, dims.k)
}
