//! Batches, the optimizer and bit-equality, as a user of the crate meets them.

use crate::naive;
use kiln_engine::{Error, Inputs, Job, Loss, Mlp, Samples, Schedule, Sgd, Targets, Trainer};

const LAYERS: [usize; 4] = [784, 200, 70, 10];

/// A job large enough that the engine spreads it over its threads.
fn trained(threads: usize, epochs: usize) -> (Mlp, Vec<f64>) {
    trained_in(threads, epochs, 200, 64)
}

/// The same with so many samples, in batches of this size.
fn trained_in(threads: usize, epochs: usize, samples: usize, batch: usize) -> (Mlp, Vec<f64>) {
    let pixels: Vec<u8> = naive::noise(samples * 784, 5).iter().map(|v| (v.abs() * 255.0) as u8).collect();
    let labels: Vec<u8> = (0..samples).map(|i| (i * 3 % 10) as u8).collect();
    let train = Samples::pixels(&pixels, 784, Targets::Labels(&labels)).unwrap();
    let optimizer = Sgd { lr: 0.05, momentum: 0.9, ..Sgd::default() };
    let job = Job {
        model: Mlp::new(&LAYERS, 1).unwrap(),
        loss: Loss::CrossEntropy,
        optimizer: optimizer.into(),
        schedule: Schedule::default(),
        train,
    };
    let mut trainer = Trainer::host(job, threads).unwrap();
    let order: Vec<u32> = (0..samples).map(|i| (i * 77 % samples) as u32).collect();
    let losses = (0..epochs).map(|_| trainer.epoch(&order, batch).unwrap().loss).collect();
    (trainer.model().unwrap(), losses)
}

#[test]
fn runs_and_thread_counts_agree_bit_for_bit() {
    let first = trained(1, 4);
    assert!(first.1[3] < first.1[0], "it learns: {:?}", first.1);
    for threads in [1, 2, 3] {
        assert_eq!(trained(threads, 4), first, "{threads} threads");
    }
}

/// A tall batch, and a tail that is none.
#[test]
fn tall_batches_agree_bit_for_bit_on_any_threads() {
    let first = trained_in(1, 3, 1300, 1200);
    assert!(first.1[2] < first.1[0], "it learns: {:?}", first.1);
    for threads in [2, 3] {
        assert_eq!(trained_in(threads, 3, 1300, 1200), first, "{threads} threads");
    }
}

/// One weight, one sample after the other: the optimizer's arithmetic in float64, beside the engine's.
#[test]
fn every_option_of_the_optimizer_means_what_pytorch_means() {
    let base = Sgd { lr: 0.1, ..Sgd::default() };
    let options = [
        base,
        Sgd { weight_decay: 0.3, ..base },
        Sgd { momentum: 0.9, ..base },
        Sgd { momentum: 0.9, dampening: 0.4, ..base },
        Sgd { momentum: 0.9, weight_decay: 0.2, ..base },
        Sgd { momentum: 0.8, nesterov: true, ..base },
        Sgd { momentum: 0.8, nesterov: true, weight_decay: 0.1, ..base },
        Sgd { dampening: 0.5, ..base }, // without momentum it has no effect
    ];
    for sgd in options {
        let (x, y) = ([0.5f32, -1.5, 2.0], [1.0f32, 0.25, -0.5]);
        let train = Samples::floats(&x, 1, Targets::Values(&y)).unwrap();
        let model = Mlp::new(&[1, 1], 4).unwrap();
        let p = naive::parameters(&model);
        let mut expected = [p[0].0[0], p[0].1[0]];
        let job = Job {
            model,
            loss: Loss::MeanSquaredError,
            optimizer: sgd.into(),
            schedule: Schedule::default(),
            train,
        };
        let mut trainer = Trainer::host(job, 1).unwrap();
        let mut velocity = [0.0; 2];
        for step in 0..7 {
            let sample = step % 3;
            trainer.epoch(&[sample as u32], 1).unwrap();
            let (x, y) = (f64::from(x[sample]), f64::from(y[sample]));
            let error = expected[0] * x + expected[1] - y;
            for (i, g) in [error * x, error].into_iter().enumerate() {
                let g = g + sgd.weight_decay * expected[i];
                let kept = if step == 0 { g } else { sgd.momentum * velocity[i] + (1.0 - sgd.dampening) * g };
                velocity[i] = if sgd.momentum == 0.0 { g } else { kept };
                let along = if sgd.nesterov { g + sgd.momentum * velocity[i] } else { velocity[i] };
                expected[i] -= sgd.lr * along;
            }
            let model = trainer.model().unwrap();
            for (tensor, expected) in model.tensors().iter().zip(expected) {
                let gap = (f64::from(tensor.data[0]) - expected).abs();
                assert!(gap <= 1e-5, "{sgd:?} step {step}: {} off by {gap}", tensor.name);
            }
        }
    }
}

/// A tail batch is a batch: its mean is over its own rows, and it counts once in the epoch's loss.
#[test]
fn the_tail_batch_counts() {
    let x = naive::noise(5 * 3, 1);
    let labels = [0, 1, 1, 0, 1];
    let train = Samples::floats(&x, 3, Targets::Labels(&labels)).unwrap();
    let optimizer = Sgd { lr: 0.1, momentum: 0.5, ..Sgd::default() };
    let job = Job {
        model: Mlp::new(&[3, 4, 2], 0).unwrap(),
        loss: Loss::CrossEntropy,
        optimizer: optimizer.into(),
        schedule: Schedule::default(),
        train,
    };
    let order = [4, 2, 0, 3, 1];
    let mut whole = Trainer::host(job.clone(), 1).unwrap();
    let epoch = whole.epoch(&order, 2).unwrap();
    assert_eq!(epoch.steps, 3);
    let mut parts = Trainer::host(job, 1).unwrap();
    let losses: Vec<f64> = order.chunks(2).map(|rows| parts.epoch(rows, 2).unwrap().loss).collect();
    assert_eq!(epoch.loss, losses.iter().sum::<f64>() / 3.0);
    assert_eq!(whole.model(), parts.model());
}

#[test]
fn a_batch_larger_than_the_data_is_one_step() {
    let x = naive::noise(5 * 3, 1);
    let train = Samples::floats(&x, 3, Targets::Labels(&[0, 1, 1, 0, 1])).unwrap();
    let model = Mlp::new(&[3, 2], 0).unwrap();
    let optimizer = Sgd { lr: 0.1, ..Sgd::default() };
    let job = Job {
        model,
        loss: Loss::CrossEntropy,
        optimizer: optimizer.into(),
        schedule: Schedule::default(),
        train,
    };
    let order = [0, 1, 2, 3, 4];
    let (mut all, mut more) = (Trainer::host(job.clone(), 1).unwrap(), Trainer::host(job, 1).unwrap());
    assert_eq!(all.epoch(&order, 5).unwrap(), more.epoch(&order, usize::MAX).unwrap());
    assert_eq!(all.model(), more.model());
}

/// The evaluation of many samples is the mean over them, and does not depend on training's batch.
#[test]
fn evaluation_is_a_mean_over_samples() {
    let x = naive::noise(300 * 3, 1);
    let labels: Vec<u8> = (0..300).map(|i| (i % 2) as u8).collect();
    let all = Samples::floats(&x, 3, Targets::Labels(&labels)).unwrap();
    let model = Mlp::new(&[3, 4, 2], 0).unwrap();
    let job = Job {
        model,
        loss: Loss::CrossEntropy,
        optimizer: Sgd::default().into(),
        schedule: Schedule::default(),
        train: all,
    };
    let mut trainer = Trainer::host(job, 1).unwrap();
    let whole = trainer.evaluate(&all).unwrap();
    let Inputs::Floats(x) = all.inputs() else { unreachable!() };
    let (mut loss, mut hits) = (0.0, 0.0);
    for i in 0..300 {
        let one = Samples::floats(&x[i * 3..i * 3 + 3], 3, Targets::Labels(&labels[i..=i])).unwrap();
        let one = trainer.evaluate(&one).unwrap();
        loss += one.loss / 300.0;
        hits += one.accuracy.unwrap();
    }
    assert!((whole.loss - loss).abs() <= 1e-6, "{} for {loss}", whole.loss);
    assert_eq!(whole.accuracy, Some(hits / 300.0));
    trainer.epoch(&[0, 1, 2], 2).unwrap(); // lr is 0: nothing moves, only the arenas change
    assert_eq!(trainer.evaluate(&all).unwrap(), whole);
}

#[test]
fn values_have_no_accuracy() {
    let train = Samples::floats(&[0.5, 1.0], 1, Targets::Values(&[1.0, 2.0])).unwrap();
    let model = Mlp::new(&[1, 1], 0).unwrap();
    let job = Job {
        model,
        loss: Loss::MeanSquaredError,
        optimizer: Sgd::default().into(),
        schedule: Schedule::default(),
        train,
    };
    assert_eq!(Trainer::host(job, 1).unwrap().evaluate(&train).unwrap().accuracy, None);
}

#[test]
fn bad_input_is_an_error_and_trains_nothing() {
    let x = naive::noise(6, 1);
    let train = Samples::floats(&x, 2, Targets::Labels(&[0, 1, 1])).unwrap();
    let values = Samples::floats(&x, 2, Targets::Values(&[0.0; 3])).unwrap();
    let model = Mlp::new(&[2, 2], 0).unwrap();
    let optimizer = Sgd { lr: 0.1, ..Sgd::default() };
    let job = Job {
        model: model.clone(),
        loss: Loss::CrossEntropy,
        optimizer: optimizer.into(),
        schedule: Schedule::default(),
        train,
    };
    let refused = |job: Job<'_>| Trainer::host(job, 1).err().expect("an error");

    let narrow = Mlp::new(&[3, 2], 0).unwrap();
    assert!(matches!(refused(Job { model: narrow, ..job.clone() }), Error::SampleWidth { found: 2, .. }));
    let single = Mlp::new(&[2, 1], 0).unwrap();
    assert!(matches!(
        refused(Job { model: single, ..job.clone() }),
        Error::Label { sample: 1, found: 1, .. }
    ));
    assert_eq!(refused(Job { train: values, ..job.clone() }), Error::TargetsForLoss);
    let wide = refused(Job { train: values, loss: Loss::MeanSquaredError, ..job.clone() });
    assert!(matches!(wide, Error::SampleWidth { expected: 2, found: 1, .. }));
    let lr = refused(Job { optimizer: Sgd { lr: f64::NAN, ..optimizer }.into(), ..job.clone() });
    assert!(matches!(lr, Error::Hyperparameter { name: "lr", .. }));

    let mut trainer = Trainer::host(job, 1).unwrap();
    assert_eq!(trainer.epoch(&[0], 0), Err(Error::Batch));
    assert_eq!(trainer.epoch(&[], 1), Err(Error::Empty { what: "order" }));
    assert_eq!(trainer.epoch(&[0, 3], 1), Err(Error::Order { position: 1, samples: 3, found: 3 }));
    assert!(matches!(trainer.gradients(&[7]), Err(Error::Order { .. })));
    assert!(matches!(trainer.evaluate(&values), Err(Error::TargetsForLoss)));
    assert_eq!(trainer.model().unwrap(), model);
}

#[test]
fn a_run_that_diverges_says_where() {
    let x = [1e30f32, 1e30];
    let train = Samples::floats(&x, 1, Targets::Values(&[0.0, 0.0])).unwrap();
    let model = Mlp::new(&[1, 1], 0).unwrap();
    let optimizer = Sgd { lr: 1.0, ..Sgd::default() };
    let job = Job {
        model,
        loss: Loss::MeanSquaredError,
        optimizer: optimizer.into(),
        schedule: Schedule::default(),
        train,
    };
    let mut trainer = Trainer::host(job, 1).unwrap();
    let found = trainer.epoch(&[0, 1, 0, 1], 1);
    assert!(matches!(found, Err(Error::Diverged { step: 1, .. })), "{found:?}");
    assert!(matches!(trainer.evaluate(&train), Err(Error::EvaluationDiverged { .. })));
}
