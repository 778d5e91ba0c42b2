//! Calls. Arguments and results are words in 32-bit registers, copied from one frame to the other.

use crate::isa::{CallSite, Inst, Op, RegClass};
use crate::ptx::ast::Operand;

use super::names::Variable;
use super::{Decoder, Result};

impl Decoder<'_> {
    pub(super) fn call(&mut self, operands: &[Operand]) -> Result<()> {
        let (results, rest) = match operands {
            [Operand::List(results), rest @ ..] => (results.as_slice(), rest),
            rest => (&[][..], rest),
        };
        let [Operand::Name(target, 0), rest @ ..] = rest else { return self.invalid("expected a function") };
        let arguments = match rest {
            [Operand::List(arguments), ..] => arguments.as_slice(),
            _ => &[],
        };
        if !self.functions.contains_key(target.as_str()) {
            match target.as_str() {
                "vprintf" => return self.system_call(Op::Print, results, arguments, 4),
                "__assertfail" => return self.system_call(Op::Assert, results, arguments, 5),
                _ => {}
            }
        }
        let mut site = CallSite::default();
        for argument in arguments {
            let words = self.argument_words(argument)?;
            site.arguments.extend(words);
        }
        let mut after = Vec::new();
        for result in results {
            let words = self.result_words(result, &mut after)?;
            site.results.extend(words);
        }
        let mut inst = Inst::new(Op::Call);
        if let Some((class, reg, bits)) = self.names.register(target) {
            if (class, bits) != (RegClass::R64, 64) {
                return self.invalid(format!("expected a pointer of 64 bits, found `{target}` of {bits}"));
            }
            inst.op = Op::CallIndirect;
            inst.set(0, class, reg, false);
        } else {
            match self.functions.get(target.as_str()) {
                Some(&index) => site.function = Some(index),
                None => {
                    return self
                        .unsupported(format!("function `{target}`, which the module does not define"));
                }
            }
        }
        inst.imm = self.program.calls.len() as i64;
        self.program.calls.push(site);
        self.emit(inst)?;
        for (to, low, high) in after {
            self.join_words(to, low, high)?;
        }
        Ok(())
    }

    /// A function that the driver provides. Its result and the first `words` words of its arguments are the registers.
    fn system_call(
        &mut self,
        op: Op,
        results: &[Operand],
        arguments: &[Operand],
        words: usize,
    ) -> Result<()> {
        let wrong = "expected the parameters that the driver's function has";
        if results.len() != usize::from(op == Op::Print) {
            return self.invalid(wrong);
        }
        let mut inst = Inst::new(op);
        let mut slot = 0;
        for result in results {
            let words = self.result_words(result, &mut Vec::new())?;
            let [word] = words[..] else { return self.invalid("expected a result of 32 bits") };
            inst.set(slot, RegClass::R32, word, true);
            slot += 1;
        }
        let mut given = Vec::new();
        for argument in arguments {
            given.extend(self.argument_words(argument)?);
        }
        if given.len() < words {
            return self.invalid(wrong);
        }
        for word in &given[..words] {
            inst.set(slot, RegClass::R32, *word, false);
            slot += 1;
        }
        self.emit(inst)
    }

    fn argument_words(&mut self, operand: &Operand) -> Result<Vec<u16>> {
        if let Operand::Name(name, 0) = operand
            && let Some(Variable::Words(words)) = self.names.variable(name)
        {
            return Ok(words.clone());
        }
        let (class, reg, _) = self.any_register(operand, 8)?;
        match class {
            RegClass::R64 => {
                let (low, high) = (self.fresh(RegClass::R32)?, self.fresh(RegClass::R32)?);
                self.split_words(low, high, reg)?;
                Ok(vec![low, high])
            }
            _ => Ok(vec![reg]),
        }
    }

    fn result_words(&mut self, operand: &Operand, after: &mut Vec<(u16, u16, u16)>) -> Result<Vec<u16>> {
        if let Operand::Name(name, 0) = operand
            && let Some(Variable::Words(words)) = self.names.variable(name)
        {
            return Ok(words.clone());
        }
        let (class, reg, _) = self.any_register(operand, 8)?;
        match class {
            RegClass::R64 => {
                let (low, high) = (self.fresh(RegClass::R32)?, self.fresh(RegClass::R32)?);
                after.push((reg, low, high));
                Ok(vec![low, high])
            }
            _ => Ok(vec![reg]),
        }
    }

    /// A parameter of the function itself that is declared as a register.
    pub(super) fn words_in(&mut self, class: RegClass, reg: u16) -> Result<Vec<u16>> {
        match class {
            RegClass::R64 => {
                let (low, high) = (self.fresh(RegClass::R32)?, self.fresh(RegClass::R32)?);
                self.join_words(reg, low, high)?;
                Ok(vec![low, high])
            }
            RegClass::R32 => Ok(vec![reg]),
            RegClass::Pred => self.unsupported("a predicate as a parameter"),
        }
    }

    /// A result of the function itself that is declared as a register.
    pub(super) fn declare_result(&mut self, class: RegClass, reg: u16) -> Result<()> {
        match class {
            RegClass::R64 => {
                let (low, high) = (self.fresh(RegClass::R32)?, self.fresh(RegClass::R32)?);
                self.result_registers.push((reg, true));
                self.result_words.extend([low, high]);
            }
            RegClass::R32 => {
                self.result_registers.push((reg, false));
                self.result_words.push(reg);
            }
            RegClass::Pred => return self.unsupported("a predicate as a result"),
        }
        Ok(())
    }

    pub(super) fn ret(&mut self) -> Result<()> {
        if self.entry {
            return self.emit(Inst::new(Op::Exit));
        }
        let mut word = 0;
        for (reg, wide) in self.result_registers.clone() {
            if wide {
                let (low, high) = (self.result_words[word], self.result_words[word + 1]);
                self.split_words(low, high, reg)?;
            }
            word += if wide { 2 } else { 1 };
        }
        self.emit(Inst::new(Op::Ret))
    }
}
