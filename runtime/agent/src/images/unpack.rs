//! The modules of a container image: its layers read in order, everything that is no module passed over.
//!
//! Nothing is written where an archive says: paths are keys of a map, so that none leads anywhere. Bounded are the bytes that
//! come out of a layer (whatever went in), the entries, and the bytes of modules.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::hex;

/// Links followed for one name.
const LINKS_MAX: usize = 40;
/// Longest header of names that do not fit into an ordinary one.
const LONG_BYTES_MAX: u64 = 1 << 20;
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Bounds of one image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Of all layers together, unpacked.
    pub(crate) bytes_max: u64,
    /// Of all modules together.
    pub(crate) modules_bytes_max: u64,
    pub(crate) entries_max: usize,
}

/// Why a layer cannot be read.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The image is to blame.
    Image(String),
    /// This machine is.
    Machine(io::Error),
}

/// Where modules are put: begins a file, and takes it when its digest is known.
pub(crate) trait Modules {
    /// A new file.
    fn begin(&self) -> io::Result<(PathBuf, File)>;
    /// Makes it a blob.
    fn finish(&self, file: &Path, digest: &str) -> io::Result<()>;
}

/// A module found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) digest: String,
    pub(crate) size: u64,
}

#[derive(Debug, Clone)]
enum Entry {
    Module(Found),
    /// To a path of the image.
    Link(String),
    /// A folder or a file that is no module: hides what a layer below has there.
    Other,
}

/// The file system of an image, as far as modules go.
pub(crate) struct Tree {
    bounds: Bounds,
    left: u64,
    modules_left: u64,
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, left: bounds.bytes_max, modules_left: bounds.modules_bytes_max, entries: BTreeMap::new() }
    }

    /// Adds a layer to those below it.
    pub(crate) fn layer(&mut self, file: impl Read, gzip: bool, modules: &dyn Modules) -> Result<(), Problem> {
        let reader: Box<dyn Read + '_> = if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        // One byte more, so that what fills the bound exactly is not taken for more.
        let mut bounded = Bounded { inner: reader, left: self.left + 1 };
        let outcome = self.read(&mut bounded, modules);
        self.left = bounded.left.saturating_sub(1);
        if bounded.left == 0 {
            let max = self.bounds.bytes_max;
            return Err(Problem::Image(format!("its layers have more than {max} bytes unpacked, the limit")));
        }
        outcome
    }

    fn read(&mut self, reader: impl Read, modules: &dyn Modules) -> Result<(), Problem> {
        let broken = |error: io::Error| Problem::Image(format!("a layer cannot be unpacked: {error}"));
        let mut archive = tar::Archive::new(reader);
        let (mut upper, mut long) = (BTreeMap::new(), Long::default());
        // Raw: long names are read here, with a bound.
        for entry in archive.entries().map_err(broken)?.raw(true) {
            let mut entry = entry.map_err(broken)?;
            if long.take(&mut entry)? {
                continue;
            }
            let Long { path, link } = std::mem::take(&mut long);
            let path = match path {
                Some(path) => path,
                None => entry.path().map_err(broken)?.into_owned(),
            };
            let path = absolute(&path).ok_or_else(|| escapes(&path))?;
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            let folder = path[..path.len() - name.len()].trim_end_matches('/').to_owned();
            if name == OPAQUE {
                self.hide(&folder);
                continue;
            }
            if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                let hidden = format!("{folder}/{hidden}");
                self.entries.remove(&hidden);
                self.hide(&hidden);
                continue;
            }
            if self.entries.len() + upper.len() >= self.bounds.entries_max {
                return Err(Problem::Image(format!("it has more than {} files, the limit", self.bounds.entries_max)));
            }
            let kind = entry.header().entry_type();
            let target = match link {
                Some(link) => Some(link),
                None => entry.link_name().map_err(broken)?.map(std::borrow::Cow::into_owned),
            };
            let entry = match (kind, target) {
                (tar::EntryType::Symlink, Some(target)) => {
                    Entry::Link(joined(&folder, &target).ok_or_else(|| escapes(&target))?)
                }
                (tar::EntryType::Link, Some(target)) => Entry::Link(absolute(&target).ok_or_else(|| escapes(&target))?),
                _ if kind.is_file() => self.file(&mut entry, modules)?,
                _ => Entry::Other,
            };
            upper.insert(path, entry);
        }
        for (path, entry) in upper {
            if !matches!(entry, Entry::Other) {
                self.hide(&path);
            }
            self.entries.insert(path, entry);
        }
        Ok(())
    }

    /// Removes everything in a folder.
    fn hide(&mut self, folder: &str) {
        // `0` comes right after `/`.
        let inside: Vec<String> =
            self.entries.range(format!("{folder}/")..format!("{folder}0")).map(|(p, _)| p.clone()).collect();
        for path in inside {
            self.entries.remove(&path);
        }
    }

    fn file(&mut self, reader: &mut impl Read, modules: &dyn Modules) -> Result<Entry, Problem> {
        let broken = |error: io::Error| Problem::Image(format!("a layer cannot be unpacked: {error}"));
        let mut magic = Vec::new();
        reader.take(4).read_to_end(&mut magic).map_err(broken)?;
        if magic != b"\0asm" {
            return Ok(Entry::Other);
        }
        let (path, mut file) = modules.begin().map_err(Problem::Machine)?;
        let copied = self.copy(&magic, reader, &mut file);
        drop(file);
        let (digest, size) = copied.inspect_err(|_| forget(&path))?;
        modules.finish(&path, &digest).inspect_err(|_| forget(&path)).map_err(Problem::Machine)?;
        Ok(Entry::Module(Found { digest, size }))
    }

    fn copy(&mut self, magic: &[u8], reader: &mut impl Read, file: &mut File) -> Result<(String, u64), Problem> {
        let (mut hash, mut size, mut buffer) = (Sha256::new(), 0_u64, vec![0; 128 << 10]);
        let mut chunk = magic.len();
        buffer[..chunk].copy_from_slice(magic);
        while chunk > 0 {
            size += chunk as u64;
            if size > self.modules_left {
                let max = self.bounds.modules_bytes_max;
                return Err(Problem::Image(format!("its modules have more than {max} bytes, the limit for images")));
            }
            hash.update(&buffer[..chunk]);
            file.write_all(&buffer[..chunk]).map_err(Problem::Machine)?;
            let read = reader.read(&mut buffer);
            chunk = read.map_err(|error| Problem::Image(format!("a layer cannot be unpacked: {error}")))?;
        }
        self.modules_left -= size;
        file.sync_all().map_err(Problem::Machine)?;
        Ok((format!("sha256:{}", hex(&hash.finalize())), size))
    }

    /// Every path that a module can be reached by.
    pub(crate) fn modules(&self) -> BTreeMap<String, Found> {
        let found = |path: &String| Some((path.clone(), self.resolve(path)?.clone()));
        self.entries.keys().filter_map(found).collect()
    }

    /// Follows links, of folders on the way too.
    fn resolve(&self, path: &str) -> Option<&Found> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            match self.entries.get(&path) {
                Some(Entry::Module(found)) => return Some(found),
                Some(Entry::Link(target)) => path.clone_from(target),
                _ => {
                    let (folder, target) = self.linked_folder(&path)?;
                    path = format!("{target}{}", &path[folder.len()..]);
                }
            }
        }
        None
    }

    fn linked_folder(&self, path: &str) -> Option<(String, String)> {
        path.match_indices('/').skip(1).find_map(|(at, _)| match self.entries.get(&path[..at]) {
            Some(Entry::Link(target)) => Some((path[..at].to_owned(), target.clone())),
            _ => None,
        })
    }
}

/// Names that do not fit into a header and come before it.
#[derive(Default)]
struct Long {
    path: Option<PathBuf>,
    link: Option<PathBuf>,
}

impl Long {
    /// Whether the entry was one that only says something about the next one.
    fn take(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<bool, Problem> {
        let kind = entry.header().entry_type();
        match kind {
            tar::EntryType::GNULongName => self.path = Some(name(&long(entry)?)),
            tar::EntryType::GNULongLink => self.link = Some(name(&long(entry)?)),
            tar::EntryType::XHeader => {
                let bytes = long(entry)?;
                for extension in tar::PaxExtensions::new(&bytes).flatten() {
                    match extension.key_bytes() {
                        b"path" => self.path = Some(name(extension.value_bytes())),
                        b"linkpath" => self.link = Some(name(extension.value_bytes())),
                        _ => {}
                    }
                }
            }
            tar::EntryType::XGlobalHeader => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn long(entry: &mut impl Read) -> Result<Vec<u8>, Problem> {
    let broken = |error: io::Error| Problem::Image(format!("a layer cannot be unpacked: {error}"));
    let mut bytes = Vec::new();
    entry.take(LONG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() as u64 > LONG_BYTES_MAX {
        return Err(Problem::Image(format!("a layer has a header of more than {LONG_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn name(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes[..end]))
}

fn forget(path: &Path) {
    let _ = std::fs::remove_file(path);
}

fn escapes(path: &Path) -> Problem {
    Problem::Image(format!("a layer names the path {:?}, which leads out of the image", path.to_string_lossy()))
}

/// `/a/b`, whatever stands before it; `None` when it leads out.
fn absolute(path: &Path) -> Option<String> {
    joined("", path)
}

fn joined(folder: &str, path: &Path) -> Option<String> {
    let mut words: Vec<String> = if path.is_absolute() {
        Vec::new()
    } else {
        folder.split('/').filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    for component in path.components() {
        match component {
            Component::Normal(word) => words.push(word.to_str()?.to_owned()),
            Component::ParentDir => drop(words.pop()?),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Some(format!("/{}", words.join("/")))
}

/// Ends when so many bytes have been read.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..count])?;
        self.left -= read as u64;
        Ok(read)
    }
}
