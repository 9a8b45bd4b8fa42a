//! Compiled code on disk, by digest of the image and compatibility of the engine.
//!
//! `DIR/ENGINE/IMAGE.cwasm` beside `IMAGE.sum`, which holds the artefact's checksum. A file whose checksum does not
//! match is never mapped: it goes, and the image is compiled again. Files are written elsewhere and renamed, the sum
//! last, so that a crash leaves nothing that looks whole. The folder belongs to this process' user alone: a checksum
//! protects against accidents, file permissions against others.

use std::{
    fs::{self, File},
    hash::{Hash, Hasher},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

/// The folder of one engine's artefacts.
#[derive(Debug)]
pub(crate) struct CodeCache {
    dir: PathBuf,
    bytes_max: u64,
}

impl CodeCache {
    /// Makes the folder when it is not there.
    pub(crate) fn open(root: &Path, bytes_max: u64, engine: &Engine) -> io::Result<Self> {
        let dir = root.join(compatibility(engine));
        fs::create_dir_all(&dir)?;
        only_for_owner(&dir)?;
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
        let wanted = fs::read_to_string(self.sum_path(image)).ok()?;
        match verified(&self.code_path(image), &wanted) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::warn!(image, %error, "compiled code in the cache is damaged: compiling again");
                self.remove(image);
                None
            }
        }
    }

    /// Keeps an artefact.
    pub(crate) fn keep(&self, image: &str, code: &[u8]) -> io::Result<()> {
        self.make_room(code.len() as u64)?;
        self.write(&self.code_path(image), code)?;
        self.write(&self.sum_path(image), hex(&Sha256::digest(code)).as_bytes())
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

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let written = File::create(&new).and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
        let done = written.and_then(|()| fs::rename(&new, path));
        if done.is_err() {
            let _ = fs::remove_file(&new);
        }
        done
    }

    /// Removes what was used longest ago until there is room.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        let mut total = bytes;
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

fn verified(path: &Path, wanted: &str) -> io::Result<File> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    let found = hex(&hash.finalize());
    if found != wanted {
        return Err(io::Error::other(format!("its checksum is {found}, not {wanted}")));
    }
    // Used now: goes last when room is needed. Not knowing costs a compile at worst.
    let _ = file.set_modified(SystemTime::now());
    Ok(file)
}

#[cfg(unix)]
fn only_for_owner(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn only_for_owner(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names what makes compiled code usable by an engine: its version, settings and the CPU's features.
fn compatibility(engine: &Engine) -> String {
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
