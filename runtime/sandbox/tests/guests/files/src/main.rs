//! File operations for the sandbox's tests, built for preview 1 and for 0.2: `files OPERATION ARGUMENT... [-- OPERATION ...]`.
//! Each operation prints one line: `ok`, what it found, or the error's kind.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    for operation in args.split(|arg| arg == "--") {
        let operation: Vec<&str> = operation.iter().map(String::as_str).collect();
        match run(&operation) {
            Ok(found) => println!("{found}"),
            Err(error) => println!("{:?}", error.kind()),
        }
    }
}

fn run(operation: &[&str]) -> io::Result<String> {
    let done = |()| "ok".to_owned();
    match *operation {
        ["read", path] => fs::read_to_string(path),
        ["write", path, text] => fs::write(path, text).map(done),
        ["append", path, text] => {
            fs::OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes()).map(done)
        }
        ["list", path] => list(Path::new(path)),
        ["stat", path] => fs::metadata(path).map(|meta| format!("{} {}", kind(meta.file_type()), meta.len())),
        ["lstat", path] => fs::symlink_metadata(path).map(|meta| kind(meta.file_type()).to_owned()),
        ["rename", from, to] => fs::rename(from, to).map(done),
        ["remove", path] => fs::remove_file(path).map(done),
        ["mkdir", path] => fs::create_dir(path).map(done),
        ["rmdir", path] => fs::remove_dir(path).map(done),
        ["link", from, to] => fs::hard_link(from, to).map(done),
        ["symlink", target, at] => symlink(target, at).map(done),
        ["readlink", path] => fs::read_link(path).map(|path| path.display().to_string()),
        ["race", path, times] => race(path, times.parse().unwrap_or(1)),
        ["hold", path, count] => {
            let mut held = Vec::new();
            for _ in 0..count.parse().unwrap_or(0) {
                match fs::File::open(path) {
                    Ok(file) => held.push(file),
                    Err(error) => return Ok(format!("{} {error}", held.len())),
                }
            }
            Ok(held.len().to_string())
        }
        ["cwd"] => std::env::current_dir().map(|path| path.display().to_string()),
        ["env", name] => Ok(std::env::var(name).unwrap_or_else(|_| "unset".to_owned())),
        ["echo"] => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            Ok(text)
        }
        ["tty"] => {
            use io::IsTerminal as _;
            Ok(format!("{} {} {}", io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()))
        }
        ["sleep", millis] => {
            std::thread::sleep(std::time::Duration::from_millis(millis.parse().unwrap_or(0)));
            Ok("slept".to_owned())
        }
        ["alloc", mb] => {
            let blocks: Vec<_> = (0..mb.parse().unwrap_or(0)).map(|_| vec![1_u8; 1 << 20]).collect();
            Ok(std::hint::black_box(blocks).len().to_string())
        }
        ["exit", code] => std::process::exit(code.parse().unwrap_or(255)),
        _ => Ok(format!("unknown operation {operation:?}")),
    }
}

fn kind(of: fs::FileType) -> &'static str {
    match () {
        () if of.is_dir() => "folder",
        () if of.is_file() => "file",
        () if of.is_symlink() => "link",
        () => "other",
    }
}

fn list(path: &Path) -> io::Result<String> {
    let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names.join(" "))
}

/// Reads a file again and again while somebody swaps what its path leads to; tells what it ever found.
fn race(path: &str, times: u32) -> io::Result<String> {
    let mut found = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..times {
        let what = fs::read_to_string(path).unwrap_or_else(|_| "error".to_owned());
        *found.entry(what).or_default() += 1;
    }
    Ok(found.into_keys().collect::<Vec<_>>().join(" "))
}

fn symlink(target: &str, at: &str) -> io::Result<()> {
    // The standard library has no stable way to it.
    unsafe extern "C" {
        fn symlink(target: *const std::ffi::c_char, at: *const std::ffi::c_char) -> i32;
    }
    let (target, at) = (std::ffi::CString::new(target)?, std::ffi::CString::new(at)?);
    // SAFETY: both are strings that live through the call.
    match unsafe { symlink(target.as_ptr(), at.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
