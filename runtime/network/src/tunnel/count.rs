//! What the tunnels count: connections, streams, bytes, failures, and for whom.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, core::Collector};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{InspectReader, InspectWriter};

use super::wire::Identity;

/// Workloads that are counted by name; those that come later are counted as "other".
const WORKLOADS_MAX: usize = 1000;

/// Namespace and service account.
type Workload = (Arc<str>, Arc<str>);

/// Metrics of the tunnels.
#[derive(Clone)]
pub(crate) struct TunnelMetrics {
    /// Open now, by who made them.
    pub(crate) connections: IntGaugeVec,
    /// Under way now.
    pub(crate) streams: IntGaugeVec,
    opened: IntCounterVec,
    pub(crate) bytes: IntCounterVec,
    pub(crate) failures: IntCounterVec,
    received: IntCounterVec,
    workloads: Arc<Mutex<HashSet<Workload>>>,
}

/// Who asks whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

impl Way {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// What a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Bytes,
    Datagrams,
    Node,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Bytes => "connection",
            Self::Datagrams => "datagrams",
            Self::Node => "node",
        }
    }
}

const WELL_FORMED: &str = "invariant: the metric's name and labels are well-formed";

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(WELL_FORMED)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect(WELL_FORMED)
}

impl Default for TunnelMetrics {
    fn default() -> Self {
        Self {
            connections: gauges(
                "podium_tunnel_connections",
                "Connections between nodes that are open.",
                &["direction"],
            ),
            streams: gauges(
                "podium_tunnel_streams",
                "Requests and connections under way between nodes.",
                &["direction", "kind"],
            ),
            opened: counters(
                "podium_tunnel_streams_total",
                "Requests and connections between nodes.",
                &["direction", "kind"],
            ),
            bytes: counters(
                "podium_tunnel_bytes_total",
                "Bytes between nodes, headers and encryption included.",
                &["direction"],
            ),
            failures: counters(
                "podium_tunnel_failures_total",
                "What went wrong between nodes: connect, broken, handshake, spoofed, too_many.",
                &["reason"],
            ),
            received: counters(
                "podium_tunnel_received_total",
                "Requests and connections from pods of other nodes, by the caller's namespace and service account.",
                &["namespace", "service_account"],
            ),
            workloads: Arc::default(),
        }
    }
}

impl TunnelMetrics {
    pub(crate) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let counters = [&self.opened, &self.bytes, &self.failures, &self.received];
        let gauges = [&self.connections, &self.streams];
        let mut all: Vec<Box<dyn Collector>> = Vec::new();
        all.extend(counters.map(|counters| Box::new(counters.clone()) as Box<dyn Collector>));
        all.extend(gauges.map(|gauges| Box::new(gauges.clone()) as Box<dyn Collector>));
        all
    }

    /// Counts a stream until what is returned is dropped.
    pub(crate) fn stream(&self, way: Way, kind: Kind) -> UnderWay {
        let labels = [way.word(), kind.word()];
        self.opened.with_label_values(&labels).inc();
        let gauge = self.streams.with_label_values(&labels);
        gauge.inc();
        UnderWay(gauge)
    }

    /// A pod of another node asks for something.
    pub(crate) fn heard_of(&self, who: &Identity) {
        let workload = (who.namespace.clone(), who.service_account.clone());
        let mut known = self.workloads.lock();
        let counted = known.contains(&workload) || known.len() < WORKLOADS_MAX && known.insert(workload.clone());
        drop(known);
        let (namespace, account) = if counted { (&*workload.0, &*workload.1) } else { ("other", "other") };
        self.received.with_label_values(&[namespace, account]).inc();
    }
}

/// A stream that is under way.
pub(crate) struct UnderWay(prometheus::IntGauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts bytes that go one way.
type Counting = Box<dyn FnMut(&[u8]) + Send>;

/// A socket whose bytes are counted.
pub(crate) type Tallied<S> = InspectReader<InspectWriter<S, Counting>, Counting>;

/// Counts what comes and goes through a socket.
pub(crate) fn tallied<S: AsyncRead + AsyncWrite>(stream: S, bytes: Option<&IntCounterVec>) -> Tallied<S> {
    let counting = |way: Way| -> Counting {
        let counter = bytes.map(|bytes| bytes.with_label_values(&[way.word()]));
        Box::new(move |some| counter.iter().for_each(|counter| counter.inc_by(some.len() as u64)))
    };
    InspectReader::new(InspectWriter::new(stream, counting(Way::Out)), counting(Way::In))
}
