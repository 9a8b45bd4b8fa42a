//! Compiled code on disk, by digest of the image and compatibility of the engine.
//!
//! `DIR/ENGINE/IMAGE.cwasm` beside `IMAGE.sum`, which holds the artefact's checksum. A file whose checksum does not match is
//! never mapped: it goes, and the image is compiled again. Files are written elsewhere and renamed, the sum last, so that
//! a crash leaves nothing that looks whole. The folder belongs to this process' user alone: a checksum protects against
//! accidents, file permissions against others. So a file that others may write, that is somebody else's, or that is
//! reached over a symbolic link is never mapped either.

use std::{
    fs::{self, File},
    hash::{Hash, Hasher},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use wasmtime::Engine;

/// What unfinished files begin with.
const UNFINISHED: &str = "new-";
/// A checksum in hexadecimal digits.
const SUM_BYTES: u64 = 64;

/// The folder of one engine's artefacts.
#[derive(Debug)]
pub(crate) struct CodeCache {
    dir: PathBuf,
    bytes_max: u64,
}

impl CodeCache {
    /// Makes the folder when it is not there, and removes what an earlier process left unfinished.
    pub(crate) fn open(root: &Path, bytes_max: u64, engine: &Engine) -> io::Result<Self> {
        let dir = root.join(compatibility(engine));
        fs::create_dir_all(&dir)?;
        trust::take(&dir)?;
        for entry in fs::read_dir(&dir)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Self { dir, bytes_max })
    }

    fn code_path(&self, image: &str) -> PathBuf {
        self.dir.join(format!("{image}.cwasm"))
    }

    fn sum_path(&self, image: &str) -> PathBuf {
        self.dir.join(format!("{image}.sum"))
    }

    /// The artefact of an image, its content verified. The open file is what was verified, whatever happens to the name.
    pub(crate) fn find(&self, image: &str) -> Option<File> {
        match verified(&self.code_path(image), &self.sum_path(image)) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(image, %error, "compiled code in the cache is not to be trusted: compiling again");
                self.remove(image);
                None
            }
        }
    }

    /// A new file, to be filled and then given to [`CodeCache::keep`].
    pub(crate) fn unfinished(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.dir)
    }

    /// Keeps an artefact.
    pub(crate) fn keep(&self, image: &str, mut code: NamedTempFile) -> io::Result<()> {
        code.rewind()?;
        let sum = sum(code.as_file())?;
        self.make_room()?;
        code.as_file().sync_all()?;
        // Never one name's code with another's sum, whenever this process ends.
        let _ = fs::remove_file(self.sum_path(image));
        code.persist(self.code_path(image)).map_err(|e| e.error)?;
        let mut file = self.unfinished()?;
        file.write_all(sum.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(self.sum_path(image)).map_err(|e| e.error)?;
        Ok(())
    }

    /// Forgets an artefact.
    pub(crate) fn remove(&self, image: &str) {
        for path in [self.sum_path(image), self.code_path(image)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove compiled code");
                }
                _ => {}
            }
        }
    }

    /// Removes what was used longest ago until everything, what is unfinished included, has room.
    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        let mut total = 0;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            total += meta.len();
            if entry.path().extension().is_some_and(|e| e == "cwasm") {
                files.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len(), entry.path()));
            }
        }
        files.sort();
        for (_, len, path) in files {
            if total <= self.bytes_max {
                break;
            }
            if let Some(image) = path.file_stem().and_then(|s| s.to_str()) {
                self.remove(image);
            }
            total = total.saturating_sub(len);
        }
        Ok(())
    }
}

fn verified(code: &Path, wanted: &Path) -> io::Result<File> {
    let mut text = String::new();
    trust::open(wanted)?.take(SUM_BYTES + 1).read_to_string(&mut text)?;
    let file = trust::open(code)?;
    let found = sum(&file)?;
    if found != text {
        return Err(io::Error::other(format!("its checksum is {found}, not {text}")));
    }
    // Used now: goes last when room is needed. Not knowing costs a compile at worst.
    let _ = file.set_modified(SystemTime::now());
    Ok(file)
}

/// SHA-256 of what a file has from where it stands.
fn sum(mut file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}

#[cfg(unix)]
mod trust {
    //! What may be mapped and run: this user's own files that nobody else may write.

    use std::{
        fs::{self, File, OpenOptions},
        io,
        os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
        path::Path,
    };

    /// Makes a folder this user's alone.
    pub(super) fn take(dir: &Path) -> io::Result<()> {
        let meta = fs::symlink_metadata(dir)?;
        if !meta.is_dir() {
            return Err(io::Error::other("it is no folder"));
        }
        own(&meta)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
    }

    /// Opens a file, following no link and waiting for nothing.
    pub(super) fn open(path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        let meta = file.metadata()?;
        own(&meta)?;
        if !meta.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(io::Error::other(format!("others may write it (mode {:o})", meta.mode() & 0o777)));
        }
        Ok(file)
    }

    fn own(meta: &fs::Metadata) -> io::Result<()> {
        let user = rustix::process::geteuid().as_raw();
        if meta.uid() == user {
            return Ok(());
        }
        Err(io::Error::other(format!("it belongs to user {}, not {user}", meta.uid())))
    }
}

#[cfg(not(unix))]
mod trust {
    use std::{fs::File, io, path::Path};

    pub(super) fn take(_: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn open(path: &Path) -> io::Result<File> {
        File::open(path)
    }
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names what makes compiled code usable by an engine: its version, settings and the CPU's features.
pub(crate) fn compatibility(engine: &Engine) -> String {
    let mut hasher = Sha256Hasher(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hex(&hasher.0.finalize()[..8])
}

/// Feeds SHA-256, since the standard library's hashers may change between compilers.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}
