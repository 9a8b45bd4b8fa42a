//! What admission counts, under Kubernetes' names.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/metrics/metrics.go`.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::{Operation, Step};

const PLUGIN_BUCKETS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOK_BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Codes beyond it are counted as it, so that no webhook can make labels without end.
const CODE_MAX: u16 = 600;
const STEPS: [Step; 2] = [Step::Admit, Step::Validate];
const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];

impl Step {
    fn label(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validate",
        }
    }

    /// Webhooks that judge are counted under another word.
    fn webhook_label(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validating",
        }
    }
}

/// Why a webhook's call ended in a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It could not be asked, or its answer not be read.
    Calling,
    /// The server failed with what it said.
    Server,
    /// It said no.
    Said,
}

impl Rejected {
    fn label(self) -> &'static str {
        match self {
            Self::Calling => "calling_webhook_error",
            Self::Server => "apiserver_internal_error",
            Self::Said => "no_error",
        }
    }
}

/// How the call of a webhook ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Called {
    pub(super) step: Step,
    pub(super) operation: Operation,
    pub(super) took: Duration,
    /// The code of its answer, or of the error.
    pub(super) code: u16,
    /// Why the request was refused for it, if it was.
    pub(super) rejected: Option<Rejected>,
}

/// The metrics of one server.
pub(crate) struct AdmissionMetrics {
    plugins: HistogramVec,
    steps: HistogramVec,
    /// The same by plug-in, step, operation and outcome: a label is not looked up for each write. Whole steps come after
    /// all plug-ins.
    known: Vec<Histogram>,
    plugin_count: usize,
    webhooks: HistogramVec,
    requests: IntCounterVec,
    rejections: IntCounterVec,
    open: IntCounterVec,
}

impl AdmissionMetrics {
    /// `plugins`: the names of all, in order.
    pub(super) fn new(plugins: impl Iterator<Item = &'static str>) -> Self {
        const LABELS: [&str; 4] = ["name", "type", "operation", "rejected"];
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            HistogramVec::new(options, labels).expect("invariant: a valid name")
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("invariant: a valid name")
        };
        let by_plugin = histogram(
            "apiserver_admission_controller_admission_duration_seconds",
            "Admission controller latency histogram in seconds, identified by name and broken out for each operation and \
             API resource and type (validate or admit).",
            &PLUGIN_BUCKETS,
            &LABELS,
        );
        let steps = histogram(
            "apiserver_admission_step_admission_duration_seconds",
            "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type \
             (validate or admit).",
            &PLUGIN_BUCKETS,
            &LABELS[1..],
        );
        let mut known = Vec::new();
        let names: Vec<&str> = plugins.collect();
        for name in names.iter().copied().map(Some).chain([None]) {
            for (step, operation) in STEPS.into_iter().flat_map(|s| OPERATIONS.map(|o| (s, o))) {
                for rejected in ["false", "true"] {
                    let labels = [step.label(), operation.as_str(), rejected];
                    known.push(match name {
                        None => steps.with_label_values(&labels),
                        Some(name) => by_plugin.with_label_values(&[name, labels[0], labels[1], labels[2]]),
                    });
                }
            }
        }
        Self {
            plugins: by_plugin,
            steps,
            known,
            plugin_count: names.len(),
            webhooks: histogram(
                "apiserver_admission_webhook_admission_duration_seconds",
                "Admission webhook latency histogram in seconds, identified by name and broken out for each operation \
                 and API resource and type (validate or admit).",
                &WEBHOOK_BUCKETS,
                &LABELS,
            ),
            requests: counter(
                "apiserver_admission_webhook_request_total",
                "Admission webhook request total, identified by name and broken out for each admission type (validating \
                 or admit) and operation.",
                &["name", "type", "operation", "code", "rejected"],
            ),
            rejections: counter(
                "apiserver_admission_webhook_rejection_count",
                "Admission webhook rejection count, identified by name and broken out for each admission type \
                 (validating or admit) and operation.",
                &["name", "type", "operation", "error_type", "rejection_code"],
            ),
            open: counter(
                "apiserver_admission_webhook_fail_open_count",
                "Admission webhook fail open count, identified by name and broken out for each admission type \
                 (validating or admit).",
                &["name", "type"],
            ),
        }
    }

    /// Shows them.
    ///
    /// # Errors
    /// When a name is taken twice.
    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.plugins.clone()))?;
        registry.register(Box::new(self.steps.clone()))?;
        registry.register(Box::new(self.webhooks.clone()))?;
        for counter in [&self.requests, &self.rejections, &self.open] {
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(())
    }

    /// Notes what a plug-in did, the `index`th of all.
    pub(super) fn plugin(&self, index: usize, step: Step, operation: Operation, rejected: bool, took: Duration) {
        let place = |found: Option<usize>| found.unwrap_or_default();
        let step = place(STEPS.iter().position(|s| *s == step));
        let operation = place(OPERATIONS.iter().position(|o| *o == operation));
        let at = ((index * STEPS.len() + step) * OPERATIONS.len() + operation) * 2 + usize::from(rejected);
        if let Some(histogram) = self.known.get(at) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// Notes what a whole step took.
    pub(super) fn step(&self, step: Step, operation: Operation, rejected: bool, took: Duration) {
        self.plugin(self.plugin_count, step, operation, rejected, took);
    }

    /// Notes a call of a webhook.
    pub(super) fn webhook(&self, name: &str, called: &Called) {
        let (step, operation) = (called.step.webhook_label(), called.operation.as_str());
        let code = called.code.min(CODE_MAX).to_string();
        let rejected = if called.rejected.is_some() { "true" } else { "false" };
        self.requests.with_label_values(&[name, step, operation, &code, rejected]).inc();
        self.webhooks.with_label_values(&[name, step, operation, rejected]).observe(called.took.as_secs_f64());
        if let Some(why) = called.rejected {
            self.rejections.with_label_values(&[name, step, operation, why.label(), &code]).inc();
        }
    }

    /// Notes that a webhook failed, which was ignored as its configuration says.
    pub(super) fn failed_open(&self, name: &str, step: Step) {
        self.open.with_label_values(&[name, step.webhook_label()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plugin_has_its_own() {
        let metrics = AdmissionMetrics::new(["A", "B"].into_iter());
        let registry = Registry::new();
        metrics.register(&registry).unwrap();
        metrics.plugin(1, Step::Validate, Operation::Update, true, Duration::from_millis(1));
        let one = metrics.plugins.with_label_values(&["B", "validate", "UPDATE", "true"]);
        assert_eq!(one.get_sample_count(), 1);
        metrics.step(Step::Admit, Operation::Delete, false, Duration::from_millis(1));
        assert_eq!(metrics.steps.with_label_values(&["admit", "DELETE", "false"]).get_sample_count(), 1);
        let called = Called {
            step: Step::Admit,
            operation: Operation::Create,
            took: Duration::ZERO,
            code: 700,
            rejected: Some(Rejected::Said),
        };
        metrics.webhook("w", &called);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let wanted = r#"webhook_rejection_count{error_type="no_error",name="w",operation="CREATE",rejection_code="600",type="admit"} 1"#;
        assert!(text.contains(wanted), "{text}");
    }
}
