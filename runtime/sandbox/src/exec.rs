//! A further command within a container that runs: it shares the container's accounts, mounts and network, and ends with it.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::{
    CommandContainer, ContainerSpec, Ending, HttpContainer, Image, LogSink, StartError, Stdin, command,
    container::Container,
};

/// A command to run within a container.
#[derive(Clone)]
pub struct ExecSpec {
    /// `argv`, the program's name first.
    pub args: Vec<String>,
    /// Added to the container's environment; a name that is there already is replaced.
    pub env: Vec<(String, String)>,
    /// The folder that it starts in; `None`: the container's.
    pub working_dir: Option<String>,
    /// Where its output goes.
    pub logs: Arc<dyn LogSink>,
    /// Where its input comes from; `None`: an empty one.
    pub stdin: Option<Stdin>,
    /// Whether its streams say that they are a terminal.
    pub tty: bool,
}

impl ExecSpec {
    /// A command whose output goes to `logs`.
    pub fn new(args: Vec<String>, logs: Arc<dyn LogSink>) -> Self {
        Self { args, env: Vec::new(), working_dir: None, logs, stdin: None, tty: false }
    }

    /// The container's spec with these changes.
    fn applied(self, container: &ContainerSpec) -> ContainerSpec {
        let mut env = container.env.clone();
        env.retain(|(name, _)| self.env.iter().all(|(added, _)| added != name));
        env.extend(self.env);
        ContainerSpec {
            args: self.args,
            env,
            working_dir: self.working_dir.or_else(|| container.working_dir.clone()),
            logs: self.logs,
            stdin: self.stdin,
            tty: self.tty,
            ..container.clone()
        }
    }
}

/// A command that runs within a container. Dropping it kills it.
#[derive(Debug)]
pub struct Exec {
    container: Arc<Container>,
}

impl Exec {
    /// Starts it on the current tokio runtime.
    fn start(within: &Arc<Container>, image: &Arc<Image>, spec: ExecSpec) -> Result<Self, StartError> {
        if within.ended.is_cancelled() {
            return Err(StartError::Ended);
        }
        let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let container = Container::within(within, spec.applied(&within.spec));
        command::start(&runtime, container.clone(), image)?;
        Ok(Self { container })
    }

    /// Waits for its end. May be called by many, and again.
    pub async fn wait(&self) -> Ending {
        self.container.wait().await
    }

    /// Ends it at once; the container goes on.
    pub fn kill(&self) {
        self.container.end(Ending::Killed);
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        self.kill();
    }
}

impl HttpContainer {
    /// Runs a command within this container: of its own image or of another.
    ///
    /// # Errors
    /// When the image is no command or may not start here, when the container has ended, or outside a tokio runtime.
    pub fn exec(&self, image: &Arc<Image>, spec: ExecSpec) -> Result<Exec, StartError> {
        Exec::start(self.container(), image, spec)
    }
}

impl CommandContainer {
    /// Runs a further command within this container: of its own image or of another.
    ///
    /// # Errors
    /// When the image is no command or may not start here, when the container has ended, or outside a tokio runtime.
    pub fn exec(&self, image: &Arc<Image>, spec: ExecSpec) -> Result<Exec, StartError> {
        Exec::start(self.container(), image, spec)
    }
}
