//! Which interfaces an image may import: what is granted, and what is refused.
//!
//! Preview 1 is one module that holds parts of several groups: its calls on sockets are those of `wasi:sockets`, its folders those of
//! `wasi:filesystem`. What is said of a group holds for them too.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use crate::{Image, StartError, host::CAPABILITIES, inspect::PREVIEW1};

/// What a container may use of the host, by the names of WASI interfaces.
///
/// What is granted still needs something to work with: a file system needs mounts, sockets a network, stores their
/// stores. An interface that is not granted is there and refuses, so that guests whose standard library imports more than they use
/// run; only what cannot be there without working (`wasi:cli`, `wasi:clocks`, `wasi:io`, `wasi:random`) keeps an image from starting.
/// A refused interface always does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// Granted groups, for example `wasi:http`. The default is all that this host has.
    pub granted: BTreeSet<String>,
    /// Refused, whatever is granted.
    pub refused: Vec<Refusal>,
}

/// What keeps an image from starting: a pattern, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A group (`wasi:http`), an interface (`wasi:http/types`), either with a version (`wasi:http@0.2`), a call of preview 1
    /// (`wasi_snapshot_preview1::sock_accept`), or a pattern with `*` at its end.
    pub pattern: String,
    /// Which setting says so: begins the sentence that the image's author reads.
    pub by: Arc<str>,
}

impl From<&str> for Refusal {
    fn from(pattern: &str) -> Self {
        Self { pattern: pattern.to_owned(), by: "its container".into() }
    }
}

/// A string that is no pattern of interfaces.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} {why}")]
pub struct BadInterface {
    /// What it says.
    pub pattern: String,
    /// What is wrong, and what to write.
    pub why: String,
}

impl Default for Grants {
    fn default() -> Self {
        Self { granted: Self::groups().map(str::to_owned).collect(), refused: Vec::new() }
    }
}

/// The default, once for all containers.
pub(crate) fn all() -> Arc<Grants> {
    static ALL: LazyLock<Arc<Grants>> = LazyLock::new(Arc::default);
    ALL.clone()
}

impl Grants {
    /// Every group that this host has.
    pub fn groups() -> impl Iterator<Item = &'static str> {
        CAPABILITIES.iter().map(|capability| capability.group)
    }

    /// The groups without which next to no guest starts: streams, clocks and random numbers. They lead nowhere.
    pub fn basic_groups() -> impl Iterator<Item = &'static str> {
        CAPABILITIES.iter().filter(|capability| !capability.can_be_empty).map(|capability| capability.group)
    }

    /// Reads the name of a group.
    ///
    /// # Errors
    /// When this host has no such group: a name that grants nothing is more likely wrong than meant.
    pub fn group(name: &str) -> Result<&'static str, BadInterface> {
        let bad = |why: String| BadInterface { pattern: name.to_owned(), why };
        if let Some(found) = Self::groups().find(|group| *group == name) {
            return Ok(found);
        }
        let whole = name.split(['/', '@']).next().unwrap_or_default();
        if Self::groups().any(|group| group == whole) {
            return Err(bad(format!("is a part of {whole}, which is granted whole: name that")));
        }
        let all: Vec<_> = Self::groups().filter(|group| Self::basic_groups().all(|basic| basic != *group)).collect();
        Err(bad(format!("is no group of interfaces of this host: name some of {}, or *", all.join(", "))))
    }

    /// Reads a pattern of what is to be refused.
    ///
    /// # Errors
    /// When nothing that this host offers is named by it: one that refuses nothing is more likely wrong than meant.
    pub fn pattern(text: &str) -> Result<String, BadInterface> {
        let bad = |why: &str| BadInterface { pattern: text.to_owned(), why: why.to_owned() };
        if text.strip_suffix('*').unwrap_or(text).contains('*') {
            return Err(bad("has a * that is not at its end"));
        }
        let of_components = CAPABILITIES.iter().flat_map(|capability| {
            let of_interface = move |(name, versions): &(&str, &'static [&'static str])| {
                let interface = format!("{}/{name}", capability.group);
                versions.iter().map(move |version| (interface.clone(), *version))
            };
            capability.interfaces.iter().flat_map(of_interface)
        });
        let of_modules = PREVIEW1_CALLS.iter().map(|call| (format!("{PREVIEW1}::{call}"), ""));
        if of_components.chain(of_modules).any(|(interface, version)| may_name(text, &interface, version)) {
            return Ok(text.to_owned());
        }
        Err(bad(
            "names no interface of this host: write a group (wasi:sockets), an interface (wasi:http/outgoing-handler), \
             either with a version (wasi:http@0.2), a call of preview 1 (wasi_snapshot_preview1::sock_accept), or the beginning \
             of one with a * after it",
        ))
    }

    /// Groups that are refused as a whole, each with who says so first.
    pub fn refused_groups(&self) -> impl Iterator<Item = (&'static str, &str)> {
        Self::groups().filter_map(move |group| {
            let refusal = self.refused.iter().find(|refusal| is_whole(&refusal.pattern, group))?;
            Some((group, &*refusal.by))
        })
    }

    /// Whether a group may be used: it is granted, and not refused as a whole.
    pub(crate) fn has(&self, group: &str) -> bool {
        self.granted.contains(group) && !self.refused.iter().any(|refusal| is_whole(&refusal.pattern, group))
    }

    /// Whether an image may start with these.
    pub(crate) fn check(&self, image: &Image) -> Result<(), StartError> {
        for import in image.imports() {
            if let Some(why) = self.refusal(import) {
                let (interface, image) = (import.clone(), image.digest().to_owned());
                return Err(StartError::Refused { interface, image, why });
            }
        }
        Ok(())
    }

    fn refusal(&self, import: &str) -> Option<String> {
        if let Some(Refusal { pattern, by }) = self.refused.iter().find(|refusal| matches(&refusal.pattern, import)) {
            return Some(format!("{by} refuses {pattern}"));
        }
        let capability = CAPABILITIES.iter().find(|capability| in_group(import, capability.group));
        let missing = capability.filter(|it| !it.can_be_empty && !self.has(it.group))?;
        Some(format!("{} is not granted", missing.group))
    }
}

/// Whether an import is of a group.
fn in_group(import: &str, group: &str) -> bool {
    import.strip_prefix(group).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a pattern names an import of a component or module.
fn matches(pattern: &str, import: &str) -> bool {
    let socket_call = import.strip_prefix(PREVIEW1).is_some_and(|rest| rest.starts_with("::sock_"));
    names(pattern, import) || socket_call && is_whole(pattern, "wasi:sockets")
}

/// Whether a pattern names all of a group.
fn is_whole(pattern: &str, group: &str) -> bool {
    pattern == group
        || pattern.strip_suffix('*').is_some_and(|start| group.starts_with(start) || start == format!("{group}/"))
}

/// Whether a pattern names some version of a series of an interface.
fn may_name(pattern: &str, interface: &str, series: &str) -> bool {
    let of_series = format!("{interface}@{series}");
    let import = if series.is_empty() { interface } else { &of_series };
    let (wanted, version) = pattern.split_once('@').unwrap_or((pattern, ""));
    let within = version.strip_prefix(series).is_some_and(|rest| rest.starts_with('.'));
    names(pattern, import) || !series.is_empty() && within && names(wanted, interface)
}

/// Whether a pattern names an import such as `wasi:http/types@0.2.0` or `wasi_snapshot_preview1::sock_accept`.
fn names(pattern: &str, import: &str) -> bool {
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

/// All of preview 1.
const PREVIEW1_CALLS: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

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
            ("wasi:sockets", "wasi_snapshot_preview1::sock_accept", true),
            ("wasi:sock*", "wasi_snapshot_preview1::sock_accept", true),
            ("wasi:sockets/tcp", "wasi_snapshot_preview1::sock_accept", false),
            ("wasi:http", "wasi_snapshot_preview1::sock_accept", false),
            ("wasi:sockets", "wasi_snapshot_preview1::fd_read", false),
        ];
        for (pattern, import, wanted) in cases {
            assert_eq!(matches(pattern, import), wanted, "{pattern} {import}");
        }
    }

    #[test]
    fn a_group_is_gone_when_it_is_refused_as_a_whole() {
        for (pattern, wanted) in [
            ("wasi:sockets", false),
            ("wasi:sockets/*", false),
            ("wasi:*", false),
            ("*", false),
            ("wasi:sockets@0.2", true),
            ("wasi:sockets/tcp", true),
            ("wasi:sockets/tcp*", true),
            ("wasi:http", true),
        ] {
            let grants = Grants { refused: vec![pattern.into()], ..Grants::default() };
            assert_eq!(grants.has("wasi:sockets"), wanted, "{pattern}");
        }
        assert!(!Grants { granted: BTreeSet::new(), refused: Vec::new() }.has("wasi:http"));
    }

    #[test]
    fn what_names_nothing_is_said() {
        for good in [
            "wasi:http",
            "wasi:http/types@0.2.1",
            "wasi:http@0.2",
            "wasi:http@0.2.6",
            "wasi:logging/logging",
            "wasi:keyvalue/store@0.2.0-draft",
            "wasi:*",
            "*",
            "wasi_snapshot_preview1::sock_accept",
            "wasi_snapshot_preview1::path_*",
        ] {
            assert_eq!(Grants::pattern(good).as_deref(), Ok(good));
        }
        for bad in
            ["", "wasi:sokets", "wasi:http/typo", "wasi:http@0.9", "wasi_snapshot_preview1::sock_acept", "wasi:sok*"]
        {
            assert!(Grants::pattern(bad).unwrap_err().to_string().contains("names no interface of this host"), "{bad}");
        }
        assert_eq!(
            Grants::pattern("wasi:*/types").unwrap_err().to_string(),
            "\"wasi:*/types\" has a * that is not at its end"
        );
        assert_eq!(Grants::group("wasi:http"), Ok("wasi:http"));
        for (bad, words) in [
            ("wasi:http/types", "\"wasi:http/types\" is a part of wasi:http, which is granted whole: name that"),
            ("wasi:sockets@0.2", "\"wasi:sockets@0.2\" is a part of wasi:sockets, which is granted whole: name that"),
            (
                "wasi:sokets",
                "is no group of interfaces of this host: name some of wasi:config, wasi:filesystem, wasi:http, ",
            ),
        ] {
            assert!(
                Grants::group(bad).unwrap_err().to_string().contains(words),
                "{bad}: {}",
                Grants::group(bad).unwrap_err()
            );
        }
    }

    #[test]
    fn why_an_import_is_refused() {
        let by = "annotation podium.dev/refused-interfaces of its namespace".into();
        let grants = Grants {
            granted: ["wasi:io".to_owned()].into(),
            refused: vec![Refusal { pattern: "wasi:http@0.2".to_owned(), by }],
        };
        for (import, wanted) in [
            (
                "wasi:http/types@0.2.3",
                Some("annotation podium.dev/refused-interfaces of its namespace refuses wasi:http@0.2"),
            ),
            ("wasi:http/types@0.3.0", None),
            ("wasi:cli/run@0.2.0", Some("wasi:cli is not granted")),
            ("wasi:io/poll@0.2.0", None),
            ("wasi:sockets/tcp@0.2.0", None),
        ] {
            assert_eq!(grants.refusal(import).as_deref(), wanted, "{import}");
        }
    }
}
