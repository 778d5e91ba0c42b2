//! Outputs of layers, and gradients at their inputs.

use kiln_tests::on_device;

use super::*;
use crate::gpu::{Activation, LayerGradient, Sink, Source, input_gradient, linear, weight_gradients};

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

/// Rows of a multiple of four values are loaded four at a time only where they begin at a multiple of four.
#[test]
fn operands_may_begin_anywhere() {
    on_device!();
    let dims = Dims { b: 20, k: 264, n: 36 };
    let (rows, inputs, outputs) = (20, 264, 36);
    let (x, w) = (draw(1, Values::Integers, rows * inputs), draw(2, Values::Integers, outputs * inputs));
    let (dz, bias) = (draw(3, Values::Integers, rows * outputs), draw(4, Values::Integers, outputs));
    for (precision, gpu) in gpus() {
        let epoch = Epoch::new(&gpu, 1, dims.b, SAMPLES);
        let at = |values: &[f32], place: usize| buffer(&gpu, &[&vec![f32::NAN; place], values].concat());
        let run = |place: usize| {
            let [x, w, dz, bias] = [&x, &w, &dz, &bias].map(|values| at(values, place));
            let [x, w, dz, bias] = [&x, &w, &dz, &bias].map(|values| values.all().from(place));
            let [y, dx, dw, db] = [rows * outputs, rows * inputs, outputs * inputs, outputs]
                .map(|len| poisoned(&gpu, len + place));
            let place_of = |values: &Buffer<f32>, len| read(&gpu, values, place + len)[place..].to_vec();
            let source = Source::Hidden(x);
            linear(&gpu, &source, &epoch.position(), w, bias, y.all().from(place), Activation::Relu, dims)
                .unwrap();
            input_gradient(&gpu, dz, w, x, dx.all().from(place), dims).unwrap();
            let sink = Sink::Store { dw: dw.all().from(place), db: db.all().from(place) };
            let none = buffer(&gpu, &[0u8; 1]);
            let layer = LayerGradient { x: Some(x), dz, sink, dims };
            weight_gradients(&gpu, &Source::Pixels(none.all()), &epoch.position(), &[layer]).unwrap();
            [
                place_of(&y, rows * outputs),
                place_of(&dx, rows * inputs),
                place_of(&dw, outputs * inputs),
                place_of(&db, outputs),
            ]
        };
        let expected = run(0);
        for place in 1..4 {
            assert!(run(place) == expected, "{precision}, {place} values on");
        }
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
