//! What the agent would make of a pod, without a node: everything between a manifest and the sandbox's configuration that is
//! pure. For fuzzing: any pod at all goes through, and what must hold of any is checked.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::{
    InterfacePolicy,
    decide::{
        decide,
        env::{self, Sources, Surroundings},
        grants,
        local::{Local, Slot},
        resources::{self, NodeResources},
        security,
        status::Facts,
    },
    images::ImageConfig,
    volumes::files_of,
};

/// Decisions in a row about one pod.
const LOOKS: usize = 3;

/// Takes a pod through admission, settings, limits, volumes and decisions.
///
/// # Panics
/// When something does not hold that must hold for any pod.
pub fn dry_run(pod: &Pod) {
    let node = NodeResources {
        cpu_millicores: 2000,
        memory_bytes: 1 << 30,
        ephemeral_bytes: 1 << 30,
        memory_default_bytes: 128 << 20,
    };
    let Some(spec) = &pod.spec else { return };
    let sources = Sources::default();
    let ip = [10, 244, 0, 2].into();
    let around = Surroundings { pod, pod_ip: ip, host_ip: ip, node, sources: &sources, services: &[] };
    let _ = (security::ignored(pod), resources::qos_class(spec));
    interfaces(pod.metadata.annotations.as_ref());
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let _ = security::refusal(pod, container);
        let limits = resources::limits(container, pod.metadata.annotations.as_ref(), &node);
        assert!(limits.memory_bytes_max > 0, "a container without memory");
        assert!(limits.cpu.weight_millicores >= 2, "a container without weight");
        assert_ne!(limits.cpu.quota_millicores, Some(0), "a container that may never run");
        assert!(limits.concurrency_max > 0, "a container that takes no request");
        let image = ImageConfig { entrypoint: vec!["a.wasm".to_owned()], ..ImageConfig::default() };
        if let Ok(variables) = env::environment(container, &around) {
            assert!(!env::argv(container, &variables, &image).is_empty(), "no argv");
            let names: Vec<_> = variables.into_list(&image).into_iter().map(|(name, _)| name).collect();
            let distinct: std::collections::BTreeSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len(), "a variable is there twice");
        }
    }
    for volume in spec.volumes.iter().flatten() {
        let _ = files_of(volume, &around);
    }
    decisions(pod, Facts { host_ip: ip });
}

/// Whatever a pod says, it gets no more than it would get by asking for all.
fn interfaces(annotations: Option<&BTreeMap<String, String>>) {
    let granted = |pod| grants::grants(pod, ("namespace", annotations), &InterfacePolicy::default());
    let all = BTreeMap::from([(grants::ALLOWED.to_owned(), "*".to_owned())]);
    if let (Ok(found), Ok(most)) = (granted(annotations), granted(Some(&all))) {
        assert!(found.grants.granted.is_subset(&most.grants.granted), "a pod has widened what it may use");
    }
}

/// The same input makes the same decision, at any time.
fn decisions(pod: &Pod, facts: Facts) {
    let mut now = Timestamp::UNIX_EPOCH;
    let mut local = Local::adopt(pod, now);
    local.ip = Some(facts.host_ip);
    let prior = pod.status.clone().unwrap_or_default();
    for _ in 0..LOOKS {
        let decision = decide(pod, &local, &prior, &facts, now);
        assert_eq!(decision, decide(pod, &local, &prior, &facts, now), "decisions differ");
        let slots: Vec<Slot> = local.containers().map(|(slot, _)| slot).collect();
        for slot in slots {
            if let Some(container) = local.container(slot) {
                container.starting(now);
            }
        }
        now = now.checked_add(SignedDuration::from_hours(1)).unwrap_or(now);
    }
}
