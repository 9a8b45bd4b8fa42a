//! The owner's part about room: pods that are taken, what they take up, and what they are resized to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use podium_api::ObjectKey;

use super::{Shared, entry::Entry, pods::Pods};
use crate::decide::{
    admission::{self, Host, HostPort},
    amounts::{self, Amounts},
    local::{Admission, Slot},
    resize, resources, security,
};

impl Pods {
    /// Sees whether the node takes a pod. One that ran here before stays, whatever has changed since.
    pub(super) fn admit(&mut self, key: &ObjectKey) -> bool {
        let shared = self.shared.clone();
        let taken = self.ports_taken(key);
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let requests = amounts::requests_of(&entry.pod);
        let known = entry.pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
        let (used, pods) = self.held;
        let node = shared.state.node();
        let none = (BTreeMap::new(), Vec::new());
        let pressure = shared.state.pressure();
        let host = Host {
            name: &shared.config.node_name,
            labels: node.as_ref().and_then(|n| n.metadata.labels.as_ref()).unwrap_or(&none.0),
            taints: node.as_ref().and_then(|n| n.spec.as_ref()?.taints.as_deref()).unwrap_or(&none.1),
            allocatable: shared.allocatable(),
            pods_max: shared.config.pods_max,
            used,
            pods,
            ports: &taken,
            memory_pressure: pressure.memory,
            disk_pressure: pressure.disk,
        };
        let outcome = if known { Ok(()) } else { admission::admit(&entry.pod, requests, &host) };
        match outcome {
            Ok(()) => {
                entry.local.taken(&entry.pod);
                entry.holds = Some(requests);
                self.held = (used.plus(requests), pods + 1);
                let ignored = if known { Vec::new() } else { security::ignored(&entry.pod) };
                if !ignored.is_empty() {
                    let words = format!("Fields that mean nothing to WebAssembly are ignored: {}", ignored.join(", "));
                    shared.note(&entry.pod, None, true, "FieldsIgnored", words);
                }
            }
            Err(rejection) => {
                shared.note(&entry.pod, None, true, rejection.reason, rejection.message.clone());
                entry.local.admission = Admission::Refused(Box::new(rejection));
            }
        }
        true
    }

    /// The ports of the node that others have, if this pod asks for any.
    fn ports_taken(&self, key: &ObjectKey) -> Vec<HostPort> {
        let asks = self.entries.get(key).is_some_and(|entry| !admission::host_ports(&entry.pod).is_empty());
        let others = self.entries.iter().filter(|(other, entry)| asks && *other != key && entry.holds.is_some());
        others.flat_map(|(_, entry)| admission::host_ports(&entry.pod)).collect()
    }

    /// A pod takes up nothing any more: others may be resized now.
    pub(super) fn give_back(&mut self, key: &ObjectKey) {
        let Some(held) = self.entries.get_mut(key).and_then(|entry| entry.holds.take()) else { return };
        self.held = (self.held.0.minus(held), self.held.1.saturating_sub(1));
        for waiting in std::mem::take(&mut self.deferred) {
            if let Some(entry) = self.entries.get_mut(&waiting) {
                entry.local.unresized = None;
                self.dirty.insert(waiting);
            }
        }
    }

    /// Gives containers what the spec says by now, if there is room; running ones at once, where they may have it so.
    pub(super) fn resize(&mut self, key: &ObjectKey) -> bool {
        let shared = self.shared.clone();
        let (used, now) = (self.held.0, shared.clock.now());
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let pod = entry.pod.clone();
        let wanted = amounts::requests_of(&pod);
        let had = entry.holds.unwrap_or_default();
        let fits = resize::fits(&pod, wanted, used.minus(had), shared.allocatable());
        let shrunk = fits.and_then(|()| {
            let over = entry.runtimes.iter().find_map(|(slot, runtime)| {
                let spec = slot.spec(&pod)?;
                let limit = amounts::read(spec.resources.as_ref()?.limits.as_ref(), "memory")?.bytes();
                let used = runtime.guest.usage().memory_bytes;
                (used > limit).then(|| resize::below_usage(&pod, &spec.name, limit, used, now))
            });
            over.map_or(Ok(()), Err)
        });
        if let Err(unresized) = shrunk {
            if unresized.reason == "Deferred" {
                self.deferred.insert(key.clone());
            }
            entry.local.unresized = Some(Box::new(unresized));
            return true;
        }
        entry.holds = Some(wanted);
        self.held.0 = used.minus(had).plus(wanted);
        for (slot, words) in apply(entry, &pod, &shared) {
            self.restart(key, slot, None, &words);
        }
        true
    }
}

/// Gives containers what the spec says; answers with those that have to be started anew for it, and the words for that.
fn apply(entry: &mut Entry, pod: &Pod, shared: &Shared) -> Vec<(Slot, String)> {
    let anew = entry.local.lasting().filter_map(|(slot, c)| {
        let spec = slot.spec(pod)?;
        resize::restarts(&spec, c).then(|| (slot, format!("Container {} resize requires restart", spec.name)))
    });
    let anew = anew.collect();
    entry.local.allocate(pod);
    if let (Some(group), Some(spec)) = (&entry.group, &pod.spec) {
        group.resize(resources::group_limits(spec, &amounts::of_spec, &shared.node));
    }
    for (slot, runtime) in entry.runtimes.iter().filter(|(slot, _)| !slot.is_ephemeral()) {
        if let Some(spec) = slot.spec(pod) {
            let limits = resources::limits(&spec, None, &shared.node);
            runtime.guest.resize(limits.memory_bytes_max, limits.cpu);
        }
    }
    anew
}

impl Shared {
    /// What pods may request together.
    pub(crate) fn allocatable(&self) -> Amounts {
        Amounts {
            cpu_millicores: self.node.cpu_millicores,
            memory_bytes: self.node.memory_bytes,
            ephemeral_bytes: self.node.ephemeral_bytes,
        }
    }
}
