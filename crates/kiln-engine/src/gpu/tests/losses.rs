//! Losses, hits, their gradients, and the sums of an epoch.

use kiln_tests::on_device;

use super::*;
use crate::gpu::{RowResults, Wanted, advance, batch_sums, loss};

const SAMPLES: u32 = 19;

/// What a loss kernel gave: dz (B, C), losses and hits of the batch's rows.
struct Given {
    dz: Vec<f32>,
    losses: Vec<f32>,
    hits: Vec<u32>,
}

fn run(gpu: &Gpu, wanted: &Wanted<'_>, epoch: &Epoch, z: &[f32], classes: u32) -> Given {
    let mean = epoch.rows.len() as u32;
    let whole = run_part(gpu, wanted, epoch, z, classes, mean);
    // As a part of a batch eight times as large: a power of two, so that the bits are the same.
    let part = run_part(gpu, wanted, epoch, z, classes, 8 * mean);
    let eighth: Vec<f32> = whole.dz.iter().map(|dz| dz / 8.0).collect();
    let off = |(a, b): (&f32, &f32)| !(a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-37);
    assert!(!part.dz.iter().zip(&eighth).any(off), "{:?}, expected {eighth:?}", part.dz);
    assert_eq!((part.losses.len(), &part.hits), (whole.losses.len(), &whole.hits));
    whole
}

/// The same, where the mean is over more rows.
fn run_part(gpu: &Gpu, wanted: &Wanted<'_>, epoch: &Epoch, z: &[f32], classes: u32, mean: u32) -> Given {
    let rows = epoch.rows.len();
    let z_device = buffer(gpu, z);
    let all = epoch.first() + rows;
    let (losses, hits) = (poisoned(gpu, all), buffer(gpu, &vec![77u32; all]));
    let dims = Dims { b: rows as u32, k: 1, n: classes };
    let results = RowResults { losses: losses.all(), hits: hits.all() };
    loss(gpu, wanted, &epoch.position(), z_device.all(), &results, mean, dims).unwrap();
    let dz = read(gpu, &z_device, z.len());
    let losses = read(gpu, &losses, all);
    assert!(losses[..epoch.first()].iter().all(|v| v.is_nan()), "rows of other batches are left alone");
    let counted = read(gpu, &hits, all);
    Given { dz, losses: losses[epoch.first()..].to_vec(), hits: counted[epoch.first()..].to_vec() }
}

/// Softmax in float64: probabilities, and log of the sum of exponentials.
pub(super) fn softmax(z: &[f32]) -> (Vec<f64>, f64) {
    let high = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = z.iter().map(|&v| (f64::from(v) - f64::from(high)).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    (exponentials.iter().map(|e| e / sum).collect(), sum.ln() + f64::from(high))
}

/// The bound: an exponential is off by 2 units in the last place (CUDA's table for expf) and by the rounding of its argument,
/// |z| u; a sum of C by C u; quotient, product and logarithm by a few more.
pub(super) fn roundings(z: &[f32], classes: usize) -> f64 {
    let spread = z.iter().map(|v| v.abs()).fold(0.0, f32::max);
    U * (2.0 * f64::from(spread) + classes as f64 + 16.0)
}

#[test]
fn cross_entropy() {
    on_device!();
    let gpu = open(Precision::F32);
    for (rows, classes) in [(1, 1), (1, 10), (9, 33), (64, 10), (37, 131)] {
        for scale in [1.0, 30.0] {
            case_of_labels(&gpu, rows, classes, scale);
        }
    }
}

/// Random outputs of this scale.
pub(super) fn case_of_labels(gpu: &Gpu, rows: u32, classes: u32, scale: f32) {
    let epoch = Epoch::new(gpu, 2, rows, SAMPLES);
    let labels: Vec<u8> = (0..SAMPLES).map(|s| (s * 7 % classes) as u8).collect();
    let z: Vec<f32> = draw(8, Values::Floats, (rows * classes) as usize).iter().map(|v| v * scale).collect();
    let on_device = buffer(gpu, &labels);
    let given = run(gpu, &Wanted::CrossEntropy(on_device.all()), &epoch, &z, classes);
    let (rows, classes) = (rows as usize, classes as usize);
    let row = |row: usize| &z[row * classes..][..classes];
    let label = |row: usize| usize::from(labels[epoch.rows[row] as usize]);
    assert_close(&format!("dz {rows} x {classes}, {scale}"), &given.dz, |at| {
        let (m, c) = (at / classes, at % classes);
        let (p, _) = softmax(row(m));
        let expected = (p[c] - f64::from(u8::from(c == label(m)))) / rows as f64;
        (expected, roundings(row(m), classes) / rows as f64)
    });
    assert_close(&format!("loss {rows} x {classes}, {scale}"), &given.losses, |m| {
        let (_, log_sum) = softmax(row(m));
        let expected = log_sum - f64::from(row(m)[label(m)]);
        (expected, roundings(row(m), classes) * (1.0 + expected.abs()))
    });
    for m in 0..rows {
        let best = row(m)[label(m)];
        let hit = row(m).iter().enumerate().all(|(c, &v)| if c < label(m) { v < best } else { v <= best });
        assert_eq!(given.hits[m], u32::from(hit), "row {m}");
    }
}

/// Large outputs, equal ones, NaN and infinity.
#[test]
fn cross_entropy_at_the_edges() {
    on_device!();
    let gpu = open(Precision::F32);
    let case = |z: [f32; 3], label: u8| {
        let epoch = Epoch::new(&gpu, 1, 1, 1);
        let labels = buffer(&gpu, &[label]);
        let Given { dz, losses, hits } = run(&gpu, &Wanted::CrossEntropy(labels.all()), &epoch, &z, 3);
        (dz, losses[0], hits[0])
    };
    assert_eq!(case([1e4, -1e4, 0.0], 0), (vec![0.0, 0.0, 0.0], 0.0, 1));
    assert_eq!(case([1e4, -1e4, 0.0], 1), (vec![1.0, -1.0, 0.0], 2e4, 0));
    assert_eq!((case([2.0, 2.0, 1.0], 0).2, case([2.0, 2.0, 1.0], 1).2), (1, 0), "the first of equals");
    for (z, label) in [([f32::NAN, 0.0, 0.0], 1), ([f32::NAN, 0.0, 0.0], 0), ([f32::INFINITY, 0.0, 0.0], 1)] {
        let (_, loss, hit) = case(z, label);
        assert!(!loss.is_finite(), "{z:?}: {loss}");
        assert_eq!(hit, 0, "{z:?}");
    }
}

#[test]
fn squared_error() {
    on_device!();
    let gpu = open(Precision::F32);
    for (rows, classes) in [(1u32, 1u32), (9, 33), (64, 10), (5, 67)] {
        let epoch = Epoch::new(&gpu, 2, rows, SAMPLES);
        let z = draw(8, Values::Floats, (rows * classes) as usize);
        let labels: Vec<u8> = (0..SAMPLES).map(|s| (s * 7 % classes) as u8).collect();
        let values = draw(9, Values::Floats, (SAMPLES * classes) as usize);
        let (on_labels, on_values) = (buffer(&gpu, &labels), buffer(&gpu, &values));
        let width = classes as usize;
        let one_hot = |s: usize, c: usize| f64::from(u8::from(c == usize::from(labels[s])));
        let value = |s: usize, c: usize| f64::from(values[s * width + c]);
        type Target<'a> = &'a dyn Fn(usize, usize) -> f64;
        let cases: [(Wanted<'_>, Target<'_>); 2] =
            [(Wanted::OneHot(on_labels.all()), &one_hot), (Wanted::Values(on_values.all()), &value)];
        for (wanted, target) in cases {
            let given = run(&gpu, &wanted, &epoch, &z, classes);
            let off = |m: usize, c: usize| f64::from(z[m * width + c]) - target(epoch.rows[m] as usize, c);
            assert_close(&format!("mse dz {rows} x {classes}"), &given.dz, |at| {
                let expected = off(at / width, at % width) / f64::from(rows);
                (expected, 2.0 * U * expected.abs() + U * U)
            });
            assert_close(&format!("mse loss {rows} x {classes}"), &given.losses, |m| {
                let expected: f64 = (0..width).map(|c| 0.5 * off(m, c).powi(2)).sum();
                (expected, (width as f64 + 6.0) * U * expected)
            });
        }
    }
}

#[test]
fn sums_of_an_epoch() {
    on_device!();
    let gpu = open(Precision::F32);
    for (rows, batch) in [(1usize, 1usize), (1000, 64), (1025, 512), (700, 700), (3, 1)] {
        let losses = draw(1, Values::Floats, rows);
        let hits: Vec<u32> = (0..rows).map(|row| u32::from(row % 3 == 0)).collect();
        let steps = rows.div_ceil(batch);
        let (losses_device, hits_device) = (buffer(&gpu, &losses), buffer(&gpu, &hits));
        let (sums, counts) = (buffer(&gpu, &vec![f64::NAN; steps]), buffer(&gpu, &vec![99u32; steps]));
        let (rows_, batch_) = (rows as u32, batch as u32);
        batch_sums(&gpu, losses_device.all(), hits_device.all(), sums.all(), counts.all(), rows_, batch_)
            .unwrap();
        let (got, counted) = (read(&gpu, &sums, steps), read(&gpu, &counts, steps));
        for (step, (losses, hits)) in losses.chunks(batch).zip(hits.chunks(batch)).enumerate() {
            let expected: f64 = losses.iter().map(|&v| f64::from(v)).sum();
            let within = (got[step] - expected).abs() <= batch as f64 * f64::EPSILON * batch as f64;
            assert!(within, "step {step} of {rows} by {batch}: {}, expected {expected}", got[step]);
            assert_eq!(counted[step], hits.iter().sum::<u32>());
        }
    }
}

#[test]
fn the_counter_moves_on() {
    on_device!();
    let gpu = open(Precision::F32);
    let step = buffer(&gpu, &[5u32]);
    advance(&gpu, step.all(), 16).unwrap();
    assert_eq!(read(&gpu, &step, 1), [21]);
}
