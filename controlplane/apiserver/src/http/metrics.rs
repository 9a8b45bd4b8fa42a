//! What `/metrics` shows, under Kubernetes' names.

use std::time::Duration;

use prometheus::{Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// The metrics of one server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    inflight: IntGaugeVec,
    objects: IntGaugeVec,
    watchers: IntGaugeVec,
}

impl Metrics {
    /// # Errors
    /// When a name is taken twice: never.
    pub(crate) fn new(registry: Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("apiserver_request_total", "Requests by verb, group, resource and code."),
            &["verb", "group", "resource", "code"],
        )?;
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let durations = HistogramVec::new(
            HistogramOpts::new("apiserver_request_duration_seconds", "Time to answer, streams excepted.")
                .buckets(buckets),
            &["verb", "group", "resource"],
        )?;
        let gauge = |name: &str, help: &str, label: &str| IntGaugeVec::new(Opts::new(name, help), &[label]);
        let inflight = gauge("apiserver_current_inflight_requests", "Requests under way.", "request_kind")?;
        let objects = gauge("apiserver_storage_objects", "Stored objects.", "resource")?;
        let watchers = gauge("apiserver_longrunning_requests", "Watches and mirrors.", "resource")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        for gauge in [&inflight, &objects, &watchers] {
            registry.register(Box::new(gauge.clone()))?;
        }
        Ok(Self { registry, requests, durations, inflight, objects, watchers })
    }

    /// Notes an answer.
    pub(crate) fn answered(&self, verb: &str, group: &str, resource: &str, code: u16, took: Duration) {
        let mut digits = [0u8; 3];
        for (i, digit) in digits.iter_mut().rev().enumerate() {
            *digit = b'0' + u8::try_from(code / 10u16.pow(u32::try_from(i).unwrap_or(0)) % 10).unwrap_or(0);
        }
        let code = std::str::from_utf8(&digits).unwrap_or_default();
        self.requests.with_label_values(&[verb, group, resource, code]).inc();
        if verb != "watch" {
            self.durations.with_label_values(&[verb, group, resource]).observe(took.as_secs_f64());
        }
    }

    /// Sets what is only known when asked for.
    pub(crate) fn set_inflight(&self, kind: &str, count: usize) {
        self.inflight.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// As [`Metrics::set_inflight`].
    pub(crate) fn set_resource(&self, resource: &str, objects: usize, watchers: usize) {
        self.objects.with_label_values(&[resource]).set(i64::try_from(objects).unwrap_or(i64::MAX));
        self.watchers.with_label_values(&[resource]).set(i64::try_from(watchers).unwrap_or(i64::MAX));
    }

    /// The text format.
    pub(crate) fn text(&self) -> String {
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::warn!(%error, "cannot encode the metrics");
        }
        String::from_utf8(out).unwrap_or_default()
    }
}
