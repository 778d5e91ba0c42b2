//! Fewer registers: PTX names a new one for almost every value, and a warp's registers should fit the host's cache.
//!
//! Linear scan over live ranges (Poletto and Sarkar, "Linear Scan Register Allocation", 1999): a range reaches from the
//! first to the last instruction that mentions a register, and is stretched over a loop (a branch backwards) that it
//! enters live. That is exact enough here, as nothing is ever spilled. Which lanes execute an instruction does not matter:
//! each lane sees its own instructions in an order that the ranges cover.

use std::collections::BTreeSet;

use super::{Function, Inst, Op, Program, Reg, RegClass, Registers};

#[derive(Clone, Copy)]
struct Range {
    first: u32,
    last: u32,
    /// Written, whatever it held before, at `first`.
    defined: bool,
}

const UNUSED: Range = Range { first: u32::MAX, last: 0, defined: false };

/// Renames the registers of `function`, whose instructions are the last of the program, from `start`.
pub(super) fn allocate(program: &mut Program, function: &mut Function, start: usize) {
    for class in [RegClass::Pred, RegClass::R32, RegClass::R64] {
        let count = count_of(&mut function.registers, class);
        let mut ranges = vec![UNUSED; *count as usize];
        mention_all(program, function, start, class, &mut ranges);
        stretch(program, start, &mut ranges);
        let (names, used) = scan(&ranges);
        *count_of(&mut function.registers, class) = used;
        rename_all(program, function, start, class, &names);
    }
}

fn count_of(registers: &mut Registers, class: RegClass) -> &mut u32 {
    match class {
        RegClass::Pred => &mut registers.pred,
        RegClass::R32 => &mut registers.r32,
        RegClass::R64 => &mut registers.r64,
    }
}

fn mention(ranges: &mut [Range], reg: Reg, at: u32, defines: bool) {
    let range = &mut ranges[usize::from(reg)];
    if range.first == u32::MAX {
        *range = Range { first: at, last: at, defined: defines };
    }
    range.last = range.last.max(at);
}

/// Instruction `i` of the function is at time `2 i + 2` when it reads and one later when it writes; time 0 is the entry.
fn mention_all(program: &Program, function: &Function, start: usize, class: RegClass, ranges: &mut [Range]) {
    let end = 2 * (program.code.len() - start) as u32 + 4;
    let mut from_entry = |reg: Reg, last| ranges[usize::from(reg)] = Range { first: 0, last, defined: true };
    match class {
        RegClass::R32 => {
            function.constants32.iter().for_each(|&(reg, _)| from_entry(reg, 0));
            function.argument_words.iter().for_each(|&reg| from_entry(reg, 0));
            function.result_words.iter().for_each(|&reg| from_entry(reg, end));
        }
        RegClass::R64 => function.constants64.iter().for_each(|&(reg, _)| from_entry(reg, 0)),
        RegClass::Pred => {}
    }
    // Who touches them while a product is under way, or without a fence before the next, is watched: they share no place.
    for (inst, product) in wgmmas(program, start).filter(|_| class == RegClass::R32) {
        product.d.iter().for_each(|&reg| from_entry(reg, end));
        let fragment = (0..4).filter(|slot| product.a_held && inst.has(*slot));
        fragment.for_each(|slot| from_entry(inst.r[slot], end));
    }
    for (n, inst) in program.code[start..].iter().enumerate() {
        let at = 2 * n as u32 + 2;
        if let (Some((reg, _)), RegClass::Pred) = (inst.guard, class) {
            mention(ranges, reg, at, false);
        }
        // What it writes first must not lie where it reads the address for the rest.
        let early = inst.op.comes_in_elements();
        for slot in (0..super::program::SLOTS).filter(|&slot| inst.class(slot) == Some(class)) {
            let writes = inst.defs >> slot & 1 == 1;
            mention(ranges, inst.r[slot], at + u32::from(writes && !early), writes && inst.guard.is_none());
        }
        if let (Some(site), RegClass::R32) = (call_site(program, inst), class) {
            for &reg in &site.arguments {
                mention(ranges, reg, at, false);
            }
            for &reg in &site.results {
                mention(ranges, reg, at + 1, inst.guard.is_none());
            }
        }
    }
}

/// The products of a function.
fn wgmmas(program: &Program, start: usize) -> impl Iterator<Item = (&Inst, &super::Wgmma)> {
    let products = program.code[start..].iter().filter(|inst| inst.op == Op::Wgmma);
    products.map(|inst| (inst, &program.wgmmas[inst.imm as usize]))
}

fn call_site<'a>(program: &'a Program, inst: &Inst) -> Option<&'a super::CallSite> {
    matches!(inst.op, Op::Call | Op::CallIndirect).then(|| &program.calls[inst.imm as usize])
}

/// A loop: the times of its first and last instruction, and for each instruction in it the furthest target of the
/// branches between the first and that.
struct Loop {
    head: u32,
    tail: u32,
    reach: Vec<u32>,
}

fn loops(program: &Program, start: usize) -> Vec<Loop> {
    let code = &program.code[start..];
    let targets = |inst: &Inst| -> Vec<usize> {
        match inst.op {
            Op::Branch => vec![inst.imm as usize - start],
            Op::BranchTable => {
                program.tables[inst.imm as usize].iter().map(|t| *t as usize - start).collect()
            }
            _ => Vec::new(),
        }
    };
    let mut edges: Vec<(usize, usize)> = Vec::new();
    for (n, inst) in code.iter().enumerate() {
        edges.extend(targets(inst).into_iter().filter(|target| *target <= n).map(|target| (target, n)));
    }
    edges.sort_unstable();
    edges.dedup();
    let time = |n: usize| 2 * n as u32 + 2;
    edges
        .into_iter()
        .map(|(head, tail)| {
            let mut furthest = 0;
            let reach = code[head..=tail]
                .iter()
                .map(|inst| {
                    let before = furthest;
                    furthest = targets(inst).into_iter().map(time).fold(furthest, u32::max);
                    before
                })
                .collect();
            Loop { head: time(head), tail: time(tail) + 1, reach }
        })
        .collect()
}

/// What lives into a loop lives to its end; what a loop may read before it writes it lives through the whole of it.
fn stretch(program: &Program, start: usize, ranges: &mut [Range]) {
    let loops = loops(program, start);
    let mut changed = true;
    while changed {
        changed = false;
        for Loop { head, tail, reach } in &loops {
            for range in ranges.iter_mut().filter(|range| range.first <= *tail && range.last >= *head) {
                if range.first >= *head {
                    // Written for sure where it starts, it carries nothing from one round to the next.
                    let skipped = reach[((range.first - head) / 2) as usize] > range.first;
                    if range.defined && !skipped {
                        continue;
                    }
                    changed |= range.first != *head || range.defined;
                    range.first = *head;
                    range.defined = false;
                }
                changed |= range.last < *tail;
                range.last = range.last.max(*tail);
            }
        }
    }
}

/// New names, and how many there are.
fn scan(ranges: &[Range]) -> (Vec<Reg>, u32) {
    let mut order: Vec<usize> = (0..ranges.len()).filter(|&reg| ranges[reg].first != u32::MAX).collect();
    order.sort_unstable_by_key(|&reg| ranges[reg].first);
    let mut names = vec![0; ranges.len()];
    let (mut busy, mut free, mut used) = (BTreeSet::new(), BTreeSet::new(), 0u32);
    for reg in order {
        let range = ranges[reg];
        while let Some(&(last, name)) = busy.first().filter(|(last, _)| *last < range.first) {
            busy.remove(&(last, name));
            free.insert(name);
        }
        let name = free.pop_first().unwrap_or_else(|| {
            used += 1;
            (used - 1) as Reg
        });
        names[reg] = name;
        busy.insert((range.last, name));
    }
    (names, used)
}

fn rename_all(program: &mut Program, function: &mut Function, start: usize, class: RegClass, names: &[Reg]) {
    let rename = |reg: &mut Reg| *reg = names[usize::from(*reg)];
    let (mut sites, mut products) = (Vec::new(), Vec::new());
    for inst in &mut program.code[start..] {
        if let (Some((reg, _)), RegClass::Pred) = (&mut inst.guard, class) {
            rename(reg);
        }
        for slot in 0..super::program::SLOTS {
            if inst.class(slot) == Some(class) {
                rename(&mut inst.r[slot]);
            }
        }
        match inst.op {
            Op::Call | Op::CallIndirect => sites.push(inst.imm as usize),
            Op::Wgmma => products.push(inst.imm as usize),
            _ => {}
        }
    }
    match class {
        RegClass::R32 => {
            for site in sites {
                let site = &mut program.calls[site];
                site.arguments.iter_mut().chain(&mut site.results).for_each(rename);
            }
            products.into_iter().for_each(|product| program.wgmmas[product].d.iter_mut().for_each(rename));
            function.constants32.iter_mut().for_each(|(reg, _)| rename(reg));
            function.argument_words.iter_mut().chain(&mut function.result_words).for_each(rename);
        }
        RegClass::R64 => function.constants64.iter_mut().for_each(|(reg, _)| rename(reg)),
        RegClass::Pred => {}
    }
}
