//! [`Operator`]: looks after the machines: cordons and uncordons them, says that one which has crashed is out of service, or
//! takes it out of the cluster.
//!
//! It says so only of machines that are really off, as operators must: otherwise what runs there might run twice.

use std::sync::Arc;

use podium_api::{
    ObjectKey,
    k8s_openapi::{
        api::core::v1::{Node, Taint},
        apimachinery::pkg::apis::meta::v1::DeleteOptions,
    },
    kind_of,
};
use podium_client::{Api, ModelApi, Patch};
use rand::{RngExt, rngs::SmallRng};
use serde_json::{Value, json};

use crate::{machines::Machine, objects::all};

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The user of nodes.
pub(crate) struct Operator {
    model: Arc<ModelApi>,
}

impl Operator {
    pub(crate) fn new(model: Arc<ModelApi>) -> Self {
        Self { model }
    }

    /// Does one thing; says what.
    pub(crate) async fn act(&self, machines: &[Machine], random: &mut SmallRng) -> String {
        let nodes = all::<Node>(&self.model);
        // Whoever is back is in service again.
        let back = |node: &&Arc<Node>| is_out_of_service(node) && off(node, machines).is_none();
        if let Some(node) = nodes.iter().find(back) {
            self.in_service(node).await;
            return format!("user puts {} back in service", name(node));
        }
        let lost: Vec<_> = nodes.iter().filter_map(|node| Some((node, off(node, machines)?))).collect();
        if !lost.is_empty() && random.random_bool(0.5) {
            let (node, machine) = lost[random.random_range(0..lost.len())];
            machine.give_up();
            return if random.random_bool(0.3) { self.remove(node).await } else { self.give_up(node).await };
        }
        if nodes.is_empty() {
            return "user finds no node".to_owned();
        }
        let node = &nodes[random.random_range(0..nodes.len())];
        let cordon = !is_cordoned(node);
        self.patch(name(node), json!({"unschedulable": cordon})).await;
        format!("user {} {}", if cordon { "cordons" } else { "uncordons" }, name(node))
    }

    /// All nodes take pods again.
    pub(crate) async fn release(&self) {
        for node in all::<Node>(&self.model) {
            self.in_service(&node).await;
            self.patch(name(&node), json!({"unschedulable": false})).await;
        }
    }

    async fn give_up(&self, node: &Node) -> String {
        let mut taints: Vec<Taint> = taints(node).cloned().collect();
        if !is_out_of_service(node) {
            taints.push(Taint {
                key: OUT_OF_SERVICE.to_owned(),
                value: Some("nodeshutdown".to_owned()),
                effect: "NoExecute".to_owned(),
                time_added: None,
            });
        }
        self.patch(name(node), json!({"taints": taints})).await;
        format!("user says that {} is out of service", name(node))
    }

    async fn in_service(&self, node: &Node) {
        if is_out_of_service(node) {
            let left: Vec<&Taint> = taints(node).filter(|taint| taint.key != OUT_OF_SERVICE).collect();
            self.patch(name(node), json!({"taints": left})).await;
        }
    }

    async fn remove(&self, node: &Node) -> String {
        let key = ObjectKey::cluster(name(node));
        self.model.delete(&kind_of::<Node>(), &key, DeleteOptions::default()).await.expect("the node is there");
        format!("user removes {}", name(node))
    }

    async fn patch(&self, node: &str, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        let patched = self.model.patch(&kind_of::<Node>(), &ObjectKey::cluster(node), patch, None).await;
        patched.expect("the node is there and the patch is valid");
    }
}

/// The machine of a node, if it has crashed.
fn off<'m>(node: &Node, machines: &'m [Machine]) -> Option<&'m Machine> {
    machines.iter().find(|machine| machine.is_off() && machine.name() == name(node))
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false)
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|s| s.taints.iter().flatten())
}

fn is_out_of_service(node: &Node) -> bool {
    taints(node).any(|taint| taint.key == OUT_OF_SERVICE)
}
