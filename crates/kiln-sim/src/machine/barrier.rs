//! Barriers of a warp, a block and a cluster, and what those who meet there know afterwards.

use std::rc::Rc;

use crate::check::view::{Level, View};
use crate::finding::Kind;
use crate::isa::{Bar, BarKind, Inst, Op};

use super::Machine;
use super::exchange::wait_for;
use super::regs::lanes;
use super::state::{Barrier, Touched, Wait, Warp};
use super::step::{Flow, Running};

impl Machine<'_> {
    pub(super) fn barrier(&mut self, inst: &Inst, run: &mut Running<'_>) -> Flow {
        match inst.op {
            Op::Bar(bar) => self.block_barrier(inst, bar, run),
            Op::WarpSync => self.warp_sync(inst, run),
            Op::ClusterArrive { release, aligned } => self.cluster_arrive(release, aligned, run),
            Op::ClusterWait { acquire, aligned } => self.cluster_wait(acquire, aligned, run),
            _ => Flow::Next,
        }
    }

    /// An instruction that all lanes of the warp must execute together: waits for those on their way.
    pub(super) fn together(&mut self, run: &mut Running<'_>, what: &str) -> Option<Flow> {
        let live = run.warp.live;
        if run.active == live {
            return None;
        }
        let inside = run.warp.groups[run.group].mask;
        if inside == live {
            let message =
                format!("{what}: lanes {:#010x} do not execute it, their guard is false", live & !run.active);
            self.fault(Kind::Barrier, run.pc, run.first(), message);
            return Some(Flow::Changed);
        }
        Some(wait_for(run, live))
    }

    fn block_barrier(&mut self, inst: &Inst, bar: Bar, run: &mut Running<'_>) -> Flow {
        if bar.aligned
            && let Some(flow) = self.together(run, "a barrier for whole warps")
        {
            return flow;
        }
        let leader = run.active.trailing_zeros() as usize;
        let ids = run.regs().a(inst, 0);
        let counts = if bar.counted { run.regs().a(inst, 1) } else { [0; 32] };
        let (id, count) = (ids[leader], counts[leader]);
        if lanes(run.active).any(|lane| ids[lane] != id || counts[lane] != count) {
            self.fault(Kind::Barrier, run.pc, run.first(), "lanes of a warp name different barriers");
            return Flow::Changed;
        }
        if id > 15 {
            self.fault(Kind::Barrier, run.pc, run.first(), format!("barrier {id} of 16"));
            return Flow::Changed;
        }
        if bar.counted && (count == 0 || count % 32 != 0) {
            let message = format!("a barrier of {count} threads, which is no multiple of a warp");
            self.fault(Kind::Barrier, run.pc, run.first(), message);
            return Flow::Changed;
        }
        self.arrive(inst, bar, id as usize, count, run)
    }

    fn arrive(&mut self, inst: &Inst, bar: Bar, id: usize, count: u32, run: &mut Running<'_>) -> Flow {
        let expected = bar.counted.then_some(count);
        let barrier = &mut self.blocks[run.block].barriers[id];
        if barrier.arrived == 0 {
            *barrier = Barrier { expected, pc: run.pc, all: true, ..Barrier::default() };
        } else if barrier.expected != expected {
            let (line, found) = (self.line(self.blocks[run.block].barriers[id].pc), count);
            let message = format!(
                "barrier {id} is used with another number of threads at PTX line {line} (here {found})"
            );
            self.fault(Kind::Barrier, run.pc, run.first(), message);
            return Flow::Changed;
        }
        // A whole warp counts as 32, whatever of it is alive.
        let threads = if bar.counted && run.active == run.warp.live { 32 } else { run.active.count_ones() };
        let known = run.warp.view.joined(run.active);
        let votes = if inst.has(4) {
            (run.regs().p(inst, 4) ^ if bar.negated { u32::MAX } else { 0 }) & run.active
        } else {
            0
        };
        let waits = bar.kind != BarKind::Arrive;
        let time = if waits { None } else { Some(self.tick()) };
        let barrier = &mut self.blocks[run.block].barriers[id];
        barrier.arrived += threads;
        barrier.view.join(&known);
        barrier.parts.push((run.warp.index, run.active, time));
        barrier.count += votes.count_ones();
        barrier.all &= votes == run.active;
        barrier.any |= votes != 0;
        self.events += 1;
        let pc = run.pc;
        if waits {
            let mask = run.warp.groups[run.group].mask;
            super::step::split_rest(run, mask);
            let group = run.group_mut();
            group.pc = pc;
            group.wait = Wait::Barrier { id: id as u8 };
        }
        self.complete_barrier(run.block, id, Some(&mut *run.warp));
        if waits { Flow::Changed } else { Flow::Next }
    }

    /// Lets everybody go if all have arrived. `own` is the warp that runs, which is not in its block meanwhile.
    fn complete_barrier(&mut self, block: usize, id: usize, mut own: Option<&mut Warp>) {
        let live = self.blocks[block].live_threads;
        let barrier = &self.blocks[block].barriers[id];
        if barrier.arrived == 0 || barrier.arrived < barrier.expected.unwrap_or(live) {
            return;
        }
        if barrier.arrived > barrier.expected.unwrap_or(live) {
            let (pc, message) = (
                barrier.pc,
                format!(
                    "{} threads at barrier {id}, which is for {}",
                    barrier.arrived,
                    barrier.expected.unwrap_or(live)
                ),
            );
            let who = self.blocks[block].number << 10;
            self.fault(Kind::Barrier, pc, who, message);
            return;
        }
        let now = self.tick();
        let number = self.blocks[block].number;
        let barrier = std::mem::take(&mut self.blocks[block].barriers[id]);
        let mut view = barrier.view.clone();
        let waiting: u32 =
            barrier.parts.iter().filter(|part| part.2.is_none()).map(|part| part.1.count_ones()).sum();
        if waiting == live && !self.blocks[block].strays {
            view.learn(Level::Block(number), now);
            view.compact(number, now);
            let warps = self.blocks[block].warps.iter_mut();
            warps.chain(own.as_deref_mut()).for_each(|warp| warp.touched = Touched::default());
        } else {
            for &(index, mask, time) in &barrier.parts {
                let warp = match own.as_deref() {
                    Some(own) if own.index == index => own,
                    _ => &self.blocks[block].warps[index as usize],
                };
                learn_part(&mut view, number << 5 | index, warp, mask, time.unwrap_or(now));
            }
        }
        let view = Rc::new(view);
        let value = barrier.count | u32::from(barrier.all) << 30 | u32::from(barrier.any) << 31;
        for &(index, mask, time) in &barrier.parts {
            if time.is_some() {
                continue;
            }
            let warp = match own.as_deref_mut() {
                Some(own) if own.index == index => own,
                _ => &mut self.blocks[block].warps[index as usize],
            };
            release(warp, id, mask, value, &view, waiting == live);
        }
    }

    /// The second half of a barrier that has let a group go: the result of a reduction.
    pub(super) fn finish_barrier(&mut self, inst: &Inst, run: &mut Running<'_>, value: u32) {
        let Op::Bar(bar) = inst.op else { return };
        match bar.kind {
            BarKind::RedPopc => run.regs().write(inst.r[3], |_| value & 0x3fff_ffff),
            BarKind::RedAnd => {
                run.regs().write_pred(inst.r[3], if value >> 30 & 1 == 1 { u32::MAX } else { 0 })
            }
            BarKind::RedOr => {
                run.regs().write_pred(inst.r[3], if value >> 31 & 1 == 1 { u32::MAX } else { 0 })
            }
            _ => {}
        }
    }

    fn warp_sync(&mut self, inst: &Inst, run: &mut Running<'_>) -> Flow {
        let masks = run.regs().a(inst, 0);
        let leader = run.active.trailing_zeros() as usize;
        let mask = masks[leader];
        // Lanes of one group may name different masks: each set of lanes is a barrier of its own.
        let same = lanes(run.active).filter(|lane| masks[*lane] == mask).fold(0u32, |m, lane| m | 1 << lane);
        if same & !mask != 0 {
            let message = format!("lanes {:#010x} are not in their own mask {mask:#010x}", same & !mask);
            self.fault(Kind::Barrier, run.pc, run.who | (same & !mask).trailing_zeros(), message);
            return Flow::Changed;
        }
        let needed = mask & run.warp.live;
        if same == run.active && needed & !same == 0 {
            self.synchronised(run.warp, needed, run.who);
            return Flow::Next;
        }
        // They wait, and the last to come lets all go. Lanes with another mask stay and come next.
        let group_mask = run.warp.groups[run.group].mask;
        super::step::split_rest(run, group_mask);
        let (pc, others) = (run.pc, run.active & !same);
        if others != 0 {
            let stay = super::state::Group { mask: others, pc, ..run.warp.groups[run.group].clone() };
            run.warp.groups.push(stay);
        }
        let group = run.group_mut();
        group.mask = same;
        group.pc = pc;
        group.wait = Wait::WarpSync { mask };
        let here =
            run.warp.groups.iter().filter(|g| g.wait == Wait::WarpSync { mask }).fold(0, |m, g| m | g.mask);
        if needed & !here == 0 {
            self.synchronised(run.warp, needed, run.who);
            for group in run.warp.groups.iter_mut().filter(|group| group.wait == Wait::WarpSync { mask }) {
                group.wait = Wait::Nothing;
                group.pc += 1;
            }
        }
        Flow::Changed
    }

    /// Lanes of a warp have met: each knows what the others do.
    fn synchronised(&mut self, warp: &mut Warp, mask: u32, who: u32) {
        let now = self.tick();
        if mask == warp.live && !warp.strays {
            warp.view.warp_floor = now;
            warp.touched.since_warp = 0;
            if warp.view.same().is_none() {
                let joined = warp.view.joined(mask);
                warp.view.set_all(joined);
            }
            return;
        }
        let mut view = View::clone(&warp.view.joined(mask));
        lanes(mask).for_each(|lane| view.learn(Level::Thread(who | lane as u32), now));
        if mask == warp.live {
            return warp.view.set_all(Rc::new(view));
        }
        lanes(mask).for_each(|lane| warp.view.learn(lane, &view));
    }

    fn cluster_arrive(&mut self, release: bool, aligned: bool, run: &mut Running<'_>) -> Flow {
        if aligned && let Some(flow) = self.together(run, "a cluster barrier for whole warps") {
            return flow;
        }
        let index = self.blocks[run.block].cluster;
        let generation = self.clusters[index].generation;
        if let Some(lane) = lanes(run.active).find(|lane| run.warp.cluster_arrived[*lane] == generation + 1) {
            self.fault(
                Kind::Barrier,
                run.pc,
                run.who | lane as u32,
                "arrives at the cluster's barrier twice without a wait between",
            );
            return Flow::Changed;
        }
        for lane in lanes(run.active) {
            run.warp.cluster_arrived[lane] = generation + 1;
        }
        self.release_inits(run);
        if release {
            let now = self.tick();
            let known = run.warp.view.joined(run.active);
            let view = &mut self.clusters[index].view;
            view.join(&known);
            learn_part(view, run.who >> 5, run.warp, run.active, now);
        }
        self.clusters[index].arrived += run.active.count_ones();
        self.events += 1;
        self.complete_cluster(index);
        Flow::Next
    }

    fn complete_cluster(&mut self, index: usize) {
        let cluster = &self.clusters[index];
        let live: u32 = self.blocks[cluster.blocks()].iter().map(|block| block.live_threads).sum();
        let cluster = &mut self.clusters[index];
        if live > 0 && cluster.arrived >= live {
            cluster.generation += 1;
            cluster.arrived = 0;
            let mut view = std::mem::take(&mut cluster.view);
            view.join(&self.starts(index));
            self.clusters[index].complete = Rc::new(view);
            self.know_inits(index);
            self.events += 1;
        }
    }

    fn cluster_wait(&mut self, acquire: bool, aligned: bool, run: &mut Running<'_>) -> Flow {
        if aligned && let Some(flow) = self.together(run, "a cluster barrier for whole warps") {
            return flow;
        }
        let index = self.blocks[run.block].cluster;
        let cluster = &self.clusters[index];
        let generation = cluster.generation;
        if let Some(lane) = lanes(run.active).find(|lane| run.warp.cluster_arrived[*lane] == 0) {
            self.fault(
                Kind::Barrier,
                run.pc,
                run.who | lane as u32,
                "waits at the cluster's barrier without having arrived",
            );
            return Flow::Changed;
        }
        let arrived = run.warp.cluster_arrived[run.active.trailing_zeros() as usize];
        if generation >= arrived {
            let complete = if acquire { cluster.complete.clone() } else { Rc::new(self.starts(index)) };
            learn_all(run.warp, run.active, &complete);
            for lane in lanes(run.active) {
                run.warp.cluster_arrived[lane] = 0;
            }
            return Flow::Next;
        }
        let pc = run.pc;
        let mask = run.warp.groups[run.group].mask;
        super::step::split_rest(run, mask);
        let group = run.group_mut();
        group.pc = pc;
        group.wait = Wait::Nothing;
        Flow::Yield
    }

    /// Threads exit. What they did that nobody knows of yet, no barrier after them makes known: from now on barriers
    /// pass on what those know who are there, not the level of the whole.
    fn note_strays(&mut self, run: &mut Running<'_>, gone: u32) {
        let Touched { since_block, since_warp } = run.warp.touched;
        if run.warp.live == 0 {
            self.blocks[run.block].strays |= since_block != 0;
        } else if since_warp & gone != 0 {
            run.warp.strays = true;
            self.blocks[run.block].strays = true;
        }
    }

    /// Threads have exited: who waited for them may go on.
    pub(super) fn threads_left(&mut self, run: &mut Running<'_>, gone: u32) {
        self.events += 1;
        self.finish_copies(run, gone);
        let block = run.block;
        self.note_end(run, gone);
        self.note_strays(run, gone);
        if run.warp.live == 0 {
            self.leave_warpgroup(run);
        }
        self.blocks[block].live_threads -= gone.count_ones();
        let cluster = self.blocks[block].cluster;
        let generation = self.clusters[cluster].generation;
        let arrived =
            lanes(gone).filter(|lane| run.warp.cluster_arrived[*lane] == generation + 1).count() as u32;
        self.clusters[cluster].arrived -= arrived.min(self.clusters[cluster].arrived);
        for group in &mut run.warp.groups {
            if matches!(group.wait, Wait::Lanes { .. } | Wait::WarpSync { .. }) {
                group.wait = Wait::Nothing;
            }
        }
        for id in 0..16 {
            if self.blocks[block].barriers[id].arrived > 0
                && self.blocks[block].barriers[id].expected.is_none()
            {
                self.complete_barrier(block, id, Some(&mut *run.warp));
            }
        }
        self.complete_cluster(cluster);
    }
}

/// A view learns what lanes of a warp have done up to `time`, who came to a barrier together.
fn learn_part(view: &mut View, number: u32, warp: &Warp, mask: u32, time: u32) {
    if mask & warp.live == warp.live && !warp.strays {
        return view.learn(Level::Warp(number), time);
    }
    if warp.view.warp_floor > 0 {
        view.learn(Level::Warp(number), warp.view.warp_floor);
    }
    lanes(mask).for_each(|lane| view.learn(Level::Thread(number << 5 | lane as u32), time));
}

/// A warp's lanes are let go by a barrier and know what all know who were there.
fn release(warp: &mut Warp, id: usize, mask: u32, value: u32, view: &Rc<View>, whole_block: bool) {
    if mask == warp.live && (whole_block || warp.view.same().is_some()) {
        warp.view.set_all(view.clone());
    } else {
        lanes(mask).for_each(|lane| warp.view.learn(lane, view));
    }
    for group in &mut warp.groups {
        if group.wait == (Wait::Barrier { id: id as u8 }) && group.mask & mask == group.mask {
            group.wait = Wait::Released { value };
        }
    }
}

/// Lanes learn something together.
pub(super) fn learn_all(warp: &mut Warp, mask: u32, view: &View) {
    if mask == warp.live
        && let Some(same) = warp.view.same()
    {
        if !same.includes(view) {
            let mut joined = View::clone(same);
            joined.join(view);
            warp.view.set_all(Rc::new(joined));
        }
        return;
    }
    lanes(mask).for_each(|lane| warp.view.learn(lane, view));
}
