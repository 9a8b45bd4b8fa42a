//! The half of the agent that acts: one task owns what runs here for every pod (`pods`), everything that takes time (pulling,
//! starting, probing, draining, writing status) runs beside it and reports back by message.
//!
//! Invariants: only the owner changes local state, so there is no lock on it; an idle pod has no timer and no task but the
//! one that waits for its container's end; a report about a run or a pod that is gone is ignored.

pub(crate) mod guest;
pub(crate) mod images;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod node;
pub(crate) mod pods;
pub(crate) mod probes;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod timers;
pub(crate) mod translate;
pub(crate) mod way_out;

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use podium_api::ObjectKey;
use podium_client::{ApiRef, ClockRef, Delta, Mirror, Note, Recorder};
use podium_network::Network;
use podium_sandbox::{Ending, Sandbox};
use tokio::sync::{mpsc, oneshot};

use self::{guest::Runtime, images::Images, logs::LogIndex, metrics::Metrics, start::StartFailure};
use crate::{
    AgentConfig,
    decide::{
        local::{Run, Slot},
        probe::ProbeKind,
        resources::NodeResources,
    },
    logs::writer::LogWriter,
    volumes::Volumes,
};

/// What all parts of the driver share.
pub(crate) struct Shared {
    pub(crate) config: AgentConfig,
    pub(crate) api: ApiRef,
    pub(crate) sandbox: Sandbox,
    pub(crate) network: Network,
    pub(crate) clock: ClockRef,
    pub(crate) recorder: Recorder,
    pub(crate) images: Images,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) log_writer: LogWriter,
    pub(crate) log_index: LogIndex,
    pub(crate) pods: Arc<dyn Mirror>,
    pub(crate) services: Arc<dyn Mirror>,
    pub(crate) node: NodeResources,
    pub(crate) metrics: Metrics,
    pub(crate) reports: mpsc::UnboundedSender<Report>,
}

/// A pod, beyond its name being used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PodId {
    pub(crate) key: ObjectKey,
    pub(crate) uid: Arc<str>,
}

/// What the owner of the pods is told. Bounded by the pods: each pod, container and probe has at most one under way.
pub(crate) enum Report {
    /// The API changed.
    Pod(Delta),
    /// A start is over.
    Started { pod: PodId, slot: Slot, outcome: Result<(Run, Box<Runtime>), StartFailure> },
    /// A container has ended by itself or after a failed probe.
    Ended { pod: PodId, slot: Slot, run: Arc<str>, ending: Ending },
    /// A probe was made.
    Probed { pod: PodId, slot: Slot, kind: ProbeKind, run: Arc<str>, outcome: Result<(), String> },
    /// All containers of a pod have been ended.
    Stopped { pod: PodId, endings: Vec<(Slot, Ending)> },
    /// The agent ends: let requests finish, then end everything.
    Shutdown(oneshot::Sender<()>),
}

impl Shared {
    /// Tells the owner; after its end nobody listens, and nobody needs to.
    pub(crate) fn report(&self, report: Report) {
        let _ = self.reports.send(report);
    }

    /// The node's address.
    pub(crate) fn host_ip(&self) -> IpAddr {
        self.config.node_ip
    }

    /// Records an event about a pod or one of its containers.
    pub(crate) fn note(&self, pod: &Pod, slot: Option<Slot>, warning: bool, reason: &str, message: impl Into<String>) {
        let meta = &pod.metadata;
        let path = slot.and_then(|slot| Some(slot.field_path(&slot.spec(pod)?.name)));
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: path,
        };
        self.recorder.note(Note { regarding, warning, reason: reason.to_owned(), message: message.into() });
    }
}

/// What identifies a pod.
pub(crate) fn id_of(pod: &Pod) -> PodId {
    PodId { key: ObjectKey::of(&pod.metadata), uid: pod.metadata.uid.as_deref().unwrap_or_default().into() }
}
