//! One process at a time: a locked file that names its holder.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

use super::OpenError;

/// The lock on a store's folder; gone with the process, however it ends.
pub(crate) struct FolderLock(File);

impl FolderLock {
    pub(crate) fn take(folder: &Path) -> Result<Self, OpenError> {
        let unreadable = |e: std::io::Error| OpenError::Unreadable { path: folder.to_owned(), reason: e.to_string() };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(folder.join("lock"));
        let mut file = file.map_err(unreadable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // An unreadable name only makes the message poorer.
                let _ = file.read_to_string(&mut pid);
                let pid = Some(pid.trim().to_owned()).filter(|p| !p.is_empty());
                return Err(OpenError::Held { path: folder.to_owned(), pid: pid.unwrap_or("unknown".to_owned()) });
            }
            Err(TryLockError::Error(e)) => return Err(unreadable(e)),
        }
        // On a full disk the name cannot be written; the lock holds all the same.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self(file))
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}
