//! Acquire and release: what an ordered access makes known, and to whom (PTX ISA, "Memory Consistency Model").
//!
//! A release, or a relaxed write behind a fence, leaves at its address what its thread knows. An acquire, or a relaxed
//! read before a fence, of that address takes it up, if each of the two threads is in the other's scope. Reads see the
//! newest write, as the machine runs one instruction after the other. A read-modify-write continues what it finds; a
//! plain write ends it.

use std::rc::Rc;

use crate::check::view::{Level, View, Who, block_of};
use crate::isa::{Scope, Sem};

use super::Machine;
use super::access::Spot;
use super::barrier::learn_all;
use super::regs::lanes;
use super::step::Running;

/// What has been released at an address.
#[derive(Clone, Debug)]
pub(super) struct Released {
    who: Who,
    scope: Scope,
    view: Rc<View>,
}

impl Machine<'_> {
    fn key(&self, spot: Spot) -> Option<u64> {
        match spot {
            Spot::Global(_, _, address) => Some(address & !3),
            Spot::Shared(block, offset) => {
                Some(1 << 63 | u64::from(self.blocks[block].number) << 32 | u64::from(offset & !3))
            }
            _ => None,
        }
    }

    /// Whether two threads are in each other's scope.
    fn in_scope(&self, a: Who, b: Who, scope: Scope) -> bool {
        let (a, b) = (block_of(a), block_of(b));
        let count = self.launch.cluster_blocks();
        a == b || scope >= Scope::Cluster && a / count == b / count || scope == Scope::Gpu
    }

    /// All that a thread knows, itself included.
    pub(super) fn knowledge(&self, run: &Running<'_>, lane: usize) -> View {
        let who = run.who | lane as u32;
        let mut view = View::clone(run.warp.view.lane(lane));
        let floor = run.warp.view.warp_floor;
        if floor > 0 {
            view.learn(Level::Warp(who >> 5), floor);
        }
        view.learn(Level::Thread(who), self.now);
        view
    }

    /// After a strong write: leaves what the thread may publish. `chain` for a read-modify-write.
    pub(super) fn publish(&mut self, spot: Spot, sem: Sem, run: &mut Running<'_>, lane: usize, chain: bool) {
        let Some(key) = self.key(spot) else { return };
        let who = run.who | lane as u32;
        let mut left = if chain { self.released.remove(&key).unwrap_or_default() } else { Vec::new() };
        if sem.releases() {
            let view = Rc::new(self.knowledge(run, lane));
            self.tick();
            left.push(Released { who, scope: sem.scope, view });
        } else {
            // A fence before a relaxed write releases what was done before the fence.
            for scope in [Scope::Cta, Scope::Cluster, Scope::Gpu] {
                if let Some(views) = &run.warp.fenced[scope as usize] {
                    let mut view = View::default();
                    view.join(views);
                    if views.get(Level::Thread(who)) > 0 {
                        left.push(Released { who, scope: scope.min(sem.scope), view: Rc::new(view) });
                    }
                }
            }
        }
        if left.is_empty() {
            self.released.remove(&key);
        } else {
            if left.len() > 64 {
                left.dedup_by_key(|released| (released.who, released.scope));
            }
            self.released.insert(key, left);
        }
    }

    /// After a plain write: nothing can be learnt from its value.
    pub(super) fn unpublish(&mut self, spot: Spot) {
        if !self.released.is_empty()
            && let Some(key) = self.key(spot)
        {
            self.released.remove(&key);
        }
    }

    /// After a strong read: takes up what has been released there, now or at the next fence.
    pub(super) fn observe(&mut self, spot: Spot, sem: Sem, run: &mut Running<'_>, lane: usize) {
        let Some(key) = self.key(spot) else { return };
        let who = run.who | lane as u32;
        let Some(left) = self.released.get(&key) else { return };
        let mut learnt = View::default();
        for released in left {
            if self.in_scope(who, released.who, sem.scope.min(released.scope)) {
                learnt.join(&released.view);
            }
        }
        if sem.acquires() {
            run.warp.view.learn(lane, &learnt);
        } else {
            run.warp.seen.join(&learnt);
        }
    }

    /// A fence: what relaxed reads have seen is known from now on, what was done is ready to be published.
    pub(super) fn fence(&mut self, sem: Sem, run: &mut Running<'_>) {
        if sem.acquires() && run.warp.seen != View::default() {
            // Kept for the warp as a whole: lanes that read a flag together fence together.
            let seen = std::mem::take(&mut run.warp.seen);
            learn_all(run.warp, run.active, &seen);
        }
        if sem.releases() {
            let mut view = run.warp.fenced[sem.scope as usize].as_deref().cloned().unwrap_or_default();
            for lane in lanes(run.active) {
                view.join(&self.knowledge(run, lane));
            }
            self.tick();
            run.warp.fenced[sem.scope as usize] = Some(Rc::new(view));
        }
    }
}
