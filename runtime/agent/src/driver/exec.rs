//! Commands in running containers, attaching to them, and connections to their ports.
//!
//! A command is, in this order: one of the container's own image, the image's program itself, one of the node's tools. It
//! shares the container's accounts, environment, mounts and network, and ends with its client.
//!
//! # Source
//! Kubernetes `pkg/kubelet/kubelet.go` (`GetExec`, `GetAttach`, `GetPortForward`) for what is said when there is nothing.

use std::{
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use k8s_openapi::api::core::v1::{Container, Pod};
use podium_api::ObjectKey;
use podium_network::{CallError, Network, PodStream};
use podium_sandbox::{
    CommandContainer, Ending, ExecSpec, HttpContainer, Image, Initialise, LogSink as _, StartError, Stream,
};
use tokio::{sync::Notify, time::timeout};

use super::{
    PodId, Shared,
    guest::{Guest, Runtime},
    id_of,
    images::{PullPolicy, Wanted},
};
use crate::{
    images::{Record, credentials::Keyring},
    logs::writer::ContainerLog,
    streams::{
        AttachOptions, Input, PodPorts, Session, StreamError, Streaming, Streams, TerminalSize, Tools,
        pipe::{InputPipe, InputReader, Pipes, next_input},
        terminal::{Event, Terminal},
    },
};

/// How long a client with a terminal may take to say how large it is.
const SIZE_WITHIN: Duration = Duration::from_millis(100);
/// Of what was interrupted, as of a shell.
const INTERRUPTED: i32 = 130;
const KILLED: i32 = 137;
const ABORTED: i32 = 134;
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// A running container as clients reach it. Keeps nothing alive.
#[derive(Clone)]
pub(crate) struct Live {
    guest: WeakGuest,
    place: Place,
    stdin: Option<Arc<InputPipe>>,
    stdin_once: bool,
}

/// Where commands are looked for.
#[derive(Clone)]
pub(crate) struct Place {
    /// What the container's image offers.
    pub(crate) record: Arc<Record>,
    /// The container's own module.
    pub(crate) image: Weak<Image>,
    /// What that is called: the first word of what it was started with.
    pub(crate) program: Arc<str>,
}

#[derive(Clone)]
enum WeakGuest {
    Http(Weak<HttpContainer>),
    Command(Weak<CommandContainer>),
}

/// A container's input as its spec wants it: what the guest reads, and where clients write.
pub(crate) fn input(spec: &Container) -> Option<(Arc<InputPipe>, InputReader)> {
    spec.stdin.unwrap_or(false).then(InputPipe::new)
}

impl Live {
    pub(crate) fn new(runtime: &Runtime, spec: &Container, stdin: Option<Arc<InputPipe>>) -> Self {
        let guest = match &runtime.guest {
            Guest::Http(container) => WeakGuest::Http(Arc::downgrade(container)),
            Guest::Command(container) => WeakGuest::Command(Arc::downgrade(container)),
        };
        Self {
            guest,
            place: Place {
                record: runtime.record.clone(),
                image: Arc::downgrade(&runtime.image),
                program: runtime.program.clone(),
            },
            stdin,
            stdin_once: spec.stdin_once.unwrap_or(false),
        }
    }

    fn guest(&self) -> Option<Guest> {
        match &self.guest {
            WeakGuest::Http(container) => container.upgrade().map(Guest::Http),
            WeakGuest::Command(container) => container.upgrade().map(Guest::Command),
        }
    }
}

impl Place {
    /// Whether a command means the image's own program.
    fn is_program(&self, command: &str) -> bool {
        let file = |path: &str| path.rsplit('/').next().unwrap_or_default().trim_end_matches(".wasm").to_owned();
        !self.program.is_empty() && file(command) == file(&self.program)
    }
}

/// What a command turned out to be.
pub(crate) enum Found {
    Program(Arc<Image>),
    /// Nothing that can run: what the client reads, and the exit code.
    Nothing(String, i32),
}

impl Found {
    fn failed(command: &str, why: &str, code: i32) -> Self {
        Self::Nothing(
            format!(
                "OCI runtime exec failed: exec failed: unable to start container process: exec: {command:?}: {why}\n"
            ),
            code,
        )
    }
}

/// Streams into the containers of this node.
pub(crate) struct Streamer(pub(crate) Arc<Shared>);

impl Streamer {
    fn pod(&self, key: &ObjectKey) -> Result<Arc<Pod>, StreamError> {
        self.0.pods.get(key).and_then(|object| object.downcast_arc::<Pod>()).ok_or(StreamError::NoPod)
    }

    fn live(&self, id: &PodId, container: &str) -> Result<(Live, Guest, Arc<ContainerLog>), StreamError> {
        let missing = || StreamError::NotRunning(format!("container not found ({container:?})"));
        let (live, log) = self.0.log_index.live(id, container).ok_or_else(missing)?;
        let guest = live.guest().ok_or_else(missing)?;
        if guest.ended().now_or_never().is_some() {
            return Err(missing());
        }
        Ok((live, guest, log))
    }
}

/// What a command means in a container.
pub(crate) async fn find(shared: &Shared, place: &Place, command: &str) -> Found {
    if let Ok(Some(image)) = shared.images.command(&place.record, command).await {
        return runnable(image, command);
    }
    match place.image.upgrade().filter(|_| place.is_program(command)) {
        Some(image) => runnable(image, command),
        None => tool(shared, command).await,
    }
}

async fn tool(shared: &Shared, command: &str) -> Found {
    let loaded = match &shared.config.tools {
        Tools::Off => return Found::failed(command, "executable file not found in $PATH", NOT_FOUND),
        Tools::Module(wasm) => shared.sandbox.load(wasm.clone()).await.map_err(|e| e.to_string()),
        Tools::Image(name) => {
            let keyring = Keyring::default();
            let policy = PullPolicy::IfNotPresent;
            let initialise = &Initialise::Usual;
            let wanted = Wanted { requester: "", name, policy, command: Some(command), keyring: &keyring, initialise };
            match shared.images.get(wanted, |_| {}).await {
                Ok(ready) => Ok(ready.image),
                Err(error) => Err(format!("the tools image {name:?} cannot be used: {error:?}")),
            }
        }
    };
    match loaded {
        Ok(image) => runnable(image, command),
        Err(why) => Found::failed(command, &why, NOT_EXECUTABLE),
    }
}

fn runnable(image: Arc<Image>, command: &str) -> Found {
    if image.kind().is_http() {
        let why = "the image's program answers HTTP requests and is no command";
        return Found::failed(command, why, NOT_EXECUTABLE);
    }
    Found::Program(image)
}

impl Streaming for Streamer {
    fn exec<'a>(
        &'a self,
        pod: &'a ObjectKey,
        options: AttachOptions,
        command: Vec<String>,
    ) -> BoxFuture<'a, Result<Session, StreamError>> {
        Box::pin(async move {
            let pod = self.pod(pod)?;
            let (live, guest, _) = self.live(&id_of(&pod), &options.container)?;
            let found = find(&self.0, &live.place, command.first().map_or("", String::as_str)).await;
            let session: Session = Box::new(move |streams| Box::pin(run(guest, found, command, options, streams)));
            Ok(session)
        })
    }

    fn attach<'a>(&'a self, pod: &'a ObjectKey, options: AttachOptions) -> BoxFuture<'a, Result<Session, StreamError>> {
        Box::pin(async move {
            let pod = self.pod(pod)?;
            let (live, guest, log) = self.live(&id_of(&pod), &options.container)?;
            let pipes = Pipes::new(options.tty);
            log.tap(&pipes);
            let session: Session = Box::new(move |streams| Box::pin(take_part(live, guest, pipes, options, streams)));
            Ok(session)
        })
    }

    fn port_forward<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Arc<dyn PodPorts>, StreamError>> {
        Box::pin(async move {
            let pod = self.pod(key)?;
            let status = pod.status.as_ref();
            let ip = status
                .filter(|s| s.phase.as_deref() == Some("Running"))
                .and_then(|s| s.pod_ip.as_deref()?.parse().ok());
            let ip = ip.ok_or_else(|| {
                StreamError::NotRunning(format!("pod not found (\"{}_{}\")", key.name, key.namespace))
            })?;
            Ok(Arc::new(Ports { network: self.0.network.clone(), ip }) as Arc<dyn PodPorts>)
        })
    }
}

struct Ports {
    network: Network,
    ip: IpAddr,
}

impl PodPorts for Ports {
    fn connect(&self, port: u16) -> BoxFuture<'_, Result<PodStream, String>> {
        Box::pin(async move {
            self.network.connect_pod(self.ip, port).await.map_err(|error| {
            let why = match error {
                CallError::Refused(_) => "connection refused".to_owned(),
                other => other.to_string(),
            };
            format!("failed to connect to localhost:{port} inside the pod's network: dial tcp4 127.0.0.1:{port}: connect: {why}")
        })
        })
    }
}

/// Runs a command until it or its client ends.
async fn run(
    guest: Guest,
    found: Found,
    command: Vec<String>,
    options: AttachOptions,
    mut streams: Streams,
) -> Result<i32, String> {
    let pipes = Pipes::new(options.tty);
    let image = match found {
        Found::Program(image) => image,
        Found::Nothing(words, code) => {
            pipes.write(Stream::Stderr, words.as_bytes());
            pipes.end();
            pipes.pump(&mut streams.stdout, &mut streams.stderr).await;
            return Ok(code);
        }
    };
    let mut spec = ExecSpec { tty: options.tty, ..ExecSpec::new(command, pipes.clone()) };
    if options.tty {
        spec.env = terminal_env(&mut streams).await;
    }
    let (to_guest, reader) = InputPipe::new();
    let input = streams.stdin.take().filter(|_| options.stdin);
    spec.stdin = input.is_some().then(|| reader.stdin());
    let exec = match &guest {
        Guest::Http(container) => container.exec(&image, spec),
        Guest::Command(container) => container.exec(&image, spec),
    };
    // Else the container would live on for as long as its client.
    drop(guest);
    let exec = exec.map_err(|error| match error {
        StartError::Ended => "container is not running".to_owned(),
        other => other.to_string(),
    })?;
    let interrupted = Notify::new();
    let working = async {
        let code = tokio::select! {
            ending = exec.wait() => code_of(&ending, &pipes),
            () = interrupted.notified() => INTERRUPTED,
        };
        exec.kill();
        pipes.end();
        code
    };
    let typing = async {
        if let Some(input) = input {
            feed(input, &to_guest, &pipes, &options, &interrupted).await;
            to_guest.end();
        }
        std::future::pending::<()>().await;
    };
    let both = async { tokio::join!(working, pipes.pump(&mut streams.stdout, &mut streams.stderr)).0 };
    tokio::select! {
        code = both => Ok(code),
        () = typing => Ok(0),
    }
}

/// What a program may want to know of its terminal.
async fn terminal_env(streams: &mut Streams) -> Vec<(String, String)> {
    let mut env = vec![("TERM".to_owned(), "xterm".to_owned())];
    let known = timeout(SIZE_WITHIN, streams.size.wait_for(Option::is_some)).await;
    if let Ok(Ok(size)) = known
        && let Some(TerminalSize { width, height }) = *size
    {
        env.extend([("COLUMNS".to_owned(), width.to_string()), ("LINES".to_owned(), height.to_string())]);
    }
    env
}

fn code_of(ending: &Ending, pipes: &Pipes) -> i32 {
    match ending {
        Ending::Finished { code } => *code,
        Ending::Trapped { message, backtrace } => {
            let words = format!("the command trapped: {message}\n{}\n", backtrace.join("\n"));
            pipes.write(Stream::Stderr, words.as_bytes());
            ABORTED
        }
        Ending::OutOfMemory { limit_bytes } => {
            let words = format!("the command went past the container's memory limit of {limit_bytes} bytes\n");
            pipes.write(Stream::Stderr, words.as_bytes());
            KILLED
        }
        Ending::TimedOut | Ending::Killed => KILLED,
    }
}

/// Carries input until its end.
async fn feed(mut input: Input, to_guest: &InputPipe, pipes: &Pipes, options: &AttachOptions, interrupted: &Notify) {
    let mut terminal = Terminal::default();
    while let Some(bytes) = next_input(&mut input).await {
        if !options.tty {
            // One that reads no more may still write: the client's bytes are thrown away.
            to_guest.send(bytes).await;
            continue;
        }
        let typed = terminal.take(&bytes);
        pipes.echo(&typed.echo);
        if !typed.input.is_empty() {
            to_guest.send(typed.input.into()).await;
        }
        match typed.event {
            Some(Event::Interrupt) => interrupted.notify_one(),
            Some(Event::End) => to_guest.end(),
            None => {}
        }
    }
}

/// Takes part in a container until it, or its client, ends.
async fn take_part(
    live: Live,
    guest: Guest,
    pipes: Arc<Pipes>,
    options: AttachOptions,
    mut streams: Streams,
) -> Result<i32, String> {
    let interrupted = Notify::new();
    let typing = async {
        if let (Some(input), Some(to_guest)) = (streams.stdin.take(), live.stdin.clone().filter(|_| options.stdin)) {
            feed(input, &to_guest, &pipes, &options, &interrupted).await;
            if live.stdin_once {
                to_guest.end();
            }
        }
        std::future::pending::<()>().await;
    };
    let ending = async {
        tokio::select! {
            _ = guest.ended() => {}
            () = interrupted.notified() => {
                guest.kill();
                guest.ended().await;
            }
        }
        drop(guest);
        pipes.end();
    };
    let both = async {
        tokio::join!(ending, pipes.pump(&mut streams.stdout, &mut streams.stderr));
    };
    tokio::select! {
        () = both => Ok(0),
        () = typing => Ok(0),
    }
}
