//! Probes as a state machine: when the next one is due, and what a result means.
//!
//! # Source
//! Kubernetes `pkg/kubelet/prober/worker.go`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Probe};

use super::backoff::after;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    /// Whether the container has come up; the others wait for it.
    Startup,
    /// Whether it has to be restarted.
    Liveness,
    /// Whether it should get requests.
    Readiness,
}

impl ProbeKind {
    pub(crate) const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// As messages begin.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// The probe in a container's spec.
    pub(crate) fn spec(self, container: &Spec) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It succeeded.
    Success,
    /// It failed, and why.
    Failed(String),
    /// It could not be made, and why: that says nothing about the container.
    Unknown(String),
}

/// What a result means for the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing changes.
    Same,
    /// It became ready, unready or started.
    Changed,
    /// It has to be restarted.
    Restart,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct One {
    next_at: Timestamp,
    in_flight: bool,
    successes: i32,
    failures: i32,
    passed: bool,
}

/// The probes of one run of a container; those that its spec does not have pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Probes([Option<One>; 3]);

impl Probes {
    /// The probes of a container that started `now`; `None` when it has none.
    pub(crate) fn of(container: &Spec, now: Timestamp) -> Option<Box<Self>> {
        let one = |probe: &Probe| One {
            next_at: after(now, probe.initial_delay_seconds.unwrap_or(0).into()),
            in_flight: false,
            successes: 0,
            failures: 0,
            passed: false,
        };
        let all = ProbeKind::ALL.map(|kind| kind.spec(container).map(one));
        all.iter().any(Option::is_some).then(|| Box::new(Self(all)))
    }

    fn passed(&self, kind: ProbeKind) -> bool {
        self.0[kind as usize].as_ref().is_none_or(|one| one.passed)
    }

    /// Whether the container counts as started.
    pub(crate) fn started(&self) -> bool {
        self.passed(ProbeKind::Startup)
    }

    /// Whether the container counts as ready.
    pub(crate) fn ready(&self) -> bool {
        self.started() && self.passed(ProbeKind::Readiness)
    }

    fn active(&self) -> impl Iterator<Item = (ProbeKind, &One)> {
        let started = self.started();
        let runs = move |kind: ProbeKind| (kind == ProbeKind::Startup) != started;
        ProbeKind::ALL
            .into_iter()
            .zip(&self.0)
            .filter_map(move |(kind, one)| Some((kind, one.as_ref().filter(|_| runs(kind))?)))
    }

    /// Which probes are to be made now.
    pub(crate) fn due(&self, now: Timestamp) -> impl Iterator<Item = ProbeKind> {
        self.active().filter(move |(_, one)| !one.in_flight && one.next_at <= now).map(|(kind, _)| kind)
    }

    /// When the next one is due after `now`.
    pub(crate) fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.active().filter(|(_, one)| !one.in_flight && one.next_at > now).map(|(_, one)| one.next_at).min()
    }

    /// Whether a probe is being made.
    pub(crate) fn in_flight(&self) -> bool {
        self.active().any(|(_, one)| one.in_flight)
    }

    /// A probe is being made.
    pub(crate) fn begin(&mut self, kind: ProbeKind) {
        if let Some(one) = &mut self.0[kind as usize] {
            one.in_flight = true;
        }
    }

    /// A probe could not be made: the next one is due as always.
    pub(crate) fn passed_over(&mut self, kind: ProbeKind, spec: &Probe, now: Timestamp) {
        if let Some(one) = &mut self.0[kind as usize] {
            one.in_flight = false;
            one.next_at = after(now, spec.period_seconds.unwrap_or(10).max(1).into());
        }
    }

    /// A probe has been made.
    pub(crate) fn observe(&mut self, kind: ProbeKind, spec: &Probe, success: bool, now: Timestamp) -> Verdict {
        let Some(one) = &mut self.0[kind as usize] else { return Verdict::Same };
        let was = one.passed;
        one.in_flight = false;
        one.next_at = after(now, spec.period_seconds.unwrap_or(10).max(1).into());
        one.successes = if success { one.successes.saturating_add(1) } else { 0 };
        one.failures = if success { 0 } else { one.failures.saturating_add(1) };
        if one.successes >= spec.success_threshold.unwrap_or(1).max(1) {
            one.passed = true;
        }
        let failed = one.failures >= spec.failure_threshold.unwrap_or(3).max(1);
        if failed && kind != ProbeKind::Readiness {
            return Verdict::Restart;
        }
        if failed {
            one.passed = false;
        }
        match (was, one.passed) {
            (was, is) if was == is => Verdict::Same,
            _ => {
                if kind == ProbeKind::Startup {
                    self.others_begin(now);
                }
                Verdict::Changed
            }
        }
    }

    fn others_begin(&mut self, now: Timestamp) {
        for one in self.0[1..].iter_mut().flatten() {
            one.next_at = one.next_at.max(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(startup: bool) -> Spec {
        let probe = |threshold| Probe {
            failure_threshold: Some(threshold),
            success_threshold: Some(1),
            period_seconds: Some(5),
            initial_delay_seconds: Some(2),
            ..Probe::default()
        };
        Spec {
            readiness_probe: Some(Probe { success_threshold: Some(2), ..probe(3) }),
            liveness_probe: Some(probe(2)),
            startup_probe: startup.then(|| probe(2)),
            ..Spec::default()
        }
    }

    /// Feeds results (`R` readiness, `L` liveness, `S` startup; lower case fails) and tells what each meant.
    fn run(startup: bool, results: &str) -> String {
        let spec = container(startup);
        let mut now = Timestamp::from_second(0).unwrap();
        let mut probes = Probes::of(&spec, now).unwrap();
        let mut told = String::new();
        for result in results.chars() {
            let kind = match result.to_ascii_uppercase() {
                'R' => ProbeKind::Readiness,
                'L' => ProbeKind::Liveness,
                _ => ProbeKind::Startup,
            };
            now = after(now, 5);
            let verdict = probes.observe(kind, kind.spec(&spec).unwrap(), result.is_ascii_uppercase(), now);
            told.push(match verdict {
                Verdict::Restart => '!',
                _ if probes.ready() => '+',
                _ => '-',
            });
        }
        told
    }

    #[test]
    fn thresholds() {
        for (startup, results, expected) in [
            (false, "RR", "-+"),
            (false, "RrRR", "---+"),
            (false, "RRrrRR", "-++++" /* two failures are below three */),
            (false, "RRrrrRR", "-+++--+"),
            (false, "LlLl", "----"),
            (false, "ll", "-!"),
            (true, "sS", "--"),
            (true, "ss", "-!"),
            (true, "SRR", "--+"),
        ] {
            let told = run(startup, results);
            assert!(told.starts_with(expected), "{results}: {told}, not {expected}");
        }
    }

    #[test]
    fn the_others_wait_for_the_startup_probe() {
        let spec = container(true);
        let start = Timestamp::from_second(0).unwrap();
        let mut probes = Probes::of(&spec, start).unwrap();
        assert_eq!(probes.due(start).count(), 0, "initial delay");
        assert_eq!(probes.wake_at(start), Some(after(start, 2)));
        let later = after(start, 2);
        assert_eq!(probes.due(later).collect::<Vec<_>>(), [ProbeKind::Startup]);
        probes.begin(ProbeKind::Startup);
        assert_eq!(probes.due(later).count(), 0, "one at a time");
        assert_eq!(probes.wake_at(later), None);
        probes.observe(ProbeKind::Startup, spec.startup_probe.as_ref().unwrap(), true, later);
        assert_eq!(probes.due(later).collect::<Vec<_>>(), [ProbeKind::Liveness, ProbeKind::Readiness]);
    }
}
