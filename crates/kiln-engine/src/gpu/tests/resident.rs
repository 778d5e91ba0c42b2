//! The kernel of the resident engine on its own: runs side by side, the wish to stop, times, rows of inputs, and mutants.

use kiln_tests::{on_device, sim, test_name};

use super::mutants::{FAILED, FOUND, WHICH, kernel_in, no_wait, replaced, with_kernel, without};
use super::*;
use crate::gpu::kernels::{InputForm, Team, resident_modules};
use crate::gpu::modules::Module;
use crate::gpu::resident::{
    PHASES, Plan, Run, RunRecord, Sizes, Training, active_runs, describe, rows, train,
};
use crate::gpu::{Scalars, Source, Wanted};
use crate::{Job, Loss, Mlp, Samples, Schedule, Sgd, Targets, Trainer};

const SAMPLES: usize = 61;
/// Three steps an epoch, the last of 11 rows: with the plans below, chunks of four, two and one tiles of rows.
const SIZES: Sizes = Sizes { k: 37, h: 19, c: 5, batch: 49, rows: 109, epochs: 2 };
/// A cluster of eight, whose slots hold two batches, each in one chunk or in two; and one of sixteen, to which the batch comes in
/// parts, by two slots or one.
const WHOLE: Plan =
    Plan { team: Team::Cluster, blocks: 8, units: 8, chunk: 64, slots: 2, shared_bytes: 64 << 10 };
const HALVES: Plan = Plan { slots: 4, chunk: 32, ..WHOLE };
const PARTS: Plan = Plan { blocks: 16, chunk: 32, ..WHOLE };
const ONE_SLOT: Plan = Plan { slots: 1, chunk: 16, ..PARTS };
const CLUSTERS: [Plan; 4] = [WHOLE, HALVES, PARTS, ONE_SLOT];
/// The same on blocks of a grid.
const GRIDS: [Plan; 4] = [on_grid(WHOLE), on_grid(HALVES), on_grid(PARTS), on_grid(ONE_SLOT)];
const MOMENTUM: f64 = 0.9;

const fn on_grid(plan: Plan) -> Plan {
    Plan { team: Team::Grid, ..plan }
}

/// The data of a job, and what runs differ in.
struct Data {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    order: Vec<u32>,
}

impl Data {
    fn new(seed: u64) -> Self {
        let order = draw(seed, Values::Floats, (SIZES.rows * SIZES.epochs) as usize);
        Self {
            pixels: pixels(7, SAMPLES * SIZES.k as usize),
            labels: pixels(8, SAMPLES).into_iter().map(|p| p % SIZES.c as u8).collect(),
            order: order
                .into_iter()
                .map(|v| ((v.abs() * SAMPLES as f32) as u32).min(SAMPLES as u32 - 1))
                .collect(),
        }
    }

    fn job(&self, lr: f64) -> Job<'_> {
        let width = SIZES.k as usize;
        Job {
            model: Mlp::new(&[width, SIZES.h as usize, SIZES.c as usize], 1).unwrap(),
            loss: Loss::CrossEntropy,
            optimizer: Sgd { lr, momentum: MOMENTUM, ..Sgd::default() }.into(),
            schedule: Schedule::default(),
            train: Samples::pixels(&self.pixels, width, Targets::Labels(&self.labels)).unwrap(),
        }
    }

    /// Losses of the epochs, and the parameters in the end, as the host computes them.
    fn on_host(&self, lr: f64) -> (Vec<f64>, Vec<f32>) {
        let mut trainer = Trainer::host(self.job(lr), 1).unwrap();
        let epochs = self.order.chunks(SIZES.rows as usize);
        let losses = epochs.map(|order| trainer.epoch(order, SIZES.batch as usize).unwrap().loss).collect();
        (losses, arena(&trainer.model().unwrap()))
    }
}

/// The parameters as the kernel has them.
fn arena(model: &Mlp) -> Vec<f32> {
    let mut arena = Vec::new();
    for tensor in model.tensors() {
        arena.extend(&tensor.data);
        arena.resize(arena.len().next_multiple_of(4), 0.0);
    }
    arena
}

/// What a run came to: epochs, losses of its rows, parameters and velocities after each epoch and in the end.
#[derive(Debug, PartialEq)]
struct Outcome {
    epochs: u32,
    losses: Vec<f32>,
    snapshots: Vec<f32>,
    parameters: Vec<f32>,
    velocities: Vec<f32>,
}

impl Outcome {
    fn after(&self, epoch: usize) -> [&[f32]; 2] {
        let values = SIZES.parameters();
        let (parameters, velocities) = self.snapshots[2 * epoch * values..].split_at(values);
        [parameters, &velocities[..values]]
    }

    fn in_the_end(&self) -> [&[f32]; 2] {
        [&self.parameters, &self.velocities]
    }
}

/// Runs of the same data at several learning rates.
#[derive(Clone, Copy)]
struct SideBySide<'a> {
    gpu: &'a Gpu,
    data: &'a Data,
    plan: &'a Plan,
    lrs: &'a [f64],
    /// Whether they are asked to stop.
    stop: bool,
    /// Whether the cycles of phases are counted.
    timed: bool,
    /// Whether what is there after each epoch is wanted.
    kept: bool,
}

impl<'a> SideBySide<'a> {
    fn new(gpu: &'a Gpu, data: &'a Data, plan: &'a Plan, lrs: &'a [f64]) -> Self {
        Self { gpu, data, plan, lrs, stop: false, timed: false, kept: true }
    }

    /// Trains them in one launch.
    fn train(&self) -> Vec<Outcome> {
        self.train_and_count().0
    }

    /// The same, and the cycles of each phase, where they are counted.
    fn train_and_count(&self) -> (Vec<Outcome>, Vec<u64>) {
        let Self { gpu, data, plan, lrs, stop, timed, kept } = *self;
        let inputs = buffer(gpu, &data.pixels);
        let x = rows(gpu, &Source::Pixels(inputs.all()), Precision::F32, SAMPLES as u32, SIZES.k).unwrap();
        let labels = buffer(gpu, &data.labels);
        let (order, stop) = (buffer(gpu, &data.order), buffer(gpu, &[u32::from(stop)]));
        let start = arena(&data.job(0.0).model);
        let made: Vec<OnDevice> = lrs.iter().map(|&lr| OnDevice::new(gpu, &start, lr)).collect();
        let runs: Vec<Run<'_>> = made.iter().map(|made| made.run(&order, kept)).collect();
        let mut records = Buffer::new(gpu, "records", lrs.len()).unwrap();
        let times = Buffer::new(gpu, "times", lrs.len() * plan.blocks as usize * PHASES.len()).unwrap();
        let training = Training {
            x: x.all(),
            form: InputForm::Pixels,
            wanted: Wanted::CrossEntropy(labels.all()),
            stop: stop.all(),
            times: timed.then_some(times.all()),
        };
        let mut exchange = Buffer::new(gpu, "exchange", 0).unwrap();
        describe(gpu, &SIZES, &runs, &mut records).unwrap();
        train(gpu, plan, &SIZES, &training, runs.len(), &records, &mut exchange).unwrap();
        let mut told = vec![RunRecord::default(); lrs.len()];
        records.download(gpu, &mut told).unwrap();
        let mut cycles = vec![0; times.len()];
        times.download(gpu, &mut cycles).unwrap();
        (made.iter().zip(&told).map(|(made, record)| made.outcome(gpu, record.epochs)).collect(), cycles)
    }
}

/// What a run reads and writes.
struct OnDevice {
    parameters: Buffer<f32>,
    velocities: Buffer<f32>,
    losses: Buffer<f32>,
    hits: Buffer<u32>,
    snapshots: Buffer<f32>,
    scalars: Buffer<Scalars>,
    ended: Buffer<u64>,
}

impl OnDevice {
    const ROWS: usize = (SIZES.rows * SIZES.epochs) as usize;

    fn new(gpu: &Gpu, start: &[f32], lr: f64) -> Self {
        let steps = SIZES.rows.div_ceil(SIZES.batch) * SIZES.epochs;
        let keep = |step| if step == 0 { 0.0 } else { MOMENTUM as f32 };
        let scalars: Vec<_> = (0..steps).map(|step| Scalars::sgd(lr as f32, keep(step), 1.0)).collect();
        let zeros = |len| Buffer::new(gpu, "zeros", len).unwrap();
        Self {
            parameters: buffer(gpu, start),
            velocities: zeros(SIZES.parameters()),
            losses: zeros(Self::ROWS),
            hits: Buffer::new(gpu, "hits", Self::ROWS).unwrap(),
            snapshots: zeros(2 * SIZES.snapshot()),
            scalars: buffer(gpu, &scalars),
            ended: Buffer::new(gpu, "times", 3).unwrap(),
        }
    }

    fn run<'b>(&'b self, order: &'b Buffer<u32>, kept: bool) -> Run<'b> {
        Run {
            parameters: self.parameters.all(),
            velocities: self.velocities.all(),
            order: order.all(),
            scalars: self.scalars.all(),
            losses: self.losses.all(),
            hits: self.hits.all(),
            snapshots: kept.then(|| self.snapshots.all()),
            ended: self.ended.all(),
            decay: 0.0,
            gradient_share: 0.0,
            velocity_share: 1.0,
        }
    }

    fn outcome(&self, gpu: &Gpu, epochs: u32) -> Outcome {
        Outcome {
            epochs,
            losses: read(gpu, &self.losses, Self::ROWS),
            snapshots: read(gpu, &self.snapshots, 2 * SIZES.snapshot()),
            parameters: read(gpu, &self.parameters, SIZES.parameters()),
            velocities: read(gpu, &self.velocities, SIZES.parameters()),
        }
    }
}

/// Mean of the losses of the batches of an epoch.
fn epoch_loss(losses: &[f32]) -> f64 {
    let batches = losses.chunks(SIZES.batch as usize);
    let means: Vec<f64> =
        batches.map(|rows| rows.iter().map(|&v| f64::from(v)).sum::<f64>() / rows.len() as f64).collect();
    means.iter().sum::<f64>() / means.len() as f64
}

fn assert_host(outcome: &Outcome, data: &Data, lr: f64) {
    let (losses, parameters) = data.on_host(lr);
    for (rows, expected) in outcome.losses.chunks(SIZES.rows as usize).zip(losses) {
        let off = (epoch_loss(rows) - expected).abs();
        assert!(off <= 1e-5, "the loss is off by {off}");
    }
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let off = norm(&mut outcome.parameters.iter().zip(&parameters).map(|(a, b)| a - b));
    let bound = 1e-5 * norm(&mut parameters.iter().copied());
    assert!(off <= bound, "the parameters are off by {off}, bound {bound}");
}

fn gpu_with(modules: &[Module]) -> Gpu {
    let mut gpu = open(Precision::F32);
    gpu.add(modules);
    gpu
}

/// Whether the device places a cluster: those of sixteen are not for every device.
fn is_placed(gpu: &Gpu, plan: &Plan) -> bool {
    let placed = active_runs(gpu, InputForm::Pixels, plan).unwrap() > 0;
    assert!(placed || plan.blocks > 8, "{plan:?} has no place on {}", gpu.name);
    placed
}

fn modules(timed: bool) -> [Module; 2] {
    resident_modules(Team::Cluster, Precision::F32, InputForm::Pixels, timed)
}

fn grid_modules(timed: bool) -> [Module; 2] {
    resident_modules(Team::Grid, Precision::F32, InputForm::Pixels, timed)
}

#[test]
fn runs_side_by_side_are_those_alone() {
    on_device!();
    if !has_clusters() {
        return;
    }
    let (gpu, data, lrs) = (gpu_with(&modules(false)), Data::new(3), [0.05, 0.01, 0.2]);
    for plan in CLUSTERS.into_iter().filter(|plan| is_placed(&gpu, plan)) {
        let together = SideBySide::new(&gpu, &data, &plan, &lrs).train();
        for (outcome, lr) in together.iter().zip(lrs) {
            assert_eq!(outcome.epochs, SIZES.epochs);
            assert_eq!(outcome.after(1), outcome.in_the_end(), "after the last epoch");
            assert_host(outcome, &data, lr);
            assert_eq!(*outcome, SideBySide::new(&gpu, &data, &plan, &[lr]).train()[0], "alone at {lr}");
        }
    }
}

/// Clusters and grids add in the same order: the same bits, side by side and alone, and stopped after an epoch.
#[test]
fn grids_give_the_bits_of_clusters() {
    on_device!();
    if !has_clusters() {
        return;
    }
    let (clusters, grids) = (gpu_with(&modules(false)), gpu_with(&grid_modules(false)));
    let (data, lrs) = (Data::new(3), [0.05, 0.2]);
    let placed = |plan: &Plan| is_placed(&clusters, plan);
    for (plan, grid) in CLUSTERS.into_iter().zip(GRIDS).filter(|(plan, _)| placed(plan)) {
        let expected = SideBySide::new(&clusters, &data, &plan, &lrs).train();
        let on_grid = SideBySide::new(&grids, &data, &grid, &lrs);
        assert_eq!(on_grid.train(), expected, "{grid:?}");
        let stopped = &SideBySide { lrs: &lrs[..1], stop: true, ..on_grid }.train()[0];
        assert_eq!(stopped.epochs, 1);
        assert_eq!(stopped.in_the_end(), expected[0].after(0));
    }
}

/// The same bits on every schedule of a device without clusters, and no finding on any.
#[test]
fn grids_give_the_same_bits_on_twenty_schedules() {
    if !sim::on_device() {
        let trained = |seed: u32| {
            let settings = [("KILN_SIM_SEED", &*seed.to_string()), ("KILN_SIM_ARCH", "sm_80")];
            sim::printed_again(test_name!(), &settings, "bits of ")
        };
        let first = trained(1);
        assert_eq!(first.len(), GRIDS.len());
        (2..=20).for_each(|seed| assert_eq!(trained(seed), first, "seed {seed}"));
        return;
    }
    let (gpu, data) = (gpu_with(&grid_modules(false)), Data::new(3));
    for plan in GRIDS {
        let outcome = &SideBySide::new(&gpu, &data, &plan, &[0.05]).train()[0];
        assert_host(outcome, &data, 0.05);
        let bits = kiln_tests::hash(outcome.parameters.iter().map(|value| value.to_bits().into()));
        println!("bits of {plan:?} {bits:#018x}");
    }
}

#[test]
fn snapshots_after_each_epoch_are_written_where_they_are_wanted() {
    on_device!();
    if !has_clusters() {
        return;
    }
    let (gpu, data) = (gpu_with(&modules(false)), Data::new(3));
    let all = SideBySide::new(&gpu, &data, &WHOLE, &[0.05]);
    let run = |kept| SideBySide { kept, ..all }.train().remove(0);
    let (with, without) = (run(true), run(false));
    assert!(without.snapshots.iter().all(|&value| value == 0.0));
    assert_eq!((&with.losses, with.in_the_end()), (&without.losses, without.in_the_end()));
}

#[test]
fn a_wish_to_stop_ends_it_after_an_epoch() {
    on_device!();
    if !has_clusters() {
        return;
    }
    let (gpu, data) = (gpu_with(&modules(false)), Data::new(3));
    let whole = SideBySide::new(&gpu, &data, &WHOLE, &[0.05]);
    let stopped = &SideBySide { stop: true, ..whole }.train()[0];
    let whole = &whole.train()[0];
    assert_eq!((whole.epochs, stopped.epochs), (2, 1));
    assert_eq!(stopped.in_the_end(), whole.after(0));
    let rows = SIZES.rows as usize;
    assert_eq!(stopped.losses[..rows], whole.losses[..rows]);
    assert!(stopped.losses[rows..].iter().all(|&loss| loss == 0.0), "no second epoch");
}

#[test]
fn timed_kernels_give_the_same_bits_and_time_every_phase() {
    on_device!();
    if !has_clusters() {
        return;
    }
    let data = Data::new(3);
    type Modules = fn(bool) -> [Module; 2];
    for (modules, plan) in [(modules as Modules, WHOLE), (grid_modules, GRIDS[0])] {
        let run = |timed: bool| {
            let gpu = gpu_with(&modules(timed));
            SideBySide { timed, ..SideBySide::new(&gpu, &data, &plan, &[0.05]) }.train_and_count()
        };
        let (plain, timed) = (run(false), run(true));
        assert_eq!(timed.0, plain.0);
        assert!(plain.1.iter().all(|&cycles| cycles == 0));
        for block in timed.1.chunks(PHASES.len()) {
            for (phase, &cycles) in PHASES.iter().zip(block) {
                assert!(cycles > 0, "{phase}: {plan:?} {block:?}");
            }
        }
    }
}

#[test]
fn rows_are_whole_numbers_and_terms_add_up() {
    on_device!();
    let (samples, k) = (7, 37);
    let bf16 = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    let gpu = gpu_with(&grid_modules(false));
    let image = pixels(5, samples * k);
    let inputs = buffer(&gpu, &image);
    let made = rows(&gpu, &Source::Pixels(inputs.all()), Precision::F32, samples as u32, k as u32).unwrap();
    let got = read(&gpu, &made, samples * 48);
    for (line, pixels) in got.chunks(48).zip(image.chunks(k)) {
        let expected = pixels.iter().map(|&p| f32::from(p)).chain([0.0; 11]);
        assert!(line.iter().map(|&bits| bf16(bits)).eq(expected));
    }
    let floats = draw(6, Values::Floats, samples * k);
    let inputs = buffer(&gpu, &floats);
    // What so many terms of 8 digits leave: half of the last digit.
    for (precision, planes, left) in
        [(Precision::F32, 3, 0.0), (Precision::Tf32, 2, 1.0 / 2048.0), (Precision::Bf16, 1, 1.0 / 256.0)]
    {
        let made = rows(&gpu, &Source::Floats(inputs.all()), precision, samples as u32, k as u32).unwrap();
        let got = read(&gpu, &made, samples * planes * 48);
        for (lines, values) in got.chunks(planes * 48).zip(floats.chunks(k)) {
            for place in 0..48 {
                let sum: f32 = lines.chunks(48).map(|line| bf16(line[place])).sum();
                let expected = values.get(place).copied().unwrap_or(0.0);
                let off = (sum - expected).abs();
                assert!(off <= left * expected.abs(), "{precision}: {sum} for {expected}");
            }
        }
    }
}

/// What is broken in the kernel, and what tells of it: a finding, or a result that is off.
struct Mutant {
    name: &'static str,
    mutate: fn(&str) -> String,
    found: bool,
}

/// What either team has.
const COMMON_MUTANTS: [Mutant; 3] = [
    Mutant {
        name: "the gradient passes where ReLU has cut",
        mutate: |text| replaced(text, "setp.gt.f32", "setp.ge.f32"),
        found: false,
    },
    Mutant {
        name: "a fragment is not transposed",
        mutate: |text| replaced(text, "m8n8.x4.trans.shared", "m8n8.x4.shared"),
        found: false,
    },
    Mutant {
        name: "half of the lanes do not add theirs",
        mutate: |text| replaced(text, "shfl.sync.bfly.b32", "shfl.sync.idx.b32"),
        found: false,
    },
];

const MUTANTS: [Mutant; 15] = [
    Mutant {
        name: "that a step is left is told relaxed where release is needed",
        mutate: |text| replaced(text, "mbarrier.arrive.release.cluster", "mbarrier.arrive.relaxed.cluster"),
        found: true,
    },
    Mutant {
        name: "that a step is left is told to the block where the cluster must know",
        mutate: |text| replaced(text, "mbarrier.arrive.release.cluster", "mbarrier.arrive.release.cta"),
        found: true,
    },
    Mutant {
        name: "a wait hears the block where it must hear the cluster",
        mutate: |text| replaced(text, "try_wait.parity.acquire.cluster", "try_wait.parity.acquire.cta"),
        found: true,
    },
    Mutant {
        name: "a wait acquires nothing",
        mutate: |text| replaced(text, "try_wait.parity.acquire.cluster", "try_wait.parity.relaxed.cluster"),
        found: true,
    },
    Mutant { name: "the first wait does not wait", mutate: |text| no_wait(text, 0), found: true },
    Mutant { name: "the second wait does not wait", mutate: |text| no_wait(text, 1), found: true },
    Mutant { name: "the third wait does not wait", mutate: |text| no_wait(text, 2), found: true },
    Mutant { name: "the fourth wait does not wait", mutate: |text| no_wait(text, 3), found: true },
    Mutant { name: "the fifth wait does not wait", mutate: |text| no_wait(text, 4), found: true },
    Mutant { name: "the sixth wait does not wait", mutate: |text| no_wait(text, 5), found: true },
    Mutant { name: "the seventh wait does not wait", mutate: |text| no_wait(text, 6), found: true },
    Mutant { name: "a phase of the exchanges is skipped", mutate: skipped_phase, found: true },
    Mutant {
        name: "cluster does not meet at the start",
        mutate: |text| without(&without(text, "barrier.cluster.arrive", 0), "barrier.cluster.wait", 0),
        found: true,
    },
    Mutant {
        name: "cluster does not meet at the end of an epoch",
        mutate: |text| without(&without(text, "barrier.cluster.arrive", 1), "barrier.cluster.wait", 1),
        found: true,
    },
    Mutant {
        name: "no fence lies between the zeros and the copies over them",
        mutate: |text| without(text, "fence.proxy.async", 0),
        found: true,
    },
];

/// The parity of the exchanges stays what it is: every second wait finds its phase complete, before it has begun.
fn skipped_phase(text: &str) -> String {
    let toggles = |line: &str| line.trim_start().starts_with("xor.b32") && line.ends_with(", 1;");
    let line = text.lines().find(|line| toggles(line)).expect("the kernel counts phases");
    text.replace(line, &line.replace(", 1;", ", 0;"))
}

const GRID_MUTANTS: [Mutant; 12] = [
    Mutant {
        name: "blocks meet without release",
        mutate: |text| replaced(text, "red.release.gpu.global", "red.relaxed.gpu.global"),
        found: true,
    },
    Mutant {
        name: "blocks meet without acquire",
        mutate: |text| replaced(text, "ld.acquire.gpu.global", "ld.relaxed.gpu.global"),
        found: true,
    },
    Mutant {
        name: "the exchange is sent to the block where the device must know",
        mutate: |text| replaced(text, "st.relaxed.gpu.global", "st.relaxed.cta.global"),
        found: true,
    },
    Mutant {
        name: "the exchange is read from the block where the device must know",
        mutate: |text| replaced(text, "ld.relaxed.gpu.global", "ld.relaxed.cta.global"),
        found: true,
    },
    Mutant {
        name: "the exchange is sent by weak stores",
        mutate: |text| replaced(text, "st.relaxed.gpu.global", "st.global"),
        found: true,
    },
    Mutant {
        name: "the tags of z are not looked at",
        mutate: |text| unlooked(text, text.find(LOOK), 1),
        found: false,
    },
    Mutant {
        name: "the tags of dz are not looked at",
        mutate: |text| unlooked(text, text.rfind(LOOK), 2),
        found: false,
    },
    Mutant { name: "the first wait does not wait", mutate: |text| no_wait(text, 0), found: true },
    Mutant { name: "the second wait does not wait", mutate: |text| no_wait(text, 1), found: true },
    Mutant { name: "the third wait does not wait", mutate: |text| no_wait(text, 2), found: true },
    Mutant {
        name: "a copy is counted when it begins",
        mutate: |text| {
            replaced(text, "cp.async.mbarrier.arrive.noinc.shared.b64 [", "mbarrier.arrive.shared.b64 _, [")
        },
        found: true,
    },
    Mutant {
        name: "blocks do not meet at the start",
        mutate: |text| without(text, "red.release", 0),
        found: true,
    },
];

/// A load of values that may not be there yet: the first ones are of z, the last one is of dz.
const LOOK: &str = "ld.relaxed.gpu.global.v2.b64 ";

/// A load is taken as it comes: the branches behind it, which go back to it, are not there.
fn unlooked(text: &str, at: Option<usize>, branches: usize) -> String {
    let at = at.expect("the kernel looks for tags");
    let rest = (0..branches).fold(text[at..].to_owned(), |rest, _| without(&rest, "@%p", 0));
    format!("{}{rest}", &text[..at])
}

/// A kernel that is mutated, in what plans.
struct Subject {
    kernel: &'static str,
    modules: [Module; 2],
    plans: &'static [Plan],
    mutants: &'static [Mutant],
}

/// Names a `bar.sync` that is left out by its number.
const BARRIER: &str = "KILN_TEST_BARRIER";

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

/// A few times the instructions of a launch that ends: one that never does is found soon.
const FUEL: (&str, &str) = ("KILN_SIM_FUEL", "200000000");

/// Every mutant of a kernel is caught, and that any one of its barriers is left out; `test` is the test that calls.
fn assert_all_are_caught(subject: &Subject, test: &str) {
    let Subject { kernel, modules: [rows, training], plans, mutants } = subject;
    let mutants: Vec<_> = mutants.iter().chain(&COMMON_MUTANTS).collect();
    let of_clusters = plans.iter().any(|plan| plan.team == Team::Cluster);
    if sim::on_device() {
        if of_clusters && !has_clusters() {
            return;
        }
        let mutated = |mutate: &dyn Fn(&str) -> String| [*rows, with_kernel(*training, kernel, mutate)];
        let modules = match (number(WHICH), number(BARRIER)) {
            (Some(mutant), _) => mutated(&mutants[mutant].mutate),
            (_, Some(barrier)) => mutated(&|text| without(text, "bar.sync", barrier)),
            _ => [*rows, *training],
        };
        let (gpu, data) = (gpu_with(&modules), Data::new(3));
        for plan in plans.iter().filter(|plan| !of_clusters || is_placed(&gpu, plan)) {
            assert_host(&SideBySide::new(&gpu, &data, plan, &[0.05]).train()[0], &data, 0.05);
        }
        return;
    }
    // Nothing fails either on GPUs that have no clusters, or none of sixteen blocks.
    sim::pass_again(test, &[&[FUEL], &[("KILN_SIM_ARCH", "sm_80")], &[("KILN_SIM_ARCH", "sm_120")]]);
    let caught = |setting: (&str, usize), found: bool| {
        let output = sim::run_again(test, &[(setting.0, &setting.1.to_string()), FUEL]);
        let text = String::from_utf8_lossy(&output.stderr);
        let (status, told) = match found {
            true => (FOUND, text.contains(kernel)),
            false => (FAILED, text.contains("off by")),
        };
        (output.status.code() == Some(status) && told, format!("{}\n{text}", output.status))
    };
    let missed: Vec<String> = (mutants.iter().enumerate())
        .filter_map(|(at, mutant)| {
            let (caught, report) = caught((WHICH, at), mutant.found);
            (!caught).then(|| format!("{}: {report}", mutant.name))
        })
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    let ptx = training.1;
    let barriers = ptx[kernel_in(ptx, kernel)].matches("bar.sync").count();
    let missed: Vec<usize> = (0..barriers).filter(|&barrier| !caught((BARRIER, barrier), true).0).collect();
    assert_eq!(missed, [0; 0], "barriers of {barriers} that can go without a finding");
}

#[test]
fn every_mutant_is_caught() {
    let plans = &[WHOLE, HALVES, PARTS];
    let (kernel, modules) = ("resident_pixels_8", modules(false));
    assert_all_are_caught(&Subject { kernel, modules, plans, mutants: &MUTANTS }, test_name!());
}

#[test]
fn every_mutant_of_a_grid_is_caught() {
    let plans = &[GRIDS[0], GRIDS[1], Plan { blocks: 8, ..GRIDS[2] }];
    let (kernel, modules) = ("resident_grid_pixels_8", grid_modules(false));
    assert_all_are_caught(&Subject { kernel, modules, plans, mutants: &GRID_MUTANTS }, test_name!());
}
