//! All that is wrong with one access is told, not the first of it alone.

use kiln_sim::arch::Arch;
use kiln_sim::device::{Config, Device, Fault, LaunchConfig};
use kiln_sim::finding::Kind;
use kiln_sim::stamp::Stamp;

/// The kinds that are found, with the lines of `reads` and `writes` that they name, in order.
///
/// Thread 0 stores with `writes`, and thread 32, which nothing orders after it, loads with `reads`: to the pointer %p, or to
/// the shared array `tile`, both of 64 bytes that nobody has written.
fn found(writes: &[&str], reads: &str) -> Vec<(Kind, u32)> {
    let head = ".version 8.4
        .target sm_90
        .address_size 64
        .visible .entry k(.param .u64 at) {
            .reg .b64 %p, %out; .reg .b32 %t, %a, %b, %c, %d; .reg .pred %w, %r;
            .shared .align 16 .b8 tile[64]; .shared .align 16 .b8 to[64];
            ld.param.u64 %p, [at]; add.u64 %out, %p, 64; mov.u32 %t, %tid.x; setp.ne.u32 %w, %t, 0; setp.ne.u32 %r, %t, 32;
            @%w bra read;";
    let first = head.lines().count() as u32 + 1;
    let ptx = format!("{head}\n{}\nread: @%r bra end;\n{reads}\nend: ret; }}", writes.join("\n"));
    let device = Device::new(Config::new(Arch::Sm90));
    let kernel = device.load(&ptx).unwrap().kernel("k").unwrap();
    let at = device.alloc(128).unwrap();
    let config = LaunchConfig::linear(1, 64);
    let fault =
        device.launch(&kernel, &config, &at.to_le_bytes(), &Stamp::sequential(1, "launch")).unwrap_err();
    let Fault::Findings(findings) = fault else { panic!("{fault:?}") };
    // A race by its write; what nobody wrote by the read.
    let line = |finding: &kiln_sim::finding::Finding| match &finding.other {
        Some(other) => other.ptx_line - first,
        None => finding.place.ptx_line - first,
    };
    let mut found: Vec<_> = findings.iter().map(|finding| (finding.kind, line(finding))).collect();
    found.sort_by_key(|(kind, line)| (kind.name(), *line));
    found
}

#[test]
fn two_races_and_what_nobody_wrote() {
    for (space, base) in [("global", "%p"), ("shared", "tile")] {
        let writes = [0, 4, 12].map(|offset| format!("st.{space}.b32 [{base}+{offset}], 1;"));
        let writes = writes.each_ref().map(String::as_str);
        let load = format!("ld.{space}.v4.b32 {{%a, %b, %c, %d}}, [{base}];");
        let mut reads = vec![load];
        match space {
            "global" => reads.push("cp.async.ca.shared.global [to], [%p], 16;\ncp.async.wait_all;".into()),
            _ => reads.push(
                "cp.async.bulk.global.shared::cta.bulk_group [%out], [tile], 64;
                    cp.async.bulk.commit_group;
                    cp.async.bulk.wait_group 0;"
                    .into(),
            ),
        }
        for read in reads {
            let expected = [(Kind::Race, 0), (Kind::Race, 1), (Kind::Race, 2), (Kind::Uninitialised, 4)];
            let found: Vec<_> = found(&writes, &read).into_iter().filter(|(_, line)| *line < 5).collect();
            assert_eq!(found, expected, "{read}");
        }
    }
}

/// Words that nobody wrote, before one with a race.
#[test]
fn a_race_behind_words_that_nobody_wrote() {
    for read in [
        "ld.global.v4.b32 {%a, %b, %c, %d}, [%p];",
        "cp.async.ca.shared.global [to], [%p], 16;\ncp.async.wait_all;",
    ] {
        let found = found(&["st.global.b32 [%p+12], 1;"], read);
        assert_eq!(found, [(Kind::Race, 0), (Kind::Uninitialised, 2)], "{read}");
    }
}
