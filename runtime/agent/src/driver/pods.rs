//! The owner of everything that runs here: takes reports, decides, acts. One task, no locks, nothing slow.
//!
//! Its parts: containers that run (`runs`), end (`ends`), pods that are taken, resized (`admit`) and evicted (`evict`), pods from
//! files (`static_pods`).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use podium_api::ObjectKey;
use podium_client::Delta;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    PodId, Report, Shared,
    entry::Entry,
    guest::Guest,
    id_of,
    static_pods::{Mirrors, Wanted},
    status::StatusWriter,
    timers::Timers,
};
use crate::{
    decide::{self, Action, amounts::Amounts, backoff::after, decide, static_pod::mirrored, status::Facts},
    ipam::Ipam,
};

/// Reports taken before pods are looked at, so that several about one pod count once.
const BATCH_MAX: usize = 1024;
/// Looks at one pod in a row: each one is the consequence of what the last one did.
const LOOKS_MAX: usize = 8;
/// When no address is free, the next try.
const ADDRESS_RETRY_SECONDS: i64 = 5;

/// All pods of this node.
pub(crate) struct Pods {
    pub(super) shared: Arc<Shared>,
    pub(super) status: StatusWriter,
    ipam: Ipam,
    pub(super) entries: HashMap<ObjectKey, Entry>,
    pub(super) timers: Timers,
    pub(super) dirty: HashSet<ObjectKey>,
    /// What the pods that were taken request, and how many there are.
    pub(super) held: (Amounts, usize),
    /// Pods that wait for room to be resized.
    pub(super) deferred: HashSet<ObjectKey>,
    pub(super) mirrors: Mirrors,
    facts: Facts,
    ending: Option<oneshot::Sender<()>>,
}

impl Pods {
    /// Reserves the addresses of the pods that are there already.
    pub(crate) fn new(shared: Arc<Shared>, status: StatusWriter, mut ipam: Ipam) -> Self {
        for pod in shared.pods.list(None) {
            let pod = pod.downcast_ref::<Pod>();
            let ip =
                pod.filter(|p| !decide::is_final(p)).and_then(|p| p.status.as_ref()?.pod_ip.as_deref()?.parse().ok());
            if let Some(ip) = ip {
                ipam.reserve(ip);
            }
        }
        let facts = Facts { host_ip: shared.host_ip() };
        Self {
            shared,
            status,
            ipam,
            entries: HashMap::new(),
            timers: Timers::default(),
            dirty: HashSet::new(),
            held: (Amounts::default(), 0),
            deferred: HashSet::new(),
            mirrors: Mirrors::default(),
            facts,
            ending: None,
        }
    }

    /// Follows which static pods there are.
    pub(crate) fn mirrors(&self) -> tokio::sync::watch::Receiver<Wanted> {
        self.mirrors.subscribe()
    }

    /// Runs until it is told to end.
    pub(crate) async fn run(mut self, mut reports: mpsc::UnboundedReceiver<Report>) {
        let mut batch = Vec::new();
        while self.ending.is_none() {
            let due = self.timers.next();
            let wait = due.map(|at| Duration::try_from(self.shared.clock.now().duration_until(at)).unwrap_or_default());
            tokio::select! {
                biased;
                count = reports.recv_many(&mut batch, BATCH_MAX) => if count == 0 { return },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
            for report in batch.drain(..) {
                self.take(report);
            }
            let now = self.shared.clock.now();
            self.dirty.extend(self.timers.due(now));
            for key in std::mem::take(&mut self.dirty) {
                self.look(&key);
            }
        }
        self.end().await;
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Pod(delta) => self.changed(delta),
            Report::Started { pod, slot, outcome } => self.started(&pod, slot, outcome),
            Report::Ended { pod, slot, run, ending, message } => self.ended(&pod, slot, &run, &ending, message),
            Report::Probed { pod, slot, kind, run, outcome } => self.probed(&pod, slot, kind, &run, &outcome),
            Report::Stopped { pod, endings } => self.stopped(&pod, endings),
            Report::Static(pods) => self.static_pods(pods),
            Report::Evict(eviction) => self.evict(eviction),
            // Whoever asked may have given up.
            Report::Uses(answer) => drop(answer.send(self.uses())),
            Report::Shutdown(done) => self.ending = Some(done),
        }
    }

    fn changed(&mut self, delta: Delta) {
        let gone = matches!(delta, Delta::Delete { .. });
        let (Delta::Put { new: object, .. } | Delta::Delete { old: object, .. }) = delta;
        let Some(pod) = object.downcast_arc::<Pod>() else { return };
        if mirrored(&pod).is_some() {
            return self.mirror_changed(&pod, gone);
        }
        let id = id_of(&pod);
        if gone {
            if self.entries.get(&id.key).is_some_and(|entry| entry.id == id) {
                self.remove(&id.key);
            }
            return;
        }
        self.put(id, pod);
    }

    /// There is a pod, or it has changed.
    pub(super) fn put(&mut self, id: PodId, pod: Arc<Pod>) {
        if self.entries.get(&id.key).is_some_and(|entry| entry.id != id) {
            self.remove(&id.key);
        }
        self.dirty.insert(id.key.clone());
        if let Some(entry) = self.entries.get_mut(&id.key) {
            self.shared.volumes.changed(&entry.id, &pod);
            entry.local.follow(&pod);
            entry.pod = pod;
            return;
        }
        let entry = Entry::new(id.clone(), pod, self.shared.clock.now());
        self.entries.insert(id.key, entry);
        self.shared.metrics.pods.inc();
    }

    /// The pod is gone from the API: whatever still runs ends at once.
    pub(super) fn remove(&mut self, key: &ObjectKey) {
        self.give_back(key);
        let Some(mut entry) = self.entries.remove(key) else { return };
        self.deferred.remove(key);
        self.shared.metrics.pods.dec();
        let runtimes = entry.take_runtimes();
        self.shared.metrics.running.sub(i64::try_from(runtimes.len()).unwrap_or(0));
        if let Some(ip) = entry.local.ip.filter(|_| entry.ip_held) {
            self.ipam.release(ip);
        }
        self.status.forget(&entry.id);
        drop(runtimes);
        self.shared.meter.forget(&entry.id);
        self.shared.log_writer.remove(self.shared.log_index.forget(&entry.id));
        let (shared, id) = (self.shared.clone(), entry.id);
        tokio::task::spawn_blocking(move || {
            shared.volumes.forget(&id);
            // There is none if no guest ever looked.
            let _ = podium_sandbox::remove_tree(&shared.message_dir(&id));
            let _ = std::fs::remove_dir_all(shared.pod_core_dumps(&id));
        });
    }

    pub(super) fn entry(&mut self, pod: &PodId) -> Option<&mut Entry> {
        self.entries.get_mut(&pod.key).filter(|entry| entry.id == *pod)
    }

    /// Decides and acts until nothing more is to be done now.
    fn look(&mut self, key: &ObjectKey) {
        for _ in 0..LOOKS_MAX {
            let now = self.shared.clock.now();
            let Some(entry) = self.entries.get(key) else { return };
            let decision = decide(&entry.pod, &entry.local, &entry.desired, &self.facts, now);
            let mut again = false;
            for action in decision.actions {
                again |= self.act(key, action, now);
            }
            if !again {
                self.settle(key, decision.status, decision.wake_at);
                return;
            }
        }
        tracing::warn!(pod = %key, "a pod does not come to rest; it is looked at again in a second");
        self.timers.set(after(self.shared.clock.now(), 1), key.clone());
    }

    /// Writes the status if it is news, and sets the timer.
    fn settle(&mut self, key: &ObjectKey, status: Option<PodStatus>, wake_at: Option<Timestamp>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if wake_at != entry.wake_at {
            entry.wake_at = wake_at;
            if let Some(at) = wake_at {
                self.timers.set(at, key.clone());
            }
        }
        let final_now =
            status.as_ref().is_some_and(|s| s.phase.as_deref().is_some_and(|p| p == "Succeeded" || p == "Failed"));
        let over = final_now && !entry.local.busy();
        if over
            && std::mem::take(&mut entry.ip_held)
            && let Some(ip) = entry.local.ip
        {
            // Shown on, but free for others: nobody answers there.
            self.ipam.release(ip);
        }
        if over {
            self.give_back(key);
        }
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Some(status) = status.filter(|status| *status != *entry.desired) else { return };
        let now = self.shared.clock.now();
        let settling = entry.local.containers().any(|(_, c)| c.settling(now));
        entry.desired = Arc::new(status);
        self.status.put(&entry.id, entry.desired.clone(), settling);
    }

    /// Does one thing; `true` when the pod is to be looked at again at once.
    fn act(&mut self, key: &ObjectKey, action: Action, now: Timestamp) -> bool {
        match action {
            Action::Admit => self.admit(key),
            Action::Allocate => self.allocate(key, now),
            Action::Start(slot) => self.start(key, slot, now),
            Action::Probe(slot, kind) => self.probe(key, slot, kind),
            Action::Resize => self.resize(key),
            Action::EndAll => self.end_all(key),
            Action::Reset => self.reset(key),
            Action::Stop { grace_seconds, failed } => self.stop(key, grace_seconds, failed),
            Action::Hurry { grace_seconds } => self.hurry(key, grace_seconds),
            // Nobody but its file can bring it back.
            Action::Delete if self.ended_static(key) => false,
            Action::Delete => {
                if let Some(entry) = self.entries.get_mut(key).filter(|entry| !entry.deleted) {
                    entry.deleted = true;
                    // After the status that this look settles.
                    self.dirty_delete(key);
                }
                false
            }
        }
    }

    fn dirty_delete(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let decision = decide(&entry.pod, &entry.local, &entry.desired, &self.facts, self.shared.clock.now());
        if let Some(status) = decision.status.filter(|status| *status != *entry.desired) {
            entry.desired = Arc::new(status);
            self.status.put(&entry.id, entry.desired.clone(), false);
        }
        self.status.delete(&entry.id);
    }

    fn allocate(&mut self, key: &ObjectKey, now: Timestamp) -> bool {
        let ip = self.ipam.allocate();
        let Some(entry) = self.entries.get_mut(key) else { return false };
        entry.local.ip = ip;
        entry.ip_held = ip.is_some();
        if ip.is_none() {
            let words = "Failed to create pod sandbox: no free address in the node's podCIDR";
            self.shared.note(&entry.pod, None, true, "FailedCreatePodSandBox", words);
            self.timers.set(after(now, ADDRESS_RETRY_SECONDS), key.clone());
        }
        ip.is_some()
    }

    /// Lets requests finish, ends all guests, writes what is to be written. The API keeps the pods as they are.
    async fn end(mut self) {
        let limit = self.shared.config.drain_timeout;
        let mut ends = JoinSet::new();
        for (_, runtime) in self.entries.values_mut().flat_map(|entry| entry.take_runtimes()) {
            // Endpoints are not taken away now, so that waiting for that would be in vain: only requests count.
            if let Guest::Http(container) = runtime.guest.clone() {
                ends.spawn(async move {
                    container.drain(limit).await;
                    drop(runtime);
                });
            }
        }
        while ends.join_next().await.is_some() {}
        self.status.flush(Duration::from_secs(1)).await;
        if let Some(done) = self.ending.take() {
            let _ = done.send(());
        }
    }
}
