//! The CUDA driver API on top of [`kiln_sim`]: a `libcuda.so` that needs no GPU.
//!
//! A program that talks to the CUDA driver runs unchanged when this library is found under the name `libcuda.so`;
//! `scripts/sim COMMAND...` sees to that. What the driver does is set by `KILN_SIM_*` variables, see the
//! repository's `docs/SIMULATOR.md`.
//!
//! | CUDA | here |
//! |---|---|
//! | an exported call | a function in `api`, listed there by subject; the rest is one list in `api::unsupported` |
//! | a handle | a number, looked up on every use (`handle`) |
//! | a stream | a timeline in vector clocks (`clock`, `order`): what the program ordered, apart from what happens to run first |
//! | an operation | runs at once, in the order of submission, unless a host function runs before it (`queue`, `work`) |
//! | an asynchronous error | stays with its context, and shows at the next call that synchronises (`context`) |
//!
//! Three kinds of trouble are kept apart: a *finding* (the program does something undefined) is reported, breaks
//! its context and gives the process a status of its own (`report`); a *refusal* (the API is misused, or asked for
//! something that the simulator does not have) is a `CUresult` and a line on stderr; a *bug* of the simulator is a
//! panic, caught at the border to C.

#![allow(unsafe_code)] // the border to C; each block says why it is sound

mod abi;
mod api;
mod arch;
mod capture;
mod clock;
mod config;
mod context;
mod driver;
mod entry;
mod ffi;
mod gpu;
mod graph;
mod handle;
mod launch;
mod memory;
mod module;
mod occupancy;
mod order;
mod pool;
mod queue;
mod report;
mod sources;
mod status;
mod stream;
mod work;
