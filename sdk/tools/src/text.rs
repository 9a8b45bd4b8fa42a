//! Text: cat, head, tail, grep and the like.

use std::io::{BufRead, Read, Write};

use crate::{
    Code,
    io::{Io, Options, copy, words},
};

/// Runs over files, or the input when none is named; says what cannot be read.
fn over(
    command: &str,
    files: &[String],
    io: &mut Io,
    mut each: impl FnMut(&str, &mut dyn BufRead, &mut dyn Write) -> std::io::Result<()>,
) -> Code {
    let input = ["-".to_owned()];
    let files = if files.is_empty() { &input[..] } else { files };
    let mut code = 0;
    for file in files {
        let output = &mut io.output;
        let result = if file == "-" {
            each(file, &mut *io.input, output)
        } else {
            match std::fs::File::open(file) {
                Ok(opened) => each(file, &mut std::io::BufReader::with_capacity(64 * 1024, opened), output),
                Err(error) => Err(error),
            }
        };
        if let Err(error) = result {
            code = io.fail(command, format!("{file}: {}", words(&error)));
        }
    }
    code
}

pub fn cat(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let numbered = options.has(&["n"]);
    let mut number = 0;
    over("cat", &options.operands, io, |_, mut from, to| {
        if !numbered {
            return copy(&mut from, to).map(drop);
        }
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line)? > 0 {
            number += 1;
            write!(to, "{number:6}\t")?;
            to.write_all(&line)?;
            line.clear();
        }
        Ok(())
    })
}

pub fn echo(args: &[String], io: &mut Io) -> Code {
    let flags = args.iter().take_while(|a| matches!(a.as_str(), "-n" | "-e" | "-ne" | "-en" | "-E")).count();
    let (flags, texts) = args.split_at(flags);
    let mut text = texts.join(" ");
    if flags.iter().any(|f| f.contains('e')) {
        text = unescape(&text);
    }
    if !flags.iter().any(|f| f.contains('n')) {
        text.push('\n');
    }
    let _ = io.output.write_all(text.as_bytes());
    0
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('0') => out.push('\0'),
            Some('e') => out.push('\x1b'),
            Some('\\') => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

pub fn printf(args: &[String], io: &mut Io) -> Code {
    let Some((format, mut values)) = args.split_first() else { return io.fail("printf", "missing operand") };
    let format = unescape(format);
    loop {
        let before = values.len();
        let mut chars = format.chars();
        let mut out = String::new();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let kind = chars.find(|c| !c.is_ascii_digit() && !matches!(c, '-' | '.' | '+'));
            if kind == Some('%') {
                out.push('%');
                continue;
            }
            let value = values.first().map_or("", String::as_str);
            values = values.get(1..).unwrap_or_default();
            match kind {
                Some('d' | 'i' | 'u') => out.push_str(&value.parse::<i64>().unwrap_or(0).to_string()),
                Some('x') => out.push_str(&format!("{:x}", value.parse::<i64>().unwrap_or(0))),
                Some('c') => out.extend(value.chars().next()),
                Some('b') => out.push_str(&unescape(value)),
                _ => out.push_str(value),
            }
        }
        let _ = io.output.write_all(out.as_bytes());
        if values.is_empty() || values.len() == before {
            return 0;
        }
    }
}

/// A number of lines or bytes: `5`, `-5`, `+5`.
struct Amount {
    n: u64,
    from_start: bool,
    bytes: bool,
}

fn amount(args: &[String]) -> Result<(Amount, Options), String> {
    // `tail -5` is as old as `tail -n 5`.
    let old =
        |arg: &String| arg.strip_prefix('-').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let args: Vec<String> =
        args.iter().map(|arg| if old(arg) { format!("-n{}", &arg[1..]) } else { arg.clone() }).collect();
    let options = Options::read(&args, &["n", "c", "lines", "bytes", "s"]);
    let bytes = options.value(&["c", "bytes"]);
    let text = bytes.or(options.value(&["n", "lines"])).unwrap_or("10");
    let from_start = text.starts_with('+');
    let n = text.trim_start_matches(['+', '-']).parse().map_err(|_| format!("invalid number: {text:?}"))?;
    Ok((Amount { n, from_start, bytes: bytes.is_some() }, options))
}

pub fn head(args: &[String], io: &mut Io) -> Code {
    let (Amount { n, bytes, .. }, options) = match amount(args) {
        Ok(read) => read,
        Err(why) => return io.fail("head", why),
    };
    let several = options.operands.len() > 1;
    let mut first = true;
    over("head", &options.operands, io, |name, from, to| {
        title(several, &mut first, name, to)?;
        if bytes {
            return copy(&mut from.take(n), to).map(drop);
        }
        let mut line = Vec::new();
        for _ in 0..n {
            if from.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            to.write_all(&line)?;
            line.clear();
        }
        Ok(())
    })
}

fn title(several: bool, first: &mut bool, name: &str, to: &mut dyn Write) -> std::io::Result<()> {
    if several {
        let gap = if std::mem::take(first) { "" } else { "\n" };
        writeln!(to, "{gap}==> {name} <==")?;
    }
    Ok(())
}

pub fn tail(args: &[String], io: &mut Io) -> Code {
    let (Amount { n, bytes, from_start }, options) = match amount(args) {
        Ok(read) => read,
        Err(why) => return io.fail("tail", why),
    };
    let several = options.operands.len() > 1;
    let mut first = true;
    let follow = options.has(&["f", "F", "follow"]);
    let code = over("tail", &options.operands, io, |name, from, to| {
        title(several, &mut first, name, to)?;
        match (from_start, bytes) {
            (true, true) => {
                copy(&mut from.take(n.saturating_sub(1)), &mut std::io::sink())?;
                copy(from, to).map(drop)
            }
            (true, false) => {
                let mut line = Vec::new();
                for _ in 1..n {
                    from.read_until(b'\n', &mut line)?;
                    line.clear();
                }
                copy(from, to).map(drop)
            }
            (false, true) => last_bytes(n, from, to),
            (false, false) => last_lines(n, from, to),
        }
    });
    match options.operands.as_slice() {
        [file] if follow && code == 0 => go_on(file, io),
        _ => code,
    }
}

fn last_bytes(n: u64, from: &mut dyn BufRead, to: &mut dyn Write) -> std::io::Result<()> {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    let mut kept = std::collections::VecDeque::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        kept.extend(&buffer[..read]);
        let surplus = kept.len().saturating_sub(n);
        kept.drain(..surplus);
    }
    to.write_all(kept.make_contiguous())
}

fn last_lines(n: u64, from: &mut dyn BufRead, to: &mut dyn Write) -> std::io::Result<()> {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    let mut kept = std::collections::VecDeque::new();
    loop {
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        kept.push_back(line);
        if kept.len() > n {
            kept.pop_front();
        }
    }
    kept.iter().try_for_each(|line| to.write_all(line))
}

/// Shows what is written to a file, until the client goes.
fn go_on(file: &str, io: &mut Io) -> Code {
    let mut at = std::fs::metadata(file).map_or(0, |m| m.len());
    loop {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let read = || -> std::io::Result<Vec<u8>> {
            use std::io::Seek as _;
            let mut file = std::fs::File::open(file)?;
            let size = file.metadata()?.len();
            if size < at {
                at = 0;
            }
            file.seek(std::io::SeekFrom::Start(at))?;
            let mut bytes = Vec::new();
            file.take(1 << 20).read_to_end(&mut bytes)?;
            at += bytes.len() as u64;
            Ok(bytes)
        };
        match { read }() {
            Ok(bytes) if io.output.write_all(&bytes).is_err() => return 0,
            Ok(_) => {}
            Err(error) => return io.fail("tail", format!("{file}: {}", words(&error))),
        }
    }
}

pub fn wc(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let all = !options.has(&["l", "w", "c", "m"]);
    let shown = |name: &str, counts: [u64; 3], to: &mut dyn Write| {
        let wanted = [options.has(&["l"]), options.has(&["w"]), options.has(&["c", "m"])];
        let columns: Vec<_> =
            counts.iter().zip(wanted).filter(|(_, wanted)| all || *wanted).map(|(n, _)| n.to_string()).collect();
        let name = if name == "-" { String::new() } else { format!(" {name}") };
        writeln!(to, "{}{name}", columns.join(" "))
    };
    let mut total = [0; 3];
    let code = over("wc", &options.operands, io, |name, from, to| {
        let mut counts = [0_u64; 3];
        let mut within = false;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = from.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            counts[2] += n as u64;
            for byte in &buffer[..n] {
                counts[0] += u64::from(*byte == b'\n');
                let word = !byte.is_ascii_whitespace();
                counts[1] += u64::from(word && !within);
                within = word;
            }
        }
        total.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        shown(name, counts, to)
    });
    if options.operands.len() > 1 {
        let _ = shown("total", total, &mut io.output);
    }
    code
}

pub fn grep(args: &[String], io: &mut Io) -> Code {
    let mut options = Options::read(args, &["e", "m"]);
    let pattern = match options.value(&["e"]) {
        Some(pattern) => pattern.to_owned(),
        None if options.operands.is_empty() => {
            io.fail("grep", "usage: grep [-cEFhHilnoqrvwx] PATTERN [FILE]...");
            return 2;
        }
        None => options.operands.remove(0),
    };
    let pattern = if options.has(&["i"]) { pattern.to_lowercase() } else { pattern };
    let pattern = crate::find::Pattern::new(&pattern, options.has(&["F"]), options.has(&["x"]));
    let mut files = options.operands.clone();
    if options.has(&["r", "R"]) {
        if files.is_empty() {
            files.push(".".to_owned());
        }
        files = files.iter().flat_map(|path| crate::find::all_files(path)).collect();
    }
    let named = (files.len() > 1 || options.has(&["H", "r", "R"])) && !options.has(&["h"]);
    let mut any = false;
    let code = over("grep", &files, io, |name, from, to| {
        let (mut count, mut number) = (0_u64, 0_u64);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line)? > 0 {
            number += 1;
            let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
            let looked_at = if options.has(&["i"]) { text.to_lowercase() } else { text.clone() };
            line.clear();
            if pattern.is_in(&looked_at) == options.has(&["v"]) {
                continue;
            }
            any = true;
            count += 1;
            if options.has(&["q", "l"]) {
                break;
            }
            if !options.has(&["c"]) {
                let name = if named { format!("{name}:") } else { String::new() };
                let number = if options.has(&["n"]) { format!("{number}:") } else { String::new() };
                writeln!(to, "{name}{number}{text}")?;
            }
        }
        if options.has(&["l"]) && count > 0 {
            writeln!(to, "{name}")?;
        } else if options.has(&["c"]) {
            let name = if named { format!("{name}:") } else { String::new() };
            writeln!(to, "{name}{count}")?;
        }
        Ok(())
    });
    if code != 0 { 2 } else { i32::from(!any) }
}

pub fn sort(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &["k", "t", "o"]);
    let mut lines = Vec::new();
    let code = over("sort", &options.operands, io, |_, from, _| {
        for line in from.lines() {
            lines.push(line?);
        }
        Ok(())
    });
    if options.has(&["n"]) {
        let number = |line: &String| {
            let text: String = line.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '-').collect();
            text.parse::<i64>().unwrap_or(0)
        };
        lines.sort_by_key(number);
    } else {
        lines.sort();
    }
    if options.has(&["r"]) {
        lines.reverse();
    }
    if options.has(&["u"]) {
        lines.dedup();
    }
    lines.iter().for_each(|line| io.line(line));
    code
}

pub fn uniq(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let counted = options.has(&["c"]);
    over("uniq", &options.operands, io, |_, from, to| {
        let mut last: Option<(String, u64)> = None;
        let show = |to: &mut dyn Write, (line, n): &(String, u64)| match counted {
            true => writeln!(to, "{n:7} {line}"),
            false => writeln!(to, "{line}"),
        };
        for line in from.lines() {
            let line = line?;
            match &mut last {
                Some((before, n)) if *before == line => *n += 1,
                other => {
                    if let Some(done) = other.replace((line, 1)) {
                        show(to, &done)?;
                    }
                }
            }
        }
        last.map_or(Ok(()), |done| show(to, &done))
    })
}

pub fn tee(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let mut code = 0;
    let mut files = Vec::new();
    for path in &options.operands {
        let append = options.has(&["a"]);
        match std::fs::OpenOptions::new().create(true).write(true).append(append).truncate(!append).open(path) {
            Ok(file) => files.push(file),
            Err(error) => code = io.fail("tee", format!("{path}: {}", words(&error))),
        }
    }
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = io.input.read(&mut buffer) {
        let _ = io.output.write_all(&buffer[..n]);
        for file in &mut files {
            if let Err(error) = file.write_all(&buffer[..n]) {
                let _ = writeln!(io.errors, "tee: {}", words(&error));
                return 1;
            }
        }
    }
    code
}

pub fn seq(args: &[String], io: &mut Io) -> Code {
    let numbers: Result<Vec<i64>, _> = args.iter().map(|a| a.parse()).collect();
    let (from, step, to) = match numbers.as_deref() {
        Ok([to]) => (1, 1, *to),
        Ok([from, to]) => (*from, 1, *to),
        Ok([from, step, to]) if *step != 0 => (*from, *step, *to),
        _ => return io.fail("seq", "usage: seq [FIRST [STEP]] LAST"),
    };
    let mut n = from;
    while if step > 0 { n <= to } else { n >= to } {
        if writeln!(io.output, "{n}").is_err() {
            return 0;
        }
        n += step;
    }
    0
}

pub fn yes(args: &[String], io: &mut Io) -> Code {
    let line = if args.is_empty() { "y".to_owned() } else { args.join(" ") };
    let many = format!("{line}\n").repeat(512);
    while io.output.write_all(many.as_bytes()).is_ok() {}
    0
}

pub fn basename(args: &[String], io: &mut Io) -> Code {
    let Some(path) = args.first() else { return io.fail("basename", "missing operand") };
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = args.get(1).and_then(|suffix| name.strip_suffix(suffix.as_str())).unwrap_or(name);
    io.line(if name.is_empty() { "/" } else { name });
    0
}

pub fn dirname(args: &[String], io: &mut Io) -> Code {
    let Some(path) = args.first() else { return io.fail("dirname", "missing operand") };
    let path = path.trim_end_matches('/');
    io.line(match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((dir, _)) => dir,
        None if path.is_empty() => "/",
        None => ".",
    });
    0
}
