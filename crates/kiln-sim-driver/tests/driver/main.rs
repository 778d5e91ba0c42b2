//! The simulator as a program meets it: cudarc, its safe layer and its bindings, on the library under test.

#![allow(unsafe_code)] // cudarc's bindings, and launches; each block says why it is sound

mod accident;
mod child;
mod copies;
mod faults;
mod findings;
mod graphs;
mod launches;
mod memory;
mod misuse;
mod order;
mod program;
mod random;
mod settings;
mod streams;
mod unlisted;
