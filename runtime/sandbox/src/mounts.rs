//! The mounts of one container: checked when it starts, opened when an instance looks at its files.
//!
//! WASI knows folders only. A single file is shown by a private folder that holds a hard link to it (or a copy, where it
//! lies on another filesystem and may only be read): the guest sees that folder in place of the file's parent.
//! Deliberately not here: making a volume's content, which is its [`crate::MountSource`]'s business.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Weak},
};

use cap_std::{
    ambient_authority,
    fs::{Dir, OpenOptions, OpenOptionsExt as _},
};
use parking_lot::Mutex;
use tempfile::TempDir;
use wasmtime_wasi::{FsPerms, OpenMode, WasiCtxBuilder, filesystem};

use crate::{Mount, StartError, remove_tree};

/// A single file that is copied, because it cannot be linked, is at most this large.
const COPY_BYTES_MAX: u64 = 16 << 20;
/// How the names of private folders begin.
const PREFIX: &str = "podium-file-";
/// Mounts of one container.
const MOUNTS_MAX: usize = 256;
/// Mounts that stay open between instances: those of the containers that opened theirs last.
const KEPT_OPEN_MAX: usize = 2048;

/// What a container sees of the host's file system.
#[derive(Default)]
pub(crate) struct Files {
    places: Vec<Place>,
    /// Where private folders are made.
    scratch_dir: Option<PathBuf>,
    made: Mutex<Made>,
}

struct Place {
    /// Absolute, without a slash at the end or `.` and `..` in it.
    guest_path: String,
    mount: Mount,
}

/// What has been made for the container: once, by the first instance that looks.
#[derive(Default)]
struct Made {
    /// By the guest's path of the folder.
    private: HashMap<String, Private>,
    /// Whether the places of mounts inside other mounts have been made.
    nested: bool,
    /// What an instance has opened, for those after it.
    kept: Option<Arc<[Opened]>>,
}

struct Private {
    dir: TempDir,
    read_only: bool,
    /// Names in it, by the mount that each shows.
    files: HashMap<usize, String>,
}

impl Private {
    /// Its files may be written, as their mounts say; others beside them would be nobody's, so none can be made.
    fn allow_changes(&self, allow: bool) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = if allow { 0o700 } else { 0o500 };
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(mode))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = self.allow_changes(true) {
            tracing::warn!(dir = %self.dir.path().display(), %error, "a private folder cannot be removed");
        }
    }
}

/// A folder, ready for any number of instances.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) dir: filesystem::Dir,
    pub(crate) guest_path: String,
    read_only: bool,
}

impl Opened {
    fn new(folder: File, guest_path: String, read_only: bool) -> Self {
        let (perms, mode) = match read_only {
            true => (FsPerms::ReadOnly, OpenMode::READ),
            false => (FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE),
        };
        Self { dir: filesystem::Dir::new(folder, perms, mode, false), guest_path, read_only }
    }

    fn folder(&self) -> &File {
        &self.dir.dir
    }
}

impl Files {
    /// Checks what can be known without making anything.
    pub(crate) fn new(mounts: &[Mount], scratch_dir: Option<PathBuf>) -> Result<Arc<Self>, StartError> {
        static NONE: LazyLock<Arc<Files>> = LazyLock::new(Arc::default);
        if mounts.is_empty() {
            return Ok(NONE.clone());
        }
        if mounts.len() > MOUNTS_MAX {
            let reason = format!("it is one of {} mounts, more than the limit of {MOUNTS_MAX}", mounts.len());
            return Err(StartError::Mount { guest_path: mounts[MOUNTS_MAX].guest_path.clone(), reason });
        }
        let mut places: Vec<Place> = Vec::with_capacity(mounts.len());
        for mount in mounts {
            let refused = |reason: String| StartError::Mount { guest_path: mount.guest_path.clone(), reason };
            let guest_path = normal(&mount.guest_path).map_err(|reason| refused(reason.to_owned()))?;
            if places.iter().any(|place| place.guest_path == guest_path) {
                return Err(refused("another mount has the same path".to_owned()));
            }
            mount.source.check().map_err(|error| refused(error.to_string()))?;
            places.push(Place { guest_path, mount: mount.clone() });
        }
        Ok(Arc::new(Self { places, scratch_dir, made: Mutex::default() }))
    }

    /// Opens everything, to see that it is there.
    pub(crate) fn try_open(&self) -> Result<(), StartError> {
        self.open_places(&mut self.made.lock()).map(drop).map_err(|(guest_path, error)| StartError::Mount {
            guest_path: guest_path.to_owned(),
            reason: error.to_string(),
        })
    }

    /// Opens all mounts for one instance. The working directory, where it lies in one of them, is the folder `.` as well:
    /// most guests' libc knows of no working directory and looks there for relative paths.
    pub(crate) fn open(self: &Arc<Self>, working_dir: Option<&str>) -> io::Result<Vec<Opened>> {
        let opened = self.kept_open();
        let mut opened = opened
            .map_err(|(path, error)| io::Error::new(error.kind(), format!("cannot mount {path}: {error}")))?
            .to_vec();
        opened.extend(working_dir.and_then(|dir| start_folder(&opened, dir)));
        Ok(opened)
    }

    /// Opens all mounts for a core module. Answers how many folders were opened.
    pub(crate) fn preopen(
        self: &Arc<Self>,
        context: &mut WasiCtxBuilder,
        working_dir: Option<&str>,
    ) -> wasmtime::Result<u32> {
        let opened = self.open(working_dir)?;
        for Opened { dir, guest_path, .. } in &opened {
            // The descriptor's name leads to the very folder that was opened, whatever has happened to its path since.
            context.preopened_dir(format!("/proc/self/fd/{}", dir.dir.as_raw_fd()), guest_path, dir.perms)?;
        }
        Ok(u32::try_from(opened.len())?)
    }

    /// All mounts, as the instance before has opened them.
    fn kept_open(self: &Arc<Self>) -> Result<Arc<[Opened]>, (&str, io::Error)> {
        if self.places.is_empty() {
            return Ok(Arc::default());
        }
        let mut made = self.made.lock();
        if let Some(kept) = &made.kept {
            return Ok(kept.clone());
        }
        let opened: Arc<[Opened]> = self.open_places(&mut made)?.into();
        made.kept = Some(opened.clone());
        drop(made);
        keep(self, opened.len());
        Ok(opened)
    }

    fn open_places(&self, made: &mut Made) -> Result<Vec<Opened>, (&str, io::Error)> {
        let mut opened = Vec::with_capacity(self.places.len());
        for (index, place) in self.places.iter().enumerate() {
            let folder = self.open_place(made, index).map_err(|error| (&*place.guest_path, error))?;
            opened.extend(folder);
        }
        for (guest_path, private) in &made.private {
            if let Some(place) = self.places.iter().find(|place| place.guest_path == *guest_path) {
                let reason = "single files cannot be mounted into a folder that is a mount itself";
                return Err((&place.guest_path, io::Error::new(io::ErrorKind::InvalidInput, reason)));
            }
            let folder = File::open(private.dir.path()).map_err(|error| (self.places[0].guest_path.as_str(), error))?;
            opened.push(Opened::new(folder, guest_path.clone(), private.read_only));
        }
        if !made.nested {
            made.nested = true;
            make_places(&opened);
        }
        Ok(opened)
    }

    /// Opens one mount, if it is a folder; a file is put into its private folder.
    fn open_place(&self, made: &mut Made, index: usize) -> io::Result<Option<Opened>> {
        if made.private.values().any(|private| private.files.contains_key(&index)) {
            return Ok(None);
        }
        let place = &self.places[index];
        let read_only = place.mount.read_only;
        let file = place.mount.open()?;
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Ok(Some(Opened::new(file, place.guest_path.clone(), read_only)));
        }
        if !kind.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a folder nor a regular file"));
        }
        let (parent, name) = split(&place.guest_path);
        let private = match made.private.entry(parent.to_owned()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let dir = self.private_dir()?;
                entry.insert(Private { dir, read_only, files: HashMap::new() })
            }
        };
        if private.read_only != read_only {
            let reason = format!("single files in {parent} must be read-only all, or none");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        private.allow_changes(true)?;
        show(&file, &private.dir.path().join(name), read_only)?;
        private.files.insert(index, name.to_owned());
        private.allow_changes(false)?;
        Ok(None)
    }

    fn private_dir(&self) -> io::Result<TempDir> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX);
        match &self.scratch_dir {
            Some(dir) => builder.tempdir_in(dir),
            None => builder.tempdir(),
        }
    }
}

impl Mount {
    /// Opens what it shows: a folder or a file.
    fn open(&self) -> io::Result<File> {
        let path = self.source.path()?;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let Some(sub_path) = &self.sub_path else {
            use std::os::unix::fs::OpenOptionsExt as _;
            return fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(named);
        };
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{} in {}: {error}", sub_path.display(), path.display()))
        };
        let root = Dir::open_ambient_dir(path, ambient_authority()).map_err(named)?;
        match open_beneath(&root, sub_path) {
            // As the kubelet: a path that is not there is a folder to be made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                root.create_dir_all(sub_path).and_then(|()| open_beneath(&root, sub_path)).map_err(named)
            }
            opened => opened.map_err(named),
        }
    }
}

/// Who keeps mounts open, and how many.
struct Kept<T> {
    open: usize,
    by: VecDeque<(T, usize)>,
}

impl<T> Kept<T> {
    /// Adds one; answers with the oldest, which have to close theirs when there are many.
    fn add(&mut self, one: T, open: usize) -> Vec<T> {
        self.open += open;
        self.by.push_back((one, open));
        let mut to_close = Vec::new();
        while self.open > KEPT_OPEN_MAX && self.by.len() > 1 {
            let Some((one, open)) = self.by.pop_front() else { break };
            self.open -= open;
            to_close.push(one);
        }
        to_close
    }
}

/// Remembers who keeps mounts open; the oldest no longer do when there are many.
fn keep(files: &Arc<Files>, open: usize) {
    static KEPT: Mutex<Kept<Weak<Files>>> = Mutex::new(Kept { open: 0, by: VecDeque::new() });
    let to_close = KEPT.lock().add(Arc::downgrade(files), open);
    for files in to_close.iter().filter_map(Weak::upgrade) {
        files.made.lock().kept = None;
    }
}

/// Removes private folders that a process before this one has left when it was killed.
pub(crate) fn sweep(scratch_dir: &Path) -> io::Result<()> {
    fs::create_dir_all(scratch_dir)?;
    for entry in fs::read_dir(scratch_dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.file_type()?.is_dir() {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700))?;
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Opens a path of which no link leads out of `root`.
fn open_beneath(root: &Dir, path: &Path) -> io::Result<File> {
    // Whatever lies there must not make this thread wait, as a pipe without a writer would.
    let file = root.open_with(path, OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK))?;
    Ok(file.into_std())
}

/// Shows an open file under another name.
fn show(file: &File, at: &Path, read_only: bool) -> io::Result<()> {
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = rustix::fs::AtFlags::SYMLINK_FOLLOW;
    let linked = rustix::fs::linkat(rustix::fs::CWD, &*from, rustix::fs::CWD, at, flags);
    let Err(errno) = linked else { return Ok(()) };
    if !read_only {
        let reason = format!(
            "a single file that may be written must lie on the filesystem of the sandbox's scratch folder: {errno}"
        );
        return Err(io::Error::new(io::ErrorKind::CrossesDevices, reason));
    }
    let bytes = file.metadata()?.len();
    if bytes > COPY_BYTES_MAX {
        let reason = format!(
            "a file of {bytes} bytes lies on another filesystem than the sandbox's scratch folder, and more than \
             {COPY_BYTES_MAX} are not copied"
        );
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    fs::copy(&from, at).map(drop)
}

/// Makes the places of mounts inside others, so that they show when the outer one is listed, as a container runtime does.
/// Where that cannot be, they are reached all the same.
fn make_places(opened: &[Opened]) {
    for inner in opened {
        let outer = opened.iter().filter(|outer| !outer.read_only && outer.guest_path != inner.guest_path);
        let outer = outer.filter_map(|outer| Some((outer, below(&inner.guest_path, &outer.guest_path)?)));
        let Some((outer, path)) = outer.max_by_key(|(outer, _)| outer.guest_path.len()) else { continue };
        let made = outer.folder().try_clone().and_then(|folder| Dir::from_std_file(folder).create_dir_all(path));
        if let Err(error) = made {
            tracing::debug!(place = inner.guest_path, %error, "the place of a mount inside another cannot be made");
        }
    }
}

/// The working directory, where it lies in a mount.
fn start_folder(opened: &[Opened], dir: &str) -> Option<Opened> {
    let dir = normal(dir).ok()?;
    let mounts = opened.iter().filter_map(|mount| Some((mount, below(&dir, &mount.guest_path)?)));
    let (mount, path) = mounts.max_by_key(|(mount, _)| mount.guest_path.len())?;
    let root = Dir::from_std_file(mount.folder().try_clone().ok()?);
    let path = if path.is_empty() { "." } else { path };
    let folder = root.open_dir(path).ok()?.into_std_file();
    Some(Opened::new(folder, ".".to_owned(), mount.read_only))
}

/// `path` as seen from `folder`, when it lies in it.
fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    if folder == "/" {
        return path.strip_prefix('/');
    }
    let rest = path.strip_prefix(folder)?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

/// The folder and the name of an absolute path.
fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(parts) => parts,
        None => ("/", path),
    }
}

/// An absolute path without what leads nowhere.
fn normal(path: &str) -> Result<String, &'static str> {
    if !path.starts_with('/') {
        return Err("its path must be absolute");
    }
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("its path must not contain '..'");
    }
    if path.contains('\0') {
        return Err("its path must not contain a zero byte");
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_kept_open_are_counted_and_the_oldest_are_closed() {
        let mut kept = Kept { open: 0, by: VecDeque::new() };
        assert_eq!(kept.add("a", 1000), [""; 0]);
        assert_eq!(kept.add("b", 1000), [""; 0]);
        assert_eq!(kept.add("c", 100), ["a"]);
        assert_eq!(kept.add("d", 2000), ["b", "c"]);
        assert_eq!(
            kept.add("e", 3 * KEPT_OPEN_MAX),
            ["d"],
            "one alone may have more: a container has a bound of its own"
        );
        assert_eq!(kept.add("f", 1), ["e"]);
        assert_eq!(kept.open, 1);
    }
}
