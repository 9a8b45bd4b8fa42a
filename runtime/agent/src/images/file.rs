//! Images in files below granted folders.
//!
//! `file:///srv/wasm/app.wasm` is an absolute path, `file://app.wasm` is looked for in each granted folder in turn, so that
//! manifests can be moved. Both are resolved to the real file first: neither `..` nor a symbolic link leads out of the
//! granted folders. `@sha256:…` at the end makes the digest of the file a condition.

use std::{
    fmt::Write as _,
    io::{self, Read},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::ImageError;

/// An image's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledImage {
    /// The `.wasm` file.
    pub wasm: Bytes,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// What tells this version from others without fetching it; opaque to all but the source.
    pub stamp: String,
}

/// What a pull found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// The version that the caller has already.
    Same,
    /// Another one.
    New(PulledImage),
}

/// Fetches images.
#[async_trait]
pub trait ImageSource: Send + Sync + 'static {
    /// Fetches the image of this name, unless it still has the stamp of the version that the caller has.
    ///
    /// # Errors
    /// When the name is malformed, or there is no such image, or it may not be used.
    async fn pull(&self, image: &str, stamp: Option<&str>) -> Result<Pulled, ImageError>;

    /// Whether the image lies on this machine already, so that `imagePullPolicy: Never` may use it.
    async fn is_present(&self, image: &str) -> bool;
}

/// Images in files below granted folders.
#[derive(Debug, Clone)]
pub struct FileImages {
    dirs: Vec<PathBuf>,
    bytes_max: u64,
}

impl FileImages {
    /// Grants these folders; files may have up to `bytes_max` bytes.
    pub fn new(dirs: Vec<PathBuf>, bytes_max: u64) -> Self {
        Self { dirs, bytes_max }
    }

    fn read(&self, image: &str, known: Option<&str>) -> Result<Pulled, ImageError> {
        let reference = Reference::parse(image)?;
        let path = self.resolve(reference.path)?;
        let stamp = stamp(&path)?;
        if known == Some(stamp.as_str()) {
            return Ok(Pulled::Same);
        }
        let wasm = read_bounded(&path, self.bytes_max)?;
        let digest = digest(&wasm);
        match reference.digest {
            Some(wanted) if wanted != digest => Err(ImageError::Pull(format!(
                "{} has the digest {digest}, not {wanted}: the file changed, or the digest in the pod spec is wrong",
                path.display()
            ))),
            _ => Ok(Pulled::New(PulledImage { wasm: wasm.into(), digest, stamp })),
        }
    }

    fn resolve(&self, path: &Path) -> Result<PathBuf, ImageError> {
        if self.dirs.is_empty() {
            return Err(ImageError::Pull("no folder is granted for file:// images; name one with --image-dir".into()));
        }
        let mut found_outside = None;
        for dir in self.dirs.iter().filter_map(|dir| dir.canonicalize().ok()) {
            // Joining an absolute path gives that path alone.
            let Ok(real) = dir.join(path).canonicalize() else { continue };
            if real.starts_with(&dir) {
                return Ok(real);
            }
            found_outside = Some(real);
        }
        let dirs = self.dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", ");
        Err(ImageError::Pull(match found_outside {
            Some(_) => format!(
                "{} is outside the granted image folders ({dirs}); grant its folder with --image-dir",
                path.display()
            ),
            None => format!("no file {} in the granted image folders ({dirs})", path.display()),
        }))
    }
}

#[async_trait]
impl ImageSource for FileImages {
    async fn pull(&self, image: &str, stamp: Option<&str>) -> Result<Pulled, ImageError> {
        let (this, image, stamp) = (self.clone(), image.to_owned(), stamp.map(str::to_owned));
        let read = tokio::task::spawn_blocking(move || this.read(&image, stamp.as_deref())).await;
        read.unwrap_or_else(|e| Err(ImageError::Pull(format!("reading the file was interrupted: {e}"))))
    }

    async fn is_present(&self, image: &str) -> bool {
        let (this, image) = (self.clone(), image.to_owned());
        let found = move || Reference::parse(&image).and_then(|reference| this.resolve(reference.path)).is_ok();
        tokio::task::spawn_blocking(found).await.unwrap_or(false)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Reference<'a> {
    path: &'a Path,
    digest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn parse(image: &'a str) -> Result<Self, ImageError> {
        let invalid = |why: &str| ImageError::InvalidName(format!("couldn't parse image name {image:?}: {why}"));
        if image.is_empty() || image.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(invalid("empty, or with white space"));
        }
        let Some(rest) = image.strip_prefix("file://") else {
            let scheme = image.split_once("://").map_or("a registry", |(scheme, _)| scheme);
            return Err(ImageError::Pull(format!(
                "images from {scheme} are not supported yet; use file:// and a path below a granted image folder"
            )));
        };
        let (path, digest) = match rest.split_once('@') {
            Some((path, digest)) => (path, Some(digest)),
            None => (rest, None),
        };
        let hex = |d: &str| d.len() == 64 && d.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if digest.is_some_and(|d| !d.strip_prefix("sha256:").is_some_and(hex)) {
            return Err(invalid("the digest must be sha256: and 64 lower-case hexadecimal digits"));
        }
        if path.is_empty() || path.ends_with('/') {
            return Err(invalid("it names no file"));
        }
        Ok(Self { path: Path::new(path), digest })
    }
}

/// The digest that an image's name demands, if it does.
pub(crate) fn demanded_digest(image: &str) -> Option<&str> {
    Reference::parse(image).ok()?.digest
}

/// A file that was neither replaced nor written since has the same stamp.
fn stamp(path: &Path) -> Result<String, ImageError> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = path.metadata().map_err(|e| ImageError::Pull(format!("cannot read {}: {e}", path.display())))?;
    let (dev, ino, size) = (meta.dev(), meta.ino(), meta.size());
    let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
    Ok(format!("{}:{dev}:{ino}:{size}:{}.{}:{}.{}", path.display(), times.0, times.1, times.2, times.3))
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, ImageError> {
    let read = || -> io::Result<Vec<u8>> {
        let file = std::fs::File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut wasm = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut wasm)?;
        Ok(wasm)
    };
    let wasm = read().map_err(|e| ImageError::Pull(format!("cannot read {}: {e}", path.display())))?;
    if wasm.len() as u64 > bytes_max {
        return Err(ImageError::Pull(format!(
            "{} has more than {bytes_max} bytes, the limit for images",
            path.display()
        )));
    }
    Ok(wasm)
}

/// `sha256:` and the digest in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(dir: &Path, outcome: Result<Pulled, ImageError>) -> String {
        let text = match outcome {
            Ok(Pulled::Same) => "same".to_owned(),
            Ok(Pulled::New(image)) => format!("{} bytes", image.wasm.len()),
            Err(ImageError::InvalidName(m)) => format!("invalid: {m}"),
            Err(ImageError::Pull(m)) => m,
        };
        text.replace(&dir.display().to_string(), "DIR")
    }

    #[test]
    fn only_files_below_granted_folders_are_read() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let (granted, other) = (root.join("granted"), root.join("other"));
        std::fs::create_dir_all(granted.join("sub")).unwrap();
        std::fs::create_dir_all(&other).unwrap();
        std::fs::write(granted.join("a.wasm"), b"abc").unwrap();
        std::fs::write(granted.join("sub/big.wasm"), b"0123456789").unwrap();
        std::fs::write(other.join("secret.wasm"), b"x").unwrap();
        std::os::unix::fs::symlink(other.join("secret.wasm"), granted.join("link.wasm")).unwrap();
        let images = FileImages::new(vec![granted.clone()], 9);
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (image, expected) in [
            ("file://a.wasm".to_owned(), "3 bytes"),
            (format!("file://{}/a.wasm", granted.display()), "3 bytes"),
            ("file://sub/../a.wasm".to_owned(), "3 bytes"),
            (format!("file://a.wasm@{abc}"), "3 bytes"),
            ("file://sub/big.wasm".to_owned(), "DIR/granted/sub/big.wasm has more than 9 bytes, the limit for images"),
            (
                format!("file://{}/secret.wasm", other.display()),
                "DIR/other/secret.wasm is outside the granted image folders (DIR/granted); grant its folder with --image-dir",
            ),
            (
                "file://../other/secret.wasm".to_owned(),
                "../other/secret.wasm is outside the granted image folders (DIR/granted); grant its folder with --image-dir",
            ),
            (
                "file://link.wasm".to_owned(),
                "link.wasm is outside the granted image folders (DIR/granted); grant its folder with --image-dir",
            ),
            ("file://none.wasm".to_owned(), "no file none.wasm in the granted image folders (DIR/granted)"),
            ("file://sub".to_owned(), "cannot read DIR/granted/sub: not a regular file"),
            (
                "nginx:1.27".to_owned(),
                "images from a registry are not supported yet; use file:// and a path below a granted image folder",
            ),
            (
                "oci://x/y".to_owned(),
                "images from oci are not supported yet; use file:// and a path below a granted image folder",
            ),
            ("file://".to_owned(), "invalid: couldn't parse image name \"file://\": it names no file"),
            (
                "file://a@sha256:12".to_owned(),
                "invalid: couldn't parse image name \"file://a@sha256:12\": the digest must be sha256: and 64 lower-case hexadecimal digits",
            ),
        ] {
            assert_eq!(words(&root, images.read(&image, None)), expected, "{image}");
        }
        let Ok(Pulled::New(first)) = images.read("file://a.wasm", None) else { panic!("not read") };
        assert_eq!(words(&root, images.read("file://a.wasm", Some(&first.stamp))), "same");
        std::fs::write(granted.join("a.wasm"), b"abcd").unwrap();
        assert_eq!(words(&root, images.read("file://a.wasm", Some(&first.stamp))), "4 bytes");
        std::fs::write(granted.join("a.wasm"), b"abc").unwrap();
        let wrong = format!("file://a.wasm@sha256:{}", "0".repeat(64));
        assert!(words(&root, images.read(&wrong, None)).contains("the file changed"));
        let none = FileImages::new(Vec::new(), 9);
        assert!(words(&root, none.read("file://a.wasm", None)).contains("--image-dir"));
    }
}
