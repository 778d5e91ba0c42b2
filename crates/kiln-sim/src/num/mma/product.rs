//! The sums of products, over unpacked matrices.

/// `a b + c` by fused multiply-adds, k ascending.
///
/// Four rows at a time: their sums stay in vector registers, and do not wait for each other.
#[inline(always)]
pub(super) fn fma_product<const K: usize, const M: usize>(
    a: &[[f32; K]; M],
    b: &[[f32; 8]; K],
    mut c: [[f32; 8]; M],
) -> [[f32; 8]; M] {
    for (a, c) in a.chunks_exact(4).zip(c.chunks_exact_mut(4)) {
        let mut sums: [[f32; 8]; 4] = [c[0], c[1], c[2], c[3]];
        for k in 0..K {
            for (row, sum) in a.iter().zip(&mut sums) {
                for (sum, b) in sum.iter_mut().zip(&b[k]) {
                    *sum = row[k].mul_add(*b, *sum);
                }
            }
        }
        c.copy_from_slice(&sums);
    }
    c
}

/// As [`fma_product`], in f64.
#[inline(always)]
pub(super) fn fma_product_f64(a: &[[f64; 4]; 8], b: &[[f64; 8]; 4], mut c: [[f64; 8]; 8]) -> [[f64; 8]; 8] {
    for (a, c) in a.iter().zip(&mut c) {
        for (a, b) in a.iter().zip(b) {
            for (sum, b) in c.iter_mut().zip(b) {
                *sum = a.mul_add(*b, *sum);
            }
        }
    }
    c
}

/// `a b + c` in s32, of bytes.
///
/// A dot product of 32 bytes each stays below 2^21, so f32 holds all its partial sums exactly, and hosts multiply f32
/// faster than 32-bit integers. Only the addition of `c` can overflow.
#[inline(always)]
pub(super) fn int_product<const K: usize, const M: usize>(
    a: &[[f32; K]; M],
    b: &[[f32; 8]; K],
    mut c: [[i32; 8]; M],
    satfinite: bool,
) -> [[i32; 8]; M] {
    const { assert!(K <= 32) };
    let dots = fma_product(a, b, [[0.0; 8]; M]);
    for (c, dots) in c.iter_mut().zip(&dots) {
        for (c, dot) in c.iter_mut().zip(dots) {
            let dot = *dot as i32;
            *c = if satfinite { c.saturating_add(dot) } else { c.wrapping_add(dot) };
        }
    }
    c
}
