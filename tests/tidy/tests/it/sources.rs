//! Rules over source files: what they open with, how long they are, and what must not be in them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::assert_none;

/// A file that is longer is two chapters.
const LINES_MAX: usize = 600;
/// Stands in a file that may be longer, because it is a table.
const DATA_TABLE: &str = concat!("// tidy: ", "data table");
/// The only places with blocks that the compiler cannot check: what loads compiled code, and a guest, which can harm nobody.
const UNSAFE_ALLOWED: [&str; 3] = ["runtime/sandbox/", "sdk/tools/", "sdk/testimages/pause/"];

/// What must not be in code, and what to do instead. Split, so that this file does not offend.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("to", "do!("), "finish it, or do not land it"),
    (concat!("unimpl", "emented!("), "finish it, or do not land it"),
    (concat!("db", "g!("), "use tracing"),
    (concat!("#[ig", "nore"), "a test that does not run is no test"),
];

/// How code that the compiler cannot check begins.
const UNSAFE: &[&str] = &[
    concat!("un", "safe {"),
    concat!("un", "safe fn"),
    concat!("un", "safe impl"),
    concat!("un", "safe extern"),
    concat!("un", "safe_code)]"),
];

/// What is wrong with one file; `path` is relative to the workspace, with slashes.
fn offences(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !opens_with_its_purpose(text) {
        found.push(format!("{path}: does not open with `//!` saying what the file is for"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX && !text.contains(DATA_TABLE) {
        found.push(format!("{path}: has {lines} lines, more than {LINES_MAX}: split it"));
    }
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let place = format!("{path}:{}", number + 1);
        for (pattern, instead) in FORBIDDEN.iter().filter(|(pattern, _)| code.contains(pattern)) {
            found.push(format!("{place}: {pattern}: {instead}"));
        }
        if UNSAFE.iter().any(|pattern| code.contains(pattern)) && !UNSAFE_ALLOWED.iter().any(|p| path.starts_with(p)) {
            found
                .push(format!("{place}: code that the compiler cannot check is allowed only below {UNSAFE_ALLOWED:?}"));
        }
    }
    found
}

/// Inner attributes may stand before the purpose.
fn opens_with_its_purpose(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("#!["));
    first.is_some_and(|line| line.starts_with("//! ") && line.len() > 12)
}

/// Every Rust file below `folder`, but for build output and hidden folders.
fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" {
                rust_files(&path, files)?;
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[test]
fn source_files_follow_the_rules() {
    let root = crate::root();
    let mut files = Vec::new();
    rust_files(&root, &mut files).expect("the source folders can be read");
    assert!(files.len() > 30, "found only {} source files below {}", files.len(), root.display());
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("source files are text");
        let path = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        found.extend(offences(&path, &text));
    }
    assert_none(&found);
}

#[test]
fn the_rules_find_offenders() {
    let purpose = "//! What the file is for.\n";
    let check = |path: &str, text: &str, expected: usize| assert_eq!(offences(path, text).len(), expected, "{text:?}");
    check("a.rs", purpose, 0);
    check("a.rs", &format!("#![allow(x)]\n\n{purpose}"), 0);
    check("a.rs", "fn main() {}\n", 1);
    check("a.rs", "//!\nfn main() {}\n", 1);
    check("a.rs", &(purpose.to_owned() + &"\n".repeat(600)), 1);
    check("a.rs", &format!("{purpose}{DATA_TABLE}\n{}", "\n".repeat(600)), 0);
    for (pattern, _) in FORBIDDEN {
        check("a.rs", &format!("{purpose}{pattern}\n"), 1);
        check("a.rs", &format!("{purpose}// {pattern}\n"), 0);
    }
    for pattern in UNSAFE {
        check("runtime/agent/src/a.rs", &format!("{purpose}{pattern}\n"), 1);
        check("runtime/sandbox/src/a.rs", &format!("{purpose}{pattern}\n"), 0);
    }
}
