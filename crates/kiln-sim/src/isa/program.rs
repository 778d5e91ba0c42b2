//! A module, decoded.

use std::collections::HashMap;
use std::sync::Arc;

use super::Op;

/// Index of a register in its class.
pub(crate) type Reg = u16;

/// Registers that an instruction can name.
pub(crate) const SLOTS: usize = 14;

/// Class of a register slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegClass {
    Pred,
    R32,
    R64,
}

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inst {
    pub(crate) op: Op,
    /// Predicate and whether it is negated.
    pub(crate) guard: Option<(Reg, bool)>,
    /// Registers; what each slot means is the operation's.
    pub(crate) r: [Reg; SLOTS],
    /// Class of each slot, two bits each: 0 unused, 1 predicate, 2 32-bit, 3 64-bit.
    pub(crate) classes: u32,
    /// One bit for each slot that is written.
    pub(crate) defs: u16,
    /// Address offset, target, or what else the operation says.
    pub(crate) imm: i64,
}

/// Slot of the address of a load or store.
pub(crate) const ADDRESS: usize = 8;

impl Inst {
    pub(crate) fn new(op: Op) -> Inst {
        Inst { op, guard: None, r: [0; SLOTS], classes: 0, defs: 0, imm: 0 }
    }

    /// The class of a slot, if it is used.
    pub(crate) fn class(&self, slot: usize) -> Option<RegClass> {
        match self.classes >> (2 * slot) & 3 {
            1 => Some(RegClass::Pred),
            2 => Some(RegClass::R32),
            3 => Some(RegClass::R64),
            _ => None,
        }
    }

    pub(crate) fn set(&mut self, slot: usize, class: RegClass, reg: Reg, def: bool) {
        let code = match class {
            RegClass::Pred => 1,
            RegClass::R32 => 2,
            RegClass::R64 => 3,
        };
        self.r[slot] = reg;
        self.classes |= code << (2 * slot);
        self.defs |= u16::from(def) << slot;
    }

    /// Whether a load or store writes the register of its own address.
    pub(crate) fn loads_over_its_address(&self) -> bool {
        let is_address =
            |slot: usize| self.class(slot) == self.class(ADDRESS) && self.r[slot] == self.r[ADDRESS];
        (0..ADDRESS).any(|slot| self.defs >> slot & 1 == 1 && is_address(slot))
    }

    /// Whether a slot holds a register.
    pub(crate) fn has(&self, slot: usize) -> bool {
        self.classes >> (2 * slot) & 3 != 0
    }
}

/// How many registers of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) pred: u32,
    pub(crate) r32: u32,
    pub(crate) r64: u32,
}

/// A call: which of the caller's words go into which of the callee's, and back.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallSite {
    /// Number of the function; none for an indirect call.
    pub(crate) function: Option<usize>,
    /// 32-bit registers of the caller that hold the words of the arguments, in order.
    pub(crate) arguments: Vec<Reg>,
    /// Those that take the words of the results.
    pub(crate) results: Vec<Reg>,
}

/// Operands of `wgmma.mma_async`, and what they are summed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WgmmaType {
    /// f16, to f32.
    F16,
    /// bf16, to f32.
    Bf16,
    /// tf32, to f32.
    Tf32,
    /// Bytes, to s32: whether a's and b's have a sign, and whether the sum saturates.
    Int(bool, bool, bool),
}

/// A matrix operand of `wgmma.mma_async`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WgmmaOperand {
    /// Whether the terms of the sum lie across the lines in memory.
    pub(crate) transposed: bool,
    pub(crate) negated: bool,
}

/// Whether a product is added to the sums so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accumulate {
    Always,
    Never,
    /// As a predicate says, or its opposite.
    If {
        negated: bool,
    },
}

/// A `wgmma.mma_async`: 64 rows, `d.len() / 4` times 8 columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wgmma {
    pub(crate) ty: WgmmaType,
    /// 32-bit registers of the sums.
    pub(crate) d: Vec<Reg>,
    /// Whether a comes from registers.
    pub(crate) a_held: bool,
    pub(crate) a: WgmmaOperand,
    pub(crate) b: WgmmaOperand,
    pub(crate) accumulate: Accumulate,
}

/// A line of PTX and of its source.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) ptx_line: u32,
    pub(crate) text: Arc<str>,
    pub(crate) source: Option<(u32, u32)>,
}

/// One parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Where in the parameter buffer, in bytes.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
}

/// A kernel or function.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: Arc<str>,
    /// Index of the first instruction.
    pub(crate) start: u32,
    pub(crate) registers: Registers,
    /// Constants: 32-bit registers and 64-bit registers to set when it is entered.
    pub(crate) constants32: Vec<(Reg, u32)>,
    pub(crate) constants64: Vec<(Reg, u64)>,
    /// Kernel parameters.
    pub(crate) params: Vec<Param>,
    /// 32-bit registers that hold the words of the parameters and of the results of a function.
    pub(crate) argument_words: Vec<Reg>,
    pub(crate) result_words: Vec<Reg>,
    pub(crate) shared_bytes: u32,
    pub(crate) local_bytes: u32,
    pub(crate) directives: Directives,
    /// Whether blocks may talk to each other through global memory: atomics, ordered accesses.
    pub(crate) communicates: bool,
}

/// Performance and cluster directives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directives {
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required_threads: Option<[u32; 3]>,
    pub(crate) cluster: Option<[u32; 3]>,
}

/// All the code of a module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub(crate) code: Vec<Inst>,
    /// For each instruction, the number of its origin.
    pub(crate) origin_of: Vec<u32>,
    pub(crate) origins: Vec<Origin>,
    pub(crate) functions: Vec<Function>,
    pub(crate) kernels: HashMap<String, usize>,
    pub(crate) calls: Vec<CallSite>,
    pub(crate) wgmmas: Vec<Wgmma>,
    /// Tables of `brx.idx`: indices of instructions.
    pub(crate) tables: Vec<Vec<u32>>,
    pub(crate) files: HashMap<u32, Arc<str>>,
}

/// Address of the first function, for pointers to functions; the others follow at this distance.
pub(crate) const CODE_BASE: u64 = 0x0c0d_e000_0000_0000;
pub(crate) const CODE_STEP: u64 = 16;
