//! Images: what a name means, where its bytes come from, what is kept of them on this machine.
//!
//! Two sources: files below granted folders (`file://`), and OCI registries. Whatever its source, an image becomes a
//! [`Record`]: the digests of its modules and what it says about how it is run.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) mod credentials;
mod file;
mod manifest;
#[cfg(test)]
mod pull_tests;
pub(crate) mod puller;
pub(crate) mod reference;
mod registries;
mod remote;
pub(crate) mod store;
mod unpack;

pub use file::{FileImages, ImageSource, Pulled, PulledImage};
pub(crate) use file::{demanded_digest, digest, hex};
pub use registries::{Registries, Registry, Rewrite};

/// What an image says about how it is run. A pod's spec comes before it, as in Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Program and first arguments; `command` of a container replaces it and `cmd`.
    pub entrypoint: Vec<String>,
    /// Further arguments; `args` of a container replaces it.
    pub cmd: Vec<String>,
    /// Variables that the container's own come after.
    pub env: Vec<(String, String)>,
    /// The folder that it starts in.
    pub working_dir: Option<String>,
    /// TCP ports that it says it answers on.
    pub exposed_ports: Vec<u16>,
    /// Folders that it says it writes to, as absolute paths.
    pub volumes: Vec<String>,
}

/// One image on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What `imageID` shows: the digest of the manifest, or of the file. `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Bytes of all modules.
    pub size_bytes: u64,
    /// How it is run.
    pub config: ImageConfig,
    /// Digest of the module that runs when a container names no command; none when the image is a box of tools.
    pub main: Option<String>,
    /// Modules by the absolute path that they have in the image, `/bin/ls.wasm`; links are listed as what they lead to.
    pub modules: BTreeMap<String, String>,
}

/// Why an image cannot be had. The message is what the user reads in the container's status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The name is no image reference: `InvalidImageName`.
    #[error("{0}")]
    InvalidName(String),
    /// It cannot be fetched: `ErrImagePull`.
    #[error("{0}")]
    Pull(String),
}

/// Folders that commands are looked for in when they are named without one.
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

impl Record {
    /// An image that is one file.
    pub(crate) fn of_file(name: &str, digest: &str, size_bytes: u64) -> Self {
        let file = PathBuf::from(name.split('@').next().unwrap_or_default());
        let file = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self {
            digest: digest.to_owned(),
            size_bytes,
            config: ImageConfig { entrypoint: vec![file.clone()], ..ImageConfig::default() },
            main: Some(digest.to_owned()),
            modules: BTreeMap::from([(format!("/{file}"), digest.to_owned())]),
        }
    }

    /// As [`Record::command`], but a path without a slash in front begins in the image's working folder.
    pub(crate) fn in_folder(&self, name: &str) -> Option<&str> {
        let folder = self.config.working_dir.as_deref().unwrap_or("/").trim_end_matches('/');
        let there = || self.modules.get(&format!("{folder}/{}", name.trim_start_matches("./"))).map(String::as_str);
        if name.starts_with('/') || name.is_empty() {
            self.command(name)
        } else {
            there().or_else(|| self.command(name))
        }
    }

    /// The module that a container runs.
    ///
    /// # Errors
    /// When the command names none, or there is no command and the image has none that runs by itself.
    pub(crate) fn chosen(&self, command: Option<&str>) -> Result<&str, String> {
        let offers = || {
            let names: Vec<&str> = self.modules.keys().map(String::as_str).take(20).collect();
            names.join(", ")
        };
        let several = self.modules.values().collect::<std::collections::BTreeSet<_>>().len() > 1;
        match (command.filter(|c| !c.is_empty()), &self.main) {
            (Some(command), _) if several => self
                .in_folder(command)
                .ok_or_else(|| format!("exec: {command:?}: no such module in the image, which offers {}", offers())),
            (_, Some(main)) => Ok(main),
            _ => Err(format!("no command specified: the image is made of several, {}", offers())),
        }
    }

    /// The module that a command names: a path with or without `.wasm`, or a file's name, which is looked for in the
    /// usual folders first and then in all.
    pub fn command(&self, name: &str) -> Option<&str> {
        let exact = |path: &str| self.modules.get(path).or_else(|| self.modules.get(&format!("{path}.wasm")));
        if name.is_empty() {
            return None;
        }
        if name.contains('/') {
            let path = format!("/{}", name.trim_start_matches("./").trim_start_matches('/'));
            return exact(&path).map(String::as_str);
        }
        let usual = PATH.iter().find_map(|dir| exact(&format!("{dir}/{name}")));
        let anywhere = || {
            let named = |path: &str| {
                let file = path.rsplit('/').next().unwrap_or_default();
                file == name || file.strip_suffix(".wasm") == Some(name)
            };
            self.modules.iter().find(|(path, _)| named(path)).map(|(_, digest)| digest)
        };
        usual.or_else(anywhere).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_as_a_shell_would() {
        let modules = [("/app.wasm", "a"), ("/bin/ls.wasm", "l"), ("/opt/x/ls.wasm", "o"), ("/usr/bin/tar", "t")];
        let record = Record {
            modules: modules.map(|(path, digest)| (path.to_owned(), digest.to_owned())).into(),
            ..Record::default()
        };
        for (name, found) in [
            ("ls", Some("l")),
            ("ls.wasm", Some("l")),
            ("/bin/ls", Some("l")),
            ("/bin/ls.wasm", Some("l")),
            ("bin/ls", Some("l")),
            ("./app.wasm", Some("a")),
            ("/opt/x/ls", Some("o")),
            ("tar", Some("t")),
            ("app", Some("a")),
            ("/ls", None),
            ("cat", None),
            ("", None),
        ] {
            assert_eq!(record.command(name), found, "{name}");
        }
    }
}
