//! `ls`, and how files are shown.

use std::{
    fs::{self, Metadata},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    Code, host,
    io::{Io, Options, words},
};

pub fn ls(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let here = [".".to_owned()];
    let paths = if options.operands.is_empty() { &here[..] } else { &options.operands };
    let mut code = 0;
    let (mut files, mut dirs) = (Vec::new(), Vec::new());
    for path in paths {
        let found = if options.has(&["l", "d"]) { fs::symlink_metadata(path) } else { fs::metadata(path) };
        match found {
            Ok(meta) if meta.is_dir() && !options.has(&["d"]) => dirs.push(path.clone()),
            Ok(_) => files.push(path.clone()),
            Err(_) if !host::leads_to(path).is_empty() => dirs.push(path.clone()),
            Err(error) => code = io.fail("ls", format!("{path}: {}", words(&error))),
        }
    }
    files.iter().for_each(|path| show(path, path, &options, io));
    for (i, dir) in dirs.iter().enumerate() {
        if paths.len() > 1 || options.has(&["R"]) {
            let gap = if i == 0 && files.is_empty() { "" } else { "\n" };
            io.line(format!("{gap}{dir}:"));
        }
        code |= list(dir, &options, io);
    }
    code
}

fn list(dir: &str, options: &Options, io: &mut Io) -> Code {
    let mut names = match names_in(dir) {
        Ok(names) => names,
        Err(error) => return io.fail("ls", format!("{dir}: {}", words(&error))),
    };
    if options.has(&["a"]) {
        names.extend([".".to_owned(), "..".to_owned()]);
    }
    names.retain(|name| options.has(&["a", "A"]) || !name.starts_with('.'));
    names.sort();
    if options.has(&["t"]) {
        let time = |name: &String| fs::symlink_metadata(join(dir, name)).and_then(|m| m.modified()).ok();
        names.sort_by_key(|name| std::cmp::Reverse(time(name)));
    }
    if options.has(&["r"]) {
        names.reverse();
    }
    let mut below = Vec::new();
    for name in &names {
        let path = join(dir, name);
        show(name, &path, options, io);
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
        if options.has(&["R"]) && is_dir && !matches!(name.as_str(), "." | "..") {
            below.push(path);
        }
    }
    let mut code = 0;
    for dir in below {
        io.line(format!("\n{dir}:"));
        code |= list(&dir, options, io);
    }
    code
}

/// Names in a folder, or in what only leads to folders.
pub fn names_in(dir: &str) -> std::io::Result<Vec<String>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()),
        Err(error) => {
            let leads = host::leads_to(dir);
            if leads.is_empty() { Err(error) } else { Ok(leads) }
        }
    }
}

pub fn join(dir: &str, name: &str) -> String {
    if dir.ends_with('/') { format!("{dir}{name}") } else { format!("{dir}/{name}") }
}

fn show(name: &str, path: &str, options: &Options, io: &mut Io) {
    let meta = fs::symlink_metadata(path).ok();
    let is_dir = meta.as_ref().is_none_or(Metadata::is_dir);
    let mark = if is_dir && options.has(&["p", "F"]) { "/" } else { "" };
    if !options.has(&["l"]) {
        return io.line(format!("{name}{mark}"));
    }
    let link = match fs::read_link(path) {
        Ok(target) => format!(" -> {}", target.display()),
        Err(_) => String::new(),
    };
    let size = meta.as_ref().map_or(0, Metadata::len);
    let size = if options.has(&["h"]) { human(size) } else { size.to_string() };
    let time = minutes(meta.as_ref().and_then(|m| m.modified().ok()));
    io.line(format!("{} 1 root root {size:>8} {time} {name}{mark}{link}", mode(meta.as_ref())));
}

/// As `ls -l` shows it. WASI has no permissions but whether something may be written.
pub fn mode(meta: Option<&Metadata>) -> &'static str {
    match meta {
        None => "drwxr-xr-x",
        Some(meta) if meta.is_symlink() => "lrwxrwxrwx",
        Some(meta) if meta.is_dir() => "drwxr-xr-x",
        Some(_) => "-rw-r--r--",
    }
}

pub fn human(bytes: u64) -> String {
    let units = ["", "K", "M", "G", "T"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { bytes.to_string() } else { format!("{size:.1}{}", units[unit]) }
}

/// Seconds since 1970.
pub fn seconds(time: Option<SystemTime>) -> i64 {
    let since = time.and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(0))
}

fn minutes(time: Option<SystemTime>) -> String {
    let date = crate::system::Date::of(seconds(time));
    format!("{:04}-{:02}-{:02} {:02}:{:02}", date.year, date.month, date.day, date.hour, date.minute)
}
