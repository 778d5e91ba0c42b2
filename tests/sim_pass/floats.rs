//! Float32 arithmetic and CUDA's math functions.

use crate::compare::{bits, ulp32, within};
use crate::doubles::doubles;
use crate::gpu::{Gpu, Random};
use crate::rows::rows;

pub(crate) fn floats(gpu: &mut Gpu) {
    functions(gpu);
    exact(gpu);
    fast(gpu);
    doubles(gpu);
}

/// Errors in units in the last place, from the CUDA C++ Programming Guide, "Mathematical Functions", row by row; 0 is exact.
const UNITS: [f64; 24] = [
    2.0, 2.0, 4.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 4.0, 2.0, 3.0, 2.0, 1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    0.0, 0.0, 0.0,
];

fn functions(gpu: &mut Gpu) {
    let mut random = Random(61);
    let mut x = random.floats(61, -4.0, 4.0);
    x.extend(random.floats(20, -80.0, 80.0));
    // Small, and so large that the argument of a sine is reduced the slow way.
    x.extend([1e-20, -1e-7, 0.75, 1.0, -1.0, 105_615.0, -2e5]);
    let large = [1e9, -3.3e18, 7.7e30];
    x.extend(large);
    let y = random.floats(x.len(), 0.25, 6.0);
    let n = x.len();
    let (dx, dy) = (gpu.put(&x), gpu.put(&y));
    let got = rows::<f32>(gpu, "single_functions", &[&dx, &dy], 24, n);
    for (k, (got, units)) in got.iter().zip(UNITS).enumerate() {
        let expected: Vec<f64> = x.iter().zip(&y).map(|(x, y)| function(k, *x, *y)).collect();
        // Beyond float32 the result is infinite, as the reference becomes when it is rounded.
        let expected: Vec<f64> = expected.iter().map(|v| overflowing(*v)).collect();
        let bounds: Vec<f64> = expected
            .iter()
            .map(|v| if v.is_finite() { units * ulp32(*v) + 1e-12 * v.abs() } else { 0.0 })
            .collect();
        within(&format!("single_functions, row {k}"), got, &expected, &bounds);
    }
}

fn overflowing(value: f64) -> f64 {
    if (value as f32).is_infinite() { f64::from(value as f32) } else { value }
}

fn function(k: usize, x: f32, y: f32) -> f64 {
    let (a, b) = (f64::from(x), f64::from(y));
    match k {
        0 => a.sin(),
        1 => a.cos(),
        2 => a.tan(),
        3 => a.exp(),
        4 => a.exp2(),
        5 => a.exp_m1(),
        6 => a.abs().ln(),
        7 => a.abs().log2(),
        8 => a.abs().ln_1p(),
        9 => a.abs().powf(b),
        10 => a.tanh(),
        11 => a.atan2(b),
        12 => erf(a),
        13 => a.cbrt(),
        14 => a.hypot(b),
        15 => a % b,
        16 => a.floor(),
        17 => a.round_ties_even(),
        18 => a.trunc(),
        19 => a.copysign(b),
        20 => f64::from(if x > y { x - y } else { 0.0 }),
        21 => a.min(b),
        22 => a.max(b),
        _ => a * 2f64.powi((y as i32) % 16),
    }
}

/// By its Taylor series, which loses less than nine digits of sixteen to cancellation where erf differs from 1 in float32.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// A float64 that is exact, or far from any float32 that it is not, rounded to float32 in a direction.
fn round(value: f64, up: impl Fn(f64) -> bool) -> f32 {
    let nearest = value as f32;
    let found = f64::from(nearest);
    if found == value {
        nearest
    } else if up(value) {
        if found < value { nearest.next_up() } else { nearest }
    } else if found > value {
        nearest.next_down()
    } else {
        nearest
    }
}

fn up(value: f64) -> f32 {
    round(value, |_| true)
}

fn down(value: f64) -> f32 {
    round(value, |_| false)
}

fn zero(value: f64) -> f32 {
    round(value, |v| v < 0.0)
}

/// The operands have 20 bits and similar exponents, so that sums and products of two and three are exact in float64. A
/// quotient or root of float32 that is no float32 is further from one than float64 can miss.
fn exact(gpu: &mut Gpu) {
    let mut random = Random(62);
    let mut operands = |n: usize| -> Vec<f32> {
        let sign = |v: i64| if v & 1 == 0 { 1.0 } else { -1.0 };
        (0..n)
            .map(|_| {
                sign(random.int(0, 1))
                    * random.int(1 << 19, (1 << 20) - 1) as f32
                    * 2f32.powi(random.int(-22, -18) as i32)
            })
            .collect()
    };
    let (x, y, z) = (operands(131), operands(131), operands(131));
    let (dx, dy, dz) = (gpu.put(&x), gpu.put(&y), gpu.put(&z));
    let got = rows::<f32>(gpu, "single_exact", &[&dx, &dy, &dz], 17, x.len());
    let expected: Vec<[f32; 17]> = (0..x.len())
        .map(|i| {
            let (a, b, c) = (f64::from(x[i]), f64::from(y[i]), f64::from(z[i]));
            let (sum, product, fused, quotient) = (a + b, a * b, a * b + c, a / b);
            let (root, inverse) = (a.abs().sqrt(), 1.0 / a);
            [
                sum as f32,
                zero(sum),
                up(sum),
                down(sum),
                product as f32,
                zero(product),
                up(product),
                down(product),
                fused as f32,
                zero(fused),
                quotient as f32,
                up(quotient),
                root as f32,
                down(root),
                inverse as f32,
                zero(inverse),
                x[i].clamp(0.0, 1.0),
            ]
        })
        .collect();
    for (k, got) in got.iter().enumerate() {
        let expected: Vec<f32> = expected.iter().map(|row| row[k]).collect();
        bits(&format!("single_exact, row {k}"), got, &expected);
    }
}

/// The fast instructions, within the bounds that the Programming Guide ("Intrinsic Functions") and the PTX ISA give.
fn fast(gpu: &mut Gpu) {
    let mut random = Random(63);
    let (x, y) = (random.floats(101, -3.1, 3.1), random.floats(101, 0.1, 5.0));
    let (dx, dy) = (gpu.put(&x), gpu.put(&y));
    let got = rows::<f32>(gpu, "single_fast", &[&dx, &dy], 9, x.len());
    for (k, got) in got.iter().enumerate() {
        let (expected, bounds): (Vec<f64>, Vec<f64>) =
            x.iter().zip(&y).map(|(x, y)| fast_function(k, f64::from(*x), f64::from(*y))).unzip();
        within(&format!("single_fast, row {k}"), got, &expected, &bounds);
    }
}

/// The value and its bound.
fn fast_function(k: usize, x: f64, y: f64) -> (f64, f64) {
    let positive = x.abs();
    let log = positive.log2();
    let log_bound = 2f64.powi(-22).max(2.0 * ulp32(log));
    let relative = |value: f64, bound: f64| (value, bound * value.abs());
    let units = |value: f64, units: f64| (value, units * ulp32(value));
    match k {
        0 => (x.sin(), 2f64.powf(-21.41)),
        1 => (x.cos(), 2f64.powf(-21.19)),
        2 => units(x.exp(), 2.0 + (1.173 * x).abs().floor()),
        3 => (log, log_bound),
        4 => units(x / y, 2.0),
        5 => units(1.0 / positive.sqrt(), 2.0),
        // exp2(y * log2(x)): the errors of the logarithm and of the product go into the exponent, exp2 adds 2 units.
        6 => {
            let exponent = y * log_bound + (y * log).abs() * 2f64.powi(-24);
            relative(positive.powf(y), 1.01 * exponent * std::f64::consts::LN_2 + 2f64.powi(-22))
        }
        7 => relative(x.tanh(), 2f64.powi(-11)),
        _ => relative(positive.sqrt(), 2f64.powi(-23)),
    }
}
