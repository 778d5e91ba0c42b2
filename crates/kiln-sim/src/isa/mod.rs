//! The decoded instruction set: what the machine executes.
//!
//! Decoding resolves everything that can be known before a launch: registers are dense indices into the register file
//! of their class, immediate operands are registers that hold a constant, labels are indices of instructions, variables
//! are addresses, `.param` variables of functions are registers. What is left is a mnemonic with its modifiers ([`Op`])
//! and the registers that it reads and writes ([`Inst`]).
//!
//! Predicates are one bit a lane. Values of 8, 16 and 32 bits live in 32-bit registers, zero-extended; those of 64 bits
//! in 64-bit registers.

mod allocate;
pub(crate) mod decode;
pub(crate) mod op;
pub(crate) mod program;

pub(crate) use op::*;
pub use program::Param;
pub(crate) use program::*;
