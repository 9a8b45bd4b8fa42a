//! The shell's grammar: from text to what is to be run. Words keep their quotes; they are expanded when they are used.

use std::{iter::Peekable, str::Chars};

/// What is wrong with a text that only lacks its end.
pub const UNFINISHED: &str = "unexpected end";

/// Deepest nesting.
const DEPTH_MAX: u32 = 64;

/// Something to run.
#[derive(Debug, PartialEq)]
pub enum Item {
    Simple(Simple),
    Pipe(Vec<Item>),
    And(Box<Item>, Box<Item>),
    Or(Box<Item>, Box<Item>),
    Not(Box<Item>),
    Group(Vec<Item>),
    If(Vec<(Vec<Item>, Vec<Item>)>, Vec<Item>),
    While { condition: Vec<Item>, until: bool, body: Vec<Item> },
    For(String, Vec<String>, Vec<Item>),
}

/// One command.
#[derive(Debug, Default, PartialEq)]
pub struct Simple {
    pub assignments: Vec<(String, String)>,
    pub words: Vec<String>,
    pub redirects: Vec<(Redirect, String)>,
}

/// Where a stream goes: 1 is output, 2 is errors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Redirect {
    Input,
    Output(usize),
    Append(usize),
    ErrorsToOutput,
    OutputToErrors,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Operator(&'static str),
}

/// Reads a text.
pub fn parse(text: &str) -> Result<Vec<Item>, String> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let items = parser.list(&[])?;
    match parser.peek() {
        None => Ok(items),
        Some(token) => Err(format!("{token:?} is unexpected")),
    }
}

const OPERATORS: &[&str] =
    &["&&", "||", ";;", "2>&1", "1>&2", ">&2", "2>>", "1>>", "2>", "1>", ">>", ">", "<", "|", ";", "(", ")", "\n"];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r']);
        if let Some(behind) = rest.strip_prefix("\\\n") {
            rest = behind;
            continue;
        }
        if rest.starts_with('#') {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
            continue;
        }
        if rest.is_empty() {
            return Ok(tokens);
        }
        if let Some(operator) = OPERATORS.iter().copied().find(|operator| rest.starts_with(operator)) {
            tokens.push(Token::Operator(operator));
            rest = &rest[operator.len()..];
            continue;
        }
        if rest.starts_with('&') {
            return Err("jobs in the background are not understood here".to_owned());
        }
        let length = word_length(rest)?;
        tokens.push(Token::Word(rest[..length].to_owned()));
        rest = &rest[length..];
    }
}

/// Bytes of the word that begins here.
fn word_length(text: &str) -> Result<usize, String> {
    let mut chars = text.chars().peekable();
    let mut length = 0;
    while let Some(c) = chars.peek().copied() {
        if matches!(c, ' ' | '\t' | '\r' | '\n' | ';' | '|' | '&' | '<' | '>' | '(' | ')') {
            break;
        }
        chars.next();
        length += c.len_utf8();
        match c {
            '\\' => length += chars.next().ok_or(UNFINISHED)?.len_utf8(),
            '\'' | '"' | '`' => length += quoted(c, &mut chars)?,
            '$' if chars.peek() == Some(&'(') => length += nested('(', ')', &mut chars)?,
            '$' if chars.peek() == Some(&'{') => length += nested('{', '}', &mut chars)?,
            _ => {}
        }
    }
    Ok(length)
}

/// Bytes up to the end of a quotation.
fn quoted(quote: char, chars: &mut Peekable<Chars<'_>>) -> Result<usize, String> {
    let mut length = 0;
    loop {
        let c = chars.next().ok_or(UNFINISHED)?;
        length += c.len_utf8();
        match c {
            _ if c == quote => return Ok(length),
            '\\' if quote != '\'' => length += chars.next().ok_or(UNFINISHED)?.len_utf8(),
            '$' if quote == '"' && chars.peek() == Some(&'(') => length += nested('(', ')', chars)?,
            _ => {}
        }
    }
}

/// Bytes of what stands in brackets.
fn nested(open: char, close: char, chars: &mut Peekable<Chars<'_>>) -> Result<usize, String> {
    let (mut length, mut depth) = (0, 0);
    loop {
        let c = chars.next().ok_or(UNFINISHED)?;
        length += c.len_utf8();
        match c {
            _ if c == open => depth += 1,
            _ if c == close => {
                depth -= 1;
                if depth == 0 {
                    return Ok(length);
                }
            }
            '\'' | '"' => length += quoted(c, chars)?,
            '\\' => length += chars.next().ok_or(UNFINISHED)?.len_utf8(),
            _ => {}
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn is_operator(&self, operators: &[&str]) -> bool {
        matches!(self.peek(), Some(Token::Operator(o)) if operators.contains(o))
    }

    fn is_word(&self, words: &[&str]) -> bool {
        matches!(self.peek(), Some(Token::Word(w)) if words.contains(&w.as_str()))
    }

    fn take_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(&[operator]);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        match self.peek() {
            Some(Token::Word(found)) if found == word => {
                self.at += 1;
                Ok(())
            }
            Some(token) => Err(format!("{word} is expected, not {token:?}")),
            None => Err(UNFINISHED.to_owned()),
        }
    }

    fn gap(&mut self) {
        while self.is_operator(&[";", "\n"]) {
            self.at += 1;
        }
    }

    /// Commands up to one of these words, or the end.
    fn list(&mut self, ends: &[&str]) -> Result<Vec<Item>, String> {
        let mut items = Vec::new();
        loop {
            self.gap();
            if self.peek().is_none() || self.is_operator(&[")"]) || self.is_word(ends) {
                return Ok(items);
            }
            items.push(self.and_or()?);
            if !self.is_operator(&[";", "\n", ")"]) && self.peek().is_some() {
                return Err(format!("{:?} is unexpected", self.peek()));
            }
        }
    }

    fn and_or(&mut self) -> Result<Item, String> {
        let mut item = self.pipe()?;
        loop {
            let and = self.is_operator(&["&&"]);
            if !and && !self.is_operator(&["||"]) {
                return Ok(item);
            }
            self.at += 1;
            while self.take_operator("\n") {}
            let next = Box::new(self.pipe()?);
            item = if and { Item::And(Box::new(item), next) } else { Item::Or(Box::new(item), next) };
        }
    }

    fn pipe(&mut self) -> Result<Item, String> {
        if self.is_word(&["!"]) {
            self.at += 1;
            return Ok(Item::Not(Box::new(self.pipe()?)));
        }
        let mut items = vec![self.command()?];
        while self.take_operator("|") {
            while self.take_operator("\n") {}
            items.push(self.command()?);
        }
        if items.len() > 1 { Ok(Item::Pipe(items)) } else { items.pop().ok_or_else(|| UNFINISHED.to_owned()) }
    }

    fn command(&mut self) -> Result<Item, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("nested too deeply".to_owned());
        }
        let item = match self.peek() {
            None => Err(UNFINISHED.to_owned()),
            Some(Token::Operator("(")) => {
                self.at += 1;
                let items = self.list(&[])?;
                if !self.take_operator(")") {
                    return Err(UNFINISHED.to_owned());
                }
                Ok(Item::Group(items))
            }
            Some(Token::Word(word)) => match word.as_str() {
                "{" => {
                    self.at += 1;
                    let items = self.list(&["}"])?;
                    self.expect("}")?;
                    Ok(Item::Group(items))
                }
                "if" => self.if_else(),
                "while" | "until" => self.while_do(),
                "for" => self.for_in(),
                _ => self.simple(),
            },
            Some(_) => self.simple(),
        };
        self.depth -= 1;
        item
    }

    fn if_else(&mut self) -> Result<Item, String> {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            self.at += 1;
            let condition = self.list(&["then"])?;
            self.expect("then")?;
            branches.push((condition, self.list(&["elif", "else", "fi"])?));
            if self.is_word(&["elif"]) {
                continue;
            }
            if self.is_word(&["else"]) {
                self.at += 1;
                otherwise = self.list(&["fi"])?;
            }
            self.expect("fi")?;
            return Ok(Item::If(branches, otherwise));
        }
    }

    fn while_do(&mut self) -> Result<Item, String> {
        let until = self.is_word(&["until"]);
        self.at += 1;
        let condition = self.list(&["do"])?;
        Ok(Item::While { condition, until, body: self.body()? })
    }

    fn body(&mut self) -> Result<Vec<Item>, String> {
        self.expect("do")?;
        let body = self.list(&["done"])?;
        self.expect("done")?;
        Ok(body)
    }

    fn for_in(&mut self) -> Result<Item, String> {
        self.at += 1;
        let Some(Token::Word(name)) = self.peek().cloned() else { return Err(UNFINISHED.to_owned()) };
        self.at += 1;
        let mut words = Vec::new();
        if self.is_word(&["in"]) {
            self.at += 1;
            while let Some(Token::Word(word)) = self.peek().cloned() {
                words.push(word);
                self.at += 1;
            }
        } else {
            words.push("\"$@\"".to_owned());
        }
        self.gap();
        Ok(Item::For(name, words, self.body()?))
    }

    fn simple(&mut self) -> Result<Item, String> {
        let mut simple = Simple::default();
        loop {
            match self.peek().cloned() {
                Some(Token::Word(word)) => {
                    self.at += 1;
                    match word.split_once('=') {
                        Some((name, value)) if simple.words.is_empty() && is_name(name) => {
                            simple.assignments.push((name.to_owned(), value.to_owned()));
                        }
                        _ => simple.words.push(word),
                    }
                }
                Some(Token::Operator(operator)) => {
                    let redirect = match operator {
                        "<" => Redirect::Input,
                        ">" | "1>" => Redirect::Output(1),
                        "2>" => Redirect::Output(2),
                        ">>" | "1>>" => Redirect::Append(1),
                        "2>>" => Redirect::Append(2),
                        "2>&1" => Redirect::ErrorsToOutput,
                        ">&2" | "1>&2" => Redirect::OutputToErrors,
                        _ => break,
                    };
                    self.at += 1;
                    let needs = !matches!(redirect, Redirect::ErrorsToOutput | Redirect::OutputToErrors);
                    let target = match self.peek().cloned() {
                        _ if !needs => String::new(),
                        Some(Token::Word(word)) => {
                            self.at += 1;
                            word
                        }
                        _ => return Err(UNFINISHED.to_owned()),
                    };
                    simple.redirects.push((redirect, target));
                }
                None => break,
            }
        }
        if simple == Simple::default() {
            return Err(self.peek().map_or_else(|| UNFINISHED.to_owned(), |token| format!("{token:?} is unexpected")));
        }
        Ok(Item::Simple(simple))
    }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
