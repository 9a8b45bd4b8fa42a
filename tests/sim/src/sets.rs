//! [`SetUser`]: makes, scales, rolls out and deletes StatefulSets and DaemonSets; knows what it asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use podium_api::{
    KindRef, ObjectKey,
    k8s_openapi::{
        api::{
            apps::v1::{ControllerRevision, DaemonSet, StatefulSet},
            core::v1::{Node, Pod},
        },
        apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta},
    },
    kind_of,
};
use podium_client::{Api, ModelApi, Patch};
use rand::{RngExt, rngs::SmallRng};
use serde_json::{Value, json};

use crate::objects::{all, daemon_set, object, stateful_set};

const SETS_MAX: usize = 3;
/// How many revisions no pod is at are kept.
const HISTORY_MAX: usize = 2;

/// The user of sets.
pub(crate) struct SetUser {
    model: Arc<ModelApi>,
    asked: BTreeMap<String, Asked>,
    made: u32,
    images: u32,
}

/// What a set should come to.
struct Asked {
    /// `None`: a DaemonSet.
    replicas: Option<usize>,
    partition: usize,
    image: String,
    /// What it was before: going back to it is one of the things that users do.
    before: String,
}

impl Asked {
    fn kind(&self) -> KindRef {
        if self.replicas.is_some() { kind_of::<StatefulSet>() } else { kind_of::<DaemonSet>() }
    }
}

impl SetUser {
    pub(crate) fn new(model: Arc<ModelApi>) -> Self {
        Self { model, asked: BTreeMap::new(), made: 0, images: 0 }
    }

    /// Does one thing; says what.
    pub(crate) async fn act(&mut self, random: &mut SmallRng) -> String {
        let names: Vec<String> = self.asked.keys().cloned().collect();
        if names.is_empty() || names.len() < SETS_MAX && random.random_bool(0.4) {
            return self.make(random).await;
        }
        let name = &names[random.random_range(0..names.len())];
        match random.random_range(0..12) {
            0..3 => self.scale(name, random.random_range(0..7)).await,
            3..8 => self.roll_out(name).await,
            8 => self.go_back(name).await,
            9 | 10 => self.part(name, random.random_range(0..4)).await,
            _ => self.delete(name).await,
        }
    }

    async fn make(&mut self, random: &mut SmallRng) -> String {
        self.made += 1;
        let (image, before) = ("image-0".to_owned(), "image-0".to_owned());
        if random.random_bool(0.4) {
            let name = format!("agent{}", self.made);
            let surge = random.random_range(0..2);
            let unavailable = if surge == 0 { random.random_range(1..3) } else { 0 };
            let made = object::<DaemonSet>(daemon_set(&name, surge, unavailable));
            self.model.create(made).await.expect("the name is new");
            self.asked.insert(name.clone(), Asked { replicas: None, partition: 0, image, before });
            return format!("user makes DaemonSet {name}: maxSurge {surge}, maxUnavailable {unavailable}");
        }
        let name = format!("db{}", self.made);
        let (replicas, parallel) = (random.random_range(0..7), random.random_bool(0.4));
        let unavailable = random.random_range(1..4);
        let made = object::<StatefulSet>(stateful_set(&name, replicas, parallel, unavailable));
        self.model.create(made).await.expect("the name is new");
        let replicas = usize::try_from(replicas).unwrap_or(0);
        self.asked.insert(name.clone(), Asked { replicas: Some(replicas), partition: 0, image, before });
        format!("user makes StatefulSet {name}: {replicas} pods, parallel: {parallel}, maxUnavailable {unavailable}")
    }

    async fn patch(&self, name: &str, spec: Value) {
        let kind = self.asked[name].kind();
        let (key, patch) = (ObjectKey::new("default", name), Patch::Strategic(json!({"spec": spec})));
        self.model.patch(&kind, &key, patch, None).await.expect("the set is there and the patch is valid");
    }

    async fn scale(&mut self, name: &str, replicas: usize) -> String {
        if self.asked[name].replicas.is_none() {
            return self.roll_out(name).await;
        }
        self.patch(name, json!({"replicas": replicas})).await;
        self.ask(name, |asked| asked.replicas = Some(replicas));
        format!("user scales {name} to {replicas}")
    }

    async fn part(&mut self, name: &str, partition: usize) -> String {
        if self.asked[name].replicas.is_none() {
            return self.go_back(name).await;
        }
        self.patch(name, json!({"updateStrategy": {"rollingUpdate": {"partition": partition}}})).await;
        self.ask(name, |asked| asked.partition = partition);
        format!("user updates {name} from ordinal {partition} on")
    }

    async fn roll_out(&mut self, name: &str) -> String {
        self.images += 1;
        let image = format!("image-{}", self.images);
        self.set_image(name, image).await
    }

    async fn go_back(&mut self, name: &str) -> String {
        let image = self.asked[name].before.clone();
        self.set_image(name, image).await
    }

    async fn set_image(&mut self, name: &str, image: String) -> String {
        let containers = json!([{"name": "main", "image": image}]);
        self.patch(name, json!({"template": {"spec": {"containers": containers}}})).await;
        let to = image.clone();
        self.ask(name, |asked| asked.before = std::mem::replace(&mut asked.image, to));
        format!("user rolls {name} out with {image}")
    }

    async fn delete(&mut self, name: &str) -> String {
        let Some(asked) = self.asked.remove(name) else { return String::new() };
        let options = DeleteOptions { propagation_policy: Some("Background".to_owned()), ..DeleteOptions::default() };
        let key = ObjectKey::new("default", name);
        self.model.delete(&asked.kind(), &key, options).await.expect("the set is there");
        format!("user deletes {name}")
    }

    fn ask(&mut self, name: &str, change: impl FnOnce(&mut Asked)) {
        if let Some(asked) = self.asked.get_mut(name) {
            change(asked);
        }
    }

    /// What is not yet as asked for.
    pub(crate) fn missing(&self, model: &ModelApi) -> Option<String> {
        let (pods, revisions) = (all::<Pod>(model), all::<ControllerRevision>(model));
        let stateful = all::<StatefulSet>(model);
        let daemons = all::<DaemonSet>(model);
        let uids = stateful.iter().map(|s| &s.metadata).chain(daemons.iter().map(|s| &s.metadata));
        let uids: BTreeSet<&str> = uids.filter_map(|m| m.uid.as_deref()).collect();
        let left = |meta: &ObjectMeta| {
            let mut owners = meta.owner_references.iter().flatten();
            owners.any(|o| matches!(&*o.kind, "StatefulSet" | "DaemonSet") && !uids.contains(&*o.uid))
        };
        let mut owned = pods.iter().map(|p| &p.metadata).chain(revisions.iter().map(|r| &r.metadata));
        if let Some(meta) = owned.find(|meta| left(meta)) {
            return Some(format!("{} outlives its set", ObjectKey::of(meta)));
        }
        let nodes = all::<Node>(model).len();
        self.asked.iter().find_map(|(name, asked)| {
            let of_name = |meta: &ObjectMeta| meta.labels.as_ref().is_some_and(|l| l.get("app") == Some(name));
            let pods: Vec<_> = pods.iter().filter(|pod| of_name(&pod.metadata)).collect();
            let revisions = revisions.iter().filter(|r| of_name(&r.metadata)).count();
            asked.missing(name, &pods, nodes).or_else(|| asked.too_long(name, &pods, revisions))
        })
    }
}

impl Asked {
    fn missing(&self, name: &str, pods: &[&Arc<Pod>], nodes: usize) -> Option<String> {
        let wanted: BTreeSet<String> = match self.replicas {
            Some(replicas) => (0..replicas).map(|n| format!("{name}-{n}")).collect(),
            None => BTreeSet::new(),
        };
        let places: BTreeSet<&str> = pods.iter().filter_map(|pod| self.place(pod)).collect();
        let right_places = match self.replicas {
            Some(_) => places.iter().map(|p| (*p).to_owned()).eq(wanted),
            None => places.len() == nodes,
        };
        let bad = pods.iter().find(|pod| !self.is_good(pod));
        if let Some(bad) = bad {
            return Some(format!("pod {} of {name} is not as asked for", ObjectKey::of(&bad.metadata)));
        }
        (!right_places || pods.len() != places.len()).then(|| format!("{name} has pods at {places:?}"))
    }

    /// The ordinal's name, or the node.
    fn place<'p>(&self, pod: &'p Pod) -> Option<&'p str> {
        match self.replicas {
            Some(_) => pod.metadata.name.as_deref(),
            None => pod.spec.as_ref()?.node_name.as_deref(),
        }
    }

    fn is_good(&self, pod: &Pod) -> bool {
        let image = pod.spec.as_ref().and_then(|s| s.containers.first()).and_then(|c| c.image.as_deref());
        let ordinal = pod.metadata.name.as_deref().and_then(|n| n.rsplit('-').next()?.parse::<usize>().ok());
        let kept = self.replicas.is_some() && ordinal.is_some_and(|n| n < self.partition);
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        (kept || image == Some(&*self.image)) && phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
    }

    fn too_long(&self, name: &str, pods: &[&Arc<Pod>], revisions: usize) -> Option<String> {
        let label =
            |pod: &&Arc<Pod>| pod.metadata.labels.as_ref().and_then(|l| l.get("controller-revision-hash")).cloned();
        let live: BTreeSet<_> = pods.iter().filter_map(label).collect();
        // The present one and the one before a partition are kept beside those of pods.
        let most = HISTORY_MAX + live.len() + 2;
        (revisions > most).then(|| format!("{name} has {revisions} revisions, at most {most}"))
    }
}
