//! The controllers' driver with a small controller: a ConfigMap that says `copies: N` owns N ConfigMaps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use podium_api::{
    ApiError, Kind, KindRef, Object, ObjectKey, Revision,
    k8s_openapi::{
        api::core::v1::ConfigMap,
        apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, OwnerReference},
    },
    kind_of,
};
use podium_client::{Api, ApiRef, Delta, Mirror, MirrorScope, MirrorStore, ModelApi, Patch};
use podium_controllers::{Action, Controller, Key, Plan, Preconditions, Trigger, View, ViewExt};
use podium_drivers::{ControllerManager, Handle, ManagerConfig};
use tokio::time::Instant;

use crate::{clock, eventually};

/// Keeps `copies` copies; panics when told `panic`, as often as it is asked.
#[derive(Default)]
struct Copies {
    panics: AtomicUsize,
}

impl Controller for Copies {
    fn name(&self) -> &'static str {
        "copies"
    }

    fn triggers(&self) -> Vec<Trigger> {
        let keys = |object: &dyn Object, _: &dyn View| {
            let owner = object.meta().owner_references.iter().flatten().next();
            let name = owner.map_or_else(|| object.key().name, |o| o.name.clone());
            vec![Key::new(&ConfigMap::NAMES, ObjectKey::new("d", name))]
        };
        vec![Trigger { kind: kind_of::<ConfigMap>(), keys }]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, _: Timestamp) -> Plan {
        let Some(owner) = view.get_as::<ConfigMap>(&key.object) else { return Plan::default() };
        let wanted = owner.data.iter().flatten().find(|(k, _)| *k == "copies").map_or("0", |(_, v)| v);
        if wanted == "panic" {
            self.panics.fetch_add(1, SeqCst);
            panic!("as told");
        }
        let wanted: usize = wanted.parse().unwrap_or(0);
        let uid = owner.metadata.uid.as_deref().unwrap_or_default();
        let owned = view.owned_as::<ConfigMap>(uid);
        let creates = (owned.len()..wanted).map(|_| Action::Create(copy_of(&owner)));
        let deletes = owned.iter().skip(wanted).map(|copy| Action::Delete {
            kind: kind_of::<ConfigMap>(),
            key: ObjectKey::of(&copy.metadata),
            preconditions: Preconditions { uid: copy.metadata.uid.clone(), resource_version: None },
            propagation: None,
            grace_seconds: None,
        });
        Plan { actions: creates.chain(deletes).collect(), requeue_after: None }
    }
}

fn copy_of(owner: &ConfigMap) -> Box<dyn Object> {
    let name = owner.metadata.name.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        namespace: Some("d".to_owned()),
        generate_name: Some(format!("{name}-")),
        owner_references: Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name,
            uid: owner.metadata.uid.clone().unwrap_or_default(),
            ..OwnerReference::default()
        }]),
        ..ObjectMeta::default()
    };
    Box::new(ConfigMap { metadata, ..ConfigMap::default() })
}

/// An API between: counts, refuses now and then, and shows changes late.
struct Between {
    model: ModelApi,
    log: Mutex<Vec<String>>,
    refuse_creates: AtomicUsize,
    late: Duration,
}

impl Between {
    fn new(late: Duration) -> Arc<Self> {
        let (log, refuse_creates) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { model: ModelApi::new(clock()), log, refuse_creates, late })
    }

    fn copies(&self) -> usize {
        let all = self.model.list(&kind_of::<ConfigMap>());
        all.iter().filter(|o| o.meta().owner_references.is_some()).count()
    }

    fn calls(&self, verb: &str) -> usize {
        self.log.lock().iter().filter(|v| *v == verb).count()
    }

    async fn set(&self, name: &str, copies: &str) {
        let key = ObjectKey::new("d", name);
        let data = Some([("copies".to_owned(), copies.to_owned())].into());
        let metadata = ObjectMeta { namespace: Some("d".into()), name: Some(name.into()), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, data, ..ConfigMap::default() };
        if self.model.get(&kind_of::<ConfigMap>(), &key).await.is_ok() {
            self.model.update(Box::new(map), None).await.unwrap();
        } else {
            self.model.create(Box::new(map)).await.unwrap();
        }
    }
}

#[async_trait]
impl Api for Between {
    async fn mirror(&self, kind: &KindRef, scope: MirrorScope) -> Result<Arc<dyn Mirror>, ApiError> {
        let inner = self.model.mirror(kind, scope).await?;
        if self.late.is_zero() {
            return Ok(inner);
        }
        let (late, store) = (self.late, Arc::new(MirrorStore::new()));
        store.replace(inner.list(None), inner.revision());
        let (mut deltas, out) = (inner.subscribe(), Arc::clone(&store));
        tokio::spawn(async move {
            while let Some(delta) = deltas.recv().await {
                tokio::time::sleep(late).await;
                match delta {
                    Delta::Put { new, .. } => out.put(new),
                    Delta::Delete { old, revision } => out.delete(&old.key(), revision),
                }
            }
        });
        Ok(store)
    }

    async fn get(&self, kind: &KindRef, key: &ObjectKey) -> Result<Arc<dyn Object>, ApiError> {
        self.model.get(kind, key).await
    }

    async fn create(&self, object: Box<dyn Object>) -> Result<Arc<dyn Object>, ApiError> {
        self.log.lock().push("create".to_owned());
        if self.refuse_creates.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(ApiError::forbidden(&object.names(), "x", "exceeded quota"));
        }
        self.model.create(object).await
    }

    async fn update(&self, object: Box<dyn Object>, sub: Option<&str>) -> Result<Arc<dyn Object>, ApiError> {
        self.model.update(object, sub).await
    }

    async fn patch(
        &self,
        kind: &KindRef,
        key: &ObjectKey,
        patch: Patch,
        sub: Option<&str>,
    ) -> Result<Arc<dyn Object>, ApiError> {
        self.model.patch(kind, key, patch, sub).await
    }

    async fn delete(&self, kind: &KindRef, key: &ObjectKey, options: DeleteOptions) -> Result<(), ApiError> {
        self.log.lock().push("delete".to_owned());
        self.model.delete(kind, key, options).await
    }

    async fn bind(&self, pod: &ObjectKey, uid: &str, node: &str) -> Result<(), ApiError> {
        self.model.bind(pod, uid, node).await
    }
}

fn start(api: &Arc<Between>, controller: &Arc<Copies>) -> Handle {
    let controllers = vec![Arc::clone(controller) as Arc<dyn Controller>];
    let api = Arc::clone(api) as ApiRef;
    ControllerManager::start(api, ManagerConfig { controllers, clock: clock(), ..ManagerConfig::default() })
}

#[tokio::test(start_paused = true)]
async fn writes_are_made_once_even_when_mirrors_are_late() {
    for late in [Duration::ZERO, Duration::from_millis(30)] {
        let api = Between::new(late);
        let controller = Arc::new(Copies::default());
        api.set("a", "5").await;
        let handle = start(&api, &controller);
        eventually("five copies", || api.copies() == 5).await;
        api.set("a", "100").await;
        eventually("a hundred copies", || api.copies() == 100).await;
        api.set("a", "3").await;
        eventually("three copies", || api.copies() == 3).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!((api.calls("create"), api.calls("delete"), api.copies()), (100, 97, 3), "late by {late:?}");
        handle.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_stops_the_batch_and_is_tried_again_later() {
    let api = Between::new(Duration::ZERO);
    api.refuse_creates.store(3, SeqCst);
    api.set("a", "50").await;
    let handle = start(&api, &Arc::new(Copies::default()));
    eventually("fifty copies", || api.copies() == 50).await;
    // Slow start: each of the three attempts asks once, not fifty times.
    assert_eq!(api.calls("create"), 53);
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_backs_off_and_disturbs_no_other_key() {
    let api = Between::new(Duration::ZERO);
    let controller = Arc::new(Copies::default());
    api.set("bad", "panic").await;
    let handle = start(&api, &controller);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let early = controller.panics.load(SeqCst);
    assert!((5..=9).contains(&early), "5, 10, 20, … 640 ms: {early} attempts in a second");
    api.set("good", "2").await;
    eventually("two copies", || api.copies() == 2).await;
    api.set("bad", "1").await;
    eventually("three copies", || api.copies() == 3).await;
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn deltas_of_a_deleted_owner_and_of_a_stolen_copy_are_heard() {
    let api = Between::new(Duration::ZERO);
    let controller = Arc::new(Copies::default());
    api.set("a", "4").await;
    let handle = start(&api, &controller);
    eventually("four copies", || api.copies() == 4).await;
    let kind = kind_of::<ConfigMap>();
    let copy = api.model.list(&kind).into_iter().find(|o| o.meta().owner_references.is_some()).unwrap();
    api.model.delete(&kind, &copy.key(), DeleteOptions::default()).await.unwrap();
    eventually("a new one in its place", || api.copies() == 4 && api.calls("create") == 5).await;
    handle.shutdown().await;
    let revision = api.model.revision();
    api.set("a", "9").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(api.model.revision(), Revision(revision.0 + 1), "nothing acts after a shutdown");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_no_mirror() {
    let api = Between::new(Duration::from_secs(20));
    api.set("a", "4").await;
    let handle = start(&api, &Arc::new(Copies::default()));
    eventually("four copies", || api.copies() == 4).await;
    let since = Instant::now();
    handle.shutdown().await;
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}
