//! Which lane holds which element.
//!
//! One rule covers all shapes. A register holds E elements (1 of 32 or 64 bits, 2 of 16, 4 of 8). With the lane's
//! group g = lane / 4 and its place t = lane % 4 in the group, element e of a register is
//!
//! - of A: row g, column E t + e of a block of 8 rows and 4 E columns. Registers walk down the blocks of 8 rows first,
//!   then to the next 4 E columns.
//! - of B: row E t + e, column g. Registers walk down the rows.
//! - of C and D: row g, columns 2 t and 2 t + 1, in two registers (or one of two f16); the next registers lie 8 rows
//!   below.

use std::array::from_fn;

use super::{Row, Row64, halves};
use crate::num::convert::{f16_to_f32, f32_to_f16_rn};
use crate::num::float::{canonical_f32, canonical_f64};

/// A, `M` rows of `K`, from `R` registers of `E` elements.
#[inline(always)]
pub(super) fn unpack_a<T, W, const E: usize, const R: usize, const K: usize, const M: usize>(
    registers: &[[W; 32]; R],
    widen: impl Fn(W) -> [T; E],
) -> [[T; K]; M]
where
    T: Copy + Default,
    W: Copy,
{
    let mut a = [[T::default(); K]; M];
    for (index, register) in registers.iter().enumerate() {
        let (top, left) = (8 * (index % (M / 8)), 4 * E * (index / (M / 8)));
        let mut elements = [[T::default(); E]; 32];
        for (elements, word) in elements.iter_mut().zip(register) {
            *elements = widen(*word);
        }
        for lane in 0..32 {
            a[top + lane / 4][left + E * (lane % 4)..][..E].copy_from_slice(&elements[lane]);
        }
    }
    a
}

/// B, `K` rows of 8, from `R` registers of `E` elements.
#[inline(always)]
pub(super) fn unpack_b<T, W, const E: usize, const R: usize, const K: usize>(
    registers: &[[W; 32]; R],
    widen: impl Fn(W) -> [T; E],
) -> [[T; 8]; K]
where
    T: Copy + Default,
    W: Copy,
{
    let mut b = [[T::default(); 8]; K];
    for (index, register) in registers.iter().enumerate() {
        let mut elements = [[T::default(); E]; 32];
        for (elements, word) in elements.iter_mut().zip(register) {
            *elements = widen(*word);
        }
        for lane in 0..32 {
            let row = 4 * E * index + E * (lane % 4);
            for (e, value) in elements[lane].into_iter().enumerate() {
                b[row + e][lane / 4] = value;
            }
        }
    }
    b
}

/// A word of an accumulator.
pub(super) trait Word: Copy + Default {
    /// From the bits in a register.
    fn from_word(word: u32) -> Self;
    /// To the bits in a register.
    fn to_word(self) -> u32;
}

impl Word for f32 {
    #[inline(always)]
    fn from_word(word: u32) -> f32 {
        f32::from_bits(word)
    }

    #[inline(always)]
    fn to_word(self) -> u32 {
        canonical_f32(self).to_bits()
    }
}

impl Word for i32 {
    #[inline(always)]
    fn from_word(word: u32) -> i32 {
        word as i32
    }

    #[inline(always)]
    fn to_word(self) -> u32 {
        self as u32
    }
}

/// C, `M` rows of 8, from `R` registers of one word.
#[inline(always)]
pub(super) fn unpack_c<T: Word, const R: usize, const M: usize>(registers: &[Row; R]) -> [[T; 8]; M] {
    const { assert!(4 * R == M) };
    from_fn(|row| {
        from_fn(|column| T::from_word(registers[row / 8 * 2 + column % 2][row % 8 * 4 + column / 2]))
    })
}

/// D in `R` registers of one word.
#[inline(always)]
pub(super) fn pack_c<T: Word, const R: usize, const M: usize>(d: &[[T; 8]; M]) -> [Row; R] {
    const { assert!(4 * R == M) };
    from_fn(|index| from_fn(|lane| d[index / 2 * 8 + lane / 4][lane % 4 * 2 + index % 2].to_word()))
}

/// C, 16 rows of 8, from two registers of two f16.
#[inline(always)]
pub(super) fn unpack_c_f16(registers: &[Row; 2]) -> [[f32; 8]; 16] {
    from_fn(|row| {
        from_fn(|column| f16_to_f32(halves(registers[row / 8][row % 8 * 4 + column / 2])[column % 2]))
    })
}

/// D in two registers of two f16, rounded to nearest.
#[inline(always)]
pub(super) fn pack_c_f16(d: &[[f32; 8]; 16]) -> [Row; 2] {
    let mut narrow = [[0; 8]; 16];
    for (narrow, value) in narrow.as_flattened_mut().iter_mut().zip(d.as_flattened()) {
        *narrow = f32_to_f16_rn(*value);
    }
    from_fn(|index| {
        from_fn(|lane| {
            let pair = &narrow[index * 8 + lane / 4][lane % 4 * 2..][..2];
            u32::from(pair[1]) << 16 | u32::from(pair[0])
        })
    })
}

/// C, 8 rows of 8, from two registers of one f64.
#[inline(always)]
pub(super) fn unpack_c_f64(registers: &[Row64; 2]) -> [[f64; 8]; 8] {
    from_fn(|row| from_fn(|column| f64::from_bits(registers[column % 2][row * 4 + column / 2])))
}

/// D in two registers of one f64.
#[inline(always)]
pub(super) fn pack_c_f64(d: &[[f64; 8]; 8]) -> [Row64; 2] {
    from_fn(|index| from_fn(|lane| canonical_f64(d[lane / 4][lane % 4 * 2 + index]).to_bits()))
}

/// `ldmatrix`: the register that receives an 8 x 8 matrix of 16-bit elements, given by its rows in memory. Lane l gets
/// the elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4, or with `.trans` of column l / 4.
pub fn distribute_8x8(rows: &[[u16; 8]; 8], trans: bool) -> Row {
    from_fn(|lane| {
        let (line, first) = (lane / 4, lane % 4 * 2);
        let [low, high] = [first, first + 1].map(|at| if trans { rows[at][line] } else { rows[line][at] });
        u32::from(high) << 16 | u32::from(low)
    })
}

/// `stmatrix`: the rows in memory of the matrix in a register, the inverse of [`distribute_8x8`].
pub fn collect_8x8(register: &Row, trans: bool) -> [[u16; 8]; 8] {
    from_fn(|row| {
        from_fn(|column| {
            let (line, at) = if trans { (column, row) } else { (row, column) };
            halves(register[line * 4 + at / 2])[at % 2]
        })
    })
}

/// `movmatrix.sync.aligned.m8n8.trans.b16`.
pub fn movmatrix_trans(register: &Row) -> Row {
    distribute_8x8(&collect_8x8(register, false), true)
}
