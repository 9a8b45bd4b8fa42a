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
use podium_sandbox::MountSource;

use super::{atomic, payload::Payload};

/// A volume, ready to be mounted by any container of its pod.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) place: Place,
}

/// What kind of volume it is.
#[derive(Debug)]
pub(crate) enum Place {
    /// Files from the API: always read-only.
    Files(Files),
    /// A folder of the pod's own, gone with it.
    Empty(Empty),
    /// A folder or file that is there already.
    Host { path: PathBuf, read_only: bool },
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
    /// Whether guests may only read, whatever their mount says.
    pub(crate) fn read_only(&self) -> bool {
        match &self.place {
            Place::Files(_) => true,
            Place::Empty(_) => false,
            Place::Host { read_only, .. } => *read_only,
        }
    }
}

impl MountSource for Volume {
    fn path(&self) -> io::Result<&Path> {
        match &self.place {
            Place::Files(files) => files.path(),
            Place::Empty(empty) => empty.path(),
            Place::Host { path, .. } => Ok(path),
        }
    }
}

/// A part of a volume (`subPath`), found once: the open handle is what is mounted, whatever happens to the names.
pub(crate) struct SubPath {
    _open: fs::File,
    path: PathBuf,
}

impl SubPath {
    /// Finds it below the volume; no `..` and no symbolic link leads out. A folder is made when there is none and the volume
    /// may be written.
    ///
    /// # Errors
    /// When it is not there, or leads out.
    pub(crate) fn open(volume: &Volume, sub: &str) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        let root = volume.path()?;
        if root.is_file() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "the volume is a file: it has no subPath"));
        }
        let dir = cap_std::fs::Dir::open_ambient_dir(root, cap_std::ambient_authority())?;
        if !volume.read_only() && !dir.try_exists(sub)? {
            dir.create_dir_all(sub)?;
        }
        let open = dir.open(sub)?.into_std();
        let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        Ok(Self { _open: open, path })
    }
}

impl MountSource for SubPath {
    fn path(&self) -> io::Result<&Path> {
        Ok(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

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

    #[test]
    fn no_sub_path_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let root = dir.path().join("v");
        fs::create_dir(&root).unwrap();
        symlink(&outside, root.join("link")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        symlink("real", root.join("inside")).unwrap();
        let place = Place::Host { path: root.clone(), read_only: false };
        let volume = Volume { name: "v".into(), place };
        for sub in ["link", "relative", "link/x", "../outside", "/etc"] {
            assert!(SubPath::open(&volume, sub).is_err(), "{sub}");
        }
        let found = SubPath::open(&volume, "real/deep").unwrap();
        fs::write(found.path().unwrap().join("f"), "x").unwrap();
        assert_eq!(fs::read(root.join("real/deep/f")).unwrap(), b"x");
        assert!(SubPath::open(&volume, "inside/deep").is_ok());
        // A swap after it was opened changes nothing.
        fs::rename(root.join("real"), root.join("moved")).unwrap();
        symlink(&outside, root.join("real")).unwrap();
        fs::write(found.path().unwrap().join("g"), "y").unwrap();
        assert_eq!(fs::read(root.join("moved/deep/g")).unwrap(), b"y");
    }
}
