//! Branches and ends.

use crate::isa::{Inst, Op};
use crate::ptx::ast::Operand;

use super::mods::Mods;
use super::{Decoder, Result};

impl Decoder<'_> {
    pub(super) fn control(&mut self, mnemonic: &str, mods: &mut Mods, operands: &[Operand]) -> Result<bool> {
        match mnemonic {
            "bra" => {
                mods.take("uni");
                let [Operand::Name(name, 0)] = operands else { return self.invalid("expected a label") };
                let label = self.label(name)?;
                self.fixups.push((self.program.code.len(), label));
                self.emit(Inst::new(Op::Branch))?;
            }
            "brx" => {
                mods.take("uni");
                if !mods.take("idx") {
                    return self.invalid("expected `.idx`");
                }
                self.branch_table(operands)?;
            }
            "call" => {
                mods.take("uni");
                self.call(operands)?;
            }
            "ret" => {
                mods.take("uni");
                self.ret()?;
            }
            "exit" => self.emit(Inst::new(Op::Exit))?,
            "trap" => self.emit(Inst::new(Op::Trap))?,
            "nanosleep" => {
                mods.take("u32");
                self.emit(Inst::new(Op::NanoSleep))?;
            }
            // Launches run one after the other, registers are not counted, and performance events go nowhere.
            "griddepcontrol" if mods.take("wait") || mods.take("launch_dependents") => {
                self.emit(Inst::new(Op::Nop))?
            }
            "setmaxnreg" => {
                mods.take("inc");
                mods.take("dec");
                mods.take("sync");
                mods.take("aligned");
                mods.take("u32");
                self.emit(Inst::new(Op::Nop))?;
            }
            "pmevent" => {
                mods.take("mask");
                self.emit(Inst::new(Op::Nop))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn label(&self, name: &str) -> Result<usize> {
        match self.names.label(name) {
            Some(label) => Ok(label),
            None => self.invalid(format!("label `{name}` is not defined")),
        }
    }

    fn branch_table(&mut self, operands: &[Operand]) -> Result<()> {
        let [index, Operand::Name(name, 0)] = operands else {
            return self.invalid("expected an index and a table");
        };
        let Some(targets) = self.names.targets(name).map(<[String]>::to_vec) else {
            return self.invalid(format!("table `{name}` is not defined"));
        };
        let number = self.program.tables.len();
        self.program.tables.push(vec![0; targets.len()]);
        for (entry, target) in targets.iter().enumerate() {
            let label = self.label(target)?;
            self.table_fixups.push((number, entry, label));
        }
        let mut inst = Inst::new(Op::BranchTable);
        let (class, reg) = self.source(index, 32)?;
        inst.set(0, class, reg, false);
        inst.imm = number as i64;
        self.emit(inst)
    }
}
