//! Products of bfloat16 copies. Their operands are exact, so that the bounds are those of float32 sums, and of one rounding where the
//! result is a copy.

use half::bf16;
use kiln_tests::on_device;

use super::weights::{Case, sinks};
use super::*;
use crate::gpu::copies::{self, Bf16, Gradient, Input, Output, copy_len, parts_of_hidden, parts_of_last};
use crate::gpu::{COPIES, Region, Scalars, Sink, Source};

/// Beside those of the other products, one past the edges of the largest tile, and enough terms for every stage.
const MORE_SIZES: [Dims; 3] =
    [Dims { b: 131, k: 137, n: 129 }, Dims { b: 37, k: 521, n: 257 }, Dims { b: 259, k: 41, n: 67 }];

/// A device for each tile that some size is made of.
fn gpus() -> impl Iterator<Item = Gpu> {
    [u32::MAX, 2, 1].into_iter().map(|multiprocessors| {
        let mut gpu = Gpu::with_modules(0, &COPIES).unwrap();
        gpu.multiprocessors = multiprocessors;
        gpu
    })
}

fn rounded(value: f32) -> f32 {
    bf16::from_f32(value).to_f32()
}

fn draw_rounded(seed: u64, values: Values, count: usize) -> Vec<f32> {
    draw(seed, values, count).into_iter().map(rounded).collect()
}

/// Not a number: what the gaps of an operand hold, and a result before it is written.
const POISON: Bf16 = 0x7fff;

/// A copy (lines, width) with poison in its gaps.
fn copied(gpu: &Gpu, values: &[f32], width: usize) -> Buffer<Bf16> {
    let mut bits = vec![POISON; copy_len(values.len() / width, width)];
    for (line, values) in bits.chunks_mut(copy_len(1, width)).zip(values.chunks(width)) {
        line.iter_mut().zip(values).for_each(|(bits, &value)| *bits = bf16::from_f32(value).to_bits());
    }
    buffer(gpu, &bits)
}

fn unwritten(gpu: &Gpu, lines: usize, width: usize) -> Buffer<Bf16> {
    buffer(gpu, &vec![POISON; copy_len(lines, width)])
}

/// What a copy (lines, width) has come to hold; its gaps must be as `gap` says.
fn read_copy(gpu: &Gpu, copy: &Buffer<Bf16>, lines: usize, width: usize, gap: Bf16) -> Vec<f32> {
    let bits = read(gpu, copy, copy_len(lines, width));
    let mut values = Vec::new();
    for line in bits.chunks(copy_len(1, width)) {
        assert!(line[width..].iter().all(|&bits| bits == gap), "a gap: {:x?}", &line[width..]);
        values.extend(line[..width].iter().map(|&bits| bf16::from_bits(bits).to_f32()));
    }
    values
}

/// Value and bound of what is rounded to bfloat16 in the end.
fn of_copy((value, bound): (f64, f64), exact: bool) -> (f64, f64) {
    match exact {
        true => (f64::from(rounded(value as f32)), 0.0),
        false => (value, bound + (-8f64).exp2() * (value.abs() + bound)),
    }
}

#[test]
fn products_of_copies() {
    on_device!();
    for gpu in gpus() {
        for dims in SIZES.into_iter().chain(MORE_SIZES) {
            for values in [Values::Integers, Values::Floats] {
                cases(&gpu, dims, values);
            }
        }
    }
}

/// All products of one size.
pub(super) fn cases(gpu: &Gpu, dims: Dims, values: Values) {
    outputs(gpu, dims, values);
    input_gradients(gpu, dims, values);
    weight_gradients(gpu, dims, values);
    weights_and_their_copy(gpu, dims);
}

fn outputs(gpu: &Gpu, dims: Dims, values: Values) {
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let w = draw_rounded(1, values, outputs * inputs);
    let bias = draw(2, values, outputs);
    let (w_device, bias_device) = (copied(gpu, &w, inputs), buffer(gpu, &bias));
    let of_pixels = pixels(3, rows * inputs).into_iter().map(f32::from).collect();
    for (x, scale) in [(draw_rounded(4, values, rows * inputs), 1.0), (of_pixels, 1.0f32 / 255.0)] {
        let x_device = copied(gpu, &x, inputs);
        let exact = values == Values::Integers;
        let z = |at: usize| {
            let (row, unit) = (at / outputs, at % outputs);
            let terms =
                || (0..inputs).map(|t| f64::from(x[row * inputs + t]) * f64::from(w[unit * inputs + t]));
            let (sum, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
            let bias = f64::from(bias[unit]);
            if exact {
                // The sum is exact; what follows is one fused multiply-add.
                return (f64::from((sum as f32).mul_add(scale, bias as f32)), 0.0);
            }
            let scale = f64::from(scale);
            (sum * scale + bias, Bound::COPIES.factor(inputs, 2) * (size * scale + bias.abs()))
        };
        let input = Input { x: x_device.all(), scale };
        let run = |y: Output<'_>| {
            copies::linear(gpu, &input, w_device.all(), bias_device.all(), &y, dims).unwrap();
        };
        let (last, hidden) = (poisoned(gpu, rows * outputs), unwritten(gpu, rows, outputs));
        run(Output::Last(last.all()));
        assert_close(&format!("outputs {dims:?} {values:?}"), &read(gpu, &last, rows * outputs), z);
        run(Output::Hidden(hidden.all()));
        let got = read_copy(gpu, &hidden, rows, outputs, POISON);
        assert_close(&format!("hidden {dims:?} {values:?}"), &got, |at| {
            let (value, bound) = z(at);
            of_copy((value.max(0.0), bound), exact)
        });
    }
}

fn input_gradients(gpu: &Gpu, dims: Dims, values: Values) {
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let (dz, w) = (draw_rounded(1, values, rows * outputs), draw_rounded(2, values, outputs * inputs));
    let x: Vec<f32> = draw_rounded(3, values, rows * inputs).iter().map(|v| v.max(0.0)).collect();
    let [dz_device, w_device, x_device] =
        [(&dz, outputs), (&w, inputs), (&x, inputs)].map(|(values, width)| copied(gpu, values, width));
    let count = parts_of_hidden(gpu, dims.b, dims.k);
    let (dx, parts) = (unwritten(gpu, rows, inputs), poisoned(gpu, count as usize * inputs));
    let gradient = Gradient { dz: dx.all(), parts: parts.all(), count };
    copies::input_gradient(gpu, dz_device.all(), w_device.all(), x_device.all(), &gradient, dims).unwrap();
    let exact = values == Values::Integers;
    let value = |at: usize| {
        let (row, input) = (at / inputs, at % inputs);
        let terms =
            || (0..outputs).map(|o| f64::from(dz[row * outputs + o]) * f64::from(w[o * inputs + input]));
        if x[at] <= 0.0 {
            return (0.0, 0.0);
        }
        let factor = if exact { 0.0 } else { Bound::COPIES.factor(outputs, 0) };
        (terms().sum(), factor * terms().map(f64::abs).sum::<f64>())
    };
    let got = read_copy(gpu, &dx, rows, inputs, POISON);
    assert_close(&format!("input gradient {dims:?} {values:?}"), &got, |at| of_copy(value(at), exact));

    let side = [32, 64, 128].into_iter().find(|&side| rows.div_ceil(side) == count as usize).unwrap();
    let got = read(gpu, &parts, count as usize * inputs);
    assert_close(&format!("parts {dims:?} {values:?}"), &got, |at| {
        let (part, input) = (at / inputs, at % inputs);
        let rows = part * side..rows.min((part + 1) * side);
        let all = || rows.clone().map(|row| value(row * inputs + input));
        let (sum, bound): (f64, f64) =
            (all().map(|(value, _)| value).sum(), all().map(|(_, bound)| bound).sum());
        let size: f64 = all().map(|(value, bound)| value.abs() + bound).sum();
        let factor = if exact { 0.0 } else { Bound::of(Precision::F32).factor(rows.len(), 0) };
        (sum, bound + factor * size)
    });
}

/// Sums of 32 rows each of a matrix (B, N), as [`copies::gradient`] makes them.
fn parts_of(dz: &[f32], outputs: usize) -> Vec<f32> {
    let part = |rows: &[f32]| -> Vec<f32> {
        (0..outputs).map(|unit| rows.iter().skip(unit).step_by(outputs).sum()).collect()
    };
    dz.chunks(32 * outputs).flat_map(part).collect()
}

fn weight_gradients(gpu: &Gpu, dims: Dims, values: Values) {
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let epoch = Epoch::new(gpu, 1, dims.b, 1);
    let dz = draw_rounded(6, values, rows * outputs);
    let (dz_device, parts) = (copied(gpu, &dz, outputs), buffer(gpu, &parts_of(&dz, outputs)));
    let copy = unwritten(gpu, outputs, inputs);
    let of_pixels = pixels(3, rows * inputs).into_iter().map(f32::from).collect();
    for (x, scale) in [(draw_rounded(5, values, rows * inputs), 1.0), (of_pixels, 1.0 / 255.0)] {
        let x_device = copied(gpu, &x, inputs);
        let case = Case::new(dims, Bound::COPIES, values, (x, scale), dz.clone());
        let gradient = Gradient { dz: dz_device.all(), parts: parts.all(), count: parts_of_last(dims.b) };
        let input = Input { x: x_device.all(), scale };
        sinks(gpu, &case, "of copies", |sink| {
            let at = epoch.position();
            copies::weight_gradient(gpu, &input, &at, &gradient, sink, copy.all(), dims).unwrap();
        });
    }
}

/// The copy of the weights is what the weights are rounded to.
fn weights_and_their_copy(gpu: &Gpu, dims: Dims) {
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let epoch = Epoch::new(gpu, 1, dims.b, 1);
    let dz = draw_rounded(6, Values::Floats, rows * outputs);
    let (dz_device, parts) = (copied(gpu, &dz, outputs), buffer(gpu, &parts_of(&dz, outputs)));
    let x = copied(gpu, &draw_rounded(5, Values::Floats, rows * inputs), inputs);
    let scalars = buffer(gpu, &[Scalars::sgd(0.1, 0.9, 1.0); 3]);
    let [w, b, vw, vb] = [outputs * inputs, outputs, outputs * inputs, outputs]
        .map(|len| buffer(gpu, &draw(len as u64, Values::Floats, len)));
    let sgd = |momentum: bool| {
        let (w, b, scalars, decay) = (w.all(), b.all(), scalars.all(), 0.01);
        let (vw, vb, gradient_share, velocity_share) = (vw.all(), vb.all(), 0.0, 1.0);
        match momentum {
            true => Sink::Momentum { w, b, vw, vb, scalars, decay, gradient_share, velocity_share },
            false => Sink::Descent { w, b, scalars, decay },
        }
    };
    for momentum in [true, false] {
        let copy = unwritten(gpu, outputs, inputs);
        let gradient = Gradient { dz: dz_device.all(), parts: parts.all(), count: parts_of_last(dims.b) };
        let (input, at) = (Input { x: x.all(), scale: 1.0 }, epoch.position());
        copies::weight_gradient(gpu, &input, &at, &gradient, &sgd(momentum), copy.all(), dims).unwrap();
        let weights = read(gpu, &w, outputs * inputs);
        let copy = read_copy(gpu, &copy, outputs, inputs, POISON);
        assert_close("the copy of the weights", &copy, |at| (f64::from(rounded(weights[at])), 0.0));
    }
}

#[test]
fn copies_are_rounded_and_their_gaps_are_zeros() {
    on_device!();
    let gpu = Gpu::with_modules(0, &COPIES).unwrap();
    for (rows, width) in [(1, 1), (7, 8), (33, 131), (65, 40), (3, 7)] {
        let (b, k) = (rows as u32, width as u32);
        let samples = 23;
        let epoch = Epoch::new(&gpu, 1, b, samples);
        let bytes = pixels(3, samples as usize * width);
        let floats = draw(4, Values::Floats, samples as usize * width);
        let (bytes_device, floats_device) = (buffer(&gpu, &bytes), buffer(&gpu, &floats));
        let gathered = |value: &dyn Fn(usize) -> f32| -> Vec<f32> {
            let places = epoch.rows.iter().flat_map(|&row| (0..width).map(move |k| row as usize * width + k));
            places.map(|at| rounded(value(at))).collect()
        };
        let batch = |source: Source<'_>| {
            let to = unwritten(&gpu, rows, width);
            copies::batch(&gpu, &source, &epoch.position(), to.all(), (b, k)).unwrap();
            read_copy(&gpu, &to, rows, width, 0)
        };
        assert_eq!(batch(Source::Pixels(bytes_device.all())), gathered(&|at| f32::from(bytes[at])));
        assert_eq!(batch(Source::Floats(floats_device.all())), gathered(&|at| floats[at]));

        let matrix = draw(5, Values::Floats, rows * width);
        let expected: Vec<f32> = matrix.iter().copied().map(rounded).collect();
        let (from, to) = (buffer(&gpu, &matrix), unwritten(&gpu, rows, width));
        copies::matrix(&gpu, from.all(), to.all(), (b, k)).unwrap();
        assert_eq!(read_copy(&gpu, &to, rows, width, 0), expected);

        let count = parts_of_last(b);
        let (to, parts) = (unwritten(&gpu, rows, width), poisoned(&gpu, count as usize * width));
        let gradient = Gradient { dz: to.all(), parts: parts.all(), count };
        copies::gradient(&gpu, from.all(), &gradient, (b, k)).unwrap();
        assert_eq!(read_copy(&gpu, &to, rows, width, POISON), expected);
        let wide: Vec<f64> = matrix.iter().copied().map(f64::from).collect();
        assert_close("parts", &read(&gpu, &parts, count as usize * width), |at| {
            let (part, column) = (at / width, at % width);
            let rows = part * 32..rows.min((part + 1) * 32);
            let all = || rows.clone().map(|row| wide[row * width + column]);
            let size = all().map(f64::abs).sum::<f64>();
            (all().sum(), Bound::of(Precision::F32).factor(rows.len(), 0) * size)
        });
    }
}

/// A copy without room for its gaps is refused.
#[test]
fn small_copies_are_refused() {
    on_device!();
    let gpu = Gpu::with_modules(0, &COPIES).unwrap();
    let (x, w, b) = (buffer(&gpu, &[0u16; 9]), buffer(&gpu, &[0u16; 24]), buffer(&gpu, &[0f32; 3]));
    let y = poisoned(&gpu, 3);
    let dims = Dims { b: 1, k: 9, n: 3 };
    let run = |x: Region<'_, Bf16>, w: Region<'_, Bf16>| {
        copies::linear(&gpu, &Input { x, scale: 1.0 }, w, b.all(), &Output::Last(y.all()), dims)
    };
    let error = run(x.all(), w.all()).unwrap_err().to_string();
    assert!(error.contains("linear_copies_outputs_32 with B 1, K 9, N 3"), "{error}");
    assert!(error.contains("a buffer of 9, expected 16"), "{error}");
    let error = run(w.all(), w.all()).unwrap_err().to_string();
    assert!(error.contains("a buffer of 24, expected 48"), "{error}");
    gpu.stream.synchronize().unwrap();
}
