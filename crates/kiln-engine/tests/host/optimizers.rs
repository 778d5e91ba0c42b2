//! AdamW and schedules, step by step.

use crate::naive;
use kiln_engine::{
    AdamW, Curve, Error, Job, Loss, Mlp, OneCycle, Optimizer, Samples, Schedule, Sgd, Targets, Trainer,
};

/// One weight, one sample after the other: AdamW's arithmetic in float64, beside the engine's.
#[test]
fn every_option_of_adamw_means_what_pytorch_means() {
    let base = AdamW { lr: 0.1, ..AdamW::default() };
    let options = [
        base,
        AdamW { beta1: 0.0, ..base },
        // Without a memory of squares a step follows the sign of the gradient: eps keeps rounding from choosing it.
        AdamW { beta2: 0.0, eps: 0.3, ..base },
        AdamW { beta1: 0.0, beta2: 0.0, eps: 0.3, ..base },
        AdamW { beta1: 0.5, beta2: 0.9, ..base },
        AdamW { eps: 0.3, ..base },
        AdamW { weight_decay: 0.0, ..base },
        AdamW { weight_decay: 0.8, ..base },
    ];
    for adamw in options {
        let (x, y) = ([0.5f32, -1.5, 2.0], [1.0f32, 0.25, -0.5]);
        let train = Samples::floats(&x, 1, Targets::Values(&y)).unwrap();
        let model = Mlp::new(&[1, 1], 4).unwrap();
        let p = naive::parameters(&model);
        let mut expected = [p[0].0[0], p[0].1[0]];
        let (optimizer, schedule) = (adamw.into(), Schedule::default());
        let job = Job { model, loss: Loss::MeanSquaredError, optimizer, schedule, train };
        let mut trainer = Trainer::host(job, 1).unwrap();
        let (mut m, mut v) = ([0.0; 2], [0.0; 2]);
        for step in 0..9 {
            let sample = step % 3;
            trainer.epoch(&[sample as u32], 1).unwrap();
            let (x, y) = (f64::from(x[sample]), f64::from(y[sample]));
            let error = expected[0] * x + expected[1] - y;
            for (i, g) in [error * x, error].into_iter().enumerate() {
                let t = step as i32 + 1;
                m[i] = adamw.beta1 * m[i] + (1.0 - adamw.beta1) * g;
                v[i] = adamw.beta2 * v[i] + (1.0 - adamw.beta2) * g * g;
                let (m_hat, v_hat) = (m[i] / (1.0 - adamw.beta1.powi(t)), v[i] / (1.0 - adamw.beta2.powi(t)));
                expected[i] -= adamw.lr * adamw.weight_decay * expected[i];
                expected[i] -= adamw.lr * m_hat / (v_hat.sqrt() + adamw.eps);
            }
            for (tensor, expected) in trainer.model().unwrap().tensors().iter().zip(expected) {
                let gap = (f64::from(tensor.data[0]) - expected).abs();
                assert!(gap <= 1e-5, "{adamw} step {step}: {} off by {gap}", tensor.name);
            }
        }
    }
}

/// A gradient a hundred thousand times smaller than the one before: what is left of it must not be what rounding leaves.
#[test]
fn a_small_gradient_after_a_large_one_is_a_step_of_its_own() {
    let (x, y) = ([1.0f32, 1e-5], [3.0f32, 7.0]);
    let train = Samples::floats(&x, 1, Targets::Values(&y)).unwrap();
    for (beta1, beta2) in [(0.0, 0.0), (0.0, 0.25), (0.5, 0.0)] {
        let adamw = AdamW { lr: 1e-3, beta1, beta2, weight_decay: 0.0, ..AdamW::default() };
        let model = Mlp::new(&[1, 1], 4).unwrap();
        let (optimizer, schedule) = (adamw.into(), Schedule::default());
        let job = Job { model, loss: Loss::MeanSquaredError, optimizer, schedule, train };
        let mut trainer = Trainer::host(job, 1).unwrap();
        let (mut m, mut v) = (0.0, 0.0);
        for (sample, t) in [(0, 1), (1, 2)] {
            let before = naive::parameters(&trainer.model().unwrap());
            trainer.epoch(&[sample], 1).unwrap();
            let (w, b) = (before[0].0[0], before[0].1[0]);
            let (x, y) = (f64::from(x[sample as usize]), f64::from(y[sample as usize]));
            let g = (w * x + b - y) * x;
            m = beta1 * m + (1.0 - beta1) * g;
            v = beta2 * v + (1.0 - beta2) * g * g;
            let (m_hat, v_hat) = (m / (1.0 - f64::powi(beta1, t)), v / (1.0 - f64::powi(beta2, t)));
            let expected = w - adamw.lr * m_hat / (v_hat.sqrt() + adamw.eps);
            let gap = (naive::parameters(&trainer.model().unwrap())[0].0[0] - expected).abs();
            assert!(gap <= 1e-6 * (expected - w).abs() + 1e-7, "{adamw} step {t}: off by {gap}");
        }
    }
}

/// A scheduled run is, bit for bit, one run a step with the learning rate of that step; the tail and the next epoch count on.
#[test]
fn the_schedule_gives_the_learning_rate_of_every_step() {
    let x = naive::noise(5 * 3, 1);
    let train = Samples::floats(&x, 3, Targets::Labels(&[0, 1, 1, 0, 1])).unwrap();
    let order = [4, 2, 0, 3, 1];
    let sgd = Sgd { lr: 0.3, weight_decay: 0.01, ..Sgd::default() };
    let curves = [
        Curve::Constant,
        Curve::Step { every_steps: 2, gamma: 0.5 },
        Curve::Cosine { half_period_steps: 7, min_lr: 0.01 },
        Curve::OneCycle(OneCycle::new(0.5, 8)),
    ];
    for curve in curves {
        let schedule = Schedule { warmup_steps: 2, curve };
        let model = Mlp::new(&[3, 4, 2], 0).unwrap();
        let job =
            Job { model: model.clone(), loss: Loss::CrossEntropy, optimizer: sgd.into(), schedule, train };
        let mut scheduled = Trainer::host(job.clone(), 1).unwrap();
        let mut stepwise = model;
        let mut step = 0;
        for _ in 0..4 {
            scheduled.epoch(&order, 2).unwrap();
            for rows in order.chunks(2) {
                let optimizer = Sgd { lr: schedule.lr(sgd.lr, step), ..sgd }.into();
                let one = Job { model: stepwise, optimizer, schedule: Schedule::default(), ..job.clone() };
                let mut trainer = Trainer::host(one, 1).unwrap();
                trainer.epoch(rows, 2).unwrap();
                stepwise = trainer.model().unwrap();
                step += 1;
            }
            assert_eq!(scheduled.model().unwrap(), stepwise, "{schedule} after {step} steps");
        }
    }
}

#[test]
fn jobs_with_bad_options_are_refused() {
    let train = Samples::floats(&[0.5, 1.0], 1, Targets::Values(&[1.0, 2.0])).unwrap();
    let refused = |optimizer: Optimizer, schedule: Schedule| {
        let model = Mlp::new(&[1, 1], 0).unwrap();
        let job = Job { model, loss: Loss::MeanSquaredError, optimizer, schedule, train };
        Trainer::host(job, 1).err().expect("an error").to_string()
    };
    let adamw = AdamW { beta2: 1.0, ..AdamW::default() };
    let text = "optimizer: beta2: expected at least 0 and below 1, found 1";
    assert_eq!(refused(adamw.into(), Schedule::default()), text);
    let curve = Curve::Step { every_steps: 0, gamma: 0.1 };
    let text = "schedule: every_steps: expected 1 or more, found 0";
    assert_eq!(refused(AdamW::default().into(), curve.into()), text);
    let cycle = OneCycle { pct_start: 2.0, ..OneCycle::new(0.1, 10) };
    let found = Curve::OneCycle(cycle);
    assert!(matches!(Schedule::from(found).check(), Err(Error::Schedule { name: "pct_start", .. })));
}
