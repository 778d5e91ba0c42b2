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
    run: fn(TensorCore, &Matrix, &Matrix, &Matrix, &Shape) -> Matrix,
    /// Products that are summed at once, on [`UNITS`].
    blocks: [usize; 2],
}

const UNITS: [TensorCore; 2] = [TensorCore::Ampere, TensorCore::Hopper];
/// Bits after the point that terms of a sum keep.
const FRACTIONS: [i32; 2] = [24, 25];

macro_rules! form {
    ($function:ident, $shape:expr, $bits:literal, $decode:expr, $encode:expr, $blocks:expr) => {
        Form {
            name: stringify!($function),
            shape: $shape,
            decode: $decode,
            encode: $encode,
            run: |unit, a, b, c, shape| {
                let (a, b, c) = (load(a, shape.a, $bits), load(b, shape.b, $bits), load(c, shape.c, 32));
                store(&$function(unit, &a, &b, &c), shape, 32)
            },
            blocks: $blocks,
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
        form!(m16n8k16_f16, M16N8K16, 16, f16, to_f16, [8, 16]),
        form!(m16n8k16_bf16, M16N8K16, 16, bf16, to_bf16, [8, 16]),
        form!(m16n8k8_f16, M16N8K8, 16, f16, to_f16, [8, 8]),
        form!(m16n8k8_bf16, M16N8K8, 16, bf16, to_bf16, [8, 8]),
        form!(m16n8k4_tf32, M16N8K4_TF32, 32, tf32, to_tf32, [4, 4]),
        form!(m16n8k8_tf32, M16N8K8_TF32, 32, tf32, to_tf32, [4, 8]),
    ]
}

fn forms_and_units() -> impl Iterator<Item = (Form, TensorCore)> {
    UNITS.into_iter().flat_map(|unit| forms().into_iter().map(move |form| (form, unit)))
}

fn single(bits: u64) -> f64 {
    f64::from(f32::from_bits(bits as u32))
}

#[test]
fn products_of_small_integers_are_exact() {
    let mut rng = random(80);
    let mut small = move || (rng.next_u32() % 33) as f32 - 16.0;
    for (Form { name, shape, decode, encode, run, .. }, unit) in forms_and_units() {
        let a = matrix(shape.m, shape.k, || encode(small()));
        let b = matrix(shape.k, 8, || encode(small()));
        let c = matrix(shape.m, 8, || small().to_bits().into());
        let d = run(unit, &a, &b, &c, &shape);
        for row in 0..shape.m {
            for column in 0..8 {
                let dot: f32 = (0..shape.k).map(|k| decode(a[row][k]) * decode(b[k][column])).sum();
                let expected = f64::from(dot) + single(c[row][column]);
                assert_eq!(single(d[row][column]), expected, "{name} at {row}, {column}");
            }
        }
    }
}

/// A block's sum as the hardware makes it, in f64 and from the description alone: terms with the exponent of the largest, cut off
/// below `fraction` bits, added exactly, and cut off to 24 digits.
fn block_sum(terms: &[(f32, f32)], start: f64, fraction: i32) -> f64 {
    let exponent = |value: f64| value.abs().log2().floor() as i32;
    let of_product =
        |&(a, b): &(f32, f32)| (a * b != 0.0).then(|| exponent(f64::from(a)) + exponent(f64::from(b)));
    let of_start = (start != 0.0).then(|| exponent(start));
    let Some(high) = terms.iter().filter_map(of_product).chain(of_start).max() else { return 0.0 };
    let last = 2f64.powi(high - fraction);
    let cut = |value: f64, last: f64| (value / last).trunc() * last;
    let products = terms.iter().map(|&(a, b)| cut(f64::from(a) * f64::from(b), last));
    let sum = products.sum::<f64>() + cut(start, last);
    if sum == 0.0 { 0.0 } else { cut(sum, 2f64.powi(exponent(sum) - 23)) }
}

#[test]
fn random_products_are_summed_block_by_block_within_the_bound() {
    let mut rng = random(81);
    let mut value = move || {
        // Zeros, and sizes that make most of a block vanish.
        let scale =
            if rng.next_u32().is_multiple_of(9) { 0.0 } else { 2f32.powi((rng.next_u32() % 24) as i32 - 12) };
        (rng.next_u32() as f32 / 2f32.powi(31) - 1.0) * scale
    };
    for (at, unit) in UNITS.into_iter().enumerate() {
        for Form { name, shape, decode, encode, run, blocks } in forms() {
            for _ in 0..20 {
                let a = matrix(shape.m, shape.k, || encode(value()));
                let b = matrix(shape.k, 8, || encode(value()));
                let c = matrix(shape.m, 8, || value().to_bits().into());
                let d = run(unit, &a, &b, &c, &shape);
                for row in 0..shape.m {
                    for column in 0..8 {
                        let pairs: Vec<_> =
                            (0..shape.k).map(|k| (decode(a[row][k]), decode(b[k][column]))).collect();
                        let start = single(c[row][column]);
                        let products = || pairs.iter().map(|&(a, b)| f64::from(a) * f64::from(b));
                        let exact: f64 = start + products().sum::<f64>();
                        let size = start.abs() + products().map(f64::abs).sum::<f64>();
                        // A cut costs less than one unit: 2^-24 of the largest term at most for each of a block's terms and the
                        // start, and 2^-23 of the sum after each block.
                        let each = (shape.k + 3 * shape.k / blocks[at]) as f64;
                        let result = single(d[row][column]);
                        assert!(
                            (result - exact).abs() <= each * 2f64.powi(-24) * size,
                            "{name}: {result} is not {exact}"
                        );
                        let expected = pairs
                            .chunks(blocks[at])
                            .fold(start, |sum, block| block_sum(block, sum, FRACTIONS[at]));
                        assert_eq!(result, expected, "{unit:?} {name} at {row}, {column}");
                    }
                }
            }
        }
    }
}

/// What tells the two generations from each other and from a chain of fused multiply-adds, worked out by hand.
#[test]
fn sums_are_those_of_the_hardware() {
    // c and 16 products a b, of which the first `terms` are not zero.
    let sum = |unit, c: f32, products: &[(f32, f32)]| {
        let bits = |value: f32| u64::from(f32_to_bf16(value, Round::Zero));
        let mut a = matrix(16, 16, || 0);
        let mut b = matrix(16, 8, || 0);
        let mut start = matrix(16, 8, || 0);
        for (k, &(x, y)) in products.iter().enumerate() {
            (a[0][k], b[k][0]) = (bits(x), bits(y));
        }
        start[0][0] = c.to_bits().into();
        let shape = M16N8K16;
        let d =
            m16n8k16_bf16(unit, &load(&a, shape.a, 16), &load(&b, shape.b, 16), &load(&start, shape.c, 32));
        f32::from_bits(store(&d, &shape, 32)[0][0] as u32)
    };
    let [ampere, hopper] = UNITS;
    let power = |exponent: i32| 2f32.powi(exponent);
    let same = |exponent: i32| [(power(exponent), 1.0); 16];
    for unit in UNITS {
        // A fused multiply-add would round each of the sixteen away.
        assert_eq!(sum(unit, 1.0, &same(-24)), 1.0 + power(-20), "{unit:?}");
        assert_eq!(sum(unit, 1.0, &same(-26)), 1.0, "{unit:?}: below what is kept");
        // Cut off towards zero, where the nearest would be one unit away from it.
        assert_eq!(sum(unit, 1.0, &[(power(-24), 1.0), (power(-24), 0.5)]), 1.0, "{unit:?}");
        assert_eq!(sum(unit, -1.0, &[(-power(-24), 1.0), (-power(-24), 0.5)]), -1.0, "{unit:?}");
        // The last product is as good as the first.
        assert_eq!(
            sum(unit, power(30), &[(1.0, 1.0), (-power(15), power(15))]),
            0.0,
            "{unit:?}: 1 is cut off"
        );
    }
    // One bit more is kept: 16 times 2^-25.
    assert_eq!(sum(ampere, 1.0, &same(-25)), 1.0);
    assert_eq!(sum(hopper, 1.0, &same(-25)), 1.0 + power(-21));
    // 1.5 times 1.5 is above 2 and keeps the exponent 0: with 1 there, 2^-25 and 2^-24 would be lost.
    let eight = |exponent: i32| {
        let mut products = [(power(exponent), 1.0); 8];
        products[0] = (1.5, 1.5);
        products[1] = (power(exponent + 1), 1.0);
        products
    };
    assert_eq!(sum(hopper, 0.0, &eight(-25)), 2.25 + power(-22));
    assert_eq!(sum(ampere, 0.0, &eight(-24)), 2.25 + power(-21));
    // Two blocks of eight: the first cancels before the second comes. One of sixteen: the small ones are cut off first.
    let mut products = [(power(-4), 1.0); 16];
    products[..8].fill((0.0, 0.0));
    products[0] = (-power(15), power(15));
    assert_eq!(sum(ampere, power(30), &products), 0.5);
    assert_eq!(sum(hopper, power(30), &products), 0.0);
    // Beyond the largest number.
    assert_eq!(sum(hopper, f32::MAX, &[(power(100), power(27))]), f32::INFINITY);
    assert_eq!(sum(hopper, -f32::MAX, &[(-power(100), power(3))]), f32::MIN, "half a unit is cut off");
}

#[test]
fn infinities_and_nan_reach_their_elements_alone() {
    for (Form { name, shape, encode, run, .. }, unit) in forms_and_units() {
        let mut a = matrix(shape.m, shape.k, || encode(1.0));
        let mut b = matrix(shape.k, 8, || encode(1.0));
        let mut c = matrix(shape.m, 8, || 0);
        // Times zero they are not a number.
        (b[1][0], b[2][1]) = (encode(0.0), encode(0.0));
        a[3][1] = encode(f32::INFINITY);
        a[5][2] = encode(f32::NAN) | encode(f32::INFINITY);
        c[7][4] = 0xffc0_0001;
        c[3][6] = f32::NEG_INFINITY.to_bits().into();
        for (row, line) in run(unit, &a, &b, &c, &shape).into_iter().enumerate() {
            for (column, bits) in line.into_iter().enumerate() {
                let expected = match (row, column) {
                    (3, 0 | 6) | (5, _) | (7, 4) => 0x7fff_ffff,
                    (3, _) => f32::INFINITY.to_bits(),
                    (_, 0 | 1) => (shape.k as f32 - 1.0).to_bits(),
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
    let d = m16n8k16_f16(TensorCore::Hopper, &a, &b, &c);
    assert_ne!(m16n8k16_f16(TensorCore::Hopper, &[a[0], a[2], a[1], a[3]], &b, &c), d);
    assert_ne!(m16n8k16_f16(TensorCore::Hopper, &a, &[b[1], b[0]], &c), d);
    let mut moved = a;
    moved[0].swap(1, 4);
    assert_ne!(m16n8k16_f16(TensorCore::Hopper, &moved, &b, &c), d);
}

/// A result in f16 is the nearest to each block's sum; integers and their halves tell where.
#[test]
fn f16_accumulators_round_after_each_block() {
    let encode = |value: f32| u64::from(f32_to_f16(value, Round::Nearest));
    let run = |unit, start: f32, factors: [f32; 16]| {
        let shape = M16N8K16;
        let a = matrix(16, 16, || encode(1.0));
        let b: Matrix = factors.iter().map(|&factor| vec![encode(factor); 8]).collect();
        let c = matrix(16, 8, || encode(start));
        let d =
            m16n8k16_f16_f16(unit, &load(&a, shape.a, 16), &load(&b, shape.b, 16), &load(&c, shape.c, 16));
        f16_to_f32(store(&d, &shape, 16)[5][3] as u16)
    };
    for unit in UNITS {
        assert_eq!(run(unit, 3.0, [1.0; 16]), 19.0, "{unit:?}");
        assert_eq!(run(unit, 0.0, [60000.0; 16]), f32::INFINITY, "{unit:?}");
        assert_eq!(run(unit, f32::NAN, [0.0; 16]).to_bits(), 0x7fff_ffff, "{unit:?}");
    }
    // Above 2048 an f16 counts in twos. Half a unit in each half: two ties to even, or one whole unit.
    let mut halves = [0.0; 16];
    (halves[0], halves[8]) = (1.0, 1.0);
    assert_eq!(run(TensorCore::Ampere, 2048.0, halves), 2048.0);
    assert_eq!(run(TensorCore::Hopper, 2048.0, halves), 2050.0);
    let shape = M16N8K8;
    let (a, b) = (matrix(16, 8, || encode(0.5)), matrix(8, 8, || encode(0.5)));
    let c = load(&matrix(16, 8, || encode(1.0)), shape.c, 16);
    let d = m16n8k8_f16_f16(TensorCore::Hopper, &load(&a, shape.a, 16), &load(&b, shape.b, 16), &c);
    assert!(store(&d, &shape, 16).iter().flatten().all(|&bits| bits == encode(3.0)));
}

#[test]
fn products_beyond_f32_are_exact_too() {
    let power = |exponent: i32| u32::from(f32_to_bf16(2f32.powi(exponent), Round::Zero));
    // Only k = 0 counts: lanes 0, 4, 8... hold it in the low halves.
    let first = |bits: u32| std::array::from_fn(|lane| if lane % 4 == 0 { bits } else { 0 });
    for unit in UNITS {
        let product = |a: i32, b: i32, c: f32| {
            let d = m16n8k8_bf16(unit, &[first(power(a)); 2], &[first(power(b))], &[[c.to_bits(); 32]; 4]);
            f32::from_bits(d[0][0])
        };
        assert_eq!(product(100, 28, -(2f32.powi(127))), 2f32.powi(127), "2^128 alone overflows");
        // One and a half units of the smallest subnormal are cut off to one; two halves are one.
        assert_eq!(product(-75, -75, f32::from_bits(1)), f32::from_bits(1));
        assert_eq!(product(-75, -74, f32::from_bits(1)), f32::from_bits(2));
        assert_eq!(product(-75, -75, 0.0), 0.0);
    }
}
