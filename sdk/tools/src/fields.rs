//! Parts of lines: cut, tr, and what scripts use most of awk, expr and sed; xargs, cmp, base64.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _, Write as _},
};

use crate::{
    Code,
    find::Pattern,
    find_command,
    io::{Io, Options, words},
};

/// Every line of files, or of the input when none is named, without its end.
fn lines(command: &str, files: &[String], io: &mut Io, mut each: impl FnMut(&str, &mut Io)) -> Code {
    let mut code = 0;
    let mut all = |mut from: Box<dyn BufRead>, io: &mut Io| {
        let mut line = Vec::new();
        while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
            each(&text, io);
            line.clear();
        }
        from
    };
    if files.is_empty() {
        let input = std::mem::replace(&mut io.input, crate::io::nothing());
        io.input = all(input, io);
    }
    for file in files {
        match File::open(file) {
            Ok(opened) => drop(all(Box::new(BufReader::new(opened)), io)),
            Err(error) => code = io.fail(command, format!("{file}: {}", words(&error))),
        }
    }
    code
}

/// `1,3-5,7-`: first and last of each, counted from 1.
fn ranges(text: &str) -> Option<Vec<(usize, usize)>> {
    let number = |text: &str, other| if text.is_empty() { Some(other) } else { text.parse().ok() };
    let one = |part: &str| match part.split_once('-') {
        Some((from, to)) => Some((number(from, 1)?, number(to, usize::MAX)?)),
        None => part.parse().ok().map(|n| (n, n)),
    };
    text.split(',').map(one).collect()
}

pub fn cut(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &["d", "f", "c", "b", "delimiter", "fields", "characters"]);
    let delimiter = options.value(&["d", "delimiter"]).unwrap_or("\t").to_owned();
    let fields = options.value(&["f", "fields"]);
    let wanted = fields.or(options.value(&["c", "b", "characters"])).and_then(ranges);
    let Some(wanted) = wanted else { return io.fail("cut", "expected a list of bytes, characters, or fields") };
    let has = |at: usize| wanted.iter().any(|(from, to)| (*from..=*to).contains(&(at + 1)));
    let (by_field, only) = (fields.is_some(), options.has(&["s"]));
    lines("cut", &options.operands, io, |line, io| {
        if !by_field {
            let kept: String = line.chars().enumerate().filter(|(at, _)| has(*at)).map(|(_, c)| c).collect();
            io.line(kept);
        } else if line.contains(&delimiter) {
            let kept: Vec<_> = line.split(&delimiter).enumerate().filter(|(at, _)| has(*at)).map(|(_, f)| f).collect();
            io.line(kept.join(&delimiter));
        } else if !only {
            io.line(line);
        }
    })
}

/// `a-z`, `[:upper:]`, `\n`: the characters that are meant.
fn characters(text: &str) -> Vec<char> {
    let named = [("[:upper:]", 'A'..='Z'), ("[:lower:]", 'a'..='z'), ("[:digit:]", '0'..='9')];
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(c) = rest.chars().next() {
        if let Some((name, range)) = named.iter().find(|(name, _)| rest.starts_with(name)) {
            found.extend(range.clone());
            rest = &rest[name.len()..];
        } else if let Some(behind) = rest.strip_prefix("[:space:]") {
            found.extend([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix('\\') {
            let c = behind.chars().next().unwrap_or('\\');
            found.push(match c {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                '0' => '\0',
                c => c,
            });
            rest = behind.get(c.len_utf8()..).unwrap_or_default();
        } else {
            let behind = &rest[c.len_utf8()..];
            match behind.strip_prefix('-').and_then(|range| range.chars().next()) {
                Some(last) => {
                    found.extend(c..=last);
                    rest = &behind[1 + last.len_utf8()..];
                }
                None => {
                    found.push(c);
                    rest = behind;
                }
            }
        }
    }
    found
}

pub fn tr(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let (delete, squeeze, others) = (options.has(&["d"]), options.has(&["s"]), options.has(&["c", "C"]));
    let mut sets = options.operands.iter().map(|text| characters(text));
    let Some(from) = sets.next() else { return io.fail("tr", "missing operand") };
    let to = sets.next().unwrap_or_default();
    let mut text = String::new();
    if let Err(error) = io.input.read_to_string(&mut text) {
        return io.fail("tr", words(&error));
    }
    let mut out = String::new();
    let squeezed = if to.is_empty() { &from } else { &to };
    for c in text.chars() {
        let at = from.iter().position(|f| *f == c);
        let meant = at.is_some() != others;
        if delete && meant {
            continue;
        }
        let last = to.last().copied();
        let new = match at.filter(|_| !others && !delete) {
            Some(at) => to.get(at).copied().or(last).unwrap_or(c),
            None if others && meant && !delete => last.unwrap_or(c),
            None => c,
        };
        if squeeze && squeezed.contains(&new) && out.ends_with(new) {
            continue;
        }
        out.push(new);
    }
    // Whoever reads no more is no failure.
    let _ = io.output.write_all(out.as_bytes());
    0
}

/// `awk '{print $1, $NF}'`, with a pattern before it and `-F`: no more of the language than that.
pub fn awk(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &["F"]);
    let Some((program, files)) = options.operands.split_first() else { return io.fail("awk", "no program") };
    let unknown = || format!("{program:?}: only '/PATTERN/ {{print $1, $2}}' is understood here");
    let (pattern, action) = program.trim().split_once('{').unwrap_or((program.trim(), "print}"));
    let pattern = match pattern.trim() {
        "" => None,
        text => match text.strip_prefix('/').and_then(|t| t.strip_suffix('/')) {
            Some(text) => Some(Pattern::new(text, false, false)),
            None => return io.fail("awk", unknown()),
        },
    };
    let Some(print) =
        action.trim().strip_suffix('}').and_then(|a| a.trim().trim_end_matches(';').strip_prefix("print"))
    else {
        return io.fail("awk", unknown());
    };
    let wanted: Vec<String> = print.split(',').map(|w| w.trim().to_owned()).filter(|w| !w.is_empty()).collect();
    let known = |w: &String| w == "NF" || w == "NR" || w.starts_with('$') || (w.starts_with('"') && w.ends_with('"'));
    if !wanted.iter().all(known) {
        return io.fail("awk", unknown());
    }
    let separator = options.value(&["F"]).map(str::to_owned);
    let mut number = 0;
    lines("awk", files, io, |line, io| {
        number += 1;
        if pattern.as_ref().is_some_and(|pattern| !pattern.is_in(line)) {
            return;
        }
        let fields: Vec<&str> = match &separator {
            Some(separator) => line.split(separator.as_str()).collect(),
            None => line.split_whitespace().collect(),
        };
        let value = |word: &String| match word.as_str() {
            "NF" => fields.len().to_string(),
            "NR" => number.to_string(),
            "$0" => line.to_owned(),
            "$NF" => fields.last().copied().unwrap_or_default().to_owned(),
            text if text.starts_with('"') => text.trim_matches('"').to_owned(),
            field => {
                let at: Option<usize> = field[1..].parse().ok();
                at.and_then(|at| fields.get(at.checked_sub(1)?)).copied().unwrap_or_default().to_owned()
            }
        };
        let values: Vec<_> = wanted.iter().map(value).collect();
        io.line(if values.is_empty() { line.to_owned() } else { values.join(" ") });
    })
}

pub fn expr(args: &[String], io: &mut Io) -> Code {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let answer = match words[..] {
        [] => return io.fail("expr", "missing operand"),
        [text] => text.to_owned(),
        ["length", text] => text.chars().count().to_string(),
        [a, operator @ ("=" | "==" | "!="), b] => i32::from((a == b) == (operator != "!=")).to_string(),
        _ => {
            let text = args.iter().map(|word| if word == "=" { "==" } else { word.as_str() });
            match crate::shell::compute(&text.collect::<Vec<_>>().join(" "), &|_| String::new()) {
                Ok(result) => result.to_string(),
                Err(why) => {
                    io.fail("expr", why);
                    return 2;
                }
            }
        }
    };
    io.line(&answer);
    i32::from(answer.is_empty() || answer == "0")
}

/// A substitution of sed.
struct Substitution {
    from: String,
    to: String,
    all: bool,
}

/// `s/TEXT/OTHER/g`: texts, no patterns, for one occurrence or all.
pub fn sed(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &["e"]);
    let mut operands = options.operands.clone();
    let mut programs: Vec<String> = options.values.iter().map(|(_, program)| program.clone()).collect();
    if programs.is_empty() && !operands.is_empty() {
        programs.push(operands.remove(0));
    }
    let mut substitutions = Vec::new();
    for program in programs.iter().flat_map(|program| program.split(';')) {
        match substitution(program.trim()) {
            Some(found) => substitutions.push(found),
            None => {
                return io.fail("sed", format!("{program:?}: only s/TEXT/OTHER/g of plain texts is understood here"));
            }
        }
    }
    lines("sed", &operands, io, |line, io| {
        let replace = |line: String, s: &Substitution| match (s.from.strip_prefix('^'), s.from.strip_suffix('$')) {
            (Some(from), _) => line.strip_prefix(from).map(|rest| format!("{}{rest}", s.to)).unwrap_or(line),
            (None, Some(from)) => line.strip_suffix(from).map(|rest| format!("{rest}{}", s.to)).unwrap_or(line),
            (None, None) => line.replacen(&s.from, &s.to, if s.all { usize::MAX } else { 1 }),
        };
        io.line(substitutions.iter().fold(line.to_owned(), replace));
    })
}

fn substitution(program: &str) -> Option<Substitution> {
    let rest = program.strip_prefix('s')?;
    let mark = rest.chars().next()?;
    let mut parts = rest[mark.len_utf8()..].split(mark);
    let (from, to, flags) = (parts.next()?, parts.next()?, parts.next()?);
    let plain = |text: &str| !text.replace("\\.", "").contains(['*', '[', '\\', '.']);
    let fits = parts.next().is_none() && matches!(flags, "" | "g") && plain(from) && !to.contains(['\\', '&']);
    (fits && !from.is_empty()).then(|| Substitution {
        from: from.replace("\\.", "."),
        to: to.to_owned(),
        all: flags == "g",
    })
}

pub fn xargs(args: &[String], io: &mut Io) -> Code {
    let (mut rest, mut each) = (args, usize::MAX);
    while let Some((flag, behind)) = rest.split_first().filter(|(first, _)| first.starts_with('-')) {
        rest = behind;
        if let Some(count) = flag.strip_prefix("-n").filter(|count| !count.is_empty()) {
            each = count.parse().unwrap_or(1).max(1);
        } else if flag == "-n" {
            each = behind.first().and_then(|n| n.parse().ok()).unwrap_or(1).max(1);
            rest = behind.get(1..).unwrap_or_default();
        }
    }
    let echo = ["echo".to_owned()];
    let (name, before) = rest.split_first().unwrap_or((&echo[0], &[]));
    let Some(command) = find_command(name.rsplit('/').next().unwrap_or_default()) else {
        io.fail("xargs", format!("{name}: No such file or directory"));
        return 127;
    };
    let mut text = String::new();
    if let Err(error) = io.input.read_to_string(&mut text) {
        return io.fail("xargs", words(&error));
    }
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let mut code = 0;
    for chunk in words.chunks(each.min(words.len().max(1))) {
        if command(&[before, chunk].concat(), io) != 0 {
            code = 123;
        }
    }
    code
}

pub fn cmp(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let [a, b] = &options.operands[..] else { return io.fail("cmp", "two files are needed") };
    match (std::fs::read(a), std::fs::read(b)) {
        (Ok(one), Ok(other)) if one == other => 0,
        (Ok(one), Ok(other)) => {
            let at = one.iter().zip(&other).take_while(|(x, y)| x == y).count();
            if !options.has(&["s"]) {
                io.line(format!("{a} {b} differ: char {}", at + 1));
            }
            1
        }
        (Err(error), _) => io.fail("cmp", format!("{a}: {}", words(&error))) + 1,
        (_, Err(error)) => io.fail("cmp", format!("{b}: {}", words(&error))) + 1,
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub fn base64(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &["w"]);
    let mut bytes = Vec::new();
    let read = match options.operands.first() {
        Some(file) if file != "-" => File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)),
        _ => io.input.read_to_end(&mut bytes),
    };
    if let Err(error) = read {
        return io.fail("base64", words(&error));
    }
    if options.has(&["d", "decode"]) {
        let Some(plain) = decoded(&bytes) else { return io.fail("base64", "invalid input") };
        let _ = io.output.write_all(&plain);
        return 0;
    }
    let width = options.value(&["w"]).and_then(|w| w.parse().ok()).unwrap_or(76);
    let mut text = encode(&bytes);
    while width > 0 && text.len() > width {
        let rest = text.split_off(width);
        io.line(text);
        text = rest;
    }
    if width == 0 {
        let _ = io.output.write_all(text.as_bytes());
    } else if !text.is_empty() {
        io.line(text);
    }
    0
}

/// Bytes as base64.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let six = (bits >> (18 - 6 * i) & 63) as usize;
            out.push(if i <= chunk.len() { char::from(BASE64[six]) } else { '=' });
        }
    }
    out
}

fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for c in text.iter().filter(|c| !c.is_ascii_whitespace() && **c != b'=') {
        let six = BASE64.iter().position(|known| known == c)?;
        bits = bits << 6 | u32::try_from(six).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}
