//! A pod goes where its claims' volumes can be reached, or made.
//!
//! # Source
//! Kubernetes `plugins/volumebinding/volume_binding.go`, `binder.go`.

use podium_api::ObjectKey;

use crate::{
    Changes, Filter, NodeInfo, PodInfo, Prepared, PreparedFilter, Snapshot, Verdict, filters::selector_matches,
    subject::Subject,
};

/// Looks at claims and volumes.
pub struct VolumeBinding;

struct Claims {
    /// Volumes that are bound.
    bound: Vec<String>,
    /// Claims that are bound when the pod has its node.
    unbound: Vec<ObjectKey>,
}

impl Filter for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::VOLUMES | Changes::NODE_ADDED | Changes::NODE_LABELS
    }

    fn prepare<'p>(&self, subject: &Subject<'p>, snapshot: &Snapshot) -> Prepared<'p> {
        if subject.pod.claims.is_empty() {
            return Prepared::Skip;
        }
        match claims_of(subject.pod, snapshot) {
            Ok(claims) => Prepared::Check(Box::new(claims)),
            Err(reason) => Prepared::Refuse { reason, preemption_helps: false },
        }
    }
}

/// The claims of a pod that are bound when it has its node.
pub(crate) fn unbound_claims(pod: &PodInfo, snapshot: &Snapshot) -> Vec<ObjectKey> {
    claims_of(pod, snapshot).map(|claims| claims.unbound).unwrap_or_default()
}

/// # Errors
/// Why the pod cannot go anywhere yet.
fn claims_of(pod: &PodInfo, snapshot: &Snapshot) -> Result<Claims, String> {
    let mut claims = Claims { bound: Vec::new(), unbound: Vec::new() };
    for used in &pod.claims {
        let key = ObjectKey::new(&*pod.key.namespace, &*used.name);
        let name = &used.name;
        let Some(claim) = snapshot.volumes.claim(&key) else {
            return Err(if used.ephemeral {
                format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
            } else {
                format!("persistentvolumeclaim {name:?} not found")
            });
        };
        if claim.lost {
            let volume = &claim.volume;
            return Err(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"));
        }
        if claim.deleting {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        if used.ephemeral && claim.owner != pod.uid {
            let (namespace, pod) = (&pod.key.namespace, &pod.key.name);
            return Err(format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"));
        }
        if claim.bound && !claim.volume.is_empty() {
            claims.bound.push(claim.volume.clone());
        } else if snapshot.volumes.waits(claim) && claim.volume.is_empty() {
            claims.unbound.push(key);
        } else {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
    }
    Ok(claims)
}

impl PreparedFilter for Claims {
    fn check(&self, snapshot: &Snapshot, _slot: u32, node: &NodeInfo) -> Verdict {
        for name in &self.bound {
            let Some(volume) = snapshot.volumes.volume(name) else {
                return Verdict::never("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)");
            };
            if volume.affinity.as_ref().is_some_and(|affinity| !selector_matches(affinity, node)) {
                return Verdict::never("node(s) had volume node affinity conflict");
            }
        }
        if !self.unbound.is_empty() && snapshot.volumes.plan(&self.unbound, node).is_none() {
            return Verdict::never("node(s) didn't find available persistent volumes to bind");
        }
        Verdict::Fits
    }
}
