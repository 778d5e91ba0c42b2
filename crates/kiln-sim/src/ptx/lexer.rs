//! Text to tokens.

use super::SyntaxError;

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A name: `ld`, `%r1`, `$L__BB0_1`, `_`.
    Word(&'a str),
    /// A name after a dot: `global` of `ld.global`, `shared::cta`, `2d`.
    Dotted(&'a str),
    /// An integer.
    Int(i128),
    /// Bits of an f32: `0f3F800000`.
    F32(u32),
    /// Bits of an f64: `0d3FF0000000000000`, `1.5`.
    F64(u64),
    /// A string without its quotes.
    Text(&'a str),
    /// Any other sign.
    Sign(char),
}

/// A token and its place.
#[derive(Clone, Debug)]
pub(super) struct Lexeme<'a> {
    pub(super) token: Token<'a>,
    pub(super) line: u32,
    /// Byte offset of its start and end.
    pub(super) span: (usize, usize),
}

/// Splits a text.
pub(super) fn lex(text: &str) -> Result<Vec<Lexeme<'_>>, SyntaxError> {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, line: 1 };
    let mut found = Vec::with_capacity(text.len() / 4);
    while lexer.skip_blank()? {
        let (start, line) = (lexer.at, lexer.line);
        let token = lexer.token()?;
        found.push(Lexeme { token, line, span: (start, lexer.at) });
    }
    Ok(found)
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%')
}

impl<'a> Lexer<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::new(self.line, message)
    }

    /// Skips spaces and comments; whether anything is left.
    fn skip_blank(&mut self) -> Result<bool, SyntaxError> {
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'\n' => {
                    self.line += 1;
                    self.at += 1;
                }
                // Drivers accept, and some tools append, a terminating zero.
                b' ' | b'\t' | b'\r' | 0 => self.at += 1,
                b'/' if self.peek(1) == b'/' => {
                    while self.at < self.bytes.len() && self.peek(0) != b'\n' {
                        self.at += 1;
                    }
                }
                b'/' if self.peek(1) == b'*' => self.skip_comment()?,
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    fn skip_comment(&mut self) -> Result<(), SyntaxError> {
        let opened = self.line;
        self.at += 2;
        while self.at < self.bytes.len() {
            if self.peek(0) == b'*' && self.peek(1) == b'/' {
                self.at += 2;
                return Ok(());
            }
            self.line += u32::from(self.peek(0) == b'\n');
            self.at += 1;
        }
        Err(SyntaxError::new(opened, "a comment that does not end"))
    }

    fn token(&mut self) -> Result<Token<'a>, SyntaxError> {
        let first = self.peek(0);
        if first.is_ascii_digit() {
            return self.number();
        }
        if is_word(first) {
            return Ok(Token::Word(self.word()));
        }
        match first {
            b'.' if is_word(self.peek(1)) => {
                self.at += 1;
                Ok(Token::Dotted(self.dotted()))
            }
            b'"' => self.string(),
            b'{' | b'}' | b'(' | b')' | b'[' | b']' | b'<' | b'>' | b',' | b';' | b':' | b'@' | b'!'
            | b'|' | b'+' | b'-' | b'=' | b'*' | b'~' | b'.' => {
                self.at += 1;
                Ok(Token::Sign(char::from(first)))
            }
            _ => {
                let sign = self.text[self.at..].chars().next().unwrap_or('\u{fffd}');
                Err(self.error(format!("{sign:?} does not belong in PTX")))
            }
        }
    }

    fn word(&mut self) -> &'a str {
        let start = self.at;
        while is_word(self.peek(0)) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// A modifier, with its `::` parts.
    fn dotted(&mut self) -> &'a str {
        let start = self.at;
        self.word();
        while self.peek(0) == b':' && self.peek(1) == b':' && is_word(self.peek(2)) {
            self.at += 2;
            self.word();
        }
        &self.text[start..self.at]
    }

    fn string(&mut self) -> Result<Token<'a>, SyntaxError> {
        self.at += 1;
        let start = self.at;
        while self.at < self.bytes.len() && !matches!(self.peek(0), b'"' | b'\n') {
            self.at += if self.peek(0) == b'\\' && self.peek(1) == b'"' { 2 } else { 1 };
        }
        if self.peek(0) != b'"' || self.at >= self.bytes.len() {
            return Err(self.error("a string that does not end"));
        }
        self.at += 1;
        Ok(Token::Text(&self.text[start..self.at - 1]))
    }

    fn number(&mut self) -> Result<Token<'a>, SyntaxError> {
        let start = self.at;
        let word = self.word();
        let digits = |skip: usize, radix: u32, text: &str| {
            u64::from_str_radix(text.get(skip..).unwrap_or(""), radix)
                .map_err(|_| self.error(format!("{text:?} is not a number")))
        };
        let kind = word.as_bytes().get(1).map(u8::to_ascii_lowercase);
        if word.starts_with('0') && kind == Some(b'f') && word.len() == 10 {
            return Ok(Token::F32(digits(2, 16, word)? as u32));
        }
        if word.starts_with('0') && kind == Some(b'd') && word.len() == 18 {
            return Ok(Token::F64(digits(2, 16, word)?));
        }
        if self.peek(0) == b'.' && self.peek(1).is_ascii_digit()
            || word.bytes().all(|b| b.is_ascii_digit()) && self.peek(0) == b'.'
        {
            return self.decimal(start);
        }
        let plain = word.trim_end_matches('U');
        let value = match (plain.starts_with('0'), kind) {
            (true, Some(b'x')) => digits(2, 16, plain)?,
            (true, Some(b'b')) => digits(2, 2, plain)?,
            (true, Some(_)) if plain.len() > 1 => digits(1, 8, plain)?,
            _ => digits(0, 10, plain)?,
        };
        Ok(Token::Int(i128::from(value)))
    }

    fn decimal(&mut self, start: usize) -> Result<Token<'a>, SyntaxError> {
        self.at += 1;
        self.word();
        if matches!(self.bytes[self.at - 1], b'e' | b'E') && matches!(self.peek(0), b'+' | b'-') {
            self.at += 1;
            self.word();
        }
        let text = &self.text[start..self.at];
        let value: f64 = text.parse().map_err(|_| self.error(format!("{text:?} is not a number")))?;
        Ok(Token::F64(value.to_bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        lex(text).unwrap().into_iter().map(|lexeme| lexeme.token).collect()
    }

    #[test]
    fn an_instruction_splits_at_its_dots() {
        use Token::*;
        assert_eq!(
            tokens("@!%p1 ld.shared::cta.v2.f32 [%rd1+-8]; // x"),
            [
                Sign('@'),
                Sign('!'),
                Word("%p1"),
                Word("ld"),
                Dotted("shared::cta"),
                Dotted("v2"),
                Dotted("f32"),
                Sign('['),
                Word("%rd1"),
                Sign('+'),
                Sign('-'),
                Int(8),
                Sign(']'),
                Sign(';')
            ]
        );
    }

    #[test]
    fn numbers_of_every_kind() {
        use Token::*;
        assert_eq!(
            tokens("0 10 0x1F 0b101 017 0f3F800000 0d3FF0000000000000 1.5 2.5e-3 4294967295U"),
            [
                Int(0),
                Int(10),
                Int(31),
                Int(5),
                Int(15),
                F32(0x3f80_0000),
                F64(1f64.to_bits()),
                F64(1.5f64.to_bits()),
                F64(2.5e-3f64.to_bits()),
                Int(4_294_967_295)
            ]
        );
    }

    #[test]
    fn lines_are_counted_through_comments() {
        let found = lex("a /* \n\n */ b // c\n d").unwrap();
        assert_eq!(found.iter().map(|l| l.line).collect::<Vec<_>>(), [1, 3, 4]);
    }

    #[test]
    fn what_does_not_end_or_belong_is_refused() {
        for text in ["/* a", "\"a", "a ? b", "0xyz", "99999999999999999999", "ä"] {
            assert!(lex(text).is_err(), "{text}");
        }
    }
}
