//! How `kubectl logs` reaches the agent in this process.

use std::sync::Arc;

use async_trait::async_trait;
use podium_agent::{LogError, LogReader};
use podium_api::{ApiError, Kind, ObjectKey, k8s_openapi::api::core::v1::Pod};
use podium_apiserver::{LogOptions, LogStream, NodeGateway};

/// The agent's logs as the API server wants them.
pub(crate) struct AgentLogs(pub(crate) Arc<dyn LogReader>);

#[async_trait]
impl NodeGateway for AgentLogs {
    async fn logs(&self, pod: &Pod, options: LogOptions) -> Result<LogStream, ApiError> {
        let key = ObjectKey::of(&pod.metadata);
        let options = podium_agent::LogOptions {
            container: Some(options.container),
            follow: options.follow,
            previous: options.previous,
            since: options.since,
            timestamps: options.timestamps,
            tail_lines: options.tail_lines,
            limit_bytes: options.limit_bytes,
            ..podium_agent::LogOptions::default()
        };
        self.0.logs(&key, options).await.map_err(|error| match error {
            LogError::NoPod(_) => ApiError::not_found(&Pod::NAMES, &key.name),
            LogError::BadRequest(message) => ApiError::bad_request(message),
            LogError::Io(_) => ApiError::internal(error.to_string()),
        })
    }
}
