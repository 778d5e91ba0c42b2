//! `mma.sync`: products of small matrices that a warp holds in pieces, D = A B + C.
//!
//! A piece is a [`Row`]: one register of all 32 lanes. Which lane holds which element is in module `fragment`; the
//! arithmetic is in module `product`:
//!
//! - f16, bf16 and tf32: the ISA leaves order and rounding open. They are those that the hardware of an architecture
//!   was found to have, see module `unit`: products are exact, several are summed at once, and what is lost is cut off.
//!   Subnormals are kept. NaN results are `0x7fffffff`.
//! - f16 accumulators: the same, but the sum of a block is rounded to nearest.
//! - tf32 operands are f32 patterns whose low 13 bits are ignored.
//! - f64: fused multiply-adds in f64, k from 0 up.
//! - s8 and u8: exact; the result wraps, or is clamped with `satfinite`.
//!
//! Results are the same on every host. The host's vector units are used where it has fused multiply-adds.

mod fragment;
mod product;
mod unit;

pub use fragment::{collect_8x8, distribute_8x8, movmatrix_trans};
use fragment::{pack_c, pack_c_f16, pack_c_f64, unpack_a, unpack_b, unpack_c, unpack_c_f16, unpack_c_f64};
use product::int_product;
pub use unit::{Operand, TensorCore};

use super::convert::{bf16_to_f32, f16_to_f32};
use super::int::Sign;

/// One 32-bit register of each lane of a warp.
pub type Row = [u32; 32];
/// One 64-bit register of each lane of a warp.
pub type Row64 = [u64; 32];

/// Runs a function that is inlined into it with the widest vector instructions that the host has.
#[inline(always)]
fn dispatch<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

#[inline(always)]
fn halves(word: u32) -> [u16; 2] {
    [word as u16, (word >> 16) as u16]
}

#[inline(always)]
fn widen_f16(word: u32) -> [f32; 2] {
    halves(word).map(f16_to_f32)
}

#[inline(always)]
fn widen_bf16(word: u32) -> [f32; 2] {
    halves(word).map(bf16_to_f32)
}

/// What tensor cores take of a tf32.
#[inline(always)]
pub fn tf32_to_f32(word: u32) -> f32 {
    f32::from_bits(word & !0x1fff)
}

#[inline(always)]
fn widen_tf32(word: u32) -> [f32; 1] {
    [tf32_to_f32(word)]
}

macro_rules! float_mma {
    ($(#[$doc:meta])* $name:ident, $widen:ident, $operand:ident, $elements:literal, $k:literal, $a:literal, $b:literal, f32) => {
        $(#[$doc])*
        pub fn $name(unit: TensorCore, a: &[Row; $a], b: &[Row; $b], c: &[Row; 4]) -> [Row; 4] {
            dispatch(
                #[inline(always)]
                || {
                    let a = unpack_a::<_, _, $elements, $a, $k, 16>(a, $widen);
                    let b = unpack_b::<_, _, $elements, $b, $k>(b, $widen);
                    pack_c(&unit.product(Operand::$operand, &a, &b, unpack_c(c)))
                },
            )
        }
    };
    ($(#[$doc:meta])* $name:ident, $widen:ident, $operand:ident, $elements:literal, $k:literal, $a:literal, $b:literal, f16) => {
        $(#[$doc])*
        pub fn $name(unit: TensorCore, a: &[Row; $a], b: &[Row; $b], c: &[Row; 2]) -> [Row; 2] {
            let a = unpack_a::<_, _, $elements, $a, $k, 16>(a, $widen);
            let b = unpack_b::<_, _, $elements, $b, $k>(b, $widen);
            pack_c_f16(&unit.half_product(&a, &b, unpack_c_f16(c)))
        }
    };
}

float_mma!(
    /// `mma.m16n8k16.row.col.f32.f16.f16.f32`.
    m16n8k16_f16, widen_f16, F16, 2, 16, 4, 2, f32
);
float_mma!(
    /// `mma.m16n8k16.row.col.f32.bf16.bf16.f32`.
    m16n8k16_bf16, widen_bf16, Bf16, 2, 16, 4, 2, f32
);
float_mma!(
    /// `mma.m16n8k8.row.col.f32.f16.f16.f32`.
    m16n8k8_f16, widen_f16, F16, 2, 8, 2, 1, f32
);
float_mma!(
    /// `mma.m16n8k8.row.col.f32.bf16.bf16.f32`.
    m16n8k8_bf16, widen_bf16, Bf16, 2, 8, 2, 1, f32
);
float_mma!(
    /// `mma.m16n8k4.row.col.f32.tf32.tf32.f32`.
    m16n8k4_tf32, widen_tf32, Tf32, 1, 4, 2, 1, f32
);
float_mma!(
    /// `mma.m16n8k8.row.col.f32.tf32.tf32.f32`.
    m16n8k8_tf32, widen_tf32, Tf32, 1, 8, 4, 2, f32
);
float_mma!(
    /// `mma.m16n8k16.row.col.f16.f16.f16.f16`: C and D are f16, two a register.
    m16n8k16_f16_f16, widen_f16, F16, 2, 16, 4, 2, f16
);
float_mma!(
    /// `mma.m16n8k8.row.col.f16.f16.f16.f16`: C and D are f16, two a register.
    m16n8k8_f16_f16, widen_f16, F16, 2, 8, 2, 1, f16
);

/// `a b + c` in f32 of 16 rows, 8 columns and `K` terms, unpacked: a part of a `wgmma`.
pub fn product<const K: usize>(
    unit: TensorCore,
    operand: Operand,
    a: &[[f32; K]; 16],
    b: &[[f32; 8]; K],
    c: &[Row; 4],
) -> [Row; 4] {
    dispatch(
        #[inline(always)]
        || pack_c(&unit.product(operand, a, b, unpack_c(c))),
    )
}

/// The same of bytes in s32, of 32 terms, which are whole numbers.
pub fn product_int(a: &[[f32; 32]; 16], b: &[[f32; 8]; 32], c: &[Row; 4], satfinite: bool) -> [Row; 4] {
    dispatch(
        #[inline(always)]
        || pack_c(&int_product::<32, 16>(a, b, unpack_c(c), satfinite)),
    )
}

/// The 16 rows of a fragment of a in four registers, of which each holds `E` of the `K` terms of a row.
pub fn rows_of_fragment<const E: usize, const K: usize>(
    registers: &[Row; 4],
    widen: impl Fn(u32) -> [f32; E],
) -> [[f32; K]; 16] {
    unpack_a::<_, _, E, 4, K, 16>(registers, widen)
}

/// `mma.m8n8k4.row.col.f64.f64.f64.f64`, rounded to nearest.
pub fn m8n8k4_f64(a: &Row64, b: &Row64, c: &[Row64; 2]) -> [Row64; 2] {
    dispatch(
        #[inline(always)]
        || {
            let widen = |word: u64| [f64::from_bits(word)];
            let a = unpack_a::<_, _, 1, 1, 4, 8>(&[*a], widen);
            let b = unpack_b::<_, _, 1, 1, 4>(&[*b], widen);
            pack_c_f64(&product::fma_product_f64(&a, &b, unpack_c_f64(c)))
        },
    )
}

/// The four bytes of a word, widened.
#[inline(always)]
fn widen_bytes(sign: Sign) -> impl Fn(u32) -> [f32; 4] + Copy {
    move |word| {
        word.to_le_bytes().map(|byte| match sign {
            Sign::Unsigned => f32::from(byte),
            Sign::Signed => f32::from(byte as i8),
        })
    }
}

macro_rules! int_mma {
    ($(#[$doc:meta])* $name:ident, $m:literal, $k:literal, $a:literal, $b:literal, $c:literal) => {
        $(#[$doc])*
        pub fn $name(
            a: &[Row; $a],
            b: &[Row; $b],
            c: &[Row; $c],
            a_sign: Sign,
            b_sign: Sign,
            satfinite: bool,
        ) -> [Row; $c] {
            dispatch(
                #[inline(always)]
                || {
                    let a = unpack_a::<_, _, 4, $a, $k, $m>(a, widen_bytes(a_sign));
                    let b = unpack_b::<_, _, 4, $b, $k>(b, widen_bytes(b_sign));
                    pack_c(&int_product::<$k, $m>(&a, &b, unpack_c(c), satfinite))
                },
            )
        }
    };
}

int_mma!(
    /// `mma.m8n8k16.row.col.s32` of s8 or u8.
    m8n8k16_i8, 8, 16, 1, 1, 2
);
int_mma!(
    /// `mma.m16n8k16.row.col.s32` of s8 or u8.
    m16n8k16_i8, 16, 16, 2, 1, 4
);
int_mma!(
    /// `mma.m16n8k32.row.col.s32` of s8 or u8.
    m16n8k32_i8, 16, 32, 4, 2, 4
);
