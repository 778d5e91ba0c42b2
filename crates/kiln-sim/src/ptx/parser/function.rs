//! Statements.

use std::sync::Arc;

use super::super::ast::{Instruction, Space, Statement};
use super::super::lexer::Token;
use super::{Parser, Result};

/// Deepest nesting of blocks: names are looked up block by block.
const DEEPEST: u32 = 1000;

impl Parser<'_> {
    /// A body with its braces. Nested blocks are kept flat, between [`Statement::Open`] and [`Statement::Close`].
    pub(super) fn body(&mut self) -> Result<Vec<Statement>> {
        self.need_sign('{')?;
        let mut found = Vec::new();
        let mut depth = 1;
        while depth > 0 {
            match self.peek() {
                Some(Token::Sign('{')) => {
                    self.at += 1;
                    depth += 1;
                    if depth > DEEPEST {
                        return self.expected("blocks that are not nested so deeply");
                    }
                    found.push(Statement::Open);
                }
                Some(Token::Sign('}')) => {
                    self.at += 1;
                    depth -= 1;
                    if depth > 0 {
                        found.push(Statement::Close);
                    }
                }
                Some(Token::Dotted(_)) => self.directive(&mut found)?,
                Some(Token::Word(_)) if self.peek_at(1) == Some(&Token::Sign(':')) => {
                    self.label(&mut found)?
                }
                Some(Token::Word(_) | Token::Sign('@')) => {
                    let instruction = self.instruction()?;
                    found.push(Statement::Instruction(instruction));
                }
                Some(Token::Sign(';')) => self.at += 1,
                _ => return self.expected("a statement"),
            }
        }
        Ok(found)
    }

    fn directive(&mut self, into: &mut Vec<Statement>) -> Result<()> {
        let line = self.line();
        match self.peek() {
            Some(Token::Dotted("reg")) => {
                self.at += 1;
                let mut ty = self.need_dotted("a type")?.to_string();
                if matches!(ty.as_str(), "v2" | "v4") {
                    ty = format!("{ty}.{}", self.need_dotted("a type")?);
                }
                let names = self.register_names()?;
                into.push(Statement::Registers(ty, names, line));
            }
            Some(Token::Dotted("loc")) => {
                self.at += 1;
                self.location(into)?;
            }
            Some(Token::Dotted("pragma")) => {
                self.at += 1;
                self.pragma()?;
            }
            Some(Token::Dotted("section")) => {
                self.at += 1;
                self.section()?;
            }
            Some(Token::Dotted("extern")) => {
                self.at += 1;
                into.extend(self.variables(true)?.into_iter().map(Statement::Variable));
            }
            Some(Token::Dotted("weak" | "visible")) => self.at += 1,
            _ => into.extend(self.variables(false)?.into_iter().map(Statement::Variable)),
        }
        Ok(())
    }

    /// `%p<5>, a, b;`
    fn register_names(&mut self) -> Result<Vec<(String, Option<u32>)>> {
        let mut names = Vec::new();
        loop {
            let name = self.need_word("a register's name")?.to_string();
            let count = if self.take_sign('<') {
                let count = self.need_u32("a number of registers")?;
                self.need_sign('>')?;
                Some(count)
            } else {
                None
            };
            names.push((name, count));
            if !self.take_sign(',') {
                break;
            }
        }
        self.need_sign(';')?;
        Ok(names)
    }

    /// `.loc 1 23 5, function_name $L__info_string0, inlined_at 1 20 3`
    fn location(&mut self, into: &mut Vec<Statement>) -> Result<()> {
        let file = self.need_u32("a file's number")?;
        let line = self.need_u32("a line")?;
        self.need_u32("a column")?;
        while self.take_sign(',') {
            match self.need_word("`function_name` or `inlined_at`")? {
                "function_name" => {
                    self.need_word("a label")?;
                    self.offset()?;
                }
                "inlined_at" => {
                    for _ in 0..3 {
                        self.need_u32("a place")?;
                    }
                }
                _ => {
                    self.at -= 1;
                    return self.expected("`function_name` or `inlined_at`");
                }
            }
        }
        into.push(Statement::Location(file, line));
        Ok(())
    }

    /// `name:`, alone or before `.branchtargets`, `.calltargets` or `.callprototype`.
    fn label(&mut self, into: &mut Vec<Statement>) -> Result<()> {
        let line = self.line();
        let name = self.need_word("a label")?.to_string();
        self.need_sign(':')?;
        match self.peek() {
            Some(Token::Dotted("branchtargets" | "calltargets")) => {
                self.at += 1;
                let mut targets = vec![self.need_word("a label")?.to_string()];
                while self.take_sign(',') {
                    targets.push(self.need_word("a label")?.to_string());
                }
                self.need_sign(';')?;
                into.push(Statement::Targets(name, targets));
            }
            Some(Token::Dotted("callprototype")) => {
                self.at += 1;
                let returns = if self.is_sign('(') { self.parameters()? } else { Vec::new() };
                self.need_word("`_`")?;
                let params = if self.is_sign('(') { self.parameters()? } else { Vec::new() };
                while self.take_dotted("noreturn") {}
                self.need_sign(';')?;
                into.push(Statement::Prototype(name, returns, params));
            }
            _ => into.push(Statement::Label(name, line)),
        }
        Ok(())
    }

    fn instruction(&mut self) -> Result<Instruction> {
        let line = self.line();
        let start = self.tokens[self.at].span.0;
        let guard = if self.take_sign('@') {
            let negated = self.take_sign('!');
            Some((self.need_word("a predicate")?.to_string(), negated))
        } else {
            None
        };
        let mut opcode = vec![self.need_word("an instruction")?.to_string()];
        while let Some(&Token::Dotted(modifier)) = self.peek() {
            opcode.push(modifier.to_string());
            self.at += 1;
        }
        let mut operands = Vec::new();
        while !self.is_sign(';') {
            operands.push(self.operand(0)?);
            if !self.take_sign(',') && !self.is_sign(';') {
                return self.expected("`,` or `;`");
            }
        }
        let text = &self.text[start..self.tokens[self.at].span.0];
        self.need_sign(';')?;
        let text = Arc::from(text.split_whitespace().collect::<Vec<_>>().join(" "));
        Ok(Instruction { line, guard, opcode, operands, text })
    }
}

impl Space {
    /// The name that PTX gives it.
    pub fn name(self) -> &'static str {
        match self {
            Space::Global => "global",
            Space::Const => "const",
            Space::Shared => "shared",
            Space::Local => "local",
            Space::Param => "param",
        }
    }
}
