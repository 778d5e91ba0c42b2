//! Fences between ordinary accesses and bulk copies, or products of warpgroups (PTX ISA, "Async proxy").
//!
//! A bulk copy reads, writes and completes in the async proxy, and a product reads in it. A store that it reads or overwrites, and the initialisation of the
//! mbarrier that it completes on, must be covered by a proxy fence: one by a thread that knew of the store, and that the thread
//! which issues the copy knows of. It does not matter which of the two has fenced. For mbarriers `fence.mbarrier_init` will do, which
//! also makes the initialisation known to the cluster through a barrier that is arrived at relaxed. That ordinary *reads* come
//! before a bulk write needs no fence, as in all published pipelines.
//!
//! Errs towards reports: of each warp the last [`KEPT`] fences are kept. Errs towards silence: an mbarrier behind its fence counts
//! as known to all of the cluster when the barrier is complete, even to those who have yet to wait there.

use std::rc::Rc;

use crate::check::cell::Event;
use crate::check::view::{COPIER, View, Who, warp_of};

use crate::isa::Op;

use super::Machine;
use super::access::Spot;
use super::regs::lanes;
use super::state::Init;
use super::step::Running;

/// Fences of a warp that are kept.
const KEPT: usize = 64;

/// A proxy fence by lanes that knew the same.
#[derive(Debug)]
pub(super) struct Fence {
    lanes: u32,
    time: u32,
    /// What those lanes knew, beside what they had done themselves.
    known: Rc<View>,
    warp_floor: u32,
    shared: bool,
    global: bool,
}

impl Fence {
    /// Whether it comes after what thread `who` did at `time`, for a lane of `warp`; and for which of its lanes.
    fn covers(&self, warp: u32, who: Who, time: u32) -> u32 {
        let own = who & COPIER == 0 && warp_of(who) == warp;
        let itself = if own && time <= self.time { self.lanes & 1 << (who & 31) } else { 0 };
        let all = self.known.knows(who, time) || own && time <= self.warp_floor;
        if all { self.lanes } else { itself }
    }
}

impl Machine<'_> {
    pub(super) fn fence_proxy(&mut self, shared: bool, global: bool, run: &Running<'_>) {
        let (time, warp_floor) = (self.tick(), run.warp.view.warp_floor);
        let mut fences: Vec<Fence> = Vec::new();
        for lane in lanes(run.active) {
            let known = run.warp.view.lane(lane);
            match fences.iter_mut().find(|fence| fence.known == *known) {
                Some(fence) => fence.lanes |= 1 << lane,
                None => {
                    let known = known.clone();
                    fences.push(Fence { lanes: 1 << lane, time, known, warp_floor, shared, global });
                }
            }
        }
        let kept = self.fences.entry(run.who >> 5).or_default();
        kept.extend(fences);
        kept.drain(..kept.len().saturating_sub(KEPT));
    }

    /// `fence.mbarrier_init`.
    pub(super) fn fence_inits(&mut self, run: &Running<'_>) {
        self.mark_inits(run, Init::Done, Init::Fenced);
    }

    /// Threads arrive at the barrier of the cluster, with what they have fenced.
    pub(super) fn release_inits(&mut self, run: &Running<'_>) {
        self.mark_inits(run, Init::Fenced, Init::Released);
    }

    /// The barrier of a cluster is complete.
    pub(super) fn know_inits(&mut self, cluster: usize) {
        let cluster = &self.clusters[cluster];
        for block in &mut self.blocks[cluster.blocks()] {
            for mbar in block.mbars.values_mut().filter(|mbar| mbar.init == Init::Released) {
                mbar.init = Init::Known;
            }
        }
    }

    /// Takes the mbarriers that the active lanes have initialised one step on.
    fn mark_inits(&mut self, run: &Running<'_>, from: Init, to: Init) {
        let own = |who: Who| who >> 5 == run.who >> 5 && run.active >> (who & 31) & 1 == 1;
        let mbars = self.blocks[run.block].mbars.values_mut();
        mbars.filter(|mbar| mbar.init == from && own(mbar.who)).for_each(|mbar| mbar.init = to);
    }

    /// A bulk copy completes on an mbarrier: whether a fence covers its initialisation.
    pub(super) fn check_init_fenced(&mut self, block: usize, offset: u32, run: &Running<'_>, lane: usize) {
        if self.blocks[block].mbars.get(&offset).is_some_and(|mbar| mbar.init == Init::Done) {
            let message = "an mbarrier that a bulk copy completes on, and no fence after its initialisation";
            self.check_fence(Spot::Shared(block, offset), 4, message, run, lane);
        }
    }

    /// A bulk copy reads or overwrites memory: whether a fence covers the stores to it.
    pub(super) fn check_fenced(&mut self, spot: Spot, bytes: u32, run: &Running<'_>, lane: usize) {
        let message = "a store and a bulk copy of the same memory, and no proxy fence between";
        self.check_fence(spot, bytes, message, run, lane);
    }

    /// A product of a warpgroup reads memory: whether a fence covers the stores to it.
    pub(super) fn check_multiplied(&mut self, spot: Spot, bytes: u32, run: &Running<'_>, lane: usize) {
        let message = "a store and a product that reads the same memory, and no proxy fence between";
        self.check_fence(spot, bytes, message, run, lane);
    }

    /// Whether a fence covers what has been stored to some bytes, as far as that is known; a finding if not.
    fn check_fence(&mut self, spot: Spot, bytes: u32, message: &str, run: &Running<'_>, lane: usize) {
        let code = &self.launch.program.code;
        let mut stores: Vec<(u32, Event)> = Vec::new();
        for at in (0..bytes).step_by(4) {
            let Some((cell, lists)) = self.cell(spot.moved(at)) else { return };
            for write in cell.writes(lists).into_iter().flatten() {
                // What a bulk copy has written needs no fence, also after its thread's wait; `cp.async` is an ordinary store, also
                // where an mbarrier has told of it.
                let by_copy = match code[write.pc as usize].op {
                    Op::Bulk(_) => true,
                    Op::CpAsync { .. } => false,
                    _ => write.who & COPIER != 0,
                };
                let again = |(_, last): &(u32, Event)| (last.who, last.time) == (write.who, write.time);
                if !by_copy && !stores.last().is_some_and(again) {
                    stores.push((at, write));
                }
            }
        }
        let judge = self.judge(run, lane, None);
        let is_global = matches!(spot, Spot::Global(..));
        let covers = |store: &Event, warp: u32, fence: &Fence| {
            let here = if is_global { fence.global } else { fence.shared };
            let by = if here { fence.covers(warp, store.who, store.time) } else { 0 };
            lanes(by).any(|by| judge.me.knows(warp << 5 | by as u32, fence.time))
        };
        // Neighbours mostly share a fence: that of the warp that has stored, or of the one that copies, a moment ago.
        let mut last: Option<(u32, &Fence)> = None;
        let uncovered = |(_, store): &(u32, Event)| {
            if last.is_some_and(|(warp, fence)| covers(store, warp, fence)) {
                return false;
            }
            if !judge.me.knows(store.who, store.time) {
                return false; // that is a race anyway
            }
            let likely = [warp_of(store.who), warp_of(run.who)];
            let likely = likely.iter().filter_map(|warp| self.fences.get_key_value(warp));
            let mut fences = likely
                .chain(&self.fences)
                .flat_map(|(warp, kept)| kept.iter().rev().map(move |fence| (*warp, fence)));
            last = fences.find(|(warp, fence)| covers(store, *warp, fence));
            last.is_none()
        };
        if let Some((at, first)) = stores.into_iter().find(uncovered) {
            let (space, address) = self.spot_name(spot, at, run);
            self.race_told(Some(message), self.event(run, lane), first, space, address, 4);
        }
    }
}
