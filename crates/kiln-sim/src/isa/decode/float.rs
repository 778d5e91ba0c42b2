//! Floating-point arithmetic.

use crate::isa::{Class, Float1, Float2, Half, HalfMode, HalfType, Inst, Mode, Op, RegClass};
use crate::num::Round;
use crate::ptx::ast::Operand;

use super::mods::Mods;
use super::{Decoder, Result};

/// f16, bf16 and their packed forms.
pub(super) fn half_type(word: &str) -> Option<(HalfType, bool)> {
    Some(match word {
        "f16" => (HalfType::F16, false),
        "f16x2" => (HalfType::F16, true),
        "bf16" => (HalfType::Bf16, false),
        "bf16x2" => (HalfType::Bf16, true),
        _ => return None,
    })
}

impl Decoder<'_> {
    pub(super) fn float(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<bool> {
        let ty = mods.peek_last();
        let half = half_type(ty);
        if half.is_none() && !matches!(ty, "f32" | "f64") {
            return Ok(false);
        }
        let known = matches!(
            mnemonic,
            "add"
                | "sub"
                | "mul"
                | "div"
                | "mad"
                | "fma"
                | "min"
                | "max"
                | "neg"
                | "abs"
                | "copysign"
                | "sqrt"
                | "rcp"
                | "rsqrt"
                | "sin"
                | "cos"
                | "ex2"
                | "lg2"
                | "tanh"
                | "testp"
        );
        if !known {
            return Ok(false);
        }
        mods.last();
        match half {
            Some((half, packed)) => self.half(mnemonic, half, packed, mods, operands)?,
            None => self.single_or_double(mnemonic, ty == "f64", mods, operands)?,
        }
        Ok(true)
    }

    fn single_or_double(
        &mut self,
        mnemonic: &str,
        double: bool,
        mods: &mut Mods,
        operands: &[Operand],
    ) -> Result<()> {
        let bits = if double { 64 } else { 32 };
        match mnemonic {
            "testp" => return self.testp(double, mods, operands),
            "mad" | "fma" => {
                let mode = self.mode(mods, !double)?;
                let op = if double { Op::F64Fma(mode) } else { Op::F32Fma(mode) };
                return self.simple(op, bits, &[bits; 3], operands);
            }
            _ => {}
        }
        if let Some(op) = self.float2(mnemonic, double, mods)? {
            let mode = self.mode(mods, !double)?;
            // `copysign d, a, b` takes the sign of a and the value of b.
            return self.simple(
                if double { Op::F64(op, mode) } else { Op::F32(op, mode) },
                bits,
                &[bits; 2],
                operands,
            );
        }
        let op = self.float1(mnemonic, double, mods)?;
        let mode = self.mode(mods, !double || matches!(op, Float1::RcpApprox | Float1::RsqrtApprox))?;
        let op = if double { Op::F64Unary(op, mode) } else { Op::F32Unary(op, mode) };
        self.simple(op, bits, &[bits], operands)
    }

    fn mode(&self, mods: &mut Mods, flushes: bool) -> Result<Mode> {
        let round = mods.rounding().unwrap_or(Round::Nearest);
        let mode = Mode { round, ftz: mods.take("ftz"), sat: mods.take("sat") };
        if !flushes && (mode.ftz || mode.sat) {
            return self.invalid("`.ftz` or `.sat` with f64");
        }
        Ok(mode)
    }

    fn float2(&self, mnemonic: &str, double: bool, mods: &mut Mods) -> Result<Option<Float2>> {
        Ok(Some(match mnemonic {
            "add" => Float2::Add,
            "sub" => Float2::Sub,
            "mul" => Float2::Mul,
            "div" if mods.take("approx") && !double => Float2::DivApprox,
            "div" if mods.take("full") && !double => Float2::DivFull,
            "div" if mods.has_rounding() => Float2::Div,
            "div" => return self.invalid("expected `.approx`, `.full` or a rounding"),
            "min" => Float2::Min { nan: mods.take("NaN"), xorsign: self.xorsign(mods) },
            "max" => Float2::Max { nan: mods.take("NaN"), xorsign: self.xorsign(mods) },
            "copysign" => Float2::CopySign,
            _ => return Ok(None),
        }))
    }

    fn xorsign(&self, mods: &mut Mods) -> bool {
        let (xorsign, abs) = (mods.take("xorsign"), mods.take("abs"));
        xorsign && abs
    }

    fn float1(&self, mnemonic: &str, double: bool, mods: &mut Mods) -> Result<Float1> {
        let approx = mods.take("approx");
        Ok(match (mnemonic, approx) {
            ("neg", false) => Float1::Neg,
            ("abs", false) => Float1::Abs,
            ("sqrt", false) => Float1::Sqrt,
            ("rcp", false) => Float1::Rcp,
            ("sqrt", true) if !double => Float1::SqrtApprox,
            ("rcp", true) => Float1::RcpApprox,
            ("rsqrt", true) => Float1::RsqrtApprox,
            ("sin", true) if !double => Float1::Sin,
            ("cos", true) if !double => Float1::Cos,
            ("ex2", true) if !double => Float1::Ex2,
            ("lg2", true) if !double => Float1::Lg2,
            ("tanh", true) if !double => Float1::Tanh,
            _ => return self.unsupported("form"),
        })
    }

    fn testp(&mut self, double: bool, mods: &mut Mods, operands: &[Operand]) -> Result<()> {
        let class = match mods.last() {
            "finite" => Class::Finite,
            "infinite" => Class::Infinite,
            "number" => Class::Number,
            "notanumber" => Class::NotANumber,
            "normal" => Class::Normal,
            "subnormal" => Class::Subnormal,
            other => return self.invalid(format!("expected a class of numbers, found `.{other}`")),
        };
        let [p, a] = operands else { return self.invalid("expected 2 operands") };
        let mut inst = Inst::new(Op::TestP(class, double));
        let (kind, reg) = self.source(a, if double { 64 } else { 32 })?;
        inst.set(1, kind, reg, false);
        let p = self.predicate(p)?;
        inst.set(0, RegClass::Pred, p, true);
        self.emit(inst)
    }

    fn half(
        &mut self,
        mnemonic: &str,
        ty: HalfType,
        packed: bool,
        mods: &mut Mods,
        operands: &[Operand],
    ) -> Result<()> {
        let op = match mnemonic {
            "add" => Half::Add,
            "sub" => Half::Sub,
            "mul" => Half::Mul,
            "fma" => Half::Fma,
            "neg" => Half::Neg,
            "abs" => Half::Abs,
            "min" => Half::Min { nan: mods.take("NaN"), xorsign: self.xorsign(mods) },
            "max" => Half::Max { nan: mods.take("NaN"), xorsign: self.xorsign(mods) },
            "tanh" if mods.take("approx") => Half::Tanh,
            "ex2" if mods.take("approx") => Half::Ex2,
            _ => return self.unsupported("form"),
        };
        if let Some(round) = mods.rounding()
            && round != Round::Nearest
        {
            return self.invalid("a rounding other than `.rn`");
        }
        let mode =
            HalfMode { ty, packed, ftz: mods.take("ftz"), sat: mods.take("sat"), relu: mods.take("relu") };
        let bits = if packed { 32 } else { 16 };
        let sources: &[u32] = match op {
            Half::Fma => &[bits; 3],
            Half::Neg | Half::Abs | Half::Tanh | Half::Ex2 => &[bits; 1],
            _ => &[bits; 2],
        };
        self.simple(Op::Half(op, mode), bits, sources, operands)
    }
}
