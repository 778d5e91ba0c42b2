//! Runs PTX on the CPU, and finds races and bad accesses.
//!
//! [`device::Device`] is a GPU without hardware: it has memory, loads PTX as a driver would, and launches kernels. Every
//! access of every thread is checked, and what is found names the instruction, the thread and the memory. A finding means a
//! fault in the program; the simulator is stricter than hardware, never looser, and says where it errs.
//!
//! The way of a kernel: [`ptx`] parses the text, `isa` decodes it into typed instructions, `machine` executes those, one
//! warp at a time, `check` judges the accesses, [`finding`] is what comes of it. [`num`] holds the arithmetic of PTX.

pub mod arch;
mod check;
pub mod device;
pub mod finding;
mod isa;
mod machine;
mod memory;
pub mod num;
pub mod ptx;
pub mod stamp;
