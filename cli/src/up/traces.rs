//! Where `podium up` sends spans, and its flags.

use anyhow::{Context, Result, bail};
use podium_network::{Network, TracesConfig};

/// What is told of traces.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TraceArgs {
    /// Collector that spans of requests are sent to by OTLP over HTTP, for example http://127.0.0.1:4318
    /// [default: none are recorded]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Share of the traces begun here that are recorded, from 0 to 1; of others whoever began them has decided
    /// [default: 1]
    #[arg(long, value_name = "RATIO", requires = "otlp_endpoint")]
    otlp_sample_ratio: Option<f64>,
}

impl TraceArgs {
    /// Sends spans from now on, where that is wanted.
    ///
    /// # Errors
    /// What of the flags cannot be used.
    pub(crate) fn start(&self, network: &Network, node: Option<String>) -> Result<()> {
        let Some(endpoint) = self.otlp_endpoint.clone() else { return Ok(()) };
        let ratio = self.otlp_sample_ratio.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&ratio) {
            bail!("--otlp-sample-ratio {ratio} is not from 0 to 1");
        }
        network
            .export_traces(TracesConfig { endpoint, ratio, node })
            .context("name another collector with --otlp-endpoint")
    }
}
