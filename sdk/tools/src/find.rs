//! `find`, and the patterns of `grep` and of file names.

use std::fs;

use crate::{
    Code,
    io::{Io, words},
    list::{join, names_in},
};

/// All files below a path, in order.
pub fn all_files(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(path, 0, &mut |path, is_dir, _| {
        if !is_dir {
            found.push(path.to_owned());
        }
        true
    });
    found
}

/// Visits a path and all below it; what is visited says whether to go on below.
fn walk(path: &str, depth: u32, visit: &mut dyn FnMut(&str, bool, u32) -> bool) {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) || !crate::host::leads_to(path).is_empty();
    if !visit(path, is_dir, depth) || !is_dir {
        return;
    }
    let mut names = names_in(path).unwrap_or_default();
    names.sort();
    for name in names {
        walk(&join(path, &name), depth + 1, visit);
    }
}

/// One of find's conditions.
enum Test {
    Name(String),
    Path(String),
    Kind(char),
    Empty,
    Not(Box<Test>),
}

impl Test {
    fn holds(&self, path: &str) -> bool {
        match self {
            Self::Name(glob) => matches(glob, path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()),
            Self::Path(glob) => matches(glob, path),
            Self::Kind(kind) => fs::symlink_metadata(path).is_ok_and(|m| match kind {
                'd' => m.is_dir(),
                'l' => m.is_symlink(),
                _ => m.is_file(),
            }),
            Self::Empty => match fs::read_dir(path) {
                Ok(mut entries) => entries.next().is_none(),
                Err(_) => fs::metadata(path).is_ok_and(|m| m.len() == 0),
            },
            Self::Not(test) => !test.holds(path),
        }
    }
}

pub fn find(args: &[String], io: &mut Io) -> Code {
    let paths = args.iter().take_while(|a| !a.starts_with('-') && *a != "!").count();
    let (paths, mut rest) = args.split_at(paths);
    let (mut tests, mut deepest, mut delete, mut zero) = (Vec::new(), u32::MAX, false, false);
    while let Some((word, behind)) = rest.split_first() {
        let negated = word == "!" || word == "-not";
        let (word, behind) = match behind.split_first() {
            Some((next, behind)) if negated => (next, behind),
            _ => (word, behind),
        };
        let value = behind.first().cloned().unwrap_or_default();
        let mut used = 1;
        let test = match word.as_str() {
            "-name" => Some(Test::Name(value)),
            "-path" => Some(Test::Path(value)),
            "-type" => Some(Test::Kind(value.chars().next().unwrap_or('f'))),
            "-maxdepth" => {
                deepest = value.parse().unwrap_or(u32::MAX);
                None
            }
            other => {
                used = 0;
                match other {
                    "-empty" => Some(Test::Empty),
                    "-print" | "-a" => None,
                    "-print0" => {
                        zero = true;
                        None
                    }
                    "-delete" => {
                        delete = true;
                        None
                    }
                    _ => return io.fail("find", format!("unknown: {other}")),
                }
            }
        };
        tests.extend(test.map(|test| if negated { Test::Not(Box::new(test)) } else { test }));
        rest = behind.get(used..).unwrap_or_default();
    }
    let here = [".".to_owned()];
    let mut found = Vec::new();
    let mut code = 0;
    for path in if paths.is_empty() { &here[..] } else { paths } {
        if let Err(error) = fs::symlink_metadata(path)
            && crate::host::leads_to(path).is_empty()
        {
            code = io.fail("find", format!("{path}: {}", words(&error)));
            continue;
        }
        walk(path, 0, &mut |path, _, depth| {
            if tests.iter().all(|test| test.holds(path)) {
                found.push(path.to_owned());
            }
            depth < deepest
        });
    }
    for path in found.iter().rev().filter(|_| delete) {
        if let Err(error) = fs::remove_file(path).or_else(|_| fs::remove_dir(path)) {
            code = io.fail("find", format!("{path}: {}", words(&error)));
        }
    }
    for path in found.iter().filter(|_| !delete) {
        let end = if zero { '\0' } else { '\n' };
        let _ = write!(io.output, "{path}{end}");
    }
    code
}

use std::io::Write as _;

/// Whether a name fits a pattern of `*`, `?` and `[a-z]`.
pub fn matches(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    fits(&glob, &name)
}

fn fits(glob: &[char], name: &[char]) -> bool {
    match (glob.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=name.len()).any(|skipped| fits(rest, &name[skipped..])),
        (Some(('?', rest)), Some((_, behind))) => fits(rest, behind),
        (Some(('[', rest)), Some((c, behind))) => match set(rest, *c) {
            Some((holds, rest)) => holds && fits(rest, behind),
            None => *c == '[' && fits(rest, behind),
        },
        (Some((g, rest)), Some((c, behind))) => g == c && fits(rest, behind),
        _ => false,
    }
}

/// Whether a character is in the set that begins here, and what is behind the set.
fn set(rest: &[char], c: char) -> Option<(bool, &[char])> {
    let end = rest.iter().skip(1).position(|c| *c == ']')? + 1;
    let (negated, inner) = match rest.first() {
        Some('!' | '^') => (true, &rest[1..end]),
        _ => (false, &rest[..end]),
    };
    let mut holds = false;
    let mut i = 0;
    while i < inner.len() {
        if i + 2 < inner.len() && inner[i + 1] == '-' {
            holds |= (inner[i]..=inner[i + 2]).contains(&c);
            i += 3;
        } else {
            holds |= inner[i] == c;
            i += 1;
        }
    }
    Some((holds != negated, &rest[end + 1..]))
}

/// What grep looks for: `.`, `*`, `+`, `?`, `[a-z]`, `^`, `$`, `\d \w \s`, and `|` between whole patterns.
pub struct Pattern {
    branches: Vec<Branch>,
}

struct Branch {
    atoms: Vec<(Atom, Times)>,
    at_start: bool,
    at_end: bool,
}

enum Atom {
    Any,
    One(char),
    Set(Vec<char>),
    Class(char),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    Any,
    Some,
    Perhaps,
}

impl Pattern {
    pub fn new(text: &str, fixed: bool, whole: bool) -> Self {
        let parts: Vec<String> = if fixed { vec![text.to_owned()] } else { branches(text) };
        Self { branches: parts.iter().map(|part| Branch::new(part, fixed, whole)).collect() }
    }

    pub fn is_in(&self, line: &str) -> bool {
        let line: Vec<char> = line.chars().collect();
        self.branches.iter().any(|branch| branch.is_in(&line))
    }
}

/// Splits at `|` and `\|`.
fn branches(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = c == '\\' && chars.peek() == Some(&'|');
        if escaped {
            chars.next();
        }
        if c == '|' || escaped {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
            if c == '\\' {
                last.extend(chars.next());
            }
        }
    }
    parts
}

impl Branch {
    fn new(text: &str, fixed: bool, whole: bool) -> Self {
        if fixed {
            let atoms = text.chars().map(|c| (Atom::One(c), Times::Once)).collect();
            return Self { atoms, at_start: whole, at_end: whole };
        }
        let inner = text.strip_prefix('^');
        let at_start = whole || inner.is_some();
        let text = inner.unwrap_or(text);
        let inner = text.strip_suffix('$').filter(|rest| !rest.ends_with('\\'));
        let at_end = whole || inner.is_some();
        let chars: Vec<char> = inner.unwrap_or(text).chars().collect();
        let mut atoms: Vec<(Atom, Times)> = Vec::new();
        let mut i = 0;
        while i < chars.len() {
            let (atom, used) = match chars[i] {
                '.' => (Atom::Any, 1),
                '\\' if i + 1 < chars.len() => match chars[i + 1] {
                    c @ ('d' | 'w' | 's') => (Atom::Class(c), 2),
                    c => (Atom::One(c), 2),
                },
                '[' => match chars[i + 2..].iter().position(|c| *c == ']') {
                    Some(end) => (Atom::Set(chars[i + 1..i + 3 + end].to_vec()), end + 3),
                    None => (Atom::One('['), 1),
                },
                c => (Atom::One(c), 1),
            };
            i += used;
            let times = match chars.get(i) {
                Some('*') => Times::Any,
                Some('+') => Times::Some,
                Some('?') => Times::Perhaps,
                _ => Times::Once,
            };
            i += usize::from(times != Times::Once);
            atoms.push((atom, times));
        }
        Self { atoms, at_start, at_end }
    }

    fn is_in(&self, line: &[char]) -> bool {
        let last = if self.at_start { 0 } else { line.len() };
        (0..=last).any(|start| self.fits(&self.atoms, &line[start..]))
    }

    fn fits(&self, atoms: &[(Atom, Times)], line: &[char]) -> bool {
        let Some(((atom, times), rest)) = atoms.split_first() else { return !self.at_end || line.is_empty() };
        let most = match times {
            Times::Once | Times::Perhaps => 1,
            Times::Any | Times::Some => line.len(),
        };
        let run = line.iter().take(most).take_while(|c| atom.holds(**c)).count();
        let least = usize::from(matches!(times, Times::Once | Times::Some));
        (least..=run).rev().any(|n| self.fits(rest, &line[n..]))
    }
}

impl Atom {
    fn holds(&self, c: char) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => *one == c,
            Self::Set(inner) => set(inner, c).is_some_and(|(holds, _)| holds),
            Self::Class('d') => c.is_ascii_digit(),
            Self::Class('w') => c.is_alphanumeric() || c == '_',
            Self::Class(_) => c.is_whitespace(),
        }
    }
}
