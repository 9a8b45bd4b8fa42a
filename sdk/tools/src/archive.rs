//! `tar`: archives to output and from input, as `kubectl cp` asks for them, and to and from files.
//!
//! Written: ustar, with GNU's long names. Read: those, and POSIX's extended headers as Go writes them. Owners and
//! permissions mean nothing here. Nothing is written outside the folder that is extracted into.

use std::{
    fs::{self, File},
    io::{self as sio, BufRead, Read, Write},
    path::{Component, Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    Code,
    files::make_all,
    host,
    io::{Io, Out, copy, words},
    list::{join, names_in, seconds},
};

const BLOCK: usize = 512;
/// Longest name that is read.
const NAME_BYTES_MAX: u64 = 64 * 1024;

/// What is asked for.
#[derive(Default)]
struct Asked {
    create: bool,
    extract: bool,
    list: bool,
    verbose: bool,
    keep_times: bool,
    file: Option<String>,
    dir: Option<String>,
    members: Vec<String>,
}

pub fn tar(args: &[String], io: &mut Io) -> Code {
    let asked = match read_options(args) {
        Ok(asked) => asked,
        Err(why) => return io.fail("tar", why),
    };
    match [asked.create, asked.extract, asked.list] {
        [true, false, false] => create(&asked, io),
        [false, true, false] | [false, false, true] => extract(&asked, io),
        _ => io.fail("tar", "usage: tar {c|x|t}[vmf] [FILE] [-C DIR] [NAME]..."),
    }
}

fn read_options(args: &[String]) -> Result<Asked, String> {
    let mut asked = Asked { keep_times: true, ..Asked::default() };
    let mut rest = args.iter();
    let mut first = true;
    while let Some(arg) = rest.next() {
        let old = std::mem::take(&mut first) && !arg.starts_with('-');
        if let Some(long) = arg.strip_prefix("--") {
            match long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned()))) {
                ("create", _) => asked.create = true,
                ("extract" | "get", _) => asked.extract = true,
                ("list", _) => asked.list = true,
                ("verbose", _) => asked.verbose = true,
                ("touch", _) => asked.keep_times = false,
                ("file", value) => asked.file = value.or_else(|| rest.next().cloned()),
                ("directory", value) => asked.dir = value.or_else(|| rest.next().cloned()),
                ("no-same-permissions" | "no-same-owner" | "warning" | "no-overwrite-dir" | "overwrite", _) => {}
                (other, _) => return Err(format!("unknown option: --{other}")),
            }
            continue;
        }
        let letters = if old { arg } else { arg.strip_prefix('-').unwrap_or_default() };
        if letters.is_empty() {
            asked.members.push(arg.clone());
            continue;
        }
        for letter in letters.chars() {
            match letter {
                'c' => asked.create = true,
                'x' => asked.extract = true,
                't' => asked.list = true,
                'v' => asked.verbose = true,
                'm' => asked.keep_times = false,
                'f' => asked.file = rest.next().cloned(),
                'C' => asked.dir = rest.next().cloned(),
                'p' | 'o' | 'h' => {}
                'z' | 'j' | 'J' => return Err("compressed archives are not understood here".to_owned()),
                other => return Err(format!("unknown option: -{other}")),
            }
        }
    }
    Ok(asked)
}

fn create(asked: &Asked, io: &mut Io) -> Code {
    let to = match asked.file.as_deref() {
        None | Some("-") => io.output.clone(),
        Some(path) => match File::create(path) {
            Ok(file) => Out::file(file),
            Err(error) => return io.fail("tar", format!("{path}: {}", words(&error))),
        },
    };
    if asked.members.is_empty() {
        return io.fail("tar", "empty archive: no names are given");
    }
    let mut writer = Writer { to, errors: io.errors.clone(), code: 0 };
    let mut result = Ok(());
    for member in &asked.members {
        let path = asked.dir.as_ref().map_or(member.clone(), |dir| join(dir, member));
        let name = member.trim_start_matches('/');
        if name.len() < member.len() {
            writer.say("Removing leading `/' from member names");
        }
        result = result.and_then(|()| writer.add(&path, if name.is_empty() { "." } else { name }));
    }
    result = result.and_then(|()| writer.to.write_all(&[0; BLOCK * 2]));
    match result {
        // Whoever reads the archive has had enough.
        Err(error) if asked.file.as_deref().is_none_or(|f| f == "-") && error.kind() == sio::ErrorKind::BrokenPipe => 0,
        Err(error) => io.fail("tar", words(&error)),
        Ok(()) => writer.code,
    }
}

struct Writer {
    to: Out,
    errors: Out,
    code: Code,
}

impl Writer {
    /// At once: who reads the archive may go when it is whole.
    fn say(&mut self, words: &str) {
        // There is nobody else to tell.
        let _ = self.errors.write_all(format!("tar: {words}\n").as_bytes());
    }

    fn problem(&mut self, words: &str) {
        self.code = 2;
        self.say(words);
    }

    /// Adds a file, or a folder with all in it. What cannot be read is a problem, but not the end.
    fn add(&mut self, path: &str, name: &str) -> sio::Result<()> {
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => Some(meta),
            Err(_) if !host::leads_to(path).is_empty() => None,
            Err(error) => {
                self.problem(&format!("{path}: {}", words(&error)));
                return Ok(());
            }
        };
        let time = seconds(meta.as_ref().and_then(|m| m.modified().ok()));
        if meta.as_ref().is_some_and(|m| m.is_symlink()) {
            let target = fs::read_link(path).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default();
            return self.header(name, b'2', 0, time, &target);
        }
        let Some(meta) = meta.filter(|m| !m.is_dir()) else {
            self.header(&format!("{}/", name.trim_end_matches('/')), b'5', 0, time, "")?;
            let mut names = names_in(path).unwrap_or_default();
            names.sort();
            return names.iter().try_for_each(|below| self.add(&join(path, below), &join(name, below)));
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) => {
                self.problem(&format!("{path}: {}", words(&error)));
                return Ok(());
            }
        };
        let size = meta.len();
        self.header(name, b'0', size, time, "")?;
        let copied = copy(&mut file.take(size), &mut self.to)?;
        if copied < size {
            self.problem(&format!("{path}: file shrank by {} bytes; padding with zeros", size - copied));
            copy(&mut sio::repeat(0).take(size - copied), &mut self.to)?;
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> sio::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.to.write_all(&[0; BLOCK][over..]) }
    }

    fn header(&mut self, name: &str, kind: u8, size: u64, time: i64, target: &str) -> sio::Result<()> {
        for (text, kind) in [(name, b'L'), (target, b'K')] {
            if text.len() > 100 {
                let long = [text.as_bytes(), b"\0"].concat();
                self.block("././@LongLink", kind, long.len() as u64, 0, "")?;
                self.to.write_all(&long)?;
                self.pad(long.len() as u64)?;
            }
        }
        self.block(name, kind, size, time, target)
    }

    fn block(&mut self, name: &str, kind: u8, size: u64, time: i64, target: &str) -> sio::Result<()> {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8], most: usize| {
            let bytes = &bytes[..bytes.len().min(most)];
            block[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, name.as_bytes(), 100);
        put(100, if kind == b'5' { b"0000755\0" } else { b"0000644\0" }, 8);
        put(108, b"0000000\0", 8);
        put(116, b"0000000\0", 8);
        if size < 1 << 33 {
            put(124, format!("{size:011o}\0").as_bytes(), 12);
        } else {
            // GNU's form for sizes of 8 GiB and more.
            put(124, &[0x80, 0, 0, 0], 4);
            put(128, &size.to_be_bytes(), 8);
        }
        put(136, format!("{:011o}\0", time.max(0)).as_bytes(), 12);
        put(148, b"        ", 8);
        put(156, &[kind], 1);
        put(157, target.as_bytes(), 100);
        put(257, b"ustar  \0", 8);
        put(265, b"root", 32);
        put(297, b"root", 32);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.to.write_all(&block)
    }
}

/// One member, as its header says.
#[derive(Debug, Default)]
struct Member {
    name: String,
    kind: u8,
    size: u64,
    time: u64,
    target: String,
}

fn extract(asked: &Asked, io: &mut Io) -> Code {
    let mut lines = Vec::new();
    let mut problems = Vec::new();
    let result = match asked.file.as_deref() {
        None | Some("-") => read_all(&mut *io.input, asked, &mut lines, &mut problems),
        Some(path) => File::open(path)
            .map_err(|error| format!("{path}: {}", words(&error)))
            .and_then(|file| read_all(&mut sio::BufReader::new(file), asked, &mut lines, &mut problems)),
    };
    lines.iter().for_each(|line| io.line(line));
    let mut code = 0;
    for problem in problems.into_iter().chain(result.err()) {
        code = io.fail("tar", problem);
    }
    if code != 0 { 2 } else { 0 }
}

fn read_all(
    from: &mut dyn BufRead,
    asked: &Asked,
    lines: &mut Vec<String>,
    problems: &mut Vec<String>,
) -> Result<(), String> {
    let (mut name, mut target, mut size) = (None, None, None);
    while let Some(mut member) = header(from)? {
        if let b'L' | b'K' | b'x' | b'g' = member.kind {
            if member.size > NAME_BYTES_MAX {
                return Err("a name in the archive is too long".to_owned());
            }
            let mut text = Vec::new();
            content(from, member.size, &mut text)?;
            let long = || Some(String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned());
            match member.kind {
                b'L' => name = long(),
                b'K' => target = long(),
                b'x' => extended(&text, &mut name, &mut target, &mut size),
                _ => {}
            }
            continue;
        }
        member.name = name.take().unwrap_or(member.name);
        member.target = target.take().unwrap_or(member.target);
        member.size = size.take().unwrap_or(member.size);
        let wanted = asked.members.is_empty()
            || asked.members.iter().any(|m| {
                let m = m.trim_end_matches('/');
                member.name.trim_end_matches('/') == m || member.name.starts_with(&format!("{m}/"))
            });
        if wanted && (asked.list || asked.verbose) {
            lines.push(member.name.clone());
        }
        if !wanted || asked.list {
            content(from, member.size, &mut sio::sink())?;
            continue;
        }
        if let Some(problem) = write(from, &member, asked)? {
            problems.push(format!("{}: {problem}", member.name));
        }
    }
    // Whoever writes the archive fills its last blocks: they are read, so that it sees no broken pipe.
    copy(from, &mut sio::sink()).map(drop).map_err(|error| words(&error))
}

/// The next header; `None` at the end.
fn header(from: &mut dyn BufRead) -> Result<Option<Member>, String> {
    let mut block = [0; BLOCK];
    match from.read_exact(&mut block) {
        Err(error) if error.kind() == sio::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(words(&error)),
        Ok(()) => {}
    }
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let sum: u64 =
        block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u64::from(*b) }).sum();
    if number(&block[148..156]) != sum {
        return Err("this is no tar archive, or a broken one".to_owned());
    }
    let text = |from: usize, to: usize| {
        let bytes = &block[from..to];
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let mut name = text(0, 100);
    if &block[257..263] == b"ustar\0" && block[345] != 0 {
        name = format!("{}/{name}", text(345, 500));
    }
    let (size, time) = (number(&block[124..136]), number(&block[136..148]));
    Ok(Some(Member { name, kind: block[156], size, time, target: text(157, 257) }))
}

/// Octal digits, or GNU's binary form.
fn number(field: &[u8]) -> u64 {
    if field[0] & 0x80 != 0 {
        return field[1..].iter().fold(0, |n: u64, byte| n.wrapping_shl(8) | u64::from(*byte));
    }
    let digits = field.iter().skip_while(|b| **b == b' ').take_while(|b| (b'0'..=b'7').contains(b));
    digits.fold(0, |n: u64, digit| n.wrapping_mul(8) + u64::from(digit - b'0'))
}

/// Reads `LENGTH KEY=VALUE\n` records.
fn extended(text: &[u8], name: &mut Option<String>, target: &mut Option<String>, size: &mut Option<u64>) {
    let mut rest = text;
    while let Some(space) = rest.iter().position(|b| *b == b' ') {
        let length: usize = String::from_utf8_lossy(&rest[..space]).parse().unwrap_or(0);
        let Some(record) = rest.get(space + 1..length.saturating_sub(1)) else { return };
        let record = String::from_utf8_lossy(record);
        match record.split_once('=') {
            Some(("path", value)) => *name = Some(value.to_owned()),
            Some(("linkpath", value)) => *target = Some(value.to_owned()),
            Some(("size", value)) => *size = value.parse().ok(),
            _ => {}
        }
        rest = &rest[length.min(rest.len())..];
    }
}

/// Copies a member's content, and reads over what fills its last block.
fn content(from: &mut dyn BufRead, size: u64, to: &mut dyn Write) -> Result<(), String> {
    let copied = copy(&mut from.take(size), to);
    let copied = copied.map_err(|error| words(&error))?;
    if copied < size {
        return Err("unexpected end of the archive".to_owned());
    }
    let padding = size.next_multiple_of(BLOCK as u64) - size;
    copy(&mut from.take(padding), &mut sio::sink()).map(drop).map_err(|error| words(&error))
}

/// Writes one member; answers with what went wrong with it alone.
fn write(from: &mut dyn BufRead, member: &Member, asked: &Asked) -> Result<Option<String>, String> {
    let Some(path) = place(&member.name, asked.dir.as_deref()) else {
        content(from, member.size, &mut sio::sink())?;
        return Ok(Some("a name with '..' is not extracted".to_owned()));
    };
    let above = path.parent().map_or(Ok(()), make_all);
    let made = above.and_then(|()| match member.kind {
        b'5' => make_all(&path).map(|()| None),
        b'2' => {
            // What is not there need not go.
            let _removed = fs::remove_file(&path);
            host::symlink(&member.target, &path.to_string_lossy()).map(|()| None)
        }
        b'0' | 0 | b'7' => {
            // A link that lies there would lead elsewhere.
            if fs::symlink_metadata(&path).is_ok_and(|m| m.is_symlink()) {
                fs::remove_file(&path)?;
            }
            File::create(&path).map(Some)
        }
        kind => Err(sio::Error::other(format!("files of type {:?} are not extracted", char::from(kind)))),
    });
    match made {
        Ok(None) => content(from, member.size, &mut sio::sink()).map(|()| None),
        Ok(Some(mut file)) => {
            content(from, member.size, &mut file)?;
            if asked.keep_times {
                // Times are a nicety.
                let _set = file.set_modified(UNIX_EPOCH + Duration::from_secs(member.time));
            }
            Ok(None)
        }
        Err(error) => {
            content(from, member.size, &mut sio::sink())?;
            Ok(Some(words(&error)))
        }
    }
}

/// Where a member goes: below the folder, whatever it is called.
fn place(name: &str, dir: Option<&str>) -> Option<PathBuf> {
    let mut path = PathBuf::from(dir.unwrap_or("."));
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => return None,
            _ => {}
        }
    }
    Some(path)
}
