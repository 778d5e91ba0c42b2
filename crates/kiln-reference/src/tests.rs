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

/// Two layers by hand, in scalar arithmetic: every operand of the three products of a layer rounded, and nothing else.
#[test]
fn rounded_operands_are_those_of_the_products() {
    const LAYERS: [usize; 3] = [3, 4, 2];
    let parameters: Vec<Vec<f64>> = [12, 4, 8, 2].iter().zip(5..).map(|(&n, seed)| noise(n, seed)).collect();
    let (inputs, values) = (noise(5 * 3, 1), noise(5 * 2, 2));
    let roundings = [Rounding::None, Rounding::Tf32, Rounding::Bf16];
    for of_inputs in roundings {
        for (first, second) in roundings.into_iter().flat_map(|a| roundings.map(|b| (a, b))) {
            let sgd = Sgd::default();
            let loss = Loss::MeanSquaredError;
            let model = Reference::rounding(
                &LAYERS,
                &parameters,
                loss,
                sgd,
                Operands { inputs: of_inputs, layers: vec![first, second] },
            )
            .unwrap();
            let batch = Batch { inputs: &inputs, targets: Targets::Values(&values) };
            let (got_loss, got) = model.gradients(&batch).unwrap();

            let [w1, b1, w2, b2] = &parameters[..] else { panic!("four tensors") };
            let (mut loss, mut expected) = (0.0, [12, 4, 8, 2].map(|len| vec![0.0; len]));
            for (x, y) in inputs.chunks(3).zip(values.chunks(2)) {
                let z1: Vec<f64> = (0..4)
                    .map(|n| {
                        (0..3).map(|k| of_inputs.of(x[k]) * first.of(w1[3 * n + k])).sum::<f64>() + b1[n]
                    })
                    .collect();
                let h: Vec<f64> = z1.iter().map(|z| z.max(0.0)).collect();
                let z2: Vec<f64> = (0..2)
                    .map(|n| (0..4).map(|k| second.of(h[k]) * second.of(w2[4 * n + k])).sum::<f64>() + b2[n])
                    .collect();
                let dz2: Vec<f64> = z2.iter().zip(y).map(|(z, y)| (z - y) / 5.0).collect();
                loss += z2.iter().zip(y).map(|(z, y)| (z - y).powi(2) / 10.0).sum::<f64>();
                for k in 0..4 {
                    let dh: f64 = (0..2).map(|n| second.of(dz2[n]) * second.of(w2[4 * n + k])).sum();
                    let dz1 = if z1[k] > 0.0 { dh } else { 0.0 };
                    (0..3).for_each(|i| expected[0][3 * k + i] += first.of(dz1) * of_inputs.of(x[i]));
                    expected[1][k] += dz1;
                    (0..2).for_each(|n| expected[2][4 * n + k] += second.of(dz2[n]) * second.of(h[k]));
                }
                (0..2).for_each(|n| expected[3][n] += dz2[n]);
            }
            let case = format!("{of_inputs:?}, {first:?}, {second:?}");
            assert!((got_loss - loss).abs() <= 1e-14, "{case}: {got_loss} {loss}");
            for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                assert!((got - expected).abs() <= 1e-14, "{case}: {got} {expected}");
            }
        }
    }
}

#[test]
fn margins_are_of_the_hidden_unit_that_is_nearest_to_zero() {
    // Units of no weights, x - 1 and 2 x + 1, of sizes 0, |x| + 1 and 2 |x| + 1, and a layer of outputs, which has no ReLU.
    let parameters = [vec![0.0, 1.0, 2.0], vec![0.0, -1.0, 1.0], vec![1.0, 1.0, 1.0], vec![0.0]];
    let sgd = Sgd::default();
    let new = |layers: &[usize], parameters: &[Vec<f64>]| {
        Reference::new(layers, parameters, Loss::MeanSquaredError, sgd, Precision::F64).unwrap()
    };
    let batch = Batch { inputs: &[3.0, -0.25, 1.0], targets: Targets::Values(&[0.0; 3]) };
    let margins = new(&[1, 3, 1], &parameters).margins(&batch).unwrap();
    assert_eq!(margins, [2.0 / 4.0, 0.5 / 1.5, 0.0]);
    assert_eq!(new(&[1, 1], &[vec![1.0], vec![0.0]]).margins(&batch).unwrap(), [f64::INFINITY; 3]);
}

/// Momentum stays what it was: the second step is that of the scalar arithmetic.
#[test]
fn parameters_can_be_replaced_between_steps() {
    let sgd = Sgd { lr: 0.5, momentum: 0.9, ..Sgd::default() };
    let start = [vec![1.0], vec![0.0]];
    let mut model = Reference::new(&[1, 1], &start, Loss::MeanSquaredError, sgd, Precision::F64).unwrap();
    let batch = Batch { inputs: &[1.0], targets: Targets::Values(&[0.0]) };
    model.step(&batch).unwrap(); // both gradients are 1
    model.set_parameters(&[vec![4.0], vec![-2.0]]).unwrap();
    assert_eq!(model.step(&batch).unwrap(), 2.0);
    assert_eq!(model.parameters().unwrap(), [[4.0 - 0.5 * (0.9 + 2.0)], [-2.0 - 0.5 * (0.9 + 2.0)]]);
    let count = model.set_parameters(&[vec![4.0], vec![]]).unwrap_err();
    assert!(matches!(count, Error::Count { expected: 1, found: 0, .. }));
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
    let two_layers = [vec![0.0], vec![0.0], vec![0.0], vec![0.0]];
    let (loss, sgd) = (Loss::CrossEntropy, Sgd::default());
    let rounded = Reference::rounding(&[1, 1, 1], &two_layers, loss, sgd, Operands::exact(1));
    assert!(matches!(rounded.err(), Some(Error::Count { expected: 2, found: 1, .. })));
    let model = random(&[2, 3], Loss::CrossEntropy, Precision::F32);
    let found = |inputs: &[f64], targets| model.gradients(&Batch { inputs, targets }).unwrap_err();
    assert!(matches!(found(&[], Targets::Labels(&[])), Error::Empty));
    assert!(matches!(found(&[1.0], Targets::Labels(&[0])), Error::Count { .. }));
    assert!(matches!(found(&[1.0, 1.0], Targets::Labels(&[0, 1])), Error::Count { .. }));
    assert!(matches!(found(&[1.0, 1.0], Targets::Labels(&[3])), Error::Label { index: 0, .. }));
    assert!(matches!(found(&[1.0, 1.0], Targets::Values(&[0.0; 3])), Error::Targets { .. }));
}
