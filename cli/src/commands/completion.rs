//! `podium completion`: scripts that complete commands and flags in a shell.

use std::process::ExitCode;

use anyhow::Result;
use clap_complete::Shell;

use crate::output::print;

/// Prints a completion script for a shell
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  source <(podium completion bash)                                  for this shell
  podium completion zsh > ~/.zfunc/_podium                          for every zsh
  podium completion fish > ~/.config/fish/completions/podium.fish   for every fish")]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: Shell,
}

/// Runs the command. `root`: the whole command line.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn run(args: &CompletionArgs, mut root: clap::Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut root, "podium", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
