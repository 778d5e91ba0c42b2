use super::{check32, check64};

const NAN: u32 = 0x7fff_ffff;

fn bits(value: f32) -> u32 {
    if value.is_nan() { NAN } else { value.to_bits() }
}

fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

fn d(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn bits64(value: f64) -> u64 {
    if value.is_nan() { 0x7ff8_0000_0000_0000 } else { value.to_bits() }
}

fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

#[test]
fn arithmetic_of_f32() {
    check32("add.f32 %d, %a, %b;", |a, b, _| bits(f(a) + f(b)));
    check32("sub.rn.f32 %d, %a, %b;", |a, b, _| bits(f(a) - f(b)));
    check32("mul.f32 %d, %a, %b;", |a, b, _| bits(f(a) * f(b)));
    check32("fma.rn.f32 %d, %a, %b, %c;", |a, b, c| bits(f(a).mul_add(f(b), f(c))));
    check32("div.rn.f32 %d, %a, %b;", |a, b, _| bits(f(a) / f(b)));
    check32("sqrt.rn.f32 %d, %a;", |a, _, _| bits(f(a).sqrt()));
    check32("rcp.rn.f32 %d, %a;", |a, _, _| bits(1.0 / f(a)));
    check32("neg.f32 %d, %a;", |a, _, _| a ^ 0x8000_0000);
    check32("abs.f32 %d, %a;", |a, _, _| a & 0x7fff_ffff);
}

#[test]
fn subnormals_are_flushed_where_asked_for_alone() {
    check32("add.ftz.f32 %d, %a, %b;", |a, b, _| bits(flushed(flushed(f(a)) + flushed(f(b)))));
    check32("mul.ftz.f32 %d, %a, %b;", |a, b, _| bits(flushed(flushed(f(a)) * flushed(f(b)))));
    check32("mul.f32 %d, %a, 0f3f000000;", |a, _, _| bits(f(a) * 0.5));
}

#[test]
fn saturation_takes_nan_to_zero() {
    check32("add.sat.f32 %d, %a, %b;", |a, b, _| {
        let sum = f(a) + f(b);
        if sum.is_nan() { 0 } else { (sum.clamp(0.0, 1.0) + 0.0).to_bits() }
    });
}

#[test]
fn the_smaller_and_the_larger_prefer_numbers() {
    let min = |a: f32, b: f32| {
        if a.is_nan() && b.is_nan() {
            NAN
        } else if a.is_nan() {
            b.to_bits()
        } else if b.is_nan() {
            a.to_bits()
        } else if a == b {
            a.to_bits() | b.to_bits()
        } else {
            a.min(b).to_bits()
        }
    };
    check32("min.f32 %d, %a, %b;", |a, b, _| min(f(a), f(b)));
    check32("max.NaN.f32 %d, %a, %b;", |a, b, _| {
        if f(a).is_nan() || f(b).is_nan() {
            NAN
        } else if f(a) == f(b) {
            a & b
        } else {
            f(a).max(f(b)).to_bits()
        }
    });
}

#[test]
fn arithmetic_of_f64() {
    check64("add.f64 %d64, %a64, %b64;", |a, b, _| bits64(d(a) + d(b)));
    check64("mul.rn.f64 %d64, %a64, %b64;", |a, b, _| bits64(d(a) * d(b)));
    check64("fma.rn.f64 %d64, %a64, %b64, %c64;", |a, b, c| bits64(d(a).mul_add(d(b), d(c))));
    check64("div.rn.f64 %d64, %a64, %b64;", |a, b, _| bits64(d(a) / d(b)));
    check64("sqrt.rn.f64 %d64, %a64;", |a, _, _| bits64(d(a).sqrt()));
}

#[test]
fn directed_roundings_bracket_the_nearest() {
    // Down is at most nearest is at most up, and they differ by one step at most: the sum is one of two neighbours.
    let neighbours = |a: u32, b: u32| {
        let exact = f64::from(f(a)) + f64::from(f(b));
        let near = f(a) + f(b);
        let (mut down, mut up) = (near, near);
        if f64::from(near) > exact {
            down = near.next_down();
        } else if f64::from(near) < exact {
            up = near.next_up();
        }
        (down, up)
    };
    // Sums of f32 whose exponents lie close are exact in f64: halves of 16 bits as integers are.
    let narrow = |x: u32| (x & 0xff_ffff) as f32;
    check32(
        "and.b32 %e, %a, 0xffffff; cvt.rn.f32.u32 %e, %e; and.b32 %f, %b, 0xffffff; cvt.rn.f32.u32 %f, %f;
         mul.f32 %f, %f, 0f3e800000; add.rm.f32 %d, %e, %f;",
        |a, b, _| bits(neighbours(narrow(a).to_bits(), (narrow(b) * 0.25).to_bits()).0),
    );
    check32(
        "and.b32 %e, %a, 0xffffff; cvt.rn.f32.u32 %e, %e; and.b32 %f, %b, 0xffffff; cvt.rn.f32.u32 %f, %f;
         mul.f32 %f, %f, 0f3e800000; add.rp.f32 %d, %e, %f;",
        |a, b, _| bits(neighbours(narrow(a).to_bits(), (narrow(b) * 0.25).to_bits()).1),
    );
}

#[test]
fn comparisons_with_nan() {
    let predicate = |cmp: &str| format!("setp.{cmp}.f32 %q, %a, %b; selp.u32 %d, 1, 0, %q;");
    check32(&predicate("lt"), |a, b, _| u32::from(f(a) < f(b)));
    check32(&predicate("ltu"), |a, b, _| {
        u32::from(f(a).partial_cmp(&f(b)).is_none_or(|order| order.is_lt()))
    });
    check32(&predicate("ne"), |a, b, _| u32::from(f(a) < f(b) || f(a) > f(b)));
    check32(&predicate("neu"), |a, b, _| u32::from(f(a) != f(b)));
    check32(&predicate("num"), |a, b, _| u32::from(!f(a).is_nan() && !f(b).is_nan()));
}

#[test]
fn approximations_are_within_their_bounds() {
    // The value of 2^x, to 2^-22 of it, where nothing is subnormal.
    let inputs: Vec<u64> =
        (0..super::THREADS).map(|n| u64::from((n as f32 / 3.0 - 11.5).to_bits())).collect();
    let found = super::run("ex2.approx.f32 %d, %a;", true, [&inputs, &inputs, &inputs]);
    for (input, found) in inputs.iter().zip(&found) {
        let want = f64::from(f(*input as u32)).exp2();
        let error = (f64::from(f(*found as u32)) - want).abs() / want;
        assert!(error <= 2f64.powi(-22), "2^{}: {error}", f(*input as u32));
    }
}
