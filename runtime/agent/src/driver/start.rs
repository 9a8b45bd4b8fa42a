//! Starting one container: image, settings, limits, guest, network. Every step has its own reason to fail.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Container as Spec, Namespace, Pod, Service};
use podium_api::ObjectKey;
use podium_client::ApiExt as _;
use podium_network::{Caller, Dialer, PodFacts};
use podium_sandbox::{ContainerSpec, Group, Image, Mount, Tls};
use tokio::sync::watch;
use tracing::Instrument as _;

use super::{
    PodId, Report, Shared, Started,
    exec::{self, Live},
    guest::{Guest, Runtime, Served},
    hooks::{self, Hook},
    images::{Ready, fetch, without_tag},
    policies::pod_facts,
    termination::{self, Left, MessageFile},
    traps::Traps,
    way_out::{WayOut, membership},
};
use crate::{
    decide::{
        env::{self, Surroundings},
        grants::{self, Granted},
        instances,
        local::{FailureReason, Run, Slot},
        resources,
        restart::is_sidecar,
        security, static_pod,
    },
    images::{ImageConfig, Record},
    logs::writer::Sink,
    streams::pipe::InputReader,
    volumes::{self, PodVolumes},
};

/// The port of an HTTP container whose spec names none.
pub(crate) const PORT_DEFAULT: u16 = 8080;
/// What a core module imports that accepts connections.
const SOCK_ACCEPT: &str = "wasi_snapshot_preview1::sock_accept";

/// A container to start.
pub(crate) struct Job {
    pub(crate) id: PodId,
    pub(crate) pod: Arc<Pod>,
    pub(crate) slot: Slot,
    pub(crate) ip: IpAddr,
    /// Number of the run, for the log file.
    pub(crate) run: i32,
    /// The accounts of its pod.
    pub(crate) group: Arc<Group>,
    /// Fails when nobody wants it to start any more.
    pub(crate) wanted: watch::Receiver<()>,
}

/// Why it did not start.
#[derive(Debug)]
pub(crate) struct StartFailure {
    pub(crate) reason: FailureReason,
    pub(crate) message: String,
}

pub(crate) fn failure(reason: FailureReason, message: impl Into<String>) -> StartFailure {
    StartFailure { reason, message: message.into() }
}

/// Starts it and reports how that went; then reports its end.
pub(crate) async fn start(shared: Arc<Shared>, job: Job) {
    let timer = shared.metrics.start_seconds.start_timer();
    let name = job.slot.spec(&job.pod).map(|s| s.name.clone()).unwrap_or_default();
    let span = tracing::info_span!("guest", pod = %job.id.key, container = name);
    let outcome = run(&shared, &job, &span).instrument(span.clone()).await;
    if outcome.is_ok() {
        timer.observe_duration();
        shared.metrics.started.inc();
    } else {
        timer.stop_and_discard();
        shared.metrics.start_failures.inc();
    }
    let outcome = match outcome {
        Ok((run, runtime)) => {
            let hook_failed = !Box::pin(post_start(&shared, &job, &runtime)).await;
            Ok(Started { run, runtime, hook_failed })
        }
        Err(failure) => Err(failure),
    };
    let running =
        outcome.as_ref().ok().map(|s| (s.runtime.id.clone(), s.runtime.guest.clone(), s.runtime.left.clone()));
    let Job { id: pod, slot, pod: object, .. } = job;
    shared.report(Report::Started { pod: pod.clone(), slot, outcome });
    if let Some((run, guest, left)) = running {
        tokio::spawn(watch(shared, pod, object, slot, run, guest, left));
    }
}

/// Runs `postStart` while the container runs; whether it is to run on.
async fn post_start(shared: &Shared, job: &Job, runtime: &Runtime) -> bool {
    let spec = job.slot.spec(&job.pod);
    let Some(handler) = spec.as_ref().and_then(|s| s.lifecycle.as_ref()?.post_start.as_ref()) else { return true };
    let hook = Hook { id: &job.id, pod: &job.pod, slot: job.slot, ip: job.ip, runtime, handler };
    let mut wanted = job.wanted.clone();
    let outcome = tokio::select! {
        outcome = hooks::run(shared, hook) => outcome,
        // Its end is told as any other.
        _ = runtime.guest.ended() => return true,
        _ = wanted.changed() => return true,
    };
    let Err(why) = outcome else { return true };
    tracing::info!(pod = %job.id.key, why, "a postStart hook failed");
    shared.note(&job.pod, Some(job.slot), true, "FailedPostStartHook", "PostStartHook failed");
    false
}

/// Reports the end of a container. A task of its own: it is all that an idle pod costs, and much smaller than a start.
async fn watch(shared: Arc<Shared>, pod: PodId, object: Arc<Pod>, slot: Slot, run: Arc<str>, guest: Guest, left: Left) {
    let ending = guest.ended().await;
    // Boxed: what is needed only then is not kept by a task that waits for long.
    let message = Box::pin(termination::message(&shared, &object, slot, &left, &ending)).await;
    shared.report(Report::Ended { pod, slot, run, ending, message });
}

async fn run(shared: &Shared, job: &Job, span: &tracing::Span) -> Result<(Run, Box<Runtime>), StartFailure> {
    let missing = || failure(FailureReason::CreateContainerError, "the container is not in the pod's spec");
    let spec = &*job.slot.spec(&job.pod).ok_or_else(missing)?;
    if let Some(why) = security::refusal(&job.pod, spec) {
        return Err(failure(FailureReason::CreateContainerConfigError, why));
    }
    let Granted { grants, missing } = granted(shared, job).await?;
    let volumes = volumes(shared, job).await?;
    let Ready { image, record, .. } = fetch::pull(shared, job, spec).await?;
    let config = &record.config;
    let Settings { args, env, mounts } = settings(shared, job, spec, config, &volumes).await?;
    let log_path = shared.log_index.path(&job.id, &spec.name, job.run);
    let log = shared.log_writer.open(log_path.clone());
    let dir = shared.message_file(&job.id, &spec.name, job.run);
    let (file, mount) = MessageFile::new(spec, &mounts, dir);
    let left = Left { file: Arc::new(file), log: log.clone(), log_path: log_path.into() };
    let mounts = mounts.into_iter().chain(mount).collect();
    let dialer = dialer(shared, job)?;
    let way_out = WayOut::new(dialer.clone(), log.clone());
    let annotations = job.pod.metadata.annotations.as_ref();
    let program: Arc<str> = args.first().map_or("", String::as_str).into();
    let (stdin, reader) = exec::input(spec).unzip();
    let container = ContainerSpec {
        args,
        config: env.clone().into(),
        env,
        mounts,
        stores: volumes.stores(spec),
        tls: Some(Tls::system()),
        working_dir: spec.working_dir.clone().or_else(|| config.working_dir.clone()),
        group: Some(job.group.clone()),
        grants,
        limits: resources::limits(spec, annotations, &shared.node),
        logs: Arc::new(Sink(log)),
        stdin: reader.map(InputReader::stdin),
        tty: spec.tty.unwrap_or(false),
        observer: Some(Arc::new(Traps::new(shared, (&job.pod, job.slot), &left.log, missing))),
        core_dumps: instances::core_dumps(annotations, || shared.pod_core_dumps(&job.id).join(&spec.name)),
        outgoing: Some(Arc::new(way_out.clone())),
        sockets: Some(Arc::new(way_out)),
        listen: listening(&image, spec, config),
        ..ContainerSpec::new(format!("{}/{}", job.id.key, spec.name))
    };
    shared.note(&job.pod, Some(job.slot), false, "Created", "Container created");
    let mut runtime = launch(shared, job, spec, (&image, &record), container, (dialer, left), span)?;
    shared.meter.begin(&job.id, &spec.name, &runtime.guest);
    runtime.program = program;
    let live = Live::new(&runtime, spec, stdin);
    shared.log_index.begin(&job.id, &spec.name, job.run, (runtime.log.clone(), live));
    shared.note(&job.pod, Some(job.slot), false, "Started", "Container started");
    let name = without_tag(spec.image.as_deref().unwrap_or_default());
    let run = Run { id: format!("podium://{}", runtime.id), image_id: format!("{name}@{}", record.digest) };
    Ok((run, Box::new(runtime)))
}

/// What of a container follows from its pod and from other objects.
struct Settings {
    args: Vec<String>,
    env: Vec<(String, String)>,
    mounts: Vec<Mount>,
}

async fn settings(
    shared: &Shared,
    job: &Job,
    spec: &Spec,
    image: &ImageConfig,
    volumes: &PodVolumes,
) -> Result<Settings, StartFailure> {
    let config_error = |message| failure(FailureReason::CreateContainerConfigError, message);
    let references = env::references(spec);
    let namespace = &job.id.key.namespace;
    let sources = volumes::read_all(&*shared.api, namespace, references.config_maps, references.secrets).await;
    let sources = sources.map_err(config_error)?;
    let services = services(shared, &job.pod, namespace);
    let around = Surroundings {
        pod: &job.pod,
        pod_ip: job.ip,
        host_ip: shared.host_ip(),
        node: shared.node,
        sources: &sources,
        services: &services,
    };
    let variables = env::environment(spec, &around).map_err(config_error)?;
    let mut mounts = volumes.mounts(spec, &variables).map_err(config_error)?;
    volumes.add_of_image(&spec.name, &image.volumes, &mut mounts);
    let args = env::argv(spec, &variables, image);
    Ok(Settings { args, env: variables.into_list(image), mounts })
}

/// Which interfaces the container may use.
async fn granted(shared: &Shared, job: &Job) -> Result<Granted, StartFailure> {
    let config_error = |message| failure(FailureReason::CreateContainerConfigError, message);
    let name = &job.id.key.namespace;
    let namespace = namespace(shared, job).await.map_err(config_error)?;
    let of_namespace = namespace.as_ref().and_then(|namespace| namespace.metadata.annotations.as_ref());
    let of_pod = job.pod.metadata.annotations.as_ref();
    grants::grants(of_pod, (name.as_str(), of_namespace), &shared.config.interfaces).map_err(config_error)
}

/// The pod's namespace. One that has not been seen yet may have been made just now: what it forbids must not depend on who is
/// told first. A static pod runs without one, whatever the API says.
async fn namespace(shared: &Shared, job: &Job) -> Result<Option<Arc<Namespace>>, String> {
    let name = &job.id.key.namespace;
    let key = ObjectKey::cluster(name.as_str());
    if let Some(seen) = shared.namespaces.get(&key) {
        return Ok(seen.downcast_arc());
    }
    match shared.api.get_typed::<Namespace>(&key).await {
        Ok(namespace) => Ok(Some(namespace)),
        Err(error) if error.is_not_found() || static_pod::is_file(&job.pod) => Ok(None),
        Err(error) => Err(format!("cannot read what namespace {name} allows: {error}")),
    }
}

/// Makes sure that the pod's volumes are there. Until they are, the container stays as being created.
async fn volumes(shared: &Shared, job: &Job) -> Result<Arc<PodVolumes>, StartFailure> {
    let prepared = shared.volumes.prepare(&job.id, &job.pod, job.ip, &job.group).await;
    prepared.map_err(|why| {
        shared.note(&job.pod, None, true, "FailedMount", why.clone());
        failure(FailureReason::ContainerCreating, why)
    })
}

fn services(shared: &Shared, pod: &Pod, namespace: &str) -> Vec<Arc<Service>> {
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let mut found = if links { shared.services.list(Some(namespace)) } else { Vec::new() };
    if namespace != "default" || !links {
        found.extend(shared.services.get(&ObjectKey::new("default", "kubernetes")));
    }
    found.into_iter().filter_map(|service| service.downcast_arc()).collect()
}

fn launch(
    shared: &Shared,
    job: &Job,
    spec: &Spec,
    (image, record): (&Arc<Image>, &Arc<Record>),
    container: ContainerSpec,
    (dialer, left): (Dialer, Left),
    span: &tracing::Span,
) -> Result<Runtime, StartFailure> {
    let id: Arc<str> = run_id().into();
    let create_error = |error| not_created(spec, &error);
    if !image.kind().is_http() {
        let command = shared.sandbox.command(image, container).map_err(create_error)?;
        return Ok(runtime(shared, id, Guest::Command(Arc::new(command)), (image, record), (dialer, left)));
    }
    let refused = match job.slot {
        Slot::Init(_) if !is_sidecar(spec) => Some("an init container must be a command that ends"),
        Slot::Ephemeral(_) => Some("an ephemeral container must be a command"),
        _ => None,
    };
    if let Some(words) = refused {
        let words = format!("{words}, but its image answers HTTP requests");
        return Err(failure(FailureReason::CreateContainerError, words));
    }
    let in_flight_max = container.limits.concurrency_max.saturating_add(container.limits.queue_max);
    let http = shared.sandbox.http(image, container).map_err(create_error)?;
    let http = Arc::new(http);
    let served = Arc::new(Served { container: http.clone(), span: span.clone(), in_flight_max });
    let mut runtime = runtime(shared, id, Guest::Http(http), (image, record), (dialer, left));
    for port in ports(spec, &record.config) {
        if shared.network.is_attached(job.ip, port) {
            let words = format!("port {port} is taken by another container of the pod; name another containerPort");
            return Err(failure(FailureReason::RunContainerError, words));
        }
        runtime.attachments.push(shared.network.attach(job.ip, port, served.clone()));
    }
    Ok(runtime)
}

/// What the sandbox says, with the image by the name that the pod has for it.
fn not_created(spec: &Spec, error: &podium_sandbox::StartError) -> StartFailure {
    let name = spec.image.as_deref().unwrap_or_default();
    let words = match error {
        podium_sandbox::StartError::Refused { interface, image, why } => {
            format!("the image {name} ({image}) imports {interface}: {why}")
        }
        other => other.to_string(),
    };
    failure(FailureReason::CreateContainerError, words)
}

/// The container's side of the network.
fn dialer(shared: &Shared, job: &Job) -> Result<Dialer, StartFailure> {
    let ObjectKey { namespace, name } = job.id.key.clone();
    let account = job.pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default();
    let caller = Caller { namespace, pod: name, service_account: account, ip: Some(job.ip) };
    let mut member = membership(&job.pod).map_err(|why| failure(FailureReason::CreateContainerConfigError, why))?;
    member.facts = Some(PodFacts { ips: vec![job.ip], ..pod_facts(&job.pod) });
    Ok(shared.network.join(caller, member))
}

/// Where a core module that accepts connections is given sockets that listen: preview 1 can make none.
fn listening(image: &Image, spec: &Spec, config: &ImageConfig) -> Vec<SocketAddr> {
    if image.kind().is_http() || !image.imports().iter().any(|import| import == SOCK_ACCEPT) {
        return Vec::new();
    }
    named_ports(spec, config).into_iter().map(|port| SocketAddr::from(([0, 0, 0, 0], port))).collect()
}

fn runtime(
    shared: &Shared,
    id: Arc<str>,
    guest: Guest,
    (image, record): (&Arc<Image>, &Arc<Record>),
    (dialer, left): (Dialer, Left),
) -> Runtime {
    Runtime {
        id,
        guest,
        attachments: Vec::new(),
        dialer,
        log: left.log.clone(),
        image: image.clone(),
        record: record.clone(),
        _pins: shared.images.pinned(record),
        program: Arc::default(),
        left,
    }
}

/// Every port that the spec names, or else the image, or [`PORT_DEFAULT`].
fn ports(spec: &Spec, image: &ImageConfig) -> Vec<u16> {
    let ports = named_ports(spec, image);
    if ports.is_empty() { vec![PORT_DEFAULT] } else { ports }
}

fn named_ports(spec: &Spec, image: &ImageConfig) -> Vec<u16> {
    let named = spec.ports.iter().flatten().filter(|p| p.protocol.as_deref().unwrap_or("TCP") == "TCP");
    let mut ports: Vec<_> = named.filter_map(|p| u16::try_from(p.container_port).ok()).collect();
    if ports.is_empty() {
        ports.clone_from(&image.exposed_ports);
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// 64 hexadecimal digits, as container runtimes have them.
fn run_id() -> String {
    let words: [u64; 4] = rand::random();
    words.iter().map(|word| format!("{word:016x}")).collect()
}
