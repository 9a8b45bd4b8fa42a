//! What the owner keeps of one pod.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use podium_sandbox::Group;
use tokio::sync::watch;

use super::{PodId, Shared, deadline::Deadline, guest::Runtime};
use crate::decide::{
    self,
    amounts::{self, Amounts},
    local::{Container, Local, Slot, State, Stopping},
    resources,
};

/// One pod.
pub(crate) struct Entry {
    pub(crate) id: PodId,
    pub(crate) pod: Arc<Pod>,
    pub(crate) local: Local,
    /// What its status should say, as decided last.
    pub(crate) desired: Arc<PodStatus>,
    pub(crate) runtimes: Vec<(Slot, Runtime)>,
    /// The accounts that its containers share; made with the first of them.
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) wake_at: Option<Timestamp>,
    /// Whether its address is still reserved for it.
    pub(crate) ip_held: bool,
    /// What of the node it takes up, by its requests.
    pub(crate) holds: Option<Amounts>,
    /// Until when its containers, which are being ended beside the owner, may go on.
    pub(crate) stop: Option<Deadline>,
    /// The same for those that are ended to be started again.
    pub(crate) restarts: Vec<Deadline>,
    /// Dropped when starts under way are not wanted any more.
    pub(crate) wanted: watch::Sender<()>,
    pub(crate) deleted: bool,
}

impl Entry {
    pub(crate) fn new(id: PodId, pod: Arc<Pod>, now: Timestamp) -> Self {
        let local = Local::adopt(&pod, now);
        Self {
            desired: Arc::new(pod.status.clone().unwrap_or_default()),
            runtimes: Vec::new(),
            group: None,
            wake_at: None,
            ip_held: local.ip.is_some() && !decide::is_final(&pod),
            holds: None,
            stop: None,
            restarts: Vec::new(),
            wanted: watch::Sender::new(()),
            deleted: false,
            id,
            pod,
            local,
        }
    }

    /// All of it has ended when nothing is being ended any more. Starts under way are thrown away when they report.
    pub(crate) fn stopped_if_quiet(&mut self) {
        let runs = |state: &State| matches!(state, State::Running { .. } | State::Killing { .. });
        let quiet = self.stop.is_none() && !self.local.containers().any(|(_, c)| runs(&c.state));
        if self.local.stopping == Stopping::Running && quiet {
            give_up_starts(&mut self.local);
            self.local.stopping = Stopping::Done;
        }
    }

    /// The accounts that its containers share.
    pub(crate) fn group(&mut self, shared: &Shared) -> Arc<Group> {
        let make = || {
            let spec = self.pod.spec.clone().unwrap_or_default();
            shared.sandbox.group(resources::group_limits(&spec, &amounts::of_spec, &shared.node))
        };
        self.group.get_or_insert_with(make).clone()
    }

    /// The container and the runtime in a slot, if both are there.
    pub(crate) fn container_mut(&mut self, slot: Slot) -> Option<&mut Container> {
        self.local.container(slot)
    }

    /// Takes out what runs in a slot.
    pub(crate) fn take_runtime(&mut self, slot: Slot, run: Option<&str>) -> Option<Runtime> {
        let wanted = |(s, runtime): &(Slot, Runtime)| *s == slot && run.is_none_or(|run| *runtime.id == *run);
        let at = self.runtimes.iter().position(wanted)?;
        Some(self.runtimes.swap_remove(at).1)
    }

    /// Whatever is being ended may go on for so long at most.
    pub(crate) fn hurry(&self, time: Duration) {
        self.stop.iter().chain(&self.restarts).for_each(|deadline| deadline.hurry(time));
    }

    /// Takes out everything that runs.
    pub(crate) fn take_runtimes(&mut self) -> Vec<(Slot, Runtime)> {
        std::mem::take(&mut self.runtimes)
    }
}

fn give_up_starts(local: &mut Local) {
    for container in local.init.iter_mut().chain(&mut local.main).chain(&mut local.ephemeral) {
        if container.state == State::Starting {
            container.state = container.last.take().map_or(State::Waiting, State::Ended);
        }
    }
}

impl Shared {
    /// The folder of the message files of a pod.
    pub(crate) fn message_dir(&self, pod: &PodId) -> PathBuf {
        self.config.data_dir.join("messages").join(&*pod.uid)
    }

    /// The message file of one run of a container.
    pub(crate) fn message_file(&self, pod: &PodId, container: &str, run: i32) -> PathBuf {
        self.message_dir(pod).join(container).join(run.to_string())
    }
}
