//! From text to words and operators. Words keep their quotes; they are expanded when they are used.

use std::{iter::Peekable, str::Chars};

/// What is wrong with a text that only lacks its end.
pub const UNFINISHED: &str = "unexpected end";

/// A word, or what stands between words.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Word(String),
    Operator(&'static str),
    /// `>`, `2>>`, `<`, `>&`, `&>`, `<<<`: of which stream, and how.
    Redirect(Option<usize>, &'static str),
    /// What stands in a here-document, and whether variables in it are looked up.
    Document(String, bool),
}

const OPERATORS: &[&str] = &["&&", "||", ";;", "|", ";", "&", "(", ")", "\n"];
const REDIRECTS: &[&str] = &["<<<", "<<-", "<<", "<&", "<", ">>", ">&", ">|", ">"];

/// A here-document whose text comes after the line.
struct Awaited {
    at: usize,
    end: String,
    tabs: bool,
}

/// Reads a text.
///
/// # Errors
/// [`UNFINISHED`] when its end is missing.
pub fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut awaited = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r']);
        if let Some(behind) = rest.strip_prefix("\\\n") {
            rest = behind;
        } else if rest.starts_with('#') {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.is_empty() {
            return if awaited.is_empty() { Ok(tokens) } else { Err(UNFINISHED.to_owned()) };
        } else if let Some((token, behind)) = redirect(rest) {
            rest = behind;
            match token {
                Token::Redirect(_, "<<" | "<<-") => rest = document(&token, rest, &mut tokens, &mut awaited)?,
                token => tokens.push(token),
            }
        } else if let Some(operator) = OPERATORS.iter().copied().find(|operator| rest.starts_with(operator)) {
            tokens.push(Token::Operator(operator));
            rest = &rest[operator.len()..];
            if operator == "\n" {
                for document in awaited.drain(..) {
                    rest = fill(&document, rest, &mut tokens)?;
                }
            }
        } else {
            let length = word_length(rest)?;
            tokens.push(Token::Word(rest[..length].to_owned()));
            rest = &rest[length..];
        }
    }
}

/// A redirection at the beginning of a text, and what is behind it.
fn redirect(text: &str) -> Option<(Token, &str)> {
    for both in ["&>>", "&>"] {
        if let Some(rest) = text.strip_prefix(both) {
            return Some((Token::Redirect(None, if both == "&>" { "&>" } else { "&>>" }), rest));
        }
    }
    let stream = text.chars().next().and_then(|c| c.to_digit(10)).map(|n| n as usize);
    let behind = if stream.is_some() { &text[1..] } else { text };
    let operator = REDIRECTS.iter().copied().find(|operator| behind.starts_with(operator))?;
    Some((Token::Redirect(stream, operator), &behind[operator.len()..]))
}

/// Reads the word that ends a here-document.
fn document<'a>(
    token: &Token,
    rest: &'a str,
    tokens: &mut Vec<Token>,
    awaited: &mut Vec<Awaited>,
) -> Result<&'a str, String> {
    let rest = rest.trim_start_matches([' ', '\t']);
    let length = word_length(rest)?;
    let word = &rest[..length];
    let end: String = word.chars().filter(|c| !matches!(c, '\'' | '"' | '\\')).collect();
    let tabs = matches!(token, Token::Redirect(_, "<<-"));
    awaited.push(Awaited { at: tokens.len(), tabs, end: end.clone() });
    tokens.push(Token::Document(String::new(), end == word));
    Ok(&rest[length..])
}

/// Takes the text of a here-document.
fn fill<'a>(document: &Awaited, mut rest: &'a str, tokens: &mut [Token]) -> Result<&'a str, String> {
    let mut text = String::new();
    loop {
        if rest.is_empty() {
            return Err(UNFINISHED.to_owned());
        }
        let (line, behind) = rest.split_once('\n').unwrap_or((rest, ""));
        rest = behind;
        let line = if document.tabs { line.trim_start_matches('\t') } else { line };
        if line == document.end {
            break;
        }
        text.push_str(line);
        text.push('\n');
    }
    if let Some(Token::Document(place, _)) = tokens.get_mut(document.at) {
        *place = text;
    }
    Ok(rest)
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
            '$' if quote == '"' && chars.peek() == Some(&'{') => length += nested('{', '}', chars)?,
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
