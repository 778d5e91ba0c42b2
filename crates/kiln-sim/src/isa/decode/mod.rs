//! Syntax tree to program.
//!
//! Fail closed: an instruction or a modifier that is not known here is an error with its line and text. Each family of
//! instructions has a file; [`Mods`] makes sure that every modifier was looked at.

mod arithmetic;
mod call;
mod compare;
mod control;
mod convert;
mod float;
mod memory;
mod mods;
mod moves;
pub(crate) mod names;
mod sync;
mod tensor;
mod wgmma;

use std::collections::HashMap;
use std::sync::Arc;

use crate::ptx::ast::{self, Instruction, Parameter, Statement};

use super::{Directives, Function, Inst, Op, Origin, Param, Program, RegClass, Registers};
use mods::Mods;
use names::Names;
pub(crate) use names::Variable;

/// Why a module was not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DecodeError {
    pub(crate) line: u32,
    pub(crate) message: String,
    /// Correct as far as the simulator can tell, but not implemented.
    pub(crate) unsupported: bool,
}

pub(crate) type Result<T> = std::result::Result<T, DecodeError>;

/// Addresses of the module's variables, and what lies outside.
pub(crate) type Symbols = HashMap<String, Variable>;

/// Bytes of a parameter or variable.
pub(crate) fn variable_bytes(variable: &ast::Variable) -> u64 {
    let element = match variable.ty.as_str() {
        "b8" | "u8" | "s8" | "e4m3" | "e5m2" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b64" | "u64" | "s64" | "f64" => 8,
        "b128" => 16,
        _ => 4,
    };
    element * variable.elements.unwrap_or(0)
}

/// Decodes all functions. `symbols` holds the module's `.global` and `.const` variables with their addresses, and its
/// `.shared` variables, which take the first `shared_bytes` bytes of a block's memory.
pub(crate) fn decode(module: &ast::Module, symbols: &Symbols, shared_bytes: u64) -> Result<Program> {
    let mut program = Program { files: module.files.iter().cloned().collect(), ..Program::default() };
    let defined: Vec<&ast::Function> = module.functions.iter().filter(|f| f.body.is_some()).collect();
    let mut indices = HashMap::new();
    for (index, function) in defined.iter().enumerate() {
        if indices.insert(function.name.as_str(), index).is_some() {
            return Err(DecodeError {
                line: function.line,
                message: format!("`{}` is defined twice", function.name),
                unsupported: false,
            });
        }
    }
    for (index, function) in defined.iter().enumerate() {
        let decoded =
            Decoder::new(&mut program, symbols, shared_bytes, &indices, function).function(function)?;
        if function.entry {
            program.kernels.insert(function.name.clone(), index);
        }
        program.functions.push(decoded);
    }
    check_calls(&program)?;
    communicate_by_calls(&mut program);
    Ok(program)
}

/// A kernel whose own code has no atomics may call some: any kernel that calls, where any function has them, counts.
fn communicate_by_calls(program: &mut Program) {
    let is_kernel = |number: &usize| program.kernels.values().any(|kernel| kernel == number);
    let atomics = (0..program.functions.len())
        .any(|number| program.functions[number].communicates && !is_kernel(&number));
    if !atomics {
        return;
    }
    for number in 0..program.functions.len() {
        let end = program.functions.get(number + 1).map_or(program.code.len(), |next| next.start as usize);
        let code = &program.code[program.functions[number].start as usize..end];
        let calls = code.iter().any(|inst| matches!(inst.op, Op::Call | Op::CallIndirect));
        program.functions[number].communicates |= calls;
    }
}

/// Whether each call passes as many words as the function takes, and takes as many as it returns.
fn check_calls(program: &Program) -> Result<()> {
    for (inst, origin) in program.code.iter().zip(&program.origin_of) {
        let Some(site) = program.calls.get(inst.imm as usize).filter(|_| inst.op == Op::Call) else {
            continue;
        };
        let Some(callee) = site.function.map(|number| &program.functions[number]) else { continue };
        let given = (site.arguments.len(), site.results.len());
        let needed = (callee.argument_words.len(), callee.result_words.len());
        if given != needed {
            let Origin { ptx_line, text, .. } = &program.origins[*origin as usize];
            let message = format!(
                "expected {} words of arguments and {} of results, found {} and {} in `{text}`",
                needed.0, needed.1, given.0, given.1
            );
            return Err(DecodeError { line: *ptx_line, message, unsupported: false });
        }
    }
    Ok(())
}

/// State while one function is decoded.
pub(crate) struct Decoder<'a> {
    program: &'a mut Program,
    names: Names<'a>,
    functions: &'a HashMap<&'a str, usize>,
    /// First instruction of the function.
    start: usize,
    registers: Registers,
    constants32: HashMap<u32, u16>,
    constants64: HashMap<u64, u16>,
    /// What `cc` of the extended-precision instructions is kept in.
    carry: Option<u16>,
    shared_bytes: u64,
    local_bytes: u64,
    entry: bool,
    result_registers: Vec<(u16, bool)>,
    result_words: Vec<u16>,
    communicates: bool,
    /// The statement at hand.
    line: u32,
    text: Arc<str>,
    guard: Option<(u16, bool)>,
    location: Option<(u32, u32)>,
    origin: u32,
    /// Branches to labels that are yet to come: instruction, label.
    fixups: Vec<(usize, usize)>,
    table_fixups: Vec<(usize, usize, usize)>,
}

impl<'a> Decoder<'a> {
    fn new(
        program: &'a mut Program,
        symbols: &'a Symbols,
        shared_bytes: u64,
        functions: &'a HashMap<&'a str, usize>,
        function: &'a ast::Function,
    ) -> Decoder<'a> {
        let start = program.code.len();
        Decoder {
            program,
            names: Names::new(symbols),
            functions,
            start,
            registers: Registers::default(),
            constants32: HashMap::new(),
            constants64: HashMap::new(),
            carry: None,
            shared_bytes,
            local_bytes: 0,
            entry: function.entry,
            result_registers: Vec::new(),
            result_words: Vec::new(),
            communicates: false,
            line: function.line,
            text: Arc::from(function.name.as_str()),
            guard: None,
            location: None,
            origin: 0,
            fixups: Vec::new(),
            table_fixups: Vec::new(),
        }
    }

    fn invalid<T>(&self, message: impl Into<String>) -> Result<T> {
        let message = format!("{} in `{}`", message.into(), self.text);
        Err(DecodeError { line: self.line, message, unsupported: false })
    }

    fn unsupported<T>(&self, message: impl Into<String>) -> Result<T> {
        let message = format!("{} in `{}`", message.into(), self.text);
        Err(DecodeError { line: self.line, message, unsupported: true })
    }

    fn function(mut self, function: &'a ast::Function) -> Result<Function> {
        let body = function.body.as_deref().unwrap_or(&[]);
        self.names.find_labels(body).map_err(|(line, message)| DecodeError {
            line,
            message,
            unsupported: false,
        })?;
        self.new_origin();
        let (params, argument_words) = self.parameters(function)?;
        for statement in body {
            self.statement(statement)?;
        }
        self.guard = None;
        self.emit(Inst::new(if function.entry { Op::Exit } else { Op::Ret }))?;
        self.resolve_labels()?;
        self.finish(function, params, argument_words)
    }

    fn finish(
        self,
        function: &ast::Function,
        params: Vec<Param>,
        argument_words: Vec<u16>,
    ) -> Result<Function> {
        let fits = |bytes: u64, what: &str| {
            u32::try_from(bytes).map_err(|_| DecodeError {
                line: function.line,
                message: format!("{bytes} bytes of {what} memory in `{}`", function.name),
                unsupported: false,
            })
        };
        let mut decoded = Function {
            name: Arc::from(function.name.as_str()),
            start: self.start as u32,
            registers: self.registers,
            constants32: self.constants32.iter().map(|(&value, &reg)| (reg, value)).collect(),
            constants64: self.constants64.iter().map(|(&value, &reg)| (reg, value)).collect(),
            params,
            argument_words,
            result_words: self.result_words,
            shared_bytes: fits(self.shared_bytes, "shared")?,
            local_bytes: fits(self.local_bytes.next_multiple_of(16), "local")?,
            directives: directives(function)?,
            communicates: self.communicates,
        };
        decoded.constants32.sort_unstable();
        decoded.constants64.sort_unstable();
        let start = self.start;
        super::allocate::allocate(self.program, &mut decoded, start);
        Ok(decoded)
    }

    /// Parameters of a kernel have offsets; those of a function are words in registers.
    fn parameters(&mut self, function: &'a ast::Function) -> Result<(Vec<Param>, Vec<u16>)> {
        let (mut params, mut words, mut offset) = (Vec::new(), Vec::new(), 0u64);
        for parameter in &function.params {
            match parameter {
                Parameter::Memory(variable) if function.entry => {
                    let bytes = variable_bytes(variable);
                    offset = offset.next_multiple_of(variable.align.max(1));
                    if offset + bytes > 32764 {
                        return self.invalid("parameters of more than 32764 bytes");
                    }
                    self.unused(&variable.name)?;
                    self.names.declare(&variable.name, Variable::Param(offset as u32));
                    params.push(Param { offset: offset as u32, size: bytes as u32 });
                    offset += bytes;
                }
                Parameter::Memory(variable) => words.extend(self.declare_words(variable)?),
                Parameter::Register(ty, name) => {
                    let (class, reg) = self.declare_register(ty, name)?;
                    words.extend(self.words_in(class, reg)?);
                }
            }
        }
        for parameter in &function.returns {
            match parameter {
                Parameter::Memory(variable) => {
                    let found = self.declare_words(variable)?;
                    self.result_words.extend(found);
                }
                Parameter::Register(ty, name) => {
                    let (class, reg) = self.declare_register(ty, name)?;
                    self.declare_result(class, reg)?;
                }
            }
        }
        Ok((params, words))
    }

    fn statement(&mut self, statement: &'a Statement) -> Result<()> {
        match statement {
            Statement::Registers(ty, names, line) => {
                self.line = *line;
                self.text = Arc::from(format!(".reg .{ty}"));
                for (name, count) in names {
                    self.declare_registers(ty, name, *count)?;
                }
            }
            Statement::Variable(variable) => self.declare_variable(variable)?,
            Statement::Label(name, line) => {
                self.line = *line;
                self.names.place_label(name, self.program.code.len());
            }
            Statement::Location(file, line) => self.location = Some((*file, *line)),
            Statement::Targets(name, targets) => self.names.declare_targets(name, targets),
            Statement::Prototype(..) => {}
            Statement::Open => self.names.open(),
            Statement::Close => self.names.close(),
            Statement::Instruction(instruction) => self.instruction(instruction)?,
        }
        Ok(())
    }

    fn new_origin(&mut self) {
        self.origin = self.program.origins.len() as u32;
        let origin = Origin { ptx_line: self.line, text: self.text.clone(), source: self.location };
        self.program.origins.push(origin);
    }

    fn instruction(&mut self, instruction: &'a Instruction) -> Result<()> {
        self.line = instruction.line;
        self.text = instruction.text.clone();
        self.guard = None;
        self.new_origin();
        if let Some((name, negated)) = &instruction.guard {
            let reg = self.predicate(&ast::Operand::Name(name.clone(), 0))?;
            self.guard = Some((reg, *negated));
        }
        let (Some(mnemonic), operands) = (instruction.opcode.first(), &instruction.operands) else {
            return self.invalid("no mnemonic");
        };
        let mut mods = Mods::new(&instruction.opcode[1..]);
        let known = self.arithmetic(mnemonic, &mut mods, operands)?
            || self.float(mnemonic, &mut mods, operands)?
            || self.compare(mnemonic, &mut mods, operands)?
            || self.convert(mnemonic, &mut mods, operands)?
            || self.moves(mnemonic, &mut mods, operands)?
            || self.memory(mnemonic, &mut mods, operands)?
            || self.control(mnemonic, &mut mods, operands)?
            || self.sync(mnemonic, &mut mods, operands)?
            || self.tensor(mnemonic, &mut mods, operands)?
            || self.wgmma(mnemonic, &mut mods, operands)?;
        if !known {
            return self.unsupported(format!("instruction `{mnemonic}`"));
        }
        match mods.left() {
            Some(modifier) => self.unsupported(format!("modifier `.{modifier}`")),
            None => Ok(()),
        }
    }

    /// Appends an instruction, under the guard of the statement at hand.
    fn emit(&mut self, mut inst: Inst) -> Result<()> {
        inst.guard = self.guard;
        if self.program.code.len() >= u32::MAX as usize / 2 {
            return self.invalid("too many instructions");
        }
        self.program.code.push(inst);
        self.program.origin_of.push(self.origin);
        Ok(())
    }

    fn fresh(&mut self, class: RegClass) -> Result<u16> {
        let count = match class {
            RegClass::Pred => &mut self.registers.pred,
            RegClass::R32 => &mut self.registers.r32,
            RegClass::R64 => &mut self.registers.r64,
        };
        let reg = *count;
        *count += 1;
        match u16::try_from(reg) {
            Ok(reg) => Ok(reg),
            Err(_) => self.unsupported("more than 65536 registers of a class"),
        }
    }

    fn resolve_labels(&mut self) -> Result<()> {
        for (inst, label) in std::mem::take(&mut self.fixups) {
            self.program.code[inst].imm = self.names.label_position(label) as i64;
        }
        for (table, entry, label) in std::mem::take(&mut self.table_fixups) {
            self.program.tables[table][entry] = self.names.label_position(label) as u32;
        }
        Ok(())
    }
}

fn directives(function: &ast::Function) -> Result<Directives> {
    let mut found = Directives::default();
    for (name, numbers) in &function.directives {
        let mut dims = [1; 3];
        for (dim, number) in dims.iter_mut().zip(numbers) {
            *dim = *number;
        }
        match name.as_str() {
            "maxntid" => found.max_threads = Some(dims),
            "reqntid" => found.required_threads = Some(dims),
            "reqnctapercluster" => found.cluster = Some(dims),
            // Bounds for the compiler's register allocation, and promises about the launch that do not change what runs.
            "minnctapersm" | "maxnreg" | "maxclusterrank" | "explicitcluster" | "blocksareclusters"
            | "noreturn" => {}
            _ => {
                return Err(DecodeError {
                    line: function.line,
                    message: format!("directive `.{name}` of `{}`", function.name),
                    unsupported: true,
                });
            }
        }
        if dims.contains(&0) {
            return Err(DecodeError {
                line: function.line,
                message: format!("directive `.{name}` of `{}` with a zero", function.name),
                unsupported: false,
            });
        }
    }
    Ok(found)
}
