//! The entry: one engine per process, and what all containers share.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture, future::Shared};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::runtime::{Handle, Runtime};
use wasmtime::Engine;

use crate::{
    CommandContainer, ContainerSpec, Group, GroupLimits, HttpContainer, Image, Initialise, LoadError, LoadOptions,
    Plugin, SandboxConfig, SandboxError, StartError,
    cache::{CodeCache, compatibility, hex},
    compile::Queue,
    container::Container,
    engine,
    image::Linkers,
    load::{self, blocking, interrupted},
    memory::MemoryAccount,
    mounts,
    ticker::Ticker,
    turns::Turns,
};

/// How much less than others the background lane's threads get while the node is busy: a quarter of a full share.
const BACKGROUND_NICE: i32 = 5;

/// One engine with its caches and clocks. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) node: Arc<Node>,
}

/// What all containers of a node share.
pub(crate) struct Node {
    pub(crate) config: SandboxConfig,
    pub(crate) engine: Engine,
    pub(crate) ticker: Ticker,
    pub(crate) memory: Arc<MemoryAccount>,
    /// Turns of guests that compute long, on `background`.
    pub(crate) turns: Arc<Turns>,
    pub(crate) linkers: Linkers,
    pub(crate) cache: Option<CodeCache>,
    pub(crate) compiles: Arc<Queue>,
    /// Names the engine among all that compiled code could be for.
    pub(crate) compatibility: String,
    images: Mutex<Images>,
    /// Threads of lower priority for guests that compute long. Present until dropped.
    background: Option<Runtime>,
}

type Loading = Shared<BoxFuture<'static, Result<Arc<Image>, LoadError>>>;

#[derive(Default)]
struct Images {
    known: HashMap<String, Weak<Image>>,
    loading: HashMap<String, Loading>,
    /// Kept though nobody may use them, newest last.
    kept: VecDeque<Arc<Image>>,
}

impl Sandbox {
    /// Makes the engine and reserves its address space.
    ///
    /// # Errors
    /// When the address space is too small or the cache folder cannot be used.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        if let Some(dir) = &config.scratch_dir {
            mounts::sweep(dir)
                .map_err(|error| SandboxError::Scratch { path: dir.clone(), reason: error.to_string() })?;
        }
        let engine = engine::engine(&config)?;
        let linkers = Linkers::new(&engine).map_err(|error| SandboxError::Link(format!("{error:#}")))?;
        let thread = |error: std::io::Error| SandboxError::Thread(error.to_string());
        let cache = config.cache_dir.as_ref().map(|dir| {
            CodeCache::open(dir, config.cache_bytes_max, &engine)
                .map_err(|error| SandboxError::Cache { path: dir.clone(), reason: error.to_string() })
        });
        let node = Node {
            ticker: Ticker::start(engine.clone()).map_err(thread)?,
            turns: Turns::new(background_threads()),
            memory: Arc::new(MemoryAccount::new(config.guest_memory_bytes_max, None)),
            linkers,
            cache: cache.transpose()?,
            compiles: Queue::new(config.compiles_max, config.compile.queue_max),
            compatibility: compatibility(&engine),
            images: Mutex::default(),
            background: Some(background().map_err(thread)?),
            engine,
            config,
        };
        Ok(Self { node: Arc::new(node) })
    }

    /// Compiles an image, or takes it from memory or from the cache on disk. Many callers with one file share one
    /// compile; it goes on when callers give up. Text (`.wat`) is taken as well.
    ///
    /// # Errors
    /// When it cannot run here. Nothing of it has run then but its initialisation, if it has one: see
    /// [`LoadOptions::initialise`].
    pub async fn load(&self, wasm: Bytes) -> Result<Arc<Image>, LoadError> {
        self.load_with(wasm, LoadOptions::default()).await
    }

    /// As [`Sandbox::load`], for a requester that takes turns with others.
    ///
    /// # Errors
    /// As [`Sandbox::load`].
    pub async fn load_with(&self, wasm: Bytes, options: LoadOptions) -> Result<Arc<Image>, LoadError> {
        let limit_bytes = self.node.config.image_bytes_max;
        if wasm.len() as u64 > limit_bytes {
            return Err(LoadError::TooLarge { bytes: wasm.len() as u64, limit_bytes });
        }
        let of_task = wasm.clone();
        let digest = blocking(move || Ok(digest(&of_task))).await?;
        let key = options.initialise.key(&digest);
        let loading = {
            let mut images = self.node.images.lock();
            if let Some(image) = images.find(&key) {
                return Ok(image);
            }
            let start = || load(self.node.clone(), digest, wasm, options).boxed().shared();
            images.loading.entry(key.clone()).or_insert_with(start).clone()
        };
        let result = loading.await;
        self.node.images.lock().loaded(&key, &result, self.node.config.images_kept_max);
        result
    }

    /// An image that is in memory already.
    pub fn cached(&self, digest: &str) -> Option<Arc<Image>> {
        self.cached_with(digest, &Initialise::Usual)
    }

    /// An image that is in memory already, initialised like this.
    pub fn cached_with(&self, digest: &str, initialise: &Initialise) -> Option<Arc<Image>> {
        self.node.images.lock().find(&initialise.key(digest))
    }

    /// Makes bounds that several containers share.
    pub fn group(&self, limits: GroupLimits) -> Arc<Group> {
        Group::new(&self.node, limits)
    }

    /// Starts a container of an HTTP image. It owns no instance until it is called.
    ///
    /// # Errors
    /// When the image is no HTTP image.
    pub fn http(&self, image: &Arc<Image>, spec: ContainerSpec) -> Result<HttpContainer, StartError> {
        if !image.kind().is_http() {
            return Err(StartError::WrongKind { kind: image.kind().name(), wanted: "an HTTP handler" });
        }
        spec.grants.check(image)?;
        Ok(HttpContainer::new(Container::new(self.node.clone(), spec)?, image.clone()))
    }

    /// Starts a component whose functions are called. It owns no instance until it is.
    ///
    /// # Errors
    /// When the image is of another kind, imports what is refused, or a mount is not there.
    pub fn plugin(&self, image: &Arc<Image>, spec: ContainerSpec) -> Result<Plugin, StartError> {
        Plugin::start(Container::new(self.node.clone(), spec)?, image.clone())
    }

    /// Starts a command on the current tokio runtime.
    ///
    /// # Errors
    /// When the image is no command, or outside a tokio runtime.
    pub fn command(&self, image: &Arc<Image>, spec: ContainerSpec) -> Result<CommandContainer, StartError> {
        let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        CommandContainer::start(&runtime, Container::new(self.node.clone(), spec)?, image)
    }

    /// Memory of all guests of this node now, and at most so far: bytes.
    pub fn guest_memory_bytes(&self) -> (u64, u64) {
        (self.node.memory.used_bytes(), self.node.memory.peak_bytes())
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("config", &self.node.config).finish_non_exhaustive()
    }
}

impl Node {
    /// Where guests that compute long run.
    pub(crate) fn background(&self) -> Handle {
        self.background.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Waiting for its threads would block, and nothing may block where this is dropped.
        if let Some(runtime) = self.background.take() {
            runtime.shutdown_background();
        }
    }
}

impl Images {
    /// Whoever is asked for stays longest.
    fn find(&mut self, digest: &str) -> Option<Arc<Image>> {
        let image = self.known.get(digest).and_then(Weak::upgrade)?;
        if let Some(place) = self.kept.iter().position(|kept| Arc::ptr_eq(kept, &image)) {
            let kept = self.kept.remove(place);
            self.kept.extend(kept);
        }
        Some(image)
    }

    fn loaded(&mut self, digest: &str, result: &Result<Arc<Image>, LoadError>, kept_max: usize) {
        self.loading.remove(digest);
        let Ok(image) = result else { return };
        if self.find(digest).is_some() {
            return;
        }
        self.known.retain(|_, image| image.strong_count() > 0);
        self.known.insert(digest.to_owned(), Arc::downgrade(image));
        self.kept.push_back(image.clone());
        while self.kept.len() > kept_max {
            self.kept.pop_front();
        }
    }
}

/// Loads in a task of its own, so that it goes on when callers give up.
async fn load(node: Arc<Node>, digest: String, wasm: Bytes, options: LoadOptions) -> Result<Arc<Image>, LoadError> {
    let task = tokio::spawn(load::load(node, digest, wasm, options));
    task.await.map_err(interrupted)?.map(Arc::new)
}

/// `sha256:` and the file's SHA-256.
fn digest(file: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(file)))
}

fn background_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn background() -> std::io::Result<Runtime> {
    // Less than this process has, whatever that is; 19 is the least that there is.
    let nice = rustix::process::getpriority_process(None).map_or(BACKGROUND_NICE, |own| own + BACKGROUND_NICE).min(19);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(background_threads())
        .thread_name("guest-background")
        .enable_all()
        .on_thread_start(move || {
            // On Linux a priority belongs to a thread. Where it cannot be set, guests still yield after each slice.
            if let Err(error) = rustix::process::setpriority_process(None, nice) {
                tracing::debug!(%error, "cannot lower the priority of a background thread");
            }
            let_others_pass(nice);
        })
        .build()
}

/// Lets short requests pass at once. Since Linux 6.6 the kernel leaves a running thread alone until its slice is over, unless
/// the one that wakes up has a shorter slice; so these threads get the longest there is, a tenth of a second, which they never
/// use up: guests yield after each turn. Without it a request waited for a whole turn of a spinner, 1.8 ms instead of 0.1 (p99).
/// Kernels before 6.12 refuse, and decide by priority alone.
#[cfg(target_os = "linux")]
fn let_others_pass(nice: i32) {
    /// `struct sched_attr` of `sched_setattr(2)`, its first version.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime_ns: u64,
        deadline_ns: u64,
        period_ns: u64,
    }
    const SIZE: u32 = 48;
    let attributes = Attributes {
        size: SIZE,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime_ns: 100_000_000,
        deadline_ns: 0,
        period_ns: 0,
    };
    const { assert!(size_of::<Attributes>() == SIZE as usize) };
    // SAFETY: the kernel reads `size` bytes behind the pointer, which is what the struct has (checked above), and keeps no
    // reference to them. Thread 0 is the caller itself.
    #[expect(unsafe_code, reason = "no library offers sched_setattr")]
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if answer != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "cannot lengthen the slice of a background thread");
    }
}

#[cfg(not(target_os = "linux"))]
fn let_others_pass(_: i32) {}
