//! Launches of `kernels/resident.cuh` and `kernels/rows.cu`.

#![allow(unsafe_code)] // the layout of a run's description

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{DeviceRepr, ValidAsZeroBits};

use super::kernels::{Group, InputForm, Launch, STRIDING_THREADS, Team, striding_grid};
use super::{Buffer, Dims, Gpu, Region, Scalars, Source, Wanted};
use crate::nvtx::range;
use crate::{Error, Precision};

/// Threads of a block.
const THREADS: u32 = 256;
/// Inputs of a tile, and rows.
pub(crate) const TILE: usize = 16;
/// Phases that the timed kernels tell apart.
pub(crate) const PHASES: [&str; 8] = [
    "wait for the batch",
    "layer 1",
    "logits, sent",
    "loss, dz sent",
    "wait for dz",
    "dh, layer 2",
    "gradient of layer 1",
    "update of layer 1",
];

/// How a launch is laid out: what the kernel's head comment asks for. [`crate::resident`] chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) team: Team,
    /// Blocks of a run: 8 or 16.
    pub(crate) blocks: u32,
    /// Hidden units of a block: 8 or 16.
    pub(crate) units: u32,
    /// Rows of a slot.
    pub(crate) chunk: u32,
    /// Slots for inputs.
    pub(crate) slots: u32,
    /// Dynamic shared memory of a block.
    pub(crate) shared_bytes: u32,
}

impl Plan {
    fn group(&self) -> Group {
        Group { team: self.team, blocks: self.blocks, shared_bytes: self.shared_bytes }
    }

    /// Pairs of 64 bits by which the blocks of a grid that train one run exchange z and dz, behind two with the count of their
    /// meetings.
    fn exchange(&self, sizes: &Sizes) -> usize {
        2 + (sizes.batch * (self.blocks + 1) * sizes.c.next_multiple_of(4)) as usize
    }
}

/// Sizes of a model with one hidden layer, and of its training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Inputs K, hidden units H, classes C.
    pub(crate) k: u32,
    pub(crate) h: u32,
    pub(crate) c: u32,
    /// Rows of a batch.
    pub(crate) batch: u32,
    /// Rows of an epoch.
    pub(crate) rows: u32,
    pub(crate) epochs: u32,
}

impl Sizes {
    fn steps(&self) -> usize {
        self.rows.div_ceil(self.batch) as usize * self.epochs as usize
    }

    /// Values of an arena: `Places` in the kernel.
    pub(crate) fn parameters(&self) -> usize {
        let tensor = |values: usize| values.next_multiple_of(4);
        let (k, h, c) = (self.k as usize, self.h as usize, self.c as usize);
        tensor(h * k) + tensor(h) + tensor(c * h) + tensor(c)
    }

    /// Values of a snapshot: parameters and velocities.
    pub(crate) fn snapshot(&self) -> usize {
        2 * self.parameters()
    }
}

/// What a run reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct Run<'b> {
    /// Weights and biases, each from a multiple of 4 values on; and the velocities.
    pub(crate) parameters: Region<'b, f32>,
    pub(crate) velocities: Region<'b, f32>,
    /// (epochs, rows) samples, each below their number.
    pub(crate) order: Region<'b, u32>,
    /// (epochs, steps)
    pub(crate) scalars: Region<'b, Scalars>,
    /// (epochs, rows)
    pub(crate) losses: Region<'b, f32>,
    /// (epochs, rows)
    pub(crate) hits: Region<'b, u32>,
    /// (epochs, 2, parameters): parameters and velocities after each epoch, if wanted.
    pub(crate) snapshots: Option<Region<'b, f32>>,
    /// (1 + epochs): when the training began and each epoch ended, in nanoseconds.
    pub(crate) ended: Region<'b, u64>,
    pub(crate) decay: f32,
    pub(crate) gradient_share: f32,
    pub(crate) velocity_share: f32,
}

impl Run<'_> {
    /// The kernel's form of it.
    fn record(&self) -> RunRecord {
        RunRecord {
            addresses: [
                *self.parameters.address(),
                *self.velocities.address(),
                *self.order.address(),
                *self.scalars.address(),
                *self.losses.address(),
                *self.hits.address(),
                self.snapshots.map_or(0, |snapshots| *snapshots.address()),
                *self.ended.address(),
            ],
            shares: [self.decay, self.gradient_share, self.velocity_share],
            epochs: 0,
        }
    }

    /// What does not hold what the sizes ask for.
    fn wrong(&self, sizes: &Sizes) -> Option<String> {
        let (rows, epochs) = (sizes.rows as usize * sizes.epochs as usize, sizes.epochs as usize);
        if rows > u32::MAX as usize {
            return Some(format!("{rows} rows in a launch, expected at most {}", u32::MAX));
        }
        let lengths = [
            ("parameters", self.parameters.len(), sizes.parameters()),
            ("velocities", self.velocities.len(), sizes.parameters()),
            ("order", self.order.len(), rows),
            ("scalars", self.scalars.len(), sizes.steps()),
            ("losses", self.losses.len(), rows),
            ("hits", self.hits.len(), rows),
            ("snapshots", self.snapshots.map_or(usize::MAX, |s| s.len()), epochs * sizes.snapshot()),
            ("times", self.ended.len(), 1 + epochs),
        ];
        let short = lengths.into_iter().find(|(_, found, needed)| found < needed);
        short.map(|(what, found, needed)| format!("{what}: a buffer of {found}, expected {needed}"))
    }
}

/// `Run` of the kernel, 80 bytes.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(16))]
pub(crate) struct RunRecord {
    addresses: [CUdeviceptr; 8],
    shares: [f32; 3],
    /// Epochs that were trained; the kernel's answer.
    pub(crate) epochs: u32,
}

// SAFETY: addresses and numbers in C's layout, as the kernel has it; no padding.
unsafe impl DeviceRepr for RunRecord {}
// SAFETY: zeros are null addresses and zeros.
unsafe impl ValidAsZeroBits for RunRecord {}

/// What all runs of a launch share.
pub(crate) struct Training<'b> {
    /// Inputs as [`rows`] makes them.
    pub(crate) x: Region<'b, u16>,
    pub(crate) form: InputForm,
    pub(crate) wanted: Wanted<'b>,
    /// (1): where it is not zero, training ends after the epoch.
    pub(crate) stop: Region<'b, u32>,
    /// (runs, blocks, phases), for the timed kernels.
    pub(crate) times: Option<Region<'b, u64>>,
}

fn kernel(form: InputForm, plan: &Plan, timed: bool) -> String {
    let from = if form == InputForm::Pixels { "pixels" } else { "floats" };
    let grid = if plan.team == Team::Grid { "grid_" } else { "" };
    format!("resident_{grid}{from}_{}{}", plan.units, if timed { "_timed" } else { "" })
}

/// How many runs of a plan the device trains at once.
pub(crate) fn active_runs(gpu: &Gpu, form: InputForm, plan: &Plan) -> Result<u32, Error> {
    plan.group().active(gpu, &kernel(form, plan, false), THREADS)
}

/// Sends the descriptions of runs, one place each.
pub(crate) fn describe(
    gpu: &Gpu,
    sizes: &Sizes,
    runs: &[Run<'_>],
    records: &mut Buffer<RunRecord>,
) -> Result<(), Error> {
    if let Some(reason) = runs.iter().find_map(|run| run.wrong(sizes)) {
        return Err(Error::Gpu { what: "describing a run".to_owned(), reason });
    }
    let described: Vec<RunRecord> = runs.iter().map(Run::record).collect();
    records.upload(gpu, &described)
}

/// Trains `count` runs that [`describe`] has sent, side by side: on a grid, no more than the device trains at once. `exchange` is room
/// for what the blocks of a grid exchange, and made larger where it is not enough.
pub(crate) fn train(
    gpu: &Gpu,
    plan: &Plan,
    sizes: &Sizes,
    training: &Training<'_>,
    count: usize,
    records: &Buffer<RunRecord>,
    exchange: &mut Buffer<u64>,
) -> Result<(), Error> {
    let _range = range(format_args!("resident, {} epochs of {count} runs", sizes.epochs));
    let name = kernel(training.form, plan, training.times.is_some());
    let dims = Dims { b: sizes.batch, k: sizes.k, n: sizes.h };
    let none = Region::<u8>::none();
    let no_values = Region::<f32>::none();
    let (loss, labels, values) = match training.wanted {
        Wanted::CrossEntropy(labels) => (0u32, labels, no_values),
        Wanted::OneHot(labels) => (1, labels, no_values),
        Wanted::Values(values) => (2, none, values),
    };
    let times = training.times.unwrap_or(Region::none());
    let records = records.all();
    let pairs = count * plan.exchange(sizes);
    if plan.team == Team::Grid {
        if exchange.len() < pairs {
            *exchange = Buffer::new(gpu, "what blocks exchange", pairs)?;
        }
        exchange.clear(gpu)?; // no tag of a step, and no meeting yet
    }
    let exchange = exchange.all();
    let timed = if training.times.is_some() { count * plan.blocks as usize * PHASES.len() } else { 0 };
    let launch = Launch::new(gpu, &name, dims)
        .pointer(&training.x, 1)
        .pointer(&labels, 0)
        .pointer(&values, 0)
        .pointer(&records, count)
        .pointer(&training.stop, 1)
        .pointer(&times, timed)
        .number(&loss)
        .number(&sizes.k)
        .number(&sizes.h)
        .number(&sizes.c)
        .number(&sizes.batch)
        .number(&sizes.rows)
        .number(&sizes.epochs)
        .number(&plan.chunk)
        .number(&plan.slots)
        .group(plan.group());
    let launch = match plan.team {
        Team::Cluster => launch,
        Team::Grid => launch.pointer(&exchange, pairs).number(&plan.blocks),
    };
    launch.submit((plan.blocks * count as u32, 1, 1), THREADS)
}

/// Bfloat16 terms of a precision: for pixels one, which is exact.
pub(crate) fn planes(form: InputForm, precision: Precision) -> usize {
    match (form, precision) {
        (InputForm::Pixels, _) | (_, Precision::Bf16) => 1,
        (InputForm::Floats, Precision::Tf32) => 2,
        (InputForm::Floats, Precision::F32) => 3,
    }
}

/// Inputs (samples, K) as the training kernels read them: (samples, planes, K in whole tiles) bfloat16.
pub(crate) fn rows(
    gpu: &Gpu,
    x: &Source<'_>,
    precision: Precision,
    samples: u32,
    k: u32,
) -> Result<Buffer<u16>, Error> {
    let values = samples as usize * k as usize;
    let (form, name) = match x {
        Source::Pixels(_) => (InputForm::Pixels, "rows_of_pixels".to_owned()),
        Source::Floats(_) | Source::Hidden(_) => (InputForm::Floats, format!("rows_of_floats_{precision}")),
    };
    let width = (k as usize).next_multiple_of(TILE);
    let row = width * planes(form, precision);
    let made = Buffer::new(gpu, "the data set in bfloat16", samples as usize * row)?;
    let to = made.all();
    let launch = Launch::new(gpu, &name, Dims { b: samples, k, n: 1 });
    let launch = match x {
        Source::Pixels(x) => launch.pointer(x, values),
        Source::Floats(x) | Source::Hidden(x) => launch.pointer(x, values),
    };
    launch
        .pointer(&to, samples as usize * row)
        .number(&samples)
        .number(&k)
        .submit(striding_grid(gpu, u64::from(samples) * width as u64 / 2), STRIDING_THREADS)?;
    Ok(made)
}
