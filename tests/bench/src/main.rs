//! Measures what the design gives a budget for, and prints a table and JSON.
//!
//! Each benchmark is one function and one line in [`ALL`]. Whatever has a peer that runs here is measured beside it in the same
//! run, since machines drift. A budget missed is printed as missed.

mod api;
mod figure;
mod loads;
mod network;
mod pods;
mod process;
mod proxies;
mod sandbox_cpu;
mod scheduler;
mod serve;
mod services;
mod tunnel;
mod workloads;
mod wrk;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;

use crate::figure::{Figure, table};

/// That of the binary: some benchmarks run parts of it in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Podium. Build it with --release.
#[derive(Debug, Clone, Parser)]
#[command(after_help = "Example:
  cargo run --release -p podium-bench -- serve ready --wasmtime ~/.cargo/bin/wasmtime --json figures.json")]
struct Args {
    /// Which benchmarks; all when none is named
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(ALL.map(|b| b.0)))]
    only: Vec<String>,
    /// The peer: `cargo install wasmtime-cli --version 48.0.8 --locked`
    #[arg(long, default_value = "wasmtime")]
    wasmtime: PathBuf,
    /// The load generator: `apt-get install wrk`
    #[arg(long, default_value = "wrk")]
    wrk: PathBuf,
    /// Seconds of load for each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Also write the figures here
    #[arg(long)]
    json: Option<PathBuf>,
}

type Benchmark = (&'static str, fn(&Args) -> Result<Vec<Figure>>);

const ALL: [Benchmark; 16] = [
    ("process", process::measure),
    ("ready", pods::ready),
    ("deployment", pods::deployment),
    ("serve", serve::measure),
    ("network", network::measure),
    ("tunnel", tunnel::measure),
    ("services", services::measure),
    ("proxies", proxies::measure),
    ("api", api::measure),
    ("custom", api::custom::measure),
    ("pods", api::large::measure),
    ("sandbox", sandbox_cpu::measure),
    ("decisions", scheduler::decisions),
    ("scheduler", scheduler::end_to_end),
    ("workloads", workloads::measure),
    ("loads", loads::measure),
];

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    // Fails only when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut figures = Vec::new();
    let mut failed = false;
    for (name, measure) in ALL.iter().filter(|(name, _)| args.only.is_empty() || args.only.iter().any(|o| o == name)) {
        eprintln!("measuring {name} …");
        match measure(&args) {
            Ok(more) => figures.extend(more),
            Err(error) => {
                failed = true;
                eprintln!("{name} could not be measured: {error:#}");
            }
        }
    }
    println!("{}", table(&figures));
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&figure::json(&figures))?;
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
