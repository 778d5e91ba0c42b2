//! Tensor-core products and the loads of their fragments.

use crate::isa::{HalfType, Inst, Mma, Op, RegClass};
use crate::ptx::ast::Operand;

use super::mods::Mods;
use super::{Decoder, Result};

impl Decoder<'_> {
    pub(super) fn tensor(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<bool> {
        match mnemonic {
            "mma" => self.mma(mods, operands)?,
            "ldmatrix" | "stmatrix" => self.matrix(mnemonic == "ldmatrix", mods, operands)?,
            "movmatrix" => {
                let complete =
                    mods.take("sync") & mods.take("aligned") & mods.take("m8n8") & mods.take("trans");
                if !complete || mods.last() != "b16" {
                    return self.unsupported("form");
                }
                self.simple(Op::MovMatrix, 32, &[32], operands)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn matrix(&mut self, load: bool, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        if mods.last() != "b16" || !(mods.take("sync") & mods.take("aligned") & mods.take("m8n8")) {
            return self.unsupported("form");
        }
        let count = mods.pick(|part| match part {
            "x1" => Some(1u8),
            "x2" => Some(2),
            "x4" => Some(4),
            _ => None,
        });
        let Some(count) = count else { return self.invalid("expected `.x1`, `.x2` or `.x4`") };
        let trans = mods.take("trans");
        if !(mods.take("shared") | mods.take("shared::cta")) {
            return self.unsupported("a matrix outside `.shared`");
        }
        let [a, b] = operands else { return self.invalid("expected 2 operands") };
        let (values, address) = if load { (a, b) } else { (b, a) };
        let values = match values {
            Operand::Vector(values) => values.as_slice(),
            single => std::slice::from_ref(single),
        };
        if values.len() != usize::from(count) {
            return self.invalid(format!("expected {count} registers, found {}", values.len()));
        }
        let mut inst = Inst::new(Op::Nop);
        let address64 = self.plain_address(&mut inst, 8, address)?;
        for (slot, value) in values.iter().enumerate() {
            let (class, reg) = if load { self.destination(value, 32)? } else { self.source(value, 32)? };
            inst.set(slot, class, reg, load);
        }
        inst.op = if load {
            Op::LdMatrix { count, trans, address64 }
        } else {
            Op::StMatrix { count, trans, address64 }
        };
        self.emit(inst)
    }

    /// `mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 d, a, b, c`
    fn mma(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let (c, b, a, d) = (mods.last(), mods.last(), mods.last(), mods.last());
        if !(mods.take("sync") & mods.take("aligned") & mods.take("row") & mods.take("col")) {
            return self.unsupported("form");
        }
        let satfinite = mods.take("satfinite");
        let shape = mods.first();
        let signs = (a == "s8", b == "s8");
        let eight = matches!(a, "s8" | "u8") && matches!(b, "s8" | "u8") && (d, c) == ("s32", "s32");
        // How many registers d, a, b and c have.
        let (mma, counts) = match (shape, d, a, b, c) {
            ("m16n8k8", "f32", "f16", "f16", "f32") => (Mma::K8(HalfType::F16), [4, 2, 1, 4]),
            ("m16n8k8", "f32", "bf16", "bf16", "f32") => (Mma::K8(HalfType::Bf16), [4, 2, 1, 4]),
            ("m16n8k16", "f32", "f16", "f16", "f32") => (Mma::K16(HalfType::F16), [4, 4, 2, 4]),
            ("m16n8k16", "f32", "bf16", "bf16", "f32") => (Mma::K16(HalfType::Bf16), [4, 4, 2, 4]),
            ("m16n8k8", "f16", "f16", "f16", "f16") => (Mma::K8Half, [2, 2, 1, 2]),
            ("m16n8k16", "f16", "f16", "f16", "f16") => (Mma::K16Half, [2, 4, 2, 2]),
            ("m16n8k4", "f32", "tf32", "tf32", "f32") => (Mma::K4Tf32, [4, 2, 1, 4]),
            ("m16n8k8", "f32", "tf32", "tf32", "f32") => (Mma::K8Tf32, [4, 4, 2, 4]),
            ("m8n8k4", "f64", "f64", "f64", "f64") => (Mma::F64, [2, 1, 1, 2]),
            ("m16n8k16", ..) if eight => (Mma::K16Int(signs.0, signs.1, satfinite), [4, 2, 1, 4]),
            ("m16n8k32", ..) if eight => (Mma::K32Int(signs.0, signs.1, satfinite), [4, 4, 2, 4]),
            ("m8n8k16", ..) if eight => (Mma::M8K16Int(signs.0, signs.1, satfinite), [2, 1, 1, 2]),
            _ => return self.unsupported(format!("product `.{shape}.{d}.{a}.{b}.{c}`")),
        };
        if satfinite && !eight {
            return self.invalid("`.satfinite` with a type other than s32");
        }
        let bits = if mma == Mma::F64 { 64 } else { 32 };
        let [od, oa, ob, oc] = operands else { return self.invalid("expected 4 operands") };
        let mut inst = Inst::new(Op::Mma(mma));
        let mut slot = 0;
        for (n, (operand, count)) in [od, oa, ob, oc].into_iter().zip(counts).enumerate() {
            let values = match operand {
                Operand::Vector(values) => values.as_slice(),
                single => std::slice::from_ref(single),
            };
            if values.len() != count {
                return self.invalid(format!("expected {count} registers, found {}", values.len()));
            }
            for value in values {
                let (class, reg): (RegClass, u16) =
                    if n == 0 { self.destination(value, bits)? } else { self.source(value, bits)? };
                inst.set(slot, class, reg, n == 0);
                slot += 1;
            }
        }
        self.emit(inst)
    }
}
