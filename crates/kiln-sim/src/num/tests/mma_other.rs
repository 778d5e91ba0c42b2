//! Matrix products in f64 and s32, and the moves of 8 x 8 matrices; layouts as in [`super::mma`].

use super::mma::{C16, Layout, Matrix, Shape, load, matrix, store};
use super::*;
use crate::num::int::Sign;
use crate::num::mma::*;

const M8N8K4_F64: Shape =
    Shape { m: 8, k: 4, a: |g, t, _| (g, t), b: |g, t, _| (t, g), c: |g, t, i| (g, t * 2 + (i & 1)) };
const M8N8K16_I8: Shape = Shape {
    m: 8,
    k: 16,
    a: |g, t, i| (g, t * 4 + i),
    b: |g, t, i| (t * 4 + i, g),
    c: |g, t, i| (g, t * 2 + i),
};
const M16N8K16_I8: Shape = Shape {
    m: 16,
    k: 16,
    a: |g, t, i| (if i < 4 { g } else { g + 8 }, t * 4 + (i & 3)),
    b: |g, t, i| (t * 4 + i, g),
    c: C16,
};
const M16N8K32_I8: Shape = Shape {
    m: 16,
    k: 32,
    a: |g, t, i| {
        let row = if i < 4 || (8..12).contains(&i) { g } else { g + 8 };
        (row, if i < 8 { t * 4 + (i & 3) } else { t * 4 + (i & 3) + 16 })
    },
    b: |g, t, i| (if i < 4 { t * 4 + (i & 3) } else { t * 4 + (i & 3) + 16 }, g),
    c: C16,
};

#[test]
fn f64_products() {
    let mut rng = random(84);
    let mut value = || f64::from(rng.next_u32()) / 1e9 - 2.0;
    let pattern = |matrix: &Matrix, row: usize, column: usize| f64::from_bits(matrix[row][column]);
    let shape = M8N8K4_F64;
    let a = matrix(8, 4, || value().to_bits());
    let b = matrix(4, 8, || value().to_bits());
    let mut c = matrix(8, 8, || value().to_bits());
    c[2][3] = (-f64::NAN).to_bits();
    let lanes = |matrix: &Matrix, layout: Layout, i: usize| -> Row64 {
        std::array::from_fn(|lane| {
            let (row, column) = layout(lane >> 2, lane % 4, i);
            matrix[row][column]
        })
    };
    let rows = [lanes(&c, shape.c, 0), lanes(&c, shape.c, 1)];
    let d = m8n8k4_f64(&lanes(&a, shape.a, 0), &lanes(&b, shape.b, 0), &rows);
    for lane in 0..32 {
        for (i, register) in d.iter().enumerate() {
            let (row, column) = (shape.c)(lane >> 2, lane % 4, i);
            let sum = (0..4).fold(pattern(&c, row, column), |sum, k| {
                pattern(&a, row, k).mul_add(pattern(&b, k, column), sum)
            });
            let expected = if sum.is_nan() { 0x7ff8_0000_0000_0000 } else { sum.to_bits() };
            assert_eq!(register[lane], expected, "{row}, {column}");
        }
    }
}

#[test]
fn integer_products_wrap_or_saturate() {
    let mut rng = random(85);
    for (shape, signs) in [M8N8K16_I8, M16N8K16_I8, M16N8K32_I8].into_iter().flat_map(|shape| {
        let all =
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(a, b)| [a, b].map(|s| [Sign::Unsigned, Sign::Signed][s]));
        std::iter::repeat_with(move || Shape { ..shape }).zip(all)
    }) {
        check_integers(&shape, signs, &mut rng);
    }
}

fn check_integers(shape: &Shape, [a_sign, b_sign]: [Sign; 2], rng: &mut StdRng) {
    // Extremes are frequent: the largest dot products must fit.
    let mut byte = || [0x80, 0x7f, 0xff, u64::from(rng.next_u32() & 0xff)][rng.next_u32() as usize % 4];
    let a = matrix(shape.m, shape.k, &mut byte);
    let mut b = matrix(shape.k, 8, &mut byte);
    b.iter_mut().for_each(|row| row[0] = 0xff);
    let near = |rng: &mut StdRng| {
        (if rng.next_u32().is_multiple_of(2) { 0x7fff_f000 } else { 0x8000_0fff_u32 })
            .wrapping_add(rng.next_u32() % 0x2000)
    };
    let c = matrix(shape.m, 8, || near(rng).into());
    let widen = |byte: u64, sign| if sign == Sign::Signed { i64::from(byte as i8) } else { byte as i64 };
    for satfinite in [false, true] {
        macro_rules! run {
            ($function:ident) => {{
                let (a, b, c) = (load(&a, shape.a, 8), load(&b, shape.b, 8), load(&c, shape.c, 32));
                store(&$function(&a, &b, &c, a_sign, b_sign, satfinite), shape, 32)
            }};
        }
        let d = match (shape.m, shape.k) {
            (8, _) => run!(m8n8k16_i8),
            (_, 16) => run!(m16n8k16_i8),
            _ => run!(m16n8k32_i8),
        };
        for row in 0..shape.m {
            for column in 0..8 {
                let dot: i64 =
                    (0..shape.k).map(|k| widen(a[row][k], a_sign) * widen(b[k][column], b_sign)).sum();
                let sum = i64::from(c[row][column] as i32) + dot;
                let expected =
                    if satfinite { sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32 } else { sum as u32 };
                assert_eq!(
                    d[row][column],
                    u64::from(expected),
                    "{a_sign:?} {b_sign:?} {satfinite} at {row}, {column}"
                );
            }
        }
    }
}

#[test]
fn eight_by_eight_matrices_move_between_lanes_and_rows() {
    let rows: [[u16; 8]; 8] =
        std::array::from_fn(|row| std::array::from_fn(|column| (16 * row + column) as u16));
    let register = distribute_8x8(&rows, false);
    let transposed = distribute_8x8(&rows, true);
    for lane in 0..32 {
        let (line, first) = (lane / 4, lane % 4 * 2);
        assert_eq!(register[lane], (16 * line + first) as u32 | ((16 * line + first + 1) as u32) << 16);
        assert_eq!(transposed[lane], (16 * first + line) as u32 | ((16 * (first + 1) + line) as u32) << 16);
    }
    assert_eq!(collect_8x8(&register, false), rows);
    assert_eq!(collect_8x8(&transposed, true), rows);
    assert_eq!(movmatrix_trans(&register), transposed);
}
