//! From text to tree, within bounds: so many bytes, so deep.
//!
//! # Source
//! The grammar of cel-go, `parser/gen/CEL.g4`; its messages as far as they are known before a grammar tool looks ahead.

use std::sync::Arc;

use super::{
    ast::{Expr, Literal, Node, Op, StructField},
    escape::is_reserved,
    lex::{Token, Word, Wrong, words},
    macros,
};

/// Bytes of an expression.
pub(crate) const TEXT_MAX: usize = 100_000;
/// Levels of an expression.
pub(crate) const DEPTH_MAX: u16 = 128;

const STARTS: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// A message with its place, as cel-go shows it.
pub(crate) fn located(text: &str, at: usize, message: &str) -> String {
    let at = at.min(text.len());
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap_or("").chars().count();
    let shown = text.split('\n').nth(line).unwrap_or("");
    format!("ERROR: <input>:{}:{}: {message}\n | {shown}\n | {}^", line + 1, column + 1, ".".repeat(column))
}

/// Reads an expression.
pub(crate) fn parse(text: &str) -> Result<Node, String> {
    if text.len() > TEXT_MAX {
        return Err(format!(
            "expression code point size exceeds limit: size: {}, limit {TEXT_MAX}",
            text.chars().count()
        ));
    }
    let show = |(at, message): Wrong| located(text, at, &message);
    let tokens = words(text).map_err(show)?;
    let mut parser = Parser { text, tokens, next: 0, nesting: 0 };
    let node = parser.expression().map_err(show)?;
    if *parser.peek() != Word::End {
        return Err(show(parser.unexpected("<EOF>")));
    }
    Ok(node)
}

pub(crate) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
    nesting: u16,
}

type Parsed = Result<Node, Wrong>;

/// A node over its parts; an error when that is too deep.
pub(crate) fn node(at: usize, expr: Expr) -> Parsed {
    let mut node = Node { at: u32::try_from(at).unwrap_or(u32::MAX), depth: 0, expr };
    node.depth = node.children().iter().map(|c| c.depth).max().unwrap_or(0) + 1;
    if node.depth > DEPTH_MAX {
        // Not deeper than one level more than allowed: dropping it is as bounded as the rest.
        return Err((at, format!("expression recursion limit exceeded: {DEPTH_MAX}")));
    }
    Ok(node)
}

impl Parser<'_> {
    fn peek(&self) -> &Word {
        self.tokens.get(self.next).map_or(&Word::End, |t| &t.word)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.text.len(), |t| t.at)
    }

    fn advance(&mut self) -> Word {
        let word = self.peek().clone();
        self.next += 1;
        word
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Word::Sign(s) if *s == sign);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Wrong> {
        if self.eat(sign) { Ok(()) } else { Err(self.unexpected(&format!("'{sign}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> Wrong {
        let found = match self.tokens.get(self.next) {
            Some(Token { word: Word::End, .. }) | None => "<EOF>".to_owned(),
            Some(token) => self.text.get(token.at..token.end).unwrap_or_default().to_owned(),
        };
        (self.at(), format!("Syntax error: mismatched input '{found}' expecting {wanted}"))
    }

    fn expression(&mut self) -> Parsed {
        let at = self.at();
        if self.nesting >= DEPTH_MAX {
            return Err((at, format!("expression recursion limit exceeded: {DEPTH_MAX}")));
        }
        self.nesting += 1;
        let result = self.conditional();
        self.nesting -= 1;
        result
    }

    fn conditional(&mut self) -> Parsed {
        let condition = self.any_of()?;
        let at = self.at();
        if !self.eat("?") {
            return Ok(condition);
        }
        let yes = self.any_of()?;
        self.expect(":")?;
        let no = self.expression()?;
        node(at, Expr::If(Box::new([condition, yes, no])))
    }

    fn any_of(&mut self) -> Parsed {
        self.joined("||", Self::all_of, Expr::Or)
    }

    fn all_of(&mut self) -> Parsed {
        self.joined("&&", |p| p.binary(0), Expr::And)
    }

    fn joined(&mut self, sign: &str, part: fn(&mut Self) -> Parsed, make: fn(Vec<Node>) -> Expr) -> Parsed {
        let first = part(self)?;
        let at = self.at();
        if !self.eat(sign) {
            return Ok(first);
        }
        let mut parts = vec![first, part(self)?];
        while self.eat(sign) {
            parts.push(part(self)?);
        }
        node(at, make(parts))
    }

    fn operator(&self, level: u8) -> Option<Op> {
        let op = match self.peek() {
            Word::Ident(name) if name == "in" => (0, Op::In),
            Word::Sign(sign) => match *sign {
                "==" => (0, Op::Eq),
                "!=" => (0, Op::Ne),
                "<" => (0, Op::Lt),
                "<=" => (0, Op::Le),
                ">" => (0, Op::Gt),
                ">=" => (0, Op::Ge),
                "+" => (1, Op::Add),
                "-" => (1, Op::Sub),
                "*" => (2, Op::Mul),
                "/" => (2, Op::Div),
                "%" => (2, Op::Rem),
                _ => return None,
            },
            _ => return None,
        };
        (op.0 == level).then_some(op.1)
    }

    /// Level 0: comparisons; 1: sums; 2: products.
    fn binary(&mut self, level: u8) -> Parsed {
        if level > 2 {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        while let Some(op) = self.operator(level) {
            let at = self.at();
            self.next += 1;
            let right = self.binary(level + 1)?;
            left = node(at, Expr::Binary(op, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        for (sign, make) in [("!", Expr::Not as fn(Box<Node>) -> Expr), ("-", Expr::Negate)] {
            let mut count = 0_u32;
            while self.eat(sign) {
                count += 1;
            }
            if count == 0 {
                continue;
            }
            // `-9223372036854775808` is one number; two signs undo each other.
            if sign == "-"
                && let Word::Int(n) = *self.peek()
            {
                self.next += 1;
                let n = i128::from(n) * if count % 2 == 1 { -1 } else { 1 };
                let number = i64::try_from(n).map_err(|_| (at, "invalid int literal".to_owned()))?;
                let literal = node(at, Expr::Literal(Literal::Int(number)))?;
                return self.postfix(literal);
            }
            let operand = self.member()?;
            return if count % 2 == 1 { node(at, make(Box::new(operand))) } else { Ok(operand) };
        }
        self.member()
    }

    fn member(&mut self) -> Parsed {
        let primary = self.primary()?;
        self.postfix(primary)
    }

    fn postfix(&mut self, mut left: Node) -> Parsed {
        loop {
            let at = self.at();
            if self.eat(".") {
                left = self.selection(left, at)?;
            } else if self.eat("[") {
                let optional = self.eat("?");
                let index = Box::new(self.expression()?);
                self.expect("]")?;
                left = node(at, Expr::Index { of: Box::new(left), index, optional })?;
            } else if matches!(self.peek(), Word::Sign("{")) && left.dotted().is_some_and(|n| names_a_type(&n)) {
                let name = left.dotted().unwrap_or_default();
                self.next += 1;
                left = self.structure(at, name)?;
            } else {
                return Ok(left);
            }
        }
    }

    fn selection(&mut self, of: Node, at: usize) -> Parsed {
        let optional = self.eat("?");
        let field = match self.peek() {
            Word::Ident(name) if !matches!(name.as_str(), "in" | "true" | "false" | "null") => name.clone(),
            Word::Quoted(name) => name.clone(),
            _ => return Err(self.unexpected("IDENTIFIER")),
        };
        let name_at = self.at();
        self.next += 1;
        let of = Box::new(of);
        if !optional && self.eat("(") {
            let args = self.arguments()?;
            return macros::call(name_at, Some(of), field, args);
        }
        node(at, Expr::Select { of, field, test: false, optional })
    }

    fn arguments(&mut self) -> Result<Vec<Node>, Wrong> {
        let mut args = Vec::new();
        if self.eat(")") {
            return Ok(args);
        }
        loop {
            args.push(self.expression()?);
            if self.eat(")") {
                return Ok(args);
            }
            self.expect(",")?;
        }
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let literal = match self.peek() {
            Word::Sign(_) => return self.bracketed(at),
            Word::Ident(_) => return self.identifier(at),
            Word::End | Word::Quoted(_) => return Err(self.unexpected(STARTS)),
            Word::Int(n) => match i64::try_from(*n) {
                Ok(n) => Literal::Int(n),
                Err(_) => return Err((at, "invalid int literal".to_owned())),
            },
            Word::Uint(n) => Literal::Uint(*n),
            Word::Double(n) => Literal::Double(*n),
            Word::String(s) => Literal::String(Arc::from(s.as_str())),
            Word::Bytes(b) => Literal::Bytes(Arc::from(b.as_slice())),
        };
        self.next += 1;
        node(at, Expr::Literal(literal))
    }

    fn bracketed(&mut self, at: usize) -> Parsed {
        if self.eat("(") {
            let inner = self.expression()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.eat("[") {
            return self.list(at);
        }
        if self.eat("{") {
            return self.map(at);
        }
        if self.eat(".") {
            return self.identifier(at);
        }
        Err(self.unexpected(STARTS))
    }

    fn identifier(&mut self, at: usize) -> Parsed {
        let Word::Ident(name) = self.advance() else {
            self.next -= 1;
            return Err(self.unexpected("IDENTIFIER"));
        };
        let literal = match name.as_str() {
            "true" => Some(Literal::Bool(true)),
            "false" => Some(Literal::Bool(false)),
            "null" => Some(Literal::Null),
            _ => None,
        };
        if let Some(literal) = literal {
            return node(at, Expr::Literal(literal));
        }
        if name == "in" {
            self.next -= 1;
            return Err(self.unexpected(STARTS));
        }
        if is_reserved(&name) {
            return Err((at, format!("reserved identifier: {name}")));
        }
        if self.eat("(") {
            let args = self.arguments()?;
            return macros::call(at, None, name, args);
        }
        node(at, Expr::Ident(name))
    }

    fn list(&mut self, at: usize) -> Parsed {
        let mut items = Vec::new();
        while !self.eat("]") {
            let optional = self.eat("?");
            items.push((self.expression()?, optional));
            if !self.eat(",") {
                self.expect("]")?;
                break;
            }
        }
        node(at, Expr::List(items))
    }

    fn map(&mut self, at: usize) -> Parsed {
        let mut entries = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?, optional));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        node(at, Expr::Map(entries))
    }

    fn structure(&mut self, at: usize, name: String) -> Parsed {
        let mut fields = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let at = u32::try_from(self.at()).unwrap_or(u32::MAX);
            let name = match self.advance() {
                Word::Ident(name) | Word::Quoted(name) => name,
                _ => {
                    self.next -= 1;
                    return Err(self.unexpected("IDENTIFIER"));
                }
            };
            self.expect(":")?;
            fields.push(StructField { at, name, value: self.expression()?, optional });
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        node(at, Expr::Struct { name, fields })
    }
}

/// `Object`, `Object.spec`, `JSONPatch`: what may be built.
fn names_a_type(name: &str) -> bool {
    name.rsplit('.').next().is_some() && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}
