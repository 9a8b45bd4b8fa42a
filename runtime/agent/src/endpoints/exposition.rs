//! Prometheus' text format, and kubelet's `/metrics`: what the agent counts of itself.

use std::fmt::Write as _;

use prometheus::TextEncoder;

use super::Shared;

/// Beginnings of the names of series that are the agent's, of all that this process has.
const OWN: [&str; 9] = [
    "podium_agent_",
    "podium_service_",
    "podium_route_",
    "podium_tunnel_",
    "podium_network_",
    "podium_egress_",
    "podium_dns_",
    "podium_trace_",
    "process_",
];

/// Series as text.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// Begins a series.
    pub(super) fn series(&mut self, name: &str, help: &str, kind: &str) {
        // Writing into a string cannot fail.
        let _written = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a value. `at`: milliseconds of Unix time, if it is of another time than now.
    pub(super) fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64, at: Option<i64>) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n");
            let _written = write!(self.0, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _written = write!(self.0, " {value}");
        if let Some(at) = at {
            let _written = write!(self.0, " {at}");
        }
        self.0.push('\n');
    }

    pub(super) fn done(self) -> String {
        self.0
    }
}

/// kubelet's `/metrics`.
pub(super) fn own(shared: &Shared) -> String {
    let families: Vec<_> = shared.config.metrics.gather();
    let own: Vec<_> =
        families.into_iter().filter(|family| OWN.iter().any(|prefix| family.name().starts_with(prefix))).collect();
    // Series of a registry can always be written.
    let rest = TextEncoder::new().encode_to_string(&own).unwrap_or_default();
    let mut text = Text::default();
    text.series("kubelet_node_name", "The node's name. The count is always 1.", "gauge");
    text.value("kubelet_node_name", &[("node", &shared.config.node_name)], 1.0, None);
    text.series("kubelet_running_pods", "Number of pods that have a running pod sandbox", "gauge");
    text.value("kubelet_running_pods", &[], super::figures::float(shared.meter.read().len() as u64), None);
    text.series("kubelet_running_containers", "Number of containers currently running", "gauge");
    let running = shared.metrics.running.get();
    let running = super::figures::float(u64::try_from(running).unwrap_or_default());
    text.value("kubelet_running_containers", &[("container_state", "running")], running, None);
    text.done() + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let mut text = Text::default();
        text.series("a", "What it is.", "gauge");
        text.value("a", &[("x", "1\"2\\\n"), ("y", "")], 0.5, Some(7));
        text.value("a", &[], 3.0, None);
        let wanted = "# HELP a What it is.\n# TYPE a gauge\na{x=\"1\\\"2\\\\\\n\",y=\"\"} 0.5 7\na 3\n";
        assert_eq!(text.done(), wanted);
    }
}
