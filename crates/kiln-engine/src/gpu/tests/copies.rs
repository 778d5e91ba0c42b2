//! Products of copies. Their operands are exact, so that the bounds are those of float32 sums, and of one rounding where the result is
//! a copy that rounds.

use half::bf16;
use kiln_tests::on_device;

use super::weights::{Case, sinks};
use super::*;
use crate::gpu::copies::{
    self, Chunk, Copied, Format, Gradient, Input, Output, parts_of_hidden, parts_of_last,
};
use crate::gpu::{Scalars, Sink, Source};

/// Beside those of the other products, one past the edges of the largest tile, and enough terms for every stage.
const MORE_SIZES: [Dims; 3] =
    [Dims { b: 131, k: 137, n: 129 }, Dims { b: 37, k: 521, n: 257 }, Dims { b: 259, k: 41, n: 67 }];

const FORMATS: [Format; 3] = [Format::Bf16, Format::Tf32, Format::Bf16x3];

/// A device with the kernels of a format.
fn open(format: Format) -> Gpu {
    let mut gpu = open_with(&[]);
    gpu.add_for_wide_layers(format);
    gpu
}

/// A device for each format and each tile that some size is made of by warps.
fn gpus() -> impl Iterator<Item = (Gpu, Format)> {
    FORMATS.into_iter().flat_map(|format| {
        [u32::MAX, 2, 1].map(|multiprocessors| {
            let mut gpu = open(format);
            gpu.multiprocessors = multiprocessors;
            gpu.choices.warpgroup_columns_max = 0;
            (gpu, format)
        })
    })
}

/// What a format makes of a value: bfloat16's ties go to even, TF32's away from zero, and three planes round nothing.
pub(super) fn rounded(format: Format, value: f32) -> f32 {
    match format {
        Format::Bf16 => bf16::from_f32(value).to_f32(),
        Format::Tf32 => f32::from_bits((value.to_bits() + 0x1000) & !0x1fff),
        Format::Bf16x3 => value,
    }
}

/// What a plane of a copy has of a value.
fn in_plane(format: Format, plane: usize, value: f32) -> f32 {
    let mut rest = value;
    for _ in 0..plane {
        rest -= bf16::from_f32(rest).to_f32();
    }
    match format {
        Format::Bf16x3 => bf16::from_f32(rest).to_f32(),
        Format::Bf16 | Format::Tf32 => rounded(format, rest),
    }
}

/// Sums of products of copies.
fn bound(format: Format) -> Bound {
    match format {
        Format::Bf16 | Format::Tf32 => Bound::COPIES,
        Format::Bf16x3 => Bound::PLANES,
    }
}

fn draw_rounded(format: Format, seed: u64, values: Values, count: usize) -> Vec<f32> {
    draw(seed, values, count).into_iter().map(|value| rounded(format, value)).collect()
}

/// Bits of a value of a copy, at the start of a word.
fn bits(format: Format, value: f32) -> u32 {
    match format {
        Format::Bf16 | Format::Bf16x3 => u32::from(bf16::from_f32(value).to_bits()),
        Format::Tf32 => value.to_bits(),
    }
}

/// Not a number: what the gaps of an operand hold, and a result before it is written.
fn poison(format: Format) -> u32 {
    match format {
        Format::Bf16 | Format::Bf16x3 => 0x7fff,
        Format::Tf32 => 0x7fff_ffff,
    }
}

/// A line of a plane, with `gap` after its values.
fn line(format: Format, values: &[f32], gap: u32) -> Vec<Chunk> {
    let width = 128 / format.values();
    let chunk = |values: &[f32]| {
        (0..format.values()).rev().fold(0, |chunk, at| {
            chunk << width | Chunk::from(values.get(at).map_or(gap, |&value| bits(format, value)))
        })
    };
    values.chunks(format.values()).map(chunk).collect()
}

/// A copy on the device.
struct OnDevice {
    chunks: Buffer<Chunk>,
    format: Format,
}

impl OnDevice {
    fn all(&self) -> Copied<'_> {
        Copied { chunks: self.chunks.all(), format: self.format }
    }
}

/// A copy (lines, width) with poison in its gaps.
fn copied(gpu: &Gpu, format: Format, values: &[f32], width: usize) -> OnDevice {
    let chunks = (0..format.planes()).flat_map(|number| plane(format, number, values, width));
    OnDevice { chunks: buffer(gpu, &chunks.collect::<Vec<_>>()), format }
}

/// A copy of pixels: poison in all planes but the first, too.
fn copied_pixels(gpu: &Gpu, format: Format, pixels: &[f32], width: usize) -> OnDevice {
    let mut chunks = plane(format, 0, pixels, width);
    chunks.resize(format.chunks(pixels.len() / width, width), poisoned_chunk(format));
    OnDevice { chunks: buffer(gpu, &chunks), format }
}

/// A plane of a copy (lines, width), with poison in its gaps.
fn plane(format: Format, number: usize, values: &[f32], width: usize) -> Vec<Chunk> {
    let line_of = |values: &[f32]| {
        let values: Vec<f32> = values.iter().map(|&value| in_plane(format, number, value)).collect();
        line(format, &values, poison(format))
    };
    values.chunks(width).flat_map(line_of).collect()
}

fn poisoned_chunk(format: Format) -> Chunk {
    let values = format.values() as u32;
    (0..values).fold(0, |chunk, _| chunk << (128 / values) | Chunk::from(poison(format)))
}

fn unwritten(gpu: &Gpu, format: Format, lines: usize, width: usize) -> OnDevice {
    let chunks = vec![poisoned_chunk(format); format.chunks(lines, width)];
    OnDevice { chunks: buffer(gpu, &chunks), format }
}

/// What a copy (lines, width) has come to hold; its gaps must be as `gap` says.
fn read_copy(gpu: &Gpu, copy: &OnDevice, lines: usize, width: usize, gap: u32) -> Vec<f32> {
    let format = copy.format;
    let planes: Vec<_> = read_planes(gpu, copy, lines, width)
        .iter()
        .map(|words| plane_of(format, words, width, gap))
        .collect();
    // From the least on, so that nothing is rounded.
    let values: Vec<f32> =
        (0..lines * width).map(|at| planes.iter().rev().map(|plane| plane[at]).sum()).collect();
    for (number, plane) in planes.iter().enumerate() {
        for (at, (&got, &value)) in plane.iter().zip(&values).enumerate() {
            let off = got - in_plane(format, number, value);
            assert!(off == 0.0, "plane {number} of {value}: [{at}] {got}, off by {off:e}");
        }
    }
    values
}

/// A copy of pixels, which is the first plane: the others must be as they were.
fn read_pixels(gpu: &Gpu, copy: &OnDevice, lines: usize, width: usize) -> Vec<f32> {
    let planes = read_planes(gpu, copy, lines, width);
    let untouched = |words: &[u32]| words.iter().all(|&bits| bits == poison(copy.format));
    assert!(planes[1..].iter().all(|plane| untouched(plane)), "more than a plane of pixels");
    plane_of(copy.format, &planes[0], width, 0)
}

/// Bits of the planes of a copy (lines, width).
fn read_planes(gpu: &Gpu, copy: &OnDevice, lines: usize, width: usize) -> Vec<Vec<u32>> {
    let format = copy.format;
    let mut chunks = vec![0; format.chunks(lines, width)];
    copy.chunks.download(gpu, &mut chunks).unwrap();
    let words: Vec<u32> = chunks.into_iter().flat_map(|chunk| words(format, chunk)).collect();
    match format {
        Format::Bf16 | Format::Bf16x3 => save(&words.iter().map(|&bits| bits as u16).collect::<Vec<_>>()),
        Format::Tf32 => save(&words),
    }
    words.chunks(words.len() / format.planes()).map(<[u32]>::to_vec).collect()
}

/// The values of a plane; its gaps must be as `gap` says.
fn plane_of(format: Format, words: &[u32], width: usize, gap: u32) -> Vec<f32> {
    let mut values = Vec::new();
    for words in words.chunks(format.chunks_of_plane(1, width) * format.values()) {
        assert!(words[width..].iter().all(|&bits| bits == gap), "a gap: {:x?}", &words[width..]);
        values.extend(words[..width].iter().map(|&bits| match format {
            Format::Bf16 | Format::Bf16x3 => bf16::from_bits(bits as u16).to_f32(),
            Format::Tf32 => f32::from_bits(bits),
        }));
    }
    values
}

/// Bits of the values of a chunk.
fn words(format: Format, chunk: Chunk) -> impl Iterator<Item = u32> {
    let width = 128 / format.values();
    (0..format.values()).map(move |at| (chunk >> (at * width)) as u32 & (u32::MAX >> (32 - width)))
}

/// Value and bound of what is rounded in the end.
fn of_copy(format: Format, (value, bound): (f64, f64), exact: bool) -> (f64, f64) {
    let roundoff = match format {
        Format::Bf16 => (-8f64).exp2(),
        Format::Tf32 => (-11f64).exp2(),
        Format::Bf16x3 => 0.0,
    };
    match exact {
        true => (f64::from(rounded(format, value as f32)), 0.0),
        false => (value, bound + roundoff * (value.abs() + bound)),
    }
}

/// Of three planes, whose products take six times as long: sizes of every kind, one form of values each. Their pairs make stages enough
/// of few terms.
fn sizes_of_planes() -> impl Iterator<Item = (Dims, Values)> {
    let wide = Dims { b: 37, k: 67, n: 257 };
    let sizes = [SIZES[0], SIZES[0], SIZES[2], SIZES[3], SIZES[6], MORE_SIZES[0], wide];
    sizes.into_iter().zip([Values::Integers, Values::Floats].into_iter().cycle())
}

#[test]
fn products_of_copies() {
    on_device!();
    for (tile, (gpu, format)) in gpus().enumerate() {
        if format == Format::Bf16x3 {
            sizes_of_planes().for_each(|(dims, values)| cases(&gpu, format, dims, values));
            continue;
        }
        // Integers of every other size.
        for (number, dims) in SIZES.into_iter().chain(MORE_SIZES).enumerate() {
            cases(&gpu, format, dims, Values::Floats);
            if (number + tile).is_multiple_of(2) {
                cases(&gpu, format, dims, Values::Integers);
            }
        }
    }
}

/// A device on which every product is made by warpgroups, in tiles of so many columns; none where the device has no such instructions.
pub(super) fn with_warpgroups(mut gpu: Gpu, columns: u32) -> Option<Gpu> {
    gpu.multiprocessors = 1;
    gpu.choices.warpgroup_columns_max = columns;
    gpu.warpgroups.then_some(gpu)
}

#[test]
fn products_of_copies_by_warpgroups() {
    on_device!();
    for format in [Format::Bf16, Format::Bf16x3] {
        for columns in [128, 256] {
            let Some(gpu) = with_warpgroups(open(format), columns) else {
                return println!("no warpgroups");
            };
            if format == Format::Bf16x3 {
                sizes_of_planes().skip(1).for_each(|(dims, values)| cases(&gpu, format, dims, values));
                continue;
            }
            // Among them one past the edges of the wider tile, and more stages than are kept.
            let sizes = [SIZES[0], SIZES[3], SIZES[6]].into_iter().chain(MORE_SIZES);
            for (number, dims) in sizes.enumerate() {
                let values = if number % 2 == 0 { Values::Integers } else { Values::Floats };
                cases(&gpu, format, dims, values);
            }
        }
    }
}

/// All products of one size.
pub(super) fn cases(gpu: &Gpu, format: Format, dims: Dims, values: Values) {
    outputs(gpu, format, dims, values);
    input_gradients(gpu, format, dims, values);
    weight_gradients(gpu, format, dims, values);
    weights_and_their_copy(gpu, format, dims);
}

/// A copy of what a layer reads: of pixels where they are scaled.
fn input(gpu: &Gpu, format: Format, x: &[f32], scale: f32, width: usize) -> OnDevice {
    match scale == 1.0 {
        true => copied(gpu, format, x, width),
        false => copied_pixels(gpu, format, x, width),
    }
}

fn input_of(x: &OnDevice, scale: f32) -> Input<'_> {
    if scale == 1.0 { Input::floats(x.all()) } else { Input::pixels(x.all()) }
}

fn outputs(gpu: &Gpu, format: Format, dims: Dims, values: Values) {
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let w = draw_rounded(format, 1, values, outputs * inputs);
    let bias = draw(2, values, outputs);
    let (w_device, bias_device) = (copied(gpu, format, &w, inputs), buffer(gpu, &bias));
    let of_pixels = pixels(3, rows * inputs).into_iter().map(f32::from).collect();
    for (x, scale) in [(draw_rounded(format, 4, values, rows * inputs), 1.0), (of_pixels, 1.0f32 / 255.0)] {
        let x_device = input(gpu, format, &x, scale, inputs);
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
            (sum * scale + bias, bound(format).factor(inputs, 2) * (size * scale + bias.abs()))
        };
        let expected: Vec<(f64, f64)> = (0..rows * outputs).map(z).collect();
        let input = input_of(&x_device, scale);
        let run = |y: Output<'_>| {
            copies::linear(gpu, &input, w_device.all(), bias_device.all(), &y, dims).unwrap();
        };
        let (last, hidden) = (poisoned(gpu, rows * outputs), unwritten(gpu, format, rows, outputs));
        run(Output::Last(last.all()));
        assert_close(
            &format!("outputs {format:?} {dims:?} {values:?}"),
            &read(gpu, &last, rows * outputs),
            |at| expected[at],
        );
        run(Output::Hidden(hidden.all()));
        let got = read_copy(gpu, &hidden, rows, outputs, poison(format));
        assert_close(&format!("hidden {format:?} {dims:?} {values:?}"), &got, |at| {
            let (value, bound) = expected[at];
            of_copy(format, (value.max(0.0), bound), exact)
        });
    }
}

fn input_gradients(gpu: &Gpu, format: Format, dims: Dims, values: Values) {
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let (dz, w) =
        (draw_rounded(format, 1, values, rows * outputs), draw_rounded(format, 2, values, outputs * inputs));
    let x: Vec<f32> = draw_rounded(format, 3, values, rows * inputs).iter().map(|v| v.max(0.0)).collect();
    let [dz_device, w_device, x_device] = [(&dz, outputs), (&w, inputs), (&x, inputs)]
        .map(|(values, width)| copied(gpu, format, values, width));
    let count = parts_of_hidden(gpu, format, dims.b, dims.k);
    let (dx, parts) = (unwritten(gpu, format, rows, inputs), poisoned(gpu, count as usize * inputs));
    let gradient = Gradient { dz: dx.all(), parts: parts.all(), count };
    copies::input_gradient(gpu, dz_device.all(), w_device.all(), x_device.all(), &gradient, dims).unwrap();
    let exact = values == Values::Integers;
    let expected: Vec<(f64, f64)> = (0..rows * inputs)
        .map(|at| {
            let (row, input) = (at / inputs, at % inputs);
            let terms =
                || (0..outputs).map(|o| f64::from(dz[row * outputs + o]) * f64::from(w[o * inputs + input]));
            if x[at] <= 0.0 {
                return (0.0, 0.0);
            }
            let factor = if exact { 0.0 } else { bound(format).factor(outputs, 0) };
            (terms().sum(), factor * terms().map(f64::abs).sum::<f64>())
        })
        .collect();
    let got = read_copy(gpu, &dx, rows, inputs, poison(format));
    assert_close(&format!("input gradient {format:?} {dims:?} {values:?}"), &got, |at| {
        of_copy(format, expected[at], exact)
    });

    let side = [32, 64, 128].into_iter().find(|&side| rows.div_ceil(side) == count as usize).unwrap();
    let got = read(gpu, &parts, count as usize * inputs);
    assert_close(&format!("parts {format:?} {dims:?} {values:?}"), &got, |at| {
        let (part, input) = (at / inputs, at % inputs);
        let rows = part * side..rows.min((part + 1) * side);
        let all = || rows.clone().map(|row| expected[row * inputs + input]);
        let (sum, bound): (f64, f64) =
            (all().map(|(value, _)| value).sum(), all().map(|(_, bound)| bound).sum());
        let size: f64 = all().map(|(value, bound)| value.abs() + bound).sum();
        let factor = if exact { 0.0 } else { Bound::FLOAT32.factor(rows.len(), 0) };
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

fn weight_gradients(gpu: &Gpu, format: Format, dims: Dims, values: Values) {
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let epoch = Epoch::new(gpu, 1, dims.b, 1);
    let dz = draw_rounded(format, 6, values, rows * outputs);
    let (dz_device, parts) = (copied(gpu, format, &dz, outputs), buffer(gpu, &parts_of(&dz, outputs)));
    let copy = unwritten(gpu, format, outputs, inputs);
    let of_pixels = pixels(3, rows * inputs).into_iter().map(f32::from).collect();
    for (x, scale) in [(draw_rounded(format, 5, values, rows * inputs), 1.0), (of_pixels, 1.0 / 255.0)] {
        let x_device = input(gpu, format, &x, scale, inputs);
        let case = Case::new(dims, bound(format), values, (x, scale), dz.clone());
        let gradient = Gradient { dz: dz_device.all(), parts: parts.all(), count: parts_of_last(dims.b) };
        let input = input_of(&x_device, scale);
        sinks(gpu, &case, &format!("of copies, {format:?}"), |sink| {
            let at = epoch.position();
            copies::weight_gradient(gpu, &input, &at, &gradient, sink, copy.all(), dims).unwrap();
        });
    }
}

/// The copy of the weights is what the weights are rounded to.
fn weights_and_their_copy(gpu: &Gpu, format: Format, dims: Dims) {
    let (rows, inputs, outputs) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let epoch = Epoch::new(gpu, 1, dims.b, 1);
    let dz = draw_rounded(format, 6, Values::Floats, rows * outputs);
    let (dz_device, parts) = (copied(gpu, format, &dz, outputs), buffer(gpu, &parts_of(&dz, outputs)));
    let x = copied(gpu, format, &draw_rounded(format, 5, Values::Floats, rows * inputs), inputs);
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
        let copy = unwritten(gpu, format, outputs, inputs);
        let gradient = Gradient { dz: dz_device.all(), parts: parts.all(), count: parts_of_last(dims.b) };
        let (input, at) = (Input::floats(x.all()), epoch.position());
        copies::weight_gradient(gpu, &input, &at, &gradient, &sgd(momentum), copy.all(), dims).unwrap();
        let weights = read(gpu, &w, outputs * inputs);
        let copy = read_copy(gpu, &copy, outputs, inputs, poison(format));
        assert_close("the copy of the weights", &copy, |at| (f64::from(rounded(format, weights[at])), 0.0));
    }
}

#[test]
fn copies_are_rounded_and_their_gaps_are_zeros() {
    on_device!();
    for format in FORMATS {
        copies_of(format);
    }
}

fn copies_of(format: Format) {
    let gpu = open(format);
    for (rows, width) in [(1, 1), (7, 8), (33, 131), (65, 40), (3, 7)] {
        let (b, k) = (rows as u32, width as u32);
        let samples = 23;
        let epoch = Epoch::new(&gpu, 1, b, samples);
        let bytes = pixels(3, samples as usize * width);
        let floats = draw(4, Values::Floats, samples as usize * width);
        let (bytes_device, floats_device) = (buffer(&gpu, &bytes), buffer(&gpu, &floats));
        let gathered = |value: &dyn Fn(usize) -> f32| -> Vec<f32> {
            let places = epoch.rows.iter().flat_map(|&row| (0..width).map(move |k| row as usize * width + k));
            places.map(|at| rounded(format, value(at))).collect()
        };
        let batch = |source: Source<'_>| {
            let to = unwritten(&gpu, format, rows, width);
            copies::batch(&gpu, &source, &epoch.position(), to.all(), (b, k)).unwrap();
            to
        };
        let got = read_pixels(&gpu, &batch(Source::Pixels(bytes_device.all())), rows, width);
        assert_eq!(got, gathered(&|at| f32::from(bytes[at])));
        let got = read_copy(&gpu, &batch(Source::Floats(floats_device.all())), rows, width, 0);
        assert_eq!(got, gathered(&|at| floats[at]));

        let matrix = draw(5, Values::Floats, rows * width);
        let expected: Vec<f32> = matrix.iter().copied().map(|value| rounded(format, value)).collect();
        let (from, to) = (buffer(&gpu, &matrix), unwritten(&gpu, format, rows, width));
        copies::matrix(&gpu, from.all(), to.all(), (b, k)).unwrap();
        assert_eq!(read_copy(&gpu, &to, rows, width, 0), expected);

        let count = parts_of_last(b);
        let (to, parts) = (unwritten(&gpu, format, rows, width), poisoned(&gpu, count as usize * width));
        let gradient = Gradient { dz: to.all(), parts: parts.all(), count };
        copies::gradient(&gpu, from.all(), &gradient, (b, k)).unwrap();
        assert_eq!(read_copy(&gpu, &to, rows, width, poison(format)), expected);
        let wide: Vec<f64> = matrix.iter().copied().map(f64::from).collect();
        assert_close("parts", &read(&gpu, &parts, count as usize * width), |at| {
            let (part, column) = (at / width, at % width);
            let rows = part * 32..rows.min((part + 1) * 32);
            let all = || rows.clone().map(|row| wide[row * width + column]);
            let size = all().map(f64::abs).sum::<f64>();
            (all().sum(), Bound::FLOAT32.factor(rows.len(), 0) * size)
        });
    }
}

/// A copy without room for its gaps is refused.
#[test]
fn small_copies_are_refused() {
    on_device!();
    for (format, name, two, six) in
        [(Format::Bf16, "bf16", 2, 6), (Format::Tf32, "tf32", 3, 9), (Format::Bf16x3, "bf16x3", 6, 18)]
    {
        let gpu = open(format);
        let of = |chunks: usize| OnDevice { chunks: buffer(&gpu, &vec![0; chunks]), format };
        let (b, y) = (buffer(&gpu, &[0f32; 3]), poisoned(&gpu, 3));
        let dims = Dims { b: 1, k: 9, n: 3 };
        let run = |x: usize, w: usize| {
            let (x, w) = (of(x), of(w));
            let input = Input::floats(x.all());
            let error = copies::linear(&gpu, &input, w.all(), b.all(), &Output::Last(y.all()), dims);
            error.unwrap_err().to_string()
        };
        let error = run(two - 1, six);
        let kernel = format!("linear_copies_outputs_{name}_32 with B 1, K 9, N 3");
        assert!(error.contains(&kernel), "{error}");
        assert!(error.contains(&format!("a buffer of {}, expected {two}", two - 1)), "{error}");
        let error = run(two, six - 1);
        assert!(error.contains(&format!("a buffer of {}, expected {six}", six - 1)), "{error}");
        gpu.stream.synchronize().unwrap();
    }
}
