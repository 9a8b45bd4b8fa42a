//! Keeps volumes up to date: follows each ConfigMap and Secret that one shows, and fetches tokens before they expire.
//!
//! Invariant: each object that is shown is followed once, however many pods show it, and no longer than one does.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Pod, Secret},
};
use parking_lot::Mutex;
use podium_api::{KindRef, ObjectKey, kind_of};
use podium_client::{ApiRef, MirrorScope};
use tokio::{sync::Notify, task::AbortHandle, time::sleep};

use super::{
    PodVolumes, Volumes,
    payload::{TokenWanted, Tokens},
};

/// How long one change waits for others.
const GATHER: Duration = Duration::from_millis(50);
/// How often is looked for tokens that age.
const TOKENS_EVERY: Duration = Duration::from_secs(30);
/// Until the next try to follow an object.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reference {
    secret: bool,
    key: ObjectKey,
}

impl Reference {
    fn kind(&self) -> KindRef {
        if self.secret { kind_of::<Secret>() } else { kind_of::<ConfigMap>() }
    }
}

/// Which objects are followed, for whom, and which pods are to be looked at.
pub(super) struct Follow {
    api: ApiRef,
    volumes: Weak<Volumes>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    followed: Mutex<HashMap<Reference, Followed>>,
    dirty: Mutex<HashSet<Arc<str>>>,
    wake: Notify,
    worker: Mutex<Option<AbortHandle>>,
}

struct Followed {
    pods: HashSet<Arc<str>>,
    task: AbortHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        if let Some(worker) = self.state.worker.lock().take() {
            worker.abort();
        }
        self.state.followed.lock().clear();
    }
}

fn references(pod: &PodVolumes) -> impl Iterator<Item = Reference> {
    let key = |name: &String| ObjectKey::new(pod.id.key.namespace.clone(), name.clone());
    let maps = pod.wanted.config_maps.iter().map(move |name| Reference { secret: false, key: key(name) });
    maps.chain(pod.wanted.secrets.iter().map(move |name| Reference { secret: true, key: key(name) }))
}

impl Follow {
    pub(super) fn new(api: ApiRef, volumes: Weak<Volumes>) -> Self {
        Self { api, volumes, state: Arc::default() }
    }

    /// A pod has volumes from now on.
    pub(super) fn add(&self, pod: &PodVolumes) {
        self.work();
        let mut followed = self.state.followed.lock();
        for reference in references(pod) {
            let start = || Followed {
                pods: HashSet::new(),
                task: tokio::spawn(follow(self.api.clone(), reference.clone(), self.state.clone())).abort_handle(),
            };
            followed.entry(reference.clone()).or_insert_with(start).pods.insert(pod.id.uid.clone());
        }
    }

    /// A pod has none any more.
    pub(super) fn remove(&self, pod: &PodVolumes) {
        let mut followed = self.state.followed.lock();
        for reference in references(pod) {
            let Some(entry) = followed.get_mut(&reference) else { continue };
            entry.pods.remove(&pod.id.uid);
            if entry.pods.is_empty() {
                followed.remove(&reference);
            }
        }
    }

    /// Has a pod's volumes looked at.
    pub(super) fn refresh(&self, uid: &Arc<str>) {
        self.state.dirty.lock().insert(uid.clone());
        self.state.wake.notify_one();
    }

    /// Starts the one task that refreshes, unless it runs.
    fn work(&self) {
        let mut worker = self.state.worker.lock();
        if worker.is_none() {
            *worker = Some(tokio::spawn(work(self.volumes.clone(), self.state.clone())).abort_handle());
        }
    }
}

/// Marks the pods that show an object whenever it changes.
async fn follow(api: ApiRef, reference: Reference, state: Arc<State>) {
    loop {
        let scope = MirrorScope {
            namespace: Some(reference.key.namespace.clone()),
            fields: Some(format!("metadata.name={}", reference.key.name)),
        };
        match api.mirror(&reference.kind(), scope).await {
            Ok(mirror) => {
                let mut deltas = mirror.subscribe();
                while deltas.recv().await.is_some() {
                    let pods = state.followed.lock().get(&reference).map(|f| f.pods.clone()).unwrap_or_default();
                    state.dirty.lock().extend(pods);
                    state.wake.notify_one();
                }
            }
            Err(error) => tracing::warn!(object = %reference.key, %error, "cannot follow what a volume shows"),
        }
        sleep(RETRY).await;
    }
}

async fn work(volumes: Weak<Volumes>, state: Arc<State>) {
    loop {
        tokio::select! {
            () = state.wake.notified() => sleep(GATHER).await,
            () = sleep(TOKENS_EVERY) => {}
        }
        let Some(volumes) = volumes.upgrade() else { return };
        let mut dirty = std::mem::take(&mut *state.dirty.lock());
        dirty.extend(volumes.aged());
        for uid in dirty {
            volumes.refresh(&uid).await;
        }
    }
}

impl Volumes {
    /// Pods whose tokens are to be fetched anew.
    fn aged(&self) -> Vec<Arc<str>> {
        let now = self.clock.now();
        let pods = self.pods.lock();
        let due = pods.iter().filter(|(_, entry)| {
            entry.volumes.get().is_some_and(|volumes| volumes.refresh_at.lock().is_some_and(|at| at <= now))
        });
        due.map(|(uid, _)| uid.clone()).collect()
    }

    /// Fetches tokens, bound to the pod, and notes when they are to be fetched again: after four fifths of their time, at
    /// most a day.
    pub(super) async fn tokens(
        &self,
        pod: &PodVolumes,
        object: &Pod,
        wanted: &BTreeSet<TokenWanted>,
    ) -> Result<Tokens, String> {
        let account = object.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).filter(|n| !n.is_empty());
        let account = ObjectKey::new(pod.id.key.namespace.clone(), account.unwrap_or("default"));
        let mut tokens = Tokens::new();
        let mut refresh_at = None::<Timestamp>;
        let now = self.clock.now();
        for wanted in wanted {
            let answer = self.api.token(&account, request(wanted, pod)).await;
            let failed = |why: String| format!("failed to fetch token: {why}");
            let status = answer.map_err(|error| failed(error.message))?.status;
            let status = status.ok_or_else(|| failed("the answer holds none".to_owned()))?;
            let lives = status.expiration_timestamp.map_or(SignedDuration::ZERO, |at| at.0.duration_since(now));
            let fresh = (lives * 4 / 5).min(SignedDuration::from_hours(24)).max(SignedDuration::from_secs(60));
            let at = now.checked_add(fresh).unwrap_or(now);
            refresh_at = Some(refresh_at.map_or(at, |earlier| earlier.min(at)));
            let token = status.token.ok_or_else(|| failed("the answer holds none".to_owned()))?;
            tokens.insert(wanted.clone(), token);
        }
        *pod.refresh_at.lock() = refresh_at;
        Ok(tokens)
    }
}

fn request(wanted: &TokenWanted, pod: &PodVolumes) -> TokenRequest {
    let audiences = (!wanted.audience.is_empty()).then(|| vec![wanted.audience.clone()]);
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.id.key.name.clone()),
        uid: Some(pod.id.uid.to_string()),
    };
    let spec = TokenRequestSpec {
        audiences: Some(audiences.unwrap_or_default()),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(wanted.seconds),
    };
    TokenRequest { spec: Some(spec), ..TokenRequest::default() }
}
