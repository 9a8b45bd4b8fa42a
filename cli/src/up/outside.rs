//! What `podium up` is told of clients outside: whom to believe, how much to take, and where to write it down.

use std::path::PathBuf;

use anyhow::{Context, Result};
use podium_network::{AccessLog, IpRange, NetworkConfig};

/// For requests that come by an Ingress, a Gateway or a node port.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OutsideArgs {
    /// Write a line of JSON for each request of clients outside to this file, or to standard output: -
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// Proxies whose X-Forwarded headers are believed and added to, as addresses or ranges; those of others are replaced
    #[arg(long, value_name = "RANGES", value_delimiter = ',')]
    trusted_proxies: Vec<IpRange>,
    /// Bytes that the body of a request may have; past it 413
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    max_request_body: u64,
}

impl OutsideArgs {
    /// Tells the network.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn apply(&self, config: &mut NetworkConfig) -> Result<()> {
        config.trusted_proxies.clone_from(&self.trusted_proxies);
        config.request_body_bytes_max = self.max_request_body;
        config.access_log = match self.access_log.as_deref() {
            None => None,
            Some(path) if path.as_os_str() == "-" => Some(AccessLog::to_stdout().context("write the access log")?),
            Some(path) => {
                let log = AccessLog::to_file(path);
                Some(log.with_context(|| format!("cannot write the access log to {}: --access-log", path.display()))?)
            }
        };
        Ok(())
    }
}
