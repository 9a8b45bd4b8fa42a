//! `podium up`: a whole cluster in this process, until Ctrl-C.
//!
//! Checks everything that can be checked before anything is made; says what it does while it does it; stops in the
//! reverse order of its start.

mod api;
mod check;
mod cluster;
pub(crate) mod data_dir;
mod gateway;
mod images_in_use;
pub(crate) mod limits;
mod names;
pub(crate) mod node;
pub(crate) mod outside;
mod own_kinds;
mod progress;
pub(crate) mod registry;
mod scheduler;
mod services;
pub(crate) mod test_images;
pub(crate) mod traces;

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use podium_agent::AddressPool;
use podium_network::HostPatterns;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use self::{cluster::Cluster, data_dir::DataDir};

/// Starts a single-node cluster and runs what the manifests say.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium up -f examples/hello            run a folder of manifests and .wasm files
  podium up --data-dir /tmp/try          an empty cluster with its data elsewhere
  podium up --http 0.0.0.0:80 -f shop/   serve Ingresses to everybody
  podium up --no-agent                   the control plane alone, for nodes that run elsewhere")]
pub(crate) struct UpArgs {
    /// Manifest file, or folder of manifests; images may be loaded from its folder. Repeatable
    #[arg(short, long, value_name = "PATH")]
    pub(crate) filename: Vec<PathBuf>,
    /// Where the cluster keeps its data [default: ~/.podium]
    #[arg(long, value_name = "DIR", env = "PODIUM_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the API server listens; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6443")]
    pub(crate) api: SocketAddr,
    /// Where Ingresses are served; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) http: SocketAddr,
    /// Where Ingresses are served to clients that speak TLS, with the certificates of the Secrets that they name
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) https: Option<SocketAddr>,
    /// What of this host itself pods may reach, if they are granted it as well: its loopback, link-local, metadata and
    /// own addresses, for example 192.168.1.5:5432 or 127.0.0.0/8:*. Without it, nothing
    #[arg(long, value_name = "HOSTS")]
    pub(crate) allow_host_network_targets: Option<HostPatterns>,
    /// What pods may reach outside the cluster at most, whatever they and their namespaces are granted, for example
    /// *.example.com:443 [default: no bound beside theirs]
    #[arg(long, value_name = "HOSTS")]
    pub(crate) max_allowed_outbound_hosts: Option<HostPatterns>,
    #[command(flatten)]
    pub(crate) names: names::NameArgs,
    #[command(flatten)]
    pub(crate) outside: outside::OutsideArgs,
    #[command(flatten)]
    pub(crate) limits: limits::LimitArgs,
    #[command(flatten)]
    pub(crate) traces: traces::TraceArgs,
    #[command(flatten)]
    pub(crate) server: api::ApiArgs,
    #[command(flatten)]
    pub(crate) node: node::NodeArgs,
    #[command(flatten)]
    pub(crate) images: registry::RegistryArgs,
    /// A KubeSchedulerConfiguration: profiles, plugins and their weights and arguments
    #[arg(long, value_name = "FILE")]
    pub(crate) scheduler_config: Option<PathBuf>,
    /// Where other nodes reach the one of this process; port 0 picks a free one [default: the API server's address, port
    /// 10250 or a free one]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) node_listen: Option<SocketAddr>,
    /// Addresses of this host that Services of type LoadBalancer get: addresses and ranges, separated by commas. Services
    /// share one where their ports let them [default: that of --http]
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) load_balancer: Option<AddressPool>,
    /// Run the control plane alone: pods wait for a node that registers itself through the API
    #[arg(long)]
    pub(crate) no_agent: bool,
    /// What to log on standard error, for example info or podium_agent=debug
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    pub(crate) log: String,
    /// Seconds to wait for what was applied to be ready before saying what is not
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) wait: u64,
}

/// Runs the command until it is told to stop.
///
/// # Errors
/// What keeps the cluster from starting: a bad manifest, a taken port, a folder that somebody else holds.
pub(crate) async fn run(args: UpArgs) -> Result<ExitCode> {
    let since = Instant::now();
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log {:?} is no filter", args.log))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    podium_agent::raise_open_files_limit();
    let documents = check::read(&args.filename)?;
    let scheduling = scheduler::read(args.scheduler_config.as_deref())?;
    let data = DataDir::open(args.data_dir.clone())?;
    println!("Podium {} in {}", env!("CARGO_PKG_VERSION"), data.path().display());
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let cluster = Cluster::start(&args, &data, scheduling).await?;
    println!("  api server   {}  (up after {} ms)", cluster.api_url(), since.elapsed().as_millis());
    if let Some(dns) = cluster.dns() {
        println!("  dns          {dns}  (dig @{} -p {} SERVICE.NAMESPACE.svc.cluster.local)", dns.ip(), dns.port());
    }
    println!("  registry     {}  (podium push FILE.wasm NAME:TAG)", cluster.registry());

    let told = async {
        tokio::select! {
            _ = interrupt.recv() => "Ctrl-C",
            _ = terminate.recv() => "SIGTERM",
        }
    };
    tokio::pin!(told);
    let started = tokio::select! {
        told = &mut told => Err(told),
        started = progress::bring_up(&cluster, documents, &args) => Ok(started),
    };
    let code = match started {
        Ok(Ok(())) => {
            print_next_steps(&cluster, since);
            tokio::spawn(settle());
            let mut failed = cluster.failed();
            tokio::select! {
                told = told => {
                    println!("\n{told}: draining …");
                    ExitCode::SUCCESS
                }
                why = &mut failed => {
                    eprintln!("Error: {why}");
                    ExitCode::FAILURE
                }
            }
        }
        Ok(Err(error)) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
        Err(told) => {
            println!("\n{told}: stopping before everything was ready …");
            ExitCode::SUCCESS
        }
    };
    let mut again = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    tokio::select! {
        () = cluster.shutdown() => {}
        _ = again.recv() => {
            eprintln!("podium: stopped without draining");
            return Ok(ExitCode::from(130));
        }
    }
    println!("Stopped. The data stays in {}.", data.path().display());
    Ok(code)
}

/// A moment after the start, what only the start needed is given back.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let bytes = podium_sandbox::release_idle_code();
    tracing::debug!(bytes, "the start is over; its code is no longer kept in memory");
}

fn print_next_steps(cluster: &Cluster, since: Instant) {
    let kubeconfig = cluster.kubeconfig().display();
    println!("\nReady after {:.2} s.\n", since.elapsed().as_secs_f64());
    println!("  curl {}\n", cluster.http_url());
    println!("  export KUBECONFIG={kubeconfig}");
    println!("  kubectl get pods -o wide          (or: podium get pods -o wide)");
    println!("  podium get events                 (what has happened)\n");
    println!("Ctrl-C drains and stops; the data is kept.");
}
