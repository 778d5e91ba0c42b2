//! Divergence, local arrays, and calls.

use crate::compare::exactly;
use crate::gpu::{Gpu, Random, linear};

pub(crate) fn control(gpu: &mut Gpu) {
    let mut random = Random(40);
    let n = 131;
    let mut x = random.ints(n, i64::from(i32::MIN), i64::from(i32::MAX));
    x[..22].copy_from_slice(&(0..22).collect::<Vec<i32>>());
    let (input, out) = (gpu.put(&x), gpu.space::<i32>(n));
    gpu.launch("table", &linear(3, 64), &[&input, &out, &(n as u32)]);
    exactly("table", &gpu.get(out), &x.iter().map(|v| table(*v)).collect::<Vec<i32>>());

    let x: Vec<u32> = (0..n).map(|_| random.int(0, 5000) as u32).collect();
    let input = gpu.put(&x);
    for (kernel, reference) in [("collatz", collatz as fn(u32) -> u32), ("next_prime", next_prime)] {
        let out = gpu.space::<u32>(n);
        gpu.launch(kernel, &linear(3, 64), &[&input, &out, &(n as u32)]);
        exactly(kernel, &gpu.get(out), &x.iter().map(|v| reference(*v)).collect::<Vec<u32>>());
    }

    let x: Vec<i16> = (0..n * 11).map(|_| random.bits() as i16).collect();
    let (input, out) = (gpu.put(&x), gpu.space::<i16>(n * 11));
    gpu.launch("insertion_sort", &linear(3, 64), &[&input, &out, &(n as u32)]);
    let mut sorted = x;
    sorted.chunks_mut(11).for_each(<[i16]>::sort_unstable);
    exactly("insertion_sort", &gpu.get(out), &sorted);

    let x = random.ints(32, -1000, 1000);
    let (input, out) = (gpu.put(&x), gpu.space::<i32>(32));
    gpu.launch("halves", &linear(1, 32), &[&input, &out]);
    let total = x[..16].iter().sum::<i32>() + x[16..].iter().max().unwrap();
    exactly("halves", &gpu.get(out), &[total; 32]);
}

fn table(v: i32) -> i32 {
    match v % 11 {
        0 => v.wrapping_mul(3).wrapping_add(1),
        1 => v ^ 0x55,
        2 => v.wrapping_sub(1000).wrapping_neg(),
        3 => v.wrapping_neg(),
        4 => v / 7,
        5 => v.count_ones() as i32,
        6 => v << 3,
        7 => !v.reverse_bits(),
        8 => !v,
        9 => v.wrapping_mul(v),
        _ => 42,
    }
}

fn collatz(x: u32) -> u32 {
    let mut v = u64::from(x) + 1;
    let mut steps = 0;
    while v != 1 {
        v = if v % 2 == 1 { 3 * v + 1 } else { v / 2 };
        steps += 1;
    }
    steps
}

fn next_prime(x: u32) -> u32 {
    (x.max(2)..).find(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0)).unwrap()
}

pub(crate) fn calls(gpu: &mut Gpu) {
    let mut random = Random(41);
    let n = 67;
    let a: Vec<i64> = (0..n).map(|i| random.bits() as i64 >> (i % 64)).collect();
    let b: Vec<i32> =
        (0..n).map(|_| random.int(1, 100_000) as i32 * (1 - 2 * random.int(0, 1) as i32)).collect();
    let (da, db) = (gpu.put(&a), gpu.put(&b));
    let (low, high) = (gpu.space::<i32>(n), gpu.space::<i64>(n));
    let config = linear(3, 32);
    gpu.launch("divide", &config, &[&da, &db, &low, &high, &(n as u32)]);
    let pairs = || a.iter().zip(&b).map(|(a, b)| (*a, i64::from(*b)));
    exactly("remainder", &gpu.get(low), &pairs().map(|(a, b)| (a % b) as i32).collect::<Vec<i32>>());
    exactly("quotient", &gpu.get(high), &pairs().map(|(a, b)| a / b).collect::<Vec<i64>>());

    let x: Vec<u32> = (0..n).map(|_| random.int(0, 1000) as u32).collect();
    let (input, fib, ack) = (gpu.put(&x), gpu.space::<u32>(n), gpu.space::<u32>(n));
    gpu.launch("recurse", &config, &[&input, &fib, &ack, &(n as u32)]);
    exactly("fibonacci", &gpu.get(fib), &x.iter().map(|v| fibonacci(v % 12)).collect::<Vec<u32>>());
    let expected: Vec<u32> = x.iter().map(|v| ackermann(v % 3, v % 5)).collect();
    exactly("ackermann", &gpu.get(ack), &expected);

    let x = random.ints(3 * n, -100, 100);
    let (input, out) = (gpu.put(&x), gpu.space::<i32>(3 * n));
    gpu.launch("frames", &config, &[&input, &out, &(n as u32)]);
    let mut sorted = x.clone();
    sorted.chunks_mut(3).for_each(<[i32]>::sort_unstable);
    exactly("frames", &gpu.get(out), &sorted);

    let y = random.ints(n, -100, 100);
    let (dx, dy, out) = (gpu.put(&x[..n]), gpu.put(&y), gpu.space::<i32>(n));
    gpu.launch("pointers", &config, &[&dx, &dy, &out, &(n as u32)]);
    let expected: Vec<i32> = x
        .iter()
        .zip(&y)
        .map(|(x, y)| match *x as u32 % 4 {
            0 => x + y,
            1 => x - y,
            2 => x * y,
            _ => *x.max(y),
        })
        .collect();
    exactly("pointers", &gpu.get(out), &expected);
}

fn fibonacci(n: u32) -> u32 {
    (0..n).fold((0, 1), |(a, b), _| (b, a + b)).0
}

fn ackermann(m: u32, n: u32) -> u32 {
    match (m, n) {
        (0, n) => n + 1,
        (1, n) => n + 2,
        (2, n) => 2 * n + 3,
        _ => unreachable!("m is below 3"),
    }
}
