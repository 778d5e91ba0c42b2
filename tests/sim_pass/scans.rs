//! Prefix sums.

use crate::compare::exactly;
use crate::gpu::{Gpu, Random, linear};

fn prefixes(x: &[i32]) -> Vec<i32> {
    x.iter()
        .scan(0i32, |sum, v| {
            *sum = sum.wrapping_add(*v);
            Some(*sum)
        })
        .collect()
}

pub(crate) fn scan(gpu: &mut Gpu) {
    let mut random = Random(5);
    for (n, threads) in [(1009usize, 256usize), (257, 256), (97, 32), (643, 61), (1, 96)] {
        let x = random.ints(n, i64::from(i32::MIN), i64::from(i32::MAX));
        let (blocks, expected) = (n.div_ceil(threads), prefixes(&x));
        let (input, out, totals) = (gpu.put(&x), gpu.space::<i32>(n), gpu.space::<i32>(blocks));
        let config = linear(blocks, threads);
        gpu.launch("tile_scan", &config, &[&input, &out, &totals, &(n as u32)]);
        gpu.launch("add_totals", &config, &[&out, &totals, &(n as u32)]);
        exactly("tile_scan, add_totals", &gpu.get(out), &expected);

        let (out, words, ticket) = (gpu.space::<i32>(n), gpu.put(&vec![0u64; blocks]), gpu.put(&[0u32]));
        gpu.launch("lookback", &config, &[&input, &out, &words, &ticket, &(n as u32)]);
        exactly("lookback", &gpu.get(out), &expected);
        exactly("tickets taken", &gpu.get(ticket), &[blocks as u32]);
    }
}
