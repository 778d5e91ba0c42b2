//! The checkers' state: who accessed what, and who knows of it. A page for each says which way it errs.

pub(crate) mod cell;
pub(crate) mod history;
pub(crate) mod reads;
pub(crate) mod shadow;
pub(crate) mod shared;
pub(crate) mod view;
