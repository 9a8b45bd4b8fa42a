//! Which interfaces an image may import: what is granted, and what an operator refuses.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use crate::{Image, StartError, host::CAPABILITIES};

/// What a container may use of the host, by the names of WASI interfaces: a group (`wasi:http`), an interface
/// (`wasi:http/types`), either with a version (`wasi:http@0.2`), or a pattern with `*` at its end.
///
/// What is granted still needs something to work with: a file system needs mounts, sockets a network, stores their
/// stores. An interface that is not granted is there and refuses, so that guests whose standard library imports more than they use
/// run; only what cannot be there without working (`wasi:cli`, `wasi:clocks`, `wasi:io`, `wasi:random`) keeps an image from starting.
/// A refused interface always does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// Granted groups. The default is all that this host has.
    pub granted: BTreeSet<String>,
    /// Refused, whatever is granted.
    pub refused: Vec<String>,
}

impl Default for Grants {
    fn default() -> Self {
        let granted = CAPABILITIES.iter().map(|capability| capability.group.to_owned()).collect();
        Self { granted, refused: Vec::new() }
    }
}

/// The default, once for all containers.
pub(crate) fn all() -> Arc<Grants> {
    static ALL: LazyLock<Arc<Grants>> = LazyLock::new(Arc::default);
    ALL.clone()
}

impl Grants {
    /// Whether a group is granted.
    pub(crate) fn has(&self, group: &str) -> bool {
        self.granted.contains(group)
    }

    /// Whether an image may start with these.
    pub(crate) fn check(&self, image: &Image) -> Result<(), StartError> {
        for import in image.imports() {
            let refused =
                |why: String| StartError::Refused { interface: import.clone(), image: image.digest().to_owned(), why };
            if let Some(pattern) = self.refused.iter().find(|pattern| matches(pattern, import)) {
                return Err(refused(format!("the pattern {pattern:?} refuses it")));
            }
            let capability = CAPABILITIES.iter().find(|capability| in_group(import, capability.group));
            if let Some(capability) = capability.filter(|it| !it.can_be_empty && !self.has(it.group)) {
                return Err(refused(format!("{} is not granted", capability.group)));
            }
        }
        Ok(())
    }
}

/// Whether an import is of a group.
fn in_group(import: &str, group: &str) -> bool {
    import.strip_prefix(group).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a pattern names an import such as `wasi:http/types@0.2.0` or `wasi_snapshot_preview1::sock_accept`.
fn matches(pattern: &str, import: &str) -> bool {
    if let Some(start) = pattern.strip_suffix('*') {
        return import.starts_with(start);
    }
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    let (wanted, series) = pattern.split_once('@').unwrap_or((pattern, ""));
    let named =
        name == wanted || in_group(name, wanted) || name.strip_prefix(wanted).is_some_and(|r| r.starts_with("::"));
    let rest = version.strip_prefix(series);
    named && (series.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let cases = [
            ("wasi:sockets", "wasi:sockets/tcp@0.2.3", true),
            ("wasi:sock", "wasi:sockets/tcp@0.2.3", false),
            ("wasi:sockets/tcp", "wasi:sockets/tcp@0.2.3", true),
            ("wasi:sockets/tcp", "wasi:sockets/tcp-create-socket@0.2.3", false),
            ("wasi:sockets/tcp*", "wasi:sockets/tcp-create-socket@0.2.3", true),
            ("wasi:sockets@0.2", "wasi:sockets/types@0.3.0", false),
            ("wasi:sockets@0.3", "wasi:sockets/types@0.3.0", true),
            ("wasi:http/types@0.2.1", "wasi:http/types@0.2.10", false),
            ("wasi:keyvalue@0.2.0", "wasi:keyvalue/store@0.2.0-draft", true),
            ("*", "anything", true),
            ("wasi_snapshot_preview1::sock_accept", "wasi_snapshot_preview1::sock_accept", true),
            ("wasi_snapshot_preview1", "wasi_snapshot_preview1::sock_accept", true),
        ];
        for (pattern, import, wanted) in cases {
            assert_eq!(matches(pattern, import), wanted, "{pattern} {import}");
        }
    }
}
