//! `atom` and `red`.

use crate::check::cell::Strong;
use crate::isa::{Atom, AtomOp, AtomType, HalfType, Inst, Order, Scope};
use crate::num::{Round, float};

use super::Machine;
use super::access::strength;
use super::halves as half;
use super::regs::lanes;
use super::step::{Flow, Running};

/// The new value.
pub(super) fn apply(op: AtomOp, ty: AtomType, old: u64, b: u64, c: u64) -> u64 {
    let halves = |format: HalfType, x: u16, y: u16| match op {
        AtomOp::Min => half::min(format, x, y, false, false),
        AtomOp::Max => half::max(format, x, y, false, false),
        _ => half::add(format, x, y),
    };
    match ty {
        AtomType::F32 { ftz } => {
            let value = |bits: u64| {
                let value = f32::from_bits(bits as u32);
                if ftz { float::ftz(value) } else { value }
            };
            let sum = float::add_f32(value(old), value(b), Round::Nearest);
            u64::from((if ftz { float::ftz(sum) } else { sum }).to_bits())
        }
        AtomType::F64 => float::add_f64(f64::from_bits(old), f64::from_bits(b), Round::Nearest).to_bits(),
        AtomType::Half(ty) => u64::from(halves(ty, old as u16, b as u16)),
        AtomType::Half2(ty) => {
            let part =
                |shift: u32| u64::from(halves(ty, (old >> shift) as u16, (b >> shift) as u16)) << shift;
            part(0) | part(16)
        }
        AtomType::B16 => {
            if old & 0xffff == b & 0xffff {
                c & 0xffff
            } else {
                old
            }
        }
        AtomType::U32 => u64::from(unsigned(op, old as u32, b as u32, c as u32)),
        AtomType::S32 => match op {
            AtomOp::Min => u64::from((old as i32).min(b as i32) as u32),
            AtomOp::Max => u64::from((old as i32).max(b as i32) as u32),
            _ => u64::from(unsigned(op, old as u32, b as u32, c as u32)),
        },
        AtomType::S64 => match op {
            AtomOp::Min => (old as i64).min(b as i64) as u64,
            AtomOp::Max => (old as i64).max(b as i64) as u64,
            _ => wide(op, old, b, c),
        },
        AtomType::U64 => wide(op, old, b, c),
    }
}

fn unsigned(op: AtomOp, old: u32, b: u32, c: u32) -> u32 {
    match op {
        AtomOp::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomOp::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
        _ => wide(op, u64::from(old), u64::from(b), u64::from(c)) as u32,
    }
}

fn wide(op: AtomOp, old: u64, b: u64, c: u64) -> u64 {
    match op {
        AtomOp::Add => old.wrapping_add(b),
        AtomOp::Min => old.min(b),
        AtomOp::Max => old.max(b),
        AtomOp::And => old & b,
        AtomOp::Or => old | b,
        AtomOp::Xor => old ^ b,
        AtomOp::Exch => b,
        AtomOp::Cas => {
            if old == b {
                c
            } else {
                old
            }
        }
        AtomOp::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomOp::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}

impl Machine<'_> {
    pub(super) fn atomic(&mut self, inst: &Inst, atom: Atom, run: &mut Running<'_>) -> Flow {
        let address = Self::addresses(run, inst, 1, atom.address64, inst.imm);
        let bytes = atom.ty.bytes();
        let is_wide = bytes == 8;
        let width = u32::from(bytes);
        // A packed pair is two accesses to its halves (PTX ISA, "Packed Data Types").
        let element = if matches!(atom.ty, AtomType::Half2(_)) { 2 } else { bytes };
        let turn = self.turn(Order::Relaxed, 1, true, run);
        for lane in lanes(run.active) {
            let Some(spot) = self.resolve(atom.place, address[lane], width, width, run, lane) else {
                return Flow::Changed;
            };
            if !self.may_write(spot, atom.place, address[lane], width, run, lane) {
                return Flow::Changed;
            }
            // Atomics are strong even where they order nothing: at least of their own block's scope.
            let strong = strength(atom.sem, element).or(Some(Strong { scope: Scope::Cta, bytes: element }));
            if self.launch.checks {
                self.check_read(spot, width, strong, run, lane, false);
                self.check_write(spot, width, strong, run, lane);
            } else {
                self.mark_written(spot, width);
            }
            let old = self.read_element(spot, 0, bytes, run, lane);
            self.observe(spot, atom.sem, run, lane);
            let value = |run: &mut Running<'_>, slot: usize| match (inst.has(slot), is_wide) {
                (false, _) => 0,
                (true, true) => run.regs().a64(inst, slot)[lane],
                (true, false) => u64::from(run.regs().a(inst, slot)[lane]),
            };
            let (b, c) = (value(run, 2), value(run, 3));
            let new = apply(atom.op, atom.ty, old, b, c);
            self.events += u64::from(new != old);
            self.write_element(spot, 0, bytes, new, run, lane);
            self.publish(spot, atom.sem, run, lane, true);
            if atom.returns {
                if is_wide {
                    run.warp.r64[run.base.r64 as usize + usize::from(inst.r[0])][lane] = old;
                } else {
                    run.warp.r32[run.base.r32 as usize + usize::from(inst.r[0])][lane] = old as u32;
                }
            }
        }
        if turn.last { Flow::Next } else { Self::turn_again(run) }
    }
}
