//! The half of the agent that acts: one task owns what runs here for every pod (`pods`), everything that takes time (pulling,
//! starting, probing, draining, writing status) runs beside it and reports back by message.
//!
//! Invariants: only the owner changes local state, so there is no lock on it; an idle pod has no timer and no task but the
//! one that waits for its container's end; a report about a run or a pod that is gone is ignored.

pub(crate) mod admit;
pub(crate) mod balancer;
pub(crate) mod bound_pods;
pub(crate) mod command;
pub(crate) mod core_dumps;
pub(crate) mod deadline;
pub(crate) mod egress_policy;
pub(crate) mod ends;
pub(crate) mod entry;
pub(crate) mod evict;
pub(crate) mod exec;
pub(crate) mod grpc;
pub(crate) mod guest;
pub(crate) mod hooks;
pub(crate) mod http;
pub(crate) mod images;
pub(crate) mod ingress;
pub(crate) mod logs;
pub(crate) mod meter;
pub(crate) mod meter_series;
pub(crate) mod metrics;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod pods;
pub(crate) mod policies;
pub(crate) mod pressure;
pub(crate) mod probes;
pub(crate) mod runs;
pub(crate) mod start;
pub(crate) mod static_pods;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod termination;
pub(crate) mod timers;
pub(crate) mod traffic;
pub(crate) mod translate;
pub(crate) mod traps;
pub(crate) mod way_out;

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use podium_api::ObjectKey;
use podium_client::{ApiRef, ClockRef, Delta, Mirror, Note, Recorder};
use podium_network::Network;
use podium_sandbox::{Ending, Sandbox};
use tokio::sync::{mpsc, oneshot};

use self::{
    guest::Runtime, images::Images, logs::LogIndex, meter::Meter, metrics::Metrics, pressure::NodeState,
    start::StartFailure, stop::Stopped,
};
use crate::{
    AgentConfig,
    decide::{
        eviction::{Eviction, PodUse},
        local::{Run, Slot},
        probe::{Outcome, ProbeKind},
        resources::NodeResources,
        static_pod,
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
    pub(crate) meter: Arc<Meter>,
    pub(crate) pods: Arc<dyn Mirror>,
    pub(crate) services: Arc<dyn Mirror>,
    pub(crate) namespaces: Arc<dyn Mirror>,
    pub(crate) node: NodeResources,
    pub(crate) metrics: Metrics,
    /// Labels, taints and shortages of the node.
    pub(crate) state: NodeState,
    pub(crate) reports: mpsc::UnboundedSender<Report>,
}

/// A pod, beyond its name being used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PodId {
    pub(crate) key: ObjectKey,
    pub(crate) uid: Arc<str>,
}

/// A container that runs.
pub(crate) struct Started {
    pub(crate) run: Run,
    pub(crate) runtime: Box<Runtime>,
    /// Whether its `postStart` failed: it is to be ended.
    pub(crate) hook_failed: bool,
}

/// What the owner of the pods is told. Bounded by the pods: each pod, container and probe has at most one under way.
pub(crate) enum Report {
    /// The API changed.
    Pod(Delta),
    /// A start is over.
    Started { pod: PodId, slot: Slot, outcome: Result<Started, StartFailure> },
    /// A container has ended by itself or because it is to be started again.
    Ended { pod: PodId, slot: Slot, run: Arc<str>, ending: Ending, message: Option<String> },
    /// A probe was made.
    Probed { pod: PodId, slot: Slot, kind: ProbeKind, run: Arc<str>, outcome: Outcome },
    /// All containers of a pod have been ended.
    Stopped { pod: PodId, endings: Vec<Stopped> },
    /// The pods that files describe now; all of them.
    Static(Vec<Arc<Pod>>),
    /// A pod has to leave the node.
    Evict(Eviction<PodId>),
    /// Answers with what every pod uses.
    Uses(oneshot::Sender<Vec<PodUse<PodId>>>),
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
        let regarding = regarding(pod, slot);
        self.recorder.note(Note { regarding, warning, reason: reason.to_owned(), message: message.into() });
    }
}

/// What an event about a pod or one of its containers names.
fn regarding(pod: &Pod, slot: Option<Slot>) -> ObjectReference {
    let meta = &pod.metadata;
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: slot.and_then(|slot| Some(slot.field_path(&slot.spec(pod)?.name))),
    }
}

/// What identifies a pod. A mirror is the static pod that it shows.
pub(crate) fn id_of(pod: &Pod) -> PodId {
    let uid = static_pod::mirrored(pod).or(pod.metadata.uid.as_deref());
    PodId { key: ObjectKey::of(&pod.metadata), uid: uid.unwrap_or_default().into() }
}
