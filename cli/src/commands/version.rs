//! `podium version`: of this binary and of the server.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    connect::{Call, ConnectOptions},
    output::print_line,
};

/// Shows the versions of this binary and of the server
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium version            both versions
  podium version --client   without asking the server")]
pub(crate) struct VersionArgs {
    /// Do not ask the server
    #[arg(long)]
    client: bool,
}

/// Runs the command.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn run(args: VersionArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    print_line(concat!("Client Version: v", env!("CARGO_PKG_VERSION")))?;
    if !args.client {
        let version = connect.connect().await?.json(Call::get("/version")).await?;
        print_line(&format!("Server Version: {}", version["gitVersion"].as_str().unwrap_or("unknown")))?;
    }
    Ok(ExitCode::SUCCESS)
}
