//! `agnhost mounttest`: what a container sees of its mounts.

use std::{
    fs,
    time::{Duration, Instant},
};

use podium_tools::Code;

use crate::flags::Flags;

const CONTENT: &str = "mount-tester new file\n";
const EVERY: Duration = Duration::from_secs(2);

/// In this order, so that one call writes what it reads afterwards.
pub fn run(args: &[String]) -> Code {
    let flags = Flags::read(args, &["break_on_expected_content", "break-on-expected-content"]);
    let path = |name: &str| Some(flags.text(name, "").to_owned()).filter(|path| !path.is_empty());
    let mut ok = true;
    if let Some(path) = path("fs-type") {
        println!("mount type of {path:?}: wasi");
    }
    for mode in ["new-file-0644", "new-file-0666", "new-file-0660", "new-file-0777"] {
        if let Some(path) = path(mode) {
            ok &= write(&path);
        }
    }
    if let Some(path) = path("file-mode") {
        ok &= mode(&path, "mode");
    }
    if let Some(path) = path("file-perm") {
        ok &= mode(&path, "perms");
    }
    if let Some(path) = path("file-owner") {
        println!("owner UID of {path:?}: 0\nowner GID of {path:?}: 0");
    }
    if let Some(path) = path("file-content") {
        ok &= content(&path);
    }
    if let Some(path) = path("file-content-in-loop") {
        let time = Duration::from_secs(u64::try_from(flags.number("retry-time", 180)).unwrap_or(180));
        ok &= follow(&path, time, flags.is("break-on-expected-content", true));
    }
    i32::from(!ok)
}

fn write(path: &str) -> bool {
    match fs::write(path, CONTENT) {
        Ok(()) => content(path),
        Err(error) => {
            println!("error writing new file {path:?}: {error}");
            false
        }
    }
}

fn content(path: &str) -> bool {
    match fs::read(path) {
        Ok(bytes) => {
            println!("content of file {path:?}: {}", String::from_utf8_lossy(&bytes));
            true
        }
        Err(error) => {
            println!("error reading file content for {path:?}: {}", podium_tools::io::words(&error).to_lowercase());
            false
        }
    }
}

/// WASI knows no modes: what is said is what a folder, a link and a file can be used for.
fn mode(path: &str, what: &str) -> bool {
    let shown = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => "drwxrwxrwx",
        Ok(found) if found.is_symlink() => "Lrwxrwxrwx",
        Ok(found) if found.permissions().readonly() => "-r--r--r--",
        Ok(_) => "-rw-r--r--",
        Err(error) => {
            println!("error reading file {what} for {path:?}: {}", podium_tools::io::words(&error).to_lowercase());
            return false;
        }
    };
    println!("{what} of file {path:?}: {}", if what == "mode" { shown } else { &shown[1..] });
    true
}

fn follow(path: &str, time: Duration, stop: bool) -> bool {
    let started = Instant::now();
    let mut ok = true;
    while started.elapsed() < time {
        let read = fs::read_to_string(path);
        ok = read.is_ok();
        match read {
            Ok(text) => {
                println!("content of file {path:?}: {text}");
                if stop && text == CONTENT {
                    return true;
                }
                if stop {
                    println!("Unexpected content. Expected: {CONTENT}. Retrying");
                }
            }
            Err(error) => {
                println!("Error reading file {path}: {}, retrying", podium_tools::io::words(&error).to_lowercase())
            }
        }
        std::thread::sleep(EVERY);
    }
    ok
}
