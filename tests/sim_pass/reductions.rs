//! Sums, histograms, and softmax.

use kiln_sim::device::LaunchConfig;

use crate::compare::{U, exactly, gamma, within};
use crate::gpu::{Gpu, Random, linear};

pub(crate) fn block_reduce(gpu: &mut Gpu) {
    let mut random = Random(1);
    for (n, blocks, threads) in [(1009, 3, 96), (131, 2, 256), (64, 1, 64), (4099, 5, 160), (2, 2, 32)] {
        let x = random.floats(n, -1.0, 1.0);
        sums(gpu, "shuffle", &x, blocks, threads);
        sums(gpu, "shared_tree", &x, blocks, threads);
    }
    // Any block will do for the tree: odd, prime, one past a power of two, a single thread.
    for (n, blocks, threads) in [(257, 3, 37), (101, 2, 65), (13, 3, 1), (1500, 1, 1000)] {
        let x = random.floats(n, -1.0, 1.0);
        sums(gpu, "shared_tree", &x, blocks, threads);
    }
    let x: Vec<f32> = random.ints(1777, -500, 500).iter().map(|v| *v as f32).collect();
    for kernel in ["shuffle", "shared_tree"] {
        assert_eq!(sums(gpu, kernel, &x, 1, 128)[0], x.iter().sum::<f32>(), "{kernel}: small integers");
    }
}

/// Runs one of the kernels of `block_reduce`; the blocks' sums.
fn sums(gpu: &mut Gpu, kernel: &str, x: &[f32], blocks: usize, threads: usize) -> Vec<f32> {
    let (input, output) = (gpu.put(x), gpu.space::<f32>(blocks));
    let shared = if kernel == "shared_tree" { 4 * threads as u32 } else { 0 };
    let config = LaunchConfig { dynamic_shared: shared, ..linear(blocks, threads) };
    gpu.launch(kernel, &config, &[&input, &output, &(x.len() as u32)]);
    let got = gpu.get(output);
    // Additions on the longest path: strides, halvings (the shuffles' halve twice), and one more.
    let path = x.len().div_ceil(blocks * threads) + 2 * threads.next_power_of_two().ilog2() as usize + 1;
    let of_block = |block: usize, map: fn(f64) -> f64| -> f64 {
        let mine = |i: &usize| i % (blocks * threads) / threads == block;
        (0..x.len()).filter(mine).map(|i| map(f64::from(x[i]))).sum()
    };
    let expected: Vec<f64> = (0..blocks).map(|block| of_block(block, |v| v)).collect();
    let bounds: Vec<f64> = (0..blocks).map(|block| gamma(path) * of_block(block, f64::abs)).collect();
    within(kernel, &got, &expected, &bounds);
    got
}

pub(crate) fn last_block(gpu: &mut Gpu) {
    let mut random = Random(2);
    let ticket = gpu.put(&[0u32]);
    for (n, blocks, threads) in [(1013, 7, 64), (31, 5, 37), (1, 3, 32)] {
        let x = random.ints(n, -1_000_000, 1_000_000);
        let (input, partial, out) = (gpu.put(&x), gpu.space::<i32>(blocks), gpu.space::<i32>(1));
        gpu.launch("last_block", &linear(blocks, threads), &[&input, &partial, &ticket, &out, &(n as u32)]);
        exactly("sum", &gpu.get(out), &[x.iter().sum::<i32>()]);
        exactly("ticket, ready for the next launch", &gpu.get(ticket), &[0]);
    }
}

pub(crate) fn histogram(gpu: &mut Gpu) {
    let mut random = Random(3);
    for (n, blocks, threads) in [(1009usize, 3, 64), (4801, 4, 97)] {
        // Few values are frequent, most are rare.
        let x: Vec<u8> = (0..n).map(|_| (random.int(0, 255) * random.int(0, 255) / 255) as u8).collect();
        let mut expected = [0u32; 256];
        x.iter().for_each(|value| expected[usize::from(*value)] += 1);
        for kernel in ["in_global", "in_shared"] {
            let (input, counts) = (gpu.put(&x), gpu.put(&[0u32; 256]));
            gpu.launch(kernel, &linear(blocks, threads), &[&input, &counts, &(n as u32)]);
            exactly(kernel, &gpu.get(counts), &expected);
        }
    }
    let x = random.ints(331, -1000, 1000);
    let all = gpu.put(&[5, 6, 0, 0, -1, 0, 77, 0, 0, 0]);
    let (input, sum, wide) = (gpu.put(&x), gpu.put(&[0.5f32]), gpu.put(&[7u64]));
    gpu.launch("every_atomic", &linear(6, 64), &[&input, &all, &sum, &wide, &331u32]);
    let total: i32 = x.iter().sum();
    let expected = [
        5 + total,
        6 - total,
        x.iter().fold(0, |a, b| a.min(*b)),
        x.iter().fold(0, |a, b| a.max(*b)),
        x.iter().fold(-1, |a, b| a & b),
        x.iter().fold(0, |a, b| a | b),
        x.iter().fold(77, |a, b| a ^ b),
        331 % 17,
        13 - 331 % 13,
        x.iter().map(|v| v * v).sum(),
    ];
    exactly("every_atomic", &gpu.get(all), &expected);
    exactly("float sum", &gpu.get(sum), &[331.5]);
    let most = x.iter().map(|v| u64::from(*v as u32) << 20).max().unwrap();
    exactly("64-bit maximum", &gpu.get(wide), &[most.max(7)]);
}

pub(crate) fn softmax_xent(gpu: &mut Gpu) {
    let mut random = Random(4);
    for (rows, classes) in [(37, 53), (5, 10), (9, 33), (4, 1)] {
        let logits = random.floats(rows * classes, -20.0, 20.0); // (B, C)
        let labels = random.ints(rows, 0, classes as i64 - 1);
        let (z, y) = (gpu.put(&logits), gpu.put(&labels));
        let (loss, dlogits) = (gpu.space::<f32>(rows), gpu.space::<f32>(rows * classes));
        let config = LaunchConfig { block: [32, 4, 1], ..linear(rows.div_ceil(4), 1) };
        gpu.launch("softmax_xent", &config, &[&z, &y, &loss, &dlogits, &(rows as u32), &(classes as u32)]);
        let reference = Softmax::of(&logits, &labels, classes);
        within("loss", &gpu.get(loss), &reference.loss, &reference.loss_bound);
        within("dlogits", &gpu.get(dlogits), &reference.gradient, &reference.gradient_bound);
    }
}

/// The reference, with bounds to first order times 1.01 for the rest.
#[derive(Default)]
struct Softmax {
    loss: Vec<f64>,
    loss_bound: Vec<f64>,
    gradient: Vec<f64>,
    gradient_bound: Vec<f64>,
}

impl Softmax {
    fn of(logits: &[f32], labels: &[i32], classes: usize) -> Softmax {
        let mut found = Softmax::default();
        let mean = 1.0 / labels.len() as f64;
        for (row, label) in logits.chunks(classes).zip(labels) {
            let z: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
            let high = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = z.iter().map(|v| (v - high).exp()).sum();
            let span = z.iter().map(|v| high - v).fold(0.0, f64::max);
            // expf is within 2 units (4 u); its argument is rounded, which moves the result by u times its size.
            let exponential = (4.0 + span) * U;
            let of_sum = exponential + gamma(classes.div_ceil(32) + 5);
            let label = usize::try_from(*label).unwrap();
            let log = sum.ln();
            let loss = log + high - z[label];
            found.loss.push(loss);
            // logf is within 1 unit (2 u); then two rounded additions.
            let steps = 2.0 * U * log.abs() + U * (log + high).abs() + U * loss.abs();
            found.loss_bound.push(1.01 * (of_sum + steps));
            for (c, v) in z.iter().enumerate() {
                let p = (v - high).exp() / sum;
                let rest = p - if c == label { 1.0 } else { 0.0 };
                found.gradient.push(rest * mean);
                // The quotient's reciprocal and product are rounded, so are the difference, 1 / B and the last product.
                let error = p * (exponential + of_sum + 2.0 * U) + 3.0 * U * rest.abs();
                found.gradient_bound.push(1.01 * error * mean);
            }
        }
        found
    }
}
