//! `mov`, packing, and addresses between spaces.

use crate::isa::{Inst, Op, Place, RegClass};
use crate::ptx::ast::Operand;

use super::mods::Mods;
use super::{Decoder, Result};

impl Decoder<'_> {
    pub(super) fn moves(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<bool> {
        match mnemonic {
            "mov" => self.mov(mods, operands)?,
            "cvta" => {
                let ty = mods.last();
                let to = mods.take("to");
                let Some(place) = mods.pick(place) else { return self.unsupported("state space") };
                let bits = self.address_bits(ty)?;
                self.simple(Op::Cvta { place, to, wide: bits == 64 }, bits, &[bits], operands)?;
            }
            "isspacep" => {
                let Some(place) = mods.pick(place) else { return self.unsupported("state space") };
                let [p, a] = operands else { return self.invalid("expected 2 operands") };
                let (class, reg, bits) = self.any_register(a, 32)?;
                let mut inst = Inst::new(Op::IsSpace { place, wide: bits == 64 });
                inst.set(1, class, reg, false);
                let p = self.predicate(p)?;
                inst.set(0, RegClass::Pred, p, true);
                self.emit(inst)?;
            }
            "mapa" | "getctarank" => {
                let ty = mods.last();
                let generic = !mods.take("shared::cluster");
                let bits = self.address_bits(ty)?;
                let wide = bits == 64;
                if mnemonic == "mapa" {
                    self.simple(Op::Mapa { wide, generic }, bits, &[bits, 32], operands)?;
                } else {
                    self.simple(Op::CtaRank { wide, generic }, 32, &[bits], operands)?;
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn address_bits(&self, ty: &str) -> Result<u32> {
        match ty {
            "u32" => Ok(32),
            "u64" => Ok(64),
            _ => self.invalid(format!("expected `.u32` or `.u64`, found `.{ty}`")),
        }
    }

    fn mov(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let ty = mods.last();
        let [d, a] = operands else {
            return self.invalid(format!("expected 2 operands, found {}", operands.len()));
        };
        let Some((class, bits)) = super::names::register_class(ty) else {
            return self.unsupported(format!("type `.{ty}`"));
        };
        match (d, a) {
            (_, Operand::Vector(parts)) => self.join(d, parts, bits),
            (Operand::Vector(parts), _) => self.split(parts, a, bits),
            (_, Operand::Int(value)) if class == RegClass::Pred => self.constant_predicate(d, *value != 0),
            _ if class == RegClass::Pred => {
                let mut inst = Inst::new(Op::MovPred);
                let a = self.predicate(a)?;
                inst.set(1, class, a, false);
                let d = self.predicate(d)?;
                inst.set(0, class, d, true);
                self.emit(inst)
            }
            _ => self.simple(if bits == 64 { Op::Mov64 } else { Op::Mov32 }, bits, &[bits], operands),
        }
    }

    fn constant_predicate(&mut self, d: &Operand, value: bool) -> Result<()> {
        let mut inst = Inst::new(Op::SetPred(value));
        let reg = self.predicate(d)?;
        inst.set(0, RegClass::Pred, reg, true);
        self.emit(inst)
    }

    fn join(&mut self, d: &Operand, parts: &[Operand], bits: u32) -> Result<()> {
        let op = self.packing(parts.len(), bits, [Op::Join32, Op::Join64, Op::Join64x16])?;
        let mut inst = Inst::new(op);
        for (slot, part) in parts.iter().enumerate() {
            let (class, reg) = self.source(part, bits / parts.len() as u32)?;
            inst.set(slot + 1, class, reg, false);
        }
        let (class, reg) = self.destination(d, bits)?;
        inst.set(0, class, reg, true);
        self.emit(inst)
    }

    fn split(&mut self, parts: &[Operand], a: &Operand, bits: u32) -> Result<()> {
        let op = self.packing(parts.len(), bits, [Op::Split32, Op::Split64, Op::Split64x16])?;
        let mut inst = Inst::new(op);
        let (class, reg) = self.source(a, bits)?;
        inst.set(parts.len(), class, reg, false);
        for (slot, part) in parts.iter().enumerate() {
            let (class, reg) = self.destination(part, bits / parts.len() as u32)?;
            inst.set(slot, class, reg, true);
        }
        self.emit(inst)
    }

    fn packing(&self, parts: usize, bits: u32, ops: [Op; 3]) -> Result<Op> {
        match (bits, parts) {
            (32, 2) => Ok(ops[0]),
            (64, 2) => Ok(ops[1]),
            (64, 4) => Ok(ops[2]),
            _ => self.unsupported(format!("{bits} bits in {parts} parts")),
        }
    }
}

/// State spaces as modifiers.
pub(super) fn place(word: &str) -> Option<Place> {
    Some(match word {
        "global" => Place::Global,
        "const" => Place::Const,
        "shared" | "shared::cta" => Place::Shared,
        "shared::cluster" => Place::SharedCluster,
        "local" => Place::Local,
        "param" | "param::entry" => Place::Param,
        _ => return None,
    })
}
