//! The podium binary: a cluster in one process (`up`), and the commands that talk to one.
//!
//! Exit codes: 0 when all went well, 1 when something failed, 2 when the command line was wrong.

mod commands;
mod connect;
mod manifest;
mod node;
mod output;
mod resources;
mod up;

use std::{io, process::ExitCode};

use anyhow::Result;
use clap::{CommandFactory, Parser, error::ErrorKind};

use crate::connect::ConnectOptions;

/// What one thread allocates is freed on another all the time: a request's parts travel between them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Kubernetes for WebAssembly in one binary
#[derive(Debug, Parser)]
#[command(
    name = "podium",
    version,
    propagate_version = false,
    max_term_width = 110,
    after_help = "Examples:
  podium up -f examples/hello   start a cluster and run an example
  podium apply -f web.yaml      create or change what a manifest says
  podium get pods -A            see what runs
  podium push app.wasm demo/app:v1   make an image that pods can name
  podium token create --print-join-command   how another machine becomes a node
  podium COMMAND --help         more about a command, with examples"
)]
struct Podium {
    #[command(flatten)]
    connect: ConnectOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Apply(commands::apply::ApplyArgs),
    ClusterInfo(commands::cluster_info::ClusterInfoArgs),
    Completion(commands::completion::CompletionArgs),
    Debug(commands::debug::DebugArgs),
    Delete(commands::delete::DeleteArgs),
    Describe(commands::describe::DescribeArgs),
    Get(commands::get::GetArgs),
    Logs(commands::logs::LogsArgs),
    Node(node::NodeCommand),
    Push(commands::push::PushArgs),
    Rollout(commands::rollout::RolloutArgs),
    Run(commands::run::RunArgs),
    Scale(commands::scale::ScaleArgs),
    Token(commands::token::TokenArgs),
    Up(up::UpArgs),
    Version(commands::version::VersionArgs),
}

/// A command line that cannot be meant: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The first argument of the process that compiles modules: not for users.
pub(crate) const COMPILE_WORKER: &str = "compile-worker";

fn main() -> ExitCode {
    let mut args = std::env::args();
    if args.nth(1).as_deref() == Some(COMPILE_WORKER) {
        return podium_sandbox::compile_worker_main(args.collect());
    }
    let podium = match Podium::try_parse() {
        Ok(podium) => podium,
        Err(error) => {
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nothing can be done when not even the help can be printed.
            let _ = error.print();
            return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(2) };
        }
    };
    match start(podium) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::from(if error.downcast_ref::<Usage>().is_some() { 2 } else { 1 })
        }
    }
}

/// Whether the reader of the output went away, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

fn start(podium: Podium) -> Result<ExitCode> {
    // An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(run(podium));
    // Whatever still runs in the background has nothing to finish: the command is done.
    runtime.shutdown_background();
    code
}

async fn run(Podium { connect, command }: Podium) -> Result<ExitCode> {
    match command {
        Command::Apply(args) => commands::apply::run(args, &connect).await,
        Command::ClusterInfo(args) => commands::cluster_info::run(args, &connect).await,
        Command::Completion(args) => commands::completion::run(&args, Podium::command()),
        Command::Debug(args) => commands::debug::run(args, &connect).await,
        Command::Delete(args) => commands::delete::run(args, &connect).await,
        Command::Describe(args) => commands::describe::run(args, &connect).await,
        Command::Get(args) => commands::get::run(args, &connect).await,
        Command::Logs(args) => commands::logs::run(args, &connect).await,
        Command::Node(command) => node::run(command, &connect).await,
        Command::Push(args) => commands::push::run(args, &connect).await,
        Command::Rollout(args) => commands::rollout::run(args, &connect).await,
        Command::Run(args) => commands::run::run(args, &connect).await,
        Command::Scale(args) => commands::scale::run(args, &connect).await,
        Command::Token(args) => commands::token::run(args, &connect).await,
        Command::Up(args) => up::run(args).await,
        Command::Version(args) => commands::version::run(args, &connect).await,
    }
}

/// Reads `90s`, `5m`, `2h`, `1h30m` or plain seconds.
pub(crate) fn duration_seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no duration: write 90s, 5m or 1h30m");
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let (mut seconds, mut number) = (0_u64, String::new());
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                number.push(c);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let count: u64 = number.parse().map_err(|_| wrong())?;
        seconds = count.checked_mul(unit).and_then(|s| seconds.checked_add(s)).ok_or_else(wrong)?;
        number.clear();
    }
    if number.is_empty() && !text.is_empty() { Ok(seconds) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_an_example_and_is_well_formed() {
        let root = Podium::command();
        root.clone().debug_assert();
        let mut all: Vec<clap::Command> = root.get_subcommands().cloned().collect();
        while let Some(command) = all.pop() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("podium "), "{} has no example", command.get_name());
            all.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("90", Some(90)),
            ("90s", Some(90)),
            ("5m", Some(300)),
            ("1h30m", Some(5400)),
            ("0s", Some(0)),
            ("", None),
            ("5x", None),
            ("m", None),
            ("5m3", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(duration_seconds(text).ok(), seconds, "{text}");
        }
    }

    #[test]
    fn flags_stand_before_or_after_the_command() {
        for line in [
            "podium -n x get pods",
            "podium get pods -n x",
            "podium get -n x pods -o wide -w",
            "podium delete pod a --wait=false -n x",
        ] {
            let parsed = Podium::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(parsed.connect.namespace.as_deref(), Some("x"), "{line}");
        }
        assert!(Podium::try_parse_from(["podium", "get"]).is_err());
    }
}
