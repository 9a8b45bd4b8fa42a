//! Images of this node: which are known, and how a pull policy is honoured.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ContainerImage;
use parking_lot::Mutex;
use podium_sandbox::{Image, LoadError, Sandbox};
use tokio::sync::Notify;

use crate::images::{ImageError, ImageSource, Pulled, PulledImage, Record, demanded_digest};

/// Images whose digest is remembered.
const KNOWN_MAX: usize = 1024;
/// Images shown in the node's status, as kubelet's `nodeStatusMaxImages`.
const SHOWN_MAX: usize = 50;

/// The images of this node.
pub(crate) struct Images {
    source: Arc<dyn ImageSource>,
    sandbox: Sandbox,
    known: Mutex<HashMap<String, Known>>,
    pulling: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    changed: Notify,
}

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

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// As the spec says it.
    pub(crate) fn of(text: Option<&str>) -> Self {
        match text {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            _ => Self::IfNotPresent,
        }
    }
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
    Load(LoadError),
}

impl Images {
    pub(crate) fn new(source: Arc<dyn ImageSource>, sandbox: Sandbox) -> Self {
        Self { source, sandbox, known: Mutex::default(), pulling: Mutex::default(), changed: Notify::new() }
    }

    /// Whether the image is in memory, so that `IfNotPresent` needs no pull.
    fn cached(&self, name: &str) -> Option<(Arc<Image>, Arc<Record>)> {
        let known = self.known.lock().get(name)?.clone();
        Some((self.sandbox.cached(known.main())?, known.record))
    }

    /// Another command that an image offers, as `kubectl exec` names it; `None`: it has none of this name.
    ///
    /// # Errors
    /// When the image went away or the command cannot run here.
    pub(crate) async fn command(&self, name: &str, command: &str) -> Result<Option<Arc<Image>>, NotReady> {
        let known = self.known.lock().get(name).cloned().ok_or(NotReady::Absent)?;
        let Some(digest) = known.record.command(command) else { return Ok(None) };
        self.sandbox.cached(digest).map(Some).ok_or(NotReady::Absent)
    }

    /// An image by its name. `pulling` is called when it has to be fetched.
    pub(crate) async fn get(&self, name: &str, policy: PullPolicy, pulling: impl FnOnce()) -> Result<Ready, NotReady> {
        if policy != PullPolicy::Always
            && let Some((image, record)) = self.cached(name)
        {
            return Ok(Ready { image, record, pulled: None });
        }
        if policy == PullPolicy::Never && !self.source.is_present(name).await {
            return Err(NotReady::Absent);
        }
        let turn = self.pulling.lock().entry(name.to_owned()).or_default().clone();
        let _turn = turn.lock().await;
        if policy != PullPolicy::Always
            && let Some((image, record)) = self.cached(name)
        {
            return Ok(Ready { image, record, pulled: None });
        }
        if policy != PullPolicy::Never {
            pulling();
        }
        let since = Instant::now();
        let pulled = self.pull(name).await;
        let mut pulling = self.pulling.lock();
        // Whoever waits for this turn holds it too.
        if Arc::strong_count(&turn) <= 2 {
            pulling.remove(name);
        }
        drop(pulling);
        let (image, record) = pulled?;
        Ok(Ready { image, record, pulled: (policy != PullPolicy::Never).then(|| since.elapsed()) })
    }

    async fn pull(&self, name: &str) -> Result<(Arc<Image>, Arc<Record>), NotReady> {
        let known = self.known.lock().get(name).cloned();
        let loaded = known.and_then(|known| Some((self.sandbox.cached(known.main())?, known)));
        let stamp = loaded.as_ref().map(|(_, known)| known.stamp.as_str());
        match (self.source.pull(name, stamp).await.map_err(NotReady::Source)?, loaded) {
            (Pulled::Same, Some((image, known))) => Ok((image, known.record)),
            (Pulled::Same, None) => Err(NotReady::Absent),
            (Pulled::New(PulledImage { wasm, digest, stamp }), _) => {
                let record = Arc::new(Record::of_file(name, &digest, wasm.len() as u64));
                let image = self.sandbox.load(wasm).await.map_err(NotReady::Load)?;
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
        let known = self.known.lock();
        let mut images: Vec<_> =
            known.iter().map(|(name, image)| (image.record.size_bytes, name, &image.record.digest)).collect();
        images.sort_by_key(|(size, name, _)| (std::cmp::Reverse(*size), *name));
        let show = |(size, name, digest): (u64, &String, &String)| ContainerImage {
            names: Some(match demanded_digest(name) {
                Some(_) => vec![name.clone()],
                None => vec![format!("{name}@{digest}"), name.clone()],
            }),
            size_bytes: i64::try_from(size).ok(),
        };
        images.into_iter().take(SHOWN_MAX).map(show).collect()
    }
}
