//! One file a command.

pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod parity;
pub(crate) mod profile;
#[cfg(feature = "reference")]
mod random;
pub(crate) mod sweep;
pub(crate) mod train;
