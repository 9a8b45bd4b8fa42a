//! The folder that a cluster keeps its data in: made for its owner alone, marked with the version of its layout.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Version of the layout. A change that older data does not survive raises it.
const VERSION: &str = "1";

/// An opened data folder.
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// Makes the folder, or checks that it is one of this version.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<Self> {
        let path = match path {
            Some(path) => path,
            None => {
                std::env::home_dir().context("there is no home folder: name a folder with --data-dir")?.join(".podium")
            }
        };
        let shown = path.display().to_string();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the data folder {shown}: name another with --data-dir"))?;
        check_version(&path)?;
        let path = path.canonicalize().with_context(|| format!("cannot open the data folder {shown}"))?;
        // It holds the cluster's keys.
        let owner_only = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&path, owner_only).with_context(|| format!("the data folder {shown} is not yours"))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A file or folder inside.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn check_version(path: &Path) -> Result<()> {
    let file = path.join("version");
    match fs::read_to_string(&file) {
        Ok(found) if found.trim() == VERSION => Ok(()),
        Ok(found) => bail!(
            "the data folder {} has version {}, this podium reads version {VERSION}: \
             use the podium that wrote it, or name another folder with --data-dir",
            path.display(),
            found.trim()
        ),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let ours =
                |name: &str| ["store", "pki", "logs", "cache", "images", "kubeconfig", "registry"].contains(&name);
            let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
            let foreign = entries.flatten().find(|e| e.file_name().to_str().is_none_or(|name| !ours(name)));
            if let Some(entry) = foreign {
                bail!(
                    "{} is not empty (it holds {:?}) and is no data folder of podium: name another with --data-dir",
                    path.display(),
                    entry.file_name()
                );
            }
            fs::write(&file, format!("{VERSION}\n")).with_context(|| format!("cannot write {}", file.display()))
        }
        Err(e) => Err(e).with_context(|| format!("cannot read {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> String {
        DataDir::open(Some(path.to_path_buf())).map_or_else(|e| format!("{e:#}"), |_| "ok".to_owned())
    }

    #[test]
    fn only_our_own_folders_of_this_version_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        assert_eq!(open(&path), "ok");
        assert_eq!(open(&path), "ok");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("version"), "7\n").unwrap();
        assert!(open(&path).contains("has version 7"), "{}", open(&path));
        let foreign = folder.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("thesis.tex"), "").unwrap();
        assert!(open(&foreign).contains("thesis.tex"));
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(open(&file).contains("cannot make the data folder"));
    }
}
