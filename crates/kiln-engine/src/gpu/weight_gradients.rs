//! Launches of `kernels/weight_gradients.cuh`.

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

impl<'b> Sink<'b> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Sink::Store { .. } => "store",
            Sink::Add { .. } => "add",
            Sink::Descent { .. } => "descent",
            Sink::Momentum { .. } => "momentum",
        }
    }

    /// What is written: weights and biases, and their velocities, or nothing in their place.
    fn places(&self) -> [Region<'b, f32>; 4] {
        match *self {
            Sink::Store { dw, db } | Sink::Add { dw, db } => [dw, db, Region::none(), Region::none()],
            Sink::Descent { w, b, .. } => [w, b, Region::none(), Region::none()],
            Sink::Momentum { w, b, vw, vb, .. } => [w, b, vw, vb],
        }
    }

    /// How many values each of [`Sink::places`] has.
    fn lengths(&self, dims: Dims) -> [usize; 4] {
        let (weights, biases) = (dims.n as usize * dims.k as usize, dims.n as usize);
        match self {
            Sink::Momentum { .. } => [weights, biases, weights, biases],
            _ => [weights, biases, 0, 0],
        }
    }

    /// The parameters that say where the gradient goes and how, for one layer.
    pub(super) fn push<'a>(&'a self, launch: Launch<'a>, slot: u32, dims: Dims) -> Launch<'a> {
        let [weights, biases, ..] = self.lengths(dims);
        let launch = match self {
            Sink::Store { dw, db } | Sink::Add { dw, db } => launch.pointer(dw, weights).pointer(db, biases),
            Sink::Descent { w, b, .. } => launch.pointer(w, weights).pointer(b, biases),
            Sink::Momentum { w, b, vw, vb, .. } => {
                launch.pointer(w, weights).pointer(b, biases).pointer(vw, weights).pointer(vb, biases)
            }
        };
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

/// Side of the small tile.
const SMALL: u32 = 32;

/// `dw (N, K) = dz (B, N)ᵀ x (B, K)` and `db (N)`, the sum of dz over the batch, of several layers with one kind of sink, into their
/// sinks: one launch for all that take the same tile. `rows` are those that the batch is gathered from.
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
    let threads = if tile == Tile::Large { 256 } else { 128 };
    let name = format!("weight_gradients_{}_{}_{}", rows.name(), sink.name(), tile.name());
    let mut launch = Launch::new(gpu, &name, *dims);
    let (mut table, mut blocks) = ([Layer::default(); LAYERS_MAX], 0);
    for (entry, layer) in table.iter_mut().zip(layers) {
        let LayerGradient { x, dz, sink: own, dims } = layer;
        assert_eq!(own.name(), sink.name(), "the layers of a launch have one kind of sink");
        let (k, n, of_batch) = (dims.k, dims.n, dims.b as usize);
        let (along, across, _) = tile.grid(SMALL, k, n);
        let of_layer = along.saturating_mul(across);
        let places = own.places();
        if let Some(x) = x {
            launch = launch.needs(x, of_batch * k as usize);
        }
        launch = launch.needs(dz, of_batch * n as usize);
        for (place, needed) in places.iter().zip(own.lengths(*dims)) {
            launch = launch.needs(place, needed);
        }
        *entry = Layer {
            x: x.map_or(0, |x| *x.address()),
            dz: *dz.address(),
            places: places.map(|place| *place.address()),
            k,
            n,
            blocks: of_layer,
            unused: 0,
        };
        blocks = of_layer.saturating_add(blocks);
    }
    let launch = rows.push(launch, at, *dims).structure(&table);
    sink.push_options(launch, at.slot).number(&dims.b).submit((blocks, 1, 1), threads)
}
