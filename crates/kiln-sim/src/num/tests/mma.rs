//! Matrix products in f32: layouts written from the ISA's formulas, one shape at a time, and sums in f64.

use super::*;
use crate::num::convert::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::num::mma::*;

/// Row and column of element i of a lane, given the lane's group and its place in it.
pub(super) type Layout = fn(g: usize, t: usize, i: usize) -> (usize, usize);

/// Where a shape's elements are: A, B, C, and the sizes M and K.
pub(super) struct Shape {
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) a: Layout,
    pub(super) b: Layout,
    pub(super) c: Layout,
}

pub(super) const C16: Layout = |g, t, i| (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1));

const M16N8K16: Shape = Shape {
    m: 16,
    k: 16,
    a: |g, t, i| {
        let row = if i < 2 || (4..6).contains(&i) { g } else { g + 8 };
        (row, if i < 4 { t * 2 + (i & 1) } else { t * 2 + (i & 1) + 8 })
    },
    b: |g, t, i| (if i < 2 { t * 2 + (i & 1) } else { t * 2 + (i & 1) + 8 }, g),
    c: C16,
};
const M16N8K8: Shape = Shape {
    m: 16,
    k: 8,
    a: |g, t, i| (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1)),
    b: |g, t, i| (t * 2 + i, g),
    c: C16,
};
const M16N8K4_TF32: Shape =
    Shape { m: 16, k: 4, a: |g, t, i| (if i == 0 { g } else { g + 8 }, t), b: |g, t, _| (t, g), c: C16 };
const M16N8K8_TF32: Shape = Shape {
    m: 16,
    k: 8,
    a: |g, t, i| (if i % 2 == 0 { g } else { g + 8 }, if i < 2 { t } else { t + 4 }),
    b: |g, t, i| (if i == 0 { t } else { t + 4 }, g),
    c: C16,
};

/// Patterns of a matrix, by row and column.
pub(super) type Matrix = Vec<Vec<u64>>;

pub(super) fn matrix(rows: usize, columns: usize, mut pattern: impl FnMut() -> u64) -> Matrix {
    (0..rows).map(|_| (0..columns).map(|_| pattern()).collect()).collect()
}

/// The registers that hold a matrix of elements of `bits` bits, lowest first.
pub(super) fn load<const R: usize>(matrix: &Matrix, layout: Layout, bits: usize) -> [Row; R] {
    let each = 32 / bits;
    let mut registers = [[0; 32]; R];
    for i in 0..R * each {
        for (lane, word) in registers[i / each].iter_mut().enumerate() {
            let (row, column) = layout(lane >> 2, lane % 4, i);
            *word |= (matrix[row][column] as u32) << (bits * (i % each));
        }
    }
    registers
}

pub(super) fn store<const R: usize>(registers: &[Row; R], shape: &Shape, bits: usize) -> Matrix {
    let each = 32 / bits;
    let mut d = vec![vec![0; 8]; shape.m];
    for i in 0..R * each {
        for (lane, word) in registers[i / each].iter().enumerate() {
            let (row, column) = (shape.c)(lane >> 2, lane % 4, i);
            d[row][column] = u64::from(word >> (bits * (i % each))) & ((1 << bits) - 1);
        }
    }
    d
}

/// One floating-point form: how its operands are decoded and how it runs.
struct Form {
    name: &'static str,
    shape: Shape,
    decode: fn(u64) -> f32,
    encode: fn(f32) -> u64,
    run: fn(&Matrix, &Matrix, &Matrix, &Shape) -> Matrix,
}

macro_rules! form {
    ($function:ident, $shape:expr, $bits:literal, $decode:expr, $encode:expr) => {
        Form {
            name: stringify!($function),
            shape: $shape,
            decode: $decode,
            encode: $encode,
            run: |a, b, c, shape| {
                let (a, b, c) = (load(a, shape.a, $bits), load(b, shape.b, $bits), load(c, shape.c, 32));
                store(&$function(&a, &b, &c), shape, 32)
            },
        }
    };
}

fn forms() -> [Form; 6] {
    let f16: fn(u64) -> f32 = |bits| f16_to_f32(bits as u16);
    let bf16: fn(u64) -> f32 = |bits| bf16_to_f32(bits as u16);
    let tf32: fn(u64) -> f32 = |bits| f32::from_bits(bits as u32 & 0xffff_e000);
    let to_f16: fn(f32) -> u64 = |value| f32_to_f16(value, Round::Nearest).into();
    let to_bf16: fn(f32) -> u64 = |value| f32_to_bf16(value, Round::Nearest).into();
    // The low bits must not count.
    let to_tf32: fn(f32) -> u64 = |value| (value.to_bits() & 0xffff_e000 | 0x1abc).into();
    [
        form!(m16n8k16_f16, M16N8K16, 16, f16, to_f16),
        form!(m16n8k16_bf16, M16N8K16, 16, bf16, to_bf16),
        form!(m16n8k8_f16, M16N8K8, 16, f16, to_f16),
        form!(m16n8k8_bf16, M16N8K8, 16, bf16, to_bf16),
        form!(m16n8k4_tf32, M16N8K4_TF32, 32, tf32, to_tf32),
        form!(m16n8k8_tf32, M16N8K8_TF32, 32, tf32, to_tf32),
    ]
}

fn single(bits: u64) -> f64 {
    f64::from(f32::from_bits(bits as u32))
}

#[test]
fn products_of_small_integers_are_exact() {
    let mut rng = random(80);
    let mut small = move || (rng.next_u32() % 33) as f32 - 16.0;
    for Form { name, shape, decode, encode, run } in forms() {
        let a = matrix(shape.m, shape.k, || encode(small()));
        let b = matrix(shape.k, 8, || encode(small()));
        let c = matrix(shape.m, 8, || small().to_bits().into());
        let d = run(&a, &b, &c, &shape);
        for row in 0..shape.m {
            for column in 0..8 {
                let dot: f32 = (0..shape.k).map(|k| decode(a[row][k]) * decode(b[k][column])).sum();
                let expected = f64::from(dot) + single(c[row][column]);
                assert_eq!(single(d[row][column]), expected, "{name} at {row}, {column}");
            }
        }
    }
}

#[test]
fn random_products_stay_within_the_bound_and_keep_the_documented_order() {
    let mut rng = random(81);
    let mut value = move || {
        let scale = 2f32.powi((rng.next_u32() % 12) as i32 - 6);
        (rng.next_u32() as f32 / 2f32.powi(31) - 1.0) * scale
    };
    for Form { name, shape, decode, encode, run } in forms() {
        for _ in 0..20 {
            let a = matrix(shape.m, shape.k, || encode(value()));
            let b = matrix(shape.k, 8, || encode(value()));
            let c = matrix(shape.m, 8, || value().to_bits().into());
            let d = run(&a, &b, &c, &shape);
            for row in 0..shape.m {
                for column in 0..8 {
                    let pairs = || (0..shape.k).map(|k| (decode(a[row][k]), decode(b[k][column])));
                    let start = single(c[row][column]);
                    let exact: f64 = start + pairs().map(|(a, b)| f64::from(a) * f64::from(b)).sum::<f64>();
                    let size = start.abs() + pairs().map(|(a, b)| f64::from((a * b).abs())).sum::<f64>();
                    // Each of k sums errs by 2^-24 of its result, and no partial sum exceeds `size` by more than that.
                    let bound = shape.k as f64 * 2f64.powi(-24) * size * 1.0001;
                    let result = single(d[row][column]);
                    assert!((result - exact).abs() <= bound, "{name}: {result} is not {exact}");
                    let ordered = pairs().fold(start as f32, |sum, (a, b)| a.mul_add(b, sum));
                    assert_eq!(d[row][column], u64::from(ordered.to_bits()), "{name}: order of the sums");
                }
            }
        }
    }
}

#[test]
fn infinities_and_nan_reach_their_elements_alone() {
    for Form { name, shape, encode, run, .. } in forms() {
        let mut a = matrix(shape.m, shape.k, || encode(1.0));
        let b = matrix(shape.k, 8, || encode(1.0));
        let mut c = matrix(shape.m, 8, || 0);
        a[3][1] = encode(f32::INFINITY);
        a[5][2] = encode(f32::NAN) | encode(f32::INFINITY);
        c[7][4] = 0xffc0_0001;
        c[3][6] = f32::NEG_INFINITY.to_bits().into();
        for (row, line) in run(&a, &b, &c, &shape).into_iter().enumerate() {
            for (column, bits) in line.into_iter().enumerate() {
                let expected = match (row, column) {
                    (3, 6) | (5, _) | (7, 4) => 0x7fff_ffff,
                    (3, _) => f32::INFINITY.to_bits(),
                    _ => (shape.k as f32).to_bits(),
                };
                assert_eq!(bits, u64::from(expected), "{name} at {row}, {column}");
            }
        }
    }
}

#[test]
fn a_wrong_layout_is_noticed() {
    // The data of the tests above tell registers and lanes apart.
    let mut rng = random(82);
    let mut register =
        || std::array::from_fn(|_| f32_to_f16((rng.next_u32() % 33) as f32, Round::Zero).into());
    let (a, b, c) = ([0; 4].map(|_: i32| register()), [0; 2].map(|_: i32| register()), [[0; 32]; 4]);
    let d = m16n8k16_f16(&a, &b, &c);
    assert_ne!(m16n8k16_f16(&[a[0], a[2], a[1], a[3]], &b, &c), d);
    assert_ne!(m16n8k16_f16(&a, &[b[1], b[0]], &c), d);
    let mut moved = a;
    moved[0].swap(1, 4);
    assert_ne!(m16n8k16_f16(&moved, &b, &c), d);
}

#[test]
fn f16_accumulators_round_once_at_the_end() {
    let mut rng = random(83);
    let encode = |value: f32| u64::from(f32_to_f16(value, Round::Nearest));
    let mut value = || {
        (rng.next_u32() as f32 / 2f32.powi(30) - 2.0)
            * if rng.next_u32().is_multiple_of(64) { 200.0 } else { 1.0 }
    };
    for shape in [M16N8K16, M16N8K8] {
        for _ in 0..20 {
            let a = matrix(16, shape.k, || encode(value()));
            let b = matrix(shape.k, 8, || encode(value()));
            let c = matrix(16, 8, || encode(value()));
            let c_registers = load(&c, shape.c, 16);
            let d = if shape.k == 16 {
                m16n8k16_f16_f16(&load(&a, shape.a, 16), &load(&b, shape.b, 16), &c_registers)
            } else {
                m16n8k8_f16_f16(&load(&a, shape.a, 16), &load(&b, shape.b, 16), &c_registers)
            };
            let d = store(&d, &shape, 16);
            let widen = |bits: u64| f16_to_f32(bits as u16);
            for row in 0..16 {
                for column in 0..8 {
                    let sum = (0..shape.k).fold(widen(c[row][column]), |sum, k| {
                        widen(a[row][k]).mul_add(widen(b[k][column]), sum)
                    });
                    assert_eq!(d[row][column], encode(sum), "{row}, {column}");
                }
            }
        }
    }
}

#[test]
fn products_beyond_f32_are_exact_too() {
    let power = |exponent: i32| u32::from(f32_to_bf16(2f32.powi(exponent), Round::Zero));
    // Only k = 0 counts: lanes 0, 4, 8... hold it in the low halves.
    let first = |bits: u32| std::array::from_fn(|lane| if lane % 4 == 0 { bits } else { 0 });
    let product = |a: i32, b: i32, c: f32| {
        let d = m16n8k8_bf16(&[first(power(a)); 2], &[first(power(b))], &[[c.to_bits(); 32]; 4]);
        f32::from_bits(d[0][0])
    };
    assert_eq!(product(100, 28, -(2f32.powi(127))), 2f32.powi(127), "2^128 alone overflows");
    // One and a half units of the smallest subnormal tie to two; the half unit alone would round to none.
    assert_eq!(product(-75, -75, f32::from_bits(1)), f32::from_bits(2));
}
