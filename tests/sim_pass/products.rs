//! Matrix products: float32, bfloat16 and tf32 on tensor cores, against float64.

use half::{bf16, f16};
use kiln_sim::device::LaunchConfig;

use crate::compare::{bits, exactly, gamma, within};
use crate::gpu::{Gpu, Random, linear};

/// Rows, columns and inner dimension: pairwise distinct, odd or prime, and one past a tile's edge.
const SHAPES: [[usize; 3]; 4] = [[37, 53, 71], [65, 33, 17], [1, 67, 5], [64, 65, 33]];

/// c (M, N) and the sums of absolute products, from a (M, K) and b (K, N).
fn product(a: &[f64], b: &[f64], [m, n, k]: [usize; 3]) -> (Vec<f64>, Vec<f64>) {
    assert_eq!((a.len(), b.len()), (m * k, k * n));
    let sum = |row: usize, col: usize, map: fn(f64) -> f64| -> f64 {
        (0..k).map(|i| map(a[row * k + i] * b[i * n + col])).sum()
    };
    let all = |map: fn(f64) -> f64| (0..m * n).map(|e| sum(e / n, e % n, map)).collect();
    (all(|v| v), all(f64::abs))
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// Within gamma_K of the sum of absolute products: K fused multiply-adds in a chain round K times, in any order of k.
fn check(what: &str, c: &[f32], a: &[f64], b: &[f64], shape: [usize; 3]) {
    let (expected, sizes) = product(a, b, shape);
    let bounds: Vec<f64> = sizes.iter().map(|size| gamma(shape[2]) * size).collect();
    within(what, c, &expected, &bounds);
}

fn grid(n: usize, m: usize, tile: [usize; 2]) -> LaunchConfig {
    LaunchConfig { grid: [n.div_ceil(tile[0]) as u32, m.div_ceil(tile[1]) as u32, 1], ..linear(1, 1) }
}

/// Operands of a shape: numbers between -1 and 1, or small integers, whose products and sums are exact.
fn operands(random: &mut Random, [m, n, k]: [usize; 3], integers: bool) -> (Vec<f32>, Vec<f32>) {
    let mut fill = |len| match integers {
        true => random.ints(len, -8, 8).iter().map(|v| *v as f32).collect(),
        false => random.floats(len, -1.0, 1.0),
    };
    (fill(m * k), fill(k * n))
}

pub(crate) fn matmul_f32(gpu: &mut Gpu) {
    let mut random = Random(6);
    for (shape, integers) in SHAPES.into_iter().flat_map(|shape| [(shape, false), (shape, true)]) {
        let [m, n, k] = shape;
        let (a, b) = operands(&mut random, shape, integers);
        let (da, db) = (gpu.put(&a), gpu.put(&b));
        let configs = [
            ("tiled", LaunchConfig { block: [16, 16, 1], ..grid(n, m, [16, 16]) }),
            ("registers", LaunchConfig { block: [256, 1, 1], ..grid(n, m, [64, 64]) }),
        ];
        for (kernel, config) in configs {
            let c = gpu.space::<f32>(m * n);
            gpu.launch(kernel, &config, &[&da, &db, &c, &(m as u32), &(n as u32), &(k as u32)]);
            let c = gpu.get(c);
            check(kernel, &c, &wide(&a), &wide(&b), shape);
            if integers {
                exactly(kernel, &wide(&c), &product(&wide(&a), &wide(&b), shape).0);
            }
        }
    }
}

/// A matrix (rows, cols) in bfloat16 with rows `stride` elements apart; what lies between is no number.
fn padded(values: &[f32], cols: usize, stride: usize) -> Vec<u16> {
    let row = |row: &[f32]| {
        let mut row: Vec<u16> = row.iter().map(|v| bf16::from_f32(*v).to_bits()).collect();
        row.resize(stride, 0x7fc0);
        row
    };
    values.chunks(cols).flat_map(row).collect()
}

fn transposed(values: &[f32], cols: usize) -> Vec<f32> {
    let rows = values.len() / cols;
    (0..values.len()).map(|e| values[e % rows * cols + e / rows]).collect()
}

pub(crate) fn mma_bf16(gpu: &mut Gpu) {
    let mut random = Random(7);
    for (shape, integers) in SHAPES.into_iter().flat_map(|shape| [(shape, false), (shape, true)]) {
        let [m, n, k] = shape;
        let (a, b) = operands(&mut random, shape, integers);
        let round = |values: &[f32]| values.iter().map(|v| bf16::from_f32(*v).to_f64()).collect::<Vec<_>>();
        let (wa, wb) = (round(&a), round(&b));
        let (lda, by_k, by_n) = (k.next_multiple_of(8), k.next_multiple_of(8) + 8, n.next_multiple_of(8));
        let da = gpu.put(&padded(&a, k, lda));
        for (kernel, db, ldb) in
            [("by_rows", padded(&transposed(&b, n), k, by_k), by_k), ("by_cols", padded(&b, n, by_n), by_n)]
        {
            let (db, c) = (gpu.put(&db), gpu.space::<f32>(m * n));
            let config = LaunchConfig { block: [128, 1, 1], ..grid(n, m, [64, 64]) };
            let sizes = [m, n, k, lda, ldb].map(|v| v as u32);
            gpu.launch(
                kernel,
                &config,
                &[&da, &db, &c, &sizes[0], &sizes[1], &sizes[2], &sizes[3], &sizes[4]],
            );
            let c = gpu.get(c);
            check(kernel, &c, &wa, &wb, shape);
            if integers {
                exactly(kernel, &wide(&c), &product(&wa, &wb, shape).0);
            }
        }
    }
}

/// Rounded to ten bits of fraction, ties away from zero (`cvt.rna.tf32.f32`).
fn tf32(value: f32) -> f64 {
    f64::from(f32::from_bits((value.to_bits() + 0x1000) & !0x1fff))
}

pub(crate) fn mma_tf32(gpu: &mut Gpu) {
    let mut random = Random(8);
    for (shape, integers) in SHAPES.into_iter().flat_map(|shape| [(shape, false), (shape, true)]) {
        let [m, n, k] = shape;
        let (a, b) = operands(&mut random, shape, integers);
        let round = |values: &[f32]| values.iter().map(|v| tf32(*v)).collect::<Vec<_>>();
        let (da, db, c) = (gpu.put(&a), gpu.put(&b), gpu.space::<f32>(m * n));
        let config = LaunchConfig { block: [64, 1, 1], ..grid(n, m, [16, 32]) };
        gpu.launch("tf32_product", &config, &[&da, &db, &c, &(m as u32), &(n as u32), &(k as u32)]);
        let c = gpu.get(c);
        check("tf32_product", &c, &round(&a), &round(&b), shape);
        if integers {
            exactly("tf32_product", &wide(&c), &product(&round(&a), &round(&b), shape).0);
        }
    }
}

pub(crate) fn fragments(gpu: &mut Gpu) {
    let mut random = Random(9);
    let warp = linear(1, 32);
    let tile: Vec<u16> = (0..64).map(|_| random.bits() as u16).collect();
    let (input, out) = (gpu.put(&tile), gpu.space::<u16>(64));
    gpu.launch("transpose_tile", &warp, &[&input, &out]);
    let expected: Vec<u16> = (0..64).map(|e| tile[e % 8 * 8 + e / 8]).collect();
    exactly("transpose_tile", &gpu.get(out), &expected);

    let halves = |values: &[f32]| values.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>();
    let (a, b) = (halves(&random.floats(16 * 8, -2.0, 2.0)), halves(&random.floats(64, -2.0, 2.0)));
    let bits_of = |values: &[f16]| values.iter().map(|v| v.to_bits()).collect::<Vec<u16>>();
    let wide_of = |values: &[f16]| values.iter().map(|v| v.to_f64()).collect::<Vec<f64>>();
    let (da, db, c) = (gpu.put(&bits_of(&a)), gpu.put(&bits_of(&b)), gpu.space::<f32>(16 * 8));
    gpu.launch("half_product", &warp, &[&da, &db, &c]);
    check("half_product", &gpu.get(c), &wide_of(&a), &wide_of(&b), [16, 8, 8]);

    // Small integers: the sums of the first product are at most 64, which bfloat16 holds exactly.
    let mut small = |len| random.ints(len, -2, 2).iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let (a, b, w) = (small(256), small(256), small(128));
    let brain = |values: &[f32]| values.iter().map(|v| bf16::from_f32(*v).to_bits()).collect::<Vec<u16>>();
    let (da, db, dw) = (gpu.put(&brain(&a)), gpu.put(&brain(&b)), gpu.put(&brain(&w)));
    let d = gpu.space::<f32>(128);
    gpu.launch("chained", &warp, &[&da, &db, &dw, &d]);
    let (hidden, _) = product(&wide(&a), &wide(&b), [16, 16, 16]);
    let (expected, _) = product(&hidden, &wide(&w), [16, 8, 16]);
    bits("chained", &gpu.get(d), &expected.iter().map(|v| *v as f32).collect::<Vec<f32>>());
}

/// The bytes of a whole number in a type.
fn element(ty: &str, value: i32) -> Vec<u8> {
    match ty {
        "bf16" => bf16::from_f32(value as f32).to_le_bytes().into(),
        "f16" => f16::from_f32(value as f32).to_le_bytes().into(),
        "tf32" => (value as f32).to_le_bytes().into(),
        _ => vec![value as u8],
    }
}

/// Kernels of `wgmma.cu`: name, columns, terms, types, and the sign of the result.
const WARPGROUP_PRODUCTS: [(&str, usize, usize, [&str; 2], i32); 19] = [
    ("bf16_plain", 8, 16, ["bf16", "bf16"], 1),
    ("bf16_swizzled_32", 16, 16, ["bf16", "bf16"], 1),
    ("bf16_swizzled_64", 24, 16, ["bf16", "bf16"], 1),
    ("bf16_swizzled_128", 32, 16, ["bf16", "bf16"], 1),
    ("bf16_across_plain", 24, 16, ["bf16", "bf16"], 1),
    ("bf16_across_32", 32, 16, ["bf16", "bf16"], 1),
    ("bf16_across_64", 64, 16, ["bf16", "bf16"], 1),
    ("bf16_across_128", 128, 16, ["bf16", "bf16"], 1),
    ("bf16_a_across", 16, 16, ["bf16", "bf16"], 1),
    ("bf16_held", 64, 16, ["bf16", "bf16"], -1),
    ("bf16_advanced", 8, 64, ["bf16", "bf16"], 1),
    ("bf16_released", 8, 16, ["bf16", "bf16"], 1),
    ("f16_negated", 16, 16, ["f16", "f16"], -1),
    ("f16_b_across", 32, 16, ["f16", "f16"], 1),
    ("tf32_swizzled_128", 16, 8, ["tf32", "tf32"], 1),
    ("tf32_held", 8, 8, ["tf32", "tf32"], -1),
    ("s8_swizzled_64", 16, 32, ["s8", "s8"], 1),
    ("u8_s8_held", 24, 32, ["u8", "s8"], 1),
    ("s8_u8_saturated", 8, 32, ["s8", "u8"], 1),
];

/// Whole numbers, of which every sum is exact in whatever order: what counts is which element meets which.
pub(crate) fn wgmma(gpu: &mut Gpu) {
    let mut random = Random(10);
    for (kernel, n, k, types, sign) in WARPGROUP_PRODUCTS {
        let mut draw = |ty: &str, len: usize| match ty {
            "s8" => random.ints(len, -128, 127),
            "u8" => random.ints(len, 0, 255),
            _ => random.ints(len, -100, 100),
        };
        let (a, b) = (draw(types[0], 64 * k), draw(types[1], n * k));
        let bytes =
            |ty, values: &[i32]| values.iter().flat_map(|value| element(ty, *value)).collect::<Vec<u8>>();
        let (da, db) = (gpu.put(&bytes(types[0], &a)), gpu.put(&bytes(types[1], &b)));
        for twice in [0u32, 1] {
            let d = gpu.space::<u32>(64 * n);
            let threads = if kernel == "bf16_released" { 160 } else { 128 };
            gpu.launch(kernel, &linear(1, threads), &[&da, &db, &d, &twice]);
            let sum = |at: usize| -> i32 {
                let (row, column) = (at / n, at % n);
                let terms = (0..k).map(|term| a[row * k + term] * b[column * k + term]);
                sign * (1 + twice as i32) * terms.sum::<i32>()
            };
            let is_int = types[0].ends_with('8');
            let word = |sum: i32| if is_int { sum as u32 } else { (sum as f32).to_bits() };
            exactly(kernel, &gpu.get(d), &(0..64 * n).map(|at| word(sum(at))).collect::<Vec<u32>>());
        }
    }
}

/// A tile of 16 terms of each line: the first eight of all lines, then the others.
fn tiles(values: &[f32], terms: usize) -> Vec<u16> {
    let lines = values.len() / terms;
    let chunks = (0..terms / 8).flat_map(|chunk| (0..lines).map(move |line| line * terms + chunk * 8));
    chunks.flat_map(|at| values[at..at + 8].iter().map(|value| bf16::from_f32(*value).to_bits())).collect()
}

/// Fewer steps than stages, as many, and several rounds.
pub(crate) fn wgmma_pipeline(gpu: &mut Gpu) {
    let mut random = Random(11);
    for steps in [1, 2, 7] {
        let shape = [64, 8, 16 * steps];
        let (a, b) = operands(&mut random, shape, true);
        let by_columns = transposed(&b, 8);
        let (da, db) = (gpu.put(&tiles(&a, shape[2])), gpu.put(&tiles(&by_columns, shape[2])));
        let d = gpu.space::<f32>(64 * 8);
        gpu.launch("wgmma_pipeline", &linear(1, 256), &[&da, &db, &d, &(steps as u32)]);
        exactly("wgmma_pipeline", &wide(&gpu.get(d)), &product(&wide(&a), &wide(&b), shape).0);
    }
}
