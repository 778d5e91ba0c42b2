//! Gradients of parameters, stored and fused with the update.

use kiln_tests::on_device;

use super::*;
use crate::gpu::{LayerGradient, Scalars, Sink, Source, weight_gradients};

const SAMPLES: u32 = 23;
const DECAY: f32 = 0.01;
const LR: f32 = 0.05;
const KEEP: f32 = 0.9;
const FRESH: f32 = 0.75;
const SHARES: (f32, f32) = (1.0, 0.9);

/// What a case works on: x (B, K) as numbers before they are scaled, dz (B, N), and the state that an update finds.
pub(super) struct Case {
    dims: Dims,
    /// Of sums over the batch.
    bound: Bound,
    values: Values,
    x: Vec<f32>,
    scale: f32,
    dz: Vec<f32>,
    state: [Vec<f32>; 4],
    /// Of weights (N, K) and biases (N): a gradient and what it may be off by.
    gradients: [Vec<(f64, f64)>; 2],
}

impl Case {
    pub(super) fn new(
        dims: Dims,
        bound: Bound,
        values: Values,
        (x, scale): (Vec<f32>, f32),
        dz: Vec<f32>,
    ) -> Self {
        let (weights, units) = ((dims.n * dims.k) as usize, dims.n as usize);
        let state = [(11, weights), (12, units), (13, weights), (14, units)]
            .map(|(seed, len)| draw(seed, Values::Floats, len));
        let mut case = Self { dims, bound, values, x, scale, dz, state, gradients: Default::default() };
        case.gradients = [(false, weights), (true, units)]
            .map(|(bias, len)| (0..len).map(|at| case.gradient_at(bias, at)).collect());
        case
    }

    /// An entry of `gradients`.
    fn gradient(&self, bias: bool, at: usize) -> (f64, f64) {
        self.gradients[usize::from(bias)][at]
    }

    /// A gradient and what it may be off by: entry `at` of the weights (N, K), or of the biases (N).
    fn gradient_at(&self, bias: bool, at: usize) -> (f64, f64) {
        let (rows, inputs, outputs) = (self.dims.b as usize, self.dims.k as usize, self.dims.n as usize);
        let (unit, input) = if bias { (at, 0) } else { (at / inputs, at % inputs) };
        let x = |row: usize| if bias { 1.0 } else { f64::from(self.x[row * inputs + input]) };
        let terms = (0..rows).map(|row| f64::from(self.dz[row * outputs + unit]) * x(row));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
        let scale = if bias { 1.0 } else { self.scale };
        if self.values == Values::Integers {
            return (f64::from(sum as f32 * scale), 0.0);
        }
        // Biases are summed in float32 whatever the precision.
        let factor = if bias { Bound::FLOAT32.factor(rows, 1) } else { self.bound.factor(rows, 2) };
        let scale = f64::from(scale);
        (sum * scale, factor * size * scale)
    }

    /// Parameter and velocity after the update by a gradient, and what they may be off by: what the gradient is off by, and
    /// eight roundings of the sizes that meet.
    fn momentum(&self, bias: bool, at: usize) -> [(f64, f64); 2] {
        let (p, v) =
            (f64::from(self.state[usize::from(bias)][at]), f64::from(self.state[2 + usize::from(bias)][at]));
        let (g, off) = self.gradient(bias, at);
        let wide = |x: f32| f64::from(x);
        let (lr, keep, fresh, decay) = (wide(LR), wide(KEEP), wide(FRESH), wide(DECAY));
        let (gshare, vshare) = (wide(SHARES.0), wide(SHARES.1));
        let step = |g: f64, p: f64, v: f64| {
            let g = g + decay * p;
            let v = keep * v + fresh * g;
            (p - lr * (gshare * g + vshare * v), v)
        };
        let (new_p, new_v) = step(g, p, v);
        let size_v = keep * v.abs() + fresh * (g.abs() + decay * p.abs());
        let size_p = p.abs() + lr * (gshare * (g.abs() + decay * p.abs()) + vshare * size_v);
        [
            (new_p, lr * (gshare + vshare * fresh) * off + 8.0 * U * size_p),
            (new_v, fresh * off + 8.0 * U * size_v),
        ]
    }

    fn descent(&self, bias: bool, at: usize) -> (f64, f64) {
        let p = f64::from(self.state[usize::from(bias)][at]);
        let (g, off) = self.gradient(bias, at);
        let (lr, decay) = (f64::from(LR), f64::from(DECAY));
        let size = p.abs() + lr * (g.abs() + decay * p.abs());
        (p - lr * (g + decay * p), lr * off + 8.0 * U * size)
    }
}

#[test]
fn gradients_and_updates() {
    on_device!();
    // There are two tiles: the device that leaves room for a third one shows nothing new.
    for (precision, gpu) in gpus().filter(|(_, gpu)| gpu.multiprocessors != SMALL_TILES) {
        for dims in SIZES {
            for values in [Values::Integers, Values::Floats] {
                sources(&gpu, precision, dims, values);
            }
        }
    }
}

/// The case of the mutants.
pub(super) fn case_of_hidden(gpu: &Gpu, precision: Precision, dims: Dims) {
    sources(gpu, precision, dims, Values::Floats);
}

/// One size from all three sources.
fn sources(gpu: &Gpu, precision: Precision, dims: Dims, values: Values) {
    let epoch = Epoch::new(gpu, 1, dims.b, SAMPLES);
    let width = dims.k as usize;
    let bytes = pixels(3, SAMPLES as usize * width);
    let floats = draw(4, values, SAMPLES as usize * width);
    let hidden = draw(5, values, (dims.b * dims.k) as usize);
    let gathered = |value: &dyn Fn(usize) -> f32| -> Vec<f32> {
        let places = epoch.rows.iter().flat_map(|&row| (0..width).map(move |k| row as usize * width + k));
        places.map(value).collect()
    };
    let of_pixels = gathered(&|at| f32::from(bytes[at]));
    let of_floats = gathered(&|at| floats[at]);
    let (bytes, floats, hiddens) = (buffer(gpu, &bytes), buffer(gpu, &floats), buffer(gpu, &hidden));
    let (bytes, floats) = (Source::Pixels(bytes.all()), Source::Floats(floats.all()));
    for (rows, below, x) in [
        (bytes, None, of_pixels),
        (floats, None, of_floats),
        (bytes, Some(hiddens.all()), hidden.clone()),
        (floats, Some(hiddens.all()), hidden),
    ] {
        let scale = if below.is_none() && matches!(rows, Source::Pixels(_)) { 1.0 / 255.0 } else { 1.0 };
        let dz = draw(6, values, (dims.b * dims.n) as usize);
        let case = Case::new(dims, Bound::of(gpu, precision), values, (x, scale), dz);
        let dz = buffer(gpu, &case.dz);
        let source = if below.is_some() { "hidden, beside " } else { "" };
        sinks(gpu, &case, &format!("{precision} {source}{}", rows.name()), |&sink| {
            let layer = LayerGradient { x: below, dz: dz.all(), sink, dims };
            weight_gradients(gpu, &rows, &epoch.position(), &[layer]).unwrap();
        });
    }
}

/// Layers of both tiles, more of them than a launch takes, and each what it is alone, bit for bit.
#[test]
fn layers_in_one_call_are_what_each_is_alone() {
    on_device!();
    let mut gpu = open(Precision::F32);
    gpu.multiprocessors = 4; // 66 x 67 and what is larger are of large tiles
    case_of_layers(&gpu);
}

pub(super) fn case_of_layers(gpu: &Gpu) {
    let widths = [67, 33, 35, 1, 66, 67, 5, 64, 65, 31, 32, 97, 3, 2];
    let (rows, depth) = (19, widths.len() - 1);
    let epoch = Epoch::new(gpu, 1, rows, SAMPLES);
    let data = buffer(gpu, &pixels(3, (SAMPLES * widths[0]) as usize));
    let activations = |seed: u64| -> Vec<Buffer<f32>> {
        let of = |width: &u32| {
            buffer(gpu, &draw(seed + u64::from(*width), Values::Floats, (rows * width) as usize))
        };
        widths[1..].iter().map(of).collect()
    };
    let (hidden, deltas) = (activations(5), activations(6));
    let scalars = scalars(gpu);
    let run = |together: bool, momentum: bool| -> Vec<Vec<u32>> {
        let states: Vec<[Buffer<f32>; 4]> = (0..depth)
            .map(|layer| {
                let (k, n) = (widths[layer] as usize, widths[layer + 1] as usize);
                [n * k, n, n * k, n].map(|len| buffer(gpu, &draw(len as u64, Values::Floats, len)))
            })
            .collect();
        let layers: Vec<LayerGradient<'_>> = (0..depth)
            .map(|layer| {
                let [w, b, vw, vb] = [0, 1, 2, 3].map(|at| states[layer][at].all());
                let (scalars, decay) = (scalars.all(), DECAY);
                let (gradient_share, velocity_share) = SHARES;
                LayerGradient {
                    x: layer.checked_sub(1).map(|below| hidden[below].all()),
                    dz: deltas[layer].all(),
                    sink: match momentum {
                        true => {
                            Sink::Momentum { w, b, vw, vb, scalars, decay, gradient_share, velocity_share }
                        }
                        false => Sink::Descent { w, b, scalars, decay },
                    },
                    dims: Dims { b: rows, k: widths[layer], n: widths[layer + 1] },
                }
            })
            .collect();
        for layers in layers.chunks(if together { depth } else { 1 }) {
            weight_gradients(gpu, &Source::Pixels(data.all()), &epoch.position(), layers).unwrap();
        }
        let bits =
            |buffer: &Buffer<f32>| read(gpu, buffer, buffer.len()).iter().map(|v| v.to_bits()).collect();
        states.iter().flatten().map(bits).collect()
    };
    for momentum in [true, false] {
        assert!(run(true, momentum) == run(false, momentum), "layers together are off by some bits");
    }
}

/// A layer whose buffer is too small is refused, wherever it stands.
#[test]
fn small_buffers_of_a_layer_are_refused() {
    on_device!();
    let gpu = open(Precision::F32);
    let epoch = Epoch::new(&gpu, 1, 2, SAMPLES);
    let data = buffer(&gpu, &pixels(3, SAMPLES as usize * 3));
    let (small, enough) = (buffer(&gpu, &[0.0f32; 5]), buffer(&gpu, &[0.0f32; 6]));
    let dims = Dims { b: 2, k: 3, n: 3 };
    let nine = buffer(&gpu, &[0.0f32; 9]);
    for at in 0..4 {
        let pick = |which| if at == which { small.all() } else { enough.all() };
        let weights = if at == 2 { enough.all() } else { nine.all() };
        let biases = if at == 3 { enough.all().from(4) } else { enough.all() };
        let sink = Sink::Store { dw: weights, db: biases };
        let good = LayerGradient {
            x: None,
            dz: enough.all(),
            sink: Sink::Store { dw: nine.all(), db: enough.all() },
            dims,
        };
        let bad = LayerGradient { x: Some(pick(0)), dz: pick(1), sink, dims };
        let error = weight_gradients(&gpu, &Source::Pixels(data.all()), &epoch.position(), &[good, bad]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("weight_gradients_pixels_store_small with B 2, K 3, N 3"), "{error}");
        let wanted = ["5, expected 6", "5, expected 6", "6, expected 9", "2, expected 3"][at];
        assert!(error.contains(&format!("a buffer of {wanted}")), "{error}");
    }
    // The rows of the data set count where a layer reads them, wherever that stands.
    let two = buffer(&gpu, &[0u8; 2]);
    let sink = Sink::Store { dw: nine.all(), db: enough.all() };
    let hidden = LayerGradient { x: Some(enough.all()), dz: enough.all(), sink, dims };
    let run = |layers: &[LayerGradient<'_>]| {
        weight_gradients(&gpu, &Source::Pixels(two.all()), &epoch.position(), layers)
    };
    run(&[hidden]).unwrap();
    let error = run(&[hidden, LayerGradient { x: None, ..hidden }]).unwrap_err().to_string();
    assert!(error.contains("a buffer of 2, expected 3"), "{error}");
    let error = run(&[hidden, LayerGradient { dims: Dims { k: 0, ..dims }, ..hidden }]).unwrap_err();
    assert!(error.to_string().contains("every dimension is at least 1"), "{error}");
    gpu.stream.synchronize().unwrap();
}

/// Only the row of the step may be read: the others are NaN.
fn scalars(gpu: &Gpu) -> Buffer<Scalars> {
    let nan = Scalars::sgd(f32::NAN, f32::NAN, f32::NAN);
    buffer(gpu, &[nan, nan, Scalars::sgd(LR, KEEP, FRESH)])
}

/// One case into all three sinks; `run` makes the gradient, at the slot of an [`Epoch`].
pub(super) fn sinks(gpu: &Gpu, case: &Case, source: &str, run: impl Fn(&Sink<'_>)) {
    let Case { dims, values, .. } = *case;
    let what = |part: &str| format!("{part} {source} {dims:?} {values:?}");
    let (weights, units) = ((dims.n * dims.k) as usize, dims.n as usize);

    let (dw, db) = (poisoned(gpu, weights), poisoned(gpu, units));
    run(&Sink::Store { dw: dw.all(), db: db.all() });
    assert_close(&what("dw"), &read(gpu, &dw, weights), |at| case.gradient(false, at));
    assert_close(&what("db"), &read(gpu, &db, units), |at| case.gradient(true, at));

    // On top of what is there, in one rounding or in two.
    let [w, b, ..] = [0, 1, 2, 3].map(|at| buffer(gpu, &case.state[at]));
    run(&Sink::Add { dw: w.all(), db: b.all() });
    let added = |bias: bool| {
        move |at: usize| {
            let there = f64::from(case.state[usize::from(bias)][at]);
            let (g, off) = case.gradient(bias, at);
            (there + g, off + U * (there.abs() + 2.0 * (g.abs() + off)))
        }
    };
    assert_close(&what("added dw"), &read(gpu, &w, weights), added(false));
    assert_close(&what("added db"), &read(gpu, &b, units), added(true));

    let scalars = scalars(gpu);
    let fresh = || [0, 1, 2, 3].map(|at| buffer(gpu, &case.state[at]));
    let [w, b, ..] = fresh();
    run(&Sink::Descent { w: w.all(), b: b.all(), scalars: scalars.all(), decay: DECAY });
    assert_close(&what("descent w"), &read(gpu, &w, weights), |at| case.descent(false, at));
    assert_close(&what("descent b"), &read(gpu, &b, units), |at| case.descent(true, at));

    let [w, b, vw, vb] = fresh();
    run(&Sink::Momentum {
        w: w.all(),
        b: b.all(),
        vw: vw.all(),
        vb: vb.all(),
        scalars: scalars.all(),
        decay: DECAY,
        gradient_share: SHARES.0,
        velocity_share: SHARES.1,
    });
    assert_close(&what("momentum w"), &read(gpu, &w, weights), |at| case.momentum(false, at)[0]);
    assert_close(&what("momentum b"), &read(gpu, &b, units), |at| case.momentum(true, at)[0]);
    assert_close(&what("momentum vw"), &read(gpu, &vw, weights), |at| case.momentum(false, at)[1]);
    assert_close(&what("momentum vb"), &read(gpu, &vb, units), |at| case.momentum(true, at)[1]);
}
