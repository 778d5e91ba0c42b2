//! Runs a warp: picks a group of lanes, executes its instructions, splits it where lanes diverge and joins groups that meet.
//!
//! Each group has a program counter of its own (independent thread scheduling). On the fixed schedule the group that is
//! furthest behind runs, which makes lanes meet again after a branch as structured code expects; a group that runs for long
//! gives way, so that lanes which wait for each other get on.

use std::sync::LazyLock;

use rand::RngExt;

use crate::check::view::Who;
use crate::finding::Kind;
use crate::isa::{CODE_BASE, CODE_STEP, Inst, Op, Special};

use super::Machine;
use super::regs::{LANES, Regs, lanes};
use super::state::{Base, Frame, Group, Made, Wait, Warp};

/// The vector instructions of this machine, asked for once.
static ARCH: LazyLock<pulp::Arch> = LazyLock::new(pulp::Arch::new);

/// Deepest nesting of calls.
const DEEPEST: usize = 1024;
/// Local memory of a thread, in bytes.
const LOCAL_BYTES: u32 = 512 << 10;

/// What an instruction did to the group that executed it.
pub(super) enum Flow {
    /// On to the next instruction.
    Next,
    /// The group's own state has been changed: program counter, mask or wait.
    Changed,
    /// As [`Flow::Changed`], and other warps should run now.
    Yield,
}

/// The group that runs, with the warp around it.
pub(super) struct Running<'w> {
    pub(super) warp: &'w mut Warp,
    /// Index of the block among those that run together.
    pub(super) block: usize,
    /// Index of the group.
    pub(super) group: usize,
    pub(super) pc: u32,
    pub(super) base: Base,
    /// Lanes of the group for which the guard holds.
    pub(super) active: u32,
    /// Thread of lane 0.
    pub(super) who: Who,
}

impl Running<'_> {
    #[inline(always)]
    pub(super) fn regs(&mut self) -> Regs<'_> {
        Regs {
            pred: &mut self.warp.pred[self.base.pred as usize..],
            r32: &mut self.warp.r32[self.base.r32 as usize..],
            r64: &mut self.warp.r64[self.base.r64 as usize..],
            active: self.active,
        }
    }

    pub(super) fn group_mut(&mut self) -> &mut Group {
        &mut self.warp.groups[self.group]
    }

    /// The first active lane's thread.
    pub(super) fn first(&self) -> Who {
        self.who | self.active.trailing_zeros().min(31)
    }
}

/// The arguments of [`Machine::run_group_here`], which is inlined into a function for each vector extension.
struct RunGroup<'m, 'a, 'w> {
    machine: &'m mut Machine<'a>,
    warp: &'w mut Warp,
    block: usize,
    index: usize,
    end: u64,
}

impl pulp::WithSimd for RunGroup<'_, '_, '_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> bool {
        self.machine.run_group_here(self.warp, self.block, self.index, self.end)
    }
}

/// Of so many turns of a warp's groups, the one that is not for the group furthest behind.
const OTHERS: u32 = 8;

impl Machine<'_> {
    /// Runs one warp for at most `slice` instructions.
    pub(super) fn run_warp(&mut self, block: usize, index: usize, slice: u32) {
        let mut warp = std::mem::replace(&mut self.blocks[block].warps[index], Warp::absent());
        let (events, start) = (self.events, self.instructions);
        let end = start + u64::from(slice);
        let mut yielded = false;
        while self.instructions < end && !self.stopped && !yielded {
            let Some(group) = self.pick(&mut warp) else { break };
            yielded = self.run_group(&mut warp, block, group, end);
        }
        // Who looks again may count how often, and give up: that is no deadlock.
        let again = std::mem::take(&mut warp.looks_again);
        let idle = yielded && !again && events == self.events && self.instructions - start < 64;
        warp.polls = if idle { warp.polls + 1 } else { 0 };
        if !self.stopped && !warp.is_ready() && warp.live != 0 {
            self.check_stuck(&warp, block);
        }
        self.blocks[block].warps[index] = warp;
    }

    /// The group to run next: the one furthest behind, or any. Every so often another in turn, so that groups that wait for it in
    /// loops get on.
    fn pick(&mut self, warp: &mut Warp) -> Option<usize> {
        let ready = |group: &&(usize, &Group)| matches!(group.1.wait, Wait::Nothing | Wait::Released { .. });
        let mut groups: Vec<_> = Vec::new();
        if warp.groups.len() == 1 {
            return matches!(warp.groups[0].wait, Wait::Nothing | Wait::Released { .. }).then_some(0);
        }
        warp.turns = warp.turns.wrapping_add(1);
        let turns = warp.turns;
        groups.extend(warp.groups.iter().enumerate().filter(|group| ready(&group)));
        match self.random.as_mut() {
            Some(random) if !groups.is_empty() => Some(groups[random.random_range(0..groups.len())].0),
            None if !groups.is_empty() && turns.is_multiple_of(OTHERS) => {
                Some(groups[(turns / OTHERS) as usize % groups.len()].0)
            }
            _ => groups.iter().min_by_key(|group| (group.1.pc, group.0)).map(|group| group.0),
        }
    }

    /// Runs a group until it waits, ends, meets another, or has run long enough; whether other warps should run.
    fn run_group(&mut self, warp: &mut Warp, block: usize, index: usize, end: u64) -> bool {
        // Compiled for each of the processor's vector extensions: the loops over lanes are most of what is done here.
        ARCH.dispatch(RunGroup { machine: self, warp, block, index, end })
    }

    #[inline(always)]
    fn run_group_here(&mut self, warp: &mut Warp, block: usize, index: usize, end: u64) -> bool {
        let code = &self.launch.program.code;
        let who = self.blocks[block].number << 10 | warp.index << 5;
        let (base, mut pc, mask) = (warp.groups[index].base, warp.groups[index].pc, warp.groups[index].mask);
        if let Wait::Released { value } = warp.groups[index].wait {
            warp.groups[index].wait = Wait::Nothing;
            let mut run = Running { warp, block, group: index, pc, base, active: mask, who };
            self.finish_barrier(&code[pc as usize], &mut run, value);
            pc += 1;
        }
        // Where another group stands: that is where this one stops to see whether they can join.
        let meet = warp
            .groups
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != index)
            .map(|(_, g)| g.pc)
            .filter(|at| *at >= pc)
            .min();
        let meet = meet.unwrap_or(u32::MAX);
        let end = if warp.groups.len() > 1 { end.min(self.instructions + 512) } else { end };
        while self.instructions < end {
            if pc == meet && self.join(warp, index, pc) {
                return false;
            }
            let inst = &code[pc as usize];
            self.instructions += 1;
            let mut active = mask;
            if let Some((reg, negated)) = inst.guard {
                let bits = warp.pred[(base.pred + u32::from(reg)) as usize];
                active &= if negated { !bits } else { bits };
                if active == 0 {
                    pc += 1;
                    continue;
                }
            }
            if active == mask && meet == u32::MAX && matches!(inst.op, Op::Branch) {
                pc = inst.imm as u32;
                continue;
            }
            let mut run = Running { warp: &mut *warp, block, group: index, pc, base, active, who };
            if run.warp.products.is_some() && !self.watch_registers(inst, &mut run) {
                return false;
            }
            match self.execute(inst, &mut run, mask) {
                Flow::Next => pc += 1,
                Flow::Changed => return false,
                Flow::Yield => return true,
            }
            if self.stopped {
                break;
            }
            if pc > meet {
                break;
            }
        }
        warp.groups[index].pc = pc;
        false
    }

    /// Joins the groups at one place with equal call stacks; whether there were any.
    fn join(&mut self, warp: &mut Warp, index: usize, pc: u32) -> bool {
        warp.groups[index].pc = pc;
        // What one has made of an access the other has not.
        if warp.groups[index].made != Made::default() {
            return false;
        }
        let other = warp.groups.iter().enumerate().position(|(n, group)| {
            n != index
                && group.pc == pc
                && matches!(group.wait, Wait::Nothing | Wait::Lanes { .. })
                && group.made == Made::default()
                && group.stack == warp.groups[index].stack
        });
        let Some(other) = other else { return false };
        let mask = warp.groups[other].mask;
        warp.groups[index].mask |= mask;
        warp.groups[index].wait = Wait::Nothing;
        warp.groups.swap_remove(other);
        true
    }

    /// One match decides which family an instruction belongs to; the frequent ones come without a call.
    #[inline(always)]
    fn execute(&mut self, inst: &Inst, run: &mut Running<'_>, mask: u32) -> Flow {
        match inst.op {
            Op::F32Fma(_) | Op::F32(..) => {
                super::float::execute(inst, &mut run.regs());
                Flow::Next
            }
            Op::Int2(..) | Op::Int3(..) | Op::MulWide(_) | Op::MadWide(_) => {
                super::integer::execute(inst, &mut run.regs());
                Flow::Next
            }
            Op::Mov32 | Op::Mov64 | Op::Setp { .. } | Op::Select32 | Op::Select64 => {
                super::plain::execute(inst, &mut run.regs());
                Flow::Next
            }
            Op::Load(access) => self.load(inst, access, run),
            Op::Store(access) => self.store(inst, access, run),
            Op::Branch => branch(inst, run, mask),
            _ => self.execute_rare(inst, run, mask),
        }
    }

    fn execute_rare(&mut self, inst: &Inst, run: &mut Running<'_>, mask: u32) -> Flow {
        {
            let regs = &mut run.regs();
            if super::integer::execute(inst, regs)
                || super::float::execute(inst, regs)
                || super::plain::execute(inst, regs)
                || super::convert::execute(inst, regs)
            {
                return Flow::Next;
            }
        }
        match inst.op {
            Op::Nop | Op::Hint => Flow::Next,
            Op::NanoSleep => {
                let pc = run.pc;
                run.group_mut().pc = pc + 1;
                Flow::Yield
            }
            Op::ReadSpecial(special, wide) => self.special(special, wide, inst, run),
            Op::LocalAddress { wide } => {
                let at = (i64::from(run.base.local) + inst.imm) as u64;
                match wide {
                    true => run.regs().write64(inst.r[0], |_| at),
                    false => run.regs().write(inst.r[0], |_| at as u32),
                }
                Flow::Next
            }
            Op::BranchTable => self.branch_table(inst, run, mask),
            Op::Call => self.call(inst, run, mask, None),
            Op::CallIndirect => self.call_indirect(inst, run, mask),
            Op::Ret => self.ret(run, mask),
            Op::Exit => self.exit(run, mask),
            Op::Trap => {
                self.fault(Kind::Trap, run.pc, run.first(), "the kernel trapped");
                Flow::Changed
            }
            Op::Print => self.print(inst, run),
            Op::Assert => self.assert(inst, run),
            _ => self.execute_memory(inst, run),
        }
    }

    fn execute_memory(&mut self, inst: &Inst, run: &mut Running<'_>) -> Flow {
        if !matches!(inst.op, Op::LoadParam { .. } | Op::Bar(_) | Op::WarpSync) {
            run.warp.touch(run.active);
        }
        match inst.op {
            Op::LoadParam { .. }
            | Op::Cvta { .. }
            | Op::IsSpace { .. }
            | Op::Mapa { .. }
            | Op::CtaRank { .. } => self.address_instruction(inst, run),
            Op::Atom(atom) => self.atomic(inst, atom, run),
            Op::Fence(sem) => {
                self.fence(sem, run);
                Flow::Next
            }
            Op::FenceMbarInit => {
                self.fence_inits(run);
                Flow::Next
            }
            Op::FenceProxy { shared, global } => {
                self.fence_proxy(shared, global, run);
                Flow::Next
            }
            Op::Bar(_) | Op::WarpSync | Op::ClusterArrive { .. } | Op::ClusterWait { .. } => {
                self.barrier(inst, run)
            }
            Op::Shfl { .. }
            | Op::Vote { .. }
            | Op::MatchAny { .. }
            | Op::MatchAll { .. }
            | Op::Redux(_)
            | Op::ActiveMask
            | Op::Elect => self.exchange(inst, run),
            Op::LdMatrix { .. }
            | Op::StMatrix { .. }
            | Op::MovMatrix
            | Op::Mma(_)
            | Op::Wgmma
            | Op::WgmmaFence
            | Op::WgmmaCommit
            | Op::WgmmaWait => self.tensor(inst, run),
            Op::Mbar(op, sem) => self.mbarrier(inst, op, sem, run),
            _ => self.asynchronous(inst, run),
        }
    }

    fn special(&mut self, special: Special, wide: bool, inst: &Inst, run: &mut Running<'_>) -> Flow {
        let launch = self.launch;
        let block = &self.blocks[run.block];
        let cluster = &self.clusters[block.cluster];
        let dims = launch.block;
        let first = run.warp.index * 32;
        let function = launch.function();
        // Blocks that do not communicate may be another worker's: their time is their own.
        let clock = if function.communicates { self.instructions } else { self.spent() };
        let value = |lane: usize| -> u64 {
            let thread = first + lane as u32;
            let (clusters, rank) = (launch.clusters(), block.rank);
            u64::from(match special {
                Special::Tid(0) => thread % dims[0],
                Special::Tid(1) => thread / dims[0] % dims[1],
                Special::Tid(_) => thread / (dims[0] * dims[1]),
                Special::Ntid(axis) => dims[usize::from(axis)],
                Special::Ctaid(axis) => block.id[usize::from(axis)],
                Special::Nctaid(axis) => launch.grid[usize::from(axis)],
                Special::ClusterId(axis) => cluster.id[usize::from(axis)],
                Special::NclusterId(axis) => clusters[usize::from(axis)],
                Special::ClusterCtaid(axis) => {
                    block.id[usize::from(axis)] % launch.cluster[usize::from(axis)]
                }
                Special::ClusterNctaid(axis) => launch.cluster[usize::from(axis)],
                Special::ClusterCtarank => rank,
                Special::ClusterNctarank => cluster.count,
                Special::IsExplicitCluster => u32::from(launch.explicit_cluster),
                Special::Lane => lane as u32,
                Special::Warp => first / 32,
                Special::Nwarp => block.warps.len() as u32,
                Special::Sm => block.number % 132,
                Special::Nsm => 132,
                Special::Grid => launch.number as u32,
                Special::LaneMask(cmp) => lane_mask(cmp, lane as u32),
                Special::DynamicShared => launch.dynamic_shared,
                Special::DynamicBase => function.shared_bytes.next_multiple_of(16),
                Special::TotalShared => block.shared_bytes,
                Special::EnvReg(1) => (launch.workspace >> 32) as u32,
                Special::EnvReg(_) => launch.workspace as u32,
                Special::WarpSize => 32,
                Special::Clock | Special::GlobalTimerLow => clock as u32,
                Special::Clock64 | Special::GlobalTimer => return clock,
            })
        };
        let by_lane = matches!(special, Special::Tid(_) | Special::Lane | Special::LaneMask(_));
        let same = value(0);
        match (wide, by_lane) {
            (true, true) => run.regs().write64(inst.r[0], value),
            (true, false) => run.regs().write64(inst.r[0], |_| same),
            (false, true) => run.regs().write(inst.r[0], |lane| value(lane) as u32),
            (false, false) => run.regs().write(inst.r[0], |_| same as u32),
        }
        Flow::Next
    }

    fn branch_table(&mut self, inst: &Inst, run: &mut Running<'_>, mask: u32) -> Flow {
        let table = &self.launch.program.tables[inst.imm as usize];
        let index = run.regs().a(inst, 0);
        let outside = lanes(run.active).find(|lane| index[*lane] as usize >= table.len());
        if let Some(lane) = outside {
            let message = format!("index {} of a table of {}", index[lane], table.len());
            self.fault(Kind::Misuse, run.pc, run.who | lane as u32, message);
            return Flow::Changed;
        }
        split_rest(run, mask);
        let mut left = run.active;
        let mut first = true;
        while left != 0 {
            let target = table[index[left.trailing_zeros() as usize] as usize];
            let same = lanes(left)
                .filter(|lane| table[index[*lane] as usize] == target)
                .fold(0, |m, lane| m | 1 << lane);
            go(run, same, target, first);
            first = false;
            left &= !same;
        }
        Flow::Changed
    }

    fn call_indirect(&mut self, inst: &Inst, run: &mut Running<'_>, mask: u32) -> Flow {
        let target = run.regs().a64(inst, 0);
        let functions = &self.launch.program.functions;
        let number = |address: u64| {
            let at = address.checked_sub(CODE_BASE)?;
            let valid = at % CODE_STEP == 0 && at / CODE_STEP < functions.len() as u64;
            valid.then_some((at / CODE_STEP) as usize)
        };
        let leader = run.active.trailing_zeros() as usize;
        let Some(function) = number(target[leader]) else {
            let message = format!("a call of {:#x}, which is no function", target[leader]);
            self.fault(Kind::Misuse, run.pc, run.first(), message);
            return Flow::Changed;
        };
        // Lanes that call another function stay behind and call it next.
        run.active =
            lanes(run.active).filter(|lane| target[*lane] == target[leader]).fold(0, |m, lane| m | 1 << lane);
        let others = mask & !run.active;
        if others != 0 {
            let stay = Group { mask: others, pc: run.pc, ..run.warp.groups[run.group].clone() };
            run.warp.groups.push(stay);
            run.group_mut().mask = run.active;
        }
        let active = run.active;
        self.call(inst, run, active, Some(function))
    }

    fn call(&mut self, inst: &Inst, run: &mut Running<'_>, mask: u32, function: Option<usize>) -> Flow {
        split_rest(run, mask);
        let program = self.launch.program;
        let site = &program.calls[inst.imm as usize];
        let (Some(number), base) = (function.or(site.function), run.base) else { return Flow::Changed };
        let callee = &program.functions[number];
        let caller = &program.functions[run.warp.groups[run.group].function as usize];
        let next = Base {
            pred: base.pred + caller.registers.pred,
            r32: base.r32 + caller.registers.r32,
            r64: base.r64 + caller.registers.r64,
            local: base.local + caller.local_bytes,
        };
        if run.warp.groups[run.group].stack.len() >= DEEPEST || next.local + callee.local_bytes > LOCAL_BYTES
        {
            self.fault(Kind::Misuse, run.pc, run.first(), "the call stack is full: endless recursion?");
            return Flow::Changed;
        }
        run.warp.enter(callee, next, run.active);
        if site.arguments.len() != callee.argument_words.len() {
            self.fault(
                Kind::Misuse,
                run.pc,
                run.first(),
                "a call with other parameters than the function has",
            );
            return Flow::Changed;
        }
        for (from, to) in site.arguments.iter().zip(&callee.argument_words) {
            let row = run.warp.r32[(base.r32 + u32::from(*from)) as usize];
            let target = &mut run.warp.r32[(next.r32 + u32::from(*to)) as usize];
            lanes(run.active).for_each(|lane| target[lane] = row[lane]);
        }
        // A frame's local memory is new each time.
        for word in next.local / 4..(next.local + callee.local_bytes) / 4 {
            lanes(run.active).for_each(|lane| run.warp.local_init[word as usize][lane] = 0);
        }
        let (pc, start) = (run.pc, callee.start);
        let group = run.group_mut();
        let frame = Frame { return_pc: pc + 1, site: inst.imm as u32, function: group.function, base };
        group.stack.push(frame);
        group.function = number as u32;
        group.base = next;
        group.pc = start;
        Flow::Changed
    }

    fn ret(&mut self, run: &mut Running<'_>, mask: u32) -> Flow {
        split_rest(run, mask);
        let program = self.launch.program;
        let callee = &program.functions[run.warp.groups[run.group].function as usize];
        let from = run.base;
        let Some(frame) = run.group_mut().stack.pop() else { return self.exit(run, run.active) };
        let site = &program.calls[frame.site as usize];
        for (word, to) in callee.result_words.iter().zip(&site.results) {
            let row = run.warp.r32[(from.r32 + u32::from(*word)) as usize];
            let target = &mut run.warp.r32[(frame.base.r32 + u32::from(*to)) as usize];
            lanes(run.active).for_each(|lane| target[lane] = row[lane]);
        }
        let group = run.group_mut();
        group.function = frame.function;
        group.base = frame.base;
        group.pc = frame.return_pc;
        Flow::Changed
    }

    fn exit(&mut self, run: &mut Running<'_>, mask: u32) -> Flow {
        let gone = run.active;
        run.warp.live &= !gone;
        if mask == gone {
            run.warp.groups.remove(run.group);
        } else {
            let pc = run.pc;
            let group = run.group_mut();
            group.mask = mask & !gone;
            group.pc = pc + 1;
        }
        self.threads_left(run, gone);
        Flow::Changed
    }

    /// A warp none of whose groups can run: the lanes that wait for each other within it, wait in vain?
    fn check_stuck(&mut self, warp: &Warp, block: usize) {
        let who = self.blocks[block].number << 10 | warp.index << 5;
        let outside = |wait: Wait| matches!(wait, Wait::Barrier { .. });
        let stuck =
            warp.groups.iter().find(|group| matches!(group.wait, Wait::Lanes { .. } | Wait::WarpSync { .. }));
        let Some(group) = stuck else { return };
        // Lanes that wait at a barrier of the block may yet come.
        if warp.groups.iter().any(|group| outside(group.wait))
            && !matches!(self.launch.program.code[group.pc as usize].op, Op::Bar(_))
        {
            return;
        }
        let missing = match group.wait {
            Wait::Lanes { needed } => needed & !group.mask,
            Wait::WarpSync { mask } => mask & !group.mask,
            _ => 0,
        };
        let elsewhere =
            warp.groups.iter().find(|other| other.mask & missing != 0).map(|other| self.line(other.pc));
        let elsewhere =
            elsewhere.map_or_else(|| "have exited".to_string(), |line| format!("are at PTX line {line}"));
        let kind = match self.launch.program.code[group.pc as usize].op {
            Op::Bar(_) | Op::WarpSync | Op::ClusterArrive { .. } | Op::ClusterWait { .. } => Kind::Barrier,
            _ => Kind::Misuse,
        };
        let message = format!("lanes {:#010x} execute it, lanes {missing:#010x} {elsewhere}", group.mask);
        self.fault(kind, group.pc, who | group.mask.trailing_zeros().min(31), message);
    }
}

fn lane_mask(cmp: crate::isa::Cmp, lane: u32) -> u32 {
    use crate::isa::Cmp;
    let below = (1u32 << lane) - 1;
    match cmp {
        Cmp::Eq => 1 << lane,
        Cmp::Lt => below,
        Cmp::Le => below | 1 << lane,
        Cmp::Gt => !(below | 1 << lane),
        _ => !below,
    }
}

#[inline(always)]
fn branch(inst: &Inst, run: &mut Running<'_>, mask: u32) -> Flow {
    let target = inst.imm as u32;
    split_rest(run, mask);
    run.group_mut().pc = target;
    Flow::Changed
}

/// Lanes of the group that do not execute an instruction go on behind it, as a group of their own.
pub(super) fn split_rest(run: &mut Running<'_>, mask: u32) {
    let rest = mask & !run.active;
    if rest == 0 {
        return;
    }
    let behind = Group { mask: rest, pc: run.pc + 1, ..run.warp.groups[run.group].clone() };
    run.warp.groups.push(behind);
    let active = run.active;
    run.group_mut().mask = active;
}

/// Sends lanes of the group to an instruction: the group itself for the first, a new one for others.
fn go(run: &mut Running<'_>, lanes: u32, target: u32, first: bool) {
    if first {
        let group = run.group_mut();
        group.mask = lanes;
        group.pc = target;
    } else {
        let other = Group { mask: lanes, pc: target, ..run.warp.groups[run.group].clone() };
        run.warp.groups.push(other);
    }
}

const _: () = assert!(LANES == 32);
