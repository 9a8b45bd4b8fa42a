//! `hostPath`: only what the operator has granted, checked as kubelet checks its types.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

/// The real path of a `hostPath` volume, after its `type` has been seen to.
///
/// # Errors
/// When it lies outside the granted folders, is not there, or is of another type. In kubelet's words where it has some.
pub(crate) fn resolve(path: &str, kind: &str, granted: &[PathBuf]) -> Result<PathBuf, String> {
    let path = Path::new(path);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("hostPath {} must be absolute and without ..", path.display()));
    }
    let place = place(path, granted)?;
    let checked = |ok: bool, what: &str| {
        if ok { Ok(()) } else { Err(format!("hostPath type check failed: {} is not {what}", path.display())) }
    };
    match kind {
        "" => {
            checked(place.exists(), "there")?;
        }
        "Directory" => checked(place.is_dir(), "a directory")?,
        "File" => checked(place.is_file(), "a file")?,
        "DirectoryOrCreate" => {
            made(&place, fs::create_dir_all(&place))?;
            checked(place.is_dir(), "a directory")?;
        }
        "FileOrCreate" => {
            made(&place, fs::OpenOptions::new().create(true).append(true).open(&place).map(drop))?;
            checked(place.is_file(), "a file")?;
        }
        other => return Err(format!("hostPath type {other} means nothing to a WebAssembly guest")),
    }
    Ok(place)
}

fn made(path: &Path, result: io::Result<()>) -> Result<(), String> {
    result.map_err(|error| format!("cannot make {}: {error}", path.display()))
}

/// The path with the links of what is there already resolved; the rest may be missing.
fn place(path: &Path, granted: &[PathBuf]) -> Result<PathBuf, String> {
    let (there, rest) = deepest(path);
    let real = there.canonicalize().map_err(|error| format!("cannot find {}: {error}", there.display()))?;
    let real = if rest.as_os_str().is_empty() { real } else { real.join(rest) };
    let inside = granted.iter().filter_map(|dir| dir.canonicalize().ok()).any(|dir| real.starts_with(dir));
    if inside {
        return Ok(real);
    }
    Err(format!(
        "hostPath {} is not below a folder that this node grants: name one with --host-path-dir",
        path.display()
    ))
}

/// The part of a path that is there, and the rest.
fn deepest(path: &Path) -> (&Path, &Path) {
    let there = path.ancestors().find(|part| part.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    (there, path.strip_prefix(there).unwrap_or(Path::new("")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_granted_folders_and_the_right_types() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let granted = vec![root.join("granted")];
        fs::create_dir_all(root.join("granted/d")).unwrap();
        fs::create_dir(root.join("other")).unwrap();
        fs::write(root.join("granted/f"), "").unwrap();
        symlink(root.join("other"), root.join("granted/link")).unwrap();
        let check = |path: &str, kind: &str| {
            let path = root.join(path).display().to_string();
            resolve(&path, kind, &granted).map(drop).map_err(|e| e.replace(&root.display().to_string(), ""))
        };
        for (path, kind) in [
            ("granted/d", ""),
            ("granted/d", "Directory"),
            ("granted/f", "File"),
            ("granted/new/er", "DirectoryOrCreate"),
            ("granted/d/new", "FileOrCreate"),
        ] {
            assert_eq!(check(path, kind), Ok(()), "{path} {kind}");
        }
        let refused = " is not below a folder that this node grants: name one with --host-path-dir";
        for (path, kind, words) in [
            ("granted/f", "Directory", "hostPath type check failed: /granted/f is not a directory"),
            ("granted/d", "File", "hostPath type check failed: /granted/d is not a file"),
            ("granted/missing", "", "hostPath type check failed: /granted/missing is not there"),
            ("granted/d", "Socket", "hostPath type Socket means nothing to a WebAssembly guest"),
            ("other", "", &format!("hostPath /other{refused}")),
            ("granted/link", "Directory", &format!("hostPath /granted/link{refused}")),
            ("granted/link/new", "DirectoryOrCreate", &format!("hostPath /granted/link/new{refused}")),
            ("granted/../other", "", "hostPath /granted/../other must be absolute and without .."),
        ] {
            assert_eq!(check(path, kind), Err(words.to_owned()), "{path} {kind}");
        }
        assert!(!root.join("other/new").exists());
    }
}
