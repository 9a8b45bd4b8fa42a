//! Fixtures for the controllers' tests: a cluster from a few lines of text, a plan as lines of text.
//!
//! One object per line (or `;`): `KIND NAME key=value flag …`. All live in namespace `d`, are labelled `app=web` and were
//! created `age` (60) seconds ago, at [`NOW`]; the uid of `rs web` is `rs/web`, which `owner=rs/web` refers to.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{
        ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController,
        ResourceQuota, Service,
    },
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
    rbac::v1::ClusterRole,
    storage::v1::StorageClass,
};
use podium_api::{Kind, KindRef, Names, Object, ObjectKey, Revision};
use serde_json::{Value, json};

use crate::{Action, Controller, Key, Plan, View};

mod sets;

/// The time of every test, in seconds.
pub(crate) const NOW: i64 = 1_000_000;

/// A cluster.
#[derive(Default)]
pub(crate) struct World {
    objects: Vec<Arc<dyn Object>>,
    /// How far all mirrors are.
    revision: u64,
    since: Option<Timestamp>,
    /// Names of pods that have become free, and when.
    freed: Vec<(ObjectKey, Timestamp)>,
}

impl World {
    /// Reads a fixture.
    pub(crate) fn of(text: &str) -> Self {
        let lines = text.split(['\n', ';']).map(str::trim).filter(|line| !line.is_empty());
        Self { objects: lines.map(object).collect(), revision: 100, ..Self::default() }
    }

    /// The same with one more object, from JSON.
    pub(crate) fn plus<K: Kind>(mut self, object: Value) -> Self {
        self.objects.push(typed::<K>(object));
        self
    }

    /// The same with all mirrors at another revision; that of every object is 7.
    pub(crate) fn at(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    /// The same, watched only since so many seconds ago.
    pub(crate) fn watched_for(self, seconds: i64) -> Self {
        Self { since: Timestamp::from_second(NOW - seconds).ok(), ..self }
    }

    /// The same after a pod of this name has gone, so many milliseconds ago.
    pub(crate) fn freed(mut self, pod: &str, millis: i64) -> Self {
        let at = Timestamp::from_millisecond(NOW * 1000 - millis).unwrap();
        self.freed.push((ObjectKey::new("d", pod), at));
        self
    }

    /// What a controller plans for an object, as text.
    pub(crate) fn plan(&self, controller: &dyn Controller, names: &Names, name: &str) -> String {
        let namespaced = !["nodes", "namespaces", "persistentvolumes", "clusterroles"].contains(&names.plural);
        let object = ObjectKey::new(if namespaced { "d" } else { "" }, name);
        let now = Timestamp::from_second(NOW).unwrap();
        show(&controller.reconcile(&Key::new(names, object), self, now))
    }

    /// The keys that a change of this object concerns, as text.
    pub(crate) fn keys(&self, controller: &dyn Controller, changed: &str) -> String {
        let changed = object(changed);
        let triggers = controller.triggers().into_iter().filter(|t| t.kind.names() == changed.names());
        let keys = triggers.flat_map(|t| (t.keys)(&*changed, self));
        keys.map(|key| key.to_string()).collect::<Vec<_>>().join(", ")
    }
}

impl View for World {
    fn get(&self, names: &Names, key: &ObjectKey) -> Option<Arc<dyn Object>> {
        self.list(names, None).into_iter().find(|o| o.key() == *key)
    }

    fn list(&self, names: &Names, namespace: Option<&str>) -> Vec<Arc<dyn Object>> {
        let wanted = |o: &&Arc<dyn Object>| {
            o.names() == *names && namespace.is_none_or(|n| o.meta().namespace.as_deref() == Some(n))
        };
        self.objects.iter().filter(wanted).cloned().collect()
    }

    fn owned_by(&self, names: &Names, owner_uid: &str) -> Vec<Arc<dyn Object>> {
        let owned = |o: &Arc<dyn Object>| match (owner_uid, o.meta().owner_references.as_deref().unwrap_or_default()) {
            ("", owners) => !owners.iter().any(|r| r.controller == Some(true)),
            (uid, owners) => owners.iter().any(|r| r.uid == uid),
        };
        self.list(names, None).into_iter().filter(owned).collect()
    }

    fn revision(&self, _names: &Names) -> Revision {
        Revision(self.revision)
    }

    fn kinds(&self) -> Vec<KindRef> {
        podium_api::kinds::all().into_iter().filter(|kind| kind.stored_as().is_none()).collect()
    }

    fn since(&self) -> Option<Timestamp> {
        self.since
    }

    fn freed(&self, names: &Names, key: &ObjectKey) -> Option<Timestamp> {
        let freed = self.freed.iter().find(|(freed, _)| names.plural == "pods" && freed == key);
        freed.map(|(_, at)| *at)
    }
}

/// The words after kind and name.
pub(crate) struct Words<'t>(HashMap<&'t str, &'t str>);

impl<'t> Words<'t> {
    pub(crate) fn of(words: impl Iterator<Item = &'t str>) -> Self {
        Self(words.map(|word| word.split_once('=').unwrap_or((word, ""))).collect())
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.0.contains_key(word)
    }

    pub(crate) fn text(&self, word: &str) -> Option<&'t str> {
        self.0.get(word).copied()
    }

    pub(crate) fn number(&self, word: &str) -> Option<i64> {
        self.text(word).map(|n| n.parse().unwrap())
    }

    /// The time so many seconds ago.
    fn ago(&self, word: &str, default: i64) -> String {
        ago(self.number(word).unwrap_or(default))
    }

    /// `a,b` in order.
    pub(crate) fn names(&self, word: &str) -> Option<Vec<&'t str>> {
        self.text(word).map(|text| text.split(',').collect())
    }

    /// `a:1,b:2` as a map.
    fn pairs(&self, word: &str) -> Option<HashMap<&'t str, &'t str>> {
        self.text(word).map(|_| self.list(word).into_iter().collect())
    }

    /// `a:1,b:2` in order.
    fn list(&self, word: &str) -> Vec<(&'t str, &'t str)> {
        self.text(word).into_iter().flat_map(|text| text.split(',')).map(|pair| pair.split_once(':').unwrap()).collect()
    }
}

pub(crate) fn ago(seconds: i64) -> String {
    Timestamp::from_second(NOW - seconds).unwrap().to_string()
}

fn object(line: &str) -> Arc<dyn Object> {
    let mut words = line.split_whitespace();
    let (kind, name) = (words.next().unwrap(), words.next().unwrap());
    let words = Words::of(words);
    let metadata = metadata(kind, name, &words);
    match kind {
        "pod" => typed::<Pod>(pod(metadata, &words)),
        "rs" => typed::<ReplicaSet>(replica_set(metadata, &words)),
        "rc" => typed::<ReplicationController>(replication_controller(metadata, &words)),
        "deployment" => typed::<Deployment>(deployment(metadata, &words)),
        "sts" | "ds" | "member" | "daemon" | "revision" => sets::object(kind, metadata, &words),
        "service" => typed::<Service>(service(metadata, &words)),
        "slice" => typed::<EndpointSlice>(slice(metadata, &words)),
        "mirrored" => typed::<EndpointSlice>(mirrored(metadata, &words)),
        "endpoints" => typed::<Endpoints>(endpoints(metadata, &words)),
        "configmap" => typed::<ConfigMap>(json!({"metadata": metadata})),
        "claim" => typed::<PersistentVolumeClaim>(claim(metadata, &words)),
        "volume" => typed::<PersistentVolume>(volume(metadata, &words)),
        "class" => typed::<StorageClass>(json!({
            "metadata": metadata, "provisioner": words.text("provisioner").unwrap_or("podium.dev/local"),
            "volumeBindingMode": if words.has("waits") { "WaitForFirstConsumer" } else { "Immediate" },
        })),
        "clusterrole" => typed::<ClusterRole>(cluster_role(metadata, &words)),
        "quota" => typed::<ResourceQuota>(quota(metadata, &words)),
        "pdb" => typed::<PodDisruptionBudget>(budget(metadata, &words)),
        "node" => typed::<Node>(node(metadata, &words)),
        "namespace" => typed::<Namespace>(namespace(metadata, &words)),
        "lease" => typed::<Lease>(json!({"metadata": metadata, "spec": {"renewTime": words.ago("renewed", 0)}})),
        other => panic!("unknown kind in a fixture: {other}"),
    }
}

fn typed<K: Kind>(mut value: Value) -> Arc<dyn Object> {
    value["apiVersion"] = K::NAMES.api_version().into();
    value["kind"] = K::NAMES.kind.into();
    Arc::new(serde_json::from_value::<K>(value).unwrap())
}

fn metadata(kind: &str, name: &str, words: &Words<'_>) -> Value {
    let namespace = match kind {
        "node" | "namespace" | "volume" | "class" | "clusterrole" => None,
        "lease" => Some("kube-node-lease"),
        _ => Some("d"),
    };
    let owners: Vec<Value> = words
        .text("owner")
        .into_iter()
        .flat_map(|owners| owners.split(','))
        .map(|owner| reference(owner, words))
        .collect();
    let finalizers: Vec<&str> = words.text("finalizers").into_iter().flat_map(|f| f.split(',')).collect();
    let mut metadata = json!({
        "name": name, "namespace": namespace, "uid": format!("{kind}/{name}"), "generation": 1,
        "resourceVersion": "7", "creationTimestamp": words.ago("age", 60), "finalizers": finalizers,
        "labels": words.pairs("labels").unwrap_or_else(|| [("app", "web")].into()),
        "annotations": words.pairs("annotations"), "ownerReferences": owners,
    });
    if words.has("deleting") {
        metadata["deletionTimestamp"] = words.ago("deleting-for", 0).into();
    }
    metadata
}

fn reference(owner: &str, words: &Words<'_>) -> Value {
    let (kind, name) = owner.split_once('/').unwrap();
    let (version, kind) = match kind {
        "rs" => ("apps/v1", "ReplicaSet"),
        "rc" => ("v1", "ReplicationController"),
        "deployment" => ("apps/v1", "Deployment"),
        "sts" => ("apps/v1", "StatefulSet"),
        "ds" => ("apps/v1", "DaemonSet"),
        "service" => ("v1", "Service"),
        "pod" => ("v1", "Pod"),
        "configmap" => ("v1", "ConfigMap"),
        other => ("example.com/v1", other),
    };
    let controls = !words.has("loosely");
    json!({
        "apiVersion": version, "kind": kind, "name": name, "uid": owner, "controller": controls,
        "blockOwnerDeletion": controls,
    })
}

fn pod(metadata: Value, words: &Words<'_>) -> Value {
    let node = words.text("node");
    let default_phase = if node.is_some() { "Running" } else { "Pending" };
    let ready = if words.has("ready") { "True" } else { "False" };
    let since = words.text("ready").filter(|s| !s.is_empty()).map_or(30, |s| s.parse().unwrap());
    let mut conditions = vec![json!({"type": "Ready", "status": ready, "lastTransitionTime": ago(since)})];
    conditions.extend(words.number("said-to-go").map(|seconds| {
        let reason = words.text("by").unwrap_or("EvictionByEvictionAPI");
        json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": ago(seconds)})
    }));
    let ports: Vec<Value> = words
        .pairs("ports")
        .into_iter()
        .flatten()
        .map(|(name, number)| json!({"name": name, "containerPort": number.parse::<i32>().unwrap()}))
        .collect();
    let volumes: Vec<Value> = words
        .text("claim")
        .into_iter()
        .map(|claim| json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    json!({
        "metadata": metadata,
        "spec": {"nodeName": node, "volumes": volumes, "containers": [{"name": "c", "image": "i", "ports": ports}]},
        "status": {
            "phase": words.text("phase").unwrap_or(default_phase), "podIP": words.text("ip"),
            "conditions": conditions,
            "containerStatuses": [{
                "name": "c", "image": "i", "imageID": "", "ready": true,
                "restartCount": words.number("restarts").unwrap_or(0),
            }],
        },
    })
}

fn claim(metadata: Value, words: &Words<'_>) -> Value {
    json!({
        "metadata": metadata,
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": words.text("class").unwrap_or_default(),
            "volumeName": words.text("volume"),
            "resources": {"requests": {"storage": words.text("size").unwrap_or("1Gi")}},
        },
        "status": {"phase": words.text("phase")},
    })
}

fn volume(metadata: Value, words: &Words<'_>) -> Value {
    let claim = words.text("claim").map(
        |name| json!({"kind": "PersistentVolumeClaim", "namespace": "d", "name": name, "uid": words.text("claim-uid")}),
    );
    json!({
        "metadata": metadata,
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": words.text("class").unwrap_or_default(),
            "capacity": {"storage": words.text("size").unwrap_or("1Gi")}, "claimRef": claim,
            "persistentVolumeReclaimPolicy": words.text("policy").unwrap_or("Retain"),
        },
        "status": {"phase": words.text("phase")},
    })
}

fn template(words: &Words<'_>, hash: Option<&str>) -> Value {
    let mut labels = json!({"app": "web"});
    if let Some(hash) = hash {
        labels["pod-template-hash"] = hash.into();
    }
    let image = words.text("image").unwrap_or("v1");
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn replica_set(metadata: Value, words: &Words<'_>) -> Value {
    let hash = words.text("hash");
    let replicas = words.number("replicas").unwrap_or(1);
    let there = words.number("there").unwrap_or(replicas);
    let ready = words.number("ready").unwrap_or(there);
    let template = template(words, hash);
    let wait = words.number("min-ready");
    let mut object = json!({
        "metadata": metadata,
        "spec": {
            "replicas": replicas, "minReadySeconds": wait, "template": template,
            "selector": {"matchLabels": template["metadata"]["labels"]},
        },
        "status": {
            "replicas": there, "readyReplicas": ready, "observedGeneration": 1,
            "availableReplicas": words.number("available").unwrap_or(ready),
            "terminatingReplicas": words.number("terminating"),
        },
    });
    let mut annotate = |word: &str, annotation: &str| {
        if let Some(text) = words.text(word) {
            object["metadata"]["annotations"][format!("deployment.kubernetes.io/{annotation}")] = text.into();
        }
    };
    annotate("rev", "revision");
    annotate("desired", "desired-replicas");
    annotate("max", "max-replicas");
    object
}

/// A ReplicaSet with the selector that there was before there were sets of requirements.
fn replication_controller(metadata: Value, words: &Words<'_>) -> Value {
    let mut object = replica_set(metadata, words);
    let labels = object["spec"]["selector"]["matchLabels"].take();
    object["spec"]["selector"] = labels;
    object
}

fn deployment(metadata: Value, words: &Words<'_>) -> Value {
    let bound =
        |word: &str| words.text(word).map(|text| text.parse::<i32>().map_or_else(|_| json!(text), |n| json!(n)));
    let strategy = match words.has("recreate") {
        true => json!({"type": "Recreate"}),
        false => json!({
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": bound("surge"), "maxUnavailable": bound("unavailable")},
        }),
    };
    let mut object = json!({
        "metadata": metadata,
        "spec": {
            "replicas": words.number("replicas").unwrap_or(1), "paused": words.has("paused"),
            "progressDeadlineSeconds": words.number("deadline"), "revisionHistoryLimit": words.number("history"),
            "minReadySeconds": words.number("min-ready"),
            "selector": {"matchLabels": {"app": "web"}}, "template": template(words, None), "strategy": strategy,
        },
    });
    if let Some(rev) = words.text("rev") {
        object["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = rev.into();
    }
    if let Some(reason) = words.text("progressing") {
        let at = words.ago("since", 0);
        object["status"] = json!({
            "replicas": words.number("there"), "updatedReplicas": words.number("there"),
            "conditions": [{
            "type": "Progressing", "status": "True", "reason": reason, "lastUpdateTime": at, "lastTransitionTime": at,
        }]});
    }
    object
}

fn service(metadata: Value, words: &Words<'_>) -> Value {
    let target = words.text("target").unwrap_or("8080");
    let target = target.parse::<i32>().map_or_else(|_| json!(target), |n| json!(n));
    let selector = if words.has("selectorless") { Value::Null } else { json!({"app": "web"}) };
    json!({
        "metadata": metadata,
        "spec": {
            "selector": selector, "clusterIP": words.text("ip").unwrap_or("10.96.0.1"),
            "ports": [{"name": "http", "port": 80, "targetPort": target, "protocol": "TCP"}],
            "publishNotReadyAddresses": words.has("publish-all"), "trafficDistribution": words.text("distribution"),
        },
    })
}

/// `ready=10.0.0.1,10.0.0.2`, `waiting=10.0.0.3`: addresses of port 80.
fn endpoints(metadata: Value, words: &Words<'_>) -> Value {
    let addresses = |word| -> Vec<Value> {
        words.text(word).into_iter().flat_map(|ips| ips.split(',')).map(|ip| json!({"ip": ip})).collect()
    };
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let subset = json!({"addresses": addresses("ready"), "notReadyAddresses": addresses("waiting"), "ports": ports});
    let any = words.has("ready") || words.has("waiting");
    json!({"metadata": metadata, "subsets": if any { json!([subset]) } else { json!(null) }})
}

/// `of=10.0.0.1,10.0.0.2`: made of Endpoints with these ready addresses.
fn mirrored(mut metadata: Value, words: &Words<'_>) -> Value {
    metadata["labels"]["kubernetes.io/service-name"] = "web".into();
    metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = "endpointslicemirroring-controller.k8s.io".into();
    let ips = words.text("of").into_iter().flat_map(|ips| ips.split(','));
    let endpoints: Vec<Value> = ips.map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports})
}

/// `pods=a:10.0.0.1`: ready endpoints.
fn slice(mut metadata: Value, words: &Words<'_>) -> Value {
    metadata["labels"]["kubernetes.io/service-name"] = "web".into();
    metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = "endpointslice-controller.k8s.io".into();
    let mut pods: Vec<_> = words.pairs("pods").into_iter().flatten().collect();
    pods.sort_unstable();
    let endpoint = |(name, ip): &(&str, &str)| {
        json!({
            "addresses": [ip], "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": "n1",
            "targetRef": {"kind": "Pod", "namespace": "d", "name": name, "uid": format!("pod/{name}")},
        })
    };
    let endpoints: Vec<Value> = pods.iter().map(endpoint).collect();
    let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
    json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports})
}

/// `min=1` or `max=50%`; `going=x since=5`: the eviction of x was granted 5 seconds ago.
fn budget(metadata: Value, words: &Words<'_>) -> Value {
    let amount =
        |word: &str| words.text(word).map(|text| text.parse::<i32>().map_or_else(|_| json!(text), |n| json!(n)));
    let going: serde_json::Map<_, _> =
        words.text("going").map(|pod| (pod.to_owned(), words.ago("since", 0).into())).into_iter().collect();
    json!({
        "metadata": metadata,
        "spec": {
            "minAvailable": amount("min"), "maxUnavailable": amount("max"),
            "selector": {"matchLabels": {"app": "web"}},
        },
        "status": {"disruptedPods": going},
    })
}

/// `ready=False since=5`, `taints=KEY:EFFECT tainted=5`, `cordoned`.
fn node(metadata: Value, words: &Words<'_>) -> Value {
    let taints: Vec<Value> = words
        .list("taints")
        .into_iter()
        .map(|(key, effect)| json!({"key": key, "effect": effect, "timeAdded": words.ago("tainted", 0)}))
        .collect();
    let ready = words.text("ready").unwrap_or("True");
    json!({
        "metadata": metadata, "spec": {"taints": taints, "unschedulable": words.has("cordoned")},
        "status": {"conditions": [{
            "type": "Ready", "status": ready, "lastTransitionTime": words.number("since").map(ago),
        }]},
    })
}

/// `hard=pods:5,configmaps:2`, and `used=pods:1` for what its status shows.
fn quota(metadata: Value, words: &Words<'_>) -> Value {
    let amounts = |word: &str| -> Value {
        let pairs = words.text(word).into_iter().flat_map(|t| t.split(',')).filter_map(|pair| pair.split_once(':'));
        pairs.map(|(name, amount)| (name.to_owned(), Value::from(amount))).collect::<serde_json::Map<_, _>>().into()
    };
    let hard = amounts("hard");
    let mut quota = json!({"metadata": metadata, "spec": {"hard": hard}});
    if words.has("used") {
        quota["status"] = json!({"hard": hard, "used": amounts("used")});
    }
    quota
}

/// `verbs=get,list`: a rule for pods with each; `of=a:b`: the rules of those that are labelled so.
fn cluster_role(metadata: Value, words: &Words<'_>) -> Value {
    let verbs = words.text("verbs").into_iter().flat_map(|verbs| verbs.split(','));
    let rule = |verb: &str| json!({"apiGroups": [""], "resources": ["pods"], "verbs": [verb]});
    let rules: Vec<Value> = verbs.map(rule).collect();
    let mut role = json!({"metadata": metadata, "rules": rules});
    if let Some(labels) = words.pairs("of") {
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
    }
    role
}

fn namespace(metadata: Value, words: &Words<'_>) -> Value {
    let conditions = match words.has("reported") {
        true => json!([{"type": "NamespaceContentRemaining", "status": "True"}]),
        false => json!(null),
    };
    json!({"metadata": metadata, "spec": {"finalizers": ["kubernetes"]}, "status": {"conditions": conditions}})
}

/// A plan, one action per line.
pub(crate) fn show(plan: &Plan) -> String {
    let mut lines: Vec<String> = plan.actions.iter().map(show_action).collect();
    lines.extend(plan.requeue_after.map(|after| format!("look again after {after:?}")));
    lines.join("\n")
}

fn show_action(action: &Action) -> String {
    match action {
        Action::Create(object) => format!("create {}", brief(&**object)),
        Action::CreateAndTell(object, event) => {
            format!("create {}; tell {}: {}…", brief(&**object), event.reason, event.message)
        }
        Action::Update(object) => format!("update {}", brief(&**object)),
        Action::UpdateStatus(object) => {
            let value = object.to_value().unwrap();
            format!("status {} {}", title(&**object), without_noise(value["status"].clone()))
        }
        Action::MergePatch { kind, key, patch, subresource } => {
            let names = kind.names();
            let slash = subresource.map(|s| format!("/{s}")).unwrap_or_default();
            format!("patch {}{slash} {} {}", names.singular, key.name, without_noise(patch.clone()))
        }
        Action::Delete { kind, key, propagation, .. } => {
            format!("delete {} {} {}", kind.names().singular, key.name, propagation.unwrap_or_default())
                .trim_end()
                .to_owned()
        }
        Action::DeleteCollection { kind, namespace } => format!("delete all {} in {namespace}", kind.names().plural),
        Action::Event(event) => format!("event {} {}: {}", event.kind.as_str(), event.reason, event.message),
    }
}

fn title(object: &dyn Object) -> String {
    let meta = object.meta();
    let generated = meta.generate_name.as_ref().map(|prefix| format!("{prefix}*"));
    format!("{} {}", object.names().singular, meta.name.clone().or(generated).unwrap_or_default())
}

/// Title and what matters of the content: everything but templates, selectors and noise.
fn brief(object: &dyn Object) -> String {
    let mut value = object.to_value().unwrap();
    let annotations = value["metadata"]["annotations"].take();
    let content = value.as_object_mut().unwrap();
    content.retain(|k, _| !["apiVersion", "kind", "metadata", "status", "addressType"].contains(&k.as_str()));
    if let Some(spec) = content.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|k, _| !["template", "selector", "containers"].contains(&k.as_str()));
    }
    if !annotations.is_null() {
        content.insert("annotations".to_owned(), annotations);
    }
    format!("{} {}", title(object), without_noise(value))
}

/// JSON without times, identities and empty things.
fn without_noise(value: Value) -> Value {
    const NOISE: [&str; 10] = [
        "lastProbeTime",
        "uid",
        "resourceVersion",
        "lastTransitionTime",
        "lastUpdateTime",
        "timeAdded",
        "namespace",
        "containerStatuses",
        "observedGeneration",
        "message",
    ];
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(k, v)| !NOISE.contains(&k.as_str()) && !v.is_null());
            kept.map(|(k, v)| (k, without_noise(v))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_noise).collect(),
        other => other,
    }
}
