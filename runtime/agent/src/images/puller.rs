//! One pull: the manifest, then what it names, checked piece by piece, put on disk, given a name at the very end.
//!
//! Invariants: at most so many pulls at once; nothing larger than allowed is fetched, whatever a registry says; every byte is
//! checked against the digest that names it; a pull that is dropped or fails leaves nothing but what it can go on with.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt as _,
    sync::{Semaphore, watch},
};

use super::{
    ImageConfig, ImageError, Record,
    credentials::{Credential, Keyring},
    digest,
    manifest::{self, Descriptor, Layer, Manifest, Module},
    reference::Reference,
    registries::Registries,
    remote::{self, Endpoint, Failure, Patience, Remote},
    store::{Entry, Pins, Store},
    unpack::{Bounds, Found, Problem, Tree},
};

const MANIFEST_BYTES_MAX: usize = 4 << 20;
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Indexes within indexes.
const INDEXES_MAX: usize = 3;
/// Tries in a row that bring nothing.
const TRIES_MAX: u32 = 4;
/// Longest that a registry may tell us to wait; longer waits are left to the pod's back-off.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(20);
const ENTRIES_MAX: usize = 100_000;

/// Settings of pulls.
#[derive(Debug, Clone)]
pub(crate) struct PullConfig {
    pub(crate) registries: Registries,
    /// Of one image, all modules together.
    pub(crate) bytes_max: u64,
    pub(crate) parallel_max: usize,
    pub(crate) patience: Patience,
    /// Pause before the first further try; doubled from then on.
    pub(crate) retry_after: Duration,
    /// Bytes in a second that a transfer must bring on average, after its first minute.
    pub(crate) rate_min: u64,
}

impl PullConfig {
    pub(crate) fn new(registries: Registries, bytes_max: u64, parallel_max: usize) -> Self {
        Self {
            registries,
            bytes_max,
            parallel_max,
            patience: Patience { connect: Duration::from_secs(10), stall: Duration::from_secs(30) },
            retry_after: Duration::from_secs(1),
            rate_min: 16 << 10,
        }
    }
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Whether it waits for others to finish.
    pub(crate) waiting: bool,
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
}

/// Pulls images into a store.
pub(crate) struct Puller {
    pub(crate) config: PullConfig,
    pub(crate) store: Arc<Store>,
    remote: Remote,
    turns: Semaphore,
}

/// An image of several places and credentials that was found with one of them.
struct Open<'a> {
    endpoint: &'a Endpoint,
    credential: Option<&'a Credential>,
    progress: &'a watch::Sender<Progress>,
    pins: Pins,
}

impl Puller {
    pub(crate) fn new(config: PullConfig, store: Arc<Store>) -> Self {
        let turns = Semaphore::new(config.parallel_max.max(1));
        Self { remote: Remote::new(config.patience), config, store, turns }
    }

    /// Where an image may be.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        Endpoint::all(reference, &self.config.registries)
    }

    /// Removes what pulls that failed have left; the bytes that became free. Does nothing while one is under way. Blocks.
    pub(crate) fn sweep(&self) -> u64 {
        let all = u32::try_from(self.config.parallel_max.max(1)).unwrap_or(u32::MAX);
        let Ok(_alone) = self.turns.try_acquire_many(all) else { return 0 };
        self.store.sweep()
    }

    /// Fetches an image, or finds that the one on disk is still what the name means.
    ///
    /// # Errors
    /// What keeps it from being had.
    pub(crate) async fn pull(
        &self,
        shown: &str,
        reference: &Reference,
        keyring: &Keyring,
        progress: &watch::Sender<Progress>,
    ) -> Result<Arc<Entry>, ImageError> {
        progress.send_replace(Progress { waiting: true, ..Progress::default() });
        let closed = |_| ImageError::Pull("the node is shutting down".to_owned());
        let _turn = self.turns.acquire().await.map_err(closed)?;
        progress.send_replace(Progress::default());
        let endpoints = self.endpoints(reference);
        let mut last = None;
        for endpoint in &endpoints {
            match self.pull_from(endpoint, shown, reference, keyring, progress).await {
                Ok(entry) => return Ok(entry),
                Err(failure) => {
                    tracing::info!(image = shown, registry = endpoint.words(), why = failure.words(), "not pulled");
                    last = Some((endpoint.words(), failure));
                }
            }
        }
        let (place, failure) = last.unwrap_or(("nowhere".to_owned(), Failure::Missing));
        Err(ImageError::Pull(format!("failed to pull {}: {place}: {}", reference.words(), failure.words())))
    }

    /// Tries each credential that fits, then none.
    async fn pull_from(
        &self,
        endpoint: &Endpoint,
        shown: &str,
        reference: &Reference,
        keyring: &Keyring,
        progress: &watch::Sender<Progress>,
    ) -> Result<Arc<Entry>, Failure> {
        let host = endpoint.host.as_deref().unwrap_or_default();
        let found = keyring.find(host, &endpoint.repository);
        let mut failure = None;
        for credential in found.iter().map(Some).chain([None]) {
            let open = Open { endpoint, credential, progress, pins: Pins::new(self.store.clone()) };
            match self.pull_with(open, shown, reference).await {
                // What a wrong password is answered with differs: 401, 403, and 404 for what is hidden.
                Err(why @ (Failure::Denied(_) | Failure::Missing)) => {
                    if !matches!(failure, Some(Failure::Denied(_))) {
                        failure = Some(why);
                    }
                }
                other => return other,
            }
        }
        Err(failure.unwrap_or(Failure::Missing))
    }

    async fn pull_with(&self, mut open: Open<'_>, shown: &str, reference: &Reference) -> Result<Arc<Entry>, Failure> {
        let (bytes, found) = self.manifest(&open, reference.version()).await?;
        if reference.digest.as_ref().is_some_and(|wanted| *wanted != found) {
            return Err(Failure::Broken(format!("its manifest has the digest {found}, not the one asked for")));
        }
        let record = match self.store.find_digest(&found) {
            Some(record) => record,
            None => Arc::new(Record { digest: found, ..self.fetch(&mut open, bytes, reference).await? }),
        };
        let mut opened_by: Vec<String> = open.credential.map(Credential::id).into_iter().collect();
        let name = reference.canonical();
        if let Some(before) = self.store.find(&name).filter(|before| before.record.digest == record.digest)
            && !opened_by.is_empty()
        {
            if before.opened_by.is_empty() {
                opened_by.clear();
            } else {
                opened_by
                    .extend(before.opened_by.iter().filter(|id| !opened_by.contains(id)).cloned().collect::<Vec<_>>());
                opened_by.truncate(64);
            }
        }
        let (store, entry) = (self.store.clone(), Entry { name, shown: shown.to_owned(), record, opened_by });
        let put = tokio::task::spawn_blocking(move || store.put(entry)).await;
        drop(open.pins);
        put.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| disk(&e))
    }

    async fn manifest(&self, open: &Open<'_>, version: &str) -> Result<(Vec<u8>, String), Failure> {
        let bytes = self
            .patiently(|| self.remote.manifest(open.endpoint, version, open.credential, MANIFEST_BYTES_MAX))
            .await?;
        let found = digest(&bytes);
        if version.starts_with("sha256:") && version != found {
            return Err(Failure::Broken(format!("its manifest has the digest {found}, not {version}")));
        }
        Ok((bytes, found))
    }

    async fn fetch(&self, open: &mut Open<'_>, mut bytes: Vec<u8>, reference: &Reference) -> Result<Record, Failure> {
        for _ in 0..INDEXES_MAX {
            match Manifest::parse(&bytes).map_err(Failure::Broken)? {
                Manifest::Index(chosen) => bytes = self.manifest(open, &chosen.digest).await?.0,
                Manifest::Modules { config, modules } => return self.modules(open, &config, modules, reference).await,
                Manifest::Container { config, layers } => return self.container(open, &config, layers).await,
            }
        }
        Err(Failure::Broken("its index leads to indexes only".to_owned()))
    }

    async fn modules(
        &self,
        open: &mut Open<'_>,
        config: &Descriptor,
        modules: Vec<Module>,
        reference: &Reference,
    ) -> Result<Record, Failure> {
        self.begin(open, modules.iter().map(|m| &m.descriptor))?;
        let mut run = ImageConfig::default();
        if config.media_type.contains("image.config") || config.media_type.contains("container.image") {
            run = manifest::config(&self.small(open, config).await?).map_err(Failure::Broken)?;
        }
        let repository = reference.repository.rsplit('/').next().unwrap_or_default();
        let mut record = Record::default();
        for (i, module) in modules.iter().enumerate() {
            self.blob(open, &module.descriptor, true).await?;
            let title =
                module.title.as_deref().map(|t| t.rsplit('/').next().unwrap_or_default()).filter(|t| !t.is_empty());
            let file = match (title, i) {
                (Some(title), _) => title.to_owned(),
                (None, 0) => format!("{repository}.wasm"),
                (None, i) => format!("module-{i}.wasm"),
            };
            if i == 0 {
                record.main = Some(module.descriptor.digest.clone());
                if run.entrypoint.is_empty() {
                    run.entrypoint = vec![file.clone()];
                }
            }
            record.size_bytes += module.descriptor.size;
            record.modules.insert(format!("/{file}"), module.descriptor.digest.clone());
        }
        record.config = run;
        Ok(record)
    }

    async fn container(&self, open: &mut Open<'_>, config: &Descriptor, layers: Vec<Layer>) -> Result<Record, Failure> {
        let run = manifest::config(&self.small(open, config).await?).map_err(Failure::Broken)?;
        self.begin(open, layers.iter().map(|l| &l.descriptor))?;
        for layer in &layers {
            self.blob(open, &layer.descriptor, false).await?;
        }
        let (store, max) = (self.store.clone(), self.config.bytes_max);
        let bounds = Bounds { bytes_max: max.saturating_mul(4), modules_bytes_max: max, entries_max: ENTRIES_MAX };
        let unpacking = tokio::task::spawn_blocking(move || unpack(&store, &layers, bounds)).await;
        let found = unpacking.map_err(|e| Failure::passing(format!("unpacking was interrupted: {e}")))??;
        found.values().for_each(|module| open.pins.add(&module.digest));
        record(run, &found)
    }

    /// Says how much there is to fetch, and refuses what is too much for an image or for the disk.
    fn begin<'d>(&self, open: &Open<'_>, all: impl Iterator<Item = &'d Descriptor>) -> Result<(), Failure> {
        let total = all.fold(0_u64, |sum, descriptor| sum.saturating_add(descriptor.size));
        let max = self.config.bytes_max;
        if total > max {
            return Err(Failure::Broken(format!(
                "its layers have {total} bytes, more than {max}, the limit for images"
            )));
        }
        let (used, all) = self.store.disk().map_err(|e| disk(&e))?;
        if all.saturating_sub(used) < total {
            return Err(disk(&io::ErrorKind::StorageFull.into()));
        }
        open.progress.send_replace(Progress { waiting: false, done_bytes: 0, total_bytes: total });
        Ok(())
    }

    /// A config, in memory.
    async fn small(&self, open: &mut Open<'_>, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        if descriptor.size > CONFIG_BYTES_MAX {
            return Err(Failure::Broken(format!("its config has more than {CONFIG_BYTES_MAX} bytes")));
        }
        let get = || async {
            let response = self.remote.blob(open.endpoint, &descriptor.digest, 0, open.credential).await?;
            remote::bounded(response, usize::try_from(descriptor.size).unwrap_or(usize::MAX)).await
        };
        let bytes = self.patiently(get).await?;
        let found = digest(&bytes);
        if found == descriptor.digest { Ok(bytes) } else { Err(other_digest("config", &descriptor.digest, &found)) }
    }

    /// A blob, on disk: as a module, or for now.
    async fn blob(&self, open: &mut Open<'_>, descriptor: &Descriptor, module: bool) -> Result<(), Failure> {
        if module {
            open.pins.add(&descriptor.digest);
            if self.store.has(&descriptor.digest) {
                open.progress.send_modify(|p| p.done_bytes += descriptor.size);
                return Ok(());
            }
        }
        let path = self.store.partial(&descriptor.digest);
        self.download(open, descriptor, &path).await?;
        let (store, wanted) = (self.store.clone(), descriptor.digest.clone());
        let check = move || {
            let found = file_digest(&path).map_err(|e| disk(&e))?;
            if found != wanted {
                let _ = std::fs::remove_file(&path);
                return Err(other_digest("layer", &wanted, &found));
            }
            if module { store.adopt(&path, &wanted).map_err(|e| disk(&e)) } else { Ok(()) }
        };
        let checked = tokio::task::spawn_blocking(check).await;
        checked.map_err(|e| Failure::passing(format!("the check was interrupted: {e}")))?
    }

    /// Fetches until all of it is there, going on where the last try broke off.
    async fn download(&self, open: &Open<'_>, descriptor: &Descriptor, path: &Path) -> Result<(), Failure> {
        let before = open.progress.borrow().done_bytes;
        let limit = Duration::from_secs(60 + descriptor.size / self.config.rate_min.max(1));
        let since = Instant::now();
        let (mut tries, mut pause, mut reached) = (0, self.config.retry_after, 0);
        loop {
            let outcome = tokio::time::timeout(
                limit.saturating_sub(since.elapsed()),
                self.append(open, descriptor, path, before),
            );
            let failure = match outcome.await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(failure)) => failure,
                Err(_) => return Err(Failure::passing(format!("it did not come within {} s", limit.as_secs()))),
            };
            let here = std::fs::metadata(path).map_or(0, |meta| meta.len());
            if here > reached {
                (tries, pause, reached) = (0, self.config.retry_after, here);
            }
            tries += 1;
            pause = wait(&failure, tries, pause).await.ok_or(failure)?;
        }
    }

    async fn append(&self, open: &Open<'_>, descriptor: &Descriptor, path: &Path, before: u64) -> Result<(), Failure> {
        let mut here = tokio::fs::metadata(path).await.map_or(0, |meta| meta.len());
        if here > descriptor.size {
            tokio::fs::remove_file(path).await.map_err(|e| disk(&e))?;
            here = 0;
        }
        if here == descriptor.size && here > 0 {
            return Ok(());
        }
        let mut response = self.remote.blob(open.endpoint, &descriptor.digest, here, open.credential).await?;
        if response.status() != http::StatusCode::PARTIAL_CONTENT {
            here = 0;
        }
        let mut options = tokio::fs::OpenOptions::new();
        let mut file = options
            .create(true)
            .write(true)
            .truncate(here == 0)
            .append(here > 0)
            .open(path)
            .await
            .map_err(|e| disk(&e))?;
        loop {
            let chunk = response.chunk().await.map_err(|e| Failure::passing(remote::words(e)));
            // Kept in any case: the next try goes on from there.
            let Ok(Some(chunk)) = chunk else {
                file.flush().await.map_err(|e| disk(&e))?;
                chunk?;
                break;
            };
            here += chunk.len() as u64;
            if here > descriptor.size {
                drop(file);
                let _ = tokio::fs::remove_file(path).await;
                return Err(Failure::Broken(format!(
                    "a layer is longer than the {} bytes that its manifest says",
                    descriptor.size
                )));
            }
            if let Err(error) = file.write_all(&chunk).await {
                drop(file);
                let _ = tokio::fs::remove_file(path).await;
                return Err(disk(&error));
            }
            open.progress.send_modify(|p| p.done_bytes = before + here);
        }
        if here == descriptor.size { Ok(()) } else { Err(Failure::passing("the transfer broke off early")) }
    }

    /// Tries again what may go better.
    async fn patiently<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        mut get: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let (mut tries, mut pause) = (0, self.config.retry_after);
        let limit = self.config.patience.stall * 2;
        loop {
            let late = || Failure::passing(format!("it did not answer within {} s", limit.as_secs()));
            let outcome = tokio::time::timeout(limit, get()).await;
            match outcome.unwrap_or_else(|_| Err(late())) {
                Ok(value) => return Ok(value),
                Err(failure) => {
                    tries += 1;
                    pause = wait(&failure, tries, pause).await.ok_or(failure)?;
                }
            }
        }
    }
}

/// Waits before another try; the next pause. `None`: there is no point in another one.
async fn wait(failure: &Failure, tries: u32, pause: Duration) -> Option<Duration> {
    let Failure::Passing { after, .. } = failure else { return None };
    if tries >= TRIES_MAX || after.is_some_and(|after| after > RETRY_AFTER_MAX) {
        return None;
    }
    tokio::time::sleep(after.unwrap_or_default().max(pause)).await;
    Some(pause * 2)
}

fn unpack(
    store: &Store,
    layers: &[Layer],
    bounds: Bounds,
) -> Result<std::collections::BTreeMap<String, Found>, Failure> {
    let mut tree = Tree::new(bounds);
    let read = |layer: &Layer, tree: &mut Tree| {
        let file = std::fs::File::open(store.partial(&layer.descriptor.digest)).map_err(Problem::Machine)?;
        tree.layer(io::BufReader::new(file), layer.gzip, store)
    };
    let outcome = layers.iter().try_for_each(|layer| read(layer, &mut tree));
    for layer in layers {
        let _ = std::fs::remove_file(store.partial(&layer.descriptor.digest));
    }
    outcome.map_err(|problem| match problem {
        Problem::Image(why) => Failure::Broken(why),
        Problem::Machine(error) => disk(&error),
    })?;
    Ok(tree.modules())
}

/// What a container image is: its modules, and which one runs.
fn record(config: ImageConfig, found: &std::collections::BTreeMap<String, Found>) -> Result<Record, Failure> {
    if found.is_empty() {
        return Err(Failure::Broken("no layer holds a WebAssembly module".to_owned()));
    }
    let sizes: std::collections::BTreeMap<_, _> = found.values().map(|f| (f.digest.clone(), f.size)).collect();
    let mut record = Record {
        size_bytes: sizes.values().sum(),
        modules: found.iter().map(|(path, found)| (path.clone(), found.digest.clone())).collect(),
        config,
        ..Record::default()
    };
    let program = record.config.entrypoint.iter().chain(&record.config.cmd).next();
    // containerd's shims let an export follow the path.
    let named = program.and_then(|p| record.in_folder(p.split('#').next().unwrap_or_default()));
    let only = || (sizes.len() == 1).then(|| sizes.keys().next().cloned()).flatten();
    record.main = named.map(str::to_owned).or_else(only);
    if record.main.is_none()
        && let Some(program) = program
    {
        return Err(Failure::Broken(format!("it begins with {program:?}, which is no WebAssembly module of it")));
    }
    if program.is_none()
        && let Some(path) = record.main.as_ref().and_then(|main| record.modules.iter().find(|(_, d)| *d == main))
    {
        record.config.entrypoint = vec![path.0.clone()];
    }
    Ok(record)
}

fn other_digest(what: &str, wanted: &str, found: &str) -> Failure {
    Failure::Broken(format!(
        "a {what} has the digest {found}, not {wanted}: what the registry sent is not what it should be"
    ))
}

fn file_digest(path: &Path) -> io::Result<String> {
    use sha2::{Digest as _, Sha256};
    let (mut file, mut hash) = (std::fs::File::open(path)?, Sha256::new());
    io::copy(&mut file, &mut hash)?;
    Ok(format!("sha256:{}", super::hex(&hash.finalize())))
}

/// What the user reads when this machine's disk is to blame.
fn disk(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::StorageFull {
        return Failure::Broken("the node's disk is full: no space left for the image".to_owned());
    }
    Failure::Broken(format!("the node's image folder cannot be used: {error}"))
}
