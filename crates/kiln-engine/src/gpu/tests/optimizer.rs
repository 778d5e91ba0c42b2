//! Updates from stored gradients.

use kiln_tests::on_device;

use super::*;
use crate::gpu::{AdamWOptions, Moments, Scalars, SgdOptions, adamw, sgd};

const LR: f32 = 0.05;
/// Those of the fourth step.
const CORRECTIONS: (f32, f32) = (2.907_822, 15.823_406);
const OPTIONS: AdamWOptions = AdamWOptions { fresh1: 0.1, fresh2: 0.001, eps: 1e-3, weight_decay: 0.2 };
/// Without a memory: what the moments were must not matter, however large.
const FORGETFUL: AdamWOptions = AdamWOptions { fresh1: 1.0, fresh2: 1.0, eps: 1e-8, weight_decay: 0.2 };

/// What a value is before the step.
#[derive(Clone, Copy)]
struct Before {
    p: f64,
    m: f64,
    v: f64,
    g: f64,
}

/// Parameter and moments after the step, each with what it may be off by.
fn after(options: &AdamWOptions, Before { p, m, v, g }: Before) -> [(f64, f64); 3] {
    let wide = |x: f32| f64::from(x);
    let (lr, c1, c2) = (wide(LR), wide(CORRECTIONS.0), wide(CORRECTIONS.1));
    let AdamWOptions { fresh1, fresh2, eps, weight_decay } = *options;
    let (fresh1, fresh2, eps, decay) = (wide(fresh1), wide(fresh2), wide(eps), wide(weight_decay));
    // Each line: the value, and its roundings, of which each is u times the value that is rounded.
    let kept = m - fresh1 * m;
    let first = kept + fresh1 * g;
    let off_first = U * (kept.abs() + first.abs());
    let kept = v - fresh2 * v;
    let second = kept + fresh2 * g * g;
    let off_second = U * (kept + fresh2 * g * g + second);
    let below = c2 * second.sqrt() + eps;
    // A root halves a relative error, and adds a rounding; the sum adds another.
    let relative_below = if second == 0.0 { U } else { 0.5 * off_second / second + 2.0 * U };
    let along = c1 * first / below;
    let off_along = c1 * off_first / below + along.abs() * (relative_below + 2.0 * U);
    let moved = decay * p + along;
    let new = p - lr * moved;
    let off_new = lr * (off_along + U * moved.abs()) + U * new.abs();
    // What a product of roundings adds is a thousandth of them at most.
    [(new, 1.001 * off_new), (first, 1.001 * off_first), (second, 1.001 * off_second)]
}

#[test]
fn sgd_of_any_count() {
    on_device!();
    of_any_count(case_of_sgd);
}

/// With momentum and without.
pub(super) fn case_of_sgd(gpu: &Gpu, count: usize) {
    const OPTIONS: SgdOptions = SgdOptions { weight_decay: 0.2, gradient_share: 0.5, velocity_share: 0.9 };
    const KEEP: f32 = 0.8;
    const FRESH: f32 = 0.75;
    let values = [1, 2, 3].map(|seed| draw(seed, Values::Floats, count));
    let nan = Scalars::sgd(f32::NAN, f32::NAN, f32::NAN);
    let scalars = buffer(gpu, &[nan, nan, Scalars::sgd(LR, KEEP, FRESH)]);
    let epoch = Epoch::new(gpu, 5, 1, 1);
    let wide = |x: f32| f64::from(x);
    let SgdOptions { weight_decay, gradient_share, velocity_share } = OPTIONS;
    let [lr, decay, keep, fresh] = [LR, weight_decay, KEEP, FRESH].map(wide);
    for momentum in [true, false] {
        let [p, v, g] = [0, 1, 2].map(|which| buffer(gpu, &values[which]));
        let velocities = momentum.then(|| v.all());
        sgd(gpu, p.all(), velocities, g.all(), scalars.all(), &epoch.position(), &OPTIONS).unwrap();
        // New parameter and velocity, and the sizes that meet on the way, of which each rounding is u.
        let after = |at: usize| {
            let [p, v, g] = [0, 1, 2].map(|which| wide(values[which][at]));
            let (decayed, size_g) = (g + decay * p, g.abs() + decay * p.abs());
            let (moved, size_v) = (keep * v + fresh * decayed, keep * v.abs() + fresh * size_g);
            let shares = if momentum { (wide(gradient_share), wide(velocity_share)) } else { (1.0, 0.0) };
            let size = p.abs() + lr * (shares.0 * size_g + shares.1 * size_v);
            let new = p - lr * (shares.0 * decayed + shares.1 * moved);
            [(new, 8.0 * U * size), if momentum { (moved, 4.0 * U * size_v) } else { (v, 0.0) }]
        };
        let what = |which: &str| format!("sgd {which} of {count}, momentum {momentum}");
        assert_close(&what("p"), &read(gpu, &p, count), |at| after(at)[0]);
        assert_close(&what("v"), &read(gpu, &v, count), |at| after(at)[1]);
        assert_eq!(read(gpu, &g, count), values[2], "gradients stay");
    }
}

#[test]
fn adamw_of_any_count() {
    on_device!();
    of_any_count(case_of_adamw);
}

fn of_any_count(case: impl Fn(&Gpu, usize)) {
    for multiprocessors in [None, Some(1)] {
        let mut gpu = open(Precision::F32);
        // With one to fill, a thread takes several turns over the larger counts.
        gpu.multiprocessors = multiprocessors.unwrap_or(gpu.multiprocessors);
        for count in [1, 255, 257, 10_007] {
            case(&gpu, count);
        }
    }
}

/// So many random values, and zeros among them as the gaps between tensors are.
pub(super) fn case_of_adamw(gpu: &Gpu, count: usize) {
    let draw = |seed: u64, of: fn(f32) -> f32| -> Vec<f32> {
        let values = draw(seed, Values::Floats, count).into_iter().map(of);
        values.enumerate().map(|(at, value)| if at % 97 == 96 { 0.0 } else { value }).collect()
    };
    for (options, size) in [(OPTIONS, 1.0), (FORGETFUL, 1e-5)] {
        let g = draw(4, |x| x).into_iter().map(|g| size * g).collect();
        adamw_of(gpu, &options, &[draw(1, |x| x), draw(2, |x| x), draw(3, f32::abs), g]);
    }
}

/// A step from parameters, both moments and gradients.
fn adamw_of(gpu: &Gpu, options: &AdamWOptions, values: &[Vec<f32>; 4]) {
    let count = values[0].len();
    let before = |at: usize| {
        let [p, m, v, g] = [0, 1, 2, 3].map(|which| f64::from(values[which][at]));
        Before { p, m, v, g }
    };
    let [p, m, v, g] = [0, 1, 2, 3].map(|which| buffer(gpu, &values[which]));
    // Only the row of this step may be read: the others are NaN.
    let nan = Scalars::adamw(f32::NAN, f32::NAN, f32::NAN);
    let scalars = buffer(gpu, &[nan, nan, Scalars::adamw(LR, CORRECTIONS.0, CORRECTIONS.1)]);
    let epoch = Epoch::new(gpu, 5, 1, 1);
    let moments = Moments { first: m.all(), second: v.all() };
    adamw(gpu, p.all(), &moments, g.all(), scalars.all(), &epoch.position(), options).unwrap();
    for (which, (what, buffer)) in [("p", &p), ("m", &m), ("v", &v)].into_iter().enumerate() {
        let got = read(gpu, buffer, count);
        assert_close(&format!("{what} of {count} after {options:?}"), &got, |at| {
            after(options, before(at))[which]
        });
    }
    assert_eq!(read(gpu, &g, count), values[3], "gradients stay");
}

#[test]
fn adamw_with_too_few_moments_is_refused() {
    on_device!();
    let gpu = open(Precision::F32);
    let (p, m, g) = (poisoned(&gpu, 9), poisoned(&gpu, 8), poisoned(&gpu, 9));
    let scalars = buffer(&gpu, &[Scalars::default(); 3]);
    let epoch = Epoch::new(&gpu, 5, 1, 1);
    let moments = Moments { first: p.all(), second: m.all() };
    let refused = adamw(&gpu, p.all(), &moments, g.all(), scalars.all(), &epoch.position(), &OPTIONS);
    let text = "GPU: launching adamw with B 1, K 1, N 9: a buffer of 8, expected 9";
    assert_eq!(refused.unwrap_err().to_string(), text);
}
