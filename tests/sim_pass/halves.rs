//! 16-bit floats. The operands are such that every exact result fits into float64, which is then rounded once.

use half::{bf16, f16};

use crate::compare::exactly;
use crate::gpu::{Gpu, Random, linear};
use crate::rows::rows;

type Operation = fn(f64, f64, f64) -> f64;

const PAIRS: [Operation; 9] = [
    |x, y, _| x + y,
    |x, y, _| x - y,
    |x, y, _| x * y,
    |x, y, z| x * y + z,
    |x, y, _| x.min(y),
    |x, y, _| x.max(y),
    |x, _, _| -x,
    |x, _, _| x.abs(),
    |x, y, _| (x + y).clamp(0.0, 1.0),
];

const BRAIN_PAIRS: [Operation; 7] = [
    |x, y, _| x + y,
    |x, y, _| x - y,
    |x, y, _| x * y,
    |x, y, z| x * y + z,
    |x, y, _| x.min(y),
    |x, y, _| x.max(y),
    |x, y, z| (x * y + z).max(0.0),
];

pub(crate) fn halves(gpu: &mut Gpu) {
    let mut random = Random(70);
    pairs(gpu, "pairs", &PAIRS, &mut random, |v| f16::from_f64(v).to_bits(), |v| f16::from_bits(v).to_f64());
    pairs(
        gpu,
        "brain_pairs",
        &BRAIN_PAIRS,
        &mut random,
        |v| bf16::from_f64(v).to_bits(),
        |v| bf16::from_bits(v).to_f64(),
    );
    conversions(gpu, &mut random);
}

fn pairs(
    gpu: &mut Gpu,
    kernel: &str,
    operations: &[Operation],
    random: &mut Random,
    round: fn(f64) -> u16,
    widen: fn(u16) -> f64,
) {
    let n = 101; // pairs
    let mut operands =
        || -> Vec<u16> { random.floats(2 * n, -4.0, 4.0).iter().map(|v| round(f64::from(*v))).collect() };
    let inputs = [operands(), operands(), operands()];
    let [a, b, c] = [0, 1, 2].map(|k| gpu.put(&packed(&inputs[k])));
    let got = rows::<u32>(gpu, kernel, &[&a, &b, &c], operations.len(), n);
    for (k, operation) in operations.iter().enumerate() {
        let value = |i: usize| {
            let [x, y, z] = [0, 1, 2].map(|k| widen(inputs[k][i]));
            round(operation(x, y, z))
        };
        let expected = packed(&(0..2 * n).map(value).collect::<Vec<u16>>());
        exactly(&format!("{kernel}, row {k}"), &got[k], &expected);
    }
}

/// Pairs in words, the first below.
fn packed(values: &[u16]) -> Vec<u32> {
    values.chunks(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16).collect()
}

fn conversions(gpu: &mut Gpu, random: &mut Random) {
    let n = 113;
    let mut x = random.floats(n - 11, -100.0, 100.0);
    // Ties, subnormal results, and results beyond float16.
    x.extend([2049.0, 2051.0, 65_519.0, 65_520.0, -70_000.0, 6e-8, 3e-8, -2e-8, 1e-5, 0.0, -0.0]);
    let mut y = random.floats(n, -100.0, 100.0);
    (y[0], y[1], y[2]) = (f32::NAN, x[1], x[2]);
    let (dx, dy) = (gpu.put(&x), gpu.put(&y));
    let (half, brain, flags) = (gpu.space::<u16>(4 * n), gpu.space::<u16>(3 * n), gpu.space::<i32>(6 * n));
    gpu.launch("conversions", &linear(2, 64), &[&dx, &dy, &half, &brain, &flags, &(n as u32)]);
    let directed: [fn(f32) -> u16; 4] = [
        |v| f16::from_f32(v).to_bits(),
        |v| half_between(v, v < 0.0),
        |v| half_between(v, true),
        |v| half_between(v, false),
    ];
    let expected: Vec<u16> = directed.iter().flat_map(|round| x.iter().map(|v| round(*v))).collect();
    exactly("to float16", &gpu.get(half), &expected);
    let nearest = || x.iter().map(|v| bf16::from_f32(*v).to_bits());
    let cut = x.iter().map(|v| (v.to_bits() >> 16) as u16);
    let expected: Vec<u16> = nearest().chain(cut).chain(nearest()).collect();
    exactly("to bfloat16", &gpu.get(brain), &expected);

    let flag: [fn(f32, f32) -> i32; 6] = [
        |a, b| i32::from(a < b),
        |a, b| i32::from(a == b),
        |a, b| i32::from(a > b || a.is_nan() || b.is_nan()),
        |a, _| a.round_ties_even() as i32,
        |_, b| b as i32,
        |a, _| i32::from(a.is_nan()),
    ];
    let rounded = |v: &f32| f16::from_f32(*v).to_f32();
    let expected: Vec<i32> =
        flag.iter().flat_map(|flag| x.iter().zip(&y).map(|(x, y)| flag(rounded(x), rounded(y)))).collect();
    exactly("flags", &gpu.get(flags), &expected);
}

/// The float16 next to a float32, above or below it; what is exact stays.
fn half_between(value: f32, up: bool) -> u16 {
    let nearest = f16::from_f32(value);
    let found = nearest.to_f32();
    let step = |away: bool| if away { nearest.to_bits() + 1 } else { nearest.to_bits() - 1 };
    if found == value || (found > value) == up {
        return nearest.to_bits();
    }
    match (nearest.is_sign_negative(), nearest.to_bits() << 1 == 0) {
        // From a zero to the least number of the direction's sign.
        (_, true) => u16::from(!up) << 15 | 1,
        (negative, false) => step(negative != up),
    }
}
