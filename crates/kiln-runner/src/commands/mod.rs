//! One file a command.

pub(crate) mod data;
pub(crate) mod eval;
pub(crate) mod parity;
pub(crate) mod train;
