//! Gradients of the host engine against central differences in float64.

use crate::naive;
use kiln_engine::{Job, Loss, Mlp, Samples, Schedule, Sgd, Targets, Trainer};

/// Compares every gradient of a batch. A float32 gradient is off by some multiple of 2^-24 of its tensor's norm:
/// K + N + B products and a handful of roundings each, well inside 1e-5; the differences by 1e-10 of the loss,
/// and by far more where a ReLU has its kink within a step, or a rounding, of zero: seed 3 has such a unit, 4 none.
fn check(layers: &[usize], batch: usize, loss: Loss, labelled: bool, threads: usize) {
    let (inputs, outputs) = (layers[0], layers[layers.len() - 1]);
    let x = naive::noise(batch * inputs, 1);
    let values = naive::noise(batch * outputs, 2);
    let labels: Vec<u8> = (0..batch).map(|i| (i * 7 % outputs) as u8).collect();
    let targets = if labelled { Targets::Labels(&labels) } else { Targets::Values(&values) };
    let model = Mlp::new(layers, 4).unwrap();
    let train = Samples::floats(&x, inputs, targets).unwrap();
    let optimizer = Sgd::default().into();
    let job = Job { model: model.clone(), loss, optimizer, schedule: Schedule::default(), train };
    let rows: Vec<u32> = (0..batch as u32).rev().collect();
    let got = Trainer::host(job, threads).unwrap().gradients(&rows).unwrap();

    let one_hot = |&label: &u8| (0..outputs).map(move |c| f64::from(u8::from(c == usize::from(label))));
    let targets: Vec<f64> = match labelled {
        true => labels.iter().flat_map(one_hot).collect(),
        false => values.iter().copied().map(f64::from).collect(),
    };
    let x: Vec<f64> = x.iter().copied().map(f64::from).collect();
    let p = naive::parameters(&model);
    let expected = naive::loss(&p, loss, &x, &targets);
    let gap = (got.loss - expected).abs();
    assert!(gap <= 1e-5 * expected.max(1.0), "{layers:?}: loss {} for {expected}", got.loss);
    let expected = naive::gradients(&p, loss, &x, &targets);
    for (got, expected) in got.tensors.iter().zip(&expected) {
        let norm = expected.iter().map(|e| e * e).sum::<f64>().sqrt();
        let gap: f64 = got.data.iter().zip(expected).map(|(&g, e)| (f64::from(g) - e).powi(2)).sum();
        let bound = 1e-5 * norm + 1e-9 * (expected.len() as f64).sqrt();
        assert!(gap.sqrt() <= bound, "{layers:?} batch {batch}: {} off by {:e}", got.name, gap.sqrt());
    }
}

#[test]
fn any_depth_and_odd_widths() {
    for layers in
        [&[5, 3][..], &[13, 7, 5], &[11, 67, 3], &[7, 13, 5, 3], &[5, 7, 3, 11, 2], &[3, 65, 31, 67, 4]]
    {
        for loss in [Loss::CrossEntropy, Loss::MeanSquaredError] {
            check(layers, 17, loss, true, 1);
        }
        check(layers, 17, Loss::MeanSquaredError, false, 1);
    }
}

#[test]
fn widths_of_one_and_batches_of_one() {
    for layers in [&[1, 1][..], &[1, 1, 1], &[1, 3, 1], &[3, 1, 2]] {
        for batch in [1, 2, 5] {
            check(layers, batch, Loss::MeanSquaredError, false, 1);
            check(layers, batch, Loss::CrossEntropy, true, 1);
        }
    }
}

#[test]
fn stretches_and_row_tasks_that_do_not_divide() {
    check(&[131, 66, 3], 33, Loss::CrossEntropy, true, 2);
    check(&[257, 2, 3], 65, Loss::MeanSquaredError, false, 2);
}

/// From 1024 rows on, outputs are made of some rows after others.
#[test]
fn tall_batches() {
    for batch in [1023, 1024, 1157] {
        check(&[5, 66, 3], batch, Loss::CrossEntropy, true, 2);
    }
    check(&[7, 3], 1281, Loss::MeanSquaredError, false, 1);
}

/// Pixels stand for pixel / 255.
#[test]
fn pixels_are_scaled() {
    let pixels: Vec<u8> = (0..35).map(|i| (i * 89 % 256) as u8).collect();
    let floats: Vec<f32> = pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
    let labels = [0, 1, 2, 1, 0];
    let model = Mlp::new(&[7, 4, 3], 0).unwrap();
    let gradients = |train| {
        let job = Job {
            model: model.clone(),
            loss: Loss::CrossEntropy,
            optimizer: Sgd::default().into(),
            schedule: Schedule::default(),
            train,
        };
        Trainer::host(job, 1).unwrap().gradients(&[4, 0, 3]).unwrap()
    };
    let from_pixels = gradients(Samples::pixels(&pixels, 7, Targets::Labels(&labels)).unwrap());
    let from_floats = gradients(Samples::floats(&floats, 7, Targets::Labels(&labels)).unwrap());
    assert!((from_pixels.loss - from_floats.loss).abs() <= 1e-6);
    for (a, b) in from_pixels.tensors.iter().zip(&from_floats.tensors) {
        for (a, b) in a.data.iter().zip(&b.data) {
            assert!((a - b).abs() <= 1e-6, "{a} for {b}");
        }
    }
}
