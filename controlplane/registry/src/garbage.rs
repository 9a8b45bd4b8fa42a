//! Mark and sweep: manifests that nothing leads to go when they have been so for long, and blobs that no manifest names, once
//! they are old enough that nobody is about to name them.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    time::{Duration, SystemTime},
};

use crate::{
    RegistryConfig,
    disk::{Disk, absent, entries},
    manifest::Manifest,
    names::{Digest, Repository},
};

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Manifests without a tag.
    pub manifests: u64,
    /// Blobs, manifests' own among them.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Uploads that nobody went on with.
    pub uploads: u64,
}

/// Removes manifests that nothing leads to, unless it is unknown which are `in_use`; then blobs that are unnamed. Additions
/// wait meanwhile.
pub(crate) fn sweep(disk: &Disk, config: &RegistryConfig, in_use: Option<&HashSet<String>>) -> io::Result<Swept> {
    let _alone = disk.sweeping.write();
    let repositories = disk.repositories()?;
    let mut swept = Swept::default();
    let mut named = HashSet::new();
    for repository in &repositories {
        let mut manifests = read(disk, repository)?;
        if let Some(in_use) = in_use {
            for digest in useless(disk, repository, &manifests, config, in_use)? {
                remove(disk, repository, &digest, manifests.remove(&digest))?;
                swept.manifests += 1;
            }
        }
        for (digest, manifest) in manifests {
            named.insert(digest);
            if let Some(manifest) = manifest {
                named.extend(manifest.blobs);
                named.extend(manifest.manifests);
            }
        }
    }
    sweep_blobs(disk, config.grace, &repositories, &named, &mut swept)?;
    Ok(swept)
}

/// A repository's manifests; `None` for what cannot be read as one.
type Manifests = HashMap<Digest, Option<Manifest>>;

fn read(disk: &Disk, repository: &Repository) -> io::Result<Manifests> {
    let mut manifests = Manifests::new();
    for digest in disk.manifests(repository)? {
        let Some((media_type, bytes)) = disk.manifest(repository, &digest)? else { continue };
        manifests.insert(digest, Manifest::parse(&bytes, Some(&media_type)).ok());
    }
    Ok(manifests)
}

fn remove(disk: &Disk, repository: &Repository, digest: &Digest, manifest: Option<Option<Manifest>>) -> io::Result<()> {
    if let Some(subject) = manifest.flatten().and_then(|manifest| manifest.subject) {
        disk.remove_referrer(repository, &subject, digest)?;
    }
    disk.remove_manifest(repository, digest).map(drop)
}

/// Manifests that nothing leads to, and whose time without a tag is over.
fn useless(
    disk: &Disk,
    repository: &Repository,
    manifests: &Manifests,
    config: &RegistryConfig,
    in_use: &HashSet<String>,
) -> io::Result<Vec<Digest>> {
    let mut kept: HashSet<Digest> = disk.tags(repository)?.into_values().collect();
    kept.extend(manifests.keys().filter(|digest| in_use.contains(&digest.to_string())).cloned());
    follow(manifests, &mut kept);
    let now = SystemTime::now();
    let mut others = Vec::new();
    for digest in manifests.keys().filter(|digest| !kept.contains(*digest)) {
        let since = disk.manifest_time(repository, digest)?.unwrap_or(now);
        others.push((now.duration_since(since).unwrap_or_default(), digest));
    }
    others.sort();
    let stays = |(place, (age, _)): &(usize, &(Duration, &Digest))| {
        *age < config.untagged_grace && (*place < config.untagged_max || *age < config.grace)
    };
    kept.extend(others.iter().enumerate().filter(stays).map(|(_, (_, digest))| (*digest).clone()));
    follow(manifests, &mut kept);
    Ok(manifests.keys().filter(|digest| !kept.contains(*digest)).cloned().collect())
}

/// Adds what is kept with something that is kept: what an index names, and what refers to it.
fn follow(manifests: &Manifests, kept: &mut HashSet<Digest>) {
    loop {
        let before = kept.len();
        for (digest, manifest) in manifests.iter().filter_map(|(digest, m)| Some((digest, m.as_ref()?))) {
            if kept.contains(digest) {
                kept.extend(manifest.manifests.iter().cloned());
            } else if manifest.subject.as_ref().is_some_and(|subject| kept.contains(subject)) {
                kept.insert(digest.clone());
            }
        }
        if kept.len() == before {
            return;
        }
    }
}

fn sweep_blobs(
    disk: &Disk,
    grace: Duration,
    repositories: &[Repository],
    named: &HashSet<Digest>,
    swept: &mut Swept,
) -> io::Result<()> {
    let old = |path: &std::path::Path| -> io::Result<bool> {
        let modified = absent(fs::metadata(path).and_then(|meta| meta.modified()))?;
        Ok(modified.is_some_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age >= grace)))
    };
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
    for repository in repositories {
        for (name, path) in entries(&disk.repository(repository).join("_blobs"))? {
            if Digest::from_hex(&name).is_some_and(|digest| gone.contains(&digest)) {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}
