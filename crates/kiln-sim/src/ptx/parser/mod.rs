//! Tokens to the syntax tree, by recursive descent.

mod declaration;
mod function;
mod operand;

use std::sync::Arc;

use super::SyntaxError;
use super::ast::Module;
use super::lexer::{Lexeme, Token, lex};

type Result<T> = std::result::Result<T, SyntaxError>;

/// Parses one PTX file.
///
/// # Errors
/// Text that is not PTX, with the line.
pub fn parse(text: &str) -> Result<Module> {
    let tokens = lex(text)?;
    let mut parser = Parser { text, tokens, at: 0 };
    parser.module()
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Lexeme<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at).map(|lexeme| &lexeme.token)
    }

    fn peek_at(&self, ahead: usize) -> Option<&Token<'a>> {
        self.tokens.get(self.at + ahead).map(|lexeme| &lexeme.token)
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |lexeme| lexeme.line)
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    /// An error at the next token.
    fn expected<T>(&self, what: &str) -> Result<T> {
        let found = match self.peek() {
            None => "the end of the text".to_string(),
            Some(Token::Word(word)) => format!("`{word}`"),
            Some(Token::Dotted(word)) => format!("`.{word}`"),
            Some(Token::Sign(sign)) => format!("`{sign}`"),
            Some(Token::Int(value)) => format!("`{value}`"),
            Some(Token::Text(text)) => format!("{text:?}"),
            Some(Token::F32(_) | Token::F64(_)) => "a floating-point number".to_string(),
        };
        Err(SyntaxError::new(self.line(), format!("expected {what}, found {found}")))
    }

    fn is_sign(&self, sign: char) -> bool {
        self.peek() == Some(&Token::Sign(sign))
    }

    fn take_sign(&mut self, sign: char) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    fn need_sign(&mut self, sign: char) -> Result<()> {
        if self.take_sign(sign) { Ok(()) } else { self.expected(&format!("`{sign}`")) }
    }

    fn take_dotted(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(&Token::Dotted(word));
        self.at += usize::from(found);
        found
    }

    fn need_word(&mut self, what: &str) -> Result<&'a str> {
        match self.peek() {
            Some(&Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.expected(what),
        }
    }

    fn need_dotted(&mut self, what: &str) -> Result<&'a str> {
        match self.peek() {
            Some(&Token::Dotted(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.expected(what),
        }
    }

    fn need_int(&mut self, what: &str) -> Result<i128> {
        let negative = self.take_sign('-');
        match self.peek() {
            Some(&Token::Int(value)) => {
                self.at += 1;
                Ok(if negative { -value } else { value })
            }
            _ => self.expected(what),
        }
    }

    fn need_u32(&mut self, what: &str) -> Result<u32> {
        let line = self.line();
        let value = self.need_int(what)?;
        u32::try_from(value).map_err(|_| SyntaxError::new(line, format!("expected {what}, found {value}")))
    }

    fn module(&mut self) -> Result<Module> {
        let mut module = Module { address_bits: 64, ..Module::default() };
        while self.peek().is_some() {
            self.item(&mut module)?;
        }
        if module.version == (0, 0) {
            return Err(SyntaxError::new(1, "expected `.version`, found none"));
        }
        if module.target.is_empty() {
            return Err(SyntaxError::new(1, "expected `.target`, found none"));
        }
        Ok(module)
    }

    /// One directive at the top.
    fn item(&mut self, module: &mut Module) -> Result<()> {
        let (start, line) = (self.at, self.line());
        match self.need_dotted("a directive")? {
            "version" => (module.version, module.version_line) = (self.version()?, line),
            "target" => {
                module.target.push(self.need_word("an architecture")?.to_string());
                while self.take_sign(',') {
                    module.target.push(self.need_word("a target option")?.to_string());
                }
            }
            "address_size" => {
                (module.address_bits, module.address_line) = (self.need_u32("32 or 64")?, line);
            }
            "file" => module.files.push(self.file()?),
            "section" => self.section()?,
            "pragma" => self.pragma()?,
            "extern" | "visible" | "weak" | "common" | "entry" | "func" | "global" | "const" | "shared" => {
                self.at = start;
                self.declaration(module)?;
            }
            other => {
                self.at = start;
                return Err(SyntaxError::new(self.line(), format!("expected a directive, found `.{other}`")));
            }
        }
        Ok(())
    }

    /// `8.4`, which the lexer took for a number.
    fn version(&mut self) -> Result<(u32, u32)> {
        let line = self.line();
        let (start, end) = self.tokens.get(self.at).map_or((0, 0), |lexeme| lexeme.span);
        let text = &self.text[start..end];
        let parts = text.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        self.at += 1;
        parts.ok_or_else(|| SyntaxError::new(line, format!("expected a version like 8.4, found {text:?}")))
    }

    fn file(&mut self) -> Result<(u32, Arc<str>)> {
        let number = self.need_u32("a file's number")?;
        let Some(Token::Text(name)) = self.next() else {
            self.at -= 1;
            return self.expected("a file's name");
        };
        while self.take_sign(',') {
            self.need_int("a number")?;
        }
        Ok((number, Arc::from(name)))
    }

    fn pragma(&mut self) -> Result<()> {
        loop {
            match self.next() {
                Some(Token::Sign(';')) => return Ok(()),
                Some(Token::Text(_) | Token::Sign(',')) => {}
                _ => {
                    self.at -= 1;
                    return self.expected("a string or `;`");
                }
            }
        }
    }

    /// Debugging information: passed over.
    fn section(&mut self) -> Result<()> {
        while !self.is_sign('{') {
            if self.next().is_none() {
                return self.expected("`{`");
            }
        }
        let mut depth = 0;
        loop {
            match self.next() {
                Some(Token::Sign('{')) => depth += 1,
                Some(Token::Sign('}')) => depth -= 1,
                Some(_) => {}
                None => return self.expected("`}`"),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
