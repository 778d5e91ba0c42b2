//! Operands.

use super::super::ast::Operand;
use super::super::lexer::Token;
use super::{Parser, Result};

impl Parser<'_> {
    /// One operand, with what a `|` joins to it.
    pub(super) fn operand(&mut self, depth: u32) -> Result<Operand> {
        let first = self.single(depth)?;
        if self.take_sign('|') {
            return Ok(Operand::Pair(Box::new(first), Box::new(self.single(depth)?)));
        }
        Ok(first)
    }

    fn single(&mut self, depth: u32) -> Result<Operand> {
        if depth > 8 {
            return self.expected("an operand that is not nested so deeply");
        }
        match self.peek().cloned() {
            Some(Token::Word("_")) => {
                self.at += 1;
                Ok(Operand::Sink)
            }
            Some(Token::Word(word)) => {
                self.at += 1;
                let mut name = word.to_string();
                if let Some(&Token::Dotted(part @ ("x" | "y" | "z" | "w"))) = self.peek() {
                    self.at += 1;
                    name = format!("{name}.{part}");
                }
                let offset = self.offset()?;
                Ok(Operand::Name(name, offset))
            }
            Some(Token::F32(bits)) => self.taken(Operand::F32(bits)),
            Some(Token::F64(bits)) => self.taken(Operand::F64(bits)),
            Some(Token::Int(_)) => Ok(Operand::Int(self.need_int("a number")?)),
            Some(Token::Sign('-')) => match self.peek_at(1) {
                Some(&Token::F32(bits)) => {
                    self.at += 1;
                    self.taken(Operand::F32(bits ^ 1 << 31))
                }
                Some(&Token::F64(bits)) => {
                    self.at += 1;
                    self.taken(Operand::F64(bits ^ 1 << 63))
                }
                _ => Ok(Operand::Int(self.need_int("a number")?)),
            },
            Some(Token::Sign('!')) => {
                self.at += 1;
                Ok(Operand::Not(Box::new(self.single(depth + 1)?)))
            }
            Some(Token::Sign('{')) => {
                self.at += 1;
                Ok(Operand::Vector(self.sequence('}', depth)?))
            }
            Some(Token::Sign('(')) => {
                self.at += 1;
                Ok(Operand::List(self.sequence(')', depth)?))
            }
            Some(Token::Sign('[')) => {
                self.at += 1;
                self.address(depth)
            }
            _ => self.expected("an operand"),
        }
    }

    fn taken(&mut self, operand: Operand) -> Result<Operand> {
        self.at += 1;
        Ok(operand)
    }

    fn sequence(&mut self, close: char, depth: u32) -> Result<Vec<Operand>> {
        let mut found = Vec::new();
        while !self.take_sign(close) {
            found.push(self.operand(depth + 1)?);
            if !self.take_sign(',') && !self.is_sign(close) {
                return self.expected(&format!("`,` or `{close}`"));
            }
        }
        Ok(found)
    }

    /// The rest of `[base + offset, ...]`.
    fn address(&mut self, depth: u32) -> Result<Operand> {
        let base = self.single(depth + 1)?;
        let (base, offset) = match base {
            Operand::Name(name, offset) => (Operand::Name(name, 0), offset),
            Operand::Int(value) => (Operand::Int(value), self.offset()?),
            _ => {
                self.at -= 1;
                return self.expected("a register, a variable or a number");
            }
        };
        let mut rest = Vec::new();
        while self.take_sign(',') {
            rest.push(self.operand(depth + 1)?);
        }
        self.need_sign(']')?;
        Ok(Operand::Address(Box::new(base), offset, rest))
    }
}
