//! The owner's part about containers that start, run and are probed.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use podium_api::ObjectKey;
use podium_sandbox::Ending;

use super::{
    PodId, Shared, Started,
    guest::Guest,
    pods::Pods,
    probes,
    start::{self, StartFailure},
    stop, traps,
};
use crate::decide::{
    backoff::SLOW,
    local::{Ended, FailureReason, Slot, State, Stopping},
    probe::{Outcome, ProbeKind, Verdict},
    restart::restarts,
    status::pod_words,
};

impl Pods {
    pub(super) fn start(&mut self, key: &ObjectKey, slot: Slot, now: Timestamp) -> bool {
        let shared = self.shared.clone();
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let Some(ip) = entry.local.ip else { return false };
        let group = entry.group(&shared);
        let Some(container) = entry.container_mut(slot) else { return false };
        let run = container.next_run();
        if container.ran {
            shared.metrics.restarts.inc();
        }
        container.starting(now);
        let wanted = entry.wanted.subscribe();
        let job = start::Job { id: entry.id.clone(), pod: entry.pod.clone(), slot, ip, run, group, wanted };
        tokio::spawn(start::start(shared, job));
        true
    }

    pub(super) fn started(&mut self, pod: &PodId, slot: Slot, outcome: Result<Started, StartFailure>) {
        let (shared, now) = (self.shared.clone(), self.shared.clock.now());
        // A runtime that nobody wants any more is dropped, and so ended.
        let Some(entry) = self.entry(pod) else { return };
        let unwanted = entry.local.stopping != Stopping::No || entry.local.all_again;
        let object = entry.pod.clone();
        let Some(spec) = slot.spec(&object) else { return };
        let Some(container) = entry.container_mut(slot) else { return };
        let mut failed_hook = false;
        match outcome {
            Ok(_) if container.state != State::Starting => return,
            Ok(_) if unwanted => container.state = container.last.take().map_or(State::Waiting, State::Ended),
            Ok(Started { run, runtime, hook_failed }) => {
                container.started(&spec, run, now);
                entry.runtimes.push((slot, *runtime));
                shared.metrics.running.inc();
                failed_hook = hook_failed;
            }
            Err(StartFailure { reason, message }) => {
                note_failure(&shared, &object, slot, reason, &message);
                if container.state == State::Starting {
                    container.failed(reason, message, now);
                }
            }
        }
        entry.stopped_if_quiet();
        if failed_hook {
            self.restart(&pod.key, slot, None, "FailedPostStartHook");
        }
        self.dirty.insert(pod.key.clone());
    }

    pub(super) fn ended(&mut self, pod: &PodId, slot: Slot, run: &Arc<str>, ending: &Ending, message: Option<String>) {
        let (shared, now) = (self.shared.clone(), self.shared.clock.now());
        let Some(entry) = self.entry(pod) else { return };
        let current = entry.container_mut(slot).and_then(|c| c.run.as_ref()).map(|r| r.id.clone());
        let killing = entry.container_mut(slot).is_some_and(|c| matches!(c.state, State::Killing { .. }));
        let held = entry.take_runtime(slot, Some(run));
        if current.is_none_or(|id| id.strip_prefix("podium://") != Some(&**run)) || held.is_none() && !killing {
            return;
        }
        if let Some(runtime) = held {
            if let (Ending::Trapped { message, backtrace }, Guest::Command(_)) = (ending, &runtime.guest) {
                runtime.log.note(&format!("the guest trapped: {message}\n{}", backtrace.join("\n")));
                let name = slot.spec(&entry.pod).map(|spec| spec.name.clone()).unwrap_or_default();
                let words = traps::of_container(&name, message, backtrace);
                shared.note(&entry.pod, Some(slot), true, "Trapped", words);
            }
            stop::count(&shared, &runtime.guest);
        }
        shared.metrics.running.dec();
        let object = entry.pod.clone();
        if let Some(container) = entry.container_mut(slot) {
            container.ended(ending, message, now);
            if let State::Ended(ended) = &container.state
                && container.crash.ready_at(SLOW, ended.finished) > now
            {
                note_back_off(&shared, &object, slot, ended);
            }
        }
        entry.stopped_if_quiet();
        self.dirty.insert(pod.key.clone());
    }

    pub(super) fn probe(&mut self, key: &ObjectKey, slot: Slot, kind: ProbeKind) -> bool {
        let shared = self.shared.clone();
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let (Some(ip), id, pod) = (entry.local.ip, entry.id.clone(), entry.pod.clone()) else { return false };
        let runtime = entry.runtimes.iter().find(|(s, _)| *s == slot);
        let run = runtime.map(|(_, runtime)| (runtime.id.clone(), runtime.command()));
        let probes = entry.local.container(slot).and_then(|c| c.probes.as_mut());
        let (Some((run, within)), Some(probes)) = (run, probes) else { return false };
        probes.begin(kind);
        tokio::spawn(probes::probe(shared, probes::Job { id, pod, slot, kind, ip, run, within }));
        true
    }

    pub(super) fn probed(&mut self, pod: &PodId, slot: Slot, kind: ProbeKind, run: &Arc<str>, outcome: &Outcome) {
        let (shared, now) = (self.shared.clone(), self.shared.clock.now());
        let Some(entry) = self.entry(pod) else { return };
        if !entry.runtimes.iter().any(|(s, runtime)| *s == slot && runtime.id == *run) {
            return;
        }
        let object = entry.pod.clone();
        let Some(spec) = slot.spec(&object) else { return };
        let Some(container) = entry.container_mut(slot) else { return };
        let verdict = container.probed(kind, &spec, outcome, now);
        let title = kind.title();
        let words = match outcome {
            Outcome::Success => None,
            Outcome::Failed(why) => Some(format!("{title} probe failed: {why}")),
            Outcome::Unknown(why) => Some(format!("{title} probe errored and resulted in unknown state: {why}")),
        };
        if let Some(words) = words {
            shared.note(&object, Some(slot), true, "Unhealthy", words);
        }
        if verdict == Verdict::Restart {
            let words = format!("Container {} failed {} probe, will be restarted", spec.name, title.to_lowercase());
            let own = kind.spec(&spec).and_then(|p| p.termination_grace_period_seconds);
            self.restart(&pod.key, slot, own, &words);
        }
        self.dirty.insert(pod.key.clone());
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
    if restarts(pod_spec, slot, &spec, ended) {
        let words = format!("Back-off restarting failed container {} in pod {}", spec.name, pod_words(pod));
        shared.note(pod, Some(slot), true, "BackOff", words);
    }
}
