//! One volume of one pod: where it lies, and how its content comes to be there when a guest first looks.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use podium_sandbox::{MountSource, Store};

use super::{atomic, payload::Payload};

/// A volume, ready to be mounted by any container of its pod.
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// The key-value store in it, once somebody has opened it.
    pub(super) store: Mutex<Option<Arc<dyn Store>>>,
}

/// What kind of volume it is.
#[derive(Debug)]
pub(crate) enum Place {
    /// Files from the API: always read-only.
    Files(Files),
    /// A folder of the pod's own, gone with it.
    Empty(Empty),
    /// A folder or file that is there already.
    Host(Host),
}

/// A folder or file of the host, held open: it is mounted, whatever happens to its name.
#[derive(Debug)]
pub(crate) struct Host {
    _open: fs::File,
    path: PathBuf,
    real: PathBuf,
    read_only: bool,
}

impl Host {
    /// Opens it. `path`: without symbolic links in it.
    ///
    /// # Errors
    /// When it cannot be opened, or has become something else since it was looked at.
    pub(crate) fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        use std::os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _};
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW;
        let open = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
        let name = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        if fs::read_link(&name)? != path {
            return Err(io::Error::other(format!("{} was replaced by a link", path.display())));
        }
        Ok(Self { _open: open, path: name, real: path.to_owned(), read_only })
    }

    /// Its name when it was opened.
    pub(super) fn real(&self) -> &Path {
        &self.real
    }
}

/// `emptyDir`.
#[derive(Debug)]
pub(crate) struct Empty {
    pub(crate) dir: PathBuf,
    pub(crate) made: AtomicBool,
    /// `sizeLimit`.
    pub(crate) limit_bytes: Option<u64>,
    /// `medium: Memory`.
    pub(crate) in_memory: bool,
}

/// Files that come from the API.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    written: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    payload: Arc<Payload>,
    version: String,
}

impl Files {
    pub(crate) fn new(dir: PathBuf, payload: Payload, version: String) -> Self {
        let state = State { payload: Arc::new(payload), version };
        Self { dir, written: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Takes a new state. Written at once if anybody has looked already; blocks while it is.
    ///
    /// # Errors
    /// When it cannot be written: the old state is shown on, and the next update tries again.
    pub(crate) fn update(&self, payload: Payload, version: String) -> io::Result<()> {
        let mut state = self.state.lock();
        if *state.payload == payload {
            return Ok(());
        }
        if self.written.load(Ordering::Acquire) {
            atomic::write(&self.dir, &payload, &version)?;
        }
        *state = State { payload: Arc::new(payload), version };
        Ok(())
    }

    fn path(&self) -> io::Result<&Path> {
        if !self.written.load(Ordering::Acquire) {
            let state = self.state.lock();
            if !self.written.load(Ordering::Acquire) {
                make(&self.dir)?;
                atomic::write(&self.dir, &state.payload, &state.version)?;
                self.written.store(true, Ordering::Release);
            }
        }
        Ok(&self.dir)
    }
}

impl Empty {
    fn path(&self) -> io::Result<&Path> {
        if !self.made.load(Ordering::Acquire) {
            make(&self.dir)?;
            self.made.store(true, Ordering::Release);
        }
        Ok(&self.dir)
    }
}

/// For this process' user alone.
fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

impl Volume {
    pub(super) fn new(name: String, place: Place) -> Self {
        Self { name, place, store: Mutex::default() }
    }

    /// Whether guests may only read, whatever their mount says.
    pub(crate) fn read_only(&self) -> bool {
        match &self.place {
            Place::Files(_) => true,
            Place::Empty(_) => false,
            Place::Host(host) => host.read_only,
        }
    }
}

impl MountSource for Volume {
    fn path(&self) -> io::Result<&Path> {
        match &self.place {
            Place::Files(files) => files.path(),
            Place::Empty(empty) => empty.path(),
            Place::Host(host) => Ok(&host.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::payload::Content, *};

    fn payload(text: &str) -> Payload {
        Payload::from([("a".to_owned(), Content { bytes: text.as_bytes().to_vec(), mode: 0o644 })])
    }

    #[test]
    fn files_are_written_when_somebody_looks() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().join("v"), payload("1"), "1".into());
        files.update(payload("2"), "2".into()).unwrap();
        assert!(!dir.path().join("v").exists());
        assert_eq!(fs::read(files.path().unwrap().join("a")).unwrap(), b"2");
        files.update(payload("3"), "3".into()).unwrap();
        assert_eq!(fs::read(files.path().unwrap().join("a")).unwrap(), b"3");
    }
}
