//! Optimizers and schedules on the graph engine, beside the host engine: epochs of several batches and a tail.

use kiln_engine::{
    AdamW, Curve, Error, GraphOptions, Job, Loss, Mlp, OneCycle, Optimizer, Samples, Schedule, Sgd,
    Submission, Targets, Trainer,
};
use kiln_tests::on_device;

const SAMPLES: usize = 45;
const BATCH: usize = 2; // 22 steps and a tail: more than one captured graph holds

fn noise(count: usize, mut state: u32) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn order() -> Vec<u32> {
    (0..SAMPLES as u32).map(|i| i * 7 % SAMPLES as u32).collect()
}

/// Losses of two epochs, and the parameters after them; gradients are asked for in between, which changes nothing.
fn trained(mut trainer: Trainer<'_>) -> (Vec<f64>, Mlp) {
    let order = order();
    let mut losses = vec![trainer.epoch(&order, BATCH).unwrap().loss];
    trainer.gradients(&order[..9]).unwrap();
    losses.push(trainer.epoch(&order, BATCH).unwrap().loss);
    (losses, trainer.model().unwrap())
}

/// Optimizers with every kind of moments, each with a schedule.
fn cases() -> [(Optimizer, Schedule); 4] {
    let adamw = AdamW { lr: 0.01, eps: 1e-4, weight_decay: 0.1, ..AdamW::default() };
    let sgd = Sgd { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 1e-3, ..Sgd::default() };
    let cosine = Curve::Cosine { half_period_steps: 40, min_lr: 1e-3 };
    [
        (adamw.into(), Schedule::default()),
        (adamw.into(), Schedule { warmup_steps: 5, curve: cosine }),
        (sgd.into(), Curve::OneCycle(OneCycle::new(0.1, 46)).into()),
        (
            Sgd { momentum: 0.0, nesterov: false, ..sgd }.into(),
            Curve::Step { every_steps: 9, gamma: 0.5 }.into(),
        ),
    ]
}

fn data() -> (Vec<f32>, Vec<u8>) {
    (noise(SAMPLES * 7, 1), (0..SAMPLES).map(|i| (i * 5 % 3) as u8).collect())
}

/// A job on such data, from the model that a seed names.
fn job<'d>(
    (inputs, labels): &'d (Vec<f32>, Vec<u8>),
    layers: &[usize],
    seed: u64,
    (optimizer, schedule): (Optimizer, Schedule),
) -> Job<'d> {
    let train = Samples::floats(inputs, 7, Targets::Labels(labels)).unwrap();
    Job { model: Mlp::new(layers, seed).unwrap(), loss: Loss::CrossEntropy, optimizer, schedule, train }
}

#[test]
fn graph_trains_as_host_does() {
    on_device!();
    let data = data();
    for (optimizer, schedule) in cases() {
        let what = format!("{optimizer}, {schedule}");
        let job = job(&data, &[7, 5, 3], 3, (optimizer, schedule));
        let (losses, host) = trained(Trainer::host(job.clone(), 1).unwrap());
        let graph = |submission| {
            let options = GraphOptions { submission, ..GraphOptions::default() };
            trained(Trainer::graph(job.clone(), &options).unwrap())
        };
        let captured = graph(Submission::Captured);
        assert_eq!(captured, graph(Submission::Direct), "{what}: captured or not");
        for (got, expected) in captured.0.iter().zip(&losses) {
            assert!((got - expected).abs() <= 1e-5, "{what}: loss {got}, expected {expected}");
        }
        for (got, expected) in captured.1.tensors().iter().zip(host.tensors()) {
            let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
            let size = norm(&mut expected.data.iter().copied());
            let gap = norm(&mut got.data.iter().zip(&expected.data).map(|(g, e)| g - e));
            println!("{what}: {} off by {:.1e}", got.name, gap / size);
            assert!(gap <= 1e-5 * size, "{what}: {} off by {gap:e} of {size:e}", got.name);
        }
    }
}

/// To the same bits in a trainer that has been through something else, and in one on the other engine to nearly the same.
#[test]
fn training_goes_on_from_a_state() {
    on_device!();
    let data = data();
    for (optimizer, schedule) in cases() {
        let job = |seed| job(&data, &[7, 5, 3], seed, (optimizer, schedule));
        let trainer = |engine, seed| match engine {
            "host" => Trainer::host(job(seed), 1).unwrap(),
            _ => Trainer::graph(job(seed), &GraphOptions::default()).unwrap(),
        };
        for (engine, other) in [("host", "graph"), ("graph", "host")] {
            let what = format!("{engine}, {optimizer}, {schedule}");
            let mut one = trainer(engine, 3);
            one.epoch(&order(), BATCH).unwrap();
            let state = one.state().unwrap();
            assert_eq!((state.steps, &state.model), (23, &one.model().unwrap()), "{what}");
            let whole = (one.epoch(&order(), BATCH).unwrap(), one.state().unwrap());
            assert_ne!(whole.1, state, "{what}");

            let mut same = trainer(engine, 4);
            same.epoch(&order()[..31], 5).unwrap();
            same.restore(&state).unwrap();
            assert_eq!(same.state().unwrap(), state, "{what}");
            let resumed = (same.epoch(&order(), BATCH).unwrap(), same.state().unwrap());
            assert_eq!(resumed, whole, "{what}");

            let mut other = trainer(other, 5);
            other.restore(&state).unwrap();
            let loss = other.epoch(&order(), BATCH).unwrap().loss;
            assert!((loss - whole.0.loss).abs() <= 1e-5, "{what}: {loss}, expected {}", whole.0.loss);
        }
    }
}

#[test]
fn a_state_of_another_job_is_refused_and_nothing_of_it_is_taken() {
    on_device!();
    let data = data();
    let job = |layers: &[usize], case| job(&data, layers, 3, case);
    let [adamw, _, momentum, descent] = cases();
    let state = |layers: &[usize], case| Trainer::host(job(layers, case), 1).unwrap().state().unwrap();
    let others = [state(&[7, 6, 3], momentum), state(&[7, 5, 3], adamw), state(&[7, 5, 3], descent)];
    let mine = job(&[7, 5, 3], momentum);
    for mut trainer in
        [Trainer::host(mine.clone(), 1).unwrap(), Trainer::graph(mine, &GraphOptions::default()).unwrap()]
    {
        trainer.epoch(&order(), BATCH).unwrap();
        let before = trainer.state().unwrap();
        for other in &others {
            assert!(matches!(trainer.restore(other), Err(Error::State { .. })));
            assert_eq!(trainer.state().unwrap(), before);
        }
    }
}
