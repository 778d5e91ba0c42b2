//! Bit fields, searches and permutations. Re-exported by [`int`](super::int).

use super::int::{Beyond, Sign};

macro_rules! bfe {
    ($unsigned_name:ident, $signed_name:ident, $unsigned:ident, $signed:ident) => {
        /// `bfe` of an unsigned value: the field of `length` bits from bit `position`, only their low 8 bits count.
        #[inline(always)]
        pub fn $unsigned_name(a: $unsigned, position: u32, length: u32) -> $unsigned {
            let (position, length) = (position & 255, length & 255);
            let field = if position < $unsigned::BITS { a >> position } else { 0 };
            if length < $unsigned::BITS { field & !($unsigned::MAX << length) } else { field }
        }

        /// `bfe` of a signed value: its bits beyond the field, or beyond the operand, repeat the field's last one.
        #[inline(always)]
        pub fn $signed_name(a: $signed, position: u32, length: u32) -> $signed {
            let (position, length) = (position & 255, length & 255);
            if length == 0 {
                return 0;
            }
            let field = a >> position.min($signed::BITS - 1);
            let unused = $signed::BITS - length.min($signed::BITS);
            field << unused >> unused
        }
    };
}
bfe!(bfe_u32, bfe_s32, u32, i32);
bfe!(bfe_u64, bfe_s64, u64, i64);

macro_rules! bfi {
    ($name:ident, $int:ident) => {
        /// `bfi`: `base` with its field of `length` bits from bit `position` replaced by the low bits of `field`. Only
        /// the low 8 bits of position and length count.
        #[inline(always)]
        pub fn $name(field: $int, base: $int, position: u32, length: u32) -> $int {
            let (position, length) = (position & 255, length & 255);
            if position >= $int::BITS {
                return base;
            }
            let mask = if length < $int::BITS { !($int::MAX << length) } else { $int::MAX } << position;
            base & !mask | (field << position) & mask
        }
    };
}
bfi!(bfi_32, u32);
bfi!(bfi_64, u64);

/// `bfind.u32`: the position of the highest set bit, or, with `shift_amount`, the left shift that brings it to the
/// top; `0xffffffff` where no bit is set.
#[inline(always)]
pub fn bfind_u32(a: u32, shift_amount: bool) -> u32 {
    found(a.leading_zeros(), 32, shift_amount)
}

/// `bfind.s32`: as [`bfind_u32`], for the highest bit that differs from the sign.
#[inline(always)]
pub fn bfind_s32(a: i32, shift_amount: bool) -> u32 {
    bfind_u32((a ^ a >> 31) as u32, shift_amount)
}

/// `bfind.u64`: as [`bfind_u32`].
#[inline(always)]
pub fn bfind_u64(a: u64, shift_amount: bool) -> u32 {
    found(a.leading_zeros(), 64, shift_amount)
}

/// `bfind.s64`: as [`bfind_s32`].
#[inline(always)]
pub fn bfind_s64(a: i64, shift_amount: bool) -> u32 {
    bfind_u64((a ^ a >> 63) as u64, shift_amount)
}

#[inline(always)]
fn found(zeros: u32, bits: u32, shift_amount: bool) -> u32 {
    match (zeros == bits, shift_amount) {
        (true, _) => u32::MAX,
        (false, true) => zeros,
        (false, false) => bits - 1 - zeros,
    }
}

/// `fns`: the position of the n-th set bit of `mask` from bit `base` on, upwards for positive `offset` n and downwards
/// for negative; for zero, `base` itself if its bit is set. `0xffffffff` where there is none, or `base` exceeds 31.
pub fn fns(mask: u32, base: u32, offset: i32) -> u32 {
    if base > 31 {
        return u32::MAX;
    }
    let set = |position: &u32| mask >> position & 1 == 1;
    let nth = offset.unsigned_abs().saturating_sub(1) as usize;
    let position = match offset {
        0 => Some(base).filter(set),
        1.. => (base..32).filter(set).nth(nth),
        _ => (0..=base).rev().filter(set).nth(nth),
    };
    position.unwrap_or(u32::MAX)
}

/// Modes of [`prmt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permute {
    /// No mode: four selectors of four bits, whose highest bit asks for the byte's sign in all its bits.
    Index,
    /// `.f4e`: four bytes forward.
    F4e,
    /// `.b4e`: four bytes backward.
    B4e,
    /// `.rc8`: one byte replicated.
    Rc8,
    /// `.ecl`: edge clamp left.
    Ecl,
    /// `.ecr`: edge clamp right.
    Ecr,
    /// `.rc16`: one half replicated.
    Rc16,
}

/// `prmt`: four bytes of `{b, a}`, chosen by `c`.
#[inline(always)]
pub fn prmt(a: u32, b: u32, c: u32, mode: Permute) -> u32 {
    // Of the special modes, the two low bits of `c` choose the row of a table: one selector for each byte, high to low.
    let row = (c & 3) as usize;
    let selectors = match mode {
        Permute::Index => c,
        Permute::F4e => [0x3210, 0x4321, 0x5432, 0x6543][row],
        Permute::B4e => [0x5670, 0x6701, 0x7012, 0x0123][row],
        Permute::Rc8 => [0x0000, 0x1111, 0x2222, 0x3333][row],
        Permute::Ecl => [0x3210, 0x3211, 0x3222, 0x3333][row],
        Permute::Ecr => [0x0000, 0x1110, 0x2210, 0x3210][row],
        Permute::Rc16 => [0x1010, 0x3232, 0x1010, 0x3232][row],
    };
    let source = u64::from(b) << 32 | u64::from(a);
    let byte = |index: u32| {
        let selector = selectors >> (4 * index) & 15;
        let byte = (source >> (8 * (selector & 7))) as u8;
        let byte = if selector & 8 != 0 { (byte as i8 >> 7) as u8 } else { byte };
        u32::from(byte) << (8 * index)
    };
    byte(0) | byte(1) | byte(2) | byte(3)
}

/// `lop3`: bit by bit, the entry of `table` at the index made of the bits of `a`, `b` and `c`, high to low.
#[inline(always)]
pub fn lop3(a: u32, b: u32, c: u32, table: u8) -> u32 {
    let mut result = 0;
    for index in 0..8u32 {
        let entry = (u32::from(table) >> index & 1).wrapping_neg();
        let pick = |word: u32, bit: u32| word ^ (index >> bit & 1).wrapping_sub(1);
        result |= entry & pick(a, 2) & pick(b, 1) & pick(c, 0);
    }
    result
}

/// `szext`: the low `width` bits of `a`, extended to 32. Widths from 32 on give `a`, or count modulo 32.
#[inline(always)]
pub fn szext(a: u32, width: u32, beyond: Beyond, sign: Sign) -> u32 {
    if beyond == Beyond::Clamp && width >= 32 {
        return a;
    }
    match (width & 31, sign) {
        (0, _) => 0,
        (width, Sign::Unsigned) => a << (32 - width) >> (32 - width),
        (width, Sign::Signed) => ((a << (32 - width)) as i32 >> (32 - width)) as u32,
    }
}

/// `bmsk`: `width` set bits from bit `position` on. Positions from 32 on give zero and widths from 32 on all bits above
/// the position, or both count modulo 32.
#[inline(always)]
pub fn bmsk(position: u32, width: u32, beyond: Beyond) -> u32 {
    let (position, width) = match beyond {
        Beyond::Clamp => (position.min(32), width.min(32)),
        Beyond::Wrap => (position & 31, width & 31),
    };
    // At most 64 bits, of which the low half is kept.
    (((1u64 << width) - 1) << position) as u32
}
