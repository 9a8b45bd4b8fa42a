//! [`User`]: deploys, scales, rolls out, kills pods and deletes; knows what it asked for.

use std::{collections::BTreeMap, sync::Arc};

use podium_api::{
    Object, ObjectKey,
    k8s_openapi::{
        api::{
            apps::v1::{Deployment, ReplicaSet},
            core::v1::Pod,
        },
        apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta},
    },
    kind_of,
};
use podium_client::{Api, ModelApi, Patch};
use rand::{RngExt, rngs::SmallRng};
use serde_json::json;

use crate::{
    jobs::job_of,
    objects::{all, deployment, object},
};

const DEPLOYMENTS_MAX: usize = 3;

/// The user.
pub struct User {
    model: Arc<ModelApi>,
    asked: BTreeMap<String, Asked>,
    made: u32,
    images: u32,
}

/// What a deployment should come to.
struct Asked {
    replicas: usize,
    image: String,
}

impl User {
    /// A user who has asked for nothing yet.
    pub fn new(model: Arc<ModelApi>) -> Self {
        Self { model, asked: BTreeMap::new(), made: 0, images: 0 }
    }

    /// Does one thing; says what.
    pub async fn act(&mut self, random: &mut SmallRng) -> String {
        let names: Vec<String> = self.asked.keys().cloned().collect();
        if names.is_empty() || names.len() < DEPLOYMENTS_MAX && random.random_bool(0.3) {
            return self.deploy(random).await;
        }
        let name = &names[random.random_range(0..names.len())];
        match random.random_range(0..11) {
            0..4 => self.scale(name, random.random_range(0..9)).await,
            4..7 => self.roll_out(name).await,
            7..9 => self.kill(random).await,
            9 => self.pause(name, random.random_bool(0.5)).await,
            _ => self.delete(name).await,
        }
    }

    async fn deploy(&mut self, random: &mut SmallRng) -> String {
        self.made += 1;
        let name = format!("web{}", self.made);
        let (replicas, surge) = (random.random_range(0..9), random.random_range(0..3));
        let unavailable = if surge == 0 { 1 } else { random.random_range(0..2) };
        let rolling = random.random_bool(0.8).then_some((surge, unavailable));
        let made = object::<Deployment>(deployment(&name, replicas, rolling));
        self.model.create(made).await.expect("the name is new");
        let asked = Asked { replicas: usize::try_from(replicas).unwrap_or(0), image: "image-0".to_owned() };
        self.asked.insert(name.clone(), asked);
        format!("user deploys {name}: {replicas} replicas, maxSurge and maxUnavailable {rolling:?}")
    }

    /// A Deployment that is paused is scaled, but not rolled out.
    async fn pause(&self, name: &str, paused: bool) -> String {
        self.patch(name, json!({"spec": {"paused": paused}})).await;
        format!("user {} {name}", if paused { "pauses" } else { "resumes" })
    }

    /// Nothing is paused any more.
    pub async fn release(&self) {
        for name in self.asked.keys() {
            self.pause(name, false).await;
        }
    }

    async fn patch(&self, name: &str, patch: serde_json::Value) {
        let key = ObjectKey::new("default", name);
        let patched = self.model.patch(&kind_of::<Deployment>(), &key, Patch::Strategic(patch), None).await;
        patched.expect("the deployment is there and the patch is valid");
    }

    async fn scale(&mut self, name: &str, replicas: usize) -> String {
        self.patch(name, json!({"spec": {"replicas": replicas}})).await;
        if let Some(asked) = self.asked.get_mut(name) {
            asked.replicas = replicas;
        }
        format!("user scales {name} to {replicas}")
    }

    async fn roll_out(&mut self, name: &str) -> String {
        self.images += 1;
        let image = format!("image-{}", self.images);
        let containers = json!([{"name": "main", "image": image}]);
        self.patch(name, json!({"spec": {"template": {"spec": {"containers": containers}}}})).await;
        if let Some(asked) = self.asked.get_mut(name) {
            asked.image.clone_from(&image);
        }
        format!("user rolls {name} out with {image}")
    }

    async fn kill(&self, random: &mut SmallRng) -> String {
        let pods = self.model.list(&kind_of::<Pod>());
        if pods.is_empty() {
            return "user finds no pod to kill".to_owned();
        }
        let key = pods[random.random_range(0..pods.len())].key();
        let _ = self.model.delete(&kind_of::<Pod>(), &key, DeleteOptions::default()).await;
        format!("user kills {key}")
    }

    async fn delete(&mut self, name: &str) -> String {
        self.asked.remove(name);
        let key = ObjectKey::new("default", name);
        let options = DeleteOptions { propagation_policy: Some("Background".to_owned()), ..DeleteOptions::default() };
        self.model.delete(&kind_of::<Deployment>(), &key, options).await.expect("the deployment is there");
        format!("user deletes {name}")
    }

    /// What is not yet as asked for.
    pub fn missing(&self, model: &ModelApi) -> Option<String> {
        let (pods, sets) = (all::<Pod>(model), all::<ReplicaSet>(model));
        let orphan = |meta: &ObjectMeta, owners: &[&str]| {
            let mut refs = meta.owner_references.iter().flatten();
            refs.any(|o| matches!(&*o.kind, "Deployment" | "ReplicaSet") && !owners.contains(&o.uid.as_str()))
        };
        let deployments = all::<Deployment>(model);
        let deployment_uids: Vec<_> = deployments.iter().filter_map(|d| d.metadata.uid.as_deref()).collect();
        let set_uids: Vec<_> = sets.iter().filter_map(|s| s.metadata.uid.as_deref()).collect();
        if let Some(set) = sets.iter().find(|s| orphan(&s.metadata, &deployment_uids)) {
            return Some(format!("ReplicaSet {} outlives its Deployment", (**set).key_text()));
        }
        let mut of_sets = pods.iter().filter(|p| job_of(&p.metadata).is_none());
        if let Some(pod) = of_sets.find(|p| orphan(&p.metadata, &set_uids)) {
            return Some(format!("Pod {} outlives its ReplicaSet", (**pod).key_text()));
        }
        self.asked.iter().find_map(|(name, asked)| asked.missing(name, &pods))
    }
}

impl Asked {
    fn missing(&self, name: &str, pods: &[Arc<Pod>]) -> Option<String> {
        let mine = |pod: &&Arc<Pod>| {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
            pod.metadata.labels.as_ref().and_then(|l| l.get("app")).is_some_and(|app| app == name) && phase != "Failed"
        };
        let good = |pod: &&Arc<Pod>| {
            let image = pod.spec.as_ref().and_then(|s| s.containers.first()).and_then(|c| c.image.as_deref());
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
            image == Some(&self.image) && phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
        };
        let (there, well) = (pods.iter().filter(mine).count(), pods.iter().filter(mine).filter(good).count());
        let Self { replicas, image } = self;
        (there != *replicas || well != *replicas)
            .then(|| format!("{name} has {there} pods, {well} of them run {image}, instead of {replicas}"))
    }
}

/// Namespace and name of a typed object.
trait KeyText {
    fn key_text(&self) -> String;
}

impl<O: Object> KeyText for O {
    fn key_text(&self) -> String {
        ObjectKey::of(self.meta()).to_string()
    }
}
