//! Optimizers and schedules on the graph engine, beside the host engine: epochs of several batches and a tail.

use kiln_engine::{
    AdamW, Curve, GraphOptions, Job, Loss, Mlp, OneCycle, Optimizer, Samples, Schedule, Sgd, Submission,
    Targets, Trainer,
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

/// Losses of two epochs, and the parameters after them; gradients are asked for in between, which changes nothing.
fn trained(mut trainer: Trainer<'_>) -> (Vec<f64>, Mlp) {
    let order: Vec<u32> = (0..SAMPLES as u32).map(|i| i * 7 % SAMPLES as u32).collect();
    let mut losses = vec![trainer.epoch(&order, BATCH).unwrap().loss];
    trainer.gradients(&order[..9]).unwrap();
    losses.push(trainer.epoch(&order, BATCH).unwrap().loss);
    (losses, trainer.model().unwrap())
}

#[test]
fn graph_trains_as_host_does() {
    on_device!();
    let (inputs, labels) =
        (noise(SAMPLES * 7, 1), (0..SAMPLES).map(|i| (i * 5 % 3) as u8).collect::<Vec<_>>());
    let train = Samples::floats(&inputs, 7, Targets::Labels(&labels)).unwrap();
    let adamw = AdamW { lr: 0.01, eps: 1e-4, weight_decay: 0.1, ..AdamW::default() };
    let sgd = Sgd { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 1e-3, ..Sgd::default() };
    let cosine = Curve::Cosine { half_period_steps: 40, min_lr: 1e-3 };
    let cases: [(Optimizer, Schedule); 4] = [
        (adamw.into(), Schedule::default()),
        (adamw.into(), Schedule { warmup_steps: 5, curve: cosine }),
        (sgd.into(), Curve::OneCycle(OneCycle::new(0.1, 46)).into()),
        (
            Sgd { momentum: 0.0, nesterov: false, ..sgd }.into(),
            Curve::Step { every_steps: 9, gamma: 0.5 }.into(),
        ),
    ];
    for (optimizer, schedule) in cases {
        let what = format!("{optimizer}, {schedule}");
        let model = Mlp::new(&[7, 5, 3], 3).unwrap();
        let job = Job { model, loss: Loss::CrossEntropy, optimizer, schedule, train };
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
