//! Every engine against candle's autograd: random models of depth 1 to 5, gradients and a few steps.

use kiln_engine::{AdamW, GraphOptions, Job, Loss, Mlp, Optimizer, Samples, Schedule, Sgd, Targets, Trainer};
use kiln_parity::relative_error;
use kiln_reference::{Batch, Precision, Reference};

const SAMPLES: usize = 23;
const BATCH: usize = 7; // 23 = 3 * 7 + 2: a tail in every epoch

/// Values in [-1, 1), the same on every machine, exact in float32.
fn noise(count: usize, mut state: u32) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Makes the trainer that a case is checked on.
type Engine = fn(Job<'_>) -> Trainer<'_>;

fn host(job: Job<'_>) -> Trainer<'_> {
    Trainer::host(job, 2).unwrap()
}

fn graph(job: Job<'_>) -> Trainer<'_> {
    Trainer::graph(job, &GraphOptions::default()).unwrap()
}

struct Case {
    layers: Vec<usize>,
    inputs: Vec<f32>,
    labels: Vec<u8>,
    values: Vec<f32>,
}

impl Case {
    fn new(layers: &[usize]) -> Self {
        let (inputs, outputs) = (layers[0], layers[layers.len() - 1]);
        Self {
            layers: layers.to_vec(),
            inputs: noise(SAMPLES * inputs, 1),
            labels: (0..SAMPLES).map(|i| (i * 5 % outputs) as u8).collect(),
            values: noise(SAMPLES * outputs, 2),
        }
    }

    /// Inputs and targets of some rows, for the reference.
    fn batch<R>(&self, loss: Loss, rows: &[u32], use_it: impl FnOnce(&Batch<'_>) -> R) -> R {
        let pick = |all: &[f32], width: usize| -> Vec<f64> {
            rows.iter().flat_map(|&r| doubles(&all[r as usize * width..][..width])).collect()
        };
        let outputs = self.layers[self.layers.len() - 1];
        let labels: Vec<u32> = rows.iter().map(|&r| u32::from(self.labels[r as usize])).collect();
        let (inputs, values) = (pick(&self.inputs, self.layers[0]), pick(&self.values, outputs));
        let targets = match loss {
            Loss::CrossEntropy => kiln_reference::Targets::Labels(&labels),
            Loss::MeanSquaredError => kiln_reference::Targets::Values(&values),
        };
        use_it(&Batch { inputs: &inputs, targets })
    }

    /// Gradients of one batch, then two epochs of training, each compared within 1e-5.
    fn check(&self, engine: Engine, loss: Loss, optimizer: Optimizer) {
        let targets = match loss {
            Loss::CrossEntropy => Targets::Labels(&self.labels),
            Loss::MeanSquaredError => Targets::Values(&self.values),
        };
        let model = Mlp::new(&self.layers, 11).unwrap();
        let train = Samples::floats(&self.inputs, self.layers[0], targets).unwrap();
        let init: Vec<Vec<f64>> = model.tensors().iter().map(|t| doubles(&t.data)).collect();
        let mut trainer = engine(Job { model, loss, optimizer, schedule: Schedule::default(), train });
        let mut reference = self.reference(&init, loss, optimizer);

        let all: Vec<u32> = (0..SAMPLES as u32).collect();
        let (expected, gradients) = self.batch(loss, &all, |batch| reference.gradients(batch)).unwrap();
        let got = trainer.gradients(&all).unwrap();
        assert!((got.loss - expected).abs() <= 1e-5, "{:?}: loss {} for {expected}", self.layers, got.loss);
        for (got, expected) in got.tensors.iter().zip(&gradients) {
            let gap = relative_error(&doubles(&got.data), expected);
            assert!(gap <= 1e-5, "{:?} {loss}: gradient {} off by {gap:e}", self.layers, got.name);
        }
        for epoch in 0..2u32 {
            let order: Vec<u32> = (0..SAMPLES as u32).map(|i| (i * 9 + epoch) % SAMPLES as u32).collect();
            let got = trainer.epoch(&order, BATCH).unwrap().loss;
            let steps = order.chunks(BATCH);
            let losses: Vec<f64> =
                steps.map(|rows| self.batch(loss, rows, |batch| reference.step(batch)).unwrap()).collect();
            let expected = losses.iter().sum::<f64>() / losses.len() as f64;
            assert!((got - expected).abs() <= 1e-5, "{:?} epoch {epoch}: {got} for {expected}", self.layers);
        }
        for (got, expected) in trainer.model().unwrap().tensors().iter().zip(reference.parameters().unwrap())
        {
            let gap = relative_error(&doubles(&got.data), &expected);
            assert!(gap <= 1e-5, "{:?} {loss} {optimizer}: {} off by {gap:e}", self.layers, got.name);
        }
    }

    fn reference(&self, init: &[Vec<f64>], loss: Loss, optimizer: Optimizer) -> Reference {
        let loss = match loss {
            Loss::CrossEntropy => kiln_reference::Loss::CrossEntropy,
            Loss::MeanSquaredError => kiln_reference::Loss::MeanSquaredError,
        };
        let optimizer: kiln_reference::Optimizer = match optimizer {
            Optimizer::Sgd(Sgd { lr, momentum, dampening, weight_decay, nesterov }) => {
                kiln_reference::Sgd { lr, momentum, dampening, weight_decay, nesterov }.into()
            }
            Optimizer::AdamW(AdamW { lr, beta1, beta2, eps, weight_decay }) => {
                kiln_reference::AdamW { lr, betas: [beta1, beta2], eps, weight_decay }.into()
            }
        };
        Reference::new(&self.layers, init, loss, optimizer, Precision::F64).unwrap()
    }
}

#[test]
fn host_on_random_models_of_depth_one_to_five() {
    random_models(host);
}

#[test]
fn graph_on_random_models_of_depth_one_to_five() {
    kiln_tests::on_device!(
        &[("KILN_SIM_ARCH", "sm_80")],
        &[("KILN_SIM_ARCH", "sm_90"), ("KILN_SIM_SEED", "3")]
    );
    random_models(graph);
}

fn random_models(engine: Engine) {
    let plain = Sgd { lr: 0.05, ..Sgd::default() };
    let momentum = Sgd { momentum: 0.9, ..plain };
    let nesterov = Sgd { nesterov: true, weight_decay: 1e-2, ..momentum };
    let dampened = Sgd { dampening: 0.3, ..momentum };
    // Where a gradient is next to nothing, AdamW steps by its sign: eps keeps float32 from choosing it by rounding.
    let adamw = AdamW { lr: 0.01, eps: 1e-3, ..AdamW::default() };
    for layers in [
        &[13, 3][..],
        &[17, 65, 5],
        &[7, 31, 67, 3],
        &[5, 11, 13, 7, 2],
        &[3, 19, 5, 23, 11, 4],
        &[1, 1],
        &[1, 2, 1, 2],
    ] {
        let case = Case::new(layers);
        let sgds = [plain, momentum, nesterov, dampened].map(Optimizer::from);
        for optimizer in sgds.into_iter().chain([adamw.into()]) {
            case.check(engine, Loss::CrossEntropy, optimizer);
            case.check(engine, Loss::MeanSquaredError, optimizer);
        }
    }
}
