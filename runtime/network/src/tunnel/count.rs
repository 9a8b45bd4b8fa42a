//! What the tunnels count: connections, streams, bytes, failures, and for whom.

use std::{
    collections::HashSet,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, core::Collector};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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

/// A socket whose bytes are counted.
pub(crate) struct Tallied<S> {
    stream: S,
    bytes: Option<[prometheus::IntCounter; 2]>,
}

impl<S> Tallied<S> {
    pub(crate) fn new(stream: S, bytes: Option<IntCounterVec>) -> Self {
        let bytes = bytes.map(|bytes| [Way::In, Way::Out].map(|way| bytes.with_label_values(&[way.word()])));
        Self { stream, bytes }
    }

    fn count(&self, way: Way, count: usize) {
        if let Some(bytes) = &self.bytes {
            bytes[way as usize].inc_by(count as u64);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tallied<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        self.count(Way::In, out.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tallied<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.count(Way::Out, count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bytes))?;
        self.count(Way::Out, count);
        Poll::Ready(Ok(count))
    }
}
