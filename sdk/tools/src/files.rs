//! Files and folders: cp, mv, rm, mkdir and the like.

use std::{fs, io as sio, path::Path};

use crate::{
    Code, host,
    io::{Io, Options, words},
    list::{human, join, mode, names_in, seconds},
};

/// Runs over operands; says what went wrong with each.
fn each(command: &str, paths: &[String], io: &mut Io, mut act: impl FnMut(&str) -> sio::Result<()>) -> Code {
    if paths.is_empty() {
        return io.fail(command, "missing operand");
    }
    let mut code = 0;
    for path in paths {
        if let Err(error) = act(path) {
            code = io.fail(command, format!("{path}: {}", words(&error)));
        }
    }
    code
}

pub fn mkdir(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &["m"]);
    let parents = options.has(&["p", "parents"]);
    each("mkdir", &options.operands, io, |path| if parents { make_all(Path::new(path)) } else { fs::create_dir(path) })
}

/// Makes a folder and those above it, as far as they are not there. Mounts cannot be made, only used.
pub fn make_all(path: &Path) -> sio::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent()
        && !host::mounts().iter().any(|mount| Path::new(mount).starts_with(above))
    {
        make_all(above)?;
    }
    match fs::create_dir(path) {
        Err(_) if path.is_dir() => Ok(()),
        made => made,
    }
}

pub fn rmdir(args: &[String], io: &mut Io) -> Code {
    each("rmdir", &Options::read(args, &[]).operands, io, |path| fs::remove_dir(path))
}

pub fn rm(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let (force, all) = (options.has(&["f", "force"]), options.has(&["r", "R", "recursive"]));
    if force && options.operands.is_empty() {
        return 0;
    }
    each("rm", &options.operands, io, |path| match remove(path, all) {
        Err(error) if force && error.kind() == sio::ErrorKind::NotFound => Ok(()),
        result => result,
    })
}

fn remove(path: &str, all: bool) -> sio::Result<()> {
    let is_dir = fs::symlink_metadata(path)?.is_dir();
    match (is_dir, all) {
        (true, true) => {
            for name in names_in(path)? {
                remove(&join(path, &name), true)?;
            }
            fs::remove_dir(path)
        }
        (true, false) => Err(sio::ErrorKind::IsADirectory.into()),
        (false, _) => fs::remove_file(path),
    }
}

pub fn touch(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &["d", "t"]);
    each("touch", &options.operands, io, |path| {
        let is_new = fs::symlink_metadata(path).is_err();
        let file = fs::OpenOptions::new().create(!options.has(&["c"])).append(true).open(path)?;
        // What has just been made is as young as can be.
        if is_new { Ok(()) } else { file.set_modified(std::time::SystemTime::now()) }
    })
}

pub fn ln(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let [target, link] = options.operands.as_slice() else { return io.fail("ln", "usage: ln [-sf] TARGET LINK") };
    let link = if Path::new(link).is_dir() { join(link, base(target)) } else { link.clone() };
    if options.has(&["f"]) {
        // What is not there need not go.
        let _removed = fs::remove_file(&link);
    }
    let made = if options.has(&["s"]) { host::symlink(target, &link) } else { fs::hard_link(target, &link) };
    made.map_or_else(|error| io.fail("ln", format!("{link}: {}", words(&error))), |()| 0)
}

pub fn readlink(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let mut targets = Vec::new();
    let code = each("readlink", &options.operands, io, |path| {
        let found = if options.has(&["f"]) { fs::canonicalize(path)? } else { fs::read_link(path)? };
        targets.push(found.display().to_string());
        Ok(())
    });
    targets.iter().for_each(|target| io.line(target));
    code
}

fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// Where each of several sources goes.
fn to_target<'a>(command: &str, paths: &'a [String], io: &mut Io) -> Option<Vec<(&'a str, String)>> {
    let Some((target, sources)) = paths.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        io.fail(command, "missing operand");
        return None;
    };
    let into = Path::new(target).is_dir();
    if !into && sources.len() > 1 {
        io.fail(command, format!("{target}: Not a directory"));
        return None;
    }
    let place = |source: &str| if into { join(target, base(source)) } else { target.clone() };
    Some(sources.iter().map(|source| (source.as_str(), place(source))).collect())
}

pub fn cp(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let all = options.has(&["r", "R", "a"]);
    let Some(pairs) = to_target("cp", &options.operands, io) else { return 1 };
    let mut code = 0;
    for (from, to) in pairs {
        if let Err(error) = copy(from, &to, all) {
            code = io.fail("cp", format!("{from}: {}", words(&error)));
        }
    }
    code
}

fn copy(from: &str, to: &str, all: bool) -> sio::Result<()> {
    let meta = if all { fs::symlink_metadata(from)? } else { fs::metadata(from)? };
    if meta.is_symlink() {
        return host::symlink(&fs::read_link(from)?.to_string_lossy(), to);
    }
    if !meta.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    if !all {
        return Err(sio::Error::other("-r not specified; omitting directory"));
    }
    make_all(Path::new(to))?;
    for name in names_in(from)? {
        copy(&join(from, &name), &join(to, &name), true)?;
    }
    Ok(())
}

pub fn mv(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &[]);
    let Some(pairs) = to_target("mv", &options.operands, io) else { return 1 };
    let mut code = 0;
    for (from, to) in pairs {
        // From one mount to another it is a copy.
        let moved = fs::rename(from, &to).or_else(|error| match error.kind() {
            sio::ErrorKind::NotFound => Err(error),
            _ => copy(from, &to, true).and_then(|()| remove(from, true)),
        });
        if let Err(error) = moved {
            code = io.fail("mv", format!("{from}: {}", words(&error)));
        }
    }
    code
}

pub fn stat(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &["c"]);
    let mut lines = Vec::new();
    let code = each("stat", &options.operands, io, |path| {
        let meta = fs::symlink_metadata(path)?;
        let kind = match () {
            () if meta.is_dir() => "directory",
            () if meta.is_symlink() => "symbolic link",
            () => "regular file",
        };
        let time = seconds(meta.modified().ok());
        lines.push(match options.value(&["c"]) {
            Some(format) => format
                .replace("%n", path)
                .replace("%s", &meta.len().to_string())
                .replace("%F", kind)
                .replace("%Y", &time.to_string())
                .replace("%A", mode(Some(&meta))),
            None => {
                format!("  File: {path}\n  Size: {}\t{kind}\nModify: {}", meta.len(), crate::system::Date::of(time))
            }
        });
        Ok(())
    });
    lines.iter().for_each(|line| io.line(line));
    code
}

pub fn du(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &["d"]);
    let here = [".".to_owned()];
    let paths = if options.operands.is_empty() { &here[..] } else { &options.operands };
    let mut lines = Vec::new();
    let code = each("du", paths, io, |path| {
        let mut show = |path: &str, bytes: u64| {
            let size = if options.has(&["h"]) { human(bytes) } else { bytes.div_ceil(1024).to_string() };
            lines.push(format!("{size}\t{path}"));
        };
        let total = size_of(path, &mut |dir, bytes| {
            if !options.has(&["s"]) && dir != path {
                show(dir, bytes);
            }
        })?;
        show(path, total);
        Ok(())
    });
    lines.iter().for_each(|line| io.line(line));
    code
}

fn size_of(path: &str, show: &mut dyn FnMut(&str, u64)) -> sio::Result<u64> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    let mut total = 0;
    for name in names_in(path)? {
        total += size_of(&join(path, &name), show)?;
    }
    show(path, total);
    Ok(total)
}

/// Makes a file or folder that nobody else has.
pub fn mktemp(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &["p"]);
    let dir = options.value(&["p"]).map(str::to_owned).or_else(|| std::env::var("TMPDIR").ok());
    let dir = dir.unwrap_or_else(|| "/tmp".to_owned());
    let template = options.operands.first().cloned().unwrap_or_else(|| format!("{dir}/tmp.XXXXXX"));
    let stem = template.trim_end_matches('X');
    for attempt in 0..1000_u32 {
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        let path = format!("{stem}{:06x}", nanos.wrapping_add(attempt) & 0xff_ffff);
        let made = match options.has(&["d"]) {
            true => fs::create_dir(&path),
            false => fs::OpenOptions::new().write(true).create_new(true).open(&path).map(drop),
        };
        match made {
            Ok(()) => {
                io.line(path);
                return 0;
            }
            Err(error) if error.kind() == sio::ErrorKind::AlreadyExists => {}
            Err(error) => return io.fail("mktemp", format!("{path}: {}", words(&error))),
        }
    }
    io.fail("mktemp", format!("{template}: File exists"))
}
