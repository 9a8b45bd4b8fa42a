//! Removing folders that guests could write to.
//!
//! Guests nest folders as deep as they like: deeper than a path can be written, and deeper than a thread's stack is for a function
//! that calls itself for each level, as `std::fs::remove_dir_all` does (whose overflow ends the process). Here depth costs neither
//! stack nor descriptors: a folder that is not empty is moved up to the top first, and emptied there.
//!
//! Invariants: no link is followed; no path that a guest has chosen is resolved, only single names in open folders.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat},
    io::Errno,
};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How folders are called that were moved up. Whatever has such a name goes as well.
const MOVED: &str = ".podium-moved-";

/// Removes a folder with all that is in it, however deep it is. Follows no link: a link is removed, as a file is.
///
/// For folders that guests have written to, once they no longer do. Blocks.
///
/// # Errors
/// The first thing that cannot be removed; `NotFound` when there is nothing.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match openat(CWD, path, FOLDER, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOTDIR | Errno::LOOP) => return fs::remove_file(path),
        Err(error) => return Err(error.into()),
    };
    let mut moved = 0;
    while !pass(&top, &mut moved)? {}
    fs::remove_dir(path)
}

/// Removes what is in the folder, or moves it up. Returns whether there was nothing left.
fn pass(top: &OwnedFd, moved: &mut u64) -> io::Result<bool> {
    let mut empty = true;
    each(top, |name| {
        empty = false;
        match unlinkat(top, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            done => return gone(done),
        }
        let folder = match openat(top, name, FOLDER, Mode::empty()) {
            Ok(folder) => folder,
            Err(error) => return gone(Err(error)),
        };
        each(&folder, |inner| remove_or_move(&folder, inner, top, moved))?;
        match unlinkat(top, name, AtFlags::REMOVEDIR) {
            // The rest of it is seen the next time.
            Err(Errno::NOTEMPTY) => Ok(()),
            done => gone(done),
        }
    })?;
    Ok(empty)
}

fn remove_or_move(folder: &OwnedFd, name: &std::ffi::CStr, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        done => return gone(done),
    }
    match unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY) => {}
        done => return gone(done),
    }
    loop {
        *moved += 1;
        match renameat(folder, name, top, format!("{MOVED}{moved}")) {
            // Something of this name is there: a guest has seen this before.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            done => return gone(done),
        }
    }
}

/// Somebody else may have removed it.
fn gone(done: Result<(), Errno>) -> io::Result<()> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => Ok(done?),
    }
}

fn each(folder: &OwnedFd, mut then: impl FnMut(&std::ffi::CStr) -> io::Result<()>) -> io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            then(entry.file_name())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::fs::mkdirat;

    use super::*;

    /// Folders within each other, `name/name/...`, with a file in the last.
    fn nested(top: &Path, name: &str, depth: usize) {
        let mut folder = openat(CWD, top, FOLDER, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&folder, name, Mode::RWXU).unwrap();
            folder = openat(&folder, name, FOLDER, Mode::empty()).unwrap();
        }
        openat(&folder, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    }

    #[test]
    fn depth_costs_nothing() {
        // In memory where that can be: folders of a disk are slow to make.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        // Several times deeper than the stack of this thread is for a function that calls itself for each.
        nested(&top, "d", 5_000);
        nested(&top, ".podium-moved-2", 3);
        fs::write(top.join(".podium-moved-3"), "").unwrap();
        let small = std::thread::Builder::new().stack_size(256 << 10);
        let removing = top.clone();
        small.spawn(move || remove_tree(&removing)).unwrap().join().unwrap().unwrap();
        assert!(!top.exists());
        assert_eq!(remove_tree(&top).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn links_are_removed_and_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, top) = (dir.path().join("kept"), dir.path().join("top"));
        fs::create_dir_all(kept.join("inner")).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        for place in ["link", "a/link", "a/b/link", "a/b/c/link"] {
            std::os::unix::fs::symlink(&kept, top.join(place)).unwrap();
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&kept, &link).unwrap();
        remove_tree(&link).unwrap();
        remove_tree(&top).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["kept"]);
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 2);
    }
}
