//! What a function does counts as done by the kernel that calls it.

use kiln_sim::arch::Arch;
use kiln_sim::device::{Config, Device, LaunchConfig};
use kiln_sim::stamp::Stamp;

/// Blocks meet at an atomic that only a called function has: they must be run where they can.
#[test]
fn atomics_of_a_called_function_are_no_race_between_blocks() {
    let ptx = ".version 8.4
        .target sm_80
        .address_size 64
        .func count(.param .b64 at) {
            .reg .b64 %p; .reg .b32 %old;
            ld.param.u64 %p, [at];
            atom.global.add.u32 %old, [%p], 1;
            ret;
        }
        .visible .entry k(.param .u64 at) {
            .reg .b64 %p;
            ld.param.u64 %p, [at];
            { .param .b64 a0; st.param.b64 [a0], %p; call.uni count, (a0); }
            ret;
        }";
    let device = Device::new(Config { threads: 2, ..Config::new(Arch::Sm80) });
    let kernel = device.load(ptx).unwrap().kernel("k").unwrap();
    let (at, first) = (device.alloc(4).unwrap(), Stamp::sequential(1, "copy"));
    device.write(at, &[0; 4], &first).unwrap();
    let launch = first.next("launch");
    device.launch(&kernel, &LaunchConfig::linear(8, 32), &at.to_le_bytes(), &launch).unwrap();
    let mut total = [0; 4];
    device.read(at, &mut total, &launch.next("copy")).unwrap();
    assert_eq!(u32::from_le_bytes(total), 8 * 32);
}

/// A result is there until the function returns, whatever it does after it has stored it.
#[test]
fn a_result_that_is_stored_early_is_not_overwritten() {
    let ptx = ".version 8.4
        .target sm_80
        .address_size 64
        .func (.param .b32 result) seven() {
            .reg .b32 %a, %b;
            st.param.b32 [result], 7;
            mov.u32 %a, 1;
            add.u32 %b, %a, %a;
            ret;
        }
        .visible .entry k(.param .u64 at) {
            .reg .b64 %p; .reg .b32 %r;
            ld.param.u64 %p, [at];
            { .param .b32 r0; call.uni (r0), seven; ld.param.b32 %r, [r0]; }
            st.global.u32 [%p], %r;
            ret;
        }";
    let device = Device::new(Config::new(Arch::Sm80));
    let kernel = device.load(ptx).unwrap().kernel("k").unwrap();
    let at = device.alloc(4).unwrap();
    let launch = Stamp::sequential(1, "launch");
    device.launch(&kernel, &LaunchConfig::linear(1, 1), &at.to_le_bytes(), &launch).unwrap();
    let mut result = [0; 4];
    device.read(at, &mut result, &launch.next("copy")).unwrap();
    assert_eq!(u32::from_le_bytes(result), 7);
}
