//! The folder in a memory file system for what must not reach a disk: one of each agent, told apart by its data folder.
//!
//! Invariants: nobody's folder is taken but this user's own; a folder is removed only when its agent does not run (it would
//! hold a lock) and its data folder is not there any more, or when it is empty and says nothing.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::FlockOperation;

/// How the names of such folders begin.
const PREFIX: &str = "podium-";
/// A file in each that says where its data folder is. Locked by the agent that uses it.
pub(super) const MARK: &str = ".data-dir";
/// Another agent may sweep an empty folder away before it is marked.
const TRIES: usize = 3;

/// The folder of an agent that runs.
#[derive(Debug, Clone)]
pub(crate) struct MemoryPlace {
    path: PathBuf,
    /// Keeps the lock.
    mark: Arc<File>,
}

impl MemoryPlace {
    /// Makes the folder below a memory file system; `None` where that cannot be. Removes those of agents that are gone.
    pub(crate) fn new(dir: &Path, data_dir: &Path) -> Option<Self> {
        sweep(dir);
        let _ = fs::create_dir_all(data_dir);
        let data_dir = data_dir.canonicalize().ok()?;
        let meta = data_dir.metadata().ok()?;
        let path = dir.join(name(&meta));
        let mut made = Err(io::ErrorKind::NotFound.into());
        for _ in 0..TRIES {
            made = make(&path, &data_dir, meta.uid());
            if made.as_ref().err().is_none_or(|error| error.kind() != io::ErrorKind::NotFound) {
                break;
            }
        }
        match made {
            Ok(mark) => Some(Self { path, mark: Arc::new(mark) }),
            Err(error) => {
                let dir = path.display();
                tracing::warn!(%dir, %error, "cannot use a memory file system: secrets will be written below the data folder");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for MemoryPlace {
    /// The last one leaves nothing behind that is empty.
    fn drop(&mut self) {
        if Arc::strong_count(&self.mark) == 1 && is_free(&self.mark) && is_empty(&self.path) {
            remove(&self.path);
        }
    }
}

/// Agents with other data folders have other names.
fn name(data_dir: &fs::Metadata) -> String {
    format!("{PREFIX}{:x}-{:x}", data_dir.dev(), data_dir.ino())
}

fn is_name(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(device, inode)| is_number(device) && is_number(inode))
}

fn make(path: &Path, data_dir: &Path, uid: u32) -> io::Result<File> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let meta = path.symlink_metadata()?;
    if !meta.is_dir() || meta.uid() != uid {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is somebody else's"));
    }
    let mark = path.join(MARK);
    let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&mark)?;
    rustix::fs::flock(&file, FlockOperation::LockShared)?;
    fs::write(&mark, data_dir.as_os_str().as_bytes())?;
    Ok(file)
}

/// Removes this user's folders that nobody uses any more. What cannot be removed stays.
fn sweep(dir: &Path) {
    let uid = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let of_agent = is_name(&entry.file_name().to_string_lossy());
        let own = || entry.path().symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
        if !of_agent || !own() {
            continue;
        }
        match File::open(entry.path().join(MARK)) {
            // Locked until it is removed: whoever wants it meanwhile makes it anew.
            Ok(mark) if is_free(&mark) && is_left(&entry.path()) => remove(&entry.path()),
            Ok(_) => {}
            // One that is being made says nothing yet. If it is full it stays.
            Err(_) => _ = fs::remove_dir(entry.path()),
        }
    }
}

/// Locks a folder's mark, if nobody else has.
fn is_free(mark: &File) -> bool {
    rustix::fs::flock(mark, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Whether the data folder of a folder that is not used has gone.
fn is_left(path: &Path) -> bool {
    let Ok(data_dir) = fs::read(path.join(MARK)) else { return false };
    let data_dir = PathBuf::from(std::ffi::OsString::from_vec(data_dir));
    match data_dir.metadata() {
        // Another folder may have its name by now.
        Ok(meta) => path.file_name().is_none_or(|own| own.as_bytes() != name(&meta).as_bytes()),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Whether there is nothing but its mark.
fn is_empty(path: &Path) -> bool {
    let mut names = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.file_name());
    names.all(|name| name.as_bytes() == MARK.as_bytes())
}

fn remove(path: &Path) {
    match podium_sandbox::remove_tree(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove what an agent has left in memory");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stays_while_it_or_its_data_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let (memory, data) = (dir.path().join("memory"), dir.path().join("data"));
        fs::create_dir(&memory).unwrap();
        let other = dir.path().join("other");
        let count = || fs::read_dir(&memory).unwrap().count();
        let place = MemoryPlace::new(&memory, &data).unwrap();
        let again = place.clone();
        fs::create_dir(place.path().join("uid")).unwrap();
        // Its data has gone, but it runs.
        fs::rename(&data, dir.path().join("aside")).unwrap();
        drop(MemoryPlace::new(&memory, &other).unwrap());
        assert_eq!(count(), 1, "the other one left nothing");
        drop(place);
        sweep(&memory);
        assert_eq!(count(), 1, "its clone is still there");
        drop(again);
        // It does not run, but its data is there.
        fs::rename(dir.path().join("aside"), &data).unwrap();
        sweep(&memory);
        assert_eq!(count(), 1);
        fs::remove_dir_all(&data).unwrap();
        // Another folder has its name.
        fs::create_dir(dir.path().join("keeps-the-inode")).unwrap();
        fs::create_dir(&data).unwrap();
        let same = memory.join(name(&data.metadata().unwrap())).exists();
        sweep(&memory);
        assert_eq!(count(), usize::from(same));
        fs::remove_dir_all(&data).unwrap();
        sweep(&memory);
        assert_eq!(count(), 0);
    }

    #[test]
    fn what_says_nothing_is_removed_when_it_is_empty_and_of_this_name() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["podium-1-2", "podium-3-4/uid", "podium-other", "else"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        std::os::unix::fs::symlink(dir.path().join("else"), dir.path().join("podium-5-6")).unwrap();
        fs::write(dir.path().join("podium-7-8"), "").unwrap();
        sweep(dir.path());
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["else", "podium-3-4", "podium-5-6", "podium-7-8", "podium-other"]);
    }
}
