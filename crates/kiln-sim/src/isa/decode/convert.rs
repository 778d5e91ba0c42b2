//! Conversions.

use crate::isa::{Cvt, CvtPair, CvtType, HalfType, Inst, Int, Op, RegClass};
use crate::num::Round;
use crate::ptx::ast::Operand;

use super::float::half_type;
use super::mods::Mods;
use super::{Decoder, Result};

fn cvt_type(word: &str) -> Option<(CvtType, u32)> {
    Some(match word {
        "u8" => (CvtType::U8, 8),
        "s8" => (CvtType::S8, 8),
        "u16" => (CvtType::Int(Int::U16), 16),
        "s16" => (CvtType::Int(Int::S16), 16),
        "u32" => (CvtType::Int(Int::U32), 32),
        "s32" => (CvtType::Int(Int::S32), 32),
        "u64" => (CvtType::Int(Int::U64), 64),
        "s64" => (CvtType::Int(Int::S64), 64),
        "f16" => (CvtType::Half(HalfType::F16), 16),
        "bf16" => (CvtType::Half(HalfType::Bf16), 16),
        "f32" => (CvtType::F32, 32),
        "f64" => (CvtType::F64, 64),
        "tf32" => (CvtType::Tf32, 32),
        _ => return None,
    })
}

fn is_integer(ty: CvtType) -> bool {
    matches!(ty, CvtType::U8 | CvtType::S8 | CvtType::Int(_))
}

impl Decoder<'_> {
    pub(super) fn convert(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<bool> {
        if mnemonic != "cvt" {
            return Ok(false);
        }
        let (from, to) = (mods.last(), mods.last());
        let integral = mods.pick(|part| match part {
            "rni" => Some(Round::Nearest),
            "rzi" => Some(Round::Zero),
            "rmi" => Some(Round::Down),
            "rpi" => Some(Round::Up),
            _ => None,
        });
        let round = mods.rounding().or_else(|| mods.take("rna").then_some(Round::NearestAway));
        let (ftz, sat) = (mods.take("ftz"), mods.take("sat"));
        let (satfinite, relu) = (mods.take("satfinite"), mods.take("relu"));
        let half_pair = half_type(to).filter(|(_, packed)| *packed).map(|(ty, _)| ty);
        let pair = match (to, from, half_pair) {
            (_, "f32", Some(ty)) => {
                Some(CvtPair::Half { ty, round: round.unwrap_or(Round::Nearest), relu, satfinite })
            }
            ("e4m3x2" | "e5m2x2", "f32", _) => Some(CvtPair::Eight { e4m3: to == "e4m3x2", relu }),
            ("e4m3x2" | "e5m2x2", "f16x2", _) => Some(CvtPair::EightFromHalf { e4m3: to == "e4m3x2", relu }),
            ("f16x2", "e4m3x2" | "e5m2x2", _) => {
                Some(CvtPair::HalfFromEight { e4m3: from == "e4m3x2", relu })
            }
            _ => None,
        };
        if let Some(pair) = pair {
            if ftz || sat || integral.is_some() {
                return self.invalid("modifiers of another conversion");
            }
            self.convert_pair(pair, operands)?;
            return Ok(true);
        }
        let (Some((from_ty, from_bits)), Some((to_ty, to_bits))) = (cvt_type(from), cvt_type(to)) else {
            return self.unsupported(format!("conversion from `.{from}` to `.{to}`"));
        };
        if from_ty == CvtType::Tf32 {
            return self.invalid("conversion from `.tf32`");
        }
        self.check_rounding(from_ty, to_ty, integral, round)?;
        let cvt = Cvt {
            to: to_ty,
            from: from_ty,
            round: integral.or(round).unwrap_or(Round::Nearest),
            integral: integral.is_some(),
            ftz,
            sat,
            satfinite,
            relu,
        };
        self.convert_one(cvt, from_bits, to_bits, operands)?;
        Ok(true)
    }

    /// Float to integer needs an integral rounding, a narrowing to float a plain one.
    fn check_rounding(
        &self,
        from: CvtType,
        to: CvtType,
        integral: Option<Round>,
        round: Option<Round>,
    ) -> Result<()> {
        match (is_integer(from), is_integer(to)) {
            (false, true) if integral.is_none() => self.invalid("expected `.rni`, `.rzi`, `.rmi` or `.rpi`"),
            (true, false) if round.is_none() => self.invalid("expected a rounding"),
            (true, true) if integral.or(round).is_some() => self.invalid("a rounding between integers"),
            (false, false) if integral.is_some() && from != to => {
                self.unsupported("an integral rounding between formats")
            }
            _ => Ok(()),
        }
    }

    fn convert_one(&mut self, cvt: Cvt, from_bits: u32, to_bits: u32, operands: &[Operand]) -> Result<()> {
        let [d, a] = operands else {
            return self.invalid(format!("expected 2 operands, found {}", operands.len()));
        };
        let mut inst = Inst::new(Op::Cvt(cvt));
        let (class, reg, found) = self.any_register(a, from_bits)?;
        if !is_integer(cvt.from) && found != from_bits {
            return self.invalid(format!("expected {from_bits} bits, found {found}"));
        }
        inst.set(1, class, reg, false);
        let (class, reg, bits) = self.any_register(d, to_bits)?;
        if !is_integer(cvt.to) && bits != to_bits {
            return self.invalid(format!("expected {to_bits} bits, found {bits}"));
        }
        inst.set(0, class, reg, true);
        inst.imm = i64::from(bits);
        self.emit(inst)
    }

    fn convert_pair(&mut self, pair: CvtPair, operands: &[Operand]) -> Result<()> {
        match pair {
            CvtPair::Half { .. } => self.simple(Op::CvtPair(pair), 32, &[32; 2], operands),
            CvtPair::Eight { .. } => self.simple(Op::CvtPair(pair), 16, &[32; 2], operands),
            CvtPair::EightFromHalf { .. } => self.simple(Op::CvtPair(pair), 16, &[32], operands),
            CvtPair::HalfFromEight { .. } => self.simple(Op::CvtPair(pair), 32, &[16], operands),
        }
    }

    /// A copy of a 32-bit register.
    pub(super) fn copy32(&mut self, to: u16, from: u16) -> Result<()> {
        let mut inst = Inst::new(Op::Mov32);
        inst.set(0, RegClass::R32, to, true);
        inst.set(1, RegClass::R32, from, false);
        self.emit(inst)
    }
}
