//! `podium node`: a worker node, for a cluster whose control plane runs elsewhere.

mod join;
mod known;
mod relay;

use std::process::ExitCode;

use anyhow::Result;

use crate::connect::ConnectOptions;

/// Runs a node of a cluster that is elsewhere
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium token create --print-join-command   where the cluster runs: prints what joins it
  podium node join --server https://10.0.0.1:6443 --token ID.SECRET --ca-cert-hash sha256:HASH")]
pub(crate) struct NodeCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Action {
    Join(join::JoinArgs),
}

/// Runs the command.
///
/// # Errors
/// See [`join::run`].
pub(crate) async fn run(command: NodeCommand, connect: &ConnectOptions) -> Result<ExitCode> {
    match command.action {
        Action::Join(args) => join::run(args, connect).await,
    }
}
