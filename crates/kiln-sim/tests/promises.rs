//! What PTX does not promise is not kept either, on some schedule; and what it forbids is found.

use kiln_sim::arch::Arch;
use kiln_sim::device::{Config, Device, Fault, LaunchConfig, Schedule};
use kiln_sim::finding::Kind;
use kiln_sim::stamp::Stamp;

/// A kernel `k(.param .u64 at)` with some registers, of which `%p` is the parameter, `%t` the thread and `%w` whether it is in the first warp.
fn kernel(body: &str) -> String {
    format!(
        ".version 8.4
        .target sm_90
        .address_size 64
        .visible .entry k(.param .u64 at) {{
            .reg .b64 %p, %q, %r, %state; .reg .b32 %a, %b, %c, %d, %t; .reg .pred %w, %done;
            .shared .align 8 .b8 tile[64];
            ld.param.u64 %p, [at]; mov.u32 %t, %tid.x; setp.lt.u32 %w, %t, 32;
            {body}
            ret;
        }}"
    )
}

/// What `words` words come to, zeros before, that a kernel is given.
fn run(body: &str, config: Config, launch: &LaunchConfig, words: usize) -> Result<Vec<u32>, Fault> {
    let device = Device::new(config);
    let kernel = device.load(&kernel(body)).unwrap().kernel("k").unwrap();
    let (at, first) = (device.alloc(4 * words as u64).unwrap(), Stamp::sequential(1, "copy"));
    device.write(at, &vec![0; 4 * words], &first).unwrap();
    let stamp = first.next("launch");
    device.launch(&kernel, launch, &at.to_le_bytes(), &stamp)?;
    let mut bytes = vec![0; 4 * words];
    device.read(at, &mut bytes, &stamp.next("copy")).unwrap();
    Ok(bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect())
}

fn seeded(seed: u64) -> Config {
    Config { schedule: Schedule::Seeded(seed), ..Config::new(Arch::Sm90) }
}

/// `shared` alone is the block's own memory: what another block's address does there, on a GPU, is a fault.
#[test]
fn another_blocks_memory_is_reached_as_that_of_the_cluster() {
    let body = |space: &str| {
        format!(
            "mov.u32 %a, tile; st.shared.u32 [%a], 5;
            barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
            mapa.shared::cluster.u32 %b, %a, 1;
            ld.{space}.u32 %c, [%b];
            barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
            st.global.u32 [%p], %c;"
        )
    };
    let launch = LaunchConfig { cluster: Some([2, 1, 1]), ..LaunchConfig::linear(2, 1) };
    for space in ["shared", "shared::cta"] {
        let Err(Fault::Findings(found)) = run(&body(space), Config::new(Arch::Sm90), &launch, 1) else {
            panic!("nothing is found of {space}")
        };
        assert_eq!(found[0].kind, Kind::OutOfBounds);
        assert!(found[0].message.contains("`shared::cluster`"), "{}", found[0].message);
    }
    // Both blocks store the same there, which is a race of its own.
    let unchecked = Config { checks: false, ..Config::new(Arch::Sm90) };
    assert_eq!(run(&body("shared::cluster"), unchecked, &launch, 1).unwrap(), [5]);
}

/// Whether the second warp, which waits for a tag, sees a value on some seed that is not there yet; on the fixed schedule it does not.
fn is_torn(body: &str) -> bool {
    let launch = LaunchConfig::linear(1, 64);
    let stale = |config| run(body, config, &launch, 96).unwrap()[64..].contains(&0);
    assert!(!stale(Config::new(Arch::Sm90)));
    (0..40).any(|seed| stale(seeded(seed)))
}

#[test]
fn lanes_and_elements_of_a_strong_access_come_in_any_order() {
    let message = |write: &str, tag: &str, value: &str| {
        format!(
            "mul.wide.u32 %q, %t, 8; add.u64 %q, %p, %q;
            @!%w bra poll;
            {write}
            bra end;
            poll: ld.relaxed.gpu.global.u32 %a, [{tag}];
            setp.eq.u32 %done, %a, 0;
            @%done bra poll;
            ld.relaxed.gpu.global.u32 %b, [{value}];
            sub.u32 %t, %t, 32; mul.wide.u32 %q, %t, 4; add.u64 %q, %p, %q;
            st.global.u32 [%q+256], %b;
            end:"
        )
    };
    // The tag of the first lane tells of that lane's message alone.
    assert!(is_torn(&message("st.relaxed.gpu.global.v2.b32 [%q], {7, 1};", "%p+4", "%q-256")));
    // A tag before its value, in one vector.
    assert!(is_torn(&message("st.relaxed.gpu.global.v2.b32 [%q], {1, 7};", "%q-256", "%q-252")));
    // And after it.
    assert!(is_torn(&message("st.relaxed.gpu.global.v2.b32 [%q], {7, 1};", "%q-252", "%q-256")));
    // The same with an order of its own.
    let ordered = "st.relaxed.gpu.global.b32 [%q+4], 7; st.release.gpu.global.b32 [%q], 1;";
    assert!(!is_torn(&message(ordered, "%q-256", "%q-252")));
}

#[test]
fn lanes_of_an_atomic_come_in_any_order() {
    let message = |tagged: &str| {
        format!(
            "mul.wide.u32 %q, %t, 8; add.u64 %q, %p, %q;
            @!%w bra poll;
            mov.b64 %r, {{7, 1}}; atom.exch.relaxed.gpu.global.b64 %r, [%q], %r;
            bra end;
            poll: ld.relaxed.gpu.global.b64 %state, [{tagged}];
            mov.b64 {{%a, %b}}, %state; setp.eq.u32 %done, %b, 0;
            @%done bra poll;
            ld.relaxed.gpu.global.b64 %state, [%q-256]; mov.b64 {{%a, %b}}, %state;
            sub.u32 %t, %t, 32; mul.wide.u32 %q, %t, 4; add.u64 %q, %p, %q;
            st.global.u32 [%q+256], %a;
            end:"
        )
    };
    assert!(is_torn(&message("%p")));
    assert!(!is_torn(&message("%q-256")));
}

/// A value with its tag in each element, as the resident engine's grids have it: lanes that are done leave the others behind, which ask again.
#[test]
fn tags_in_each_element_are_enough() {
    let body = "mul.wide.u32 %q, %t, 16; add.u64 %q, %p, %q;
        @!%w bra poll;
        mov.b64 %state, {7, 1}; mov.b64 %p, {8, 1};
        st.relaxed.gpu.global.v2.b64 [%q], {%state, %p};
        bra end;
        poll: ld.relaxed.gpu.global.v2.b64 {%state, %r}, [%q-512];
        mov.b64 {%a, %b}, %state; mov.b64 {%c, %d}, %r; and.b32 %b, %b, %d;
        setp.eq.u32 %done, %b, 0;
        @%done bra poll;
        add.u32 %a, %a, %c; add.u64 %q, %p, 512; sub.u32 %t, %t, 32; mul.wide.u32 %r, %t, 4; add.u64 %q, %q, %r;
        st.global.u32 [%q], %a;
        end:";
    for seed in 0..60 {
        let words = run(body, seeded(seed), &LaunchConfig::linear(1, 64), 160).unwrap();
        assert_eq!(words[128..], [15; 32], "seed {seed}");
    }
}

/// The address is read again for the second element, also where the first is loaded into its register.
#[test]
fn a_vector_that_is_loaded_over_its_own_address_is_whole() {
    let body = "st.global.v2.b64 [%p], {%p, %p};
        ld.relaxed.gpu.global.v2.b64 {%q, %state}, [%p];
        xor.b64 %state, %state, %q; cvt.u32.u64 %a, %state;
        mov.b64 %q, %p; ld.relaxed.gpu.global.v2.b64 {%q, %state}, [%q];
        xor.b64 %state, %state, %q; cvt.u32.u64 %b, %state;
        or.b32 %a, %a, %b; add.u32 %a, %a, 1;
        st.global.u32 [%p+16], %a;";
    for seed in 0..20 {
        let words = run(body, seeded(seed), &LaunchConfig::linear(1, 1), 5).unwrap();
        assert_eq!(words[4], 1, "seed {seed}");
    }
}

/// A tag that is read alone, though it was written with its value in one access.
#[test]
fn a_part_of_a_strong_access_is_a_race() {
    let body = "@!%w bra other;
        mov.b64 %q, 1; st.relaxed.gpu.global.b64 [%p], %q;
        bra end;
        other: ld.relaxed.gpu.global.u32 %a, [%p];
        end:";
    let launch = LaunchConfig::linear(1, 33);
    let body = format!(
        "setp.eq.u32 %w, %t, 0; and.b32 %b, %t, 31; setp.ne.u32 %done, %b, 0; @%done bra end;\n{body}"
    );
    let Err(Fault::Findings(found)) = run(&body, Config::new(Arch::Sm90), &launch, 2) else {
        panic!("nothing is found")
    };
    assert_eq!(found[0].kind, Kind::Race);
}

/// Which warp of each block is the last to store is the schedule's: the same for a seed, however many threads the host has.
#[test]
fn a_seed_is_the_same_schedule_on_any_number_of_threads() {
    let body = "shr.u32 %a, %t, 5; and.b32 %b, %t, 31; setp.eq.u32 %done, %b, 0;
        @%done st.relaxed.cta.shared.u32 [tile], %a;
        bar.sync 0;
        ld.shared.u32 %c, [tile];
        mov.u32 %b, %ctaid.x; mul.wide.u32 %q, %b, 4; add.u64 %q, %p, %q;
        setp.eq.u32 %done, %t, 0; @%done st.global.u32 [%q], %c;";
    let launch = LaunchConfig::linear(16, 64);
    let mut seen = [false; 2];
    for seed in 0..8 {
        let [one, four] =
            [1, 4].map(|threads| run(body, Config { threads, ..seeded(seed) }, &launch, 16).unwrap());
        assert_eq!(one, four, "seed {seed}");
        one.iter().for_each(|&last| seen[last as usize] = true);
    }
    assert_eq!(seen, [true; 2], "the schedules differ in nothing");
}

/// A thread that drops out for two is not waited for by two in the next phase.
#[test]
fn dropped_arrivals_count_as_many_as_they_say() {
    let wait = |name: &str, parity: u32| {
        format!("{name}: mbarrier.test_wait.parity.shared.b64 %done, [tile], {parity}; @!%done bra {name};")
    };
    let body = format!(
        "mbarrier.init.shared.b64 [tile], 3;
        mbarrier.arrive_drop.shared.b64 %state, [tile], 2;
        mbarrier.arrive.shared.b64 %state, [tile];
        {}
        mbarrier.arrive.shared.b64 %state, [tile];
        {}
        st.global.u32 [%p], 1;",
        wait("first", 0),
        wait("second", 1),
    );
    let config = Config { fuel: 1 << 16, ..Config::new(Arch::Sm90) };
    assert_eq!(run(&body, config, &LaunchConfig::linear(1, 1), 1).unwrap(), [1]);
}

/// Texts that came to a panic.
#[test]
fn operands_that_are_too_many_are_refused() {
    let results = vec!["%a"; 15].join(", ");
    for (body, why) in [
        (
            "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v8.b32 [%a], {%a,%a,%a,%a,%a,%a,%a,%a}, [%b];",
            "vector",
        ),
        (&*format!("call ({results}), vprintf, (%p, %p);"), "parameters that the driver's function has"),
    ] {
        let device = Device::new(Config::new(Arch::Sm90));
        let head = ".extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);\n.visible .entry";
        let text = kernel(body).replacen(".visible .entry", head, 1);
        let error = device.load(&text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
