//! Threads and blocks that wait for each other.

use kiln_sim::device::LaunchConfig;

use crate::compare::exactly;
use crate::gpu::{Gpu, Random, linear};

fn cooperative(blocks: usize, threads: usize) -> LaunchConfig {
    LaunchConfig { cooperative: true, ..linear(blocks, threads) }
}

pub(crate) fn grid_sync(gpu: &mut Gpu) {
    let mut random = Random(20);
    for (n, steps, blocks, threads) in [(211, 4u32, 3, 32), (1, 1, 2, 32), (97, 3, 4, 37), (5, 0, 2, 32)] {
        let mut expected: Vec<u32> = (0..n).map(|_| random.bits() as u32).collect();
        let buffers = [gpu.put(&expected), gpu.space::<u32>(n)];
        gpu.launch("smooth", &cooperative(blocks, threads), &[&buffers[0], &buffers[1], &(n as u32), &steps]);
        for _ in 0..steps {
            let sum = |i: usize| {
                expected[(i + n - 1) % n].wrapping_add(expected[i]).wrapping_add(expected[(i + 1) % n])
            };
            expected = (0..n).map(sum).collect();
        }
        exactly("smooth", &gpu.get(buffers[steps as usize % 2]), &expected);
    }
}

pub(crate) fn named_barriers(gpu: &mut Gpu) {
    let mut random = Random(21);
    for rounds in [1usize, 2, 7] {
        let x = random.ints(rounds * 64, -1000, 1000);
        let (input, out) = (gpu.put(&x), gpu.space::<i32>(rounds * 64));
        gpu.launch("relay", &linear(1, 128), &[&input, &out, &(rounds as i32)]);
        let expected: Vec<i32> = x.chunks(64).flat_map(|row| row.iter().rev().map(|v| v + 1)).collect();
        exactly("relay", &gpu.get(out), &expected);
    }
    for threads in [64usize, 97, 1] {
        // A block of any numbers, one of odd ones, one of even ones.
        let x: Vec<i32> = random
            .ints(3 * threads, -1000, 1000)
            .iter()
            .enumerate()
            .map(|(i, v)| match i / threads {
                0 => *v,
                1 => v | 1,
                _ => v & !1,
            })
            .collect();
        let (input, out) = (gpu.put(&x), gpu.space::<i32>(9));
        gpu.launch("votes", &linear(3, threads), &[&input, &out]);
        let odd: Vec<usize> =
            x.chunks(threads).map(|block| block.iter().filter(|v| *v & 1 == 1).count()).collect();
        let mut expected: Vec<i32> = odd.iter().map(|count| *count as i32).collect();
        expected.extend(odd.iter().map(|count| i32::from(*count == threads)));
        expected.extend(odd.iter().map(|count| i32::from(*count > 0)));
        exactly("votes", &gpu.get(out), &expected);
    }
}

pub(crate) fn messages(gpu: &mut Gpu) {
    let mut random = Random(22);
    let blocks = 7;
    let x: Vec<u32> = (0..blocks).map(|_| random.bits() as u32).collect();
    let sums: Vec<u32> =
        (1..=blocks).map(|n| x[..n].iter().fold(0, |a: u32, b| a.wrapping_add(*b))).collect();
    for kernel in ["relay", "relay_fences"] {
        let (input, number, flags) =
            (gpu.put(&x), gpu.put(&vec![0u32; blocks]), gpu.put(&vec![0u32; blocks]));
        gpu.launch(kernel, &cooperative(blocks, 1), &[&input, &number, &flags]);
        exactly(kernel, &gpu.get(number), &sums);
    }

    let (flags, numbers) = (gpu.put(&[0u32; 2]), gpu.put(&[0u32; 3]));
    gpu.launch("lanes_in_line", &linear(1, 3), &[&flags, &numbers]);
    exactly("lanes_in_line", &gpu.get(numbers), &[3, 2, 1]);

    let (word, counter) = (gpu.put(&[0u32]), gpu.put(&[0u32, 0]));
    gpu.launch("spin_lock", &linear(3, 37), &[&word, &counter]);
    exactly("spin_lock", &gpu.get(counter), &[3 * 37, 3 * (36 * 37 / 2)]);
    exactly("spin_lock, released", &gpu.get(word), &[0]);

    let (next, serving, length) = (gpu.put(&[0u32]), gpu.put(&[0u32]), gpu.put(&[0u32]));
    let order = gpu.space::<u32>(blocks);
    gpu.launch("ticket_lock", &cooperative(blocks, 1), &[&next, &serving, &order, &length]);
    exactly("ticket_lock, length", &gpu.get(length), &[blocks as u32]);
    let mut served = gpu.get(order);
    served.sort_unstable();
    exactly("ticket_lock, every block once", &served, &(0..blocks as u32).collect::<Vec<u32>>());

    for rounds in [1u32, 11] {
        let out = gpu.space::<u32>(2);
        gpu.launch("ping_pong", &linear(1, 64), &[&out, &rounds]);
        let value = (0..2 * rounds).fold(0u32, |v, turn| v.wrapping_mul(3).wrapping_add(turn % 2 + 1));
        exactly("ping_pong", &gpu.get(out), &[value, rounds]);
    }
}
