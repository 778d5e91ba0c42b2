//! The syntax tree.

use std::sync::Arc;

/// One PTX file.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// `.version`: major, minor.
    pub version: (u32, u32),
    /// Line of `.version`.
    pub version_line: u32,
    /// `.target`: the architecture and its options.
    pub target: Vec<String>,
    /// `.address_size`: 32 or 64.
    pub address_bits: u32,
    /// Line of `.address_size`; 0 where the text has none.
    pub address_line: u32,
    /// `.file`: number and name.
    pub files: Vec<(u32, Arc<str>)>,
    /// Variables outside functions.
    pub variables: Vec<Variable>,
    /// Kernels and functions, with and without bodies.
    pub functions: Vec<Function>,
}

/// A state space that variables are declared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Device memory.
    Global,
    /// Device memory that kernels cannot write.
    Const,
    /// A block's memory.
    Shared,
    /// A thread's memory.
    Local,
    /// Parameters of kernels and functions.
    Param,
}

/// A declaration that takes memory.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Where it lies.
    pub space: Space,
    /// Alignment in bytes; that of the type where none is given.
    pub align: u64,
    /// Type of an element, without the dot: `f32`.
    pub ty: String,
    /// Elements of an array; `None` for an array of unknown size.
    pub elements: Option<u64>,
    /// Values, flattened.
    pub init: Vec<Init>,
    /// Whether it is declared `.extern`.
    pub external: bool,
    /// Line of the declaration.
    pub line: u32,
}

/// One element of an initialiser.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// An integer.
    Int(i128),
    /// Bits of an f32.
    F32(u32),
    /// Bits of an f64.
    F64(u64),
    /// An address, plus an offset.
    Symbol(String, i64),
}

/// A kernel (`.entry`) or a function (`.func`).
#[derive(Clone, Debug)]
pub struct Function {
    /// Name.
    pub name: String,
    /// Whether it is a kernel.
    pub entry: bool,
    /// Returned values.
    pub returns: Vec<Parameter>,
    /// Parameters.
    pub params: Vec<Parameter>,
    /// Performance and cluster directives: name and numbers (`maxntid`, `[256, 1, 1]`).
    pub directives: Vec<(String, Vec<u32>)>,
    /// Statements; `None` for a declaration.
    pub body: Option<Vec<Statement>>,
    /// Line of the name.
    pub line: u32,
}

/// A parameter or a returned value.
#[derive(Clone, Debug)]
pub enum Parameter {
    /// In the `.param` space.
    Memory(Variable),
    /// In a register: type, name.
    Register(String, String),
}

/// What a body consists of.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `.reg`: type, names; a count `n` stands for the names with 0 to n - 1 after them.
    Registers(String, Vec<(String, Option<u32>)>, u32),
    /// `.shared`, `.local`, `.param` and so on.
    Variable(Variable),
    /// `name:`
    Label(String, u32),
    /// `.loc`: number of the file, line.
    Location(u32, u32),
    /// `name: .branchtargets a, b;` and `.calltargets`.
    Targets(String, Vec<String>),
    /// `name: .callprototype`: bytes of the returned values and of the parameters are in the tree as declared.
    Prototype(String, Vec<Parameter>, Vec<Parameter>),
    /// An instruction.
    Instruction(Instruction),
    /// `{`
    Open,
    /// `}`
    Close,
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// Line, from 1.
    pub line: u32,
    /// `@p` or `@!p`: name, whether negated.
    pub guard: Option<(String, bool)>,
    /// Mnemonic and modifiers, split at the dots: `["ld", "global", "f32"]`.
    pub opcode: Vec<String>,
    /// Operands, destinations first.
    pub operands: Vec<Operand>,
    /// The text without its semicolon.
    pub text: Arc<str>,
}

/// One operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, a variable, a label or a special register with its component (`%tid.x`), and an offset.
    Name(String, i64),
    /// An integer.
    Int(i128),
    /// Bits of an f32.
    F32(u32),
    /// Bits of an f64.
    F64(u64),
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// `(a, b)`: the lists of a call.
    List(Vec<Operand>),
    /// `[base + offset]`, and what follows the comma in `[base, {...}]`.
    Address(Box<Operand>, i64, Vec<Operand>),
    /// `p|q`
    Pair(Box<Operand>, Box<Operand>),
    /// `!p`
    Not(Box<Operand>),
    /// `_`
    Sink,
}
