//! Mark and sweep: blobs that no manifest names go, once they are old enough that nobody is about to name them.

use std::{
    collections::HashSet,
    fs, io,
    time::{Duration, SystemTime},
};

use crate::{
    disk::{Disk, absent, entries},
    manifest::Manifest,
    names::{Digest, Repository},
};

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Uploads that nobody went on with.
    pub uploads: u64,
}

/// Removes what is unnamed and older than `grace`. Additions wait meanwhile.
pub(crate) fn sweep(disk: &Disk, grace: Duration) -> io::Result<Swept> {
    let _alone = disk.sweeping.write();
    let repositories = disk.repositories()?;
    let mut named = HashSet::new();
    for repository in &repositories {
        mark(disk, repository, &mut named)?;
    }
    let old = |path: &std::path::Path| -> io::Result<bool> {
        let modified = absent(fs::metadata(path).and_then(|meta| meta.modified()))?;
        Ok(modified.is_some_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age >= grace)))
    };
    let mut swept = Swept::default();
    let mut gone = HashSet::new();
    for (_, dir) in entries(&disk.root().join("blobs/sha256"))? {
        for (name, path) in entries(&dir)? {
            let Some(digest) = Digest::from_hex(&name) else { continue };
            if named.contains(&digest) || !old(&path)? {
                continue;
            }
            swept.bytes += fs::metadata(&path)?.len();
            fs::remove_file(&path)?;
            swept.blobs += 1;
            gone.insert(digest);
        }
    }
    for repository in &repositories {
        for (name, path) in entries(&disk.repository(repository).join("_blobs"))? {
            if Digest::from_hex(&name).is_some_and(|digest| gone.contains(&digest)) {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(swept)
}

/// Adds everything that a repository's manifests name, themselves included.
fn mark(disk: &Disk, repository: &Repository, named: &mut HashSet<Digest>) -> io::Result<()> {
    for digest in disk.manifests(repository)? {
        let Some((media_type, bytes)) = disk.manifest(repository, &digest)? else { continue };
        named.insert(digest);
        if let Ok(manifest) = Manifest::parse(&bytes, Some(&media_type)) {
            named.extend(manifest.blobs);
            named.extend(manifest.manifests);
        }
    }
    Ok(())
}
