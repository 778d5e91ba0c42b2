use super::{check32, check64};

#[test]
fn sums_and_products_of_32_bits() {
    check32("add.s32 %d, %a, %b;", |a, b, _| a.wrapping_add(b));
    check32("sub.u32 %d, %a, %b;", |a, b, _| a.wrapping_sub(b));
    check32("add.sat.s32 %d, %a, %b;", |a, b, _| (a as i32).saturating_add(b as i32) as u32);
    check32("sub.sat.s32 %d, %a, %b;", |a, b, _| (a as i32).saturating_sub(b as i32) as u32);
    check32("mul.lo.s32 %d, %a, %b;", |a, b, _| a.wrapping_mul(b));
    check32("mul.hi.s32 %d, %a, %b;", |a, b, _| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32);
    check32("mul.hi.u32 %d, %a, %b;", |a, b, _| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    check32("mad.lo.s32 %d, %a, %b, %c;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    check32("mad.hi.u32 %d, %a, %b, %c;", |a, b, c| {
        (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)
    });
    check32("sad.s32 %d, %a, %b, %c;", |a, b, c| (a as i32).abs_diff(b as i32).wrapping_add(c));
    check32("mul24.lo.s32 %d, %a, %b;", |a, b, _| {
        ((i64::from((a << 8) as i32 >> 8)) * i64::from((b << 8) as i32 >> 8)) as u32
    });
}

#[test]
fn wide_products() {
    check64("mul.wide.s32 %d64, %a, %b;", |a, b, _| (i64::from(a as i32) * i64::from(b as i32)) as u64);
    check64("mul.wide.u32 %d64, %a, %b;", |a, b, _| u64::from(a as u32) * u64::from(b as u32));
    check64("mad.wide.s32 %d64, %a, %b, %c64;", |a, b, c| {
        (i64::from(a as i32) * i64::from(b as i32)).wrapping_add(c as i64) as u64
    });
    check32("mul.wide.s16 %d, %ah, %bh;", |a, b, _| (i32::from(a as i16) * i32::from(b as i16)) as u32);
    check32("mul.wide.u16 %d, %ah, %bh;", |a, b, _| u32::from(a as u16) * u32::from(b as u16));
}

#[test]
fn sums_and_products_of_64_and_16_bits() {
    check64("add.s64 %d64, %a64, %b64;", |a, b, _| a.wrapping_add(b));
    check64("sub.s64 %d64, %a64, %b64;", |a, b, _| a.wrapping_sub(b));
    check64("mul.lo.s64 %d64, %a64, %b64;", |a, b, _| a.wrapping_mul(b));
    check64("mul.hi.u64 %d64, %a64, %b64;", |a, b, _| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    check64("mul.hi.s64 %d64, %a64, %b64;", |a, b, _| {
        ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
    });
    check64("mad.lo.u64 %d64, %a64, %b64, %c64;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    check32("add.s16 %dh, %ah, %bh; cvt.u32.u16 %d, %dh;", |a, b, _| {
        u32::from((a as u16).wrapping_add(b as u16))
    });
    check32("min.s16 %dh, %ah, %bh; cvt.u32.u16 %d, %dh;", |a, b, _| {
        u32::from((a as i16).min(b as i16) as u16)
    });
    check32("mul.lo.u16 %dh, %ah, %bh; cvt.u32.u16 %d, %dh;", |a, b, _| {
        u32::from((a as u16).wrapping_mul(b as u16))
    });
}

#[test]
fn division_with_zero_and_overflow() {
    check32(
        "div.s32 %d, %a, %b;",
        |a, b, _| if b == 0 { u32::MAX } else { (a as i32).wrapping_div(b as i32) as u32 },
    );
    check32("div.u32 %d, %a, %b;", |a, b, _| a.checked_div(b).unwrap_or(u32::MAX));
    check32(
        "rem.s32 %d, %a, %b;",
        |a, b, _| if b == 0 { a } else { (a as i32).wrapping_rem(b as i32) as u32 },
    );
    check64("div.s64 %d64, %a64, %b64;", |a, b, _| {
        if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 }
    });
    check64("rem.u64 %d64, %a64, %b64;", |a, b, _| a.checked_rem(b).unwrap_or(a));
}

#[test]
fn smallest_largest_and_signs() {
    check32("min.s32 %d, %a, %b;", |a, b, _| (a as i32).min(b as i32) as u32);
    check32("max.u32 %d, %a, %b;", |a, b, _| a.max(b));
    check64("max.s64 %d64, %a64, %b64;", |a, b, _| (a as i64).max(b as i64) as u64);
    check32("abs.s32 %d, %a;", |a, _, _| (a as i32).wrapping_abs() as u32);
    check32("neg.s32 %d, %a;", |a, _, _| a.wrapping_neg());
    check64("neg.s64 %d64, %a64;", |a, _, _| a.wrapping_neg());
    check64("abs.s64 %d64, %a64;", |a, _, _| (a as i64).wrapping_abs() as u64);
}

#[test]
fn logic_and_shifts() {
    check32("and.b32 %d, %a, %b;", |a, b, _| a & b);
    check64("xor.b64 %d64, %a64, %b64;", |a, b, _| a ^ b);
    check32("not.b32 %d, %a;", |a, _, _| !a);
    check32("cnot.b32 %d, %a;", |a, _, _| u32::from(a == 0));
    check32("lop3.b32 %d, %a, %b, %c, 0x96;", |a, b, c| a ^ b ^ c);
    check32("lop3.b32 %d, %a, %b, %c, 0xE8;", |a, b, c| a & b | a & c | b & c);
    check32("shl.b32 %d, %a, %b;", |a, b, _| if b > 31 { 0 } else { a << b });
    check32("shr.u32 %d, %a, %b;", |a, b, _| if b > 31 { 0 } else { a >> b });
    check32("shr.s32 %d, %a, %b;", |a, b, _| (a as i32 >> b.min(31)) as u32);
    check64("shl.b64 %d64, %a64, %b;", |a, b, _| if b as u32 > 63 { 0 } else { a << (b as u32) });
    check64("shr.s64 %d64, %a64, %b;", |a, b, _| (a as i64 >> (b as u32).min(63)) as u64);
    check32("shf.l.wrap.b32 %d, %a, %b, %c;", |a, b, c| {
        (((u128::from(b) << 32 | u128::from(a)) << (c & 31)) >> 32) as u32
    });
    check32("shf.r.clamp.b32 %d, %a, %b, %c;", |a, b, c| {
        ((u64::from(b) << 32 | u64::from(a)) >> c.min(32)) as u32
    });
}

#[test]
fn bits_and_bytes() {
    check32("popc.b32 %d, %a;", |a, _, _| a.count_ones());
    check64("popc.b64 %d, %a64; cvt.u64.u32 %d64, %d;", |a, _, _| u64::from(a.count_ones()));
    check32("clz.b32 %d, %a;", |a, _, _| a.leading_zeros());
    check32("brev.b32 %d, %a;", |a, _, _| a.reverse_bits());
    check64("brev.b64 %d64, %a64;", |a, _, _| a.reverse_bits());
    check32("bfind.u32 %d, %a;", |a, _, _| if a == 0 { u32::MAX } else { 31 - a.leading_zeros() });
    check32("bfe.u32 %d, %a, 5, 9;", |a, _, _| a >> 5 & 0x1ff);
    check32("bfe.s32 %d, %a, 5, 9;", |a, _, _| ((a << 18) as i32 >> 23) as u32);
    check32("bfi.b32 %d, %a, %b, 4, 8;", |a, b, _| b & !0xff0 | (a & 0xff) << 4);
    check32("prmt.b32 %d, %a, %b, 0x3715;", |a, b, _| {
        let bytes: Vec<u8> = a.to_le_bytes().into_iter().chain(b.to_le_bytes()).collect();
        u32::from_le_bytes([bytes[5], bytes[1], bytes[7], bytes[3]])
    });
    check32("dp4a.s32.s32 %d, %a, %b, %c;", |a, b, c| {
        let dot: i32 = a
            .to_le_bytes()
            .iter()
            .zip(b.to_le_bytes())
            .map(|(x, y)| i32::from(*x as i8) * i32::from(y as i8))
            .sum();
        c.wrapping_add(dot as u32)
    });
}

#[test]
fn carries_chain() {
    check64(
        "mov.b64 {%d, %e}, %b64; { .reg .b32 %al, %ah2, %sl, %sh; mov.b64 {%al, %ah2}, %a64;
         add.cc.u32 %sl, %al, %d; addc.u32 %sh, %ah2, %e; mov.b64 %d64, {%sl, %sh}; }",
        |a, b, _| a.wrapping_add(b),
    );
}
