//! What a recording of AdamW must catch: each of the usual mistakes, in float64 and on gradients that are right.

use std::path::Path;

use kiln_parity::{Golden, GoldenAdamW, GoldenData, GoldenOptimizer, Recording, compare};
use kiln_reference::{Batch, Loss, Precision, Reference, Sgd, Targets};

/// One parameter, its moments and its gradient, at step t = 1, 2, ..
struct Value<'a> {
    p: &'a mut f64,
    m: &'a mut f64,
    v: &'a mut f64,
    g: f64,
}

type Rule = fn(&GoldenAdamW, i32, Value<'_>);

/// AdamW, from the paper: the moments' running means, over what they lack of their sum.
fn adamw(o: &GoldenAdamW, t: i32, Value { p, m, v, g }: Value<'_>) {
    moments(o, m, v, g);
    let (m, v) = (*m / (1.0 - o.betas[0].powi(t)), *v / (1.0 - o.betas[1].powi(t)));
    *p -= o.lr * (m / (v.sqrt() + o.eps) + o.weight_decay * *p);
}

fn without_bias_correction(o: &GoldenAdamW, _: i32, Value { p, m, v, g }: Value<'_>) {
    moments(o, m, v, g);
    *p -= o.lr * (*m / (v.sqrt() + o.eps) + o.weight_decay * *p);
}

/// Adam with an L2 penalty.
fn coupled_decay(o: &GoldenAdamW, t: i32, Value { p, m, v, g }: Value<'_>) {
    moments(o, m, v, g + o.weight_decay * *p);
    let (m, v) = (*m / (1.0 - o.betas[0].powi(t)), *v / (1.0 - o.betas[1].powi(t)));
    *p -= o.lr * m / (v.sqrt() + o.eps);
}

fn eps_inside_the_root(o: &GoldenAdamW, t: i32, Value { p, m, v, g }: Value<'_>) {
    moments(o, m, v, g);
    let (m, v) = (*m / (1.0 - o.betas[0].powi(t)), *v / (1.0 - o.betas[1].powi(t)));
    *p -= o.lr * (m / (v + o.eps).sqrt() + o.weight_decay * *p);
}

/// As TensorFlow had it: eps is added before the second moment is corrected.
fn eps_before_the_correction(o: &GoldenAdamW, t: i32, Value { p, m, v, g }: Value<'_>) {
    moments(o, m, v, g);
    let rate = o.lr * (1.0 - o.betas[1].powi(t)).sqrt() / (1.0 - o.betas[0].powi(t));
    *p -= rate * *m / (v.sqrt() + o.eps) + o.lr * o.weight_decay * *p;
}

fn correction_one_step_late(o: &GoldenAdamW, t: i32, value: Value<'_>) {
    adamw(o, t + 1, value);
}

fn moments(o: &GoldenAdamW, m: &mut f64, v: &mut f64, g: f64) {
    *m = o.betas[0] * *m + (1.0 - o.betas[0]) * g;
    *v = o.betas[1] * *v + (1.0 - o.betas[1]) * g * g;
}

/// Replays a recording with a rule, on gradients from candle.
fn replay(golden: &Golden, rule: Rule) -> Recording {
    let (GoldenOptimizer::AdamW(options), GoldenData::Random { x, y }) = (golden.optimizer, &golden.data)
    else {
        panic!("expected AdamW on data of the recording's own")
    };
    let (inputs, outputs) = (golden.layers[0], golden.layers[golden.layers.len() - 1]);
    let doubles = |values: &[f32]| -> Vec<f64> { values.iter().copied().map(f64::from).collect() };
    let mut parameters: Vec<Vec<f64>> = golden.init.iter().map(|tensor| doubles(&tensor.data)).collect();
    let zeros: Vec<Vec<f64>> = parameters.iter().map(|values| vec![0.0; values.len()]).collect();
    let (mut firsts, mut seconds) = (zeros.clone(), zeros);
    let mut run = Recording::default();
    for (t, rows) in (1..).zip(golden.order.chunks(golden.batch)) {
        let pick = |all: &[f32], width: usize| -> Vec<f64> {
            rows.iter().flat_map(|&row| doubles(&all[row as usize * width..][..width])).collect()
        };
        let (inputs, values) = (pick(x, inputs), pick(y, outputs));
        let batch = Batch { inputs: &inputs, targets: Targets::Values(&values) };
        let (loss, sgd) = (Loss::MeanSquaredError, Sgd::default());
        let model = Reference::new(&golden.layers, &parameters, loss, sgd, Precision::F64).unwrap();
        let (loss, gradients) = model.gradients(&batch).unwrap();
        run.losses.push(loss);
        if t == 1 {
            run.grad0.clone_from(&gradients);
        }
        for (tensor, gradient) in gradients.iter().enumerate() {
            for (at, &g) in gradient.iter().enumerate() {
                let (m, v) = (&mut firsts[tensor][at], &mut seconds[tensor][at]);
                rule(&options, t, Value { p: &mut parameters[tensor][at], m, v, g });
            }
        }
    }
    run.finals = parameters;
    run
}

#[test]
fn an_adamw_that_is_slightly_wrong_fails() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/adamw-23-17-3.safetensors");
    let golden = Golden::read(&path).unwrap();
    let right = compare(&golden, &replay(&golden, adamw)).unwrap();
    assert!(right.passes() && right.parameter.difference <= 1e-9, "{right}");
    let wrong: [(&str, Rule); 5] = [
        ("no bias correction", without_bias_correction),
        ("coupled decay", coupled_decay),
        ("eps inside the root", eps_inside_the_root),
        ("eps before the correction", eps_before_the_correction),
        ("correction one step late", correction_one_step_late),
    ];
    for (what, rule) in wrong {
        let report = compare(&golden, &replay(&golden, rule)).unwrap();
        assert!(!report.passes(), "{what}: {report}");
        println!("{what}: {report}");
    }
}
