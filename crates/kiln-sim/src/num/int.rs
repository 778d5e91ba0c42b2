//! Integer instructions whose rules are not plain Rust operators.

pub use super::bits::*;

/// How a count or a shift amount beyond the width is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// `.clamp`: as the width.
    Clamp,
    /// `.wrap`: modulo the width.
    Wrap,
}

/// How the elements of a packed operand are widened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// With zeros.
    Unsigned,
    /// With the sign.
    Signed,
}

/// Which half of a packed operand is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfWord {
    /// `.lo`.
    Low,
    /// `.hi`.
    High,
}

macro_rules! mulhi {
    ($name:ident, $int:ident, $wide:ident, $doc:literal) => {
        #[doc = $doc]
        #[inline(always)]
        pub fn $name(a: $int, b: $int) -> $int {
            (($wide::from(a) * $wide::from(b)) >> $int::BITS) as $int
        }
    };
}
mulhi!(mulhi_u16, u16, u32, "`mul.hi.u16`: the upper half of the product.");
mulhi!(mulhi_s16, i16, i32, "`mul.hi.s16`: the upper half of the product.");
mulhi!(mulhi_u32, u32, u64, "`mul.hi.u32`: the upper half of the product.");
mulhi!(mulhi_s32, i32, i64, "`mul.hi.s32`: the upper half of the product.");
mulhi!(mulhi_u64, u64, u128, "`mul.hi.u64`: the upper half of the product.");
mulhi!(mulhi_s64, i64, i128, "`mul.hi.s64`: the upper half of the product.");

/// The product of the low 24 bits of each operand: 48 bits.
#[inline(always)]
fn product24(a: u32, b: u32, sign: Sign) -> u64 {
    match sign {
        Sign::Unsigned => u64::from(a << 8 >> 8) * u64::from(b << 8 >> 8),
        Sign::Signed => (i64::from((a << 8) as i32 >> 8) * i64::from((b << 8) as i32 >> 8)) as u64,
    }
}

/// `mul24.lo`: bits 31..0 of the product of the low 24 bits.
#[inline(always)]
pub fn mul24(a: u32, b: u32, sign: Sign) -> u32 {
    product24(a, b, sign) as u32
}

/// `mul24.hi`: bits 47..16 of the product of the low 24 bits.
#[inline(always)]
pub fn mul24hi(a: u32, b: u32, sign: Sign) -> u32 {
    (product24(a, b, sign) >> 16) as u32
}

macro_rules! sad {
    ($name:ident, $int:ident, $doc:literal) => {
        #[doc = $doc]
        #[inline(always)]
        pub fn $name(a: $int, b: $int, c: $int) -> $int {
            c.wrapping_add(if a < b { b.wrapping_sub(a) } else { a.wrapping_sub(b) })
        }
    };
}
sad!(sad_u16, u16, "`sad.u16`: `c + |a - b|`, wrapping.");
sad!(sad_s16, i16, "`sad.s16`: `c + |a - b|`, wrapping.");
sad!(sad_u32, u32, "`sad.u32`: `c + |a - b|`, wrapping.");
sad!(sad_s32, i32, "`sad.s32`: `c + |a - b|`, wrapping.");
sad!(sad_u64, u64, "`sad.u64`: `c + |a - b|`, wrapping.");
sad!(sad_s64, i64, "`sad.s64`: `c + |a - b|`, wrapping.");

/// `abs.s16`: the smallest value stays as it is.
#[inline(always)]
pub fn abs_s16(a: i16) -> i16 {
    a.wrapping_abs()
}

/// `abs.s32`: the smallest value stays as it is.
#[inline(always)]
pub fn abs_s32(a: i32) -> i32 {
    a.wrapping_abs()
}

/// `abs.s64`: the smallest value stays as it is.
#[inline(always)]
pub fn abs_s64(a: i64) -> i64 {
    a.wrapping_abs()
}

/// `add.sat.s32`.
#[inline(always)]
pub fn add_sat_s32(a: i32, b: i32) -> i32 {
    a.saturating_add(b)
}

/// `sub.sat.s32`.
#[inline(always)]
pub fn sub_sat_s32(a: i32, b: i32) -> i32 {
    a.saturating_sub(b)
}

/// `mad.hi.sat.s32`: the upper half of the product, plus `c`, clamped.
#[inline(always)]
pub fn mad_hi_sat_s32(a: i32, b: i32, c: i32) -> i32 {
    mulhi_s32(a, b).saturating_add(c)
}

macro_rules! shift {
    ($shl:ident, $shr_u:ident, $shr_s:ident, $unsigned:ident, $signed:ident) => {
        /// `shl`: amounts beyond the width give zero.
        #[inline(always)]
        pub fn $shl(a: $unsigned, amount: u32) -> $unsigned {
            if amount < $unsigned::BITS { a << amount } else { 0 }
        }

        /// `shr` of an unsigned or untyped value: amounts beyond the width give zero.
        #[inline(always)]
        pub fn $shr_u(a: $unsigned, amount: u32) -> $unsigned {
            if amount < $unsigned::BITS { a >> amount } else { 0 }
        }

        /// `shr` of a signed value: amounts beyond the width give the sign in all bits.
        #[inline(always)]
        pub fn $shr_s(a: $signed, amount: u32) -> $signed {
            a >> amount.min($signed::BITS - 1)
        }
    };
}
shift!(shl_b16, shr_u16, shr_s16, u16, i16);
shift!(shl_b32, shr_u32, shr_s32, u32, i32);
shift!(shl_b64, shr_u64, shr_s64, u64, i64);

/// `shf.l`: the upper half of `{b, a}` shifted left.
#[inline(always)]
pub fn shf_l(a: u32, b: u32, amount: u32, beyond: Beyond) -> u32 {
    ((joined(a, b) << funnel_amount(amount, beyond)) >> 32) as u32
}

/// `shf.r`: the lower half of `{b, a}` shifted right.
#[inline(always)]
pub fn shf_r(a: u32, b: u32, amount: u32, beyond: Beyond) -> u32 {
    (joined(a, b) >> funnel_amount(amount, beyond)) as u32
}

#[inline(always)]
fn joined(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[inline(always)]
fn funnel_amount(amount: u32, beyond: Beyond) -> u32 {
    match beyond {
        Beyond::Clamp => amount.min(32),
        Beyond::Wrap => amount & 31,
    }
}

/// The four bytes of a word, widened.
#[inline(always)]
fn bytes(word: u32, sign: Sign) -> [i32; 4] {
    word.to_le_bytes().map(|byte| match sign {
        Sign::Unsigned => i32::from(byte),
        Sign::Signed => i32::from(byte as i8),
    })
}

/// `dp4a`: `c` plus the dot product of four bytes each of `a` and `b`, wrapping.
#[inline(always)]
pub fn dp4a(a: u32, b: u32, c: u32, a_sign: Sign, b_sign: Sign) -> u32 {
    let (a, b) = (bytes(a, a_sign), bytes(b, b_sign));
    let products: i32 = (0..4).map(|i| a[i] * b[i]).sum();
    c.wrapping_add(products as u32)
}

/// `dp2a`: `c` plus the dot product of the halves of `a` and two bytes of `b`, wrapping.
#[inline(always)]
pub fn dp2a(a: u32, b: u32, c: u32, a_sign: Sign, b_sign: Sign, half: HalfWord) -> u32 {
    let a = [a as u16, (a >> 16) as u16].map(|value| match a_sign {
        Sign::Unsigned => i32::from(value),
        Sign::Signed => i32::from(value as i16),
    });
    let b = bytes(b, b_sign);
    let first = if half == HalfWord::Low { 0 } else { 2 };
    // Each product has 24 bits at most.
    c.wrapping_add((a[0] * b[first] + a[1] * b[first + 1]) as u32)
}

/// An operation on the two halves of packed words.
#[inline(always)]
fn halves(a: u32, b: u32, op: impl Fn(u16, u16) -> u16) -> u32 {
    let low = op(a as u16, b as u16);
    let high = op((a >> 16) as u16, (b >> 16) as u16);
    u32::from(high) << 16 | u32::from(low)
}

/// `add.u16x2` and `add.s16x2`, wrapping.
#[inline(always)]
pub fn add_16x2(a: u32, b: u32) -> u32 {
    halves(a, b, u16::wrapping_add)
}

/// `min.u16x2`.
#[inline(always)]
pub fn min_u16x2(a: u32, b: u32) -> u32 {
    halves(a, b, u16::min)
}

/// `max.u16x2`.
#[inline(always)]
pub fn max_u16x2(a: u32, b: u32) -> u32 {
    halves(a, b, u16::max)
}

/// `min.s16x2`; `relu` clamps negative results to zero.
#[inline(always)]
pub fn min_s16x2(a: u32, b: u32, relu: bool) -> u32 {
    halves(a, b, |a, b| relu_s16((a as i16).min(b as i16), relu))
}

/// `max.s16x2`; `relu` clamps negative results to zero.
#[inline(always)]
pub fn max_s16x2(a: u32, b: u32, relu: bool) -> u32 {
    halves(a, b, |a, b| relu_s16((a as i16).max(b as i16), relu))
}

#[inline(always)]
fn relu_s16(value: i16, relu: bool) -> u16 {
    if relu { value.max(0) as u16 } else { value as u16 }
}
