//! Single instructions against plain definitions, lane by lane, in whole and in diverged warps.

mod conversions;
mod floats;
mod integers;
mod moves;
mod warps;

use kiln_sim::arch::Arch;
use kiln_sim::device::{Config, Device, Fault, LaunchConfig};
use kiln_sim::stamp::Stamp;

/// Threads of a run: three warps, the last with five lanes.
const THREADS: usize = 69;

/// Operands of each thread: special values first, then a mix of bits.
fn operands(seed: u64) -> Vec<u64> {
    let specials = [
        0,
        1,
        2,
        31,
        32,
        63,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x3f80_0000,
        0xbf80_0000,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x0000_0001,
        0x0080_0000,
        0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        u64::MAX,
        0x3ff0_0000_0000_0000,
        0x7ff0_0000_0000_0000,
    ];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..THREADS)
        .map(|n| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match (n + seed as usize * 5) % THREADS {
                at if at < specials.len() => specials[at],
                at if at % 3 == 0 => state >> 40,
                _ => state,
            }
        })
        .collect()
}

/// Runs `body` with `%a64`, `%b64`, `%c64` (and their low halves `%a`, `%b`, `%c`, their low 16 bits `%ah`, `%bh`, `%ch`,
/// and the same as floats) set; the result is what it leaves in `%d64`, into which `%d` is copied if `narrow`.
fn run(body: &str, narrow: bool, inputs: [&[u64]; 3]) -> Vec<u64> {
    let finish = if narrow { "cvt.u64.u32 %d64, %d;" } else { "" };
    let ptx = format!(
        ".version 8.4 .target sm_90 .address_size 64
        .visible .entry k(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u64 pd) {{
            .reg .b64 %p, %o, %t, %a64, %b64, %c64, %d64; .reg .b32 %tid, %a, %b, %c, %d, %e, %f; .reg .b16 %ah, %bh, %ch, %dh;
            .reg .pred %q, %r, %s;
            mov.u32 %tid, %tid.x; mul.wide.u32 %o, %tid, 8;
            ld.param.u64 %p, [pa]; add.u64 %t, %p, %o; ld.global.u64 %a64, [%t];
            ld.param.u64 %p, [pb]; add.u64 %t, %p, %o; ld.global.u64 %b64, [%t];
            ld.param.u64 %p, [pc]; add.u64 %t, %p, %o; ld.global.u64 %c64, [%t];
            cvt.u32.u64 %a, %a64; cvt.u32.u64 %b, %b64; cvt.u32.u64 %c, %c64;
            cvt.u16.u64 %ah, %a64; cvt.u16.u64 %bh, %b64; cvt.u16.u64 %ch, %c64;
            mov.u64 %d64, 0; mov.u32 %d, 0;
            {body}
            {finish}
            ld.param.u64 %p, [pd]; add.u64 %t, %p, %o; st.global.u64 [%t], %d64;
            ret;
        }}"
    );
    try_run(&ptx, inputs).unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn try_run(ptx: &str, inputs: [&[u64]; 3]) -> Result<Vec<u64>, Fault> {
    let device = Device::new(Config::new(Arch::Sm90));
    let module = device.load(ptx).unwrap_or_else(|error| panic!("{error}"));
    let kernel = module.kernel("k").expect("the kernel is there");
    let mut stamp = Stamp::sequential(1, "copy");
    let mut params = Vec::new();
    for input in inputs {
        let address = device.alloc(8 * THREADS as u64).expect("there is memory");
        let bytes: Vec<u8> = input.iter().flat_map(|value| value.to_le_bytes()).collect();
        device.write(address, &bytes, &stamp)?;
        stamp = stamp.next("copy");
        params.extend(address.to_le_bytes());
    }
    let output = device.alloc(8 * THREADS as u64).expect("there is memory");
    params.extend(output.to_le_bytes());
    device.launch(&kernel, &LaunchConfig::linear(1, THREADS as u32), &params, &stamp)?;
    stamp = stamp.next("copy");
    let mut bytes = vec![0; 8 * THREADS];
    device.read(output, &mut bytes, &stamp)?;
    Ok(bytes.chunks(8).map(|chunk| u64::from_le_bytes(chunk.try_into().expect("eight bytes"))).collect())
}

/// Checks 32-bit results: `body` leaves them in `%d`.
fn check32(body: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    check(body, true, |a, b, c| u64::from(expected(a as u32, b as u32, c as u32)));
}

/// Checks 64-bit results: `body` leaves them in `%d64`.
fn check64(body: &str, expected: impl Fn(u64, u64, u64) -> u64) {
    check(body, false, expected);
}

fn check(body: &str, narrow: bool, expected: impl Fn(u64, u64, u64) -> u64) {
    // Under a guard, and with it, the others keep what they had.
    let guarded = format!("setp.lt.u32 %s, %tid, 40; @%s bra L; bra E; L: {body} E:");
    let divided = format!("and.b32 %e, %tid, 3; setp.eq.u32 %s, %e, 1; {}", with_guard(body, "@!%s"));
    for seed in 1..4 {
        let (a, b, c) = (operands(seed), operands(seed + 10), operands(seed + 20));
        let plain = run(body, narrow, [&a, &b, &c]);
        let halved = run(&guarded, narrow, [&a, &b, &c]);
        let picked = run(&divided, narrow, [&a, &b, &c]);
        for lane in 0..THREADS {
            let want = expected(a[lane], b[lane], c[lane]);
            let say = || {
                format!(
                    "{body}: thread {lane}, a {:#x}, b {:#x}, c {:#x}: expected {want:#x}",
                    a[lane], b[lane], c[lane]
                )
            };
            assert_eq!(plain[lane], want, "{}", say());
            assert_eq!(halved[lane], if lane < 40 { want } else { 0 }, "{} (branch)", say());
            let kept = lane & 3 == 1 && divided.contains("@!");
            assert_eq!(picked[lane], if kept { 0 } else { want }, "{} (guard)", say());
        }
    }
}

/// Puts a guard before each instruction of a body.
fn with_guard(body: &str, guard: &str) -> String {
    if body.contains([':', '{']) {
        return body.to_string();
    }
    body.split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| format!("{guard} {part}; "))
        .collect()
}
