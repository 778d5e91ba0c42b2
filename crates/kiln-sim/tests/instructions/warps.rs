use super::{THREADS, operands, run};

/// Runs `body` with lanes of whole warps and compares with a function of the thread and the values of its warp.
fn check(body: &str, expected: impl Fn(usize, &[u32]) -> u32) {
    let a = operands(7);
    let found = run(body, true, [&a, &a, &a]);
    let values: Vec<u32> = a.iter().map(|value| *value as u32).collect();
    for (thread, found) in found.iter().enumerate() {
        let first = thread / 32 * 32;
        let warp = &values[first..(first + 32).min(THREADS)];
        assert_eq!(*found as u32, expected(thread - first, warp), "{body}: thread {thread}");
    }
}

/// The mask of the warp's threads, in `%e`.
const MASK: &str = "activemask.b32 %e;";

#[test]
fn shuffles() {
    check(&format!("{MASK} shfl.sync.idx.b32 %d, %a, 3, 31, %e;"), |_, warp| warp[3]);
    check(&format!("{MASK} shfl.sync.bfly.b32 %d, %a, 0, 31, %e;"), |lane, warp| warp[lane]);
    // In segments of two lanes, and the last lane of a short warp alone.
    check(&format!("{MASK} shfl.sync.up.b32 %d, %a, 1, 0x1e00, %e;"), |lane, warp| warp[lane & !1]);
}

#[test]
fn shuffle_up_keeps_what_has_no_source() {
    check(&format!("{MASK} shfl.sync.up.b32 %d|%q, %a, 2, 0, %e; @!%q add.u32 %d, %d, 1;"), |lane, warp| {
        if lane >= 2 { warp[lane - 2] } else { warp[lane].wrapping_add(1) }
    });
}

#[test]
fn votes_and_reductions() {
    check(&format!("{MASK} setp.lt.s32 %q, %a, 0; vote.sync.ballot.b32 %d, %q, %e;"), |_, warp| {
        warp.iter().enumerate().fold(0, |m, (lane, value)| m | u32::from((*value as i32) < 0) << lane)
    });
    check(&format!("{MASK} redux.sync.add.u32 %d, %a, %e;"), |_, warp| {
        warp.iter().fold(0, |x, y| x.wrapping_add(*y))
    });
    check(&format!("{MASK} redux.sync.max.s32 %d, %a, %e;"), |_, warp| {
        warp.iter().map(|value| *value as i32).max().unwrap_or(0) as u32
    });
    check(&format!("{MASK} and.b32 %f, %a, 3; match.any.sync.b32 %d, %f, %e;"), |lane, warp| {
        warp.iter()
            .enumerate()
            .fold(0, |m, (other, value)| m | u32::from(value & 3 == warp[lane] & 3) << other)
    });
    check(
        &format!("{MASK} elect.sync %d|%q, %e; @%q add.u32 %d, %d, 100;"),
        |lane, _| if lane == 0 { 100 } else { 0 },
    );
}

#[test]
fn diverged_lanes_exchange_among_themselves() {
    check(
        "and.b32 %f, %tid, 1; setp.eq.u32 %q, %f, 1; @%q bra ODD; activemask.b32 %e; redux.sync.or.b32 %d, %a, %e; bra DONE;
         ODD: activemask.b32 %e; redux.sync.and.b32 %d, %a, %e; DONE:",
        |lane, warp| {
            let same = warp.iter().enumerate().filter(|(other, _)| other & 1 == lane & 1).map(|(_, value)| *value);
            if lane & 1 == 1 { same.fold(u32::MAX, |x, y| x & y) } else { same.fold(0, |x, y| x | y) }
        },
    );
}
