//! A node that is cut off and healed. All that goes between it and the rest goes over wires of the test: its connection to
//! the API server, and the tunnels in both directions.
//!
//! Connections that stood are never closed: both sides have to find out by themselves, and to give them up.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use podium_e2e::{
    http::{self, Load},
    wire::Wire,
};

use super::{MANIFEST, Nodes, answers};
use crate::life::{apply, json, until};

/// The addresses by which the nodes know each other; they listen at 127.0.0.1, and the wires lead there.
const OUTER: [&str; 2] = ["127.0.0.4", "127.0.0.5"];

/// Two nodes, and all that is between them.
struct Apart {
    nodes: Nodes,
    wires: [Wire; 3],
}

impl Apart {
    fn start() -> Result<Self> {
        let mut nodes = Nodes::one(&["--node-ip", OUTER[0]])?;
        let mut leave = nodes.leave()?;
        let server = leave.iter_mut().find(|word| word.starts_with("https://")).context("a server")?;
        let api = Wire::new("127.0.0.1:0".parse()?, server.trim_start_matches("https://").parse()?)?;
        *server = format!("https://{}", api.address);
        let mut join: Vec<&str> = leave.iter().map(String::as_str).collect();
        join.extend(["--node-ip", OUTER[1], "--node-port-address", "127.0.0.2"]);
        nodes.join("node-2", &join)?;
        let wires = [api, tunnel(&nodes, "node-1", OUTER[0])?, tunnel(&nodes, "node-2", OUTER[1])?];
        for node in ["node-1", "node-2"] {
            until("a node is ready", || nodes.is_ready(node, "True"))?;
        }
        Ok(Self { nodes, wires })
    }

    fn cut(&self) {
        self.wires.iter().for_each(Wire::cut);
    }

    fn mend(&self) {
        self.wires.iter().for_each(Wire::mend);
    }
}

/// The wire to a node's tunnel.
fn tunnel(nodes: &Nodes, name: &str, outer: &str) -> Result<Wire> {
    let node = json(&nodes.cluster, &["get", "node", name])?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().context("a node has a port")?;
    Wire::new(format!("{outer}:{port}").parse()?, SocketAddr::new([127, 0, 0, 1].into(), u16::try_from(port)?))
}

pub(super) fn a_node_is_cut_off_and_healed() -> Result<()> {
    let apart = Apart::start()?;
    let nodes = &apart.nodes;
    apply(&nodes.cluster, MANIFEST)?;
    until("three pods on each node", || nodes.are_ready_on(&["node-1", "node-2"]))?;
    nodes.all_answer()?;
    let (inside, outside) = (nodes.node_port("127.0.0.2")?, nodes.cluster.podium.url.clone());
    until("the node serves the node port", || answers(&inside))?;
    let (pods, _) = nodes.pods()?;
    let theirs: BTreeSet<String> = pods.into_iter().filter(|(_, node)| node == "node-2").map(|(pod, _)| pod).collect();
    let (load, there) = (Load::start(&outside, 4), Load::start(&inside, 2));
    load.go_on(50)?;
    there.go_on(50)?;

    apart.cut();
    until("the lost node is noticed", || nodes.is_ready("node-2", "Unknown"))?;
    until("its pods are replaced elsewhere", || nodes.are_ready_on(&["node-1"])).with_context(|| nodes.told())?;
    ensure!(nodes.pods()?.1 == theirs.len(), "those that are out of reach are said to go and stay");
    nodes.all_answer()?;
    // It goes on by itself: its own clients are served by its own pods, and nobody there has failed.
    load.go_on(50)?;
    there.go_on(50)?;
    there.stop().context("clients of the node that is cut off")?;
    for _ in 0..20 {
        let (status, body) = http::get(&inside)?;
        ensure!(status == 200 && theirs.iter().any(|pod| body.contains(pod)), "{status}: {body}");
    }

    apart.mend();
    until("the node is back", || nodes.is_ready("node-2", "True"))?;
    until("what it ran before has ended", || Ok(nodes.pods()?.1 == 0))?;
    until("pods of the other node answer there", || answers(&inside))?;
    nodes.rolled_out(&["rollout", "restart", "deployment/spread"])?;
    until("it has pods again", || nodes.are_ready_on(&["node-1", "node-2"]))?;
    nodes.all_answer()?;
    load.go_on(50)?;
    let answered = load.stop().context("clients of the other node, all the time")?;
    ensure!(answered > 300, "only {answered} requests were made");
    Ok(())
}
