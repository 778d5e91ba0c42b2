//! Loads and stores, and the addresses that they take.
//!
//! Every access is checked for bounds and alignment, and with checks on for uninitialised bytes and races. A generic
//! address is resolved by the window that it lies in.

use std::ops::Range;

use rand::RngExt;

use crate::check::cell::{Cell, Event, Judge, READING, ReaderLists, Strength, Strong, WHOLE};
use crate::check::reads::{Mark, Read};
use crate::check::view::Who;
use crate::finding::Kind;
use crate::isa::{ADDRESS, Access, Element, Inst, Op, Order, Place, Sem};
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, RANK_SHIFT, SHARED_WINDOW, window};

use super::Machine;
use super::regs::{Row64, lanes};
use super::state::Made;
use super::step::{Flow, Running};

/// Set in [`Cell::init`] of shared memory that is an mbarrier.
pub(super) const MBAR: u8 = 0x10;

/// Where one lane's access goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spot {
    /// Index of the allocation, offset in it, address.
    Global(usize, u64, u64),
    /// Index of the block, offset in its memory.
    Shared(usize, u32),
    Local(u32),
    Param(u32),
}

impl Spot {
    /// The place some bytes further on.
    pub(super) fn moved(self, by: u32) -> Spot {
        match self {
            Spot::Global(index, offset, address) => {
                Spot::Global(index, offset + u64::from(by), address + u64::from(by))
            }
            Spot::Shared(block, offset) => Spot::Shared(block, offset + by),
            Spot::Local(offset) => Spot::Local(offset + by),
            Spot::Param(offset) => Spot::Param(offset + by),
        }
    }
}

/// What can be said against an access: at which of its bytes, and what.
struct Problem {
    at: u32,
    race: Option<Event>,
    unwritten: bool,
    init: u8,
}

impl Problem {
    fn is_one(&self) -> bool {
        self.race.is_some() || self.unwritten || self.init & MBAR != 0
    }

    /// Whether it would be told in the same words, but for the place.
    fn is_like(&self, other: &Problem) -> bool {
        let kind =
            |problem: &Problem| (problem.race.map(|write| write.pc), problem.unwritten, problem.init & MBAR);
        kind(self) == kind(other)
    }
}

impl Access {
    fn strength(&self) -> Strength {
        strength(self.sem, self.element.bytes)
    }
}

/// Of an access to elements of so many bytes.
pub(super) fn strength(sem: Sem, bytes: u8) -> Strength {
    (sem.order != Order::Weak).then_some(Strong { scope: sem.scope, bytes })
}

/// What of an access is made now: these elements, by the lanes that are active.
pub(super) struct Turn {
    elements: Range<u8>,
    /// Whether nothing is left of it.
    pub(super) last: bool,
}

impl Turn {
    /// Where these elements of so many bytes lie in an access at `spot`, and their bytes in all.
    #[inline]
    fn part(&self, spot: Spot, width: u32) -> (Spot, u32) {
        (spot.moved(width * u32::from(self.elements.start)), width * self.elements.len() as u32)
    }
}

/// The bytes of a word, one bit each, that an access of `bytes` at `address` touches.
#[inline(always)]
pub(super) fn byte_bits(address: u64, bytes: u32) -> u8 {
    (((1u32 << bytes.min(4)) - 1) << (address & 3)) as u8
}

/// Instructions for which a warp that looks again stands back.
const LOOK: u64 = 1024;

impl Machine<'_> {
    /// The addresses of all lanes.
    #[inline(always)]
    pub(super) fn addresses(
        run: &mut Running<'_>,
        inst: &Inst,
        slot: usize,
        wide: bool,
        offset: i64,
    ) -> Row64 {
        let regs = run.regs();
        if wide {
            let a = regs.a64(inst, slot);
            a.map(|address| address.wrapping_add_signed(offset))
        } else {
            let a = regs.a(inst, slot);
            a.map(|address| u64::from(address.wrapping_add(offset as u32)))
        }
    }

    /// Finds where an access goes; a finding if that is nowhere.
    #[inline]
    pub(super) fn resolve(
        &mut self,
        place: Place,
        address: u64,
        bytes: u32,
        align: u32,
        run: &Running<'_>,
        lane: usize,
    ) -> Option<Spot> {
        let who = run.who | lane as u32;
        let (place, address) = match place {
            Place::Generic => match window(address) {
                Some(SHARED_WINDOW) => (Place::SharedCluster, address & 0xffff_ffff),
                Some(LOCAL_WINDOW) => (Place::Local, address & 0xffff_ffff),
                Some(PARAM_WINDOW) => (Place::Param, address & 0xffff_ffff),
                _ => (Place::Global, address),
            },
            place => (place, address),
        };
        if address % u64::from(align) != 0 {
            let message = format!("an access of {align} bytes at an address that is no multiple of that");
            self.fault_at(Kind::Misaligned, run.pc, who, message, space(place), address, bytes);
            return None;
        }
        match place {
            Place::Global | Place::Const | Place::Generic => self.resolve_global(address, bytes, run, who),
            Place::Shared => self.resolve_shared(true, address, bytes, run, lane),
            Place::SharedCluster => self.resolve_shared(false, address, bytes, run, lane),
            Place::Local => {
                let end = run.warp.local.len() as u64 * 4;
                // A program that only follows pointers cannot be told which variable it meant: the whole frame counts.
                if address.saturating_add(u64::from(bytes)) > end {
                    let message = format!("an access outside the thread's {end} bytes of local memory");
                    self.fault_at(Kind::OutOfBounds, run.pc, who, message, "local", address, bytes);
                    return None;
                }
                Some(Spot::Local(address as u32))
            }
            Place::Param => {
                if address.saturating_add(u64::from(bytes)) > self.launch.params.len() as u64 {
                    self.fault_at(
                        Kind::OutOfBounds,
                        run.pc,
                        who,
                        "an access outside the parameters",
                        "param",
                        address,
                        bytes,
                    );
                    return None;
                }
                Some(Spot::Param(address as u32))
            }
        }
    }

    #[inline]
    fn resolve_global(&mut self, address: u64, bytes: u32, run: &Running<'_>, who: Who) -> Option<Spot> {
        let hint = self.hints[run.pc as usize] as usize;
        if let Some(allocation) = self.memory.get(hint)
            && allocation.holds(address, u64::from(bytes))
        {
            return Some(Spot::Global(hint, address - allocation.base, address));
        }
        let at = self.memory.partition_point(|allocation| allocation.base <= address).wrapping_sub(1);
        if let Some(allocation) = self.memory.get(at)
            && allocation.holds(address, u64::from(bytes))
        {
            self.hints[run.pc as usize] = at as u32;
            return Some(Spot::Global(at, address - allocation.base, address));
        }
        let (kind, message) = if self.launch.memory.was_freed(address) {
            (Kind::UseAfterFree, "an access to memory that has been freed")
        } else {
            (Kind::OutOfBounds, "an access outside any allocation")
        };
        self.fault_at(kind, run.pc, who, message, "global", address, bytes);
        None
    }

    /// `own`: no other block's memory can be meant.
    #[inline]
    fn resolve_shared(
        &mut self,
        own: bool,
        address: u64,
        bytes: u32,
        run: &Running<'_>,
        lane: usize,
    ) -> Option<Spot> {
        let who = run.who | lane as u32;
        let (rank, offset) = (address >> RANK_SHIFT, address & ((1 << RANK_SHIFT) - 1));
        let block = if rank == 0 {
            run.block
        } else {
            let cluster = &self.clusters[self.blocks[run.block].cluster];
            if rank > u64::from(cluster.count) {
                let message = format!("an access to block {} of a cluster of {}", rank - 1, cluster.count);
                self.fault_at(Kind::OutOfBounds, run.pc, who, message, "shared", address, bytes);
                return None;
            }
            cluster.first + rank as usize - 1
        };
        if own && block != run.block {
            let message =
                "an access to another block's memory, which `shared::cluster` reaches, not `shared`";
            self.fault_at(Kind::OutOfBounds, run.pc, who, message, "shared", address, bytes);
            return None;
        }
        let size = u64::from(self.blocks[block].shared_bytes);
        if offset + u64::from(bytes) > size {
            let message = format!("an access at {offset} of the block's {size} bytes of shared memory");
            self.fault_at(Kind::OutOfBounds, run.pc, who, message, "shared", address, bytes);
            return None;
        }
        if block != run.block && self.blocks[block].live_threads == 0 {
            let message = "an access to the shared memory of a block that has ended";
            self.fault_at(Kind::UseAfterFree, run.pc, who, message, "shared", address, bytes);
            return None;
        }
        self.has_started(block, address, bytes, run, lane).then_some(Spot::Shared(block, offset as u32))
    }

    /// One word, or part of one.
    #[inline]
    fn read_word(&self, spot: Spot, at: u32, run: &Running<'_>, lane: usize) -> u32 {
        match spot {
            Spot::Global(index, offset, _) => self.memory[index].word((offset + u64::from(at)) & !3),
            Spot::Shared(block, offset) => self.blocks[block].shared[((offset + at) / 4) as usize],
            Spot::Local(offset) => run.warp.local[((offset + at) / 4) as usize][lane],
            Spot::Param(offset) => {
                let first = ((offset + at) & !3) as usize;
                let mut word = [0; 4];
                let bytes = &self.launch.params[first..self.launch.params.len().min(first + 4)];
                word[..bytes.len()].copy_from_slice(bytes);
                u32::from_le_bytes(word)
            }
        }
    }

    #[inline]
    fn write_word(&mut self, spot: Spot, at: u32, value: u32, mask: u32, run: &mut Running<'_>, lane: usize) {
        match spot {
            Spot::Global(index, offset, _) => {
                let offset = offset + u64::from(at);
                self.memory[index].set_word(offset & !3, value, mask);
            }
            Spot::Shared(block, offset) => {
                let word = &mut self.blocks[block].shared[((offset + at) / 4) as usize];
                *word = *word & !mask | value & mask;
            }
            Spot::Local(offset) => {
                let word = &mut run.warp.local[((offset + at) / 4) as usize][lane];
                *word = *word & !mask | value & mask;
            }
            Spot::Param(_) => {}
        }
    }

    /// Reads up to eight bytes.
    #[inline]
    pub(super) fn read_element(&self, spot: Spot, at: u32, bytes: u8, run: &Running<'_>, lane: usize) -> u64 {
        let low = u64::from(self.read_word(spot, at, run, lane));
        match bytes {
            4 => low,
            8 => low | u64::from(self.read_word(spot, at + 4, run, lane)) << 32,
            _ => {
                let shift = 8 * ((self.byte_in_word(spot) + at) & 3);
                low >> shift & ((1 << (8 * bytes)) - 1)
            }
        }
    }

    #[inline]
    pub(super) fn write_element(
        &mut self,
        spot: Spot,
        at: u32,
        bytes: u8,
        value: u64,
        run: &mut Running<'_>,
        lane: usize,
    ) {
        match bytes {
            4 => self.write_word(spot, at, value as u32, u32::MAX, run, lane),
            8 => {
                self.write_word(spot, at, value as u32, u32::MAX, run, lane);
                self.write_word(spot, at + 4, (value >> 32) as u32, u32::MAX, run, lane);
            }
            _ => {
                let shift = 8 * ((self.byte_in_word(spot) + at) & 3);
                let mask = ((1u32 << (8 * bytes)) - 1) << shift;
                self.write_word(spot, at, (value as u32) << shift, mask, run, lane);
            }
        }
    }

    #[inline]
    fn byte_in_word(&self, spot: Spot) -> u32 {
        match spot {
            Spot::Global(_, offset, _) => offset as u32,
            Spot::Shared(_, offset) | Spot::Local(offset) | Spot::Param(offset) => offset,
        }
    }

    #[inline(always)]
    pub(super) fn load(&mut self, inst: &Inst, access: Access, run: &mut Running<'_>) -> Flow {
        run.warp.touch(run.active);
        let address = Self::addresses(run, inst, ADDRESS, access.address64, inst.imm);
        if self.load_words(inst, access, &address, run) {
            return Flow::Next;
        }
        let turn = self.turn(access.sem.order, access.lanes, inst.loads_over_its_address(), run);
        self.load_each(inst, access, &address, &turn, run)
    }

    /// A strong access is one for each lane and element, and PTX promises no order of them: on a random schedule some are made, and what others
    /// do comes between them and the rest. Either each of some lanes makes all of its own, or all make one after the other. `over`: a
    /// lane has its address no longer when it has made one.
    pub(super) fn turn(&mut self, order: Order, count: u8, over: bool, run: &mut Running<'_>) -> Turn {
        let Some(random) = self.random.as_mut().filter(|_| order != Order::Weak) else {
            return Turn { elements: 0..count, last: true };
        };
        let active = run.active;
        let made = &mut run.group_mut().made;
        if *made == Made::default() {
            (made.by_lane, made.descending) = (over || random.random(), random.random());
        }
        let left = active & !made.lanes;
        let all = left.is_power_of_two() || random.random();
        let now = if all { left } else { left & random.random::<u32>() };
        let elements = match (made.by_lane, made.descending) {
            (true, _) => 0..count,
            (false, false) => made.elements..made.elements + 1,
            (false, true) => count - 1 - made.elements..count - made.elements,
        };
        made.lanes |= now;
        if now == left {
            (made.lanes, made.elements) = (0, made.elements + elements.len() as u8);
        }
        let last = made.elements == count;
        if last {
            *made = Made::default();
        }
        run.active = now;
        Turn { elements, last }
    }

    /// What is left of an access comes in another turn.
    pub(super) fn turn_again(run: &mut Running<'_>) -> Flow {
        let pc = run.pc;
        run.group_mut().pc = pc;
        run.warp.looks_again = true; // it gets on
        Flow::Yield
    }

    fn load_each(
        &mut self,
        inst: &Inst,
        access: Access,
        address: &Row64,
        turn: &Turn,
        run: &mut Running<'_>,
    ) -> Flow {
        let width = u32::from(access.element.bytes);
        let bytes = width * u32::from(access.lanes);
        let mut before: Option<(u64, usize)> = None;
        for lane in lanes(run.active) {
            // Lanes that read what the lane before read are checked like it, and need no second look.
            let same = before.filter(|(last, _)| *last == address[lane]).map(|(_, lane)| lane);
            let Some(spot) = self.resolve(access.place, address[lane], bytes, bytes, run, lane) else {
                return Flow::Changed;
            };
            if self.launch.checks {
                let (first, now) = turn.part(spot, width);
                self.check_read(first, now, access.strength(), run, lane, same.is_some());
            }
            before = Some((address[lane], lane));
            for n in turn.elements.clone() {
                let at = width * u32::from(n);
                let value = self.read_element(spot, at, access.element.bytes, run, lane);
                set_register(run, inst, usize::from(n), lane, value, access);
                if access.sem.order != Order::Weak {
                    self.observe(spot.moved(at), access.sem, run, lane);
                }
            }
        }
        if !turn.last {
            return Self::turn_again(run);
        }
        if access.sem.order == Order::Weak { Flow::Next } else { self.looked(run) }
    }

    /// After a strong load: a warp that makes it once more while nothing has happened lets others run, who may change that.
    fn looked(&mut self, run: &mut Running<'_>) -> Flow {
        let (pc, (last, events)) = (run.pc, run.warp.looked);
        if events != self.events {
            run.warp.looked = (pc, self.events);
        } else if last == pc {
            run.warp.looks_again = true;
            self.instructions += LOOK; // as if it had gone on looking, so that a launch that only looks ends as soon
            run.group_mut().pc = pc + 1;
            return Flow::Yield;
        }
        Flow::Next
    }

    pub(super) fn store(&mut self, inst: &Inst, access: Access, run: &mut Running<'_>) -> Flow {
        let address = Self::addresses(run, inst, ADDRESS, access.address64, inst.imm);
        let width = u32::from(access.element.bytes);
        let bytes = width * u32::from(access.lanes);
        self.events += 1;
        run.warp.touch(run.active);
        if self.store_words(inst, access, &address, run) {
            return Flow::Next;
        }
        let turn = self.turn(access.sem.order, access.lanes, false, run);
        for lane in lanes(run.active) {
            let Some(spot) = self.resolve(access.place, address[lane], bytes, bytes, run, lane) else {
                return Flow::Changed;
            };
            if !self.may_write(spot, access.place, address[lane], bytes, run, lane) {
                return Flow::Changed;
            }
            let (first, now) = turn.part(spot, width);
            if self.launch.checks {
                self.check_write(first, now, access.strength(), run, lane);
            } else {
                self.mark_written(first, now);
            }
            for n in turn.elements.clone() {
                let at = width * u32::from(n);
                let value = if access.wide {
                    run.regs().a64(inst, usize::from(n))[lane]
                } else {
                    u64::from(run.regs().a(inst, usize::from(n))[lane])
                };
                self.write_element(spot, at, access.element.bytes, value, run, lane);
                if access.sem.order != Order::Weak {
                    self.publish(spot.moved(at), access.sem, run, lane, false);
                } else if let Spot::Global(..) | Spot::Shared(..) = spot {
                    self.unpublish(spot.moved(at));
                }
            }
        }
        if turn.last { Flow::Next } else { Self::turn_again(run) }
    }

    /// Whether the space can be written.
    pub(super) fn may_write(
        &mut self,
        spot: Spot,
        place: Place,
        address: u64,
        bytes: u32,
        run: &Running<'_>,
        lane: usize,
    ) -> bool {
        let read_only = match spot {
            Spot::Global(index, ..) => self.memory[index].constant || place == Place::Const,
            Spot::Param(_) => true,
            _ => false,
        };
        if read_only {
            let who = run.who | lane as u32;
            self.fault_at(
                Kind::ReadOnly,
                run.pc,
                who,
                "a write to read-only memory",
                space(place),
                address,
                bytes,
            );
        }
        !read_only
    }

    /// An access of a lane, now.
    pub(super) fn event(&self, run: &Running<'_>, lane: usize) -> Event {
        Event { who: run.who | lane as u32, time: self.now, pc: run.pc }
    }

    /// The cell of a word that threads share, and the lists that it may refer to.
    pub(super) fn cell(&mut self, word: Spot) -> Option<(&mut Cell, &mut ReaderLists)> {
        match word {
            Spot::Global(index, _, address) => {
                Some(self.shadow.cell(index, self.memory[index].base, address))
            }
            Spot::Shared(block, offset) => Some(self.blocks[block].shadow.cell(offset as usize / 4)),
            Spot::Local(_) | Spot::Param(_) => None,
        }
    }

    /// Who judges an access of a lane.
    #[inline]
    pub(super) fn judge<'v>(&self, run: &'v Running<'_>, lane: usize, strength: Strength) -> Judge<'v> {
        let me = run.warp.view.knower(run.who | lane as u32, lane);
        let neighbours = self.blocks[run.block].neighbours;
        let cluster_blocks = self.cluster_blocks;
        Judge { me, now: self.now, pc: run.pc, strength, cluster_blocks, neighbours }
    }

    /// Judges a read of up to 32 bytes: uninitialised, racing?
    pub(super) fn check_read(
        &mut self,
        spot: Spot,
        bytes: u32,
        strength: Strength,
        run: &Running<'_>,
        lane: usize,
        repeated: bool,
    ) {
        let judge = self.judge(run, lane, strength);
        // Words may be wrong in different ways; of each way the first.
        let mut problems: Vec<Problem> = Vec::new();
        let mut note = |at: u32, race: Option<Event>, unwritten: bool, init: u8| {
            let problem = Problem { at, race, unwritten, init };
            if problem.is_one() && !problems.iter().any(|other| other.is_like(&problem)) {
                problems.push(problem);
            }
        };
        match spot {
            Spot::Global(index, offset, address) => {
                let allocation = &self.memory[index];
                for at in (0..bytes).step_by(4) {
                    let place = address + u64::from(at);
                    let (cell, lists) = self.shadow.cell(index, allocation.base, place);
                    let needed = byte_bits(place, bytes);
                    let race = judge.read_bytes(cell, needed, lists);
                    let init = allocation.init((offset + u64::from(at)) & !3);
                    note(at, race, init & needed != needed && !repeated, 0);
                }
            }
            Spot::Shared(block, offset) => {
                self.visit(block, offset, run, lane);
                let own = block == run.block;
                let shadow = &mut self.blocks[block].shadow;
                for at in (0..bytes).step_by(4) {
                    let place = offset + at;
                    let word = place as usize / 4;
                    let needed = byte_bits(u64::from(place), bytes);
                    let (cell, race) = if own && strength.is_none() && needed == WHOLE {
                        let known = judge.me.block_floor.max(judge.me.warp_floor);
                        let mark = Mark { time: judge.now, lanes: 1 << lane, pc: judge.pc };
                        shadow.mark(word, Read { warp: run.warp.index as usize, mark, known });
                        let (cell, lists) = shadow.get(word);
                        (cell, judge.unordered_write_of(&cell, WHOLE, lists))
                    } else {
                        let (cell, lists) = shadow.cell(word);
                        let race = judge.read_bytes(cell, needed, lists);
                        (*cell, race)
                    };
                    note(at, race, cell.init & needed != needed && !cell.is_pending(), cell.init);
                }
            }
            Spot::Local(offset) => {
                for at in (0..bytes).step_by(4) {
                    let place = offset + at;
                    let needed = byte_bits(u64::from(place), bytes);
                    let init = run.warp.local_init[(place / 4) as usize][lane];
                    note(at, None, init & needed != needed, 0);
                }
            }
            Spot::Param(_) => {}
        }
        for problem in problems {
            self.complain(spot, bytes, problem, run, lane);
        }
    }

    /// Judges 16 bytes of shared memory that a product reads. That they are read is recorded once the product has been waited for.
    pub(super) fn check_operand(&mut self, block: usize, offset: u32, run: &Running<'_>) {
        let judge = self.judge(run, 0, None);
        let spot = Spot::Shared(block, offset);
        for at in (0..16).step_by(4) {
            let (cell, lists) = self.blocks[block].shadow.get((offset + at) as usize / 4);
            let race = judge.unordered_write_of(&cell, WHOLE, lists);
            let unwritten = cell.init & WHOLE != WHOLE && !cell.is_pending();
            let problem = Problem { at, race, unwritten, init: cell.init };
            if problem.is_one() {
                return self.complain(spot, 16, problem, run, 0);
            }
        }
    }

    #[cold]
    fn complain(&mut self, spot: Spot, bytes: u32, problem: Problem, run: &Running<'_>, lane: usize) {
        let Problem { at, race, unwritten, init } = problem;
        let who = run.who | lane as u32;
        let (space, address) = self.spot_name(spot, at, run);
        let bytes = bytes.min(4);
        if init & MBAR != 0 {
            let message = "an ordinary access to an mbarrier";
            return self.fault_at(Kind::Mbarrier, run.pc, who, message, space, address, bytes);
        }
        if let Some(first) = race {
            self.race(self.event(run, lane), first, space, address, bytes);
        } else if unwritten {
            let message = format!("a read of {space} memory that nobody has written");
            self.fault_at(Kind::Uninitialised, run.pc, who, message, space, address, bytes);
        }
    }

    /// A spot's space and address, for findings.
    pub(super) fn spot_name(&self, spot: Spot, at: u32, run: &Running<'_>) -> (&'static str, u64) {
        match spot {
            Spot::Global(_, _, address) => ("global", address + u64::from(at)),
            Spot::Shared(block, offset) if block == run.block => ("shared", u64::from(offset + at)),
            Spot::Shared(block, offset) => {
                let rank = u64::from(self.blocks[block].rank) + 1;
                ("shared", rank << RANK_SHIFT | u64::from(offset + at))
            }
            Spot::Local(offset) => ("local", u64::from(offset + at)),
            Spot::Param(offset) => ("param", u64::from(offset + at)),
        }
    }

    /// Judges a write of up to 32 bytes, and marks it as written.
    pub(super) fn check_write(
        &mut self,
        spot: Spot,
        bytes: u32,
        strength: Strength,
        run: &mut Running<'_>,
        lane: usize,
    ) {
        let mut found: Option<(u32, Option<Event>, u8)> = None;
        let mut reading: Option<u32> = None;
        let judge = self.judge(run, lane, strength);
        let mut write =
            |cell: &mut Cell, lists: &mut ReaderLists, at: u32, bits: u8, reader: Option<Event>| {
                let race = judge.write_bytes(cell, bits, lists).or(reader);
                if (race.is_some() || cell.init & MBAR != 0) && found.is_none() {
                    found = Some((at, race, cell.init));
                }
                if cell.init & READING != 0 {
                    reading.get_or_insert(at);
                }
            };
        match spot {
            Spot::Global(index, _, address) => {
                for at in (0..bytes).step_by(4) {
                    let (cell, lists) =
                        self.shadow.cell(index, self.memory[index].base, address + u64::from(at));
                    write(cell, lists, at, byte_bits(address + u64::from(at), bytes), None);
                }
            }
            Spot::Shared(block, offset) => {
                self.visit(block, offset, run, lane);
                let block = &mut self.blocks[block];
                for at in (0..bytes).step_by(4) {
                    let word = ((offset + at) / 4) as usize;
                    let reader = block.unknown_reader(word, &judge.me);
                    let bits = byte_bits(u64::from(offset + at), bytes);
                    let (cell, lists) = block.shadow.cell(word);
                    write(cell, lists, at, bits, reader);
                }
            }
            Spot::Local(offset) => {
                for at in (0..bytes).step_by(4) {
                    let init = byte_bits(u64::from(offset + at), bytes);
                    run.warp.local_init[((offset + at) / 4) as usize][lane] |= init;
                }
            }
            Spot::Param(_) => {}
        }
        if let Some((at, race, init)) = found {
            self.complain(spot, bytes, Problem { at, race, unwritten: false, init }, run, lane);
        }
        if let Some(first) = reading {
            self.check_sources(spot, first, bytes, run, lane);
        }
        self.mark_written(spot, bytes);
    }

    /// Marks bytes as written.
    pub(super) fn mark_written(&mut self, spot: Spot, bytes: u32) {
        match spot {
            Spot::Global(index, offset, _) => {
                for at in (0..bytes).step_by(4) {
                    let place = offset + u64::from(at);
                    self.memory[index].set_init(place & !3, byte_bits(place, bytes));
                }
            }
            Spot::Shared(block, offset) => {
                for at in (0..bytes).step_by(4) {
                    let place = offset + at;
                    let (cell, _) = self.blocks[block].shadow.cell(place as usize / 4);
                    cell.init |= byte_bits(u64::from(place), bytes);
                }
            }
            _ => {}
        }
    }

    /// `ld.param`, and instructions that compute with addresses.
    pub(super) fn address_instruction(&mut self, inst: &Inst, run: &mut Running<'_>) -> Flow {
        let d = inst.r[0];
        match inst.op {
            Op::LoadParam { element, wide, half } => {
                let bytes = usize::from(element.bytes);
                let at = inst.imm as usize;
                let Some(found) = self.launch.params.get(at..at + bytes) else {
                    self.fault_at(
                        Kind::OutOfBounds,
                        run.pc,
                        run.first(),
                        "an access outside the parameters",
                        "param",
                        at as u64,
                        bytes as u32,
                    );
                    return Flow::Changed;
                };
                let mut value = [0; 8];
                value[..bytes].copy_from_slice(found);
                let value = extended(u64::from_le_bytes(value), element, wide, half);
                match wide {
                    true => run.regs().write64(d, |_| value),
                    false => run.regs().write(d, |_| value as u32),
                }
            }
            Op::Cvta { place, to, wide: true } => {
                let base = window_of(place);
                let a = run.regs().a64(inst, 1);
                match to {
                    // From generic to the space: 32 bits are left of a window.
                    true => run.regs().write64(d, |l| if base == 0 { a[l] } else { a[l].wrapping_sub(base) }),
                    false => {
                        run.regs().write64(d, |l| if base == 0 { a[l] } else { a[l] & 0xffff_ffff | base })
                    }
                }
            }
            Op::Cvta { .. } => {
                self.fault(Kind::Misuse, run.pc, run.first(), "a generic address of 32 bits");
                return Flow::Changed;
            }
            Op::IsSpace { place, wide } => {
                let a = if wide { run.regs().a64(inst, 1) } else { run.regs().a(inst, 1).map(u64::from) };
                let base = window_of(place);
                let own = |address: u64| (address & 0xffff_ffff) >> RANK_SHIFT == 0;
                let found = super::regs::bits(|l| match place {
                    Place::Global => window(a[l]).is_none(),
                    Place::Const => false,
                    Place::Shared => window(a[l]) == Some(base) && own(a[l]),
                    _ => window(a[l]) == Some(base),
                });
                run.regs().write_pred(d, found);
            }
            Op::Mapa { wide, generic } => {
                let rank = run.regs().a(inst, 2);
                let map = |address: u64, lane: usize| {
                    let offset = address & ((1 << RANK_SHIFT) - 1);
                    (u64::from(rank[lane]) + 1) << RANK_SHIFT
                        | offset
                        | if generic { SHARED_WINDOW } else { 0 }
                };
                let count = self.clusters[self.blocks[run.block].cluster].count;
                if let Some(lane) = lanes(run.active).find(|lane| rank[*lane] >= count) {
                    let message = format!("block {} of a cluster of {count}", rank[lane]);
                    self.fault(Kind::Misuse, run.pc, run.who | lane as u32, message);
                    return Flow::Changed;
                }
                if wide {
                    let a = run.regs().a64(inst, 1);
                    run.regs().write64(d, |l| map(a[l], l));
                } else {
                    let a = run.regs().a(inst, 1);
                    run.regs().write(d, |l| map(u64::from(a[l]), l) as u32);
                }
            }
            Op::CtaRank { wide, .. } => {
                let own = self.blocks[run.block].rank;
                let a = if wide { run.regs().a64(inst, 1) } else { run.regs().a(inst, 1).map(u64::from) };
                run.regs().write(d, |l| match (a[l] & 0xffff_ffff) >> RANK_SHIFT {
                    0 => own,
                    rank => rank as u32 - 1,
                });
            }
            _ => {}
        }
        Flow::Next
    }
}

fn window_of(place: Place) -> u64 {
    match place {
        Place::Shared | Place::SharedCluster => SHARED_WINDOW,
        Place::Local => LOCAL_WINDOW,
        Place::Param => PARAM_WINDOW,
        _ => 0,
    }
}

pub(super) fn space(place: Place) -> &'static str {
    match place {
        Place::Generic | Place::Global => "global",
        Place::Const => "const",
        Place::Shared | Place::SharedCluster => "shared",
        Place::Local => "local",
        Place::Param => "param",
    }
}

/// A loaded value as the register takes it.
#[inline(always)]
pub(super) fn extended(value: u64, element: Element, wide: bool, half: bool) -> u64 {
    let unused = 64 - 8 * u32::from(element.bytes);
    let value = if element.signed { ((value << unused) as i64 >> unused) as u64 } else { value };
    match (wide, half) {
        (true, _) => value,
        (false, true) => value & 0xffff,
        (false, false) => value & 0xffff_ffff,
    }
}

#[inline(always)]
pub(super) fn set_register(
    run: &mut Running<'_>,
    inst: &Inst,
    slot: usize,
    lane: usize,
    value: u64,
    access: Access,
) {
    let value = extended(value, access.element, access.wide, access.half);
    if access.wide {
        run.warp.r64[run.base.r64 as usize + usize::from(inst.r[slot])][lane] = value;
    } else {
        run.warp.r32[run.base.r32 as usize + usize::from(inst.r[slot])][lane] = value as u32;
    }
}
