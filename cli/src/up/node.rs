//! The node agent of `podium up`, and its flags.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use podium_agent::{
    AddressPool, Agent, AgentConfig, InterfaceGroups, InterfacePatterns, InterfacePolicy, streams::Tools,
};
use podium_api::{
    Reason,
    k8s_openapi::{api::storage::v1::StorageClass, apimachinery::pkg::apis::meta::v1::ObjectMeta},
};
use podium_client::ApiRef;
use podium_network::Network;
use podium_sandbox::{CompilerCommand, Sandbox, SandboxConfig};

use super::{UpArgs, data_dir::DataDir};

/// What the node agent is told.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NodeArgs {
    /// Name of the node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Folder below which `file://` images may lie. Repeatable
    #[arg(long, value_name = "DIR")]
    pub(crate) image_dir: Vec<PathBuf>,
    /// Commands that `kubectl exec` finds in every container beside those of its image: `builtin`, `none`, or an image
    #[arg(long, value_name = "TOOLS", default_value = "builtin")]
    pub(crate) tools: String,
    /// Folder below which `hostPath` volumes may lie. Repeatable
    #[arg(long, value_name = "DIR")]
    pub(crate) host_path_dir: Vec<PathBuf>,
    /// Groups of interfaces that pods may use at most, for example wasi:http,wasi:keyvalue [default: all]
    #[arg(long, value_name = "GROUPS")]
    pub(crate) max_allowed_interfaces: Option<InterfaceGroups>,
    /// Interfaces that no pod's image may import, for example wasi:sockets/udp*,wasi_snapshot_preview1::sock_accept
    #[arg(long, value_name = "PATTERNS")]
    pub(crate) refused_interfaces: Option<InterfacePatterns>,
    /// Addresses of this host that Services of type LoadBalancer get: addresses and ranges, separated by commas. Services
    /// share one where their ports let them [default: that of --http]
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) load_balancer: Option<AddressPool>,
    /// Folder of manifests of static pods: they run whatever the API says, which shows mirrors of them
    #[arg(long, value_name = "DIR")]
    pub(crate) static_pods: Option<PathBuf>,
}

/// Starts the agent of this process, and makes what a cluster with it has.
///
/// # Errors
/// When a flag names what cannot be used, or the sandbox or the agent does not start.
pub(super) async fn start(
    args: &UpArgs,
    data: &DataDir,
    api: ApiRef,
    network: &Network,
    (metrics, registry): (prometheus::Registry, SocketAddr),
) -> Result<Agent> {
    let sandbox = SandboxConfig {
        cache_dir: Some(data.join("cache")),
        compiler: Some(compiler()?),
        scratch_dir: Some(data.join("scratch")),
        ..SandboxConfig::default()
    };
    let sandbox = Sandbox::new(sandbox).context("the sandbox did not start")?;
    let mut config = AgentConfig::new(node_name(args)?, data.path());
    config.image_dirs = image_dirs(args)?;
    config.host_path_dirs = canonical(&args.node.host_path_dir, "--host-path-dir")?;
    config.interfaces = InterfacePolicy {
        max_allowed: args.node.max_allowed_interfaces.clone(),
        refused: args.node.refused_interfaces.clone().unwrap_or_default(),
    };
    config.static_pods_dir.clone_from(&args.node.static_pods);
    let own = Some(args.http.ip()).filter(|ip| !ip.is_unspecified()).unwrap_or(config.node_ip);
    config.load_balancer = Some(args.node.load_balancer.clone().unwrap_or_else(|| own.into()));
    config.metrics = metrics;
    config.registries = args.images.registries()?;
    if args.images.test_images {
        super::test_images::stand_in(&mut config.registries, registry)?;
    }
    config.registries.built_in = Some(registry.to_string());
    config.tools = tools(&args.node.tools);
    let agent = Agent::start(config, api.clone(), sandbox, network.clone()).await;
    let agent = agent.context("the node agent did not start")?;
    match api.create(Box::new(storage_class())).await {
        Err(error) if error.reason != Reason::AlreadyExists => Err(error).context("make the default storage class"),
        _ => Ok(agent),
    }
}

/// Claims that name no class get a folder of the node that their first pod runs on.
fn storage_class() -> StorageClass {
    let default = ("storageclass.kubernetes.io/is-default-class".to_owned(), "true".to_owned());
    StorageClass {
        metadata: ObjectMeta {
            name: Some("local".to_owned()),
            annotations: Some([default].into()),
            ..ObjectMeta::default()
        },
        provisioner: podium_agent::PROVISIONER.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        ..StorageClass::default()
    }
}

/// Folders by their real paths.
fn canonical(dirs: &[PathBuf], flag: &str) -> Result<Vec<PathBuf>> {
    let real = |dir: &PathBuf| dir.canonicalize().with_context(|| format!("cannot use {flag} {}", dir.display()));
    dirs.iter().map(real).collect()
}

/// What `--tools` says.
fn tools(name: &str) -> Tools {
    match name {
        "none" => Tools::Off,
        "builtin" => Tools::Module(Bytes::from_static(include_bytes!("../../../sdk/tools/tools.wasm"))),
        image => Tools::Image(image.to_owned()),
    }
}

/// This program itself compiles, in processes of its own.
fn compiler() -> Result<CompilerCommand> {
    // Still the same program when a newer one has taken its file's place.
    let running = Path::new("/proc/self/exe");
    let program = if running.exists() {
        running.to_owned()
    } else {
        std::env::current_exe().context("cannot find the program's own file")?
    };
    Ok(CompilerCommand { program, args: vec![crate::COMPILE_WORKER.to_owned()] })
}

/// The folders that `--image-dir` and `-f` grant.
fn image_dirs(args: &UpArgs) -> Result<Vec<PathBuf>> {
    let of_manifest =
        |path: &PathBuf| if path.is_dir() { Some(path.clone()) } else { path.parent().map(Path::to_path_buf) };
    let granted = args.node.image_dir.iter().cloned().chain(args.filename.iter().filter_map(of_manifest));
    granted
        .map(|dir| if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir })
        .map(|dir| dir.canonicalize().with_context(|| format!("cannot use the image folder {}", dir.display())))
        .collect()
}

/// The node's name: a DNS subdomain, as Kubernetes wants it.
fn node_name(args: &UpArgs) -> Result<String> {
    let name = match &args.node.node_name {
        Some(name) => name.clone(),
        None => {
            let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
            let name: String =
                host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
            let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
            if name.is_empty() { "podium".to_owned() } else { name }
        }
    };
    if let Some(why) = podium_api::names::is_dns1123_subdomain(&name).first() {
        bail!("{name:?} cannot be the node's name: {why}: name it with --node-name");
    }
    Ok(name)
}
