//! What the lanes of a warp tell each other.

use crate::compare::exactly;
use crate::gpu::{Gpu, Random, linear};
use crate::rows::rows;

pub(crate) fn warp_ops(gpu: &mut Gpu) {
    exchanges(gpu);
    let mut random = Random(30);
    let x = random.ints(96, -1000, 1000);
    let (input, out) = (gpu.put(&x), gpu.space::<i32>(96));
    gpu.launch("groups", &linear(1, 96), &[&input, &out, &96u32]);
    let value = |i: usize| {
        let odd = x[i] & 1;
        let sum: i32 = x[i / 32 * 32..][..32].iter().filter(|v| *v & 1 == odd).sum();
        if odd == 1 { sum } else { -sum }
    };
    exactly("groups", &gpu.get(out), &(0..96).map(value).collect::<Vec<i32>>());

    let (blocks, threads) = (2, 96);
    let x = random.ints(blocks * threads, -1000, 1000);
    let (input, out) = (gpu.put(&x), gpu.space::<i32>(blocks * threads));
    gpu.launch("neighbours", &linear(blocks, threads), &[&input, &out]);
    let sum = |i: usize| x[i] + x[i ^ 1];
    let expected: Vec<i32> = (0..blocks * threads).map(|i| sum(i) * sum(i ^ 2)).collect();
    exactly("neighbours", &gpu.get(out), &expected);
}

fn exchanges(gpu: &mut Gpu) {
    let mut random = Random(31);
    // Any values; all odd; all the same; all above 90.
    let mut x = random.ints(32, -100, 100);
    x.extend(random.ints(32, -100, 100).iter().map(|v| v | 1));
    x.extend([7; 32]);
    x.extend(random.ints(32, 91, 1 << 30));
    let input = gpu.put(&x);
    let got = rows::<i32>(gpu, "exchanges", &[&input], 16, x.len());
    let mut expected = vec![Vec::new(); 16];
    for warp in x.chunks(32) {
        for lane in 0..32 {
            for (row, value) in expected.iter_mut().zip(lane_results(warp, lane)) {
                row.push(value);
            }
        }
    }
    for (k, (got, expected)) in got.iter().zip(&expected).enumerate() {
        exactly(&format!("exchanges, row {k}"), got, expected);
    }
}

/// The lanes for which a condition holds, one bit each.
fn ballot(holds: impl Fn(usize) -> bool) -> i32 {
    (0..32).filter(|lane| holds(*lane)).fold(0u32, |mask, lane| mask | 1 << lane) as i32
}

fn lane_results(v: &[i32], lane: usize) -> [i32; 16] {
    let odd = |l: usize| v[l] & 1;
    let same = v.iter().all(|value| value & 1 == v[0] & 1);
    let below = (1u32 << lane) - 1;
    let up_to = below | 1 << lane;
    [
        ballot(|l| odd(l) == 1),
        i32::from(v.iter().all(|value| *value > 0)),
        i32::from(v.iter().any(|value| *value > 90)),
        ballot(|l| v[l] & 3 == v[lane] & 3),
        if same { -1 } else { 0 },
        i32::from(same),
        v.iter().fold(0i32, |a, b| a.wrapping_add(*b)),
        v.iter().copied().min().unwrap(),
        v.iter().map(|value| *value as u32).max().unwrap() as i32,
        v.iter().fold(0, |a, b| a ^ b),
        v[(v[lane] & 31) as usize],
        v[lane.checked_sub(3).unwrap_or(lane)],
        if lane % 8 + 5 < 8 { v[lane + 5] } else { v[lane] },
        v[lane ^ 7],
        ((below & !(1 << (v[lane] & 31))).count_ones() + (up_to >> lane)) as i32,
        ballot(|l| v[l] % 5 == v[lane] % 5),
    ]
}
