//! Mbarriers: arrivals, expected bytes, phases, and what a completed phase makes known.
//!
//! The object itself is opaque in PTX, and is kept beside the memory; ordinary accesses to its eight bytes are findings.
//! A thread that sees a phase complete learns what the arrivals of its own block knew, and what those of other blocks knew
//! if both the arrival's scope and its own reach over the cluster (the default of both is the block). Before an arrival, some thread
//! must have seen the phase before complete (PTX ISA, "Phase of the mbarrier object").
//!
//! Errs towards silence in one point: a state is the number of its phase, so that one kept for a whole round of phases is
//! told apart here where hardware has the parity alone.

use std::rc::Rc;

use crate::check::view::{Level, MBARRIER, View, Who, block_of};
use crate::finding::Kind;
use crate::isa::{Inst, MbarOp, MbarSem, Place, Scope, Sem};

use super::Machine;
use super::access::{MBAR, Spot};
use super::barrier::learn_all;
use super::regs::lanes;
use super::state::{Arrivals, Init, Mbar};
use super::step::{Flow, Running};

/// Largest count of arrivals and of bytes (PTX ISA, "Contents of the mbarrier object").
const MOST: u32 = (1 << 20) - 1;

impl Machine<'_> {
    pub(super) fn mbarrier(&mut self, inst: &Inst, op: MbarOp, sem: MbarSem, run: &mut Running<'_>) -> Flow {
        if op == MbarOp::PendingCount {
            // A state is the number of its phase: the count is that of a phase nobody has arrived at since.
            self.fault(Kind::Misuse, run.pc, run.first(), "`mbarrier.pending_count` is not modelled");
            return Flow::Changed;
        }
        let address = Self::addresses(run, inst, 1, sem.address64, 0);
        let place = if sem.generic { Place::Generic } else { Place::SharedCluster }; // another block's is told below
        let mut results = 0;
        let mut learnt: Vec<(Rc<View>, u32)> = Vec::new();
        for lane in lanes(run.active) {
            let Some((block, offset)) = self.mbarrier_at(place, address[lane], run, lane) else {
                return Flow::Changed;
            };
            let value = |run: &mut Running<'_>| match op {
                MbarOp::Test { parity: false, .. } => run.regs().a64(inst, 2)[lane],
                _ => u64::from(run.regs().a(inst, 2)[lane]),
            };
            let value = value(run);
            let remote = block != run.block;
            if remote
                && (matches!(
                    op,
                    MbarOp::Init | MbarOp::Inval | MbarOp::Test { .. } | MbarOp::Arrive { state: true, .. }
                ) || !sem.remote && !sem.generic)
            {
                self.fault(
                    Kind::Mbarrier,
                    run.pc,
                    run.who | lane as u32,
                    "this operation is for the block's own mbarriers",
                );
                return Flow::Changed;
            }
            match op {
                MbarOp::Init => self.init_mbarrier(offset, value as u32, run, lane),
                MbarOp::Inval => self.forget_mbarrier(offset, run, lane),
                MbarOp::Test { parity, .. } => {
                    if let Some(view) = self.test_mbarrier(offset, value, parity, sem.sem, run, lane) {
                        results |= 1 << lane;
                        match learnt.last_mut().filter(|(last, _)| Rc::ptr_eq(last, &view)) {
                            Some((_, mask)) => *mask |= 1 << lane,
                            None => learnt.push((view, 1 << lane)),
                        }
                    }
                }
                _ => {
                    let phase = self.count_mbarrier(op, sem.sem, block, offset, value as u32, run, lane);
                    if matches!(op, MbarOp::Arrive { state: true, .. }) {
                        run.warp.r64[run.base.r64 as usize + usize::from(inst.r[0])][lane] = phase;
                    }
                }
            }
            if self.stopped {
                return Flow::Changed;
            }
        }
        if !matches!(op, MbarOp::Test { .. }) {
            self.events += 1;
            return Flow::Next;
        }
        learnt.iter().for_each(|(view, mask)| learn_all(run.warp, *mask, view));
        run.regs().write_pred(inst.r[0], results);
        if results == run.active {
            return Flow::Next;
        }
        let pc = run.pc;
        run.group_mut().pc = pc + 1;
        Flow::Yield
    }

    /// Where an mbarrier lies: block and offset.
    pub(super) fn mbarrier_at(
        &mut self,
        place: Place,
        address: u64,
        run: &Running<'_>,
        lane: usize,
    ) -> Option<(usize, u32)> {
        match self.resolve(place, address, 8, 8, run, lane)? {
            Spot::Shared(block, offset) => Some((block, offset)),
            _ => {
                self.fault(
                    Kind::Mbarrier,
                    run.pc,
                    run.who | lane as u32,
                    "an mbarrier outside shared memory",
                );
                None
            }
        }
    }

    fn init_mbarrier(&mut self, offset: u32, count: u32, run: &mut Running<'_>, lane: usize) {
        let who = run.who | lane as u32;
        if count == 0 || count > MOST {
            return self.fault(
                Kind::Mbarrier,
                run.pc,
                who,
                format!("a count of {count}: expected 1 to {MOST}"),
            );
        }
        if let Some(old) = self.blocks[run.block].mbars.get(&offset) {
            let line = self.line(old.pc);
            let message =
                format!("an mbarrier that has been initialised at PTX line {line} and not been invalidated");
            return self.fault(Kind::Mbarrier, run.pc, who, message);
        }
        let spot = Spot::Shared(run.block, offset);
        if self.launch.checks {
            self.check_write(spot, 8, None, run, lane);
        }
        self.mark_written(spot, 8);
        let block = &mut self.blocks[run.block];
        for word in [offset / 4, offset / 4 + 1] {
            block.shadow.cell(word as usize).0.init |= MBAR;
        }
        let mbar = Mbar {
            number: self.mbarriers,
            phase: 0,
            waited: true,
            expected: count,
            pending: count,
            bytes: 0,
            arrivals: Arrivals::default(),
            complete: Arrivals::default(),
            calls: Vec::new(),
            unseen_calls: Vec::new(),
            who,
            pc: run.pc,
            init: Init::Done,
        };
        block.mbars.insert(offset, mbar);
        self.mbarriers += 1;
    }

    fn forget_mbarrier(&mut self, offset: u32, run: &mut Running<'_>, lane: usize) {
        if self.blocks[run.block].mbars.remove(&offset).is_none() {
            return self.fault(
                Kind::Mbarrier,
                run.pc,
                run.who | lane as u32,
                "no mbarrier has been initialised here",
            );
        }
        for word in [offset / 4, offset / 4 + 1] {
            self.blocks[run.block].shadow.cell(word as usize).0.init = 0;
        }
    }

    /// Whether an mbarrier can be used by a thread: initialised, and known to be.
    fn usable(&mut self, block: usize, offset: u32, run: &Running<'_>, lane: usize) -> bool {
        let who = run.who | lane as u32;
        if !self.blocks[block].mbars.contains_key(&offset) {
            self.fault(Kind::Mbarrier, run.pc, who, "no mbarrier has been initialised here");
            return false;
        }
        if self.launch.checks {
            self.check_initialised(block, offset, run, lane);
        }
        true
    }

    /// What is learnt from the phase asked for, if it is complete.
    fn test_mbarrier(
        &mut self,
        offset: u32,
        value: u64,
        parity: bool,
        sem: Sem,
        run: &Running<'_>,
        lane: usize,
    ) -> Option<Rc<View>> {
        if !self.usable(run.block, offset, run, lane) {
            return None;
        }
        let mbar = self.blocks[run.block].mbars.get_mut(&offset)?;
        let done = if parity { mbar.phase & 1 != value & 1 } else { mbar.phase > value };
        if !done {
            return None;
        }
        mbar.unseen_calls.clear();
        mbar.waited |= parity || value + 1 == mbar.phase;
        let Arrivals { own, all } = &mbar.complete;
        Some(match sem.acquires() {
            true if sem.scope >= Scope::Cluster => all.clone(),
            true => own.clone(),
            false => Rc::default(),
        })
    }

    /// Arrivals and bytes; the phase that they count for.
    #[allow(clippy::too_many_arguments)] // The operation, the object and the thread.
    fn count_mbarrier(
        &mut self,
        op: MbarOp,
        sem: Sem,
        block: usize,
        offset: u32,
        value: u32,
        run: &mut Running<'_>,
        lane: usize,
    ) -> u64 {
        if !self.usable(block, offset, run, lane) {
            return 0;
        }
        let phase = self.blocks[block].mbars[&offset].phase;
        let who = run.who | lane as u32;
        let call = self.event(run, lane);
        if let Some(mbar) = self.blocks[block].mbars.get_mut(&offset)
            && block != run.block
            && self.launch.checks
        {
            mbar.calls.push(call);
        }
        match op {
            MbarOp::ExpectTx => self.expect_bytes(block, offset, i64::from(value), run.pc, who),
            MbarOp::CompleteTx => self.expect_bytes(block, offset, -i64::from(value), run.pc, who),
            MbarOp::Arrive { drop, expect, complete, .. } => {
                let count = if expect { 1 } else { value };
                if expect {
                    self.expect_bytes(block, offset, i64::from(value), run.pc, who);
                }
                let known = sem.releases().then(|| {
                    let view = self.knowledge(run, lane);
                    self.tick();
                    (block_of(who), sem.scope >= Scope::Cluster, view)
                });
                let pending = self.blocks[block].mbars[&offset].pending;
                if count == 0 || count > pending {
                    let message = format!("{count} arrivals where {pending} are pending in this phase");
                    self.fault(Kind::Mbarrier, run.pc, who, message);
                } else if !complete && count == pending {
                    self.fault(Kind::Mbarrier, run.pc, who, "`.noComplete` completes the phase");
                } else {
                    self.arrive_mbarrier(block, offset, count, drop, known, (run.pc, who));
                }
            }
            _ => {}
        }
        self.finish_phase(block, offset);
        phase
    }

    fn expect_bytes(&mut self, block: usize, offset: u32, bytes: i64, pc: u32, who: u32) {
        let Some(mbar) = self.blocks[block].mbars.get_mut(&offset) else { return };
        mbar.bytes += bytes;
        if mbar.bytes.unsigned_abs() > u64::from(MOST) {
            let message = format!("{} bytes are pending: expected at most {MOST}", mbar.bytes);
            self.fault(Kind::Mbarrier, pc, who, message);
        }
    }

    /// Arrivals, with what they know: block, whether the scope is wide, view. They come from an instruction of a thread.
    pub(super) fn arrive_mbarrier(
        &mut self,
        block: usize,
        offset: u32,
        count: u32,
        drop: bool,
        known: Option<(u32, bool, View)>,
        (pc, who): (u32, Who),
    ) {
        let number = self.blocks[block].number;
        let Some(mbar) = self.blocks[block].mbars.get_mut(&offset) else { return };
        let waited = std::mem::replace(&mut mbar.waited, true);
        mbar.pending -= count.min(mbar.pending);
        if drop {
            mbar.expected -= count.min(mbar.expected);
        }
        if let Some((from, wide, view)) = known {
            let Arrivals { own, all } = &mut mbar.arrivals;
            if from == number {
                Rc::make_mut(own).join(&view);
            }
            if from == number || wide {
                Rc::make_mut(all).join(&view);
            }
        }
        if !waited {
            let message = "an arrival in the phase after one that no thread has seen complete by `test_wait` or `try_wait`";
            self.fault(Kind::Mbarrier, pc, who, message);
        }
    }

    /// Bytes have come, written by the agent of the mbarrier, which is known of from now on.
    pub(super) fn bytes_came(&mut self, block: usize, offset: u32, bytes: u32) {
        let now = self.tick();
        let Some(mbar) = self.blocks[block].mbars.get_mut(&offset) else { return };
        mbar.bytes -= i64::from(bytes);
        let agent = Level::Thread(MBARRIER | mbar.number);
        let Arrivals { own, all } = &mut mbar.arrivals;
        [own, all].into_iter().for_each(|view| Rc::make_mut(view).learn(agent, now));
        self.finish_phase(block, offset);
    }

    /// Ends the phase if all have arrived and all bytes have come.
    pub(super) fn finish_phase(&mut self, block: usize, offset: u32) {
        let Some(mbar) = self.blocks[block].mbars.get_mut(&offset) else { return };
        if mbar.pending > 0 || mbar.bytes != 0 {
            return;
        }
        mbar.phase += 1;
        mbar.waited = false;
        mbar.pending = mbar.expected;
        mbar.unseen_calls.append(&mut mbar.calls);
        let Arrivals { own, all } = std::mem::take(&mut mbar.arrivals);
        Rc::make_mut(&mut mbar.complete.own).join(&own);
        Rc::make_mut(&mut mbar.complete.all).join(&all);
        self.events += 1;
    }

    /// The number of an mbarrier, if there is one.
    pub(super) fn mbarrier_number(
        &mut self,
        block: usize,
        offset: u32,
        run: &Running<'_>,
        lane: usize,
    ) -> Option<u32> {
        if !self.usable(block, offset, run, lane) {
            return None;
        }
        Some(self.blocks[block].mbars[&offset].number)
    }
}
