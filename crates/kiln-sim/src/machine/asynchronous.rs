//! Asynchronous copies and stores.
//!
//! The bytes of a source are taken when a copy is issued ([`super::sources`] has until when they may not change). The
//! destination changes later: at the thread's own wait for `cp.async`, at some point of the schedule for bulk copies and
//! `st.async`. Until somebody has waited for that it is marked as being written, and nobody may touch it, the thread itself
//! included: whether the bytes have landed is luck. What completes on an mbarrier is written by that mbarrier's agent, and known
//! to those who have seen the phase complete.

use rand::RngExt;
use rand::seq::SliceRandom;

use crate::check::cell::{Cell, READING, WHOLE};
use crate::check::view::{COPIER, Level, MBARRIER, Who};
use crate::finding::Kind;
use crate::isa::{AtomOp, AtomType, Bulk, BulkKind, Inst, MbarSem, Op, Place};

use super::Machine;
use super::access::Spot;
use super::regs::lanes;
use super::sources::{BulkSource, Source};
use super::state::{BulkStore, Copies, Copy, Init};
use super::step::{Flow, Running};

/// What an operation does to its destination.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Store,
    Reduce(AtomOp, AtomType),
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct AsyncOp {
    id: u64,
    effect: Effect,
    /// Block and offset in shared memory, or allocation and offset in global memory.
    target: Target,
    data: Vec<u8>,
    /// Block and offset of the mbarrier that it completes on.
    mbar: Option<(usize, u32)>,
    /// Number of the source that it has read once it is complete.
    source: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Shared(usize, u32),
    Global(usize, u64),
    /// Only the arrival for `cp.async`, by an instruction of a thread.
    Arrival(u32, Who),
}

impl Machine<'_> {
    pub(super) fn asynchronous(&mut self, inst: &Inst, run: &mut Running<'_>) -> Flow {
        match inst.op {
            Op::CpAsync { bytes, to64, from64, partial } => {
                self.copy_async(inst, bytes, to64, from64, partial, run)
            }
            Op::CpAsyncCommit => {
                for lane in lanes(run.active) {
                    let copies = copies(run, lane);
                    let open = std::mem::take(&mut copies.open);
                    copies.groups.push_back(open);
                }
                Flow::Next
            }
            Op::CpAsyncWait => self.copy_wait(inst.imm, run),
            Op::CpAsyncArrive { noinc, sem } => self.copy_arrive(inst, noinc, sem, run),
            Op::Bulk(bulk) => self.bulk(inst, bulk, run),
            Op::BulkCommit => {
                for lane in lanes(run.active) {
                    let copies = copies(run, lane);
                    let open = std::mem::take(&mut copies.bulk_open);
                    copies.bulk_groups.push_back(open);
                }
                Flow::Next
            }
            Op::BulkWait { read } => {
                for lane in lanes(run.active) {
                    self.bulk_wait(inst.imm as usize, read, run, lane);
                }
                Flow::Next
            }
            Op::StAsync { element, lanes: count, wide, to64, mbar64 } => {
                let bytes = u32::from(element.bytes) * u32::from(count);
                self.store_async(inst, bytes, usize::from(count), wide, to64, mbar64, Effect::Store, run)
            }
            Op::RedAsync { op, ty, to64, mbar64 } => {
                let wide = ty.bytes() == 8;
                self.store_async(
                    inst,
                    u32::from(ty.bytes()),
                    1,
                    wide,
                    to64,
                    mbar64,
                    Effect::Reduce(op, ty),
                    run,
                )
            }
            _ => {
                self.fault(
                    Kind::Misuse,
                    run.pc,
                    run.first(),
                    "the simulator has no such instruction: this is a fault of its own",
                );
                Flow::Changed
            }
        }
    }

    /// Waits until no more than `most` of a lane's bulk groups are under way, or have yet to be read.
    fn bulk_wait(&mut self, most: usize, read: bool, run: &mut Running<'_>, lane: usize) {
        let held = copies(run, lane);
        let done = held.bulk_groups.len().saturating_sub(most);
        let unread = held.bulk_groups.range(held.bulk_read.min(done)..done).flatten().copied();
        let unread: Vec<BulkStore> = unread.collect();
        let mut landed = Vec::new();
        if read {
            held.bulk_read = held.bulk_read.max(done);
        } else {
            landed.extend(held.bulk_groups.drain(..done).flatten());
            held.bulk_read = held.bulk_read.saturating_sub(done);
        }
        for store in unread {
            if let Some(bulk) = self.sources.remove(&store.id) {
                self.end_source(bulk.source, run, lane);
            }
        }
        for store in landed {
            self.finish_store(store, run.who | lane as u32);
        }
    }

    /// Reads bytes of a source with all checks.
    fn take(&mut self, spot: Spot, bytes: u32, run: &Running<'_>, lane: usize) -> Vec<u8> {
        let mut data = Vec::with_capacity(bytes as usize);
        let mut at = 0;
        while at < bytes {
            // Whole words, as many as are checked at once, and then what is left of one.
            let whole = (bytes - at) & !3;
            let step = if whole > 0 { whole.min(32) } else { bytes - at };
            if self.launch.checks {
                self.check_read(spot.moved(at), step, None, run, lane, false);
            }
            for part in (0..step).step_by(4) {
                let word = self.read_element(spot.moved(at + part), 0, 4, run, lane) as u32;
                data.extend_from_slice(&word.to_le_bytes()[..(step - part).min(4) as usize]);
            }
            at += step;
        }
        data
    }

    /// Marks a destination as being written by `agent`.
    fn claim(&mut self, spot: Spot, bytes: u32, agent: Who, reduces: bool, run: &Running<'_>, lane: usize) {
        if !self.launch.checks {
            return;
        }
        let judge = self.judge(run, lane, None);
        let (mut found, mut reading) = (None, None);
        for at in (0..bytes).step_by(4) {
            let mut note = |cell: &Cell| {
                if cell.init & READING != 0 {
                    reading.get_or_insert(at);
                }
            };
            let race = match spot.moved(at) {
                Spot::Shared(block, offset) => {
                    let block = &mut self.blocks[block];
                    let reader = block.unknown_reader(offset as usize / 4, &judge.me);
                    let (cell, lists) = block.shadow.cell(offset as usize / 4);
                    note(cell);
                    let own = reduces && cell.last_write().is_some_and(|event| event.who == agent);
                    if own { None } else { judge.write_pending(cell, lists, agent).or(reader) }
                }
                Spot::Global(index, _, address) => {
                    let (cell, lists) = self.shadow.cell(index, self.memory[index].base, address);
                    note(cell);
                    judge.write_pending(cell, lists, agent)
                }
                _ => None,
            };
            found = found.or(race.map(|race| (at, race)));
        }
        if let Some(first) = reading {
            self.check_sources(spot, first, bytes, run, lane);
        }
        if let Some((at, first)) = found {
            let (space, address) = self.spot_name(spot, at, run);
            self.race(self.event(run, lane), first, space, address, 4);
        }
    }

    /// The same for a bulk copy, for which a fence must cover what has been stored there before.
    fn claim_fenced(&mut self, spot: Spot, bytes: u32, agent: Who, run: &Running<'_>, lane: usize) {
        if self.launch.checks {
            self.check_fenced(spot, bytes, run, lane);
        }
        self.claim(spot, bytes, agent, false, run, lane);
    }

    fn copy_async(
        &mut self,
        inst: &Inst,
        bytes: u8,
        to64: bool,
        from64: bool,
        partial: bool,
        run: &mut Running<'_>,
    ) -> Flow {
        let to = Self::addresses(run, inst, 0, to64, 0);
        let from = Self::addresses(run, inst, 1, from64, 0);
        let sizes = if partial { run.regs().a(inst, 2) } else { [u32::from(bytes); 32] };
        let width = u32::from(bytes);
        for lane in lanes(run.active) {
            let Some(Spot::Shared(block, offset)) =
                self.resolve(Place::Shared, to[lane], width, width, run, lane)
            else {
                return Flow::Changed;
            };
            if sizes[lane] > width {
                let message = format!("{} bytes to read for a copy of {width}", sizes[lane]);
                self.fault(Kind::Misuse, run.pc, run.who | lane as u32, message);
                return Flow::Changed;
            }
            let mut data = [0u8; 16];
            let mut source = None;
            let who = run.who | lane as u32;
            if sizes[lane] > 0 {
                let Some(spot) = self.resolve(Place::Global, from[lane], sizes[lane], width, run, lane)
                else {
                    return Flow::Changed;
                };
                let found = self.take(spot, sizes[lane], run, lane);
                data[..found.len()].copy_from_slice(&found);
                let read = *source.insert(Source { spot, bytes: sizes[lane], who, pc: run.pc });
                self.mark_source(read);
            }
            self.claim(Spot::Shared(block, offset), width, COPIER | who, false, run, lane);
            let words = std::array::from_fn(|n| {
                u32::from_le_bytes([data[4 * n], data[4 * n + 1], data[4 * n + 2], data[4 * n + 3]])
            });
            copies(run, lane).open.push(Copy { offset, bytes, data: words, source });
        }
        Flow::Next
    }

    fn copy_wait(&mut self, most: i64, run: &mut Running<'_>) -> Flow {
        // `wait_all`: what has not been committed too.
        let (all, most) = (most < 0, most.max(0) as usize);
        for lane in lanes(run.active) {
            if all {
                let open = std::mem::take(&mut copies(run, lane).open);
                copies(run, lane).groups.push_back(open);
            }
            while copies(run, lane).groups.len() > most {
                let group = copies(run, lane).groups.pop_front().unwrap_or_default();
                self.finish_group(&group, run.block, Some(run.who | lane as u32));
                group.iter().filter_map(|copy| copy.source).for_each(|read| self.end_source(read, run, lane));
            }
        }
        Flow::Next
    }

    /// Copies land. `who` is the thread that waited for them; if none did, nobody may count on it.
    fn finish_group(&mut self, group: &[Copy], block: usize, who: Option<Who>) {
        let now = self.now;
        for copy in group {
            for n in 0..u32::from(copy.bytes) / 4 {
                let word = (copy.offset / 4 + n) as usize;
                let block = &mut self.blocks[block];
                block.shared[word] = copy.data[n as usize];
                let (cell, _) = block.shadow.cell(word);
                cell.init |= 15;
                if let Some(who) = who
                    && cell.last_write().is_some_and(|event| event.who == COPIER | who)
                {
                    cell.complete(who, now);
                }
            }
        }
        self.events += u64::from(!group.is_empty());
    }

    /// What threads that exit have left under way.
    pub(super) fn finish_copies(&mut self, run: &mut Running<'_>, gone: u32) {
        if run.warp.copies.is_empty() {
            return;
        }
        for lane in lanes(gone) {
            let left = std::mem::take(copies(run, lane));
            left.groups.iter().for_each(|group| self.finish_group(group, run.block, None));
            self.finish_group(&left.open, run.block, None);
        }
    }

    /// `cp.async.mbarrier.arrive`: arrives once the thread's copies so far are complete.
    fn copy_arrive(&mut self, inst: &Inst, noinc: bool, sem: MbarSem, run: &mut Running<'_>) -> Flow {
        let address = Self::addresses(run, inst, 0, sem.address64, 0);
        let place = if sem.generic { Place::Generic } else { Place::Shared };
        for lane in lanes(run.active) {
            let Some((block, offset)) = self.mbarrier_at(place, address[lane], run, lane) else {
                return Flow::Changed;
            };
            let Some(number) = self.mbarrier_number(block, offset, run, lane) else { return Flow::Changed };
            if !noinc && let Some(mbar) = self.blocks[block].mbars.get_mut(&offset) {
                mbar.pending += 1;
            }
            let who = run.who | lane as u32;
            let held = copies(run, lane);
            let mut all: Vec<Copy> = std::mem::take(&mut held.groups).into_iter().flatten().collect();
            all.append(&mut held.open);
            let agent = MBARRIER | number;
            for copy in all {
                let data: Vec<u8> = copy
                    .data
                    .iter()
                    .flat_map(|word| word.to_le_bytes())
                    .take(usize::from(copy.bytes))
                    .collect();
                for word in copy.offset / 4..(copy.offset + u32::from(copy.bytes)) / 4 {
                    let (cell, _) = self.blocks[run.block].shadow.cell(word as usize);
                    if cell.last_write().is_some_and(|event| event.who == COPIER | who) {
                        cell.complete(agent, crate::check::view::PENDING);
                    }
                }
                let target = Target::Shared(run.block, copy.offset);
                self.start(Effect::Store, target, data, None, None);
            }
            self.start(Effect::Store, Target::Arrival(run.pc, who), Vec::new(), Some((block, offset)), None);
        }
        Flow::Next
    }

    fn start(
        &mut self,
        effect: Effect,
        target: Target,
        data: Vec<u8>,
        mbar: Option<(usize, u32)>,
        source: Option<u64>,
    ) -> u64 {
        let id = self.next_operation;
        self.next_operation += 1;
        self.operations.push(AsyncOp { id, effect, target, data, mbar, source });
        id
    }

    #[allow(clippy::too_many_arguments)] // Two instructions that differ in little.
    fn store_async(
        &mut self,
        inst: &Inst,
        bytes: u32,
        count: usize,
        wide: bool,
        to64: bool,
        mbar64: bool,
        effect: Effect,
        run: &mut Running<'_>,
    ) -> Flow {
        let to = Self::addresses(run, inst, 0, to64, 0);
        let mbar = Self::addresses(run, inst, 8, mbar64, 0);
        for lane in lanes(run.active) {
            let Some(spot) = self.resolve(Place::SharedCluster, to[lane], bytes, bytes, run, lane) else {
                return Flow::Changed;
            };
            let Spot::Shared(block, offset) = spot else { return Flow::Changed };
            let Some(at) = self.mbarrier_at(Place::SharedCluster, mbar[lane], run, lane) else {
                return Flow::Changed;
            };
            let Some(number) = self.mbarrier_number(at.0, at.1, run, lane) else { return Flow::Changed };
            if at.0 != block {
                self.fault(
                    Kind::Mbarrier,
                    run.pc,
                    run.who | lane as u32,
                    "the mbarrier lies in another block than the destination",
                );
                return Flow::Changed;
            }
            let mut data = Vec::with_capacity(bytes as usize);
            for n in 0..count {
                if wide {
                    data.extend_from_slice(&run.regs().a64(inst, n + 1)[lane].to_le_bytes());
                } else {
                    data.extend_from_slice(&run.regs().a(inst, n + 1)[lane].to_le_bytes());
                }
            }
            self.claim(spot, bytes, MBARRIER | number, matches!(effect, Effect::Reduce(..)), run, lane);
            self.start(effect, Target::Shared(block, offset), data, Some(at), None);
        }
        Flow::Next
    }

    fn bulk(&mut self, inst: &Inst, bulk: Bulk, run: &mut Running<'_>) -> Flow {
        let to = Self::addresses(run, inst, 0, bulk.to64, 0);
        let from = Self::addresses(run, inst, 1, bulk.from64, 0);
        let sizes = run.regs().a(inst, 2);
        let mbars = if inst.has(3) { Self::addresses(run, inst, 3, bulk.mbar64, 0) } else { [0; 32] };
        let multicast = matches!(bulk.kind, BulkKind::GlobalToShared { multicast: true, .. });
        let masks = if multicast { run.regs().a(inst, 4) } else { [0; 32] };
        let (to_place, from_place) = match bulk.kind {
            BulkKind::GlobalToShared { own: true, .. } => (Place::Shared, Place::Global),
            BulkKind::GlobalToShared { own: false, .. } => (Place::SharedCluster, Place::Global),
            BulkKind::SharedToCluster => (Place::SharedCluster, Place::Shared),
            BulkKind::SharedToGlobal => (Place::Global, Place::Shared),
        };
        for lane in lanes(run.active) {
            let (who, bytes) = (run.who | lane as u32, sizes[lane]);
            if bytes == 0 || bytes % 16 != 0 {
                self.fault(
                    Kind::Misuse,
                    run.pc,
                    who,
                    format!("a bulk copy of {bytes} bytes: expected a multiple of 16"),
                );
                return Flow::Changed;
            }
            let Some(source) = self.resolve(from_place, from[lane], bytes, 16, run, lane) else {
                return Flow::Changed;
            };
            let Some(target) = self.resolve(to_place, to[lane], bytes, 16, run, lane) else {
                return Flow::Changed;
            };
            if !self.may_write(target, to_place, to[lane], bytes, run, lane) {
                return Flow::Changed;
            }
            let data = self.take(source, bytes, run, lane);
            let source = Source { spot: source, bytes, who, pc: run.pc };
            self.mark_source(source);
            if self.launch.checks {
                self.check_fenced(source.spot, bytes, run, lane);
            }
            let number = self.next_operation;
            let Spot::Shared(block, offset) = target else {
                let Spot::Global(index, at, _) = target else { return Flow::Changed };
                self.claim_fenced(target, bytes, COPIER | who, run, lane);
                let id = self.start(Effect::Store, Target::Global(index, at), data, None, None);
                self.sources.insert(id, BulkSource { source, left: 0 });
                copies(run, lane).bulk_open.push(BulkStore { id, index, offset: at, bytes });
                continue;
            };
            let Some(mbar) = self.mbarrier_at(Place::SharedCluster, mbars[lane], run, lane) else {
                return Flow::Changed;
            };
            let cluster = &self.clusters[self.blocks[run.block].cluster];
            let (first, count) = (cluster.first, cluster.count);
            let blocks: Vec<usize> = if multicast {
                (0..count.min(16))
                    .filter(|rank| masks[lane] >> rank & 1 == 1)
                    .map(|rank| first + rank as usize)
                    .collect()
            } else {
                vec![block]
            };
            if !multicast && mbar.0 != block || masks[lane] >> count != 0 {
                self.fault(
                    Kind::Mbarrier,
                    run.pc,
                    who,
                    "the mbarrier or the mask does not fit the destination",
                );
                return Flow::Changed;
            }
            if !blocks.is_empty() {
                self.sources.insert(number, BulkSource { source, left: blocks.len() as u32 });
            }
            // Multicast writes to the same offsets, and completes on the mbarrier at the same offset, in each block.
            for block in blocks {
                if !self.has_started(block, to[lane], bytes, run, lane) {
                    return Flow::Changed;
                }
                let Some(agent) = self.mbarrier_number(block, mbar.1, run, lane) else {
                    return Flow::Changed;
                };
                if self.launch.checks {
                    self.check_init_fenced(block, mbar.1, run, lane);
                }
                self.claim_fenced(Spot::Shared(block, offset), bytes, MBARRIER | agent, run, lane);
                let (target, mbar) = (Target::Shared(block, offset), Some((block, mbar.1)));
                self.start(Effect::Store, target, data.clone(), mbar, Some(number));
            }
        }
        Flow::Next
    }

    /// Completes operations: all that there are, or some of them on a random schedule.
    pub(super) fn complete_operations(&mut self) {
        let mut operations = std::mem::take(&mut self.operations);
        if let Some(random) = self.random.as_mut() {
            // Arrivals for `cp.async` must not overtake the copies before them: those keep their order.
            if operations.iter().all(|op| !matches!(op.target, Target::Arrival(..))) {
                operations.shuffle(random);
            }
            let count = if operations.is_empty() { 0 } else { random.random_range(1..=operations.len()) };
            self.operations = operations.split_off(count);
        }
        operations.into_iter().for_each(|op| self.complete(op));
    }

    /// A thread has waited for a bulk copy to global memory: it has landed, and the thread knows.
    fn finish_store(&mut self, store: BulkStore, who: Who) {
        if let Some(at) = self.operations.iter().position(|op| op.id == store.id) {
            let op = self.operations.remove(at);
            self.complete(op);
        }
        if !self.launch.checks {
            return;
        }
        let (base, now) = (self.memory[store.index].base, self.now);
        for at in (0..u64::from(store.bytes)).step_by(4) {
            let (cell, _) = self.shadow.cell(store.index, base, base + store.offset + at);
            if cell.last_write().is_some_and(|event| event.who == COPIER | who) {
                cell.complete(who, now);
            }
        }
    }

    fn complete(&mut self, op: AsyncOp) {
        self.events += 1;
        if let Some(number) = op.source
            && let Some(bulk) = self.sources.get_mut(&number)
        {
            bulk.left -= 1;
            if bulk.left == 0 {
                self.sources.remove(&number);
            }
        }
        match op.target {
            Target::Shared(block, offset) => self.complete_shared(&op, block, offset),
            // The bytes are there, but until the thread has waited nobody may count on it.
            Target::Global(index, offset) => self.memory[index].write(offset, &op.data),
            Target::Arrival(pc, who) => {
                if let Some((block, offset)) = op.mbar {
                    let now = self.tick();
                    let number = self.blocks[block].number;
                    let Some(mbar) = self.blocks[block].mbars.get(&offset) else { return };
                    let mut view = crate::check::view::View::default();
                    view.learn(Level::Thread(MBARRIER | mbar.number), now);
                    self.arrive_mbarrier(block, offset, 1, false, Some((number, true, view)), (pc, who));
                    self.finish_phase(block, offset);
                }
            }
        }
    }

    fn complete_shared(&mut self, op: &AsyncOp, block: usize, offset: u32) {
        let now = self.now;
        if let Effect::Reduce(kind, ty) = op.effect {
            self.reduce_shared(kind, ty, &op.data, block, offset);
        }
        let target = &mut self.blocks[block];
        for (n, bytes) in op.data.chunks(4).enumerate() {
            let word = offset as usize / 4 + n;
            if matches!(op.effect, Effect::Store) {
                let mut full = [0; 4];
                full[..bytes.len()].copy_from_slice(bytes);
                target.shared[word] = u32::from_le_bytes(full);
            }
            let (cell, _) = target.shadow.cell(word);
            cell.init |= 15;
            if let Some(event) = cell.last_write().filter(|event| event.who & MBARRIER == MBARRIER) {
                cell.complete(event.who, now);
            }
        }
        if let Some((block, mbar)) = op.mbar {
            self.bytes_came(block, mbar, op.data.len() as u32);
        }
    }

    fn reduce_shared(&mut self, kind: AtomOp, ty: AtomType, data: &[u8], block: usize, offset: u32) {
        let mut bytes = [0; 8];
        bytes[..data.len()].copy_from_slice(data);
        let word = offset as usize / 4;
        let shared = &mut self.blocks[block].shared;
        let mut old = u64::from(shared[word]);
        if ty.bytes() == 8 {
            old |= u64::from(shared[word + 1]) << 32;
        }
        let new = super::atomic::apply(kind, ty, old, u64::from_le_bytes(bytes), 0);
        shared[word] = new as u32;
        if ty.bytes() == 8 {
            shared[word + 1] = (new >> 32) as u32;
        }
    }

    /// Whether an mbarrier's initialisation is known to a thread that uses it.
    pub(super) fn check_initialised(&mut self, block: usize, offset: u32, run: &Running<'_>, lane: usize) {
        let judge = self.judge(run, lane, None);
        let (cell, lists) = self.blocks[block].shadow.get(offset as usize / 4);
        let known = self.blocks[block].mbars.get(&offset).is_some_and(|mbar| mbar.init == Init::Known);
        if let Some(first) = judge.unordered_write_of(&cell, WHOLE, lists)
            && !known
        {
            self.race(self.event(run, lane), first, "shared", u64::from(offset), 8);
        }
    }
}

/// A lane's copies.
fn copies<'r>(run: &'r mut Running<'_>, lane: usize) -> &'r mut Copies {
    if run.warp.copies.is_empty() {
        run.warp.copies = vec![Copies::default(); 32];
    }
    &mut run.warp.copies[lane]
}
