//! Files that only their owner can read: keys, certificates with keys, kubeconfigs, tokens.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Writes a file that only its owner can read, whole or not at all. What lies beside it as `NAME.new` is replaced.
///
/// # Errors
/// What the system says; what was there before stays.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_its_owners_whoevers_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.key");
        let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        let left_over = dir.path().join("client.key.new");
        for text in ["first", "second"] {
            // What a process left that was killed meanwhile, and what anybody may read.
            fs::write(&left_over, "half").unwrap();
            open(&left_over);
            write_private(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(!left_over.exists());
            open(&path);
        }
        assert!(write_private(&dir.path().join("none/x"), "text").is_err());
    }
}
