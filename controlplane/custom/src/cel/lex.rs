//! The words of an expression.
//!
//! # Source
//! The grammar of cel-go, `parser/gen/CEL.g4`.

/// A word.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Word {
    Int(u64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    Ident(String),
    /// A name in backticks.
    Quoted(String),
    /// An operator or bracket.
    Sign(&'static str),
    End,
}

/// A word and where it begins, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) at: usize,
    pub(crate) end: usize,
    pub(crate) word: Word,
}

/// What is wrong, and where.
pub(crate) type Wrong = (usize, String);

const SIGNS: [&str; 27] = [
    "==", "!=", "<=", ">=", "&&", "||", "[", "]", "{", "}", "(", ")", ".", ",", ":", "?", "+", "-", "*", "/", "%", "!",
    "<", ">", "=", "&", "|",
];

/// Reads all words.
pub(crate) fn words(text: &str) -> Result<Vec<Token>, Wrong> {
    let mut tokens = Vec::new();
    let mut lexer = Lexer { text, at: 0 };
    loop {
        lexer.skip_space();
        let at = lexer.at;
        let word = lexer.word()?;
        let last = word == Word::End;
        tokens.push(Token { at, end: lexer.at, word });
        if last {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take_while(&mut self, test: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !test(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_space(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}'));
            if !self.rest().starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn word(&mut self) -> Result<Word, Wrong> {
        let Some(c) = self.peek() else { return Ok(Word::End) };
        let next_digit = self.rest()[c.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
        if c.is_ascii_digit() || c == '.' && next_digit {
            return self.number();
        }
        if c == '\'' || c == '"' {
            return self.string(false).map(Word::String);
        }
        if c == '`' {
            return self.quoted();
        }
        if c.is_ascii_alphabetic() || c == '_' {
            return self.identifier();
        }
        match SIGNS.iter().find(|s| self.rest().starts_with(**s)) {
            Some(sign) if !matches!(*sign, "=" | "&" | "|") => {
                self.at += sign.len();
                Ok(Word::Sign(sign))
            }
            _ => Err((self.at, format!("Syntax error: token recognition error at: '{c}'"))),
        }
    }

    fn quoted(&mut self) -> Result<Word, Wrong> {
        let start = self.at;
        self.at += 1;
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || "_.-/ ".contains(c)).to_owned();
        if name.is_empty() || self.peek() != Some('`') {
            return Err((start, "Syntax error: token recognition error at: '`'".to_owned()));
        }
        self.at += 1;
        Ok(Word::Quoted(name))
    }

    fn identifier(&mut self) -> Result<Word, Wrong> {
        let start = self.at;
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if matches!(self.peek(), Some('\'' | '"')) {
            let lower = name.to_ascii_lowercase();
            match lower.as_str() {
                "r" => return self.string(true).map(Word::String),
                "b" => return self.bytes(false),
                "br" | "rb" => return self.bytes(true),
                _ => self.at = start + name.len(),
            }
        }
        Ok(Word::Ident(name.to_owned()))
    }

    fn number(&mut self) -> Result<Word, Wrong> {
        let start = self.at;
        if self.rest().starts_with("0x") || self.rest().starts_with("0X") {
            self.at += 2;
            let digits = self.take_while(|c| c.is_ascii_hexdigit());
            return self.whole(start, digits, 16);
        }
        self.take_while(|c| c.is_ascii_digit());
        let mut is_double = false;
        let digit_at = |rest: &str, i: usize| rest.as_bytes().get(i).is_some_and(u8::is_ascii_digit);
        if self.rest().starts_with('.') && digit_at(self.rest(), 1) {
            is_double = true;
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        if self.rest().starts_with(['e', 'E']) {
            let signed = usize::from(matches!(self.rest().as_bytes().get(1), Some(b'+' | b'-')));
            if digit_at(self.rest(), 1 + signed) {
                is_double = true;
                self.at += 1 + signed;
                self.take_while(|c| c.is_ascii_digit());
            }
        }
        let digits = &self.text[start..self.at];
        if is_double {
            return digits.parse().map(Word::Double).map_err(|_| (start, "invalid double literal".to_owned()));
        }
        self.whole(start, digits, 10)
    }

    fn whole(&mut self, start: usize, digits: &str, radix: u32) -> Result<Word, Wrong> {
        let unsigned = self.rest().starts_with(['u', 'U']);
        self.at += usize::from(unsigned);
        let kind = if unsigned { "uint" } else { "int" };
        let number = u64::from_str_radix(digits, radix).map_err(|_| (start, format!("invalid {kind} literal")))?;
        if !unsigned && number > i64::MIN.unsigned_abs() {
            return Err((start, "invalid int literal".to_owned()));
        }
        Ok(if unsigned { Word::Uint(number) } else { Word::Int(number) })
    }

    /// What stands between quotes, as written.
    fn between_quotes(&mut self, raw: bool) -> Result<&'a str, Wrong> {
        let start = self.at;
        let quote = self.peek().unwrap_or('"');
        let triple: String = std::iter::repeat_n(quote, 3).collect();
        let long = self.rest().starts_with(&triple);
        let end = if long { triple.as_str() } else { &triple[..1] };
        self.at += end.len();
        let from = self.at;
        loop {
            let rest = self.rest();
            if rest.starts_with(end) {
                let text = &self.text[from..self.at];
                self.at += end.len();
                return Ok(text);
            }
            match self.peek() {
                None => break,
                Some('\n' | '\r') if !long => break,
                Some('\\') if !raw => {
                    self.at += 1;
                    self.at += self.peek().map_or(0, char::len_utf8);
                }
                Some(c) => self.at += c.len_utf8(),
            }
        }
        Err((start, format!("Syntax error: token recognition error at: '{}'", &self.text[start..self.at])))
    }

    fn string(&mut self, raw: bool) -> Result<String, Wrong> {
        let start = self.at;
        let text = self.between_quotes(raw)?;
        if raw || !text.contains('\\') {
            return Ok(text.to_owned());
        }
        let wrong = || (start, format!("invalid string literal: {text:?}"));
        let mut out = String::with_capacity(text.len());
        unescape(text, &mut |part| match part {
            Part::Char(c) => out.push(c),
            Part::Byte(b) => out.push(char::from(b)),
        })
        .ok_or_else(wrong)?;
        Ok(out)
    }

    fn bytes(&mut self, raw: bool) -> Result<Word, Wrong> {
        let start = self.at;
        let text = self.between_quotes(raw)?;
        if raw {
            return Ok(Word::Bytes(text.as_bytes().to_vec()));
        }
        let mut out = Vec::with_capacity(text.len());
        unescape(text, &mut |part| match part {
            Part::Char(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Part::Byte(b) => out.push(b),
        })
        .ok_or_else(|| (start, "invalid bytes literal".to_owned()))?;
        Ok(Word::Bytes(out))
    }
}

enum Part {
    Char(char),
    Byte(u8),
}

fn unescape(text: &str, put: &mut dyn FnMut(Part)) -> Option<()> {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '\\' {
            put(Part::Char(c));
            continue;
        }
        let e = rest.chars().next()?;
        let (length, radix) = match e {
            'x' | 'X' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='3' => (3, 8),
            _ => {
                put(Part::Char(simple(e)?));
                rest = &rest[e.len_utf8()..];
                continue;
            }
        };
        let from = usize::from(radix == 16);
        let digits = rest.get(from..from + length)?;
        let number = u32::from_str_radix(digits, radix).ok()?;
        put(if matches!(e, 'u' | 'U') {
            Part::Char(char::from_u32(number)?)
        } else {
            Part::Byte(u8::try_from(number).ok()?)
        });
        rest = &rest[from + length..];
    }
    Some(())
}

fn simple(e: char) -> Option<char> {
    Some(match e {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' | '\'' | '"' | '`' | '?' => e,
        _ => return None,
    })
}
