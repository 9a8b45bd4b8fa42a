//! The grammar of label selectors: tokens and a recursive-descent parser, with Kubernetes' error messages.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/labels/selector.go`, `Lexer` and `Parser`.

use std::collections::BTreeSet;

use super::{Operator, Requirement, SelectorError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    End,
    Comma,
    Open,
    Close,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    In,
    NotIn,
    Identifier,
}

/// Whether `in` and `notin` are operators here, or plain words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Operator,
    Words,
}

pub(super) struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    next: usize,
}

type Parsed<T> = Result<T, SelectorError>;

fn fail<T>(found: &str, expected: &str) -> Parsed<T> {
    Err(SelectorError(format!("found '{found}', expected: {expected}")))
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { tokens: lex(text), next: 0 }
    }

    fn peek(&self, context: Context) -> (Token, &'a str) {
        let (token, text) = self.tokens.get(self.next).copied().unwrap_or((Token::End, ""));
        match (context, token) {
            (Context::Words, Token::In | Token::NotIn) => (Token::Identifier, text),
            _ => (token, text),
        }
    }

    fn take(&mut self, context: Context) -> (Token, &'a str) {
        let found = self.peek(context);
        self.next += 1;
        found
    }

    pub(super) fn parse(mut self) -> Parsed<Vec<Requirement>> {
        let mut requirements = Vec::new();
        loop {
            match self.peek(Context::Words) {
                (Token::Identifier | Token::Not, _) => {
                    let requirement =
                        self.requirement().map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
                    requirements.push(requirement);
                    match self.take(Context::Words) {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => match self.peek(Context::Words) {
                            (Token::Identifier | Token::Not, _) => {}
                            (_, found) => return fail(found, "identifier after ','"),
                        },
                        (_, found) => return fail(found, "',' or 'end of string'"),
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, found) => return fail(found, "!, identifier, or 'end of string'"),
            }
        }
    }

    fn requirement(&mut self) -> Parsed<Requirement> {
        let (mut token, mut key) = self.take(Context::Words);
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.take(Context::Words);
        }
        if token != Token::Identifier {
            return fail(key, "identifier");
        }
        super::check_key(key)?;
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, BTreeSet::new());
        }
        if matches!(self.peek(Context::Words).0, Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, BTreeSet::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Parsed<Operator> {
        Ok(match self.take(Context::Operator) {
            (Token::In, _) => Operator::In,
            (Token::NotIn, _) => Operator::NotIn,
            (Token::Equals | Token::DoubleEquals, _) => Operator::Equals,
            (Token::NotEquals, _) => Operator::NotEquals,
            (Token::Greater, _) => Operator::GreaterThan,
            (Token::Less, _) => Operator::LessThan,
            (_, found) => return fail(found, "in, notin, =, ==, !=, gt, lt"),
        })
    }

    fn exact_value(&mut self) -> Parsed<BTreeSet<String>> {
        if matches!(self.peek(Context::Words).0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.take(Context::Words) {
            (Token::Identifier, value) => Ok(BTreeSet::from([value.to_owned()])),
            (_, found) => fail(found, "identifier"),
        }
    }

    fn values(&mut self) -> Parsed<BTreeSet<String>> {
        match self.take(Context::Words) {
            (Token::Open, _) => {}
            (_, found) => return Err(SelectorError(format!("found '{found}' expected: '('"))),
        }
        match self.peek(Context::Words) {
            (Token::Close, _) => {
                self.next += 1;
                Ok(BTreeSet::from([String::new()]))
            }
            (Token::Identifier | Token::Comma, _) => self.value_list(),
            (_, found) => fail(found, "',', ')' or identifier"),
        }
    }

    /// Values up to and including the closing parenthesis; an empty place between commas is the empty value.
    fn value_list(&mut self) -> Parsed<BTreeSet<String>> {
        let mut values = BTreeSet::new();
        let mut after_comma = true;
        loop {
            match self.take(Context::Words) {
                (Token::Identifier, value) if after_comma => {
                    values.insert(value.to_owned());
                    after_comma = false;
                }
                (Token::Comma, _) => {
                    if after_comma {
                        values.insert(String::new());
                    }
                    after_comma = true;
                }
                (Token::Close, _) => {
                    if after_comma {
                        values.insert(String::new());
                    }
                    return Ok(values);
                }
                (_, found) if after_comma => return fail(found, "',', or identifier"),
                (_, found) => return fail(found, "',' or ')'"),
            }
        }
    }
}

fn lex(text: &str) -> Vec<(Token, &str)> {
    const SYMBOLS: [(&str, Token); 9] = [
        ("==", Token::DoubleEquals),
        ("!=", Token::NotEquals),
        ("=", Token::Equals),
        ("!", Token::Not),
        ("(", Token::Open),
        (")", Token::Close),
        (",", Token::Comma),
        (">", Token::Greater),
        ("<", Token::Less),
    ];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', '\r', '\n']);
    while !rest.is_empty() {
        let symbol = SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol));
        let (token, length) = match symbol {
            Some((symbol, token)) => (*token, symbol.len()),
            None => {
                let length = rest.find(|c| " \t\r\n=!(),><".contains(c)).unwrap_or(rest.len());
                let token = match &rest[..length] {
                    "in" => Token::In,
                    "notin" => Token::NotIn,
                    _ => Token::Identifier,
                };
                (token, length)
            }
        };
        let (word, after) = rest.split_at(length);
        tokens.push((token, word));
        rest = after.trim_start_matches([' ', '\t', '\r', '\n']);
    }
    tokens
}
