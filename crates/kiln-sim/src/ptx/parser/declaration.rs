//! Variables, parameters and what heads a function.

use super::super::SyntaxError;
use super::super::ast::{Function, Init, Module, Parameter, Space, Variable};
use super::super::lexer::Token;
use super::{Parser, Result};

/// Bytes of a fundamental type.
pub(crate) fn type_bytes(ty: &str) -> Option<u64> {
    Some(match ty {
        "b8" | "u8" | "s8" | "e4m3" | "e5m2" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        "b128" => 16,
        _ => return None,
    })
}

fn space(word: &str) -> Option<Space> {
    Some(match word {
        "global" => Space::Global,
        "const" => Space::Const,
        "shared" => Space::Shared,
        "local" => Space::Local,
        "param" => Space::Param,
        _ => return None,
    })
}

impl Parser<'_> {
    /// A variable or function, from its linking directives on.
    pub(super) fn declaration(&mut self, module: &mut Module) -> Result<()> {
        let mut external = false;
        while let Some(&Token::Dotted(word @ ("extern" | "visible" | "weak" | "common"))) = self.peek() {
            external |= word == "extern";
            self.at += 1;
        }
        match self.peek() {
            Some(Token::Dotted("entry")) => {
                self.at += 1;
                module.functions.push(self.function(true)?);
            }
            Some(Token::Dotted("func")) => {
                self.at += 1;
                module.functions.push(self.function(false)?);
            }
            _ => {
                let found = self.variables(external)?;
                module.variables.extend(found);
            }
        }
        Ok(())
    }

    /// `.global .align 4 .b8 a[8] = {...}, b;`
    pub(super) fn variables(&mut self, external: bool) -> Result<Vec<Variable>> {
        let Some(space) = self.peek().and_then(|token| match token {
            Token::Dotted(word) => space(word),
            _ => None,
        }) else {
            return self.expected("a state space");
        };
        self.at += 1;
        let mut found = vec![self.variable(space, external)?];
        while self.take_sign(',') {
            let (ty, align) = (found[0].ty.clone(), found[0].align);
            found.push(self.declarator(space, external, ty, align, 1)?);
        }
        self.need_sign(';')?;
        Ok(found)
    }

    /// One variable, from its alignment on.
    pub(super) fn variable(&mut self, space: Space, external: bool) -> Result<Variable> {
        let (mut align, mut lanes) = (None, 1);
        loop {
            let line = self.line();
            match self.need_dotted("a type")? {
                "align" => {
                    let bytes = self.need_int("an alignment")?;
                    let valid = u64::try_from(bytes).ok().filter(|n| n.is_power_of_two() && *n <= 1 << 20);
                    align = Some(valid.ok_or_else(|| {
                        SyntaxError::new(
                            line,
                            format!("expected an alignment that is a power of two, found {bytes}"),
                        )
                    })?);
                }
                "v2" => lanes = 2,
                "v4" => lanes = 4,
                // Only says what a pointer parameter points to; its own `.align` is that of the target.
                "ptr" => self.pointer()?,
                ty => {
                    let Some(bytes) = type_bytes(ty) else {
                        self.at -= 1;
                        return self.expected("a type that memory can have");
                    };
                    let ty = ty.to_string();
                    if self.take_dotted("ptr") {
                        self.pointer()?;
                    }
                    return self.declarator(space, external, ty, align.unwrap_or(bytes * lanes), lanes);
                }
            }
        }
    }

    fn pointer(&mut self) -> Result<()> {
        while let Some(&Token::Dotted(word)) = self.peek() {
            match word {
                "global" | "const" | "shared" | "local" | "generic" => self.at += 1,
                "align" => {
                    self.at += 1;
                    self.need_int("an alignment")?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// The name, the dimensions and the values.
    fn declarator(
        &mut self,
        space: Space,
        external: bool,
        ty: String,
        align: u64,
        lanes: u64,
    ) -> Result<Variable> {
        let line = self.line();
        let name = self.need_word("a name")?.to_string();
        let mut elements = Some(lanes);
        while self.take_sign('[') {
            if self.take_sign(']') {
                elements = None;
                continue;
            }
            let count = self.need_int("the size of an array")?;
            self.need_sign(']')?;
            elements = elements
                .zip(u64::try_from(count).ok())
                .and_then(|(a, b)| a.checked_mul(b))
                .filter(|n| *n < 1 << 40)
                .map(Some)
                .ok_or_else(|| SyntaxError::new(line, format!("an array of {count} elements")))?;
        }
        let mut init = Vec::new();
        if self.take_sign('=') {
            self.initialiser(&mut init, 0)?;
            elements = elements.or(Some(init.len() as u64));
        }
        Ok(Variable { name, space, align, ty, elements, init, external, line })
    }

    fn initialiser(&mut self, into: &mut Vec<Init>, depth: u32) -> Result<()> {
        if depth > 8 {
            return self.expected("an initialiser that is not nested so deeply");
        }
        if self.take_sign('{') {
            while !self.take_sign('}') {
                self.initialiser(into, depth + 1)?;
                if !self.take_sign(',') && !self.is_sign('}') {
                    return self.expected("`,` or `}`");
                }
            }
            return Ok(());
        }
        let value = match self.peek().cloned() {
            Some(Token::F32(bits)) => Init::F32(bits),
            Some(Token::F64(bits)) => Init::F64(bits),
            Some(Token::Word("generic")) => {
                self.at += 1;
                self.need_sign('(')?;
                let name = self.need_word("a name")?.to_string();
                self.need_sign(')')?;
                let offset = self.offset()?;
                into.push(Init::Symbol(name, offset));
                return Ok(());
            }
            Some(Token::Word(name)) => {
                self.at += 1;
                let offset = self.offset()?;
                into.push(Init::Symbol(name.to_string(), offset));
                return Ok(());
            }
            _ => {
                into.push(Init::Int(self.need_int("a value")?));
                return Ok(());
            }
        };
        self.at += 1;
        into.push(value);
        Ok(())
    }

    /// `+ 8`, `- 8`, `+ -8` or nothing.
    pub(super) fn offset(&mut self) -> Result<i64> {
        let line = self.line();
        let value = if self.take_sign('+') || self.is_sign('-') { self.need_int("an offset")? } else { 0 };
        i64::try_from(value).map_err(|_| SyntaxError::new(line, format!("an offset of {value}")))
    }

    /// A kernel or function after `.entry` or `.func`.
    fn function(&mut self, entry: bool) -> Result<Function> {
        let returns = if !entry && self.is_sign('(') { self.parameters()? } else { Vec::new() };
        let line = self.line();
        let name = self.need_word("a function's name")?.to_string();
        let params = if self.is_sign('(') { self.parameters()? } else { Vec::new() };
        let directives = self.directives()?;
        let body = if self.is_sign('{') {
            Some(self.body()?)
        } else {
            self.need_sign(';')?;
            None
        };
        Ok(Function { name, entry, returns, params, directives, body, line })
    }

    /// `.maxntid 256, 1, 1` and kin, until the body.
    fn directives(&mut self) -> Result<Vec<(String, Vec<u32>)>> {
        let mut found = Vec::new();
        while let Some(&Token::Dotted(word)) = self.peek() {
            self.at += 1;
            if word == "pragma" {
                self.pragma()?;
                continue;
            }
            let mut numbers = Vec::new();
            if matches!(self.peek(), Some(Token::Int(_))) {
                numbers.push(self.need_u32("a number")?);
                while self.take_sign(',') {
                    numbers.push(self.need_u32("a number")?);
                }
            }
            found.push((word.to_string(), numbers));
        }
        Ok(found)
    }

    /// `(.param .b32 a, .reg .b32 %r1)`
    pub(super) fn parameters(&mut self) -> Result<Vec<Parameter>> {
        self.need_sign('(')?;
        let mut found = Vec::new();
        while !self.take_sign(')') {
            match self.need_dotted("`.param` or `.reg`")? {
                "param" => found.push(Parameter::Memory(self.variable(Space::Param, false)?)),
                "reg" => {
                    let ty = self.need_dotted("a type")?.to_string();
                    found.push(Parameter::Register(ty, self.need_word("a name")?.to_string()));
                }
                _ => {
                    self.at -= 1;
                    return self.expected("`.param` or `.reg`");
                }
            }
            if !self.take_sign(',') && !self.is_sign(')') {
                return self.expected("`,` or `)`");
            }
        }
        Ok(found)
    }
}
