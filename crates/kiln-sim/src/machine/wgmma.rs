//! Products of a warpgroup (`wgmma`): four warps, the first of which has a number that 4 divides, multiply matrices in shared memory.
//!
//! Each warp computes its 16 of the 64 rows when it issues a product. Until it has waited for that, nobody may write what the product
//! reads, and the warp may not touch the registers: neither is seen to go wrong here, both are found. So are registers that were
//! accessed since the warp's last `wgmma.fence`, and stores to the matrices that no proxy fence covers ([`super::proxy`]).
//!
//! The four warps must issue the same in the same order. What a warp's products read, all rows of the first matrix included, each of its
//! lanes knows to have been read once the warp has waited.
//!
//! Errs towards reports: a warp that has waited knows of its own products, not that those of the other three are done. Threads that
//! exit with products under way are a finding.

mod descriptor;
mod watch;

use std::collections::VecDeque;

use crate::check::cell::Event;
use crate::check::reads::{Mark, Read};
use crate::check::view::{COPIER, Level, Who};
use crate::finding::Kind;
use crate::isa::{Accumulate, Inst, Op, Place, RegClass, SLOTS, Wgmma, WgmmaOperand, WgmmaType};
use crate::num::convert::{bf16_to_f32, f16_to_f32};
use crate::num::mma::{self, Operand, TensorCore};

use super::Machine;
use super::access::Spot;
use super::regs::Row;
use super::state::Block;
use super::step::{Flow, Running};
use descriptor::Descriptor;
pub(super) use watch::Products;
use watch::{Fault, Group, Part};

/// Warps of a group.
const WARPS: usize = 4;
/// Slots of b's descriptor and of the predicate.
const B: usize = 4;
const PREDICATE: usize = 5;
/// Rows of a product.
const ROWS: u32 = 64;

/// Who reads for a warp's products, by the warp's number in the grid.
pub(super) fn product_agent(warp: u32) -> Who {
    COPIER | warp << 5
}

/// An instruction that some warps of a group have issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Issued {
    pc: u32,
    /// A product's descriptors; of the first operand, where it has one.
    a: Option<u64>,
    b: u64,
    adds: bool,
}

/// Four warps, and the instructions that not all of them have issued.
#[derive(Clone, Debug, Default)]
pub(super) struct Warpgroup {
    issued: VecDeque<Issued>,
    /// How many all have issued.
    by_all: u64,
    by: [u64; WARPS],
    ended: [bool; WARPS],
}

impl Block {
    fn warpgroup(&mut self, number: usize) -> &mut Warpgroup {
        if self.warpgroups.len() <= number {
            self.warpgroups.resize_with(number + 1, Warpgroup::default);
        }
        &mut self.warpgroups[number]
    }
}

impl WgmmaType {
    /// Bytes of an element.
    fn bytes(self) -> u32 {
        match self {
            WgmmaType::F16 | WgmmaType::Bf16 => 2,
            WgmmaType::Tf32 => 4,
            WgmmaType::Int(..) => 1,
        }
    }

    /// The elements of a word as numbers.
    fn elements(self, of_b: bool, word: u32) -> ([f32; 4], usize) {
        let halves = |widen: fn(u16) -> f32| ([widen(word as u16), widen((word >> 16) as u16), 0.0, 0.0], 2);
        match self {
            WgmmaType::F16 => halves(f16_to_f32),
            WgmmaType::Bf16 => halves(bf16_to_f32),
            WgmmaType::Tf32 => ([mma::tf32_to_f32(word), 0.0, 0.0, 0.0], 1),
            WgmmaType::Int(a, b, _) => {
                let signed = if of_b { b } else { a };
                let widen = |byte: u8| if signed { f32::from(byte as i8) } else { f32::from(byte) };
                (word.to_le_bytes().map(widen), 4)
            }
        }
    }
}

/// A matrix that a product reads: of so many lines, which are rows of a or columns of b.
#[derive(Clone, Copy)]
struct Matrix {
    at: Descriptor,
    lines: u32,
    ty: WgmmaType,
    operand: WgmmaOperand,
    is_b: bool,
}

impl Machine<'_> {
    /// An instruction other than a product accesses registers: whether it may.
    pub(super) fn watch_registers(&mut self, inst: &Inst, run: &mut Running<'_>) -> bool {
        if inst.op == Op::Wgmma {
            return true;
        }
        let base = run.base.r32;
        let Some(products) = &mut run.warp.products else { return true };
        let slots =
            (0..SLOTS).filter(|slot| inst.class(*slot) == Some(RegClass::R32)).map(|slot| inst.r[slot]);
        let site = match inst.op {
            Op::Call | Op::CallIndirect => Some(&self.launch.program.calls[inst.imm as usize]),
            _ => None,
        };
        let words = site.into_iter().flat_map(|site| site.arguments.iter().chain(&site.results)).copied();
        let mut busy = None;
        for register in slots.chain(words) {
            busy = busy.or(products.touch(base + u32::from(register)));
        }
        if let Some(pc) = busy {
            let message = format!(
                "a register of the product at PTX line {}, which has not been waited for",
                self.line(pc)
            );
            self.fault(Kind::Misuse, run.pc, run.first(), message);
        }
        busy.is_none()
    }

    /// An instruction that orders products: a fence, the end of a group, a wait.
    pub(super) fn wgmma_order(&mut self, inst: &Inst, run: &mut Running<'_>) -> Flow {
        let issued = Issued { pc: run.pc, a: None, b: 0, adds: false };
        if !self.wgmma_in_step(issued, run) {
            return Flow::Changed;
        }
        let products = run.warp.products.get_or_insert_default();
        match inst.op {
            Op::WgmmaFence => products.fence(),
            Op::WgmmaCommit => products.commit(),
            _ => {
                let done = products.wait(inst.imm as usize);
                self.end_products(&done, run);
            }
        }
        Flow::Next
    }

    /// Products have been waited for: what they have read, all lanes know.
    fn end_products(&mut self, done: &[Group], run: &mut Running<'_>) {
        if !self.launch.checks {
            return;
        }
        let now = self.tick();
        let multiplied = &mut self.blocks[run.block].shadow.multiplied;
        for group in done {
            let mark = Mark { time: now, lanes: u32::MAX, pc: group.pc };
            // All of the warp knows of it: earlier reads by its products are covered.
            let read = Read { warp: run.warp.index as usize, mark, known: now };
            group.words.iter().for_each(|word| multiplied.read::<1>(word, read));
        }
        run.warp.view.learn_all(Level::Thread(product_agent(run.who >> 5)), now);
    }

    pub(super) fn wgmma(&mut self, inst: &Inst, run: &mut Running<'_>) -> Flow {
        let launch = self.launch;
        let product = &launch.program.wgmmas[inst.imm as usize];
        let Some(issued) = self.wgmma_operands(inst, product, run) else { return Flow::Changed };
        if !self.wgmma_in_step(issued, run) || !self.wgmma_registers(inst, product, run) {
            return Flow::Changed;
        }
        let columns = product.d.len() as u32 * 2;
        let matrix = |bits: u64, lines: u32, is_b: bool| {
            let operand = if is_b { product.b } else { product.a };
            Descriptor::new(bits).map(|at| Matrix { at, lines, ty: product.ty, operand, is_b })
        };
        let matrices =
            (issued.a.map(|a| matrix(a, ROWS, false)).transpose(), matrix(issued.b, columns, true));
        let (a, b) = match matrices {
            (Ok(a), Ok(b)) => (a, b),
            (Err(refusal), _) | (_, Err(refusal)) => {
                self.fault(Kind::Misuse, run.pc, run.first(), refusal);
                return Flow::Changed;
            }
        };
        let a = match a {
            Some(a) => self.read_matrix(a, run),
            None => Some(held_rows(inst, product, run)),
        };
        let (Some(a), Some(b)) = (a, self.read_matrix(b, run)) else { return Flow::Changed };
        // Of the rows in memory the warp has its quarter; in registers it has no others.
        let terms = (32 / product.ty.bytes()) as usize;
        let first = if issued.a.is_some() { run.warp.index as usize % WARPS * 16 * terms } else { 0 };
        add(product, launch.tensor_core, &a[first..first + 16 * terms], &b, issued.adds, run);
        self.events += 1;
        Flow::Next
    }

    /// Descriptors and predicate, which all lanes agree on.
    fn wgmma_operands(&mut self, inst: &Inst, product: &Wgmma, run: &mut Running<'_>) -> Option<Issued> {
        let regs = run.regs();
        let (a, b) = ((!product.a_held).then(|| regs.a64(inst, 0)), regs.a64(inst, B));
        let adds = match product.accumulate {
            Accumulate::Always => u32::MAX,
            Accumulate::Never => 0,
            Accumulate::If { negated } => regs.p(inst, PREDICATE) ^ if negated { u32::MAX } else { 0 },
        };
        let agree = |row: &[u64; 32]| row.iter().all(|bits| *bits == row[0]);
        if !a.as_ref().is_none_or(agree) || !agree(&b) || !matches!(adds, 0 | u32::MAX) {
            let message = "lanes that do not agree on a descriptor or on whether to add";
            self.fault(Kind::Misuse, run.pc, run.first(), message);
            return None;
        }
        Some(Issued { pc: run.pc, a: a.map(|row| row[0]), b: b[0], adds: adds != 0 })
    }

    /// Whether the warps of the group issue the same.
    fn wgmma_in_step(&mut self, issued: Issued, run: &Running<'_>) -> bool {
        let index = run.warp.index as usize;
        let (group, warp) = (index / WARPS, index % WARPS);
        let block = &mut self.blocks[run.block];
        let warps = block.warps.len().saturating_sub(group * WARPS).min(WARPS);
        if warps < WARPS {
            let message = format!("a warpgroup of {warps} warps: expected {WARPS}");
            self.fault(Kind::Misuse, run.pc, run.first(), message);
            return false;
        }
        let group = block.warpgroup(group);
        let number = group.by[warp];
        let at = (number - group.by_all) as usize;
        let ended = (0..WARPS).any(|other| group.ended[other] && group.by[other] <= number);
        let same = *group.issued.get(at).unwrap_or(&issued) == issued;
        if at == group.issued.len() {
            group.issued.push_back(issued);
        }
        group.by[warp] += 1;
        if group.by.iter().all(|by| *by > group.by_all) {
            group.by_all += 1;
            group.issued.pop_front();
        }
        if ended || !same {
            let message = if ended {
                "an instruction that a warp of the warpgroup has exited without"
            } else {
                "warps of a warpgroup that issue different instructions"
            };
            self.fault(Kind::Misuse, run.pc, run.first(), message);
        }
        !ended && same
    }

    /// Takes the registers of a product; whether it may.
    fn wgmma_registers(&mut self, inst: &Inst, product: &Wgmma, run: &mut Running<'_>) -> bool {
        let (base, pc) = (run.base.r32, run.pc);
        let products = run.warp.products.get_or_insert_default();
        products.open().pc = pc;
        let sum = Part::Sum(32 / product.ty.bytes(), product.d.len());
        let fragment = inst.r[..if product.a_held { B } else { 0 }].iter().map(|reg| (*reg, Part::Operand));
        let sums = product.d.iter().map(|reg| (*reg, sum));
        let taken = fragment.chain(sums).map(|(reg, part)| products.take(base + u32::from(reg), part, pc));
        let Some(fault) = taken.filter_map(Result::err).next() else { return true };
        let message = match fault {
            Fault::NoFence => "a product before the first `wgmma.fence`".to_string(),
            Fault::Touched => "a product of registers accessed since the last `wgmma.fence`".into(),
            Fault::OtherShape => "sums of a product of another shape since the last `wgmma.fence`".into(),
            Fault::Busy(other) => format!(
                "a register of the product at PTX line {}, which has not been waited for",
                self.line(other)
            ),
        };
        self.fault(Kind::Misuse, run.pc, run.first(), message);
        false
    }

    /// The lines of a matrix, one after the other, each with its terms.
    fn read_matrix(&mut self, matrix: Matrix, run: &mut Running<'_>) -> Option<Vec<f32>> {
        let Matrix { at, lines, ty, operand, is_b } = matrix;
        let (terms, across) = (32 / ty.bytes(), 16 / ty.bytes());
        let mut values = vec![0.0; (lines * terms) as usize];
        let mut put = |words: [u32; 4], line: u32, term: u32| {
            let mut element = 0;
            for word in words {
                let (found, count) = ty.elements(is_b, word);
                for value in &found[..count] {
                    let (line, term) =
                        if operand.transposed { (line + element, term) } else { (line, term + element) };
                    values[(line * terms + term) as usize] = if operand.negated { -value } else { *value };
                    element += 1;
                }
            }
        };
        if operand.transposed {
            for chunk in 0..lines / across {
                for term in 0..terms {
                    put(self.read_chunk(at.across(chunk, term), run)?, chunk * across, term);
                }
            }
        } else {
            for line in 0..lines {
                for chunk in 0..2 {
                    put(self.read_chunk(at.along(line, chunk), run)?, line, chunk * across);
                }
            }
        }
        Some(values)
    }

    /// 16 bytes of shared memory, which are being read from now on.
    fn read_chunk(&mut self, address: u32, run: &mut Running<'_>) -> Option<[u32; 4]> {
        let spot = self.resolve(Place::Shared, u64::from(address), 16, 16, run, 0)?;
        let Spot::Shared(block, offset) = spot else { return None };
        let first = (offset / 4) as usize;
        if self.launch.checks {
            self.check_operand(block, offset, run);
            self.check_multiplied(spot, 16, run, 0);
            let words = &mut run.warp.products.get_or_insert_default().open().words;
            for word in first..first + 4 {
                words.insert(word);
                self.set_reading(spot.moved(4 * (word - first) as u32), true);
            }
        }
        let words = &self.blocks[block].shared[first..first + 4];
        Some(std::array::from_fn(|n| words[n]))
    }

    /// The product of another warp, or of this one, that still reads a word of a block's shared memory.
    pub(super) fn product_that_reads(&self, block: usize, word: usize, run: &Running<'_>) -> Option<Event> {
        let own = (run.block == block).then_some(&*run.warp);
        let number = self.blocks[block].number;
        self.blocks[block].warps.iter().chain(own).find_map(|warp| {
            let pc = warp.products.as_ref()?.reader(word)?;
            Some(Event { who: product_agent(number << 5 | warp.index), time: self.now, pc })
        })
    }

    /// A warp has exited.
    pub(super) fn leave_warpgroup(&mut self, run: &Running<'_>) {
        let index = run.warp.index as usize;
        if let Some(pc) = run.warp.products.as_ref().and_then(|products| products.under_way()) {
            let message =
                format!("an exit before the product at PTX line {} has been waited for", self.line(pc));
            self.fault(Kind::Misuse, run.pc, run.who, message);
        }
        if run.warp.products.is_none() {
            return;
        }
        let group = self.blocks[run.block].warpgroup(index / WARPS);
        group.ended[index % WARPS] = true;
        if group.by.iter().any(|by| *by > group.by[index % WARPS]) {
            let message = "an exit of a warp before it has issued what its warpgroup has";
            self.fault(Kind::Misuse, run.pc, run.who, message);
        }
    }
}

/// The 16 rows of a fragment in registers, one after the other.
fn held_rows(inst: &Inst, product: &Wgmma, run: &mut Running<'_>) -> Vec<f32> {
    let regs = run.regs();
    let fragment: [Row; 4] = std::array::from_fn(|slot| regs.a(inst, slot));
    let ty = product.ty;
    let sign = if product.a.negated { -1.0 } else { 1.0 };
    let elements = |word: u32| ty.elements(false, word).0.map(|value| sign * value);
    match ty.bytes() {
        1 => mma::rows_of_fragment::<4, 32>(&fragment, elements).concat(),
        2 => mma::rows_of_fragment::<2, 16>(&fragment, |word| [0, 1].map(|n| elements(word)[n])).concat(),
        _ => mma::rows_of_fragment::<1, 8>(&fragment, |word| [elements(word)[0]]).concat(),
    }
}

/// Adds the product of a warp's 16 rows and of all columns to its sums, or puts it in their place.
fn add(product: &Wgmma, unit: TensorCore, a: &[f32], b: &[f32], adds: bool, run: &mut Running<'_>) {
    let of = |operand| move |a: &_, b: &_, c: &_| mma::product(unit, operand, a, b, c);
    match product.ty {
        WgmmaType::F16 => add_typed::<16>(product, a, b, adds, run, of(Operand::F16)),
        WgmmaType::Bf16 => add_typed::<16>(product, a, b, adds, run, of(Operand::Bf16)),
        WgmmaType::Tf32 => {
            add_typed::<8>(product, a, b, adds, run, |a, b, c| mma::product(unit, Operand::Tf32, a, b, c))
        }
        WgmmaType::Int(.., saturates) => {
            add_typed::<32>(product, a, b, adds, run, |a, b, c| mma::product_int(a, b, c, saturates))
        }
    }
}

fn add_typed<const K: usize>(
    product: &Wgmma,
    a: &[f32],
    b: &[f32],
    adds: bool,
    run: &mut Running<'_>,
    eight_columns: impl Fn(&[[f32; K]; 16], &[[f32; 8]; K], &[Row; 4]) -> [Row; 4],
) {
    let a: [[f32; K]; 16] = std::array::from_fn(|row| std::array::from_fn(|k| a[row * K + k]));
    for (columns, registers) in b.chunks_exact(8 * K).zip(product.d.chunks_exact(4)) {
        let b: [[f32; 8]; K] = std::array::from_fn(|k| std::array::from_fn(|column| columns[column * K + k]));
        let mut regs = run.regs();
        let sums: [Row; 4] = match adds {
            true => std::array::from_fn(|n| regs.r32[usize::from(registers[n])]),
            false => [[0; 32]; 4],
        };
        for (register, row) in registers.iter().zip(eight_columns(&a, &b, &sums)) {
            regs.write(*register, |lane| row[lane]);
        }
    }
}
