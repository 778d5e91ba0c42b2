use super::{check32, check64};

#[test]
fn between_integers() {
    check64("cvt.s64.s32 %d64, %a;", |a, _, _| i64::from(a as i32) as u64);
    check64("cvt.u64.u32 %d64, %a;", |a, _, _| u64::from(a as u32));
    check32("cvt.u32.u64 %d, %a64;", |a, _, _| a);
    check32("cvt.s32.s8 %d, %a;", |a, _, _| i32::from(a as i8) as u32);
    check32("cvt.u32.u8 %d, %a;", |a, _, _| a & 0xff);
    check32("cvt.s32.s16 %d, %ah;", |a, _, _| i32::from(a as i16) as u32);
    check32("cvt.sat.s8.s32 %d, %a;", |a, _, _| (a as i32).clamp(-128, 127) as u32);
    check32("cvt.sat.u8.s32 %d, %a;", |a, _, _| (a as i32).clamp(0, 255) as u32);
}

#[test]
fn from_floats_to_integers_clamp() {
    check32("cvt.rzi.s32.f32 %d, %a;", |a, _, _| f32::from_bits(a) as i32 as u32);
    check32("cvt.rzi.u32.f32 %d, %a;", |a, _, _| f32::from_bits(a) as u32);
    check32("cvt.rmi.s32.f32 %d, %a;", |a, _, _| f32::from_bits(a).floor() as i32 as u32);
    check32("cvt.rni.s32.f32 %d, %a;", |a, _, _| f32::from_bits(a).round_ties_even() as i32 as u32);
}

#[test]
fn from_integers_to_floats_round() {
    check32("cvt.rn.f32.s32 %d, %a;", |a, _, _| (a as i32 as f32).to_bits());
    check32("cvt.rn.f32.u32 %d, %a;", |a, _, _| (a as f32).to_bits());
    check64("cvt.rn.f32.u64 %d, %a64; cvt.u64.u32 %d64, %d;", |a, _, _| u64::from((a as f32).to_bits()));
    check64("cvt.rn.f64.s64 %d64, %a64;", |a, _, _| (a as i64 as f64).to_bits());
    check32("cvt.rn.f32.u8 %d, %ah;", |a, _, _| ((a & 0xff) as f32).to_bits());
}

#[test]
fn between_floats() {
    let canonical = |value: f32| if value.is_nan() { 0x7fff_ffff } else { value.to_bits() };
    check64("cvt.rn.f32.f64 %d, %a64; cvt.u64.u32 %d64, %d;", |a, _, _| {
        u64::from(canonical(f64::from_bits(a) as f32))
    });
    check64("cvt.f64.f32 %d64, %a;", |a, _, _| {
        let value = f64::from(f32::from_bits(a as u32));
        if value.is_nan() { 0x7ff8_0000_0000_0000 } else { value.to_bits() }
    });
    check32("cvt.f32.f16 %d, %ah;", |a, _, _| canonical(half::f16::from_bits(a as u16).to_f32()));
    check32("cvt.rn.f16.f32 %dh, %a; cvt.u32.u16 %d, %dh;", |a, _, _| {
        let value = half::f16::from_f32(f32::from_bits(a));
        if value.is_nan() { 0x7fff } else { u32::from(value.to_bits()) }
    });
    check32("cvt.rn.bf16x2.f32 %d, %a, %b;", |a, b, _| {
        let part = |x: u32| {
            let value = half::bf16::from_f32(f32::from_bits(x));
            if value.is_nan() { 0x7fff } else { u32::from(value.to_bits()) }
        };
        part(a) << 16 | part(b)
    });
    check32("cvt.rna.tf32.f32 %d, %a;", |a, _, _| {
        let value = f32::from_bits(a);
        if value.is_nan() {
            0x7fff_ffff
        } else if value.is_infinite() {
            a
        } else {
            a.wrapping_add(0x1000) & !0x1fff
        }
    });
    check32("cvt.rzi.f32.f32 %d, %a;", |a, _, _| canonical(f32::from_bits(a).trunc()));
}
