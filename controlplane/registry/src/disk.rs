//! The folder: content by digest, and for each repository what of it belongs there.
//!
//! ```text
//! blobs/sha256/ab/abcd…              content
//! repositories/demo/app/_blobs/HEX       this repository has that blob
//!                      /_manifests/HEX   … has that manifest; inside: its media type
//!                      /_tags/v1         the digest that a tag names
//!                      /_referrers/HEX/HEX   descriptor of a manifest whose subject is the first digest
//!                      /_uploads/ID      what has been received of a blob
//! ```
//!
//! Names of repositories never begin with an underscore. Everything here blocks: call it from threads that may.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use parking_lot::RwLock;

use crate::names::{Digest, Reference, Repository};

/// Repositories deeper than this are not looked for; no name has so many words.
const DEPTH_MAX: usize = 128;

/// The registry's folder.
pub(crate) struct Disk {
    root: PathBuf,
    /// Written by the sweep, read by whoever adds: what is being added is not swept.
    pub(crate) sweeping: RwLock<()>,
}

impl Disk {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        for dir in ["blobs/sha256", "repositories", "new"] {
            fs::create_dir_all(root.join(dir))?;
        }
        // Left by a process that was ended while it wrote.
        for entry in fs::read_dir(root.join("new"))? {
            fs::remove_file(entry?.path())?;
        }
        Ok(Self { root: root.to_owned(), sweeping: RwLock::default() })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex())
    }

    pub(crate) fn repository(&self, repository: &Repository) -> PathBuf {
        self.root.join("repositories").join(repository.as_str())
    }

    fn link(&self, repository: &Repository, kind: &str, digest: &Digest) -> PathBuf {
        self.repository(repository).join(kind).join(digest.hex())
    }

    /// Size of a blob that a repository has.
    pub(crate) fn blob_size(&self, repository: &Repository, digest: &Digest) -> io::Result<Option<u64>> {
        if !self.link(repository, "_blobs", digest).exists() {
            return Ok(None);
        }
        absent(fs::metadata(self.blob(digest)).map(|meta| meta.len()))
    }

    /// Makes a blob young again, so that a client that was told that it is there finds it there later too.
    pub(crate) fn touch(&self, digest: &Digest) {
        let touched =
            File::options().append(true).open(self.blob(digest)).and_then(|f| f.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(%digest, %error, "cannot touch a blob");
        }
    }

    /// Takes over a file whose digest was checked, and gives it to a repository.
    pub(crate) fn adopt(&self, file: &Path, repository: &Repository, digest: &Digest) -> io::Result<()> {
        let _adding = self.sweeping.read();
        let place = self.blob(digest);
        File::open(file)?.sync_all()?;
        if let Some(dir) = place.parent() {
            fs::create_dir_all(dir)?;
        }
        if place.exists() {
            fs::remove_file(file)?;
            self.touch(digest);
        } else {
            fs::rename(file, &place)?;
            self.touch(digest);
            sync_parent(&place)?;
        }
        self.write(&self.link(repository, "_blobs", digest), b"")
    }

    /// Gives a blob that one repository has to another. `false`: the first one does not have it.
    pub(crate) fn mount(&self, from: &Repository, to: &Repository, digest: &Digest) -> io::Result<bool> {
        let _adding = self.sweeping.read();
        if self.blob_size(from, digest)?.is_none() {
            return Ok(false);
        }
        self.touch(digest);
        self.write(&self.link(to, "_blobs", digest), b"").map(|()| true)
    }

    /// Takes a blob away from a repository. `false`: it does not have it.
    pub(crate) fn remove_blob(&self, repository: &Repository, digest: &Digest) -> io::Result<bool> {
        removed(&self.link(repository, "_blobs", digest))
    }

    /// Stores a manifest. The caller holds `sweeping` and has checked everything.
    pub(crate) fn put_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        media_type: &str,
        bytes: &[u8],
    ) -> io::Result<()> {
        let place = self.blob(digest);
        if place.exists() {
            self.touch(digest);
        } else {
            self.write(&place, bytes)?;
        }
        self.write(&self.link(repository, "_manifests", digest), media_type.as_bytes())
    }

    pub(crate) fn tag(&self, repository: &Repository, tag: &str, digest: &Digest) -> io::Result<()> {
        let before = self.tagged(repository, tag)?;
        self.write(&self.repository(repository).join("_tags").join(tag), digest.to_string().as_bytes())?;
        before.iter().filter(|before| *before != digest).for_each(|before| self.left(repository, before));
        Ok(())
    }

    pub(crate) fn untag(&self, repository: &Repository, tag: &str) -> io::Result<bool> {
        let before = self.tagged(repository, tag)?;
        let done = removed(&self.repository(repository).join("_tags").join(tag))?;
        before.iter().for_each(|before| self.left(repository, before));
        Ok(done)
    }

    /// What a tag names.
    fn tagged(&self, repository: &Repository, tag: &str) -> io::Result<Option<Digest>> {
        let text = absent(fs::read_to_string(self.repository(repository).join("_tags").join(tag)))?;
        Ok(text.and_then(|text| Digest::parse(text.trim()).ok()))
    }

    /// A tag names a manifest no more: its time without one begins.
    fn left(&self, repository: &Repository, digest: &Digest) {
        let link = self.link(repository, "_manifests", digest);
        let touched = File::options().append(true).open(link).and_then(|f| f.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(%repository, %digest, %error, "cannot note that a manifest has lost a tag");
        }
    }

    /// When a manifest was put there, or lost a tag. `None`: it is not there.
    pub(crate) fn manifest_time(&self, repository: &Repository, digest: &Digest) -> io::Result<Option<SystemTime>> {
        absent(fs::metadata(self.link(repository, "_manifests", digest)).and_then(|meta| meta.modified()))
    }

    /// Which manifest a tag or digest means in a repository.
    pub(crate) fn resolve(&self, repository: &Repository, reference: &Reference) -> io::Result<Option<Digest>> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => match self.tagged(repository, tag)? {
                Some(digest) => digest,
                None => return Ok(None),
            },
        };
        Ok(self.link(repository, "_manifests", &digest).exists().then_some(digest))
    }

    /// A manifest's media type and bytes.
    pub(crate) fn manifest(&self, repository: &Repository, digest: &Digest) -> io::Result<Option<(String, Vec<u8>)>> {
        let Some(media_type) = absent(fs::read_to_string(self.link(repository, "_manifests", digest)))? else {
            return Ok(None);
        };
        Ok(absent(fs::read(self.blob(digest)))?.map(|bytes| (media_type, bytes)))
    }

    /// Removes a manifest and all tags that name it. `false`: it was not there.
    pub(crate) fn remove_manifest(&self, repository: &Repository, digest: &Digest) -> io::Result<bool> {
        for (tag, named) in self.tags(repository)? {
            if named == *digest {
                self.untag(repository, &tag)?;
            }
        }
        removed(&self.link(repository, "_manifests", digest))
    }

    /// Tags in their order, and what they name.
    pub(crate) fn tags(&self, repository: &Repository) -> io::Result<BTreeMap<String, Digest>> {
        let mut tags = BTreeMap::new();
        for (name, path) in entries(&self.repository(repository).join("_tags"))? {
            if let Some(digest) = absent(fs::read_to_string(path))?.and_then(|text| Digest::parse(text.trim()).ok()) {
                tags.insert(name, digest);
            }
        }
        Ok(tags)
    }

    /// Digests of a repository's manifests.
    pub(crate) fn manifests(&self, repository: &Repository) -> io::Result<Vec<Digest>> {
        let found = entries(&self.repository(repository).join("_manifests"))?;
        Ok(found.into_iter().filter_map(|(name, _)| Digest::from_hex(&name)).collect())
    }

    pub(crate) fn put_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        digest: &Digest,
        descriptor: &[u8],
    ) -> io::Result<()> {
        self.write(&self.repository(repository).join("_referrers").join(subject.hex()).join(digest.hex()), descriptor)
    }

    pub(crate) fn remove_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        digest: &Digest,
    ) -> io::Result<bool> {
        removed(&self.repository(repository).join("_referrers").join(subject.hex()).join(digest.hex()))
    }

    /// Descriptors of what refers to a manifest.
    pub(crate) fn referrers(&self, repository: &Repository, subject: &Digest) -> io::Result<Vec<Vec<u8>>> {
        let mut found = entries(&self.repository(repository).join("_referrers").join(subject.hex()))?;
        found.sort();
        found.into_iter().filter_map(|(_, path)| absent(fs::read(path)).transpose()).collect()
    }

    /// Whether anything was ever pushed there.
    pub(crate) fn has(&self, repository: &Repository) -> bool {
        let dir = self.repository(repository);
        ["_manifests", "_tags", "_blobs"].iter().any(|kind| dir.join(kind).is_dir())
    }

    /// All repositories, in order.
    pub(crate) fn repositories(&self) -> io::Result<Vec<Repository>> {
        let root = self.root.join("repositories");
        let mut found = Vec::new();
        let mut open = vec![(root.clone(), 0)];
        while let Some((dir, depth)) = open.pop() {
            for (name, path) in entries(&dir)? {
                if name.starts_with('_') || depth > DEPTH_MAX || !path.is_dir() {
                    continue;
                }
                let relative = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
                found.extend(Repository::parse(&relative).ok().filter(|repository| {
                    self.has(repository) || self.repository(repository).join("_uploads").is_dir()
                }));
                open.push((path, depth + 1));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Writes a file as a whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let new = self.root.join("new").join(uuid::Uuid::new_v4().to_string());
        let written = File::create(&new).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        let done = written.and_then(|()| fs::rename(&new, path)).and_then(|()| sync_parent(path));
        if done.is_err() {
            let _ = fs::remove_file(&new);
        }
        done
    }

    /// Bytes that may still be written to the disk.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// `None` when there is no such file.
pub(crate) fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn removed(path: &Path) -> io::Result<bool> {
    absent(fs::remove_file(path)).map(|done| done.is_some())
}

/// Names and paths in a folder; none when there is no such folder.
pub(crate) fn entries(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let Some(found) = absent(fs::read_dir(dir))? else { return Ok(Vec::new()) };
    found.map(|entry| entry.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))).collect()
}

/// A new name lasts only when its folder is on disk.
fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
