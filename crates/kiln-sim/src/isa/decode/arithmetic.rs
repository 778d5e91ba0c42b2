//! Integer arithmetic, logic and bits.

use crate::isa::{Inst, Int, Int1, Int2, Int3, Logic, Op, Permute, RegClass};
use crate::ptx::ast::Operand;

use super::mods::{Mods, bit_type, int_type};
use super::{Decoder, Result};

impl Decoder<'_> {
    /// An instruction with one destination and sources, all of given widths.
    pub(super) fn simple(&mut self, op: Op, to: u32, from: &[u32], operands: &[Operand]) -> Result<()> {
        if operands.len() != from.len() + 1 {
            return self.invalid(format!("expected {} operands, found {}", from.len() + 1, operands.len()));
        }
        let mut inst = Inst::new(op);
        for (slot, (operand, bits)) in operands[1..].iter().zip(from).enumerate() {
            let (class, reg) = self.source(operand, *bits)?;
            inst.set(slot + 1, class, reg, false);
        }
        let (class, reg) = self.destination(&operands[0], to)?;
        inst.set(0, class, reg, true);
        self.emit(inst)
    }

    fn int2(&mut self, op: Int2, ty: Int, operands: &[Operand]) -> Result<()> {
        let bits = ty.bits();
        let amount = if matches!(op, Int2::Shl | Int2::Shr) { 32 } else { bits };
        self.simple(Op::Int2(op, ty), bits, &[bits, amount], operands)
    }

    pub(super) fn arithmetic(
        &mut self,
        mnemonic: &str,
        mods: &mut Mods,
        operands: &[Operand],
    ) -> Result<bool> {
        let last = mods.peek_last();
        let is_float = |operand: &Operand| matches!(operand, Operand::F32(_) | Operand::F64(_));
        if int_type(last).is_some()
            && matches!(
                mnemonic,
                "add" | "sub" | "mul" | "mad" | "div" | "rem" | "min" | "max" | "neg" | "abs"
            )
            && operands.iter().any(is_float)
        {
            return self
                .invalid(format!("expected integers of type `.{last}`, found a floating-point number"));
        }
        match mnemonic {
            "add" | "sub" | "addc" | "subc" if int_type(last).is_some() => {
                self.add(mnemonic, mods, operands)?
            }
            "madc" if int_type(last).is_some() => self.product_carry(true, mods, operands)?,
            "mad" if int_type(last).is_some() && mods.has("cc") => {
                self.product_carry(false, mods, operands)?
            }
            "mul" | "mad" if int_type(last).is_some() => self.product(mnemonic, mods, operands)?,
            "div" | "rem" | "min" | "max" if int_type(last).is_some() => {
                let Some(ty) = int_type(mods.last()) else { return Ok(false) };
                let op = match mnemonic {
                    "div" => Int2::Div,
                    "rem" => Int2::Rem,
                    "min" => Int2::Min,
                    _ => Int2::Max,
                };
                self.int2(op, ty, operands)?;
            }
            "neg" | "abs" if int_type(last).is_some() => {
                let Some(ty) = int_type(mods.last()) else { return Ok(false) };
                let op = if mnemonic == "neg" { Int1::Neg } else { Int1::Abs };
                self.simple(Op::Int1(op, ty), ty.bits(), &[ty.bits()], operands)?;
            }
            "and" | "or" | "xor" | "not" if last == "pred" => {
                self.predicate_logic(mnemonic, mods, operands)?
            }
            "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" => self.logic(mnemonic, mods, operands)?,
            "popc" | "clz" | "brev" => {
                let Some(ty) = bit_type(mods.last()) else { return self.unsupported("type") };
                let op = match mnemonic {
                    "popc" => Int1::Popc,
                    "clz" => Int1::Clz,
                    _ => Int1::Brev,
                };
                let to = if op == Int1::Brev { ty.bits() } else { 32 };
                self.simple(Op::Int1(op, ty), to, &[ty.bits()], operands)?;
            }
            "bfind" => {
                let Some(ty) = int_type(mods.last()) else { return self.unsupported("type") };
                let op = if mods.take("shiftamt") { Int1::BfindShift } else { Int1::Bfind };
                self.simple(Op::Int1(op, ty), 32, &[ty.bits()], operands)?;
            }
            "bfe" | "sad" => {
                let Some(ty) = int_type(mods.last()) else { return self.unsupported("type") };
                let bits = ty.bits();
                let (op, from) =
                    if mnemonic == "bfe" { (Int3::Bfe, [bits, 32, 32]) } else { (Int3::Sad, [bits; 3]) };
                self.simple(Op::Int3(op, ty), bits, &from, operands)?;
            }
            "bfi" => {
                let Some(ty) = bit_type(mods.last()) else { return self.unsupported("type") };
                let bits = ty.bits();
                self.simple(Op::Int3(Int3::Bfi, ty), bits, &[bits, bits, 32, 32], operands)?;
            }
            _ => return self.bits(mnemonic, mods, operands),
        }
        Ok(true)
    }

    fn add(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let Some(ty) = int_type(mods.last()) else { return self.unsupported("type") };
        let (subtract, input, output) =
            (mnemonic.starts_with("sub"), mnemonic.ends_with('c'), mods.take("cc"));
        if input || output {
            return self.carry(ty, subtract, input, output, operands);
        }
        let op = match (subtract, mods.take("sat")) {
            (false, false) => Int2::Add,
            (true, false) => Int2::Sub,
            (false, true) => Int2::AddSat,
            (true, true) => Int2::SubSat,
        };
        if matches!(op, Int2::AddSat | Int2::SubSat) && ty != Int::S32 {
            return self.invalid("`.sat` with a type other than s32");
        }
        self.int2(op, ty, operands)
    }

    /// Extended precision: the carry is kept in a predicate.
    fn carry(
        &mut self,
        ty: Int,
        subtract: bool,
        input: bool,
        output: bool,
        operands: &[Operand],
    ) -> Result<()> {
        let [d, a, b] = operands else { return self.invalid("expected 3 operands") };
        let a = self.source(a, ty.bits())?;
        self.carry_of(ty, [subtract, input, output], d, a, b)
    }

    fn carry_of(
        &mut self,
        ty: Int,
        [subtract, input, output]: [bool; 3],
        d: &Operand,
        a: (RegClass, u16),
        b: &Operand,
    ) -> Result<()> {
        let bits = ty.bits();
        if bits == 16 {
            return self.invalid("a carry of 16 bits");
        }
        let carry = match self.carry {
            Some(reg) => reg,
            None => self.fresh(RegClass::Pred)?,
        };
        self.carry = Some(carry);
        let mut inst = Inst::new(Op::Carry { wide: bits == 64, subtract, input, output });
        inst.set(1, a.0, a.1, false);
        let (class, reg) = self.source(b, bits)?;
        inst.set(2, class, reg, false);
        let (class, reg) = self.destination(d, bits)?;
        inst.set(0, class, reg, true);
        if input {
            inst.set(3, RegClass::Pred, carry, false);
        }
        if output {
            inst.set(4, RegClass::Pred, carry, true);
        }
        self.emit(inst)
    }

    fn product(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let Some(ty) = int_type(mods.last()) else { return self.unsupported("type") };
        let bits = ty.bits();
        let (wide, hi) = (mods.take("wide"), mods.take("hi"));
        if !wide && !hi && !mods.take("lo") {
            return self.invalid("expected `.lo`, `.hi` or `.wide`");
        }
        if wide && bits == 64 {
            return self.invalid("`.wide` of 64 bits");
        }
        match (mnemonic, wide) {
            ("mul", true) => self.simple(Op::MulWide(ty), 2 * bits, &[bits; 2], operands),
            ("mul", false) => self.int2(if hi { Int2::MulHi } else { Int2::Mul }, ty, operands),
            (_, true) => self.simple(Op::MadWide(ty), 2 * bits, &[bits, bits, 2 * bits], operands),
            (_, false) => {
                let op = if hi { Int3::MadHi } else { Int3::Mad };
                self.simple(Op::Int3(op, ty), bits, &[bits; 3], operands)
            }
        }
    }

    /// `mad.lo.cc`, `madc.hi` and kin: a half of the product, then an addition that takes or leaves a carry.
    fn product_carry(&mut self, input: bool, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let Some(ty) = int_type(mods.last()) else { return self.unsupported("type") };
        let (hi, output) = (mods.take("hi"), mods.take("cc"));
        if !hi && !mods.take("lo") {
            return self.invalid("expected `.lo` or `.hi`");
        }
        let [d, a, b, c] = operands else { return self.invalid("expected 4 operands") };
        let bits = ty.bits();
        let mut inst = Inst::new(Op::Int2(if hi { Int2::MulHi } else { Int2::Mul }, ty));
        for (slot, operand) in [(1, a), (2, b)] {
            let (class, reg) = self.source(operand, bits)?;
            inst.set(slot, class, reg, false);
        }
        let class = if bits == 64 { RegClass::R64 } else { RegClass::R32 };
        let half = self.fresh(class)?;
        inst.set(0, class, half, true);
        self.emit(inst)?;
        self.carry_of(ty, [false, input, output], d, (class, half), c)
    }

    fn logic(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let word = mods.last();
        let signed = mnemonic == "shr";
        let Some(ty) = bit_type(word).or_else(|| int_type(word).filter(|_| signed)) else {
            return self.unsupported(format!("type `.{word}`"));
        };
        match mnemonic {
            "not" => self.simple(Op::Int1(Int1::Not, ty), ty.bits(), &[ty.bits()], operands),
            "cnot" => self.simple(Op::Int1(Int1::Cnot, ty), ty.bits(), &[ty.bits()], operands),
            "and" => self.int2(Int2::And, ty, operands),
            "or" => self.int2(Int2::Or, ty, operands),
            "xor" => self.int2(Int2::Xor, ty, operands),
            "shl" => self.int2(Int2::Shl, ty, operands),
            _ => self.int2(Int2::Shr, ty, operands),
        }
    }

    fn predicate_logic(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        mods.last();
        let op = match mnemonic {
            "and" => Op::Pred2(Logic::And),
            "or" => Op::Pred2(Logic::Or),
            "xor" => Op::Pred2(Logic::Xor),
            _ => Op::PredNot,
        };
        let wanted = if op == Op::PredNot { 2 } else { 3 };
        if operands.len() != wanted {
            return self.invalid(format!("expected {wanted} operands, found {}", operands.len()));
        }
        let mut inst = Inst::new(op);
        for (slot, operand) in operands.iter().enumerate() {
            let reg = self.predicate(operand)?;
            inst.set(slot, RegClass::Pred, reg, slot == 0);
        }
        self.emit(inst)
    }

    /// The rarer ones, of 32 bits.
    fn bits(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<bool> {
        match mnemonic {
            "mul24" | "mad24" => {
                let ty = mods.last();
                let hi = mods.take("hi");
                if !matches!(ty, "u32" | "s32") || !hi && !mods.take("lo") {
                    return self.unsupported("form");
                }
                let signed = ty == "s32";
                match mnemonic {
                    "mul24" => self.simple(Op::Mul24 { hi, signed }, 32, &[32; 2], operands)?,
                    _ => self.simple(Op::Mad24 { hi, signed }, 32, &[32; 3], operands)?,
                }
            }
            "lop3" => self.lop3(mods, operands)?,
            "prmt" => {
                mods.take("b32");
                let mode = mods.pick(|part| match part {
                    "f4e" => Some(Permute::F4e),
                    "b4e" => Some(Permute::B4e),
                    "rc8" => Some(Permute::Rc8),
                    "ecl" => Some(Permute::Ecl),
                    "ecr" => Some(Permute::Ecr),
                    "rc16" => Some(Permute::Rc16),
                    _ => None,
                });
                self.simple(Op::Prmt(mode.unwrap_or(Permute::Index)), 32, &[32; 3], operands)?;
            }
            "shf" => {
                mods.take("b32");
                let (left, wrap) = (mods.take("l"), mods.take("wrap"));
                if !left && !mods.take("r") || !wrap && !mods.take("clamp") {
                    return self.invalid("expected `.l` or `.r`, and `.wrap` or `.clamp`");
                }
                self.simple(Op::Shf { left, wrap }, 32, &[32; 3], operands)?;
            }
            "fns" => {
                mods.take("b32");
                self.simple(Op::Fns, 32, &[32; 3], operands)?;
            }
            "bmsk" | "szext" => {
                let ty = mods.last();
                let wrap = mods.take("wrap");
                if !wrap && !mods.take("clamp") {
                    return self.invalid("expected `.wrap` or `.clamp`");
                }
                let op = match (mnemonic, ty) {
                    ("bmsk", "b32") => Op::Bmsk { wrap },
                    ("szext", "u32" | "s32") => Op::Szext { signed: ty == "s32", wrap },
                    _ => return self.unsupported("type"),
                };
                self.simple(op, 32, &[32; 2], operands)?;
            }
            "dp4a" | "dp2a" => {
                let (b, a) = (mods.last(), mods.last());
                if !matches!(a, "u32" | "s32") || !matches!(b, "u32" | "s32") {
                    return self.unsupported("type");
                }
                let (a_signed, b_signed) = (a == "s32", b == "s32");
                let hi = mods.take("hi");
                let op = if mnemonic == "dp4a" {
                    Op::Dp4a { a_signed, b_signed }
                } else if hi || mods.take("lo") {
                    Op::Dp2a { a_signed, b_signed, hi }
                } else {
                    return self.invalid("expected `.lo` or `.hi`");
                };
                self.simple(op, 32, &[32; 3], operands)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn lop3(&mut self, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        mods.take("b32");
        let [d, a, b, c, Operand::Int(table)] = operands else {
            return self.unsupported("a form other than `lop3.b32 d, a, b, c, table`");
        };
        let Ok(table) = u8::try_from(*table) else {
            return self.invalid(format!("expected a table of 8 bits, found {table}"));
        };
        self.simple(Op::Lop3(table), 32, &[32; 3], &[d.clone(), a.clone(), b.clone(), c.clone()])
    }
}
