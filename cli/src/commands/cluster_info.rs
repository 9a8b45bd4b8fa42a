//! `podium cluster-info`: where the cluster is and how it is.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use crate::{
    connect::{Call, ConnectOptions},
    output::print_line,
};

/// Shows where the control plane runs and how many nodes are ready
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:
  podium cluster-info")]
pub(crate) struct ClusterInfoArgs {}

/// Runs the command.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn run(_args: ClusterInfoArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    let connection = connect.connect().await?;
    let version = connection.json(Call::get("/version")).await?;
    let nodes = connection.json(Call::get("/api/v1/nodes").query("limit", 500)).await?;
    let all = nodes["items"].as_array().cloned().unwrap_or_default();
    let ready = all.iter().filter(|node| is_ready(node)).count();
    let version = version["gitVersion"].as_str().unwrap_or("of unknown version");
    print_line(&format!("Control plane {version} is running at {}", connection.server))?;
    print_line(&format!("{ready} of {} nodes ready", all.len()))?;
    Ok(ExitCode::SUCCESS)
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}
