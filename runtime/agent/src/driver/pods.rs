//! The owner of everything that runs here: takes reports, decides, acts. One task, no locks, nothing slow.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use podium_api::ObjectKey;
use podium_client::Delta;
use podium_sandbox::Ending;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    PodId, Report, Shared,
    guest::{Guest, Runtime},
    id_of, probes,
    start::{self, StartFailure},
    status::StatusWriter,
    stop,
    timers::Timers,
};
use crate::{
    decide::{
        self, Action, RestartPolicy,
        backoff::{SLOW, after},
        decide, is_sidecar,
        local::{Ended, FailureReason, Local, Run, Slot, State, Stopping},
        probe::{ProbeKind, Verdict},
        status::{Facts, pod_words},
    },
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
    shared: Arc<Shared>,
    status: StatusWriter,
    ipam: Ipam,
    entries: HashMap<ObjectKey, Entry>,
    timers: Timers,
    dirty: HashSet<ObjectKey>,
    facts: Facts,
    ending: Option<oneshot::Sender<()>>,
}

struct Entry {
    id: PodId,
    pod: Arc<Pod>,
    local: Local,
    /// What its status should say, as decided last.
    desired: Arc<PodStatus>,
    runtimes: Vec<(Slot, Runtime)>,
    wake_at: Option<Timestamp>,
    /// Whether its address is still reserved for it.
    ip_held: bool,
    /// Whether its containers are being ended beside this task.
    stop_pending: bool,
    deleted: bool,
}

impl Entry {
    fn new(id: PodId, pod: Arc<Pod>, now: Timestamp) -> Self {
        let local = Local::adopt(&pod, now);
        Self {
            desired: Arc::new(pod.status.clone().unwrap_or_default()),
            runtimes: Vec::new(),
            wake_at: None,
            ip_held: local.ip.is_some() && !decide::is_final(&pod),
            stop_pending: false,
            deleted: false,
            id,
            pod,
            local,
        }
    }

    /// All of it has ended when nothing is being ended any more. Starts under way are thrown away when they report.
    fn stopped_if_quiet(&mut self) {
        let runs = |state: &State| matches!(state, State::Running { .. } | State::Killing { .. });
        let quiet = !self.stop_pending && !self.local.containers().any(|(_, c)| runs(&c.state));
        if self.local.stopping == Stopping::Running && quiet {
            give_up_starts(&mut self.local);
            self.local.stopping = Stopping::Done;
        }
    }
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
            facts,
            ending: None,
        }
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
            Report::Ended { pod, slot, run, ending } => self.ended(&pod, slot, &run, &ending),
            Report::Probed { pod, slot, kind, run, outcome } => self.probed(&pod, slot, kind, &run, outcome),
            Report::Stopped { pod, endings } => self.stopped(&pod, &endings),
            Report::Shutdown(done) => self.ending = Some(done),
        }
    }

    fn changed(&mut self, delta: Delta) {
        let gone = matches!(delta, Delta::Delete { .. });
        let (Delta::Put { new: object, .. } | Delta::Delete { old: object, .. }) = delta;
        let Some(pod) = object.downcast_arc::<Pod>() else { return };
        let id = id_of(&pod);
        if gone {
            if self.entries.get(&id.key).is_some_and(|entry| entry.id == id) {
                self.remove(&id.key);
            }
            return;
        }
        if self.entries.get(&id.key).is_some_and(|entry| entry.id != id) {
            self.remove(&id.key);
        }
        self.dirty.insert(id.key.clone());
        if let Some(entry) = self.entries.get_mut(&id.key) {
            self.shared.volumes.changed(&entry.id, &pod);
            entry.pod = pod;
            return;
        }
        let entry = Entry::new(id.clone(), pod, self.shared.clock.now());
        self.entries.insert(id.key, entry);
        self.shared.metrics.pods.inc();
    }

    /// The pod is gone from the API: whatever still runs ends at once.
    fn remove(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.shared.metrics.pods.dec();
        self.shared.metrics.running.sub(i64::try_from(entry.runtimes.len()).unwrap_or(0));
        if let Some(ip) = entry.local.ip.filter(|_| entry.ip_held) {
            self.ipam.release(ip);
        }
        self.status.forget(&entry.id);
        drop(entry.runtimes);
        self.shared.log_writer.remove(self.shared.log_index.forget(&entry.id));
        let (volumes, id) = (self.shared.volumes.clone(), entry.id);
        tokio::task::spawn_blocking(move || volumes.forget(&id));
    }

    fn entry(&mut self, pod: &PodId) -> Option<&mut Entry> {
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
        if final_now
            && !entry.local.busy()
            && std::mem::take(&mut entry.ip_held)
            && let Some(ip) = entry.local.ip
        {
            // Shown on, but free for others: nobody answers there.
            self.ipam.release(ip);
        }
        let Some(status) = status.filter(|status| *status != *entry.desired) else { return };
        let now = self.shared.clock.now();
        let settling = entry.local.containers().any(|(_, c)| c.settling(now));
        entry.desired = Arc::new(status);
        self.status.put(&entry.id, entry.desired.clone(), settling);
    }

    /// Does one thing; `true` when the pod is to be looked at again at once.
    fn act(&mut self, key: &ObjectKey, action: Action, now: Timestamp) -> bool {
        match action {
            Action::Allocate => self.allocate(key, now),
            Action::Start(slot) => self.start(key, slot, now),
            Action::Probe(slot, kind) => self.probe(key, slot, kind),
            Action::Stop { grace_seconds, failed } => self.stop(key, grace_seconds, failed),
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

    fn start(&mut self, key: &ObjectKey, slot: Slot, now: Timestamp) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let Some(ip) = entry.local.ip else { return false };
        let Some(container) = entry.local.container(slot) else { return false };
        let run = container.next_run();
        if container.ran {
            self.shared.metrics.restarts.inc();
        }
        container.starting(now);
        let job = start::Job { id: entry.id.clone(), pod: entry.pod.clone(), slot, ip, run };
        tokio::spawn(start::start(self.shared.clone(), job));
        true
    }

    fn started(&mut self, pod: &PodId, slot: Slot, outcome: Result<(Run, Box<Runtime>), StartFailure>) {
        let (shared, now) = (self.shared.clone(), self.shared.clock.now());
        // A runtime that nobody wants any more is dropped, and so ended.
        let Some(entry) = self.entry(pod) else { return };
        let stopping = entry.local.stopping != Stopping::No;
        let object = entry.pod.clone();
        let Some(spec) = slot.spec(&object) else { return };
        let Some(container) = entry.local.container(slot) else { return };
        match outcome {
            Ok(_) if stopping || container.state != State::Starting => return,
            Ok((run, runtime)) => {
                container.started(spec, run, now);
                entry.runtimes.push((slot, *runtime));
                shared.metrics.running.inc();
            }
            Err(StartFailure { reason, message }) => {
                note_failure(&shared, &object, slot, reason, &message);
                if container.state == State::Starting {
                    container.failed(reason, message, now);
                }
            }
        }
        self.dirty.insert(pod.key.clone());
    }

    fn ended(&mut self, pod: &PodId, slot: Slot, run: &Arc<str>, ending: &Ending) {
        let (shared, now) = (self.shared.clone(), self.shared.clock.now());
        let Some(entry) = self.entry(pod) else { return };
        let current = entry.local.container(slot).and_then(|c| c.run.as_ref()).map(|r| r.id.clone());
        let killing = entry.local.container(slot).is_some_and(|c| matches!(c.state, State::Killing { .. }));
        let held = entry.runtimes.iter().position(|(s, runtime)| *s == slot && runtime.id == *run);
        if current.is_none_or(|id| id.strip_prefix("podium://") != Some(&**run)) || held.is_none() && !killing {
            return;
        }
        if let Some((_, runtime)) = held.map(|at| entry.runtimes.swap_remove(at)) {
            if let (Ending::Trapped { message, backtrace }, Guest::Command(_)) = (ending, &runtime.guest) {
                runtime.log.note(&format!("the guest trapped: {message}\n{}", backtrace.join("\n")));
            }
            stop::count(&shared, &runtime.guest);
        }
        shared.metrics.running.dec();
        let object = entry.pod.clone();
        if let Some(container) = entry.local.container(slot) {
            container.ended(ending, now);
            if let State::Ended(ended) = &container.state
                && container.crash.ready_at(SLOW, ended.finished) > now
            {
                note_back_off(&shared, &object, slot, ended);
            }
        }
        entry.stopped_if_quiet();
        self.dirty.insert(pod.key.clone());
    }

    fn probe(&mut self, key: &ObjectKey, slot: Slot, kind: ProbeKind) -> bool {
        let shared = self.shared.clone();
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let (Some(ip), id, pod) = (entry.local.ip, entry.id.clone(), entry.pod.clone()) else { return false };
        let run = entry.runtimes.iter().find(|(s, _)| *s == slot).map(|(_, runtime)| runtime.id.clone());
        let probes = entry.local.container(slot).and_then(|c| c.probes.as_mut());
        let (Some(run), Some(probes)) = (run, probes) else { return false };
        probes.begin(kind);
        tokio::spawn(probes::probe(shared, probes::Job { id, pod, slot, kind, ip, run }));
        true
    }

    fn probed(&mut self, pod: &PodId, slot: Slot, kind: ProbeKind, run: &Arc<str>, outcome: Result<(), String>) {
        let (shared, now) = (self.shared.clone(), self.shared.clock.now());
        let Some(entry) = self.entry(pod) else { return };
        let Some(at) = entry.runtimes.iter().position(|(s, runtime)| *s == slot && runtime.id == *run) else { return };
        let object = entry.pod.clone();
        let Some(spec) = slot.spec(&object) else { return };
        let Some(container) = entry.local.container(slot) else { return };
        let verdict = container.probed(kind, spec, outcome.is_ok(), now);
        if let Err(why) = outcome {
            shared.note(&object, Some(slot), true, "Unhealthy", format!("{} probe failed: {why}", kind.title()));
        }
        if verdict == Verdict::Restart {
            container.killing();
            let (_, runtime) = entry.runtimes.swap_remove(at);
            let which = kind.title().to_lowercase();
            let words = format!("Container {} failed {which} probe, will be restarted", spec.name);
            shared.note(&object, Some(slot), false, "Killing", words);
            let own = kind.spec(spec).and_then(|p| p.termination_grace_period_seconds);
            let grace = seconds(own.unwrap_or_else(|| decide::grace(&object)));
            tokio::spawn(stop::restart(shared, pod.clone(), slot, runtime, grace));
        }
        self.dirty.insert(pod.key.clone());
    }

    fn stop(&mut self, key: &ObjectKey, grace_seconds: i64, failed: Option<(&'static str, String)>) -> bool {
        let shared = self.shared.clone();
        let Some(entry) = self.entries.get_mut(key) else { return false };
        entry.local.stopping = Stopping::Running;
        if let Some((reason, message)) = failed {
            shared.note(&entry.pod, None, false, reason, message.clone());
            entry.local.failed = Some((reason, message));
        }
        let runtimes = std::mem::take(&mut entry.runtimes);
        for (slot, _) in &runtimes {
            let name = slot.spec(&entry.pod).map(|s| s.name.as_str()).unwrap_or_default();
            shared.note(&entry.pod, Some(*slot), false, "Killing", format!("Stopping container {name}"));
        }
        if runtimes.is_empty() {
            entry.stopped_if_quiet();
            return true;
        }
        entry.stop_pending = true;
        let (id, pod, ip) = (entry.id.clone(), entry.pod.clone(), entry.local.ip);
        tokio::spawn(stop::stop(shared, stop::Job { id, pod, ip, grace: seconds(grace_seconds), runtimes }));
        true
    }

    fn stopped(&mut self, pod: &PodId, endings: &[(Slot, Ending)]) {
        let (shared, now) = (self.shared.clone(), self.shared.clock.now());
        let Some(entry) = self.entry(pod) else { return };
        shared.metrics.running.sub(i64::try_from(endings.len()).unwrap_or(0));
        for (slot, ending) in endings {
            if let Some(container) = entry.local.container(*slot) {
                container.ended(ending, now);
            }
        }
        entry.stop_pending = false;
        entry.stopped_if_quiet();
        self.dirty.insert(pod.key.clone());
    }

    /// Lets requests finish, ends all guests, writes what is to be written. The API keeps the pods as they are.
    async fn end(mut self) {
        let limit = self.shared.config.drain_timeout;
        let mut ends = JoinSet::new();
        for (_, runtime) in self.entries.values_mut().flat_map(|entry| entry.runtimes.drain(..)) {
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

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn give_up_starts(local: &mut Local) {
    for container in local.init.iter_mut().chain(&mut local.main) {
        if container.state == State::Starting {
            container.state = container.last.take().map_or(State::Waiting, State::Ended);
        }
    }
}

fn note_failure(shared: &Shared, pod: &Pod, slot: Slot, reason: FailureReason, message: &str) {
    let image = slot.spec(pod).and_then(|s| s.image.clone()).unwrap_or_default();
    match reason {
        // Told as FailedMount already.
        FailureReason::ContainerCreating => {}
        FailureReason::ErrImagePull => {
            shared.note(pod, Some(slot), true, "Failed", "Error: ErrImagePull");
            shared.note(pod, Some(slot), false, "BackOff", format!("Back-off pulling image {image:?}"));
        }
        FailureReason::ErrImageNeverPull | FailureReason::InvalidImageName => {
            shared.note(pod, Some(slot), true, "Failed", format!("Error: {}", reason.as_str()));
        }
        _ => shared.note(pod, Some(slot), true, "Failed", format!("Error: {message}")),
    }
}

fn note_back_off(shared: &Shared, pod: &Pod, slot: Slot, ended: &Ended) {
    let Some((spec, pod_spec)) = slot.spec(pod).zip(pod.spec.as_ref()) else { return };
    let policy = match slot {
        Slot::Init(_) if is_sidecar(spec) => RestartPolicy::Always,
        Slot::Init(_) => RestartPolicy::of(pod_spec).for_init(),
        Slot::Main(_) => RestartPolicy::of(pod_spec),
    };
    if policy.restarts(ended) {
        let words = format!("Back-off restarting failed container {} in pod {}", spec.name, pod_words(pod));
        shared.note(pod, Some(slot), true, "BackOff", words);
    }
}
