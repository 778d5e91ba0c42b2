//! Comparisons and selections.

use crate::isa::{Cmp, CmpType, Inst, Int, Logic, Op, RegClass, SetType};
use crate::ptx::ast::Operand;

use super::float::half_type;
use super::mods::{Mods, bit_type, int_type};
use super::{Decoder, Result};

fn comparison(word: &str) -> Option<(Cmp, bool)> {
    // Whether it says itself that it compares unsigned integers.
    Some(match word {
        "eq" => (Cmp::Eq, false),
        "ne" => (Cmp::Ne, false),
        "lt" => (Cmp::Lt, false),
        "le" => (Cmp::Le, false),
        "gt" => (Cmp::Gt, false),
        "ge" => (Cmp::Ge, false),
        "lo" => (Cmp::Lt, true),
        "ls" => (Cmp::Le, true),
        "hi" => (Cmp::Gt, true),
        "hs" => (Cmp::Ge, true),
        "equ" => (Cmp::EqU, false),
        "neu" => (Cmp::NeU, false),
        "ltu" => (Cmp::LtU, false),
        "leu" => (Cmp::LeU, false),
        "gtu" => (Cmp::GtU, false),
        "geu" => (Cmp::GeU, false),
        "num" => (Cmp::Num, false),
        "nan" => (Cmp::Nan, false),
        _ => return None,
    })
}

fn logic(word: &str) -> Option<Logic> {
    Some(match word {
        "and" => Logic::And,
        "or" => Logic::Or,
        "xor" => Logic::Xor,
        _ => return None,
    })
}

impl Decoder<'_> {
    pub(super) fn compare(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<bool> {
        match mnemonic {
            "setp" => self.setp(mods, operands)?,
            "set" => self.set(mods, operands)?,
            "selp" => {
                let ty = mods.last();
                let Some((_, bits)) =
                    super::names::register_class(ty).filter(|(class, _)| *class != RegClass::Pred)
                else {
                    return self.unsupported(format!("type `.{ty}`"));
                };
                let [d, a, b, p] = operands else { return self.invalid("expected 4 operands") };
                let mut inst = Inst::new(if bits == 64 { Op::Select64 } else { Op::Select32 });
                for (slot, operand) in [(1, a), (2, b)] {
                    let (class, reg) = self.source(operand, bits)?;
                    inst.set(slot, class, reg, false);
                }
                let p = self.predicate(p)?;
                inst.set(3, RegClass::Pred, p, false);
                let (class, reg) = self.destination(d, bits)?;
                inst.set(0, class, reg, true);
                self.emit(inst)?;
            }
            "slct" => {
                let (by, ty) = (mods.last(), mods.last());
                let Some((_, bits)) =
                    super::names::register_class(ty).filter(|(class, _)| *class != RegClass::Pred)
                else {
                    return self.unsupported(format!("type `.{ty}`"));
                };
                if !matches!(by, "s32" | "f32") {
                    return self.unsupported(format!("type `.{by}`"));
                }
                let op = Op::Slct { wide: bits == 64, float: by == "f32", ftz: mods.take("ftz") };
                self.simple(op, bits, &[bits, bits, 32], operands)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The type compared, its bits, and the comparison.
    fn compared(&mut self, mods: &mut Mods) -> Result<(CmpType, u32, Cmp)> {
        let word = mods.last();
        let (ty, bits) = match word {
            "f32" => (CmpType::F32 { ftz: mods.take("ftz") }, 32),
            "f64" => (CmpType::F64, 64),
            _ => match (half_type(word), int_type(word).or_else(|| bit_type(word))) {
                (Some((half, true)), _) => (CmpType::F16x2(half), 32),
                (Some((half, false)), _) => (CmpType::F16(half), 16),
                (None, Some(int)) => (CmpType::Int(int), int.bits()),
                _ => return self.unsupported(format!("type `.{word}`")),
            },
        };
        if matches!(ty, CmpType::F16(_) | CmpType::F16x2(_)) {
            // Subnormals flushed before a comparison change nothing but ties with zero, which are rounded away by no compiler.
            if mods.take("ftz") {
                return self.unsupported("`.ftz` of a 16-bit comparison");
            }
        }
        let Some((cmp, unsigned)) = mods.pick(comparison) else {
            return self.invalid("expected a comparison");
        };
        let ty = match ty {
            CmpType::Int(Int::S32) if unsigned => CmpType::Int(Int::U32),
            CmpType::Int(Int::S64) if unsigned => CmpType::Int(Int::U64),
            CmpType::Int(Int::S16) if unsigned => CmpType::Int(Int::U16),
            other => other,
        };
        if matches!(ty, CmpType::Int(_))
            && !matches!(cmp, Cmp::Eq | Cmp::Ne | Cmp::Lt | Cmp::Le | Cmp::Gt | Cmp::Ge)
        {
            return self.invalid("a floating-point comparison of integers");
        }
        Ok((ty, bits, cmp))
    }

    fn setp(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let (ty, bits, cmp) = self.compared(mods)?;
        let combine = mods.pick(logic);
        let wanted = if combine.is_some() { 4 } else { 3 };
        if operands.len() != wanted {
            return self.invalid(format!("expected {wanted} operands, found {}", operands.len()));
        }
        let (p, q) = match &operands[0] {
            Operand::Pair(p, q) => (p.as_ref(), Some(q.as_ref())),
            p => (p, None),
        };
        if matches!(ty, CmpType::F16x2(_)) && q.is_none() {
            return self.invalid("expected two predicates");
        }
        let mut inst = Inst::new(Op::Nop);
        let mut negated = false;
        if let Some(operand) = operands.get(3) {
            let (c, not) = self.signed_predicate(operand)?;
            negated = not;
            inst.set(4, RegClass::Pred, c, false);
        }
        for (slot, operand) in [(2, &operands[1]), (3, &operands[2])] {
            let (class, reg) = self.source(operand, bits)?;
            inst.set(slot, class, reg, false);
        }
        let p = self.predicate(p)?;
        inst.set(0, RegClass::Pred, p, true);
        if let Some(q) = q {
            let q = self.predicate(q)?;
            inst.set(1, RegClass::Pred, q, true);
        }
        inst.op = Op::Setp { cmp, ty, combine, negated, second: q.is_some() };
        self.emit(inst)
    }

    fn set(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let (ty, bits, cmp) = self.compared(mods)?;
        let word = mods.last();
        let (to, width) = match (word, half_type(word)) {
            ("u32" | "s32", _) => (SetType::Mask32, 32),
            ("u16" | "s16", _) => (SetType::Mask16, 16),
            ("f32", _) => (SetType::F32, 32),
            (_, Some((half, false))) => (SetType::Half(half), 16),
            (_, Some((half, true))) => (SetType::Half2(half), 32),
            _ => return self.unsupported(format!("type `.{word}`")),
        };
        if matches!(ty, CmpType::F16x2(_)) != matches!(to, SetType::Half2(_)) {
            return self.unsupported("a packed comparison with a result that is not packed");
        }
        let combine = mods.pick(logic);
        let mut inst = Inst::new(Op::Nop);
        let mut negated = false;
        match (combine, operands) {
            (None, [_, _, _]) => {}
            (Some(_), [_, _, _, c]) => {
                let (c, not) = self.signed_predicate(c)?;
                negated = not;
                inst.set(3, RegClass::Pred, c, false);
            }
            _ => return self.invalid(format!("{} operands", operands.len())),
        }
        for (slot, operand) in [(1, &operands[1]), (2, &operands[2])] {
            let (class, reg) = self.source(operand, bits)?;
            inst.set(slot, class, reg, false);
        }
        let (class, reg) = self.destination(&operands[0], width)?;
        inst.set(0, class, reg, true);
        inst.op = Op::Set { cmp, ty, to, combine, negated };
        self.emit(inst)
    }
}
