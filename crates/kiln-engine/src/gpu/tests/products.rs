//! Outputs of layers, and gradients at their inputs.

use kiln_tests::on_device;

use super::*;
use crate::gpu::{
    Activation, LayerGradient, Scalars, Sink, Source, input_gradient, linear, weight_gradients,
};

/// What a layer reads, and the rows of the batch as numbers, before they are scaled.
enum Data {
    Pixels(Buffer<u8>),
    Floats(Buffer<f32>),
    Hidden(Buffer<f32>),
}

impl Data {
    fn source(&self) -> Source<'_> {
        match self {
            Data::Pixels(x) => Source::Pixels(x.all()),
            Data::Floats(x) => Source::Floats(x.all()),
            Data::Hidden(x) => Source::Hidden(x.all()),
        }
    }

    fn scale(&self) -> f32 {
        if matches!(self, Data::Pixels(_)) { 1.0 / 255.0 } else { 1.0 }
    }
}

const SAMPLES: u32 = 23;

/// The three sources, each with the batch (B, K) that it holds.
fn sources(gpu: &Gpu, values: Values, epoch: &Epoch, dims: Dims) -> Vec<(Data, Vec<f32>)> {
    let width = dims.k as usize;
    let gathered = |all: &[f32]| -> Vec<f32> {
        epoch.rows.iter().flat_map(|&row| &all[row as usize * width..][..width]).copied().collect()
    };
    let bytes = pixels(3, SAMPLES as usize * width);
    let floats = draw(4, values, SAMPLES as usize * width);
    let hidden = draw(5, values, dims.b as usize * width);
    let of_bytes: Vec<f32> = bytes.iter().map(|&pixel| f32::from(pixel)).collect();
    vec![
        (Data::Pixels(buffer(gpu, &bytes)), gathered(&of_bytes)),
        (Data::Floats(buffer(gpu, &floats)), gathered(&floats)),
        (Data::Hidden(buffer(gpu, &hidden)), hidden),
    ]
}

#[test]
fn outputs_of_layers() {
    on_device!();
    for (precision, gpu) in gpus() {
        for dims in SIZES {
            for values in [Values::Integers, Values::Floats] {
                outputs(&gpu, precision, dims, values);
            }
        }
    }
}

pub(super) fn outputs(gpu: &Gpu, precision: Precision, dims: Dims, values: Values) {
    let Dims { b, k, n } = dims;
    let (rows, inputs, outputs) = (b as usize, k as usize, n as usize);
    let epoch = Epoch::new(gpu, 1, b, SAMPLES);
    let (w, bias) = (draw(1, values, outputs * inputs), draw(2, values, outputs));
    let (w_device, bias_device) = (buffer(gpu, &w), buffer(gpu, &bias));
    for (data, x) in sources(gpu, values, &epoch, dims) {
        let source = data.source();
        for activation in [Activation::Identity, Activation::Relu] {
            let y = poisoned(gpu, rows * outputs);
            let (at, region) = (epoch.position(), y.all());
            linear(gpu, &source, &at, w_device.all(), bias_device.all(), region, activation, dims).unwrap();
            let got = read(gpu, &y, rows * outputs);
            let relu = |value: f64| if activation == Activation::Relu { value.max(0.0) } else { value };
            let what = format!("linear {precision} {} {dims:?} {values:?} {activation:?}", source.name());
            assert_close(&what, &got, |at| {
                let (row, unit) = (at / outputs, at % outputs);
                let terms =
                    || (0..inputs).map(|t| f64::from(x[row * inputs + t]) * f64::from(w[unit * inputs + t]));
                let (sum, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                let (scale, bias) = (data.scale(), f64::from(bias[unit]));
                if values == Values::Integers {
                    // The sum is exact; what follows is one fused multiply-add.
                    return (relu(f64::from((sum as f32).mul_add(scale, bias as f32))), 0.0);
                }
                let scale = f64::from(scale);
                let bound = Bound::of(gpu, precision).factor(inputs, 3) * (size * scale + bias.abs());
                (relu(sum * scale + bias), bound)
            });
        }
    }
}

#[test]
fn gradients_at_inputs() {
    on_device!();
    for (precision, gpu) in gpus() {
        for dims in SIZES {
            for values in [Values::Integers, Values::Floats] {
                gradients(&gpu, precision, dims, values);
            }
        }
    }
}

pub(super) fn gradients(gpu: &Gpu, precision: Precision, dims: Dims, values: Values) {
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let (dz, w) = (draw(1, values, rows * outputs), draw(2, values, outputs * inputs));
    // What ReLU leaves: zeros where it cut. At zero the gradient is zero.
    let x: Vec<f32> = draw(3, values, rows * inputs).iter().map(|v| v.max(0.0)).collect();
    let dx = poisoned(gpu, rows * inputs);
    let (dz_device, w_device, x_device) = (buffer(gpu, &dz), buffer(gpu, &w), buffer(gpu, &x));
    input_gradient(gpu, dz_device.all(), w_device.all(), x_device.all(), dx.all(), dims).unwrap();
    let got = read(gpu, &dx, rows * inputs);
    assert_close(&format!("input gradient {precision} {dims:?} {values:?}"), &got, |at| {
        let (row, input) = (at / inputs, at % inputs);
        let terms =
            || (0..outputs).map(|o| f64::from(dz[row * outputs + o]) * f64::from(w[o * inputs + input]));
        if x[at] <= 0.0 {
            return (0.0, 0.0);
        }
        let exact = values == Values::Integers;
        let factor = if exact { 0.0 } else { Bound::of(gpu, precision).factor(outputs, 1) };
        (terms().sum(), factor * terms().map(f64::abs).sum::<f64>())
    });
}

/// Lines of a multiple of four values are loaded four at a time only where they begin at a multiple of four: each operand in turn, and the
/// velocities, do not.
#[test]
fn operands_may_begin_anywhere() {
    on_device!();
    let dims = Dims { b: 20, k: 264, n: 36 };
    let (rows, inputs, outputs) = (20, 264, 36);
    let of = |seed, count| draw(seed, Values::Integers, count);
    let (x, w, dz) = (of(1, rows * inputs), of(2, outputs * inputs), of(3, rows * outputs));
    let (bias, v) = (of(4, outputs), of(5, outputs * inputs));
    let bytes = pixels(6, SAMPLES as usize * inputs);
    for (precision, gpu) in gpus() {
        let epoch = Epoch::new(&gpu, 1, dims.b, SAMPLES);
        let scalars = buffer(&gpu, &[Scalars::sgd(0.5, 0.5, 1.0); 3]);
        let run = |which: usize, place: usize| {
            let at = |number: usize, values: &[f32]| {
                Placed::new(&gpu, values, if number == which { place } else { 0 })
            };
            let [x, w, dz, v] =
                [(0, &x), (1, &w), (2, &dz), (3, &v)].map(|(number, values)| at(number, values));
            let (b, vb) = (at(9, &bias), at(9, &bias));
            let y = Placed::new(&gpu, &vec![f32::NAN; rows * outputs], 0);
            let dx = Placed::new(&gpu, &vec![f32::NAN; rows * inputs], 0);
            let shift = if which == 4 { place } else { 0 };
            let bytes = buffer(&gpu, &[&vec![255; shift], &bytes[..]].concat());
            let bytes = Source::Pixels(bytes.all().from(shift));
            let mut results = Vec::new();
            for source in [Source::Hidden(x.all()), Source::Floats(x.all()), bytes] {
                // Rows of floats: of as many as the batch has.
                let epoch = match source {
                    Source::Floats(_) => &Epoch::new(&gpu, 1, dims.b, dims.b),
                    _ => &epoch,
                };
                let to = (w.all(), b.all(), y.all());
                linear(&gpu, &source, &epoch.position(), to.0, to.1, to.2, Activation::Relu, dims).unwrap();
                results.push(y.read(&gpu));
            }
            input_gradient(&gpu, dz.all(), w.all(), x.all(), dx.all(), dims).unwrap();
            results.push(dx.read(&gpu));
            // Which moves the parameters.
            let sink = Sink::Momentum {
                w: w.all(),
                b: b.all(),
                vw: v.all(),
                vb: vb.all(),
                scalars: scalars.all(),
                decay: 0.0,
                gradient_share: 0.0,
                velocity_share: 1.0,
            };
            for x in [Some(x.all()), None] {
                let layer = LayerGradient { x, dz: dz.all(), sink, dims };
                weight_gradients(&gpu, &bytes, &epoch.position(), &[layer]).unwrap();
                results.extend([&w, &b, &v, &vb].map(|values| values.read(&gpu)));
            }
            results
        };
        let expected = run(9, 0);
        for which in 0..5 {
            for place in 1..4 {
                assert!(run(which, place) == expected, "{precision}, buffer {which}, {place} values on");
            }
        }
    }
}

/// What a product by ones and zeros leaves of the other operand: all its digits, as many as the precision has.
#[test]
fn products_by_one_are_the_operand() {
    on_device!();
    for (precision, gpu) in gpus() {
        for (ones, width) in [(20, 36), (19, 35)] {
            by_ones(&gpu, precision, ones, width);
        }
    }
}

/// Of matrices (ones, ones) and (ones, width), in tiles of all kinds.
fn by_ones(gpu: &Gpu, precision: Precision, ones: usize, width: usize) {
    let dims = |b: usize, k: usize, n: usize| Dims { b: b as u32, k: k as u32, n: n as u32 };
    // A third has all the digits that a float32 can have.
    let w: Vec<f32> = draw(1, Values::Floats, ones * width).iter().map(|w| w / 3.0).collect();
    let one_hot: Vec<f32> = (0..ones * ones).map(|at| f32::from(u8::from(at % ones == at / ones))).collect();
    let rounded: Vec<f32> = w.iter().map(|&w| super::copies::rounded(Format::of(precision), w)).collect();
    let transposed = |values: &[f32]| -> Vec<f32> {
        (0..width * ones).map(|at| values[at % ones * width + at / ones]).collect()
    };
    let on_device = [&w, &one_hot, &transposed(&w), &vec![1.0; ones * width], &vec![0.0; width.max(ones)]];
    let [on_w, on_ones, on_transposed, positive, zeros] = on_device.map(|values| buffer(gpu, values));
    let what = |part: &str| format!("{part}, {precision}, {ones} x {width}");

    let dx = poisoned(gpu, ones * width);
    let of_gradients = dims(ones, width, ones);
    input_gradient(gpu, on_ones.all(), on_w.all(), positive.all(), dx.all(), of_gradients).unwrap();
    assert_eq!(read(gpu, &dx, ones * width), rounded, "{}", what("an input gradient"));

    let (epoch, none) = (Epoch::new(gpu, 1, ones as u32, SAMPLES), buffer(gpu, &[0u8; 1]));
    let (dw, db) = (poisoned(gpu, ones * width), poisoned(gpu, ones));
    let sink = Sink::Store { dw: dw.all(), db: db.all() };
    let layer = LayerGradient { x: Some(on_w.all()), dz: on_ones.all(), sink, dims: of_gradients };
    weight_gradients(gpu, &Source::Pixels(none.all()), &epoch.position(), &[layer]).unwrap();
    assert_eq!(read(gpu, &dw, ones * width), rounded, "{}", what("a gradient of weights"));

    let outputs = |x: &Buffer<f32>, w: &Buffer<f32>, dims| {
        let (x, y, at) = (Source::Hidden(x.all()), poisoned(gpu, ones * width), epoch.position());
        linear(gpu, &x, &at, w.all(), zeros.all(), y.all(), Activation::Identity, dims).unwrap();
        read(gpu, &y, ones * width)
    };
    let of_weights = outputs(&on_ones, &on_transposed, dims(ones, ones, width));
    assert_eq!(of_weights, rounded, "{}", what("weights by rows of ones"));
    let of_rows = outputs(&on_transposed, &on_ones, dims(width, ones, ones));
    assert_eq!(of_rows, transposed(&rounded), "{}", what("rows by weights of ones"));
}

/// A row of a batch, or a unit's weights, that are not finite reach its own outputs and no others, and ReLU keeps NaN.
#[test]
fn what_is_not_finite_stays_in_its_line() {
    on_device!();
    for (precision, gpu) in gpus() {
        for inputs in [36, 35] {
            for (value, activation) in [
                (f32::NAN, Activation::Relu),
                (f32::INFINITY, Activation::Identity),
                (f32::NEG_INFINITY, Activation::Identity),
            ] {
                for (row, unit) in [(Some(7), None), (None, Some(32)), (Some(18), Some(11))] {
                    stays_in_its_line(&gpu, precision, inputs, (value, activation), row, unit);
                }
            }
        }
    }
}

fn stays_in_its_line(
    gpu: &Gpu,
    precision: Precision,
    inputs: usize,
    (value, activation): (f32, Activation),
    row: Option<usize>,
    unit: Option<usize>,
) {
    let (rows, outputs) = (19, 33);
    let dims = Dims { b: rows as u32, k: inputs as u32, n: outputs as u32 };
    let (mut x, mut w) = (draw(1, Values::Floats, rows * inputs), draw(2, Values::Floats, outputs * inputs));
    row.into_iter().for_each(|row| x[row * inputs + inputs - 1] = value);
    unit.into_iter().for_each(|unit| w[unit * inputs + 2] = value);
    let (epoch, bias) = (Epoch::new(gpu, 1, dims.b, SAMPLES), buffer(gpu, &vec![0.0f32; outputs]));
    let (x, w, y) = (buffer(gpu, &x), buffer(gpu, &w), poisoned(gpu, rows * outputs));
    let (source, at) = (Source::Hidden(x.all()), epoch.position());
    linear(gpu, &source, &at, w.all(), bias.all(), y.all(), activation, dims).unwrap();
    for (place, &y) in read(gpu, &y, rows * outputs).iter().enumerate() {
        let reached = Some(place / outputs) == row || Some(place % outputs) == unit;
        let fine = if value.is_nan() { y.is_nan() == reached } else { y.is_finite() != reached };
        assert!(fine, "{precision}, {value} in row {row:?} and unit {unit:?}: {y} at {place}");
    }
}

/// A wrapper refuses a buffer that is too small, and names the kernel and its sizes.
#[test]
fn small_buffers_are_refused() {
    on_device!();
    let gpu = open(Precision::F32);
    let (small, enough) = (buffer(&gpu, &[0.0f32; 5]), buffer(&gpu, &[0.0f32; 6]));
    let dims = Dims { b: 2, k: 3, n: 2 };
    for at in 0..3 {
        let pick = |which| if at == which { small.all() } else { enough.all() };
        let four = buffer(&gpu, &[0.0f32; 4]);
        let error =
            input_gradient(&gpu, four.all(), pick(0), pick(1), pick(2), dims).unwrap_err().to_string();
        assert!(error.contains("input_gradient_tiny with B 2, K 3, N 2"), "{error}");
        assert!(error.contains("a buffer of 5, expected 6"), "{error}");
    }
    gpu.stream.synchronize().unwrap();
}
