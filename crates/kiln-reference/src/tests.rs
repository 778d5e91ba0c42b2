//! The reference against arithmetic that can be done by hand.

use super::*;

fn noise(count: usize, mut state: u32) -> Vec<f64> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 23) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn random(layers: &[usize], loss: Loss, precision: Precision) -> Reference {
    let shapes = layers.windows(2).flat_map(|w| [w[0] * w[1], w[1]]).enumerate();
    let parameters: Vec<Vec<f64>> = shapes.map(|(i, len)| noise(len, i as u32 + 7)).collect();
    Reference::new(layers, &parameters, loss, Sgd::default(), precision).unwrap()
}

/// Gradients against central differences of the loss: with steps of 1e-6 off by 1e-9 or less.
#[test]
fn gradients_are_the_losss_slopes() {
    const STEP: f64 = 1e-6;
    for layers in [&[3, 2][..], &[5, 4, 3], &[4, 3, 5, 2]] {
        let (rows, outputs) = (6, layers[layers.len() - 1]);
        let inputs = noise(rows * layers[0], 1);
        let labels: Vec<u32> = (0..rows as u32).map(|i| i % outputs as u32).collect();
        let values = noise(rows * outputs, 2);
        for (loss, targets) in [
            (Loss::CrossEntropy, Targets::Labels(&labels)),
            (Loss::MeanSquaredError, Targets::Values(&values)),
        ] {
            let batch = Batch { inputs: &inputs, targets };
            let model = random(layers, loss, Precision::F64);
            let (_, gradients) = model.gradients(&batch).unwrap();
            let parameters = model.parameters().unwrap();
            for (t, gradient) in gradients.iter().enumerate() {
                for (i, &slope) in gradient.iter().enumerate() {
                    let at = |shift: f64| {
                        let mut moved = parameters.clone();
                        moved[t][i] += shift;
                        let moved =
                            Reference::new(layers, &moved, loss, Sgd::default(), Precision::F64).unwrap();
                        moved.gradients(&batch).unwrap().0
                    };
                    let difference = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                    assert!(
                        (slope - difference).abs() <= 2e-9,
                        "{layers:?} {loss:?} {t}[{i}]: {slope} {difference}"
                    );
                }
            }
        }
    }
}

/// Two outputs, one sample: log(1 + e^-1) for the larger, and that plus one for the smaller.
#[test]
fn losses_are_what_paper_says() {
    for precision in [Precision::F32, Precision::F64] {
        let parameters = [vec![1.0, 0.0], vec![0.0, 0.0]];
        let model = |loss| Reference::new(&[1, 2], &parameters, loss, Sgd::default(), precision).unwrap();
        let one = [1.0];
        let entropy = |label| {
            let batch = Batch { inputs: &one, targets: Targets::Labels(&[label]) };
            model(Loss::CrossEntropy).gradients(&batch).unwrap().0
        };
        let expected = (1.0 + (-1.0f64).exp()).ln();
        assert!((entropy(0) - expected).abs() < 1e-7 && (entropy(1) - expected - 1.0).abs() < 1e-7);
        // Two samples: ((1 - 3)² + (0 - 1)² + (1 - 1)² + (0 - 0)²) / (2 * 2)
        let batch = Batch { inputs: &[1.0, 1.0], targets: Targets::Values(&[3.0, 1.0, 1.0, 0.0]) };
        assert_eq!(model(Loss::MeanSquaredError).gradients(&batch).unwrap().0, 1.25);
    }
}

#[test]
fn the_gradient_of_relu_at_zero_is_zero() {
    // The hidden unit is exactly zero: nothing flows through it, as in PyTorch. candle's own relu lets it pass.
    let parameters = [vec![0.0], vec![0.0], vec![1.0], vec![0.0]];
    let sgd = Sgd::default();
    let model = Reference::new(&[1, 1, 1], &parameters, Loss::MeanSquaredError, sgd, Precision::F64).unwrap();
    let batch = Batch { inputs: &[1.0], targets: Targets::Values(&[5.0]) };
    assert_eq!(model.gradients(&batch).unwrap().1, [vec![0.0], vec![0.0], vec![0.0], vec![-5.0]]);
}

/// One weight and one bias, several steps, each option of the optimizer: the same in scalar arithmetic.
#[test]
fn the_optimizer_is_pytorchs() {
    let base = Sgd { lr: 0.1, ..Sgd::default() };
    let options = [
        base,
        Sgd { weight_decay: 0.3, ..base },
        Sgd { momentum: 0.9, ..base },
        Sgd { momentum: 0.9, dampening: 0.4, ..base },
        Sgd { momentum: 0.8, nesterov: true, weight_decay: 0.1, ..base },
        Sgd { dampening: 0.5, ..base },
    ];
    for sgd in options {
        let start = [vec![0.7], vec![-0.2]];
        let mut model = Reference::new(&[1, 1], &start, Loss::MeanSquaredError, sgd, Precision::F64).unwrap();
        let (mut p, mut v) = ([0.7, -0.2], [0.0; 2]);
        for step in 0..5 {
            let (x, y) = (f64::from(step) - 1.5, 0.25);
            model.step(&Batch { inputs: &[x], targets: Targets::Values(&[y]) }).unwrap();
            let error = p[0] * x + p[1] - y;
            for (i, g) in [error * x, error].into_iter().enumerate() {
                let g = g + sgd.weight_decay * p[i];
                v[i] = match (sgd.momentum == 0.0, step) {
                    (true, _) | (_, 0) => g,
                    _ => sgd.momentum * v[i] + (1.0 - sgd.dampening) * g,
                };
                p[i] -= sgd.lr * if sgd.nesterov { g + sgd.momentum * v[i] } else { v[i] };
            }
            for (got, expected) in model.parameters().unwrap().iter().zip(p) {
                assert!((got[0] - expected).abs() <= 1e-14, "{sgd:?} step {step}: {} {expected}", got[0]);
            }
        }
    }
}

/// One weight and one bias, several steps of AdamW with a learning rate each: the same in scalar arithmetic.
#[test]
fn adamw_is_pytorchs() {
    let base = AdamW { lr: 0.1, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 };
    let options = [
        base,
        AdamW { betas: [0.5, 0.7], ..base },
        AdamW { eps: 0.3, ..base },
        AdamW { weight_decay: 0.8, ..base },
    ];
    for adamw in options {
        let start = [vec![0.7], vec![-0.2]];
        let loss = Loss::MeanSquaredError;
        let mut model = Reference::new(&[1, 1], &start, loss, adamw, Precision::F64).unwrap();
        let (mut p, mut m, mut v) = ([0.7, -0.2], [0.0; 2], [0.0; 2]);
        for t in 1..6 {
            let (x, y, lr) = (f64::from(t) - 2.5, 0.25, adamw.lr / f64::from(t));
            model.step_with(&Batch { inputs: &[x], targets: Targets::Values(&[y]) }, lr).unwrap();
            let error = p[0] * x + p[1] - y;
            for (i, g) in [error * x, error].into_iter().enumerate() {
                p[i] *= 1.0 - lr * adamw.weight_decay;
                m[i] += (1.0 - adamw.betas[0]) * (g - m[i]);
                v[i] = adamw.betas[1] * v[i] + (1.0 - adamw.betas[1]) * g * g;
                let (bias1, bias2) = (1.0 - adamw.betas[0].powi(t), 1.0 - adamw.betas[1].powi(t));
                p[i] -= lr / bias1 * m[i] / (v[i].sqrt() / bias2.sqrt() + adamw.eps);
            }
            for (got, expected) in model.parameters().unwrap().iter().zip(p) {
                assert!((got[0] - expected).abs() <= 1e-14, "{adamw:?} step {t}: {} {expected}", got[0]);
            }
        }
    }
}

#[test]
fn bad_models_and_batches_are_told() {
    let new = |layers: &[usize], parameters: &[Vec<f64>]| {
        Reference::new(layers, parameters, Loss::CrossEntropy, Sgd::default(), Precision::F64).err().unwrap()
    };
    assert!(matches!(new(&[3], &[]), Error::Layers { .. }));
    assert!(matches!(new(&[3, 0], &[]), Error::Layers { .. }));
    assert!(matches!(new(&[1, 1], &[vec![0.0]]), Error::Count { expected: 2, found: 1, .. }));
    assert!(matches!(new(&[1, 1], &[vec![0.0], vec![]]), Error::Count { expected: 1, found: 0, .. }));
    let model = random(&[2, 3], Loss::CrossEntropy, Precision::F32);
    let found = |inputs: &[f64], targets| model.gradients(&Batch { inputs, targets }).unwrap_err();
    assert!(matches!(found(&[], Targets::Labels(&[])), Error::Empty));
    assert!(matches!(found(&[1.0], Targets::Labels(&[0])), Error::Count { .. }));
    assert!(matches!(found(&[1.0, 1.0], Targets::Labels(&[0, 1])), Error::Count { .. }));
    assert!(matches!(found(&[1.0, 1.0], Targets::Labels(&[3])), Error::Label { index: 0, .. }));
    assert!(matches!(found(&[1.0, 1.0], Targets::Values(&[0.0; 3])), Error::Targets { .. }));
}
