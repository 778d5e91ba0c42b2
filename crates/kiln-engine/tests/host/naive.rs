//! The model in float64 and plain loops: slow, and simple enough to be believed.

use kiln_engine::{Loss, Mlp};

/// Parameters of a model in float64: (weight (out, in), bias (out)) a layer.
pub(crate) type Parameters = Vec<(Vec<f64>, Vec<f64>)>;

/// The model's parameters in float64.
pub(crate) fn parameters(model: &Mlp) -> Parameters {
    let double = |values: &[f32]| values.iter().copied().map(f64::from).collect();
    model.tensors().chunks(2).map(|pair| (double(&pair[0].data), double(&pair[1].data))).collect()
}

/// The loss of a batch: `x` (B, K), `targets` (B, C).
pub(crate) fn loss(p: &Parameters, kind: Loss, x: &[f64], targets: &[f64]) -> f64 {
    let inputs = p[0].0.len() / p[0].1.len();
    let classes = p[p.len() - 1].1.len();
    let batch = x.len() / inputs;
    let rows = x.chunks(inputs).zip(targets.chunks(classes));
    rows.map(|(x, target)| row_loss(kind, &outputs(p, x), target)).sum::<f64>() / batch as f64
}

fn outputs(p: &Parameters, x: &[f64]) -> Vec<f64> {
    let mut x = x.to_vec();
    for (i, (weight, bias)) in p.iter().enumerate() {
        let sums = weight.chunks(x.len()).zip(bias);
        let z = sums.map(|(w, b)| w.iter().zip(&x).map(|(w, x)| w * x).sum::<f64>() + b);
        x = if i + 1 < p.len() { z.map(|z| z.max(0.0)).collect() } else { z.collect() };
    }
    x
}

fn row_loss(kind: Loss, z: &[f64], target: &[f64]) -> f64 {
    match kind {
        Loss::CrossEntropy => {
            let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
            z.iter().zip(target).map(|(z, t)| t * (log_sum - z)).sum()
        }
        Loss::MeanSquaredError => 0.5 * z.iter().zip(target).map(|(z, t)| (t - z).powi(2)).sum::<f64>(),
    }
}

/// The gradient of every parameter by central differences, flat in the order of `Mlp::tensors`. The step 1e-6
/// leaves a rounding error of about 1e-10 for losses of order one, and seldom meets the kink of a ReLU.
pub(crate) fn gradients(p: &Parameters, kind: Loss, x: &[f64], targets: &[f64]) -> Vec<Vec<f64>> {
    const STEP: f64 = 1e-6;
    let mut p = p.clone();
    let mut all = Vec::new();
    for layer in 0..p.len() {
        for tensor in [0, 1] {
            let len = if tensor == 0 { p[layer].0.len() } else { p[layer].1.len() };
            let mut gradient = Vec::with_capacity(len);
            for i in 0..len {
                let mut at = |shift: f64| {
                    let (weight, bias) = &mut p[layer];
                    let value = if tensor == 0 { &mut weight[i] } else { &mut bias[i] };
                    let old = *value;
                    *value += shift;
                    let loss = loss(&p, kind, x, targets);
                    let (weight, bias) = &mut p[layer];
                    *(if tensor == 0 { &mut weight[i] } else { &mut bias[i] }) = old;
                    loss
                };
                gradient.push((at(STEP) - at(-STEP)) / (2.0 * STEP));
            }
            all.push(gradient);
        }
    }
    all
}

/// `count` values in [-1, 1), the same on every machine, exact in float32.
pub(crate) fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
