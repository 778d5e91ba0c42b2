//! Launches of `kernels/weight_gradients.cuh`.

#![allow(unsafe_code)] // a layout that kernels share

use std::mem::offset_of;

use super::kernels::{Launch, Structure, Tile, grid};
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

impl<'b> Sink<'b> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Sink::Store { .. } => "store",
            Sink::Add { .. } => "add",
            Sink::Descent { .. } => "descent",
            Sink::Momentum { .. } => "momentum",
        }
    }

    /// What is written, and how many values each has: weights and biases, and their velocities where there are any.
    fn places(&self, dims: Dims) -> Vec<(&Region<'b, f32>, usize)> {
        let (weights, biases) = (dims.n as usize * dims.k as usize, dims.n as usize);
        match self {
            Sink::Store { dw: w, db: b } | Sink::Add { dw: w, db: b } | Sink::Descent { w, b, .. } => {
                vec![(w, weights), (b, biases)]
            }
            Sink::Momentum { w, b, vw, vb, .. } => {
                vec![(w, weights), (b, biases), (vw, weights), (vb, biases)]
            }
        }
    }

    /// What it has in common with those of other layers: its kind, the address of its scalars, and its options.
    fn common(&self) -> (&'static str, u64, [f32; 3]) {
        match self {
            Sink::Store { .. } | Sink::Add { .. } => (self.name(), 0, [0.0; 3]),
            Sink::Descent { scalars, decay, .. } => (self.name(), *scalars.address(), [*decay, 0.0, 0.0]),
            Sink::Momentum { scalars, decay, gradient_share, velocity_share, .. } => {
                (self.name(), *scalars.address(), [*decay, *gradient_share, *velocity_share])
            }
        }
    }

    /// The parameters that say where the gradient goes and how, for one layer.
    pub(super) fn push<'a>(&'a self, launch: Launch<'a>, slot: u32, dims: Dims) -> Launch<'a> {
        let places = self.places(dims).into_iter();
        let launch = places.fold(launch, |launch, (place, needed)| launch.pointer(place, needed));
        self.push_options(launch, slot)
    }

    /// Those of them that say how.
    fn push_options<'a>(&'a self, launch: Launch<'a>, slot: u32) -> Launch<'a> {
        let row = slot as usize + 1;
        match self {
            Sink::Store { .. } | Sink::Add { .. } => launch,
            Sink::Descent { scalars, decay, .. } => launch.pointer(scalars, row).number(decay),
            Sink::Momentum { scalars, decay, gradient_share, velocity_share, .. } => {
                launch.pointer(scalars, row).number(decay).number(gradient_share).number(velocity_share)
            }
        }
    }
}

/// A layer whose gradient is taken.
#[derive(Clone, Copy)]
pub(crate) struct LayerGradient<'b> {
    /// The outputs (B, K) of the layer below; none where it reads the rows of the batch.
    pub(crate) x: Option<Region<'b, f32>>,
    /// (B, N)
    pub(crate) dz: Region<'b, f32>,
    pub(crate) sink: Sink<'b>,
    pub(crate) dims: Dims,
}

/// Layers of a launch.
const LAYERS_MAX: usize = 8;

/// A layer as the kernel has it: addresses, and how many blocks work on it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Layer {
    x: u64,
    dz: u64,
    places: [u64; 4],
    k: u32,
    n: u32,
    blocks: u32,
    unused: u32,
}

/// The layers of a launch; those from the first without blocks on are none.
#[repr(C)]
#[derive(Clone, Copy)]
struct Layers([Layer; LAYERS_MAX]);

const _: () = assert!(size_of::<Layers>() == 64 * LAYERS_MAX);
const _: () = assert!(offset_of!(Layer, places) == 16 && offset_of!(Layer, blocks) == 56);

// SAFETY: the kernels have the same fields in the same order. `submit` alone fills one, from regions that it has borrowed until it is
// done and whose lengths it demands.
unsafe impl Structure for Layers {}

/// Columns and rows of the small tile.
const SMALL: (u32, u32) = (32, 16);

/// `dw (N, K) = dz (B, N)ᵀ x (B, K)` and `db (N)`, the sum of dz over the batch, of several layers with one kind of sink and the same
/// options, into their sinks: one launch for all that take the same tile, of up to [`LAYERS_MAX`]. `rows` are those that the
/// batch is gathered from.
pub(crate) fn weight_gradients(
    gpu: &Gpu,
    rows: &Source<'_>,
    at: &Position<'_>,
    layers: &[LayerGradient<'_>],
) -> Result<(), Error> {
    let tile = |layer: &LayerGradient<'_>| Tile::pick(gpu, layer.dims.n, layer.dims.k);
    [Tile::Large, Tile::Small].into_iter().try_for_each(|wanted| {
        let alike: Vec<_> = layers.iter().filter(|layer| tile(layer) == wanted).copied().collect();
        alike.chunks(LAYERS_MAX).try_for_each(|layers| submit(gpu, rows, at, layers, wanted))
    })
}

/// One launch, for 1 to [`LAYERS_MAX`] layers.
fn submit(
    gpu: &Gpu,
    rows: &Source<'_>,
    at: &Position<'_>,
    layers: &[LayerGradient<'_>],
    tile: Tile,
) -> Result<(), Error> {
    let _range = range(format_args!("weight_gradients"));
    let LayerGradient { sink, dims, .. } = &layers[0];
    let (sides, threads) = if tile == Tile::Large { (Tile::LARGE, 256) } else { (SMALL, 128) };
    let name = format!("weight_gradients_{}_{}_{}", rows.name(), sink.name(), tile.name());
    let mut launch = Launch::new(gpu, &name, *dims);
    let (mut table, mut blocks, mut width) = (Layers([Layer::default(); LAYERS_MAX]), 0, 0);
    for (entry, layer) in table.0.iter_mut().zip(layers) {
        let LayerGradient { x, dz, sink: own, dims: Dims { b, k, n } } = layer;
        assert_eq!(
            (*b, own.common()),
            (dims.b, sink.common()),
            "layers of a launch have all but their widths in common"
        );
        launch = launch.sized(layer.dims).needs(dz, *b as usize * *n as usize);
        match x {
            Some(x) => launch = launch.needs(x, *b as usize * *k as usize),
            None => width = width.max(*k as usize),
        }
        let mut places = [0; 4];
        for (address, (place, needed)) in places.iter_mut().zip(own.places(layer.dims)) {
            launch = launch.needs(place, needed);
            *address = *place.address();
        }
        let (along, across, _) = grid(sides, *k, *n);
        *entry = Layer {
            x: x.map_or(0, |x| *x.address()),
            dz: *dz.address(),
            places,
            k: *k,
            n: *n,
            blocks: along.saturating_mul(across),
            unused: 0,
        };
        blocks = entry.blocks.saturating_add(blocks);
    }
    let launch = rows.push_rows(launch, at, width).structure(&table);
    sink.push_options(launch, at.slot).number(&dims.b).submit((blocks, 1, 1), threads)
}
