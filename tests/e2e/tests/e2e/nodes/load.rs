//! Clients that never pause while pods on three nodes are rolled, taken away, added, and lost with their node.
//!
//! Nothing may fail while all is as the cluster wants it. When a node is lost what may be sent again must not fail either; of
//! what may not, what was under way on that node is lost, and counted.

use anyhow::{Context, Result, ensure};
use http::Method;
use podium_e2e::http::Load;

use super::{MANIFEST, Nodes, answers};
use crate::life::{apply, until};

/// Clients that send what may not be sent again.
const POSTERS: usize = 2;

pub(super) fn load_on_three_nodes_loses_nothing() -> Result<()> {
    let mut three = Nodes::three()?;
    apply(&three.cluster, MANIFEST)?;
    until("two pods on each node", || three.are_ready_on(&["node-1", "node-2", "node-3"]))?;
    three.all_answer()?;
    // Ways in: an Ingress at the control plane's node, an Ingress and a node port at another.
    let ways = [three.cluster.podium.url.clone(), three.nodes["node-2"].url.clone(), three.node_port("127.0.0.2")?];
    for way in &ways {
        until("all ways lead to pods", || answers(way))?;
    }
    let (getters, posters) = (ways.each_ref().map(|url| Load::start(url, 2)), post(&ways));
    for replicas in ["3", "6"] {
        all_go_on(&getters, &posters)?;
        three.rolled_out(&["rollout", "restart", "deployment/spread"])?;
        all_go_on(&getters, &posters)?;
        three.rolled_out(&["scale", "deployment/spread", "--replicas", replicas])?;
    }
    all_go_on(&getters, &posters)?;
    for posters in posters {
        posters.stop().context("no request is lost, whatever it does, while pods come and go")?;
    }
    until("two pods on each node", || three.are_ready_on(&["node-1", "node-2", "node-3"]))?;

    let posters = post(&ways);
    all_go_on(&getters, &posters)?;
    three.nodes.remove("node-3").context("it has joined")?.kill()?;
    until("the lost node is noticed", || three.is_ready("node-3", "Unknown"))?;
    until("its pods are replaced elsewhere", || three.are_ready_on(&["node-1", "node-2"]))?;
    all_go_on(&getters, &posters)?;
    for getters in getters {
        getters.stop().context("what may be sent again is not lost with a node")?;
    }
    for posters in posters {
        let (answered, lost) = posters.tally()?;
        println!("{} of {} POSTs were lost with their node: {lost:?}", lost.len(), answered + lost.len() as u64);
        ensure!(lost.len() <= POSTERS, "more than what was under way: {lost:?}");
    }
    Ok(())
}

fn post(ways: &[String; 3]) -> [Load; 3] {
    ways.each_ref().map(|url| Load::of(Method::POST, url, POSTERS))
}

/// Waits until all of them have been answered some more.
fn all_go_on(getters: &[Load], posters: &[Load]) -> Result<()> {
    for load in getters.iter().chain(posters) {
        load.go_on(50)?;
    }
    Ok(())
}
