use super::{check32, check64};

#[test]
fn packing() {
    check64("mov.b64 {%d, %e}, %a64; mov.b64 %d64, {%e, %d};", |a, _, _| a.rotate_left(32));
    check32("mov.b32 %d, {%ah, %bh};", |a, b, _| a & 0xffff | b << 16);
    check32("mov.b32 {%ah, %bh}, %c; mov.b32 %d, {%bh, %ah};", |_, _, c| c.rotate_left(16));
    check64("mov.b64 %d64, {%ah, %bh, %ch, %ah};", |a, b, c| {
        a & 0xffff | (b & 0xffff) << 16 | (c & 0xffff) << 32 | (a & 0xffff) << 48
    });
}

#[test]
fn selection() {
    check32(
        "setp.lt.s32 %q, %a, %b; selp.b32 %d, %a, %c, %q;",
        |a, b, c| if (a as i32) < b as i32 { a } else { c },
    );
    check32("setp.hi.u32 %q, %a, %b; selp.b32 %d, %a, %c, %q;", |a, b, c| if a > b { a } else { c });
    check32("slct.b32.s32 %d, %a, %b, %c;", |a, b, c| if c as i32 >= 0 { a } else { b });
    check32("set.lt.u32.u32 %d, %a, %b;", |a, b, _| if a < b { u32::MAX } else { 0 });
    check64(
        "setp.eq.u64 %q, %a64, %b64; selp.b64 %d64, %a64, %c64, %q;",
        |a, b, c| if a == b { a } else { c },
    );
}

#[test]
fn predicates() {
    check32(
        "setp.lt.s32 %q, %a, 0; setp.lt.s32 %r, %b, 0; xor.pred %q, %q, %r; not.pred %r, %q; selp.u32 %d, 1, 2, %r;",
        |a, b, _| if ((a as i32) < 0) ^ ((b as i32) < 0) { 2 } else { 1 },
    );
}

#[test]
fn predicates_take_constants() {
    check32(
        "mov.pred %q, 0; mov.pred %r, -1; selp.u32 %d, %a, %b, %q; selp.u32 %e, %a, %b, %r; xor.b32 %d, %d, %e;",
        |a, b, _| a ^ b,
    );
}

#[test]
fn values_survive_loops_and_branches() {
    // Registers that live around a loop, and are written on one path only.
    check32(
        "mov.u32 %d, 0; mov.u32 %e, 0; and.b32 %f, %a, 15;
         LOOP: setp.ge.u32 %q, %e, %f; @%q bra DONE; and.b32 %c, %e, 1; setp.eq.u32 %r, %c, 1; @%r bra ODD;
         add.u32 %d, %d, %b; bra NEXT; ODD: add.u32 %d, %d, 3; NEXT: add.u32 %e, %e, 1; bra LOOP; DONE:",
        |a, b, _| {
            (0..a & 15).fold(0u32, |d, e| if e & 1 == 1 { d.wrapping_add(3) } else { d.wrapping_add(b) })
        },
    );
}

#[test]
fn vectors_of_bytes() {
    check32(
        "ld.param.u64 %p, [pa]; add.u64 %t, %p, %o; ld.global.v4.s8 {%d, %e, %f, %c}, [%t];
         mad.lo.u32 %d, %e, 3, %d; mad.lo.u32 %d, %f, 5, %d; mad.lo.u32 %d, %c, 7, %d;
         ld.global.v2.u8 {%ah, %bh}, [%t+2]; mov.b32 %e, {%bh, %ah}; xor.b32 %d, %d, %e;",
        |a, _, _| {
            let bytes = a.to_le_bytes();
            let sum = [1, 3, 5, 7].iter().zip(bytes).map(|(n, byte)| n * i32::from(byte as i8)).sum::<i32>();
            sum as u32 ^ (u32::from(bytes[3]) | u32::from(bytes[2]) << 16)
        },
    );
}

#[test]
fn local_memory_is_each_threads_own() {
    check32(
        "{ .local .align 8 .b8 depot[16]; .reg .b64 %g; mov.u64 %g, depot; cvta.local.u64 %g, %g; st.u32 [%g+4], %a; st.local.u32 [depot+8], %b;
         ld.u32 %d, [%g+8]; ld.local.u32 %e, [depot+4]; xor.b32 %d, %d, %e; }",
        |a, b, _| a ^ b,
    );
}
