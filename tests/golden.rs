//! Every golden trajectory on the host engine, the graph engine and the reference; those that it is made for on the resident engine.

use std::num::NonZeroUsize;
use std::sync::LazyLock;

use kiln_data::Dataset;
use kiln_engine::{Choices, GraphOptions, Precision as EnginePrecision, ResidentOptions, Team, Trainer};
use kiln_parity::{
    Golden, GoldenAdamW, GoldenOptimizer, GoldenSchedule, GoldenSgd, Recording, Report, compare,
};
use kiln_reference::{Operands, Rounding};
use kiln_runner::replay::Replay;
use kiln_runner::replay::reference::{Precision, operands_of_graph};
use kiln_tests::{on_device, sim, test_name};

static MNIST: LazyLock<Dataset> = LazyLock::new(kiln_tests::mnist);

const NAMES: [&str; 9] = [
    "seed-784-128-10",
    "tail-batch",
    "mse-13-32-1",
    "deep-784-64-48-32-10",
    "odd-37-19-5",
    "adamw-23-17-3",
    "adamw-cosine-19-13-11-2",
    "step-21-15-4",
    "one-cycle-17-29-3",
];

fn recorded(name: &str) -> Golden {
    let golden = Golden::read(&kiln_tests::golden().join(format!("{name}.safetensors"))).unwrap();
    assert_eq!(golden.name, name);
    golden
}

fn replay(golden: &Golden) -> Replay<'_> {
    Replay::new(golden, Some(&MNIST))
}

fn reports(run: impl Fn(&Golden) -> Recording) -> Vec<Report> {
    let report = |name: &str| {
        let golden = recorded(name);
        compare(&golden, &run(&golden)).unwrap()
    };
    NAMES.map(report).into()
}

fn host(golden: &Golden, threads: usize) -> Recording {
    replay(golden).host(NonZeroUsize::new(threads)).unwrap()
}

fn assert_all_pass(reports: &[Report]) {
    for report in reports {
        println!("{report}");
    }
    assert!(reports.iter().all(Report::passes), "see the reports above");
}

#[test]
fn host_follows_every_trajectory() {
    assert_all_pass(&reports(|golden| host(golden, 1)));
}

#[test]
fn host_follows_bit_for_bit_on_two_threads() {
    reports(|golden| {
        let run = host(golden, 2);
        assert_eq!(run, host(golden, 1), "{}", golden.name);
        run
    });
}

fn graph(golden: &Golden) -> Recording {
    replay(golden).graph(&GraphOptions::default()).unwrap()
}

/// Holds the graph engine to some trajectories.
fn graph_follows(names: [&str; 5], options: &GraphOptions) {
    assert_all_pass(&names.map(|name| {
        let golden = recorded(name);
        compare(&golden, &replay(&golden).graph(options).unwrap()).unwrap()
    }));
}

#[test]
fn graph_follows_every_trajectory_on_sm_80_and_sm_90() {
    on_device!(&[("KILN_SIM_ARCH", "sm_80")], &[("KILN_SIM_ARCH", "sm_90")]);
    assert_all_pass(&reports(graph));
}

/// Batches in parts whose gradients are added, the last of them smaller.
#[test]
fn graph_follows_in_parts_of_batches() {
    on_device!();
    let options = GraphOptions { micro_batch: Some(13), ..GraphOptions::default() };
    let names = ["tail-batch", "mse-13-32-1", "deep-784-64-48-32-10", "adamw-23-17-3", "step-21-15-4"];
    graph_follows(names, &options);
}

/// Products of three planes of bfloat16, as wide layers have them: by tensor cores, and no less accurate.
#[test]
fn graph_follows_on_tensor_cores() {
    on_device!();
    let choices = Choices { copied_f32_weights_max: Some(0), ..Choices::default() };
    let options = GraphOptions { choices, ..GraphOptions::default() };
    let names = ["tail-batch", "mse-13-32-1", "deep-784-64-48-32-10", "adamw-23-17-3", "one-cycle-17-29-3"];
    graph_follows(names, &options);
}

/// Those of one hidden layer and SGD, and the blocks of the cluster that follows them.
const RESIDENT: [(&str, u32); 10] = [
    ("seed-784-128-10", 16),
    ("tail-batch", 8),
    ("mse-13-32-1", 16),
    ("mse-13-32-1", 8),
    ("odd-37-19-5", 16),
    ("odd-37-19-5", 8),
    ("step-21-15-4", 16),
    ("step-21-15-4", 8),
    ("one-cycle-17-29-3", 16),
    ("one-cycle-17-29-3", 8),
];

fn resident(name: &str, blocks: u32) -> Report {
    resident_by(None, name, blocks)
}

fn resident_by(team: Option<Team>, name: &str, blocks: u32) -> Report {
    let golden = recorded(name);
    let options = ResidentOptions { team, ..resident_options(&golden, blocks) };
    compare(&golden, &replay(&golden).resident(&options).unwrap()).unwrap()
}

fn resident_options(golden: &Golden, blocks: u32) -> ResidentOptions {
    ResidentOptions {
        device: 0,
        precision: EnginePrecision::F32,
        batch: golden.batch,
        team: None,
        blocks: Some(blocks),
        epochs: None,
    }
}

#[test]
fn resident_follows_every_trajectory_that_it_is_made_for_on_both_clusters() {
    on_device!();
    assert_all_pass(&RESIDENT.map(|(name, blocks)| resident(name, blocks)));
}

/// A block has 99 KiB of shared memory there, so that the batch comes in parts, twice a step.
#[test]
fn resident_follows_on_sm_120_with_parts_of_the_batch() {
    on_device!(&[("KILN_SIM_ARCH", "sm_120")]);
    let in_parts = |name| resident_by(Some(Team::Cluster), name, 8);
    assert_all_pass(&[in_parts("tail-batch"), in_parts("odd-37-19-5")]);
}

/// Blocks of a grid, as there are no clusters.
#[test]
fn resident_follows_every_trajectory_that_it_is_made_for_on_sm_80() {
    on_device!(&[("KILN_SIM_ARCH", "sm_80")]);
    assert_all_pass(&RESIDENT.map(|(name, blocks)| resident(name, blocks)));
}

#[test]
fn resident_follows_on_sm_86_with_parts_of_the_batch() {
    on_device!(&[("KILN_SIM_ARCH", "sm_86")]);
    assert_all_pass(&[resident("tail-batch", 8), resident("odd-37-19-5", 16)]);
}

const LOWER: [EnginePrecision; 2] = [EnginePrecision::Tf32, EnginePrecision::Bf16];

/// Lower precision, each step beside candle that rounds the same operands.
#[test]
fn graph_follows_in_tf32_and_bf16() {
    on_device!(&[("KILN_SIM_ARCH", "sm_80")], &[("KILN_SIM_ARCH", "sm_90")]);
    for name in ["tail-batch", "mse-13-32-1", "adamw-cosine-19-13-11-2", "one-cycle-17-29-3"] {
        let golden = recorded(name);
        for copied_weights_max in [0, Choices::default().copied_weights_max] {
            let choices = Choices { copied_weights_max, ..Choices::default() };
            assert_all_pass(&LOWER.map(|precision| {
                let options = GraphOptions { precision, choices, ..GraphOptions::default() };
                replay(&golden).graph_beside_rounding(&options).unwrap()
            }));
        }
    }
}

#[test]
fn resident_follows_in_tf32_and_bf16() {
    on_device!(&[("KILN_SIM_ARCH", "sm_80")], &[("KILN_SIM_ARCH", "sm_90")]);
    for (name, blocks) in [("tail-batch", 8), ("odd-37-19-5", 16)] {
        let golden = recorded(name);
        assert_all_pass(&LOWER.map(|precision| {
            let options = ResidentOptions { precision, ..resident_options(&golden, blocks) };
            replay(&golden).resident_beside_rounding(&options).unwrap()
        }));
    }
}

/// What the gradients beside rounded operands must catch: other roundings, or none, in one layer, of the inputs, or in all.
#[test]
fn operands_that_are_rounded_otherwise_fail() {
    on_device!();
    let golden = recorded("mse-13-32-1");
    let replay = replay(&golden);
    let graph = |precision| {
        let options = GraphOptions { precision, ..GraphOptions::default() };
        Trainer::graph(replay.job().unwrap(), &options).unwrap()
    };
    let precisions = [EnginePrecision::F32, EnginePrecision::Tf32, EnginePrecision::Bf16];
    for runs in precisions {
        for held in precisions {
            let report = replay.beside(graph(runs), operands_of_graph(held, 2, false)).unwrap();
            assert_eq!(report.passes(), runs == held, "{runs} beside {held}: {report}");
        }
    }
    for precision in LOWER {
        let all = operands_of_graph(precision, 2, false);
        let [exact, rounded] = [Rounding::None, all.layers[0]];
        for others in [
            Operands { inputs: exact, ..all.clone() },
            Operands { layers: vec![exact, rounded], ..all.clone() },
            Operands { layers: vec![rounded, exact], ..all.clone() },
        ] {
            let report = replay.beside(graph(precision), others.clone()).unwrap();
            assert!(!report.gradient.passes(), "{precision} beside {others:?}: {report}");
        }
        let options = ResidentOptions { precision, ..resident_options(&golden, 8) };
        let resident = Trainer::resident(replay.job().unwrap(), &options).unwrap();
        let report = replay.beside(resident, all).unwrap();
        assert!(!report.gradient.passes(), "resident in {precision} beside both layers: {report}");
    }
}

/// What the steps beside rounded operands must catch: a learning rate, a momentum, AdamW's first beta that is another.
#[test]
fn steps_in_lower_precision_that_are_wrong_fail() {
    on_device!();
    type Mutation = fn(&mut GoldenOptimizer);
    let mutations: [(&str, Mutation); 4] = [
        ("adamw-23-17-3", |optimizer| adamw(optimizer).lr *= 1.01),
        ("adamw-23-17-3", |optimizer| adamw(optimizer).betas[0] -= 0.01),
        ("odd-37-19-5", |optimizer| sgd(optimizer).momentum -= 0.01),
        ("mse-13-32-1", |optimizer| sgd(optimizer).lr *= 1.01),
    ];
    for (name, mutate) in mutations {
        let golden = recorded(name);
        let mut wrong = golden.clone();
        mutate(&mut wrong.optimizer);
        for precision in LOWER {
            let options = GraphOptions { precision, ..GraphOptions::default() };
            let trainer = Trainer::graph(replay(&wrong).job().unwrap(), &options).unwrap();
            let operands = operands_of_graph(precision, 2, false);
            let report = replay(&golden).beside(trainer, operands).unwrap();
            assert!(report.gradient.passes() && !report.parameter.passes(), "{name}: {report}");
        }
    }
}

/// Architectures whose tensor cores sum in orders of their own, for half of the schedules each.
fn arch(seed: usize) -> (&'static str, &'static str) {
    ("KILN_SIM_ARCH", ["sm_80", "sm_90"][seed % 2])
}

/// Prints the bits of the parameters that a trajectory has come to.
fn print_bits(what: &str, run: &Recording) {
    let bits = kiln_tests::hash(run.finals.iter().flatten().map(|value| value.to_bits()));
    println!("bits of {what} on {} {bits:#018x}", std::env::var("KILN_SIM_ARCH").unwrap_or_default());
}

/// The trajectories are the smaller ones.
#[test]
fn graph_follows_bit_for_bit_on_twenty_schedules() {
    if !sim::on_device() {
        assert_eq!(sim::same_bits(test_name!(), 20, |seed| vec![arch(seed)]), 2 * 3);
        return;
    }
    for name in ["odd-37-19-5", "mse-13-32-1", "tail-batch"] {
        let golden = recorded(name);
        let run = graph(&golden);
        assert!(compare(&golden, &run).unwrap().passes(), "{name}");
        print_bits(name, &run);
    }
}

/// In what a trajectory is followed: `f32`, `tf32` or `bf16`, and of what products are.
const WAY: &str = "KILN_TEST_WAY";

/// Every precision, with products of operands where they lie and of copies, as wide layers have them.
#[test]
fn every_precision_gives_the_same_bits_on_twenty_schedules() {
    if !sim::on_device() {
        let ways = ["f32 copies", "tf32 copies", "tf32 operands", "bf16 copies", "bf16 operands"];
        let lines = sim::same_bits(test_name!(), 20, |seed| vec![arch(seed), (WAY, ways[seed % ways.len()])]);
        assert_eq!(lines, 2 * ways.len());
        return;
    }
    let way = std::env::var(WAY).unwrap_or_else(|_| "f32 copies".into());
    let (precision, of) = way.split_once(' ').unwrap();
    let most = if of == "copies" { 0 } else { usize::MAX };
    let choices =
        Choices { copied_weights_max: most, copied_f32_weights_max: Some(most), ..Choices::default() };
    let options = GraphOptions { precision: precision.parse().unwrap(), choices, ..GraphOptions::default() };
    let golden = recorded("adamw-23-17-3");
    let run = replay(&golden).graph(&options).unwrap();
    if options.precision == EnginePrecision::F32 {
        assert!(compare(&golden, &run).unwrap().passes());
    }
    print_bits(&way, &run);
}

#[test]
fn the_reference_follows_in_float32() {
    assert_all_pass(&reports(|golden| replay(golden).reference(Precision::F32).unwrap()));
}

/// In float64 both are the truth, but for the order of their sums: some 1e-15 a step, which hundreds of steps
/// amplify. 1e-9 leaves them room, and is ten thousand times tighter than the bound for float32.
#[test]
fn the_reference_follows_in_float64_to_nine_digits() {
    let reports = reports(|golden| replay(golden).reference(Precision::F64).unwrap());
    assert_all_pass(&reports);
    for report in &reports {
        for gap in [&report.loss, &report.gradient, &report.parameter] {
            assert!(gap.difference <= 1e-9, "{report}");
        }
    }
}

/// The arguments of SGD in a recording.
fn sgd(optimizer: &mut GoldenOptimizer) -> &mut GoldenSgd {
    match optimizer {
        GoldenOptimizer::Sgd(sgd) => sgd,
        other => panic!("expected SGD, found {other:?}"),
    }
}

/// Likewise of AdamW.
fn adamw(optimizer: &mut GoldenOptimizer) -> &mut GoldenAdamW {
    match optimizer {
        GoldenOptimizer::AdamW(adamw) => adamw,
        other => panic!("expected AdamW, found {other:?}"),
    }
}

/// What a trajectory must catch: a learning rate off by a thousandth, a momentum forgotten, a step out of order.
#[test]
fn runs_that_are_slightly_wrong_fail() {
    type Mutation = fn(&mut Golden);
    let mutations: [(&str, Mutation); 4] = [
        ("learning rate", |g| sgd(&mut g.optimizer).lr *= 1.001),
        ("momentum", |g| sgd(&mut g.optimizer).momentum = 0.49),
        ("order", |g| g.order.swap(0, 20 * 17)),
        ("initial bias", |g| g.init[1].data[0] += 1e-3),
    ];
    let golden = recorded("odd-37-19-5");
    for (what, mutate) in mutations {
        let mut wrong = golden.clone();
        mutate(&mut wrong);
        let report = compare(&golden, &replay(&wrong).host(None).unwrap()).unwrap();
        assert!(!report.passes(), "{what}: {report}");
    }
}

/// A schedule that is one step early or late, as an engine runs it.
#[test]
fn schedules_that_are_one_step_off_fail() {
    for name in ["adamw-cosine-19-13-11-2", "step-21-15-4", "one-cycle-17-29-3"] {
        let golden = recorded(name);
        let mut wrong = golden.clone();
        match wrong.schedule.as_mut().expect("a schedule") {
            GoldenSchedule::CosineAnnealingLR { t_max, warmup_steps, .. } => {
                (*t_max, *warmup_steps) = (91, 9)
            }
            GoldenSchedule::StepLR { step_size, .. } => *step_size -= 1,
            GoldenSchedule::OneCycleLR { total_steps, .. } => *total_steps += 1,
            other => panic!("{name}: {other:?}"),
        }
        let report = compare(&golden, &replay(&wrong).host(None).unwrap()).unwrap();
        assert!(!report.passes(), "{name}: {report}");

        let mut early = golden.clone();
        early.lr.rotate_left(1);
        let run = replay(&early).reference(Precision::F64).unwrap();
        let report = compare(&golden, &run).unwrap();
        assert!(!report.passes(), "{name}, one step early: {report}");
    }
}
