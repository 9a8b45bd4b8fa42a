//! Words: variables, commands, quotes and file names.

use std::{iter::Peekable, str::Chars};

use super::Shell;
use crate::{
    find::matches,
    io::Io,
    list::{join, names_in},
};

/// A word on its way: characters that were quoted mean nothing but themselves.
#[derive(Default)]
struct Word {
    chars: Vec<(char, bool)>,
    quoted: bool,
}

impl Shell {
    /// Words as a command gets them: split at white space, with file names in place of patterns.
    pub(super) fn expand_all(&mut self, words: &[String], io: &mut Io) -> Vec<String> {
        let mut all = Vec::new();
        for word in words {
            if word == "\"$@\"" || word == "$@" {
                all.extend(self.arguments.iter().skip(1).cloned());
                continue;
            }
            for part in split(self.expand(word, io)) {
                let found = files(&part);
                match found.is_empty() {
                    true => all.push(part.chars.iter().map(|(c, _)| c).collect()),
                    false => all.extend(found),
                }
            }
        }
        all
    }

    /// One word, as it is assigned.
    pub(super) fn expand_one(&mut self, word: &str, io: &mut Io) -> String {
        self.expand(word, io).chars.iter().map(|(c, _)| c).collect()
    }

    fn expand(&mut self, word: &str, io: &mut Io) -> Word {
        let mut out = Word::default();
        let mut chars = word.chars().peekable();
        if chars.peek() == Some(&'~') && (word == "~" || word.starts_with("~/")) {
            chars.next();
            let home = std::env::var("HOME").unwrap_or_else(|_| "/".to_owned());
            out.chars.extend(home.chars().map(|c| (c, true)));
        }
        let mut within = false;
        while let Some(c) = chars.next() {
            match c {
                '\'' if !within => {
                    out.quoted = true;
                    for c in chars.by_ref().take_while(|c| *c != '\'') {
                        out.chars.push((c, true));
                    }
                }
                '"' => {
                    within = !within;
                    out.quoted = true;
                }
                '\\' => match chars.next() {
                    Some('\n') | None => {}
                    Some(c) if within && !matches!(c, '$' | '"' | '\\' | '`') => {
                        out.chars.extend([('\\', true), (c, true)]);
                    }
                    Some(c) => out.chars.push((c, true)),
                },
                '$' => {
                    let value = self.variable(&mut chars, io);
                    out.chars.extend(value.chars().map(|c| (c, within)));
                }
                '`' => {
                    let text: String = chars.by_ref().take_while(|c| *c != '`').collect();
                    let value = self.output_of(&text, io);
                    out.chars.extend(value.chars().map(|c| (c, within)));
                }
                c => out.chars.push((c, within)),
            }
        }
        out
    }

    /// What stands behind a `$`.
    fn variable(&mut self, chars: &mut Peekable<Chars<'_>>, io: &mut Io) -> String {
        match chars.peek() {
            Some('(') => {
                let text = bracketed(chars, '(', ')');
                match text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
                    Some(sum) => arithmetic(&self.expand_one(sum, io)).to_string(),
                    None => self.output_of(&text, io),
                }
            }
            Some('{') => {
                let text = bracketed(chars, '{', '}');
                let end = text
                    .find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '?' | '@' | '#'))
                    .unwrap_or(text.len());
                let (name, rest) = text.split_at(end);
                let value = self.value(name);
                match (rest.strip_prefix(":-"), rest.strip_prefix(":+")) {
                    (Some(other), _) if value.is_empty() => self.expand_one(other, io),
                    (_, Some(other)) if !value.is_empty() => self.expand_one(other, io),
                    _ => value,
                }
            }
            Some('?' | '@' | '*' | '#' | '$') => {
                let name = chars.next().map(String::from).unwrap_or_default();
                self.value(&name)
            }
            _ => {
                let mut name = String::new();
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                    if name.len() == 1 && c.is_ascii_digit() {
                        break;
                    }
                }
                if name.is_empty() { "$".to_owned() } else { self.value(&name) }
            }
        }
    }

    fn value(&self, name: &str) -> String {
        match name {
            "?" => self.last.to_string(),
            "$" => "1".to_owned(),
            "#" => self.arguments.len().saturating_sub(1).to_string(),
            "@" | "*" => self.arguments.get(1..).unwrap_or_default().join(" "),
            _ => match name.parse::<usize>() {
                Ok(at) => self.arguments.get(at).cloned().unwrap_or_default(),
                Err(_) => {
                    let own = self.variables.get(name).cloned();
                    own.or_else(|| std::env::var(name).ok()).unwrap_or_default()
                }
            },
        }
    }
}

/// What stands in brackets, without them.
fn bracketed(chars: &mut Peekable<Chars<'_>>, open: char, close: char) -> String {
    let (mut text, mut depth) = (String::new(), 0);
    for c in chars.by_ref() {
        depth += i32::from(c == open) - i32::from(c == close);
        text.push(c);
        if depth == 0 {
            break;
        }
    }
    text.get(1..text.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

/// Whole numbers with `+ - * / %`, from left to right, products first.
fn arithmetic(text: &str) -> i64 {
    let text = text.replace(' ', "");
    let mut terms: Vec<i64> = Vec::new();
    let (mut operator, mut digits) = ('+', String::new());
    for c in text.chars().chain(['+']) {
        if c.is_ascii_digit() || (c == '-' && digits.is_empty() && !terms.is_empty() && matches!(operator, '*' | '/')) {
            digits.push(c);
            continue;
        }
        let n: i64 = digits.parse().unwrap_or(0);
        digits.clear();
        let last = terms.last().copied().unwrap_or(0);
        let merged = match operator {
            '*' => Some(last.wrapping_mul(n)),
            '/' => Some(last.checked_div(n).unwrap_or(0)),
            '%' => Some(last.checked_rem(n).unwrap_or(0)),
            _ => None,
        };
        match merged {
            Some(value) => {
                terms.pop();
                terms.push(value);
            }
            None => terms.push(if operator == '-' { -n } else { n }),
        }
        operator = c;
    }
    terms.iter().fold(0, |sum: i64, n| sum.wrapping_add(*n))
}

/// Splits at white space that was not quoted.
fn split(word: Word) -> Vec<Word> {
    let mut parts: Vec<Word> = Vec::new();
    let mut open = false;
    for (c, quoted) in word.chars {
        if !quoted && c.is_whitespace() {
            open = false;
            continue;
        }
        if !open {
            parts.push(Word::default());
            open = true;
        }
        if let Some(last) = parts.last_mut() {
            last.chars.push((c, quoted));
        }
    }
    if parts.is_empty() && word.quoted {
        parts.push(Word::default());
    }
    parts
}

/// Files that fit a pattern; none when the word is no pattern.
fn files(word: &Word) -> Vec<String> {
    if !word.chars.iter().any(|(c, quoted)| !quoted && matches!(c, '*' | '?' | '[')) {
        return Vec::new();
    }
    let pattern: String = word.chars.iter().map(|(c, _)| c).collect();
    let absolute = pattern.starts_with('/');
    let mut found = vec![if absolute { "/".to_owned() } else { String::new() }];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for dir in &found {
            let place = |name: &str| if dir.is_empty() { name.to_owned() } else { join(dir, name) };
            if !part.contains(['*', '?', '[']) {
                next.push(place(part));
                continue;
            }
            let mut names = names_in(if dir.is_empty() { "." } else { dir }).unwrap_or_default();
            names.sort();
            let hidden = |name: &String| name.starts_with('.') && !part.starts_with('.');
            next.extend(names.iter().filter(|name| !hidden(name) && matches(part, name)).map(|name| place(name)));
        }
        found = next;
    }
    found.retain(|path| std::fs::symlink_metadata(path).is_ok() || !crate::host::leads_to(path).is_empty());
    found
}
