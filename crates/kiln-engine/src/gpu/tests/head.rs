//! The last layer, the loss and the gradient at the layer below in one kernel.

use kiln_tests::on_device;

use super::losses::{roundings, softmax};
use super::*;
use crate::gpu::{Head, RowResults, Wanted, head};

const SAMPLES: u32 = 19;

/// Sizes: one, primes, one past a warp, a group of classes and the most of them, the most that a warp holds for both products, and lines of
/// four values in several chunks and groups.
const SIZES: [Dims; 8] = [
    Dims { b: 1, k: 1, n: 1 },
    Dims { b: 7, k: 131, n: 10 },
    Dims { b: 64, k: 33, n: 17 },
    Dims { b: 5, k: 31, n: 16 },
    Dims { b: 6, k: 128, n: 10 },
    Dims { b: 3, k: 260, n: 20 },
    Dims { b: 3, k: 259, n: 32 },
    Dims { b: 2, k: 1024, n: 31 },
];

#[test]
fn heads() {
    on_device!();
    for precision in Precision::ALL {
        let gpu = open(precision);
        for dims in SIZES {
            for values in [Values::Integers, Values::Floats] {
                cases(&gpu, precision, dims, values);
            }
        }
    }
}

/// What a loss makes of the outputs of a row, each with what it may be off by: the loss, and the gradient of it alone.
struct Row {
    loss: (f64, f64),
    dz: Vec<(f64, f64)>,
}

/// That of a sample, from its outputs and what they may be off by.
type OfRow<'a> = &'a dyn Fn(usize, &[f64], f64) -> Row;

/// One size against all three kinds of targets.
pub(super) fn cases(gpu: &Gpu, precision: Precision, dims: Dims, kind: Values) {
    let (samples, classes) = (SAMPLES as usize, dims.n as usize);
    let labels: Vec<u8> = (0..samples).map(|s| (s * 7 % classes) as u8).collect();
    let values = draw(9, kind, samples * classes);
    let (on_labels, on_values) = (buffer(gpu, &labels), buffer(gpu, &values));
    let one_hot = |s: usize, c: usize| f64::from(u8::from(c == usize::from(labels[s])));
    let value = |s: usize, c: usize| f64::from(values[s * classes + c]);

    // No probability moves by more than the output that moves most, and the logarithm of their sum by no more either.
    let cross_entropy = |s: usize, z: &[f64], off: f64| {
        let narrow: Vec<f32> = z.iter().map(|&z| z as f32).collect();
        let (p, log_sum) = softmax(&narrow);
        let loss = log_sum - f64::from(narrow[usize::from(labels[s])]);
        let own = roundings(&narrow, classes);
        let dz = (0..classes).map(|c| (p[c] - one_hot(s, c), own + off)).collect();
        Row { loss: (loss, own * (1.0 + loss.abs()) + 2.0 * off), dz }
    };
    let squared = |target: &dyn Fn(usize, usize) -> f64, s: usize, z: &[f64], off: f64| {
        let dz: Vec<f64> = (0..classes).map(|c| z[c] - target(s, c)).collect();
        let loss: f64 = dz.iter().map(|dz| 0.5 * dz * dz).sum();
        let moved: f64 = dz.iter().map(|dz| dz.abs() * off + 0.5 * off * off).sum();
        // Of whole numbers all is exact, up to the loss.
        let own = if off == 0.0 { 0.0 } else { 3.0 * U };
        let dz = dz.iter().map(|dz| (*dz, own * dz.abs() + off)).collect();
        Row { loss: (loss, (classes as f64 + 4.0) * U * (loss + moved) + moved), dz }
    };
    let against_one_hot = |s: usize, z: &[f64], off: f64| squared(&one_hot, s, z, off);
    let against_values = |s: usize, z: &[f64], off: f64| squared(&value, s, z, off);
    for (wanted, labels, of_row) in [
        (Wanted::CrossEntropy(on_labels.all()), Some(&labels[..]), &cross_entropy as OfRow<'_>),
        (Wanted::OneHot(on_labels.all()), Some(&labels[..]), &against_one_hot),
        (Wanted::Values(on_values.all()), None, &against_values),
    ] {
        case(gpu, precision, dims, kind, &wanted, labels, of_row);
    }
}

fn case(
    gpu: &Gpu,
    precision: Precision,
    dims: Dims,
    kind: Values,
    wanted: &Wanted<'_>,
    labels: Option<&[u8]>,
    of_row: OfRow<'_>,
) {
    let (rows, inputs, classes) = (dims.b as usize, dims.k as usize, dims.n as usize);
    let epoch = Epoch::new(gpu, 2, dims.b, SAMPLES);
    // These are a part of a batch, and where all is to be exact, of a power of two.
    let mean = if kind == Values::Integers { 64 } else { 2 * dims.b + 1 };
    // What ReLU leaves: zeros where it cut.
    let x: Vec<f32> = draw(3, kind, rows * inputs).iter().map(|v| v.max(0.0)).collect();
    let mut w = draw(4, kind, classes * inputs);
    if kind == Values::Floats && inputs > 256 {
        // So that what the roundings of so many terms come to does not allow anything.
        w.iter_mut().for_each(|w| *w /= 32.0);
    }
    let b = draw(5, kind, classes);
    let [on_x, on_w, on_b] = [&x, &w, &b].map(|values| buffer(gpu, values));
    let (dz, dx) = (poisoned(gpu, rows * classes), poisoned(gpu, rows * inputs));
    let all = epoch.first() + rows;
    let (losses, hits) = (poisoned(gpu, all), buffer(gpu, &vec![77u32; all]));
    let layer = Head { x: on_x.all(), w: on_w.all(), b: on_b.all(), dz: dz.all(), dx: dx.all() };
    let results = RowResults { losses: losses.all(), hits: hits.all() };
    head(gpu, wanted, &epoch.position(), &layer, &results, mean, dims).unwrap();
    let (dz, dx) = (read(gpu, &dz, rows * classes), read(gpu, &dx, rows * inputs));
    let (losses, hits) = (read(gpu, &losses, all), read(gpu, &hits, all));
    assert!(losses[..epoch.first()].iter().all(|v| v.is_nan()), "rows of other batches are left alone");
    assert!(hits[..epoch.first()].iter().all(|&hit| hit == 77), "rows of other batches are left alone");

    let what = |part: &str| format!("head {} {part} {precision} {dims:?} {kind:?}", wanted.name());
    let bound = Bound::FLOAT32.rounded(precision);
    let wide = |value: f32| f64::from(value);
    // An output, and what it may be off by.
    let output = |m: usize, c: usize| {
        let terms = || (0..inputs).map(|k| wide(x[m * inputs + k]) * wide(w[c * inputs + k]));
        let size = terms().map(f64::abs).sum::<f64>() + wide(b[c]).abs();
        let factor = if kind == Values::Integers { 0.0 } else { bound.factor(inputs, 2) };
        (terms().sum::<f64>() + wide(b[c]), factor * size)
    };
    let expected: Vec<(Row, Vec<f64>, f64)> = (0..rows)
        .map(|m| {
            let (z, offs): (Vec<f64>, Vec<f64>) = (0..classes).map(|c| output(m, c)).unzip();
            let off = offs.into_iter().fold(0.0, f64::max);
            (of_row(epoch.rows[m] as usize, &z, off), z, off)
        })
        .collect();
    assert_close(&what("loss"), &losses[epoch.first()..], |m| expected[m].0.loss);
    assert_close(&what("dz"), &dz, |at| {
        let (dz, off) = expected[at / classes].0.dz[at % classes];
        (dz / f64::from(mean), off / f64::from(mean))
    });
    // From the gradient that the kernel has found.
    assert_close(&what("dx"), &dx, |at| {
        let (m, k) = (at / inputs, at % inputs);
        let terms = || (0..classes).map(|c| wide(dz[m * classes + c]) * wide(w[c * inputs + k]));
        match x[at] > 0.0 {
            true => (terms().sum(), bound.factor(classes, 0) * terms().map(f64::abs).sum::<f64>()),
            false => (0.0, 0.0),
        }
    });

    let Some(labels) = labels else {
        assert!(hits.iter().all(|&hit| hit == 77), "values have no hits");
        return;
    };
    let mut judged = 0;
    for (m, (_, z, off)) in expected.iter().enumerate() {
        let label = usize::from(labels[epoch.rows[m] as usize]);
        let others = z.iter().enumerate().filter(|&(c, _)| c != label).map(|(_, z)| *z);
        let ahead = z[label] - others.fold(f64::NEG_INFINITY, f64::max);
        // Nearer than that, either is right; equals are for a test of their own.
        if ahead.abs() > 2.0 * off {
            assert_eq!(hits[epoch.first() + m], u32::from(ahead > 0.0), "{}, row {m}", what("hit"));
            judged += 1;
        }
    }
    assert!(2 * judged >= rows, "{}: only {judged} of {rows} rows are clear", what("hits"));
}

/// NaN and infinity reach the loss and the gradients of their row, and of no other.
#[test]
fn what_is_not_finite_stays_in_its_row() {
    on_device!();
    for precision in Precision::ALL {
        stays_in_its_row(precision);
    }
}

fn stays_in_its_row(precision: Precision) {
    let gpu = open(precision);
    let dims = Dims { b: 3, k: 2, n: 3 };
    let epoch = Epoch::new(&gpu, 2, dims.b, SAMPLES);
    let labels = buffer(&gpu, &[1u8; SAMPLES as usize]);
    for bad in [f32::NAN, f32::INFINITY] {
        let x = buffer(&gpu, &[1.0, 2.0, bad, 1.0, 2.0, 1.0]);
        let (w, b) = (buffer(&gpu, &[1.0, -1.0, 0.5, 1.0, 2.0, 0.25]), buffer(&gpu, &[0.0f32; 3]));
        let (dz, dx) = (poisoned(&gpu, 9), poisoned(&gpu, 6));
        let all = epoch.first() + 3;
        let (losses, hits) = (poisoned(&gpu, all), buffer(&gpu, &vec![77u32; all]));
        let layer = Head { x: x.all(), w: w.all(), b: b.all(), dz: dz.all(), dx: dx.all() };
        let results = RowResults { losses: losses.all(), hits: hits.all() };
        let wanted = Wanted::CrossEntropy(labels.all());
        head(&gpu, &wanted, &epoch.position(), &layer, &results, dims.b, dims).unwrap();
        let finite = |values: &[f32]| values.iter().map(|v| v.is_finite()).collect::<Vec<_>>();
        assert_eq!(finite(&read(&gpu, &losses, all)[epoch.first()..]), [true, false, true], "{bad}");
        assert_eq!(read(&gpu, &hits, all)[epoch.first() + 1], 0, "{bad}");
        let rows = [true, true, true, false, false, false, true, true, true];
        assert_eq!(finite(&read(&gpu, &dz, 9)), rows, "{bad}");
        let dx = finite(&read(&gpu, &dx, 6));
        assert_eq!([dx[0], dx[1], dx[3], dx[4], dx[5]], [true, true, false, true, true], "{bad}");
    }
}

/// Lines of a multiple of four values are loaded four at a time only where they begin at a multiple of four: each buffer in turn does not.
#[test]
fn buffers_may_begin_anywhere() {
    on_device!();
    for precision in Precision::ALL {
        let gpu = open(precision);
        for dims in [Dims { b: 5, k: 128, n: 10 }, Dims { b: 3, k: 260, n: 20 }] {
            let (rows, inputs, classes) = (dims.b as usize, dims.k as usize, dims.n as usize);
            let epoch = Epoch::new(&gpu, 2, dims.b, SAMPLES);
            let labels = buffer(&gpu, &[1u8; SAMPLES as usize]);
            let (x, w) = (draw(3, Values::Floats, rows * inputs), draw(4, Values::Floats, classes * inputs));
            let b = buffer(&gpu, &draw(5, Values::Floats, classes));
            let all = epoch.first() + rows;
            let run = |which: usize, place: usize| {
                let at = |number: usize, values: &[f32]| {
                    Placed::new(&gpu, values, if number == which { place } else { 0 })
                };
                let (x, w, dx) = (at(0, &x), at(1, &w), at(2, &vec![f32::NAN; rows * inputs]));
                let dz = at(3, &vec![f32::NAN; rows * classes]);
                let (losses, hits) = (poisoned(&gpu, all), buffer(&gpu, &vec![0u32; all]));
                let layer = Head { x: x.all(), w: w.all(), b: b.all(), dz: dz.all(), dx: dx.all() };
                let results = RowResults { losses: losses.all(), hits: hits.all() };
                let wanted = Wanted::CrossEntropy(labels.all());
                head(&gpu, &wanted, &epoch.position(), &layer, &results, dims.b, dims).unwrap();
                [dz.read(&gpu), dx.read(&gpu), read(&gpu, &losses, all).split_off(epoch.first())]
            };
            let expected = run(9, 0);
            for which in 0..4 {
                for place in 1..4 {
                    assert_eq!(run(which, place), expected, "{precision}, buffer {which}, {place} values on");
                }
            }
        }
    }
}

#[test]
fn small_buffers_are_refused() {
    on_device!();
    let gpu = open(Precision::F32);
    let dims = Dims { b: 2, k: 3, n: 4 };
    let epoch = Epoch::new(&gpu, 2, dims.b, SAMPLES);
    let (at, labels) = (epoch.position(), buffer(&gpu, &[0u8; SAMPLES as usize]));
    // Of the rows of an epoch, as many as the host knows of: where the step stands, the device alone knows.
    let rows = (at.slot * at.batch + dims.b) as usize;
    let needed = [6, 12, 4, 8, 6, rows, rows];
    for small in 0..needed.len() {
        let len = |which: usize| needed[which] - usize::from(which == small);
        let floats = [0, 1, 2, 3, 4, 5].map(|which| poisoned(&gpu, len(which)));
        let hits = buffer(&gpu, &vec![0u32; len(6)]);
        let [x, w, b, dz, dx, losses] = floats.each_ref().map(Buffer::all);
        let (layer, results) = (Head { x, w, b, dz, dx }, RowResults { losses, hits: hits.all() });
        let wanted = Wanted::CrossEntropy(labels.all());
        let error = head(&gpu, &wanted, &at, &layer, &results, dims.b, dims).unwrap_err().to_string();
        assert!(error.contains("head_softmax_cross_entropy with B 2, K 3, N 4"), "{error}");
        let expected = format!("a buffer of {}, expected {}", len(small), needed[small]);
        assert!(error.contains(&expected), "{error}");
    }
    gpu.stream.synchronize().unwrap();
}

#[test]
fn a_head_has_few_inputs_classes_and_products() {
    on_device!();
    let gpu = open(Precision::F32);
    let fits = |b, k, n| Head::fits(&gpu, Dims { b, k, n });
    assert!(fits(1, 1024, 32) && !fits(1, 1025, 32) && !fits(1, 1024, 33));
    // 2^27 products; of 17 classes those of 32.
    assert!(fits(8192, 1024, 10) && !fits(8193, 1024, 10));
    assert!(fits(4096, 1024, 17) && !fits(4097, 1024, 17));
    assert!(!fits(u32::MAX, 1024, 32));
}
