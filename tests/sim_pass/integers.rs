//! Integer arithmetic.

use crate::compare::exactly;
use crate::gpu::{Gpu, Random};
use crate::rows::rows;

/// Values of which every pair is tried: the edges, and some others.
fn pairs<T: Copy>(values: &[T]) -> (Vec<T>, Vec<T>) {
    values.iter().flat_map(|a| values.iter().map(|b| (*a, *b))).unzip()
}

fn check<const K: usize>(what: &str, got: &[Vec<i64>], expected: &[[i64; K]]) {
    for k in 0..K {
        let row: Vec<i64> = expected.iter().map(|results| results[k]).collect();
        exactly(&format!("{what}, row {k}"), &got[k], &row);
    }
}

fn widened(rows: Vec<Vec<i32>>) -> Vec<Vec<i64>> {
    rows.into_iter().map(|row| row.into_iter().map(i64::from).collect()).collect()
}

pub(crate) fn integers(gpu: &mut Gpu) {
    let mut random = Random(50);
    let mut values = vec![0, 1, -1, 2, 31, 32, 33, 63, i32::MAX, i32::MIN, i32::MIN + 1, 0x0080_0000];
    values.extend(random.ints(7, i64::from(i32::MIN), i64::from(i32::MAX)));
    let (a, b) = pairs(&values);
    let (da, db) = (gpu.put(&a), gpu.put(&b));
    let got = widened(rows::<i32>(gpu, "words", &[&da, &db], 24, a.len()));
    let expected: Vec<_> = a.iter().zip(&b).map(|(a, b)| words(*a, *b).map(i64::from)).collect();
    check("words", &got, &expected);

    let mut values = vec![0, 1, -1, 2, 63, 64, 1 << 32, i64::MAX, i64::MIN, i64::MIN + 1, 0xffff_ffff];
    values.extend((0..7).map(|_| random.bits() as i64));
    let (a, b) = pairs(&values);
    let (da, db) = (gpu.put(&a), gpu.put(&b));
    let got = rows::<i64>(gpu, "long_words", &[&da, &db], 14, a.len());
    let expected: Vec<_> = a.iter().zip(&b).map(|(a, b)| long_words(*a, *b)).collect();
    check("long_words", &got, &expected);

    let mut x =
        vec![0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.999_999_94, 1e10, -1e10, 3e9, 1e30, -1e30, 1e-30];
    x.extend(random.floats(53, -3e9, 3e9));
    let y: Vec<f64> = x.iter().map(|v| f64::from(*v) * 1.000_000_012_3).collect();
    let (dx, dy) = (gpu.put(&x), gpu.put(&y));
    let got = rows::<i64>(gpu, "conversions", &[&dx, &dy], 12, x.len());
    let expected: Vec<_> = x.iter().zip(&y).map(|(x, y)| conversions(*x, *y)).collect();
    check("conversions", &got, &expected);
}

fn words(x: i32, y: i32) -> [i32; 24] {
    let (ux, uy) = (x as u32, y as u32);
    let low24 = |v: i32| i64::from(v << 8 >> 8);
    let both = u64::from(uy) << 32 | u64::from(ux);
    let difference = |a: i64, b: i64| ((a - b).abs() + 5) as i32;
    let bytes = |v: i32| v.to_le_bytes().map(|byte| i32::from(byte as i8));
    let dot = bytes(x).iter().zip(bytes(y)).map(|(a, b)| a * b).sum::<i32>();
    [
        x.checked_div(y).unwrap_or(0),
        x.checked_rem(y).unwrap_or(0),
        ux.checked_div(uy).unwrap_or(0) as i32,
        ux.checked_rem(uy).unwrap_or(0) as i32,
        ((i64::from(x) * i64::from(y)) >> 32) as i32,
        ((u64::from(ux) * u64::from(uy)) >> 32) as i32,
        (low24(x) * low24(y)) as i32,
        (u64::from(ux & 0xff_ffff) * u64::from(uy & 0xff_ffff)) as i32,
        x.leading_zeros() as i32,
        if x == 0 { 0 } else { x.trailing_zeros() as i32 + 1 },
        x.count_ones() as i32,
        x.reverse_bits(),
        byte_perm(both, 0x7531 ^ (ux & 0x7777)),
        (both << 11 >> 32) as i32,
        (both >> (uy & 31)) as i32,
        (both << (uy & 63).min(32) >> 32) as i32,
        difference(x.into(), y.into()),
        difference(ux.into(), uy.into()),
        ((i64::from(x) + i64::from(y)) >> 1) as i32,
        ((u64::from(ux) + u64::from(uy) + 1) >> 1) as i32,
        x.wrapping_abs(),
        x.min(y) ^ x.max(y),
        dot + 17,
        x >> (y & 31),
    ]
}

/// Four bytes of eight, each chosen by three bits of a hexadecimal digit of the selector.
fn byte_perm(both: u64, selector: u32) -> i32 {
    let byte = |n: u32| both.to_le_bytes()[(selector >> (4 * n) & 7) as usize];
    i32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
}

fn long_words(x: i64, y: i64) -> [i64; 14] {
    let (ux, uy) = (x as u64, y as u64);
    [
        x.checked_div(y).unwrap_or(0),
        x.checked_rem(y).unwrap_or(0),
        ux.checked_div(uy).unwrap_or(0) as i64,
        ux.checked_rem(uy).unwrap_or(0) as i64,
        x.wrapping_mul(y),
        ((i128::from(x) * i128::from(y)) >> 64) as i64,
        ((u128::from(ux) * u128::from(uy)) >> 64) as i64,
        x.leading_zeros().into(),
        if x == 0 { 0 } else { i64::from(x.trailing_zeros()) + 1 },
        x.count_ones().into(),
        x.reverse_bits(),
        x << (y & 63),
        x >> (y & 63),
        (i64::from(x as i32) * i64::from(y as i32)).wrapping_add(x.min(y)),
    ]
}

/// Conversions saturate, as Rust's do.
fn conversions(x: f32, y: f64) -> [i64; 12] {
    let bits = |value: f32| i64::from(value.to_bits() as i32);
    [
        (x.round_ties_even() as i32).into(),
        (x as i32).into(),
        (x.ceil() as i32).into(),
        (x.floor() as i32).into(),
        (x as u32).into(),
        x.round_ties_even() as i64,
        (x as u64) as i64,
        (y.round_ties_even() as i32).into(),
        (y as u32).into(),
        y.floor() as i64,
        bits(y as i64 as f32),
        bits(y as f32),
    ]
}
