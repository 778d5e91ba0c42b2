//! Exchanges between the lanes of a warp: shuffles, votes, matches, reductions.
//!
//! An exchange waits until all lanes of its mask that have not exited are there. It orders no memory.

use crate::finding::Kind;
use crate::isa::{Inst, Op, Redux, Shuffle, Vote};

use super::Machine;
use super::regs::{Row, bits, lanes};
use super::state::Wait;
use super::step::{Flow, Running};

impl Machine<'_> {
    /// Sees to it that all lanes of `masks` are in the group; otherwise the group waits for them.
    pub(super) fn gather(&mut self, run: &mut Running<'_>, masks: &Row) -> Option<Flow> {
        let (live, active) = (run.warp.live, run.active);
        let mut needed = 0;
        for lane in lanes(active) {
            if masks[lane] >> lane & 1 == 0 {
                let message = format!("lane {lane} is not in its own mask {:#010x}", masks[lane]);
                self.fault(Kind::Misuse, run.pc, run.who | lane as u32, message);
                return Some(Flow::Changed);
            }
            needed |= masks[lane] & live;
        }
        if needed & !active == 0 {
            return None;
        }
        let inside = run.warp.groups[run.group].mask;
        if needed & !inside == 0 {
            let message = format!(
                "lanes {:#010x} of the mask do not execute it, their guard is false",
                needed & !active
            );
            self.fault(Kind::Misuse, run.pc, run.first(), message);
            return Some(Flow::Changed);
        }
        Some(wait_for(run, needed))
    }

    pub(super) fn exchange(&mut self, inst: &Inst, run: &mut Running<'_>) -> Flow {
        let mask_slot = match inst.op {
            Op::Shfl { .. } => 5,
            Op::Vote { .. } | Op::Redux(_) | Op::Elect => 2,
            Op::MatchAny { .. } | Op::MatchAll { .. } => 3,
            _ => {
                let active = run.active;
                run.regs().write(inst.r[0], |_| active);
                return Flow::Next;
            }
        };
        let masks = run.regs().a(inst, mask_slot);
        if let Some(flow) = self.gather(run, &masks) {
            return flow;
        }
        match inst.op {
            Op::Shfl { mode, valid } => return self.shuffle(inst, mode, valid, &masks, run),
            Op::Vote { kind, negated } => vote(inst, kind, negated, &masks, run),
            Op::Redux(op) => redux(inst, op, &masks, run),
            Op::Elect => {
                let active = run.active;
                let leader = |l: usize| (masks[l] & active).trailing_zeros();
                let found = bits(|l| leader(l) == l as u32);
                run.regs().write(inst.r[0], leader);
                run.regs().write_pred(inst.r[1], found);
            }
            _ => matching(inst, &masks, run),
        }
        Flow::Next
    }

    fn shuffle(
        &mut self,
        inst: &Inst,
        mode: Shuffle,
        valid: bool,
        masks: &Row,
        run: &mut Running<'_>,
    ) -> Flow {
        let active = run.active;
        let regs = run.regs();
        let (a, b, c) = (regs.a(inst, 2), regs.a(inst, 3), regs.a(inst, 4));
        let (mut source, mut found) = ([0usize; 32], 0u32);
        for lane in lanes(active) {
            let l = lane as u32;
            let (clamp, segment) = (c[lane] & 31, c[lane] >> 8 & 31);
            let amount = b[lane] & 31;
            let max = l & segment | clamp & !segment;
            let min = l & segment;
            let (from, inside) = match mode {
                Shuffle::Up => (l.wrapping_sub(amount), l as i32 - amount as i32 >= max as i32),
                Shuffle::Down => (l + amount, l + amount <= max),
                Shuffle::Butterfly => (l ^ amount, l ^ amount <= max),
                Shuffle::Index => (min | amount & !segment, min | amount & !segment <= max),
            };
            source[lane] = if inside { from as usize } else { lane };
            found |= u32::from(inside) << lane;
            if masks[lane] & active & 1 << source[lane] == 0 {
                let message =
                    format!("lane {lane} reads from lane {}, which does not take part", source[lane]);
                self.fault(Kind::Misuse, run.pc, run.who | l, message);
                return Flow::Changed;
            }
        }
        run.regs().write_each(inst.r[0], |l| a[source[l]]);
        if valid {
            run.regs().write_pred(inst.r[1], found);
        }
        Flow::Next
    }
}

/// The group waits at this instruction for lanes.
pub(super) fn wait_for(run: &mut Running<'_>, needed: u32) -> Flow {
    let pc = run.pc;
    let group = run.group_mut();
    group.pc = pc;
    group.wait = Wait::Lanes { needed };
    // They may stand at the same place already.
    let index = run.group;
    let other = run.warp.groups.iter().position(|group| {
        group.pc == pc
            && matches!(group.wait, Wait::Lanes { .. })
            && group.mask != run.warp.groups[index].mask
            && group.stack == run.warp.groups[index].stack
    });
    if let Some(other) = other {
        let mask = run.warp.groups[other].mask;
        let group = &mut run.warp.groups[index];
        group.mask |= mask;
        group.wait = Wait::Nothing;
        run.warp.groups.swap_remove(other);
    }
    Flow::Changed
}

fn vote(inst: &Inst, kind: Vote, negated: bool, masks: &Row, run: &mut Running<'_>) {
    let active = run.active;
    let votes = run.regs().p(inst, 1) ^ if negated { u32::MAX } else { 0 };
    let among = |l: usize| masks[l] & active;
    match kind {
        Vote::Ballot => run.regs().write(inst.r[0], |l| votes & among(l)),
        Vote::All => {
            let found = bits(|l| votes & among(l) == among(l));
            run.regs().write_pred(inst.r[0], found);
        }
        Vote::Any => {
            let found = bits(|l| votes & among(l) != 0);
            run.regs().write_pred(inst.r[0], found);
        }
        Vote::Uniform => {
            let found = bits(|l| matches!(votes & among(l), found if found == 0 || found == among(l)));
            run.regs().write_pred(inst.r[0], found);
        }
    }
}

fn redux(inst: &Inst, op: Redux, masks: &Row, run: &mut Running<'_>) {
    let active = run.active;
    let a = run.regs().a(inst, 1);
    run.regs().write_each(inst.r[0], |l| {
        let values = lanes(masks[l] & active).map(|lane| a[lane]);
        let reduced = match op {
            Redux::Add => Some(values.fold(0, u32::wrapping_add)),
            Redux::MinU => values.min(),
            Redux::MaxU => values.max(),
            Redux::MinS => values.map(|x| x as i32).min().map(|x| x as u32),
            Redux::MaxS => values.map(|x| x as i32).max().map(|x| x as u32),
            Redux::And => Some(values.fold(u32::MAX, |x, y| x & y)),
            Redux::Or => Some(values.fold(0, |x, y| x | y)),
            Redux::Xor => Some(values.fold(0, |x, y| x ^ y)),
        };
        reduced.unwrap_or(0)
    });
}

fn matching(inst: &Inst, masks: &Row, run: &mut Running<'_>) {
    let active = run.active;
    let wide = matches!(inst.op, Op::MatchAny { wide: true } | Op::MatchAll { wide: true, .. });
    let a = if wide { run.regs().a64(inst, 2) } else { run.regs().a(inst, 2).map(u64::from) };
    let equal = |l: usize| {
        lanes(masks[l] & active).filter(|lane| a[*lane] == a[l]).fold(0u32, |m, lane| m | 1 << lane)
    };
    match inst.op {
        Op::MatchAll { valid, .. } => {
            let found = bits(|l| active >> l & 1 == 1 && equal(l) == masks[l] & active);
            run.regs().write_each(inst.r[0], |l| if found >> l & 1 == 1 { masks[l] & active } else { 0 });
            if valid {
                run.regs().write_pred(inst.r[1], found);
            }
        }
        _ => run.regs().write_each(inst.r[0], equal),
    }
}
