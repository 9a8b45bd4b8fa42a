//! What an API server asks nodes for: logs, core dumps, streams, figures. The node in its own process is asked by function
//! calls; others over the tunnel between nodes, by a kubelet's paths (`server` answers, `remote` asks).
//!
//! Streams into containers are frames (`frames`) on one stream of bytes: both ends are this program.

mod frames;
mod remote;
mod server;

use std::sync::Arc;

use crate::{CoreDumpReader, LogReader, streams::Streaming};

pub use self::remote::RemoteNode;
pub(crate) use self::server::NodeServer;

/// The containers of one node, wherever it is.
#[derive(Clone)]
pub struct NodeAccess {
    /// Their logs.
    pub logs: Arc<dyn LogReader>,
    /// Their core dumps.
    pub core_dumps: Arc<dyn CoreDumpReader>,
    /// Streams into them.
    pub streaming: Arc<dyn Streaming>,
}
