//! [`ModelApi`]: the reference model of the API: what reads and writes mean, in one map, without bytes, sockets or
//! identities. For simulations and for tests of whoever acts on the API.
//!
//! It runs the kinds' own defaulting, preparation and validation. Names and uids come from a counter and times from the
//! clock that it was given, so that equal calls in equal order give equal answers. It has no admission, no history and no
//! garbage collection, and forgets everything when it goes.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use podium_api::{
    AnyKind, ApiError, FieldErrors, FieldSelector, KindRef, Names, Object, ObjectKey, Revision,
    k8s_openapi::{
        api::{
            authentication::v1::{TokenRequest, TokenRequestStatus},
            core::v1::{Pod, PodCondition, ServiceAccount},
        },
        apimachinery::pkg::apis::meta::v1::{DeleteOptions, Time},
    },
    kind_of, meta,
    patch::{self, PatchBody},
};

use crate::{Api, ClockRef, Mirror, MirrorScope, MirrorStore, Patch};

/// An API in memory.
pub struct ModelApi {
    state: Mutex<State>,
    clock: ClockRef,
}

#[derive(Default)]
struct State {
    revision: u64,
    made: u64,
    kinds: BTreeMap<(&'static str, &'static str), Held>,
}

/// The objects of one kind, and who watches them.
#[derive(Default)]
struct Held {
    objects: BTreeMap<ObjectKey, Arc<dyn Object>>,
    mirrors: Vec<Watched>,
}

struct Watched {
    scope: MirrorScope,
    fields: FieldSelector,
    store: Arc<MirrorStore>,
}

impl ModelApi {
    /// An empty cluster.
    pub fn new(clock: ClockRef) -> Self {
        Self { state: Mutex::default(), clock }
    }

    /// All objects of a kind, in key order.
    pub fn list(&self, kind: &KindRef) -> Vec<Arc<dyn Object>> {
        self.state.lock().held(kind).objects.values().cloned().collect()
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        Revision(self.state.lock().revision)
    }

    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    /// Changes an object as `change` says and stores it, unless it stays as it was.
    fn modify(
        &self,
        kind: &KindRef,
        key: &ObjectKey,
        subresource: Option<&str>,
        change: impl FnOnce(&dyn Object) -> Result<Box<dyn Object>, ApiError>,
    ) -> Result<Arc<dyn Object>, ApiError> {
        let mut state = self.state.lock();
        let old = state.get(kind, key)?;
        let mut new = change(&*old)?;
        check_preconditions(&kind.names(), &*old, new.meta().uid.as_deref(), new.meta().resource_version.as_deref())?;
        prepare(&**kind, &mut *new, &*old, subresource)?;
        if new.same_as(&*old) {
            return Ok(old);
        }
        if new.meta().deletion_timestamp.is_some() && is_free(&*new) {
            state.remove(kind, key);
            return Ok(Arc::from(new));
        }
        Ok(state.put(kind, new))
    }
}

#[async_trait]
impl Api for ModelApi {
    async fn mirror(&self, kind: &KindRef, scope: MirrorScope) -> Result<Arc<dyn Mirror>, ApiError> {
        let fields = scope.fields.as_deref().unwrap_or_default().parse::<FieldSelector>();
        let fields = fields.map_err(|error| ApiError::bad_request(error.to_string()))?;
        let mut state = self.state.lock();
        let revision = Revision(state.revision);
        let held = state.held(kind);
        if let Some(known) = held.mirrors.iter().find(|m| m.scope == scope) {
            return Ok(Arc::clone(&known.store) as Arc<dyn Mirror>);
        }
        let watched = Watched { scope, fields, store: Arc::new(MirrorStore::new()) };
        let objects = held.objects.values().filter(|o| watched.wants(&***o)).cloned().collect();
        watched.store.replace(objects, revision);
        let store = Arc::clone(&watched.store);
        held.mirrors.push(watched);
        Ok(store)
    }

    async fn get(&self, kind: &KindRef, key: &ObjectKey) -> Result<Arc<dyn Object>, ApiError> {
        self.state.lock().get(kind, key)
    }

    async fn create(&self, mut object: Box<dyn Object>) -> Result<Arc<dyn Object>, ApiError> {
        let kind = object.kind();
        let now = self.now();
        let mut state = self.state.lock();
        state.made += 1;
        let made = state.made;
        let meta = object.meta_mut();
        if meta.name.as_deref().unwrap_or_default().is_empty() {
            meta.name = meta.generate_name.as_ref().map(|prefix| format!("{prefix}{}", suffix(made)));
        }
        meta.uid = Some(format!("00000000-0000-4000-8000-{made:012x}"));
        meta.creation_timestamp = Some(Time(now));
        (meta.deletion_timestamp, meta.deletion_grace_period_seconds) = (None, None);
        kind.fill_defaults(&mut *object);
        kind.prepare_create(&mut *object);
        let generation = kind.generation_differs(&*object, &*object).map(|_| 1);
        object.meta_mut().generation = generation;
        let mut errors = FieldErrors::default();
        meta::validate_meta(object.meta(), &kind.names(), kind.scope(), &mut errors);
        kind.validate(&*object, &mut errors);
        refuse(&kind.names(), &*object, errors)?;
        if state.held(&kind).objects.contains_key(&object.key()) {
            return Err(ApiError::already_exists(&kind.names(), &object.key().name));
        }
        Ok(state.put(&kind, object))
    }

    async fn update(&self, object: Box<dyn Object>, subresource: Option<&str>) -> Result<Arc<dyn Object>, ApiError> {
        let (kind, key) = (object.kind(), object.key());
        self.modify(&kind, &key, subresource, |_| Ok(object))
    }

    async fn patch(
        &self,
        kind: &KindRef,
        key: &ObjectKey,
        patch: Patch,
        subresource: Option<&str>,
    ) -> Result<Arc<dyn Object>, ApiError> {
        let body = match patch {
            Patch::Json(patch) => PatchBody::Json(patch),
            Patch::Merge(patch) => PatchBody::Merge(patch),
            Patch::Strategic(patch) => PatchBody::Strategic(patch),
        };
        self.modify(kind, key, subresource, |old| {
            let tree = old.to_value().map_err(|error| ApiError::internal(error.to_string()))?;
            Ok(kind.decode_value(patch::apply(&**kind, tree, &body)?)?.object)
        })
    }

    async fn delete(&self, kind: &KindRef, key: &ObjectKey, options: DeleteOptions) -> Result<(), ApiError> {
        let now = self.now();
        let mut state = self.state.lock();
        let old = state.get(kind, key)?;
        let preconditions = options.preconditions.unwrap_or_default();
        let (uid, version) = (preconditions.uid.as_deref(), preconditions.resource_version.as_deref());
        check_preconditions(&kind.names(), &*old, uid, version)?;
        let mut new = old.boxed_clone();
        let grace = kind.grace_seconds(&*old, options.grace_period_seconds).unwrap_or(0).max(0);
        let meta = new.meta_mut();
        match options.propagation_policy.as_deref() {
            Some("Foreground") => add_finalizer(meta.finalizers.get_or_insert_default(), "foregroundDeletion"),
            Some("Orphan") => add_finalizer(meta.finalizers.get_or_insert_default(), "orphan"),
            _ => {}
        }
        if meta.deletion_grace_period_seconds.is_none_or(|before| grace < before) {
            meta.deletion_timestamp = now.checked_add(SignedDuration::from_secs(grace)).ok().map(Time);
            meta.deletion_grace_period_seconds = Some(grace);
        }
        if is_free(&*new) {
            state.remove(kind, key);
        } else if !new.same_as(&*old) {
            state.put(kind, new);
        }
        Ok(())
    }

    async fn bind(&self, pod: &ObjectKey, uid: &str, node: &str) -> Result<(), ApiError> {
        let kind = kind_of::<Pod>();
        let now = self.now();
        let mut state = self.state.lock();
        let old = state.get(&kind, pod)?;
        check_preconditions(&kind.names(), &*old, Some(uid), None)?;
        let mut new = old.boxed_clone();
        let Some(bound) = new.downcast_mut::<Pod>() else { return Err(ApiError::internal("a pod is no pod")) };
        let conflict = |why: String| Err(ApiError::conflict(&kind.names(), &pod.name, &why));
        if bound.metadata.deletion_timestamp.is_some() {
            return conflict(format!("pod {} is being deleted, cannot be assigned to a host", pod.name));
        }
        let spec = bound.spec.get_or_insert_default();
        if let Some(there) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
            return conflict(format!("pod {} is already assigned to node \"{there}\"", pod.name));
        }
        spec.node_name = Some(node.to_owned());
        let conditions = bound.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.retain(|c| c.type_ != "PodScheduled");
        conditions.push(PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(Time(now)),
            ..PodCondition::default()
        });
        state.put(&kind, new);
        Ok(())
    }

    async fn token(&self, account: &ObjectKey, mut request: TokenRequest) -> Result<TokenRequest, ApiError> {
        self.get(&kind_of::<ServiceAccount>(), account).await?;
        let spec = request.spec.get_or_insert_default();
        let lifetime = SignedDuration::from_secs(spec.expiration_seconds.unwrap_or(3600));
        let now = self.now();
        let token = format!("{account} {} {}", spec.audiences.clone().unwrap_or_default().join(","), now.as_second());
        let expiration_timestamp = Some(Time(now.checked_add(lifetime).unwrap_or(now)));
        request.status = Some(TokenRequestStatus { expiration_timestamp, token: Some(token) });
        Ok(request)
    }
}

impl State {
    fn held(&mut self, kind: &KindRef) -> &mut Held {
        let Names { group, plural, .. } = kind.names();
        self.kinds.entry((group, plural)).or_default()
    }

    fn get(&mut self, kind: &KindRef, key: &ObjectKey) -> Result<Arc<dyn Object>, ApiError> {
        let found = self.held(kind).objects.get(key).cloned();
        found.ok_or_else(|| ApiError::not_found(&kind.names(), &key.name))
    }

    fn put(&mut self, kind: &KindRef, mut object: Box<dyn Object>) -> Arc<dyn Object> {
        self.revision += 1;
        object.meta_mut().resource_version = Some(self.revision.to_string());
        let object: Arc<dyn Object> = Arc::from(object);
        let (key, revision) = (object.key(), Revision(self.revision));
        let held = self.held(kind);
        held.objects.insert(key.clone(), Arc::clone(&object));
        for watched in &held.mirrors {
            if watched.wants(&*object) {
                watched.store.put(Arc::clone(&object));
            } else {
                watched.store.delete(&key, revision);
            }
        }
        self.advance();
        object
    }

    fn remove(&mut self, kind: &KindRef, key: &ObjectKey) {
        self.revision += 1;
        let revision = Revision(self.revision);
        let held = self.held(kind);
        held.objects.remove(key);
        held.mirrors.iter().for_each(|watched| watched.store.delete(key, revision));
        self.advance();
    }

    /// Tells the mirrors of all kinds how far everything is.
    fn advance(&self) {
        for watched in self.kinds.values().flat_map(|held| &held.mirrors) {
            watched.store.advance(Revision(self.revision));
        }
    }
}

impl Watched {
    fn wants(&self, object: &dyn Object) -> bool {
        let here = self.scope.namespace.is_none() || self.scope.namespace == object.meta().namespace;
        here && self.fields.matches(&*object.kind(), object)
    }
}

/// Nothing holds a deleted object any more.
fn is_free(object: &dyn Object) -> bool {
    let meta = object.meta();
    meta.finalizers.as_ref().is_none_or(Vec::is_empty) && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
}

fn add_finalizer(finalizers: &mut Vec<String>, name: &str) {
    if !finalizers.iter().any(|f| f == name) {
        finalizers.push(name.to_owned());
    }
}

fn check_preconditions(
    names: &Names,
    old: &dyn Object,
    uid: Option<&str>,
    version: Option<&str>,
) -> Result<(), ApiError> {
    let name = old.key().name;
    match uid {
        Some(uid) if uid != old.uid() => {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", old.uid());
            return Err(ApiError::conflict(names, &name, &why));
        }
        _ => {}
    }
    match version.filter(|v| !v.is_empty()) {
        Some(version) if Some(version) != old.meta().resource_version.as_deref() => {
            Err(ApiError::modified(names, &name))
        }
        _ => Ok(()),
    }
}

/// Makes `new` what may be stored after `old`.
fn prepare(kind: &dyn AnyKind, new: &mut dyn Object, old: &dyn Object, sub: Option<&str>) -> Result<(), ApiError> {
    let before = old.meta();
    let meta = new.meta_mut();
    meta.uid = before.uid.clone();
    meta.resource_version = before.resource_version.clone();
    meta.creation_timestamp = before.creation_timestamp.clone();
    meta.deletion_timestamp = before.deletion_timestamp.clone();
    meta.deletion_grace_period_seconds = before.deletion_grace_period_seconds;
    meta.generation = before.generation;
    let mut errors = FieldErrors::default();
    kind.fill_defaults(new);
    if sub == Some("status") {
        kind.prepare_status_update(new, old);
        kind.validate_status_update(new, old, &mut errors);
    } else {
        match sub {
            Some(part) => kind.prepare_part_update(part, new, old),
            None => kind.prepare_update(new, old),
        }
        if kind.generation_differs(new, old) == Some(true) {
            let generation = new.meta().generation.unwrap_or(0) + 1;
            new.meta_mut().generation = Some(generation);
        }
        kind.validate(new, &mut errors);
        match sub {
            Some(part) => kind.validate_part_update(part, new, old, &mut errors),
            None => kind.validate_update(new, old, &mut errors),
        }
    }
    refuse(&kind.names(), new, errors)
}

fn refuse(names: &Names, object: &dyn Object, errors: FieldErrors) -> Result<(), ApiError> {
    if errors.0.is_empty() { Ok(()) } else { Err(ApiError::invalid(names, &object.key().name, errors)) }
}

/// Five letters and digits from a number, as after generated names.
fn suffix(number: u64) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8;
    let mut digit = || {
        let digit = usize::try_from(rest % 27).unwrap_or_default();
        rest /= 27;
        char::from(ALPHABET[digit])
    };
    (0..5).map(|_| digit()).collect()
}
