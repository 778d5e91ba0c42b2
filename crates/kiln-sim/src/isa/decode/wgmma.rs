//! Products of a warpgroup, `wgmma`.

use crate::isa::{Accumulate, Inst, Op, RegClass, Wgmma, WgmmaOperand, WgmmaType};
use crate::ptx::ast::Operand;

use super::mods::Mods;
use super::{Decoder, Result};

/// Slot of b's descriptor; the predicate comes after it.
const B: usize = 4;

impl Decoder<'_> {
    pub(super) fn wgmma(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<bool> {
        if mnemonic != "wgmma" {
            return Ok(false);
        }
        let what = mods.first();
        if !(mods.take("sync") & mods.take("aligned")) {
            return self.invalid("expected `.sync.aligned`");
        }
        if mods.take("sp") {
            return self.unsupported("a product of a sparse matrix");
        }
        match what {
            "mma_async" => self.mma_async(mods, operands)?,
            "fence" => self.emit(Inst::new(Op::WgmmaFence))?,
            "commit_group" => self.emit(Inst::new(Op::WgmmaCommit))?,
            "wait_group" => self.group_wait(Op::WgmmaWait, operands)?,
            _ => return self.unsupported(format!("`wgmma.{what}`")),
        }
        Ok(true)
    }

    /// `wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 d, a, b-desc, scale-d, scale-a, scale-b, trans-a, trans-b`
    fn mma_async(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let (b, a, d) = (mods.last(), mods.last(), mods.last());
        let saturates = mods.take("satfinite");
        let shape = mods.first();
        let bytes = |ty: &str| matches!(ty, "s8" | "u8");
        let (ty, terms) = match (d, a, b) {
            ("f32", "f16", "f16") => (WgmmaType::F16, 16),
            ("f32", "bf16", "bf16") => (WgmmaType::Bf16, 16),
            ("f32", "tf32", "tf32") => (WgmmaType::Tf32, 8),
            ("s32", a, b) if bytes(a) && bytes(b) => (WgmmaType::Int(a == "s8", b == "s8", saturates), 32),
            _ => return self.unsupported(format!("product `.{d}.{a}.{b}`")),
        };
        let is_int = matches!(ty, WgmmaType::Int(..));
        if saturates && !is_int {
            return self.invalid("`.satfinite` with a type other than s32");
        }
        let Some(columns) = columns(shape, terms, is_int) else {
            return self.invalid(format!("no shape of these types is `.{shape}`"));
        };
        let [sums, a, b, accumulate, flags @ ..] = operands else {
            return self.invalid(format!("expected 4 operands or more, found {}", operands.len()));
        };
        let mut inst = Inst::new(Op::Wgmma);
        let a_held = matches!(a, Operand::Vector(_));
        self.wgmma_matrices(&mut inst, a, b)?;
        let accumulate = match accumulate {
            Operand::Int(0) => Accumulate::Never,
            Operand::Int(_) => Accumulate::Always,
            predicate => {
                let (reg, negated) = self.signed_predicate(predicate)?;
                inst.set(B + 1, RegClass::Pred, reg, false);
                Accumulate::If { negated }
            }
        };
        let (a, b) = self.wgmma_flags(ty, a_held, flags)?;
        let d = self.wgmma_sums(sums, columns)?;
        inst.imm = self.program.wgmmas.len() as i64;
        self.program.wgmmas.push(Wgmma { ty, d, a_held, a, b, accumulate });
        self.emit(inst)
    }

    /// The first operand in registers or by its descriptor, and the second.
    fn wgmma_matrices(&mut self, inst: &mut Inst, a: &Operand, b: &Operand) -> Result<()> {
        match a {
            Operand::Vector(fragment) => {
                if fragment.len() != 4 {
                    return self.invalid(format!("expected 4 registers of a, found {}", fragment.len()));
                }
                for (slot, register) in fragment.iter().enumerate() {
                    let (class, reg) = self.source(register, 32)?;
                    inst.set(slot, class, reg, false);
                }
            }
            descriptor => {
                let (class, reg) = self.source(descriptor, 64)?;
                inst.set(0, class, reg, false);
            }
        }
        let (class, reg) = self.source(b, 64)?;
        inst.set(B, class, reg, false);
        Ok(())
    }

    /// What the immediate operands after the predicate say: signs of floats, then of f16 and bf16 how they lie in memory.
    fn wgmma_flags(
        &self,
        ty: WgmmaType,
        a_held: bool,
        flags: &[Operand],
    ) -> Result<(WgmmaOperand, WgmmaOperand)> {
        let expected = match (ty, a_held) {
            (WgmmaType::Int(..), _) => 0,
            (WgmmaType::Tf32, _) => 2,
            (_, true) => 3,
            (_, false) => 4,
        };
        if flags.len() != expected {
            return self.invalid(format!("expected {expected} numbers at the end, found {}", flags.len()));
        }
        let mut values = Vec::new();
        for flag in flags {
            let Operand::Int(value) = flag else { return self.invalid("expected numbers at the end") };
            values.push(*value);
        }
        let (signs, transposed) = values.split_at(expected.min(2));
        if signs.iter().any(|sign| !matches!(sign, 1 | -1)) || transposed.iter().any(|t| !matches!(t, 0 | 1))
        {
            return self.invalid("expected signs of 1 or -1, then 0 or 1");
        }
        let operand = |sign: Option<&i128>, transposed: Option<&i128>| WgmmaOperand {
            negated: sign == Some(&-1),
            transposed: transposed == Some(&1),
        };
        let of_a = if a_held { None } else { transposed.first() };
        Ok((operand(signs.first(), of_a), operand(signs.get(1), transposed.last())))
    }

    fn wgmma_sums(&mut self, sums: &Operand, columns: u32) -> Result<Vec<u16>> {
        let Operand::Vector(sums) = sums else { return self.invalid("expected a vector of sums") };
        if sums.len() as u32 != columns / 2 {
            return self.invalid(format!("expected {} sums, found {}", columns / 2, sums.len()));
        }
        let mut d: Vec<u16> = Vec::with_capacity(sums.len());
        for register in sums {
            let (_, reg) = self.destination(register, 32)?;
            if d.contains(&reg) {
                return self.invalid("expected registers that differ for the sums");
            }
            d.push(reg);
        }
        Ok(d)
    }
}

/// Columns of a shape, where the types have it.
fn columns(shape: &str, terms: u32, is_int: bool) -> Option<u32> {
    let (columns, k) = shape.strip_prefix("m64n")?.split_once('k')?;
    let (columns, k): (u32, u32) = (columns.parse().ok()?, k.parse().ok()?);
    let step = if is_int && columns > 24 { 16 } else { 8 };
    let is_known = (8..=256).contains(&columns) && columns.is_multiple_of(step);
    (is_known && k == terms).then_some(columns)
}
