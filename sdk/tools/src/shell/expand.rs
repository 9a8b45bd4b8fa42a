//! Words: variables, commands, quotes and file names.

use std::{iter::Peekable, str::Chars};

use super::{Shell, arithmetic::compute, parse::is_name};
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

    /// What stands in a here-document: variables and commands, no quotes.
    pub(super) fn expand_text(&mut self, text: &str, io: &mut Io) -> String {
        let mut out = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if matches!(chars.peek(), Some('$' | '\\' | '`')) => out.extend(chars.next()),
                '\\' if chars.peek() == Some(&'\n') => drop(chars.next()),
                '$' => out.push_str(&self.variable(&mut chars, io)),
                '`' => {
                    let text: String = chars.by_ref().take_while(|c| *c != '`').collect();
                    out.push_str(&self.output_of(&text, io));
                }
                c => out.push(c),
            }
        }
        out
    }

    /// A pattern: what was quoted means nothing but itself.
    pub(super) fn expand_pattern(&mut self, word: &str, io: &mut Io) -> String {
        let mut out = String::new();
        for (c, quoted) in self.expand(word, io).chars {
            if quoted && matches!(c, '*' | '?' | '[') {
                out.extend(['[', c, ']']);
            } else {
                out.push(c);
            }
        }
        out
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
                    Some(sum) => self.sum(sum, io),
                    None => self.output_of(&text, io),
                }
            }
            Some('{') => {
                let text = bracketed(chars, '{', '}');
                self.parameter(&text, io)
            }
            Some('?' | '@' | '*' | '#' | '$' | '!' | '-') => {
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

    fn sum(&mut self, text: &str, io: &mut Io) -> String {
        let text = self.expand_one(text, io);
        // `i=i+1` assigns.
        let assigned = text.split_once('=').filter(|(name, rest)| is_name(name.trim()) && !rest.starts_with('='));
        let (name, sum) = assigned.map_or((None, text.as_str()), |(name, rest)| (Some(name.trim().to_owned()), rest));
        match compute(sum, &|name| self.value(name)) {
            Ok(result) => {
                if let Some(name) = name {
                    self.set(&name, result.to_string());
                }
                result.to_string()
            }
            Err(why) => {
                io.fail("sh", format!("arithmetic: {why}"));
                self.failed = true;
                String::new()
            }
        }
    }

    /// What stands in `${...}`.
    fn parameter(&mut self, text: &str, io: &mut Io) -> String {
        if let Some(name) = text.strip_prefix('#').filter(|name| !name.is_empty()) {
            return self.value(name).chars().count().to_string();
        }
        let special = |c: char| !c.is_alphanumeric() && c != '_';
        let end = match text.chars().next() {
            Some('?' | '@' | '*' | '#' | '$' | '!') => 1,
            _ => text.find(special).unwrap_or(text.len()),
        };
        let (name, rest) = text.split_at(end);
        let value = self.value(name);
        // With a colon, what is empty counts as not set.
        let (missing, rest) = match rest.strip_prefix(':') {
            Some(rest) => (value.is_empty(), rest),
            None => (!self.is_set(name), rest),
        };
        let mut operator = rest.chars();
        match operator.next() {
            Some('-') if missing => self.expand_one(operator.as_str(), io),
            Some('+') if missing => String::new(),
            Some('+') => self.expand_one(operator.as_str(), io),
            Some('=') if missing => {
                let value = self.expand_one(operator.as_str(), io);
                self.set(name, value.clone());
                value
            }
            Some('?') if missing => {
                let why = self.expand_one(operator.as_str(), io);
                io.fail("sh", format!("{name}: {}", if why.is_empty() { "parameter not set" } else { &why }));
                self.failed = true;
                String::new()
            }
            Some(end @ ('#' | '%')) => {
                let greedy = operator.as_str().starts_with(end);
                let pattern = self.expand_pattern(&operator.as_str()[usize::from(greedy)..], io);
                without(&value, &pattern, end == '#', greedy)
            }
            Some('/') => {
                let all = operator.as_str().starts_with('/');
                let rest = &operator.as_str()[usize::from(all)..];
                let (from, to) = rest.split_once('/').unwrap_or((rest, ""));
                let (from, to) = (self.expand_one(from, io), self.expand_one(to, io));
                if from.is_empty() { value } else { value.replacen(&from, &to, if all { usize::MAX } else { 1 }) }
            }
            _ => value,
        }
    }

    fn is_set(&self, name: &str) -> bool {
        self.variables.contains_key(name)
            || std::env::var_os(name).is_some()
            || name.parse::<usize>().is_ok_and(|at| at < self.arguments.len())
    }

    /// Sets a variable: that of the environment when there is one of this name.
    pub(super) fn set(&mut self, name: &str, value: String) {
        if std::env::var_os(name).is_some() {
            crate::host::set_var(name, &value);
            self.variables.remove(name);
        } else {
            self.variables.insert(name.to_owned(), value);
        }
    }

    fn value(&self, name: &str) -> String {
        match name {
            "?" => self.last.to_string(),
            "$" => "1".to_owned(),
            "!" => "2".to_owned(),
            "-" => String::new(),
            "RANDOM" => (random() % 32768).to_string(),
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

/// What is left of a text without what fits a pattern, at its beginning or its end.
fn without(value: &str, pattern: &str, first: bool, greedy: bool) -> String {
    let mut ends: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    // The least that fits: from the near end on.
    if first == greedy {
        ends.reverse();
    }
    let fits = |at: &&usize| matches(pattern, if first { &value[..**at] } else { &value[**at..] });
    match ends.iter().find(fits) {
        Some(at) if first => value[*at..].to_owned(),
        Some(at) => value[..*at].to_owned(),
        None => value.to_owned(),
    }
}

/// A number nobody knows: the standard library seeds its maps with what the host gives.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
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
