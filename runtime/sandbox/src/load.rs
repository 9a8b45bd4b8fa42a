//! From a file to an image: read, initialised once if it asks for that, compiled or taken from the cache, linked.
//!
//! Nothing here blocks the runtime: what computes or reads files does so on threads for that.

use std::{
    fs::File,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::{
    Image, ImageKind, LoadError, adapt,
    cache::hex,
    compile::{self, Lane, Work},
    image::Compiled,
    initialise,
    inspect::{self, Inspected},
    sandbox::Node,
};

/// How long a compile may take in the lane for small images, before it has to begin again in the other.
const SMALL_TIME: Duration = Duration::from_secs(5);

/// How to load an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LoadOptions {
    /// For whom: requesters take turns in the queue for the compiler. Any name, such as a namespace.
    pub requester: String,
    /// What is called once: instances begin with what it leaves in memory.
    pub initialise: Initialise,
}

/// A function that is called once, when an image is loaded, instead of by each instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Initialise {
    /// The export `wizer-initialize`, if there is one.
    #[default]
    Usual,
    /// This export; without it the image is refused.
    Export(String),
    /// None, whatever is exported.
    Never,
}

impl Initialise {
    /// Names an image that is initialised so: one file that is initialised in another way is another image.
    pub(crate) fn key(&self, digest: &str) -> String {
        match self {
            Self::Usual => digest.to_owned(),
            Self::Export(export) => format!("{digest} after {export}"),
            Self::Never => format!("{digest} as it is"),
        }
    }
}

/// What is known of a file before it is compiled.
struct Read {
    wasm: Bytes,
    inspected: Inspected,
    initialise: Option<String>,
    size_bytes: u64,
}

/// Loads an image that is not in memory.
pub(crate) async fn load(
    node: Arc<Node>,
    digest: String,
    file: Bytes,
    options: LoadOptions,
) -> Result<Image, LoadError> {
    let limits = node.config.compile;
    let asked = options.initialise;
    let Read { wasm, inspected, initialise, size_bytes } = blocking(move || {
        let size_bytes = file.len() as u64;
        let wasm = inspect::binary(file)?;
        compile::check(&wasm, &limits)?;
        let wasm = adapt::adapted(wasm)?;
        let inspected = inspect::inspect(&wasm)?;
        let initialise = initialise::wanted(&wasm, asked);
        Ok(Read { wasm, inspected, initialise, size_bytes })
    })
    .await?;
    let name = digest.trim_start_matches("sha256:").to_owned();
    let of = Of { node: &node, kind: inspected.kind, requester: &options.requester };
    let compiled = match initialise {
        None => of.compiled(name, wasm).await?,
        Some(export) => of.initialised(name, wasm, export).await?,
    };
    blocking(move || Image::link(&compiled, &node.linkers, digest, inspected, size_bytes)).await
}

/// What is compiled, for whom.
struct Of<'a> {
    node: &'a Arc<Node>,
    kind: ImageKind,
    requester: &'a str,
}

impl Of<'_> {
    /// Code of a component as its initialisation leaves it.
    async fn initialised(&self, name: String, wasm: Bytes, export: String) -> Result<Compiled, LoadError> {
        let hash = hex(&Sha256::digest(export.as_bytes())[..8]);
        let name = format!("{name}-{hash}");
        if let Some(compiled) = self.cached(&name).await? {
            return Ok(compiled);
        }
        let (source, named) = (wasm.clone(), export.clone());
        let instrumented = blocking(move || initialise::instrumented(&source, &named)).await?;
        let instrumented = self.compiled(format!("{name}-once"), instrumented).await?;
        let start = Instant::now();
        let snapshot = initialise::snapshot(self.node, wasm, instrumented, export).await;
        // Nobody asks for this again.
        if let Some(cache) = &self.node.cache {
            cache.remove(&format!("{name}-once"));
        }
        let snapshot = snapshot?;
        tracing::info!(image = name, bytes = snapshot.len(), millis = start.elapsed().as_millis(), "initialised");
        let limit_bytes = self.node.config.image_bytes_max;
        if snapshot.len() as u64 > limit_bytes {
            return Err(LoadError::TooLarge { bytes: snapshot.len() as u64, limit_bytes });
        }
        self.compiled(name, snapshot).await
    }

    async fn cached(&self, name: &str) -> Result<Option<Compiled>, LoadError> {
        let (node, name, kind) = (self.node.clone(), name.to_owned(), self.kind);
        blocking(move || Ok(node.cached_code(&name, kind))).await
    }

    /// Compiled code by name: from the cache, else compiled and kept there.
    async fn compiled(&self, name: String, wasm: Bytes) -> Result<Compiled, LoadError> {
        if let Some(compiled) = self.cached(&name).await? {
            return Ok(compiled);
        }
        let Self { node, kind, requester } = *self;
        let started = Instant::now();
        let mut lane = Lane::of(wasm.len());
        loop {
            let full = |_| LoadError::CompileQueueFull { waiting: node.config.compile.queue_max };
            let turn = node.compiles.turn(lane, requester, wasm.len()).await.map_err(full)?;
            tracing::info!(image = name, bytes = wasm.len(), ?lane, "compiling");
            let limit = node.config.compile.time;
            let time = if lane == Lane::Small { limit.min(SMALL_TIME) } else { limit };
            let done = compile(node, &name, kind, wasm.clone(), time).await;
            drop(turn);
            match done {
                Err(LoadError::CompileTimedOut { .. }) if lane == Lane::Small && time < limit => lane = Lane::Large,
                Err(error) => {
                    tracing::warn!(image = name, %error, "cannot compile");
                    return Err(error);
                }
                Ok(compiled) => {
                    tracing::info!(image = name, millis = started.elapsed().as_millis(), "compiled");
                    return Ok(compiled);
                }
            }
        }
    }
}

async fn compile(
    node: &Arc<Node>,
    name: &str,
    kind: ImageKind,
    wasm: Bytes,
    time: Duration,
) -> Result<Compiled, LoadError> {
    let (node, name) = (node.clone(), name.to_owned());
    if node.config.compiler.is_none() {
        return blocking(move || compile_here(&node, &name, kind, &wasm)).await;
    }
    let of_task = node.clone();
    let (module, artefact) = blocking(move || files(&of_task, &wasm)).await?;
    let out = artefact.handle()?;
    let work = Work {
        compiler: node.config.compiler.as_ref().ok_or_else(|| interrupted("the compiler is gone"))?,
        engine: &node.compatibility,
        component: !kind.is_core(),
        limits: &node.config.compile,
        time,
    };
    compile::run(work, module, out).await?;
    blocking(move || artefact.keep(&node, &name, kind)).await
}

/// Where an artefact goes: into the cache's folder when there is one.
enum Artefact {
    Cached(tempfile::NamedTempFile),
    Alone(File),
}

fn scratch(error: std::io::Error) -> LoadError {
    LoadError::CompilerFailed { reason: format!("cannot use a temporary file: {error}") }
}

fn files(node: &Node, wasm: &[u8]) -> Result<(File, Artefact), LoadError> {
    use std::io::{Seek as _, Write as _};
    let artefact = match &node.cache {
        Some(cache) => Artefact::Cached(cache.unfinished().map_err(scratch)?),
        None => Artefact::Alone(tempfile::tempfile().map_err(scratch)?),
    };
    let module = match &node.config.cache_dir {
        Some(dir) => tempfile::tempfile_in(dir),
        None => tempfile::tempfile(),
    };
    let mut module = module.map_err(scratch)?;
    module.write_all(wasm).and_then(|()| module.rewind()).map_err(scratch)?;
    Ok((module, artefact))
}

impl Artefact {
    fn handle(&self) -> Result<File, LoadError> {
        match self {
            Self::Cached(file) => file.as_file().try_clone().map_err(scratch),
            Self::Alone(file) => file.try_clone().map_err(scratch),
        }
    }

    fn keep(self, node: &Node, name: &str, kind: ImageKind) -> Result<Compiled, LoadError> {
        let unusable = |error: wasmtime::Error| LoadError::CompilerFailed {
            reason: format!("its output does not load: {error:#}"),
        };
        match (self, &node.cache) {
            (Self::Alone(file), _) => Compiled::map(&node.engine, kind, file).map_err(unusable),
            (Self::Cached(file), Some(cache)) => {
                let mapped = file.as_file().try_clone().map_err(scratch)?;
                if let Err(error) = cache.keep(name, file) {
                    tracing::warn!(image = name, %error, "cannot keep compiled code");
                }
                Compiled::map(&node.engine, kind, mapped).map_err(unusable)
            }
            (Self::Cached(_), None) => Err(interrupted("the cache is gone")),
        }
    }
}

/// Compiles in this process. A cache that cannot be written costs time at the next start, nothing else.
fn compile_here(node: &Node, name: &str, kind: ImageKind, wasm: &[u8]) -> Result<Compiled, LoadError> {
    use std::io::Write as _;
    compile::check_bodies(wasm, node.config.compile.nesting_max)?;
    let refused = |error: wasmtime::Error| LoadError::Compile { reason: format!("{error:#}") };
    let Some(cache) = &node.cache else {
        return Compiled::compile(&node.engine, kind, wasm).map_err(refused);
    };
    let artefact = Compiled::artefact(&node.engine, kind, wasm).map_err(refused)?;
    let kept = cache.unfinished().and_then(|mut file| {
        file.write_all(&artefact)?;
        cache.keep(name, file)
    });
    if let Err(error) = kept {
        tracing::warn!(image = name, %error, "cannot keep compiled code");
    }
    drop(artefact);
    match node.cached_code(name, kind) {
        Some(compiled) => Ok(compiled),
        None => Compiled::compile(&node.engine, kind, wasm).map_err(refused),
    }
}

impl Node {
    fn cached_code(&self, name: &str, kind: ImageKind) -> Option<Compiled> {
        let cache = self.cache.as_ref()?;
        match Compiled::map(&self.engine, kind, cache.find(name)?) {
            Ok(compiled) => Some(compiled),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(image = name, error, "cached code does not load: compiling again");
                cache.remove(name);
                None
            }
        }
    }
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work).await.map_err(interrupted)?
}

pub(crate) fn interrupted(error: impl std::fmt::Display) -> LoadError {
    LoadError::Interrupted { reason: error.to_string() }
}
