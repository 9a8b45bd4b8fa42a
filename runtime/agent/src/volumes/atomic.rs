//! Writes the files of a volume so that a reader sees the old state or the new one, never a mix.
//!
//! As kubelet lays it out: `..2026_11_21_10_00_00.1` holds the files, `..data` is a symbolic link to it, and each name at the
//! top is a link through `..data`. An update makes a new folder and renames a new `..data` over the old one. All links are
//! relative: they lead nowhere else when the folder is mounted.
//!
//! # Source
//! Kubernetes `pkg/volume/util/atomic_writer.go`.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink},
    path::{Component, Path},
};

use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Brings the folder to this state. `version`: a name for the state, used for none before.
///
/// # Errors
/// When the folder cannot be written, or a path would lead out of it. The old state stays then.
pub(crate) fn write(dir: &Path, payload: &Payload, version: &str) -> io::Result<()> {
    for path in payload.keys() {
        check(path)?;
    }
    fs::create_dir_all(dir)?;
    let old = fs::read_link(dir.join(DATA)).ok();
    let name = format!("..{version}");
    let new = dir.join(&name);
    let written = fill(&new, payload).and_then(|()| point(dir, &name)).and_then(|()| links(dir, payload));
    if let Err(error) = written {
        // Nobody sees it yet, or everybody does: then it must stay.
        if fs::read_link(dir.join(DATA)).ok().as_deref() != Some(Path::new(&name)) {
            let _ = fs::remove_dir_all(&new);
        }
        return Err(error);
    }
    if let Some(old) = old.filter(|old| old.components().count() == 1) {
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(())
}

/// Only plain names: the API has checked it, but these come from elsewhere.
fn check(path: &str) -> io::Result<()> {
    let mut parts = Path::new(path).components().peekable();
    let plain = parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)));
    if plain && !path.starts_with("..") {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?} in a volume")))
}

fn fill(dir: &Path, payload: &Payload) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(dir)?;
    for (path, content) in payload {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &content.bytes)?;
        // Whatever its mode is, the agent itself has to read it for the guest.
        fs::set_permissions(&path, fs::Permissions::from_mode(content.mode | 0o400))?;
    }
    Ok(())
}

fn point(dir: &Path, name: &str) -> io::Result<()> {
    let new = dir.join(DATA_NEW);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(name, &new)?;
    fs::rename(&new, dir.join(DATA))
}

/// The names at the top: those that are wanted are there, those that were are not.
fn links(dir: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<_> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        match symlink(Path::new(DATA).join(name), dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let stale = name.to_str().is_some_and(|name| !name.starts_with("..") && !wanted.contains(name));
        if stale {
            fs::remove_file(dir.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::payload::Content, *};

    fn payload(files: &[(&str, &str)]) -> Payload {
        let content = |text: &str| Content { bytes: text.as_bytes().to_vec(), mode: 0o644 };
        files.iter().map(|(path, text)| ((*path).to_owned(), content(text))).collect()
    }

    fn seen(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|n| !n.starts_with("..")).collect();
        names.sort();
        names
    }

    #[test]
    fn an_update_replaces_all_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, &payload(&[("a", "1"), ("sub/b", "2")]), "1").unwrap();
        assert_eq!((seen(dir), fs::read(dir.join("sub/b")).unwrap()), (vec!["a".into(), "sub".into()], b"2".to_vec()));
        // Whoever has the old state open goes on reading that.
        let old = fs::File::open(dir.join("a")).unwrap();
        write(dir, &payload(&[("a", "10"), ("c", "3")]), "2").unwrap();
        assert_eq!((seen(dir), fs::read(dir.join("a")).unwrap()), (vec!["a".into(), "c".into()], b"10".to_vec()));
        assert_eq!(io::read_to_string(old).unwrap(), "1");
        assert!(!dir.join("..1").exists(), "the old state is gone");
    }

    #[test]
    fn paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/x", "a/../../x", "..data", ""] {
            let error = write(&dir.path().join("v"), &payload(&[(path, "x")]), "1").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
        assert!(!dir.path().join("x").exists());
    }
}
