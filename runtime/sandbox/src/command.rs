//! A container that runs once from start to end.

use std::{future::poll_fn, sync::Arc};

use tokio::runtime::Handle;

use crate::{
    CpuLimit, Ending, Image, ImageKind, StartError, Usage,
    container::Container,
    dump,
    failure::Failure,
    host,
    image::Code,
    invoke::Call,
    task::{self, Turn},
};

/// A running command. Dropping it kills it.
#[derive(Debug)]
pub struct CommandContainer {
    container: Arc<Container>,
}

impl CommandContainer {
    pub(crate) fn start(runtime: &Handle, container: Arc<Container>, image: &Arc<Image>) -> Result<Self, StartError> {
        start(runtime, container.clone(), image)?;
        Ok(Self { container })
    }

    pub(crate) fn container(&self) -> &Arc<Container> {
        &self.container
    }

    /// Waits for its end. May be called by many, and again.
    pub async fn wait(&self) -> Ending {
        self.container.wait().await
    }

    /// Changes its bounds while it runs: memory that it has stays with it, however little it may have from now on.
    pub fn resize(&self, memory_bytes_max: u64, cpu: CpuLimit) {
        self.container.resize(memory_bytes_max, cpu);
    }

    /// What it has used.
    pub fn usage(&self) -> Usage {
        self.container.usage()
    }

    /// Asks it to end. WASI has no signals, so the guest hears nothing: it may end by itself until it is killed.
    pub fn terminate(&self) {
        tracing::debug!(container = self.container.spec.name, "asked to end; WASI has no signal to tell the guest");
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.container.end(Ending::Killed);
    }
}

impl Drop for CommandContainer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command image as what a container, or a further command within one, is to do.
pub(crate) fn start(runtime: &Handle, container: Arc<Container>, image: &Arc<Image>) -> Result<(), StartError> {
    if image.kind().is_http() || image.kind() == ImageKind::Library {
        return Err(StartError::WrongKind { kind: image.kind().name(), wanted: "a command" });
    }
    container.spec.grants.check(image)?;
    if let Code::CoreReactor(pre) = &image.code {
        Call::of(pre, &container.spec)?;
    }
    if image.looks_at_files() {
        container.files.try_open()?;
    }
    let turn = Arc::new(Turn::default());
    let guest = guest(container.clone(), image.clone(), turn.clone());
    task::spawn(runtime, container, turn, Box::pin(guest));
    Ok(())
}

/// Ends the container even when the guest's future panics or is dropped with its runtime.
struct EndOnDrop(Arc<Container>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(Ending::Killed);
    }
}

async fn guest(container: Arc<Container>, image: Arc<Image>, turn: Arc<Turn>) {
    let on_drop = EndOnDrop(container.clone());
    let ending = tokio::select! {
        biased;
        () = container.ended.cancelled() => Ending::Killed,
        result = run(&container, &image, turn.clone()) => match result {
            _ if container.memory.exceeded() => Ending::OutOfMemory { limit_bytes: container.memory.limit_bytes() },
            Ok(code) => Ending::Finished { code },
            Err(error) => Failure::of(&error).ending(&container),
        },
    };
    // Before whoever waits for the end is told: what it cost is known by then.
    turn.book(&container);
    container.end(ending);
    drop(on_drop);
}

/// Runs the guest; answers with its exit code.
async fn run(container: &Arc<Container>, image: &Image, turn: Arc<Turn>) -> wasmtime::Result<i32> {
    match &image.code {
        Code::CoreCommand(pre) => {
            let mut store = host::core_store(container, turn)?;
            let done = async {
                let instance = pre.instantiate_async(&mut store).await?;
                let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
                start.call_async(&mut store, ()).await
            };
            let done = done.await;
            dump::kept(container, &mut store, done).map(|()| 0)
        }
        Code::CoreReactor(pre) => {
            let mut store = host::core_store(container, turn)?;
            let done = Call::of(pre, &container.spec)?.run(pre, &mut store, container).await;
            dump::kept(container, &mut store, done).map(|()| 0)
        }
        Code::Command(pre) => {
            let mut store = host::store(container, turn);
            let done = async { pre.instantiate_async(&mut store).await?.wasi_cli_run().call_run(&mut store).await };
            let done = done.await;
            dump::kept(container, &mut store, done).map(|result| i32::from(result.is_err()))
        }
        Code::AsyncCommand(pre) => {
            let mut store = host::store(container, turn);
            let done = async {
                let command = pre.instantiate_async(&mut store).await?;
                let ran = store.run_concurrent(async |accessor| {
                    let result = command.wasi_cli_run().call_run(accessor).await?;
                    poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                    wasmtime::error::Ok(result)
                });
                ran.await?
            };
            let done = done.await;
            dump::kept(container, &mut store, done).map(|result| i32::from(result.is_err()))
        }
        Code::HttpHandler(_) | Code::HttpService(_) | Code::Library(_) => {
            wasmtime::bail!("invariant: an HTTP image is not started as a command")
        }
    }
}
