//! [`NodeGateway`]: how the API server reaches what runs on nodes. The agent in this process implements it.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{Request, Response};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use podium_api::ApiError;

use crate::ServiceBody;

/// What to read of a log, as in Kubernetes' `PodLogOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Which container. The API server fills it in when the pod has only one.
    pub container: String,
    /// Goes on until the container ends.
    pub follow: bool,
    /// The run before the last restart.
    pub previous: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only lines written at or after this time.
    pub since: Option<Timestamp>,
    /// Puts the time before each line.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// The bytes of a log as they come; an error ends the stream.
pub type LogStream = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// What runs on nodes, as the API server sees it.
#[async_trait]
pub trait NodeGateway: Send + Sync + 'static {
    /// Streams the log of one container of a pod.
    ///
    /// # Errors
    /// 400 when the container has no log to show (yet), 404 when the node does not know the pod, 500 when the log
    /// cannot be read.
    async fn logs(&self, pod: &Pod, options: LogOptions) -> Result<LogStream, ApiError>;

    /// What nodes and their pods use now: a kubelet's `/stats/summary` for each node.
    ///
    /// # Errors
    /// 503 when no node can be asked.
    async fn summaries(&self) -> Result<Vec<serde_json::Value>, ApiError> {
        Err(ApiError::new(podium_api::Reason::ServiceUnavailable, "this node does not say what it uses"))
    }
}

/// Serves what lies below `/v2/`: an image registry. Requests have been authenticated and allowed, as paths that are no
/// resources (`nonResourceURLs` of a ClusterRole).
#[async_trait]
pub trait ImageRegistry: Send + Sync + 'static {
    /// Answers a request, its body streaming.
    async fn serve(&self, request: Request<ServiceBody>) -> Response<ServiceBody>;
}
