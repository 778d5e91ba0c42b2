//! What names mean: registers, variables, labels, with the scopes of nested blocks.

use std::collections::HashMap;

use crate::isa::{CODE_BASE, CODE_STEP, Inst, Int, Int2, Op, RegClass, Special};
use crate::ptx::ast::{self, Operand, Space, Statement};

use super::{Decoder, Result, Symbols, variable_bytes};

/// What a name that is not a register stands for.
#[derive(Clone, Debug)]
pub(crate) enum Variable {
    /// Device memory, by address.
    Global(u64),
    /// Offset in the block's memory.
    Shared(u64),
    /// What the launch adds to the block's memory: starts where the declared variables of the kernel end.
    DynamicShared,
    /// Offset in the function's local memory.
    Local(u64),
    /// Offset in the kernel's parameters.
    Param(u32),
    /// The 32-bit registers that hold a function's parameter, and its bytes.
    Words(Vec<u16>),
}

/// A register: class, index, declared bits (1 for a predicate).
pub(super) type Register = (RegClass, u16, u32);

#[derive(Default)]
struct Frame {
    registers: HashMap<String, Register>,
    /// Families `%r<100>`: prefix to first register, count.
    families: HashMap<String, (RegClass, u16, u32, u32)>,
    variables: HashMap<String, Variable>,
    targets: HashMap<String, Vec<String>>,
    /// Number of the block, for labels.
    id: usize,
}

/// The scopes of a function.
pub(super) struct Names<'a> {
    symbols: &'a Symbols,
    frames: Vec<Frame>,
    blocks: usize,
    /// Block and name to number.
    labels: HashMap<(usize, String), usize>,
    positions: Vec<usize>,
}

impl<'a> Names<'a> {
    pub(super) fn new(symbols: &'a Symbols) -> Names<'a> {
        Names {
            symbols,
            frames: vec![Frame::default()],
            blocks: 1,
            labels: HashMap::new(),
            positions: Vec::new(),
        }
    }

    /// Numbers the labels, so that branches can go forward.
    pub(super) fn find_labels(&mut self, body: &[Statement]) -> std::result::Result<(), (u32, String)> {
        let (mut stack, mut blocks) = (vec![0], 1);
        for statement in body {
            match statement {
                Statement::Open => {
                    stack.push(blocks);
                    blocks += 1;
                }
                Statement::Close => {
                    stack.pop();
                }
                Statement::Label(name, line) => {
                    let block = stack.last().copied().unwrap_or(0);
                    let number = self.positions.len();
                    if self.labels.insert((block, name.clone()), number).is_some() {
                        return Err((*line, format!("label `{name}` is defined twice")));
                    }
                    self.positions.push(0);
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn open(&mut self) {
        self.frames.push(Frame { id: self.blocks, ..Frame::default() });
        self.blocks += 1;
    }

    pub(super) fn close(&mut self) {
        if self.frames.len() > 1 {
            self.frames.pop();
        }
    }

    fn frame(&mut self) -> &mut Frame {
        if self.frames.is_empty() {
            self.frames.push(Frame::default());
        }
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    pub(super) fn declare(&mut self, name: &str, variable: Variable) {
        self.frame().variables.insert(name.to_string(), variable);
    }

    pub(super) fn declare_targets(&mut self, name: &str, targets: &[String]) {
        self.frame().targets.insert(name.to_string(), targets.to_vec());
    }

    pub(super) fn targets(&self, name: &str) -> Option<&[String]> {
        self.frames.iter().rev().find_map(|frame| frame.targets.get(name)).map(Vec::as_slice)
    }

    pub(super) fn place_label(&mut self, name: &str, position: usize) {
        let id = self.frame().id;
        if let Some(&number) = self.labels.get(&(id, name.to_string())) {
            self.positions[number] = position;
        }
    }

    pub(super) fn label(&self, name: &str) -> Option<usize> {
        self.frames.iter().rev().find_map(|frame| self.labels.get(&(frame.id, name.to_string())).copied())
    }

    pub(super) fn label_position(&self, number: usize) -> usize {
        self.positions[number]
    }

    pub(super) fn register(&self, name: &str) -> Option<Register> {
        self.frames.iter().rev().find_map(|frame| {
            if let Some(found) = frame.registers.get(name) {
                return Some(*found);
            }
            let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
            // A family's prefix may itself end in digits: try each place to cut that leaves a number of 32 bits.
            let digits = digits.max(name.len().saturating_sub(10));
            (digits..name.len()).find_map(|cut| {
                let (class, first, count, bits) = frame.families.get(&name[..cut])?;
                let number = &name[cut..];
                let index: u32 = number.parse().ok()?;
                let plain = number == "0" || !number.starts_with('0');
                (plain && index < *count).then(|| (*class, first + index as u16, *bits))
            })
        })
    }

    pub(super) fn variable(&self, name: &str) -> Option<&Variable> {
        self.frames
            .iter()
            .rev()
            .find_map(|frame| frame.variables.get(name))
            .or_else(|| self.symbols.get(name))
    }
}

/// Class and bits of registers of a type.
pub(super) fn register_class(ty: &str) -> Option<(RegClass, u32)> {
    Some(match ty {
        "pred" => (RegClass::Pred, 1),
        "b8" | "u8" | "s8" => (RegClass::R32, 8),
        "b16" | "u16" | "s16" | "f16" | "bf16" => (RegClass::R32, 16),
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => (RegClass::R32, 32),
        "b64" | "u64" | "s64" | "f64" => (RegClass::R64, 64),
        _ => return None,
    })
}

impl Decoder<'_> {
    pub(super) fn declare_registers(&mut self, ty: &str, name: &str, count: Option<u32>) -> Result<()> {
        let Some((class, bits)) = register_class(ty) else {
            return self.unsupported(format!("register type `.{ty}`"));
        };
        let Some(count) = count else {
            self.declare_register(ty, name)?;
            return Ok(());
        };
        let total = match class {
            RegClass::Pred => &mut self.registers.pred,
            RegClass::R32 => &mut self.registers.r32,
            RegClass::R64 => &mut self.registers.r64,
        };
        let first = *total;
        *total = total.saturating_add(count);
        if *total > 60_000 {
            return self.unsupported("more than 60000 registers of a class");
        }
        self.unused(name)?;
        self.names.frame().families.insert(name.to_string(), (class, first as u16, count, bits));
        Ok(())
    }

    pub(super) fn declare_register(&mut self, ty: &str, name: &str) -> Result<(RegClass, u16)> {
        let Some((class, bits)) = register_class(ty) else {
            return self.unsupported(format!("register type `.{ty}`"));
        };
        self.unused(name)?;
        let reg = self.fresh(class)?;
        self.names.frame().registers.insert(name.to_string(), (class, reg, bits));
        Ok((class, reg))
    }

    /// A name that its block does not have yet.
    pub(super) fn unused(&mut self, name: &str) -> Result<()> {
        let frame = self.names.frame();
        let taken = frame.registers.contains_key(name)
            || frame.families.contains_key(name)
            || frame.variables.contains_key(name);
        if taken { self.invalid(format!("`{name}` is declared twice")) } else { Ok(()) }
    }

    /// A parameter of a function: one 32-bit register for each four bytes.
    pub(super) fn declare_words(&mut self, variable: &ast::Variable) -> Result<Vec<u16>> {
        let bytes = variable_bytes(variable);
        if bytes > 4096 {
            return self.unsupported(format!("a parameter of {bytes} bytes"));
        }
        self.unused(&variable.name)?;
        let words =
            (0..bytes.div_ceil(4)).map(|_| self.fresh(RegClass::R32)).collect::<Result<Vec<u16>>>()?;
        self.names.declare(&variable.name, Variable::Words(words.clone()));
        Ok(words)
    }

    pub(super) fn declare_variable(&mut self, variable: &ast::Variable) -> Result<()> {
        self.line = variable.line;
        self.text = variable.name.as_str().into();
        let bytes = variable_bytes(variable);
        let align = variable.align.max(1);
        self.unused(&variable.name)?;
        match variable.space {
            Space::Shared if variable.external => {
                return self.unsupported("an external shared variable inside a function");
            }
            Space::Shared if !self.entry => {
                return self.unsupported("a shared variable inside a function that is no kernel");
            }
            Space::Shared => {
                let offset = self.shared_bytes.next_multiple_of(align);
                self.shared_bytes = offset + bytes;
                self.names.declare(&variable.name, Variable::Shared(offset));
            }
            Space::Local => {
                let offset = self.local_bytes.next_multiple_of(align);
                self.local_bytes = offset + bytes;
                if self.local_bytes > 512 << 10 {
                    return self.invalid("more than 512 KiB of local memory");
                }
                self.names.declare(&variable.name, Variable::Local(offset));
            }
            Space::Param => {
                self.declare_words(variable)?;
            }
            Space::Global | Space::Const => {
                if self.names.variable(&variable.name).is_none() {
                    return self.unsupported("a global variable inside a function");
                }
            }
        }
        Ok(())
    }

    pub(super) fn constant32(&mut self, value: u32) -> Result<u16> {
        if let Some(&reg) = self.constants32.get(&value) {
            return Ok(reg);
        }
        let reg = self.fresh(RegClass::R32)?;
        self.constants32.insert(value, reg);
        Ok(reg)
    }

    pub(super) fn constant64(&mut self, value: u64) -> Result<u16> {
        if let Some(&reg) = self.constants64.get(&value) {
            return Ok(reg);
        }
        let reg = self.fresh(RegClass::R64)?;
        self.constants64.insert(value, reg);
        Ok(reg)
    }

    fn constant(&mut self, bits: u32, value: u64) -> Result<(RegClass, u16)> {
        Ok(match bits {
            64 => (RegClass::R64, self.constant64(value)?),
            16 => (RegClass::R32, self.constant32(value as u32 & 0xffff)?),
            8 => (RegClass::R32, self.constant32(value as u32 & 0xff)?),
            _ => (RegClass::R32, self.constant32(value as u32)?),
        })
    }

    /// A source of exactly `bits` bits.
    pub(super) fn source(&mut self, operand: &Operand, bits: u32) -> Result<(RegClass, u16)> {
        match operand {
            Operand::Name(name, offset) => match self.names.register(name) {
                Some((class, reg, found)) if found == bits && *offset == 0 => Ok((class, reg)),
                Some((_, _, found)) if *offset == 0 => {
                    self.invalid(format!("expected {bits} bits, found `{name}` of {found}"))
                }
                Some(_) => self.invalid(format!("`{name}` plus an offset")),
                None => self.named_value(name, *offset, bits),
            },
            Operand::Int(value) => {
                let fits = match bits {
                    64 => i64::try_from(*value).is_ok() || u64::try_from(*value).is_ok(),
                    // Compilers print 32-bit values in either sign, and wider ones for 16 bits.
                    _ => i64::try_from(*value).is_ok() || u64::try_from(*value).is_ok(),
                };
                if !fits {
                    return self.invalid(format!("{value} does not fit into 64 bits"));
                }
                self.constant(bits, *value as u64)
            }
            Operand::F32(value) if bits == 32 => self.constant(32, u64::from(*value)),
            Operand::F64(value) if bits == 64 => self.constant(64, *value),
            Operand::F32(value) if bits == 64 => {
                let wide = f64::from(f32::from_bits(*value)).to_bits();
                self.constant(64, wide)
            }
            Operand::F64(value) if bits == 32 => {
                let narrow = (f64::from_bits(*value) as f32).to_bits();
                self.constant(32, u64::from(narrow))
            }
            _ => self.invalid(format!("expected a value of {bits} bits")),
        }
    }

    /// The value of a name that is no register: an address, a special register.
    fn named_value(&mut self, name: &str, offset: i64, bits: u32) -> Result<(RegClass, u16)> {
        if name.starts_with('%') || name == "WARP_SZ" {
            return self.special_value(name, bits);
        }
        let address = match self.names.variable(name) {
            Some(Variable::Global(address)) => address.wrapping_add_signed(offset),
            Some(Variable::Shared(at)) => at.wrapping_add_signed(offset),
            Some(Variable::DynamicShared) => return self.dynamic_shared(offset, bits),
            Some(Variable::Param(at)) => u64::from(*at).wrapping_add_signed(offset),
            Some(Variable::Local(at)) => {
                let wide = bits == 64;
                let class = if wide { RegClass::R64 } else { RegClass::R32 };
                let mut inst = Inst::new(Op::LocalAddress { wide });
                inst.imm = (*at as i64).wrapping_add(offset);
                let reg = self.fresh(class)?;
                inst.set(0, class, reg, true);
                self.emit(inst)?;
                return Ok((class, reg));
            }
            Some(Variable::Words(_)) => {
                return self.unsupported(format!("the address of parameter `{name}`"));
            }
            None => match self.functions.get(name) {
                Some(&index) => CODE_BASE + CODE_STEP * index as u64,
                None => return self.invalid(format!("`{name}` is not declared")),
            },
        };
        if !matches!(bits, 32 | 64) {
            return self.invalid(format!("the address of `{name}` as {bits} bits"));
        }
        self.constant(bits, address)
    }

    /// The address of the memory that the launch adds, which depends on the kernel.
    fn dynamic_shared(&mut self, offset: i64, bits: u32) -> Result<(RegClass, u16)> {
        let (class, ty) = if bits == 64 { (RegClass::R64, Int::U64) } else { (RegClass::R32, Int::U32) };
        let base = self.fresh(class)?;
        let mut inst = Inst::new(Op::ReadSpecial(Special::DynamicBase, bits == 64));
        inst.set(0, class, base, true);
        self.emit(inst)?;
        if offset == 0 {
            return Ok((class, base));
        }
        let (_, offset) = self.constant(bits, offset as u64)?;
        let sum = self.fresh(class)?;
        let mut inst = Inst::new(Op::Int2(Int2::Add, ty));
        inst.set(0, class, sum, true);
        inst.set(1, class, base, false);
        inst.set(2, class, offset, false);
        self.emit(inst)?;
        Ok((class, sum))
    }

    fn special_value(&mut self, name: &str, bits: u32) -> Result<(RegClass, u16)> {
        let Some(special) = special(name) else {
            return self
                .invalid(format!("`{name}` is not declared, and no special register of the simulator"));
        };
        let wide = matches!(special, Special::Clock64 | Special::GlobalTimer | Special::Grid) && bits == 64;
        if bits == 64 && !wide || !matches!(bits, 16 | 32 | 64) {
            return self.invalid(format!("`{name}` as {bits} bits"));
        }
        let class = if wide { RegClass::R64 } else { RegClass::R32 };
        let reg = self.fresh(class)?;
        let mut inst = Inst::new(Op::ReadSpecial(special, wide));
        inst.set(0, class, reg, true);
        self.emit(inst)?;
        Ok((class, reg))
    }

    /// A destination of exactly `bits` bits.
    pub(super) fn destination(&mut self, operand: &Operand, bits: u32) -> Result<(RegClass, u16)> {
        match operand {
            Operand::Sink => {
                let class = if bits == 64 { RegClass::R64 } else { RegClass::R32 };
                Ok((class, self.fresh(class)?))
            }
            Operand::Name(name, 0) => match self.names.register(name) {
                Some((class, reg, found)) if found == bits => Ok((class, reg)),
                Some((_, _, found)) => {
                    self.invalid(format!("expected {bits} bits, found `{name}` of {found}"))
                }
                None => self.invalid(format!("`{name}` is not declared")),
            },
            _ => self.invalid("expected a register"),
        }
    }

    /// A register of any width but a predicate: class, index, bits. For `cvt`, `ld` and `st`, which take wider ones.
    pub(super) fn any_register(&mut self, operand: &Operand, at_least: u32) -> Result<(RegClass, u16, u32)> {
        if let Operand::Name(name, 0) = operand
            && let Some((class, reg, bits)) = self.names.register(name)
        {
            if bits < at_least || class == RegClass::Pred {
                return self.invalid(format!("expected at least {at_least} bits, found `{name}` of {bits}"));
            }
            return Ok((class, reg, bits));
        }
        if *operand == Operand::Sink {
            let class = if at_least == 64 { RegClass::R64 } else { RegClass::R32 };
            return Ok((class, self.fresh(class)?, at_least.max(16)));
        }
        let bits = at_least.max(16);
        let (class, reg) = self.source(operand, bits)?;
        Ok((class, reg, bits))
    }

    /// A predicate, source or destination.
    pub(super) fn predicate(&mut self, operand: &Operand) -> Result<u16> {
        match operand {
            Operand::Name(name, 0) => match self.names.register(name) {
                Some((RegClass::Pred, reg, _)) => Ok(reg),
                Some(_) => self.invalid(format!("expected a predicate, found `{name}`")),
                None => self.invalid(format!("`{name}` is not declared")),
            },
            Operand::Sink => self.fresh(RegClass::Pred),
            _ => self.invalid("expected a predicate"),
        }
    }

    /// A predicate that may be negated. Literals 0 and 1 are allowed for some instructions.
    pub(super) fn signed_predicate(&mut self, operand: &Operand) -> Result<(u16, bool)> {
        match operand {
            Operand::Not(inner) => Ok((self.predicate(inner)?, true)),
            _ => Ok((self.predicate(operand)?, false)),
        }
    }
}

fn special(name: &str) -> Option<Special> {
    let axis = |name: &str| match name {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some((base, part)) = name.split_once('.') {
        let axis = axis(part)?;
        return Some(match base {
            "%tid" => Special::Tid(axis),
            "%ntid" => Special::Ntid(axis),
            "%ctaid" => Special::Ctaid(axis),
            "%nctaid" => Special::Nctaid(axis),
            "%clusterid" => Special::ClusterId(axis),
            "%nclusterid" => Special::NclusterId(axis),
            "%cluster_ctaid" => Special::ClusterCtaid(axis),
            "%cluster_nctaid" => Special::ClusterNctaid(axis),
            _ => return None,
        });
    }
    use crate::isa::Cmp;
    Some(match name {
        "%laneid" => Special::Lane,
        "%warpid" => Special::Warp,
        "%nwarpid" => Special::Nwarp,
        "%smid" => Special::Sm,
        "%nsmid" => Special::Nsm,
        "%gridid" => Special::Grid,
        "%cluster_ctarank" => Special::ClusterCtarank,
        "%cluster_nctarank" => Special::ClusterNctarank,
        "%is_explicit_cluster" => Special::IsExplicitCluster,
        "%lanemask_eq" => Special::LaneMask(Cmp::Eq),
        "%lanemask_lt" => Special::LaneMask(Cmp::Lt),
        "%lanemask_le" => Special::LaneMask(Cmp::Le),
        "%lanemask_gt" => Special::LaneMask(Cmp::Gt),
        "%lanemask_ge" => Special::LaneMask(Cmp::Ge),
        "%clock" => Special::Clock,
        "%clock64" => Special::Clock64,
        "%globaltimer" => Special::GlobalTimer,
        "%globaltimer_lo" => Special::GlobalTimerLow,
        "%envreg1" => Special::EnvReg(1),
        "%envreg2" => Special::EnvReg(2),
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        "WARP_SZ" => Special::WarpSize,
        _ => return None,
    })
}
