//! Which interfaces of the host a container may use: what its pod asks for, within what its namespace and the node allow. Pure.
//!
//! Invariants: who may edit a pod can only take away from what the namespace's annotations and the node's settings leave; a
//! setting that cannot be read grants nothing, it keeps the container from starting and says so. Hosts and ports outside the
//! cluster are granted elsewhere, in the same way: see `way_out`.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    sync::Arc,
};

use podium_sandbox::{BadInterface, Grants, Refusal};

/// Annotation of a pod: the groups of interfaces that its containers may use, separated by commas or white space.
pub(crate) const ALLOWED: &str = "podium.dev/allowed-interfaces";
/// Annotation of a namespace: the same for its pods that do not say.
pub(crate) const DEFAULT_ALLOWED: &str = "podium.dev/default-allowed-interfaces";
/// Annotation of a namespace: what its pods may use at most, whatever they say.
pub(crate) const MAX_ALLOWED: &str = "podium.dev/max-allowed-interfaces";
/// Annotation of a pod or a namespace: patterns of interfaces that no image may import.
pub(crate) const REFUSED: &str = "podium.dev/refused-interfaces";

/// Most names in one list.
const NAMES_MAX: usize = 256;

type Annotations<'a> = Option<&'a BTreeMap<String, String>>;

/// Groups of interfaces (`wasi:http, wasi:keyvalue`), or all of them (`*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceGroups {
    all: bool,
    named: BTreeSet<&'static str>,
}

/// Patterns of interfaces, as [`Refusal::pattern`] has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfacePatterns(Vec<String>);

/// What the node's operator says about all pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfacePolicy {
    /// What pods may use at most; `None`: all that the sandbox has.
    pub max_allowed: Option<InterfaceGroups>,
    /// What no image may import.
    pub refused: InterfacePatterns,
}

impl FromStr for InterfaceGroups {
    type Err = BadInterface;

    fn from_str(text: &str) -> Result<Self, BadInterface> {
        let mut groups = Self { all: false, named: BTreeSet::new() };
        for word in words(text)? {
            match word {
                "*" => groups.all = true,
                word => _ = groups.named.insert(Grants::group(word)?),
            }
        }
        Ok(groups)
    }
}

impl FromStr for InterfacePatterns {
    type Err = BadInterface;

    fn from_str(text: &str) -> Result<Self, BadInterface> {
        words(text)?.into_iter().map(Grants::pattern).collect::<Result<_, _>>().map(Self)
    }
}

impl InterfaceGroups {
    fn has(&self, group: &str) -> bool {
        self.all || self.named.contains(group)
    }
}

fn words(text: &str) -> Result<Vec<&str>, BadInterface> {
    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    let words: Vec<_> = words.collect();
    if words.len() > NAMES_MAX {
        let (pattern, why) = (format!("{} names", words.len()), format!("are too many: {NAMES_MAX} are the most"));
        return Err(BadInterface { pattern, why });
    }
    Ok(words)
}

/// What one container may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) grants: Arc<Grants>,
    /// Groups that are not granted, each with the setting that leaves it out.
    pub(crate) missing: BTreeMap<&'static str, String>,
}

/// What the containers of a pod may use. `namespace`: its name and its annotations.
///
/// # Errors
/// When an annotation cannot be read, or the pod asks for more than it can be given.
pub(crate) fn grants(
    pod: Annotations<'_>,
    (name, namespace): (&str, Annotations<'_>),
    node: &InterfacePolicy,
) -> Result<Granted, String> {
    let of_namespace = |annotation: &str| format!("annotation {annotation} of namespace {name}");
    let own: Option<InterfaceGroups> = read(pod, ALLOWED, format!("annotation {ALLOWED}"))?;
    let default: Option<InterfaceGroups> = read(namespace, DEFAULT_ALLOWED, of_namespace(DEFAULT_ALLOWED))?;
    let max: Option<InterfaceGroups> = read(namespace, MAX_ALLOWED, of_namespace(MAX_ALLOWED))?;
    let bounds = [
        (max.as_ref(), of_namespace(MAX_ALLOWED)),
        (node.max_allowed.as_ref(), "the node (--max-allowed-interfaces)".to_owned()),
    ];
    if let Some(own) = &own {
        asks_for_no_more(own, &bounds)?;
    }
    let asked = match (&own, &default) {
        (Some(_), _) => (own.as_ref(), format!("annotation {ALLOWED} of the pod")),
        (None, _) => (default.as_ref(), of_namespace(DEFAULT_ALLOWED)),
    };
    let lists: Vec<_> = std::iter::once(asked).chain(bounds).collect();
    let refused = refusals(pod, (name, namespace), node)?;
    Ok(granted(&lists, refused))
}

/// A group by name has to be there; `*` means whatever is.
fn asks_for_no_more(own: &InterfaceGroups, bounds: &[(Option<&InterfaceGroups>, String)]) -> Result<(), String> {
    for (bound, by) in bounds {
        let more = bound.and_then(|bound| own.named.iter().find(|group| !bound.has(group)));
        if let Some(group) = more.filter(|group| Grants::basic_groups().all(|basic| basic != **group)) {
            return Err(format!("annotation {ALLOWED}: {group} is not allowed by {by}: leave it out"));
        }
    }
    Ok(())
}

fn refusals(
    pod: Annotations<'_>,
    (name, namespace): (&str, Annotations<'_>),
    node: &InterfacePolicy,
) -> Result<Vec<Refusal>, String> {
    let of_pod = format!("annotation {REFUSED}");
    let of_namespace = format!("annotation {REFUSED} of namespace {name}");
    let own: Option<InterfacePatterns> = read(pod, REFUSED, of_pod.clone())?;
    let its: Option<InterfacePatterns> = read(namespace, REFUSED, of_namespace.clone())?;
    let all = [
        (of_pod, own.unwrap_or_default()),
        (of_namespace, its.unwrap_or_default()),
        ("the node (--refused-interfaces)".to_owned(), node.refused.clone()),
    ];
    let all = all.into_iter().flat_map(|(by, InterfacePatterns(patterns))| {
        let by: Arc<str> = by.into();
        patterns.into_iter().map(move |pattern| Refusal { pattern, by: by.clone() })
    });
    Ok(all.collect())
}

/// What every list has, and what each guest needs.
fn granted(lists: &[(Option<&InterfaceGroups>, String)], refused: Vec<Refusal>) -> Granted {
    let mut grants = Grants { granted: BTreeSet::new(), refused };
    let mut missing = BTreeMap::new();
    for group in Grants::groups() {
        let left_out = lists.iter().find(|(list, _)| list.is_some_and(|list| !list.has(group)));
        match left_out.filter(|_| Grants::basic_groups().all(|basic| basic != group)) {
            None => _ = grants.granted.insert(group.to_owned()),
            Some((_, by)) => _ = missing.insert(group, format!("{by} leaves it out")),
        }
    }
    // A module of preview 1 has no import to be refused by, for some groups.
    for group in grants.refused_groups() {
        missing.insert(group.0, format!("{} refuses it", group.1));
    }
    Granted { grants: Arc::new(grants), missing }
}

fn read<T: FromStr<Err = BadInterface>>(
    annotations: Annotations<'_>,
    name: &str,
    what: String,
) -> Result<Option<T>, String> {
    let Some(text) = annotations.and_then(|all| all.get(name)) else { return Ok(None) };
    text.parse().map(Some).map_err(|error| format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(name, text)| (format!("podium.dev/{name}"), (*text).to_owned())).collect()
    }

    fn decide(pod: &[(&str, &str)], namespace: &[(&str, &str)], node: &InterfacePolicy) -> Result<Granted, String> {
        grants(Some(&annotations(pod)), ("demo", Some(&annotations(namespace))), node)
    }

    /// Which of the groups that can be left out are granted, or why nothing is.
    fn told(pod: &[(&str, &str)], namespace: &[(&str, &str)], max: Option<&str>) -> String {
        let node = InterfacePolicy { max_allowed: max.map(|text| text.parse().unwrap()), ..InterfacePolicy::default() };
        match decide(pod, namespace, &node) {
            Ok(found) => {
                assert!(Grants::basic_groups().all(|group| found.grants.granted.contains(group)), "always there");
                let left = Grants::groups().filter(|group| !found.grants.granted.contains(*group));
                assert_eq!(left.collect::<BTreeSet<_>>(), found.missing.keys().copied().collect());
                let others = |group: &&String| Grants::basic_groups().all(|basic| basic != **group);
                let names = found.grants.granted.iter().filter(others).map(|group| group.replace("wasi:", ""));
                names.collect::<Vec<_>>().join(" ")
            }
            Err(why) => why,
        }
    }

    const ALL: &str = "config filesystem http keyvalue logging sockets tls";

    #[test]
    fn a_pod_takes_away_and_never_adds() {
        let (pod, default, max) = ("allowed-interfaces", "default-allowed-interfaces", "max-allowed-interfaces");
        for (own, namespace, node, wanted) in [
            (&[][..], &[][..], None, ALL),
            (&[(pod, "wasi:http")], &[], None, "http"),
            (&[(pod, " wasi:http,wasi:tls\nwasi:io ")], &[], None, "http tls"),
            (&[(pod, "")], &[], None, ""),
            (&[(pod, "*")], &[], None, ALL),
            (&[], &[(default, "wasi:http wasi:config")], None, "config http"),
            (&[(pod, "*")], &[(default, "wasi:http")], None, ALL),
            (&[(pod, "wasi:tls")], &[(default, "wasi:http")], None, "tls"),
            (&[], &[(max, "wasi:http wasi:config")], None, "config http"),
            (&[(pod, "*")], &[(max, "wasi:http")], None, "http"),
            (&[(pod, "wasi:http wasi:cli")], &[(max, "wasi:http")], None, "http"),
            (&[], &[(max, "")], None, ""),
            (&[], &[(default, "wasi:tls wasi:http"), (max, "wasi:http wasi:config")], None, "http"),
            (&[], &[], Some("wasi:http wasi:sockets"), "http sockets"),
            (&[], &[(max, "wasi:http wasi:tls")], Some("wasi:http wasi:sockets"), "http"),
            (&[(pod, "*")], &[(max, "*")], Some("wasi:http"), "http"),
        ] {
            assert_eq!(told(own, namespace, node), wanted, "{own:?} {namespace:?} {node:?}");
        }
    }

    #[test]
    fn what_cannot_be_or_cannot_be_read_grants_nothing_and_is_said() {
        let (pod, max) = ("allowed-interfaces", "max-allowed-interfaces");
        for (own, namespace, node, wanted) in [
            (
                &[(pod, "wasi:sockets")][..],
                &[(max, "wasi:http")][..],
                None,
                "annotation podium.dev/allowed-interfaces: wasi:sockets is not allowed by annotation \
                 podium.dev/max-allowed-interfaces of namespace demo: leave it out",
            ),
            (
                &[(pod, "* wasi:sockets")],
                &[],
                Some("wasi:http"),
                "annotation podium.dev/allowed-interfaces: wasi:sockets is not allowed by the node (--max-allowed-interfaces): \
                 leave it out",
            ),
            (
                &[(pod, "wasi:http/types")],
                &[],
                None,
                "annotation podium.dev/allowed-interfaces: \"wasi:http/types\" is a part of wasi:http, which is granted whole: \
                 name that",
            ),
            (
                &[],
                &[("default-allowed-interfaces", "http")],
                None,
                "annotation podium.dev/default-allowed-interfaces of namespace demo: \"http\" is no group of interfaces of this \
                 host: name some of wasi:config, wasi:filesystem, wasi:http, wasi:keyvalue, wasi:logging, wasi:tls, wasi:sockets, \
                 or *",
            ),
        ] {
            assert_eq!(told(own, namespace, node), wanted, "{own:?} {namespace:?}");
        }
        let long = "wasi:http ".repeat(NAMES_MAX + 1);
        for (own, namespace, wanted) in [
            (&[(pod, &*long)][..], &[][..], "annotation podium.dev/allowed-interfaces: \"257 names\" are too many"),
            (
                &[],
                &[(max, "wasi:nothing")],
                "annotation podium.dev/max-allowed-interfaces of namespace demo: \"wasi:nothing\"",
            ),
            (&[("refused-interfaces", "x")], &[], "annotation podium.dev/refused-interfaces: \"x\" names no interface"),
            (
                &[],
                &[("refused-interfaces", "wasi:*x")],
                "annotation podium.dev/refused-interfaces of namespace demo: \"wasi:*x\" has a * that is not at its end",
            ),
        ] {
            let why = told(own, namespace, None);
            assert!(why.starts_with(wanted), "{why}");
        }
    }

    #[test]
    fn what_anybody_refuses_is_refused() {
        let node = InterfacePolicy { refused: "wasi:tls".parse().unwrap(), ..InterfacePolicy::default() };
        let refused = [("refused-interfaces", "wasi:http@0.2 wasi_snapshot_preview1::sock_*")];
        let found = decide(&refused, &[("refused-interfaces", "wasi:sockets")], &node).unwrap();
        let told: Vec<_> = found.grants.refused.iter().map(|it| format!("{} {}", it.pattern, it.by)).collect();
        assert_eq!(
            told,
            [
                "wasi:http@0.2 annotation podium.dev/refused-interfaces",
                "wasi_snapshot_preview1::sock_* annotation podium.dev/refused-interfaces",
                "wasi:sockets annotation podium.dev/refused-interfaces of namespace demo",
                "wasi:tls the node (--refused-interfaces)",
            ]
        );
        let missing: Vec<_> = found.missing.into_iter().collect();
        assert_eq!(
            missing,
            [
                ("wasi:sockets", "annotation podium.dev/refused-interfaces of namespace demo refuses it".to_owned()),
                ("wasi:tls", "the node (--refused-interfaces) refuses it".to_owned()),
            ]
        );
    }
}
