//! Asynchronous copies, and the state spaces.

use kiln_sim::device::LaunchConfig;

use crate::compare::{bits, exactly};
use crate::gpu::{Gpu, Random, Raw, linear};

pub(crate) fn async_groups(gpu: &mut Gpu) {
    let mut random = Random(12);
    let blocks = 5;
    let x = random.ints(blocks * 128, -1_000_000, 1_000_000);
    let (input, out) = (gpu.put(&x), gpu.space::<i32>(blocks * 128));
    gpu.launch("reversed", &linear(blocks, 32), &[&input, &out]);
    let expected: Vec<i32> = x.chunks(128).flat_map(|tile| tile.iter().rev().copied()).collect();
    exactly("reversed", &gpu.get(out), &expected);

    let (input, out) = (gpu.put(&x[..blocks * 64]), gpu.space::<i32>(blocks));
    gpu.launch("tokens", &linear(blocks, 64), &[&input, &out]);
    let expected: Vec<i32> = x[..blocks * 64].chunks(64).map(|row| row.iter().sum()).collect();
    exactly("tokens", &gpu.get(out), &expected);
}

pub(crate) fn bulk_copy(gpu: &mut Gpu) {
    let mut random = Random(13);
    // One tile, less than one, one past an edge; blocks with more tiles than stages, and with none.
    for (n, blocks, threads) in
        [(4 * 1013, 2, 96), (4 * 65, 3, 64), (4 * 7, 1, 32), (256, 2, 37), (4 * 577, 1, 33)]
    {
        let x = random.floats(n, -10.0, 10.0);
        let (input, out) = (gpu.put(&x), gpu.space::<f32>(n));
        gpu.launch("pipeline", &linear(blocks, threads), &[&input, &out, &(n as u32)]);
        let expected: Vec<f32> = x.iter().map(|v| 3f32.mul_add(*v, 1.0)).collect();
        bits("pipeline", &gpu.get(out), &expected);
    }
    let x = random.floats(256, -10.0, 10.0);
    let (input, out) = (gpu.put(&x), gpu.space::<f32>(8 * 256));
    gpu.launch("multicast", &linear(8, 61), &[&input, &out]);
    let expected: Vec<f32> = (0..8 * 256).map(|e| x[e % 256] + (e / 256) as f32).collect();
    bits("multicast", &gpu.get(out), &expected);
}

pub(crate) fn transpose(gpu: &mut Gpu) {
    let mut random = Random(14);
    for (rows, cols) in [(37, 53), (33, 64), (1, 97), (32, 1), (65, 31)] {
        let x = random.floats(rows * cols, -1.0, 1.0);
        let (input, out) = (gpu.put(&x), gpu.space::<f32>(rows * cols));
        let config = LaunchConfig {
            grid: [cols.div_ceil(32) as u32, rows.div_ceil(32) as u32, 1],
            block: [32, 8, 1],
            ..linear(1, 1)
        };
        gpu.launch("transpose", &config, &[&input, &out, &(rows as u32), &(cols as u32)]);
        let expected: Vec<f32> = (0..rows * cols).map(|e| x[e % rows * cols + e / rows]).collect();
        bits("transpose", &gpu.get(out), &expected);
    }
}

pub(crate) fn memory(gpu: &mut Gpu) {
    variables(gpu);
    structure(gpu);
    shared_and_narrow(gpu);
    vectors(gpu);
}

fn variables(gpu: &mut Gpu) {
    let x = Random(15).floats(101, -3.0, 3.0);
    let (input, out) = (gpu.put(&x), gpu.space::<f32>(101));
    gpu.set_global("offset_by_host", -17i32);
    for launch in 1..=2u32 {
        gpu.launch("constants", &linear(4, 32), &[&input, &out, &101u32]);
        assert_eq!(gpu.global::<u32>("launches", 0), 7 + launch);
    }
    let polynomial = |x: f32| [2.0, 0.0, 3.0, -1.25, 0.5].iter().fold(0f32, |sum, c| sum.mul_add(x, *c));
    let expected: Vec<f32> = x.iter().map(|v| polynomial(*v) - 17.0).collect();
    bits("constants", &gpu.get(out), &expected);

    let out = gpu.space::<f64>(2);
    gpu.launch("variables", &linear(1, 1), &[&out]);
    exactly("variables", &gpu.get(out), &[12.0, 5.0]);
    assert_eq!(gpu.global::<f64>("matrix", 0), 2.0, "the variable was written");
}

fn structure(gpu: &mut Gpu) {
    let (small, values, scale) = ([-300i16, 7, 32_000], [1i32, -2, 1_000_003, -4, 50], 0.125f64);
    let mut bytes = vec![0xf9, 0]; // tag, -7, and a byte of padding
    small.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    bytes.extend(scale.to_le_bytes());
    values.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    bytes.resize(40, 0);
    let out = gpu.space::<f64>(47);
    gpu.launch("structure", &linear(2, 32), &[&Raw(bytes), &out, &47u32]);
    let value = |i: usize| scale * f64::from(values[i % 5]) + f64::from(small[i % 3]) - 7.0;
    exactly("structure", &gpu.get(out), &(0..47).map(value).collect::<Vec<f64>>());
}

fn shared_and_narrow(gpu: &mut Gpu) {
    let mut random = Random(16);
    for (blocks, width) in [(3, 37), (2, 64), (1, 7)] {
        let x: Vec<u8> = (0..blocks * width).map(|_| random.bits() as u8).collect();
        let (input, out) = (gpu.put(&x), gpu.space::<i16>(blocks * width));
        let bytes = width.next_multiple_of(2) + 2 * width;
        let config = LaunchConfig { dynamic_shared: bytes as u32, ..linear(blocks, width) };
        gpu.launch("both_shared", &config, &[&input, &out]);
        let value = |e: usize| {
            let t = width - 1 - e % width;
            i16::from(x[e / width * width + t]) * 3 - 100 + (t % 7 * (t % 7)) as i16
        };
        exactly("both_shared", &gpu.get(out), &(0..x.len()).map(value).collect::<Vec<i16>>());
    }
    let a: Vec<i8> = (0..131).map(|_| random.bits() as i8).collect();
    let b: Vec<u16> = (0..131).map(|_| random.bits() as u16).collect();
    let (da, db) = (gpu.put(&a), gpu.put(&b));
    let (c, d) = (gpu.space::<i8>(131), gpu.space::<u16>(131));
    gpu.launch("narrow", &linear(3, 64), &[&da, &db, &c, &d, &131u32]);
    let pairs = || a.iter().zip(&b).map(|(a, b)| (i32::from(*a), i32::from(*b)));
    exactly("narrow c", &gpu.get(c), &pairs().map(|(a, b)| (a - b) as i8).collect::<Vec<i8>>());
    exactly("narrow d", &gpu.get(d), &pairs().map(|(a, b)| (a * b) as u16).collect::<Vec<u16>>());
}

fn vectors(gpu: &mut Gpu) {
    let n = 101;
    let x = Random(17).floats(4 * n, 0.0, 255.0); // (n, 4)
    let input = gpu.put(&x);
    let (bytes, out) = (gpu.space::<u8>(4 * n), gpu.space::<f32>(4 * n));
    gpu.launch("vectors", &linear(2, 64), &[&input, &bytes, &out, &(n as u32)]);
    exactly("vectors, bytes", &gpu.get(bytes), &x.iter().map(|v| *v as u8).collect::<Vec<u8>>());
    let value = |e: usize| {
        let (i, lane) = (e / 4, e % 4);
        let from = if i % 64 % 2 == 1 { 3 - lane } else { lane };
        x[4 * i + from] + (lane + 1) as f32
    };
    bits("vectors", &gpu.get(out), &(0..4 * n).map(value).collect::<Vec<f32>>());
}
