//! Images of this node: how a pull policy is honoured, who shares a pull, what is loaded.
//!
//! Invariants: pods that want the same image with the same credentials wait for one pull; it ends when none of them waits any
//! more. An image that credentials opened is only given to pods with those, or after the registry was asked again.

mod builtin;
pub(crate) mod fetch;
pub(crate) mod garbage;
pub(crate) mod secrets;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use k8s_openapi::api::core::v1::ContainerImage;
use parking_lot::Mutex;
use podium_sandbox::{Image, Initialise, LoadError, LoadOptions, Sandbox};
use tokio::sync::{Notify, watch};

use crate::{
    images::{
        FileImages, ImageError, ImageSource, Pulled, PulledImage, Record,
        credentials::Keyring,
        demanded_digest,
        puller::{Progress, Puller},
        reference::Reference,
        store::{Entry, Pins},
    },
    streams::Tools,
};

/// Images of files whose digest is remembered.
const KNOWN_MAX: usize = 1024;
/// Images shown in the node's status, as kubelet's `nodeStatusMaxImages`.
const SHOWN_MAX: usize = 50;
/// A pull that takes longer says how far it is, and again every so often.
const PROGRESS_AFTER: Duration = Duration::from_secs(5);
const PROGRESS_EVERY: Duration = Duration::from_secs(15);

/// The images of this node.
pub(crate) struct Images {
    files: FileImages,
    puller: Arc<Puller>,
    sandbox: Sandbox,
    tools: Tools,
    known: Mutex<HashMap<String, Known>>,
    pulls: Mutex<HashMap<String, Pull>>,
    /// What is being read from disk: a thousand pods of one image read it once.
    reading: Mutex<HashMap<String, Turn>>,
    changed: Notify,
}

/// An image of a file.
#[derive(Clone)]
struct Known {
    record: Arc<Record>,
    stamp: String,
}

impl Known {
    fn main(&self) -> &str {
        self.record.main.as_deref().unwrap_or_default()
    }
}

fn options(wanted: Wanted<'_>) -> LoadOptions {
    LoadOptions { requester: wanted.requester.to_owned(), initialise: wanted.initialise.clone() }
}

type Turn = Arc<tokio::sync::Mutex<()>>;
type Pulling = BoxFuture<'static, Result<Arc<Entry>, ImageError>>;

/// A pull under way; dropped when nobody waits.
struct Pull {
    work: WeakShared<Pulling>,
    progress: watch::Receiver<Progress>,
}

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// As the spec says it, or as Kubernetes fills it in: what is called `latest` is always pulled.
    pub(crate) fn of(text: Option<&str>, image: &str) -> Self {
        let last = image.rsplit('/').next().unwrap_or_default();
        match text {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            None | Some("") if !image.contains('@') && (!last.contains(':') || last.ends_with(":latest")) => {
                Self::Always
            }
            _ => Self::IfNotPresent,
        }
    }
}

/// What a container wants.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The pod's namespace: namespaces take turns in the queue for the compiler.
    pub(crate) requester: &'a str,
    /// As the pod names it.
    pub(crate) name: &'a str,
    pub(crate) policy: PullPolicy,
    /// The first word of its command.
    pub(crate) command: Option<&'a str>,
    pub(crate) keyring: &'a Keyring,
    /// What of the module is called once, when it is loaded.
    pub(crate) initialise: &'a Initialise,
}

/// What is worth an event while somebody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullNote {
    /// It has to be fetched.
    Begins,
    /// It takes a while.
    Goes(Progress),
}

/// An image ready to run.
pub(crate) struct Ready {
    pub(crate) image: Arc<Image>,
    /// What is known of it: its configuration, its commands.
    pub(crate) record: Arc<Record>,
    /// How long the pull took; `None` when it was here already.
    pub(crate) pulled: Option<Duration>,
}

/// Why an image is not ready.
#[derive(Debug)]
pub(crate) enum NotReady {
    Source(ImageError),
    Absent,
    /// The command names nothing that the image has.
    Command(String),
    Load(LoadError),
}

impl Images {
    pub(crate) fn new(files: FileImages, puller: Puller, sandbox: Sandbox, tools: Tools) -> Self {
        Self {
            files,
            puller: Arc::new(puller),
            sandbox,
            tools,
            known: Mutex::default(),
            pulls: Mutex::default(),
            reading: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// An image by its name. `note` is called while it is fetched.
    pub(crate) async fn get(
        &self,
        wanted: Wanted<'_>,
        note: impl Fn(PullNote) + Send + Sync,
    ) -> Result<Ready, NotReady> {
        if wanted.name.starts_with("file://") {
            return self.file(wanted, note).await;
        }
        if builtin::is_named(wanted.name) {
            return self.builtin(wanted).await;
        }
        let reference = Reference::parse(wanted.name, &self.puller.config.registries).map_err(NotReady::Source)?;
        if wanted.policy != PullPolicy::Always
            && let Some(record) = self.present(&reference, wanted.keyring)
            && let Some(image) = self.load(&record, wanted).await?
        {
            return Ok(Ready { image, record, pulled: None });
        }
        if wanted.policy == PullPolicy::Never {
            return Err(NotReady::Absent);
        }
        note(PullNote::Begins);
        let since = Instant::now();
        // Twice: what was on disk may turn out to be damaged when it is read.
        for _ in 0..2 {
            let entry = self.pull(wanted, &reference, &note).await?;
            if let Some(image) = self.load(&entry.record, wanted).await? {
                return Ok(Ready { image, record: entry.record.clone(), pulled: Some(since.elapsed()) });
            }
        }
        Err(NotReady::Source(ImageError::Pull("the image is damaged on disk again and again".to_owned())))
    }

    /// Another command that an image offers, as `kubectl exec` names it; `None`: it has none of this name. The image is the
    /// one that a container runs, whatever its name means by now.
    ///
    /// # Errors
    /// When the image went away or the command cannot run here.
    pub(crate) async fn command(&self, record: &Record, command: &str) -> Result<Option<Arc<Image>>, NotReady> {
        let Some(digest) = record.in_folder(command) else { return Ok(None) };
        self.module(digest, LoadOptions::default()).await?.map(Some).ok_or(NotReady::Absent)
    }

    /// Keeps an image's modules on disk for a container that runs one of them, whatever becomes of the image's name.
    pub(crate) fn pinned(&self, record: &Record) -> Pins {
        let mut pins = Pins::new(self.puller.store.clone());
        // The only one is in memory for as long as it runs.
        if record.modules.len() > 1 {
            record.modules.values().for_each(|digest| pins.add(digest));
        }
        pins
    }

    /// What is on disk of an image, if this pod may have it without asking the registry.
    fn present(&self, reference: &Reference, keyring: &Keyring) -> Option<Arc<Record>> {
        let entry = self.puller.store.find(&reference.canonical())?;
        let allowed = entry.opened_by.is_empty() || {
            let endpoints = self.puller.endpoints(reference);
            let own = endpoints.iter().flat_map(|e| keyring.find(e.host.as_deref().unwrap_or_default(), &e.repository));
            own.into_iter().any(|credential| entry.opened_by.contains(&credential.id()))
        };
        allowed.then(|| entry.record.clone())
    }

    /// `None`: it is not on disk any more.
    async fn load(&self, record: &Record, wanted: Wanted<'_>) -> Result<Option<Arc<Image>>, NotReady> {
        let digest = record.chosen(wanted.command).map_err(NotReady::Command)?;
        self.module(digest, options(wanted)).await
    }

    async fn module(&self, digest: &str, options: LoadOptions) -> Result<Option<Arc<Image>>, NotReady> {
        if let Some(image) = self.sandbox.cached_with(digest, &options.initialise) {
            return Ok(Some(image));
        }
        self.alone(digest, self.read_module(digest, options)).await
    }

    async fn read_module(&self, digest: &str, options: LoadOptions) -> Result<Option<Arc<Image>>, NotReady> {
        if let Some(image) = self.sandbox.cached_with(digest, &options.initialise) {
            return Ok(Some(image));
        }
        let (store, wanted) = (self.puller.store.clone(), digest.to_owned());
        let read = tokio::task::spawn_blocking(move || store.module(&wanted)).await;
        let unreadable = |why: String| NotReady::Source(ImageError::Pull(format!("cannot read it from disk: {why}")));
        let read = read.map_err(|e| unreadable(e.to_string()))?.map_err(|e| unreadable(e.to_string()))?;
        let Some(wasm) = read else { return Ok(None) };
        self.sandbox.load_with(wasm, options).await.map(Some).map_err(NotReady::Load)
    }

    /// Does one thing at a time for each key.
    async fn alone<T>(&self, key: &str, work: impl Future<Output = T>) -> T {
        let turn = self.reading.lock().entry(key.to_owned()).or_default().clone();
        let held = turn.lock().await;
        let done = work.await;
        drop(held);
        let mut reading = self.reading.lock();
        // Whoever waits for this turn holds it too.
        if Arc::strong_count(&turn) <= 2 {
            reading.remove(key);
        }
        done
    }

    /// Joins the pull that is under way, or begins one.
    async fn pull(
        &self,
        wanted: Wanted<'_>,
        reference: &Reference,
        note: &(impl Fn(PullNote) + Send + Sync),
    ) -> Result<Arc<Entry>, NotReady> {
        let (work, progress) = self.join(wanted, reference);
        let start = tokio::time::Instant::now() + PROGRESS_AFTER;
        let mut ticks = tokio::time::interval_at(start, PROGRESS_EVERY);
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => {
                    self.changed.notify_one();
                    return outcome.map_err(NotReady::Source);
                }
                _ = ticks.tick() => note(PullNote::Goes(*progress.borrow())),
            }
        }
    }

    fn join(&self, wanted: Wanted<'_>, reference: &Reference) -> (Shared<Pulling>, watch::Receiver<Progress>) {
        let key = format!("{} {}", reference.canonical(), wanted.keyring.id());
        let mut pulls = self.pulls.lock();
        let found = pulls.get(&key).and_then(|pull| Some((pull.work.upgrade()?, pull.progress.clone())));
        if let Some((work, progress)) = found.filter(|(work, _)| work.peek().is_none()) {
            return (work, progress);
        }
        pulls.retain(|_, pull| pull.work.upgrade().is_some_and(|work| work.peek().is_none()));
        let (sender, progress) = watch::channel(Progress::default());
        let (puller, reference) = (self.puller.clone(), reference.clone());
        let (shown, keyring) = (wanted.name.to_owned(), wanted.keyring.clone());
        let work = async move { puller.pull(&shown, &reference, &keyring, &sender).await }.boxed().shared();
        if let Some(weak) = work.downgrade() {
            pulls.insert(key, Pull { work: weak, progress: progress.clone() });
        }
        (work, progress)
    }

    async fn file(&self, wanted: Wanted<'_>, note: impl Fn(PullNote) + Send + Sync) -> Result<Ready, NotReady> {
        if let Some(ready) = self.known_file(wanted).await {
            return Ok(ready);
        }
        self.alone(wanted.name, self.fresh_file(wanted, note)).await
    }

    /// What was read before, as long as the file is the same: what is in it is the image. One that is gone stays in use.
    async fn known_file(&self, wanted: Wanted<'_>) -> Option<Ready> {
        let known = self.known.lock().get(wanted.name).filter(|_| wanted.policy != PullPolicy::Always).cloned()?;
        let image = self.sandbox.cached_with(known.main(), wanted.initialise)?;
        if wanted.policy == PullPolicy::IfNotPresent
            && matches!(self.files.pull(wanted.name, Some(&known.stamp)).await, Ok(Pulled::New(_)))
        {
            return None;
        }
        Some(Ready { image, record: known.record, pulled: None })
    }

    async fn fresh_file(&self, wanted: Wanted<'_>, note: impl Fn(PullNote) + Send + Sync) -> Result<Ready, NotReady> {
        if let Some(ready) = self.known_file(wanted).await {
            return Ok(ready);
        }
        let name = wanted.name;
        if wanted.policy == PullPolicy::Never && !self.files.is_present(name).await {
            return Err(NotReady::Absent);
        }
        if wanted.policy != PullPolicy::Never {
            note(PullNote::Begins);
        }
        let since = Instant::now();
        let (image, record) = self.read(wanted).await?;
        Ok(Ready { image, record, pulled: (wanted.policy != PullPolicy::Never).then(|| since.elapsed()) })
    }

    async fn read(&self, wanted: Wanted<'_>) -> Result<(Arc<Image>, Arc<Record>), NotReady> {
        let name = wanted.name;
        let known = self.known.lock().get(name).cloned();
        let cached = |known: &Known| self.sandbox.cached_with(known.main(), wanted.initialise);
        let loaded = known.and_then(|known| Some((cached(&known)?, known)));
        let stamp = loaded.as_ref().map(|(_, known)| known.stamp.as_str());
        match (self.files.pull(name, stamp).await.map_err(NotReady::Source)?, loaded) {
            (Pulled::Same, Some((image, known))) => Ok((image, known.record)),
            (Pulled::Same, None) => Err(NotReady::Absent),
            (Pulled::New(PulledImage { wasm, digest, stamp }), _) => {
                let record = Arc::new(Record::of_file(name, &digest, wasm.len() as u64));
                let image = self.sandbox.load_with(wasm, options(wanted)).await.map_err(NotReady::Load)?;
                self.remember(name, Known { record: record.clone(), stamp });
                Ok((image, record))
            }
        }
    }

    fn remember(&self, name: &str, image: Known) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX
            && let Some(any) = known.keys().next().cloned()
        {
            known.remove(&any);
        }
        let before = known.insert(name.to_owned(), image.clone());
        if before.is_none_or(|before| before.record != image.record) {
            self.changed.notify_one();
        }
    }

    /// Resolves when the list of images has changed since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What the node's status shows: the largest images.
    pub(crate) fn shown(&self) -> Vec<ContainerImage> {
        let files =
            self.known.lock().iter().map(|(name, known)| (name.clone(), known.record.clone())).collect::<Vec<_>>();
        let kept = self.puller.store.all().into_iter().map(|k| (k.entry.shown.clone(), k.entry.record.clone()));
        let mut images: Vec<_> = files.into_iter().chain(kept).collect();
        images.sort_by(|(a, x), (b, y)| y.size_bytes.cmp(&x.size_bytes).then_with(|| a.cmp(b)));
        let show = |(name, record): (String, Arc<Record>)| ContainerImage {
            names: Some(match demanded_digest(&name) {
                Some(_) => vec![name],
                None => vec![format!("{}@{}", without_tag(&name), record.digest), name],
            }),
            size_bytes: i64::try_from(record.size_bytes).ok(),
        };
        images.into_iter().take(SHOWN_MAX).map(show).collect()
    }
}

/// A name without its tag and digest. Files have no tags.
pub(crate) fn without_tag(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or_default();
    if name.starts_with("file://") {
        return name;
    }
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_latest_is_always_pulled() {
        for (text, image, expected) in [
            (None, "demo/app", PullPolicy::Always),
            (None, "localhost:5000/app", PullPolicy::Always),
            (None, "demo/app:latest", PullPolicy::Always),
            (None, "demo/app:v1", PullPolicy::IfNotPresent),
            (None, "demo/app@sha256:ab", PullPolicy::IfNotPresent),
            (Some("Never"), "demo/app", PullPolicy::Never),
            (Some("IfNotPresent"), "demo/app", PullPolicy::IfNotPresent),
            (Some("Always"), "demo/app:v1", PullPolicy::Always),
        ] {
            assert_eq!(PullPolicy::of(text, image), expected, "{text:?} {image}");
        }
        for (name, bare) in [
            ("demo/app:v1", "demo/app"),
            ("localhost:5000/app", "localhost:5000/app"),
            ("a:5/b:c@sha256:ab", "a:5/b"),
            ("file://x:y.wasm", "file://x:y.wasm"),
        ] {
            assert_eq!(without_tag(name), bare);
        }
    }
}
