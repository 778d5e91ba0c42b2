//! PTX as text: lexer, syntax tree, parser.
//!
//! This stage knows the shape of the language (directives, declarations, statements, operands) and nothing of what an
//! instruction means; `isa` does. Both fail closed: what they do not know is an error with its line.

pub mod ast;
mod lexer;
mod parser;

pub use parser::parse;

/// Text that is not PTX.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {message}")]
pub struct SyntaxError {
    /// Line, from 1.
    pub line: u32,
    /// What was expected, and what was found.
    pub message: String,
}

impl SyntaxError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> SyntaxError {
        SyntaxError { line, message: message.into() }
    }
}
