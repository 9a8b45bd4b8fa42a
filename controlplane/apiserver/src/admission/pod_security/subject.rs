//! [`Subject`]: a pod as checks see it, its containers of all three sorts alike; and how they tell what is wrong.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ContainerPort, Lifecycle, PodSecurityContext, PodSpec, Probe, SecurityContext, Volume,
};

/// What is wrong with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: String,
    /// What it is of this pod, or empty.
    pub(super) detail: String,
}

impl Violation {
    pub(super) fn new(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: detail.into() }
    }
}

/// A container of any sort.
pub(super) struct View<'a> {
    pub(super) name: &'a str,
    pub(super) security: Option<&'a SecurityContext>,
    pub(super) ports: &'a [ContainerPort],
    pub(super) probes: [Option<&'a Probe>; 3],
    pub(super) lifecycle: Option<&'a Lifecycle>,
}

macro_rules! view {
    ($container:expr) => {
        View {
            name: &$container.name,
            security: $container.security_context.as_ref(),
            ports: $container.ports.as_deref().unwrap_or_default(),
            probes: [&$container.liveness_probe, &$container.readiness_probe, &$container.startup_probe]
                .map(Option::as_ref),
            lifecycle: $container.lifecycle.as_ref(),
        }
    };
}

/// A pod, or the template of one.
pub(super) struct Subject<'a> {
    pub(super) annotations: Option<&'a BTreeMap<String, String>>,
    pub(super) spec: &'a PodSpec,
    /// First those that begin, then the main ones, then those that were added.
    pub(super) containers: Vec<View<'a>>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(annotations: Option<&'a BTreeMap<String, String>>, spec: &'a PodSpec) -> Self {
        let init = spec.init_containers.iter().flatten().map(|c| view!(c));
        let main = spec.containers.iter().map(|c| view!(c));
        let late = spec.ephemeral_containers.iter().flatten().map(|c| view!(c));
        Self { annotations, spec, containers: init.chain(main).chain(late).collect() }
    }

    pub(super) fn security(&self) -> Option<&'a PodSecurityContext> {
        self.spec.security_context.as_ref()
    }

    pub(super) fn volumes(&self) -> impl Iterator<Item = &'a Volume> {
        self.spec.volumes.iter().flatten()
    }

    /// Whether root in it is nobody on the node.
    pub(super) fn has_own_users(&self) -> bool {
        self.spec.host_users == Some(false)
    }

    pub(super) fn is_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    /// The names of the containers of which something holds.
    pub(super) fn named(&self, mut holds: impl FnMut(&View<'a>) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|c| holds(c)).map(|c| c.name).collect()
    }
}

/// `one` or `several`, by how many there are.
pub(super) fn counted<'t>(one: &'t str, several: &'t str, count: usize) -> &'t str {
    if count == 1 { one } else { several }
}

/// `"a", "b"`
pub(super) fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|n| format!("\"{}\"", n.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"`, `containers "a", "b"`
pub(super) fn containers(names: &[&str]) -> String {
    format!("{} {}", counted("container", "containers", names.len()), quoted(names))
}

/// Who sets something: `pod and containers "a", "b"`; nothing when nobody does.
pub(super) fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let of_containers = (!names.is_empty()).then(|| containers(names));
    match (pod, of_containers) {
        (false, None) => None,
        (true, None) => Some("pod".to_owned()),
        (false, Some(names)) => Some(names),
        (true, Some(names)) => Some(format!("pod and {names}")),
    }
}

/// Values, each once, in order.
pub(super) type Values<'a> = BTreeSet<&'a str>;
