//! When a lost node is given up, so that its pods go elsewhere: at once when it is the only one, else by turns.
//!
//! When many are lost it is likely this side that is cut off, or a failure that passes: then few pods are driven away, or
//! none. Who is next, and since when the last one was given up, is told from the nodes alone; nothing is remembered here.
//!
//! # Source
//! Kubernetes `pkg/controller/nodelifecycle/node_lifecycle_controller.go` (`handleDisruption`, `ComputeZoneState`,
//! `setLimiterInZone`), with the defaults of its flags.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::{given_up, is_ready, ready};
use crate::{View, ViewExt};

/// So many percent of a zone that are lost are most of it.
const MOST_PERCENT: usize = 55;
/// A zone with more nodes than this goes on giving up nodes, slowly, when most of them are lost.
const LARGE_ZONE: usize = 50;
/// Seconds from one node of a zone to the next.
const PAUSE_SECONDS: i64 = 10;
/// The same when most of a large zone is lost.
const LONG_PAUSE_SECONDS: i64 = 100;

/// What becomes of a lost node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is given up.
    Go,
    /// Others of its zone are before it, or were given up a moment ago: in so many seconds.
    Wait(i64),
    /// Most nodes of its zone are lost: no more of them are given up.
    Hold,
    /// All nodes are lost: none is given up, and those that were are not any more.
    TakeBack,
}

/// What becomes of a node that is not ready.
pub(super) fn verdict(node: &Node, view: &dyn View, now: Timestamp) -> Verdict {
    let mut nodes = view.list_as::<Node>(None);
    if !nodes.iter().any(|node| is_ready(node)) {
        return Verdict::TakeBack;
    }
    nodes.retain(|other| zone(other) == zone(node));
    let lost = nodes.iter().filter(|node| !is_ready(node)).count();
    let most = lost > 2 && lost < nodes.len() && lost * 100 >= nodes.len() * MOST_PERCENT;
    let pause = match most {
        false => PAUSE_SECONDS,
        true if nodes.len() > LARGE_ZONE => LONG_PAUSE_SECONDS,
        true => return Verdict::Hold,
    };
    match turn_in(node, &nodes, pause, now) {
        0 => Verdict::Go,
        seconds => Verdict::Wait(seconds),
    }
}

fn zone(node: &Node) -> [Option<&String>; 2] {
    let label = |name: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(name));
    [label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone")]
}

/// Seconds until it is a node's turn: whoever was lost first goes first.
fn turn_in(node: &Node, zone: &[Arc<Node>], pause: i64, now: Timestamp) -> i64 {
    if given_up(node).is_some() {
        return 0;
    }
    let waits = |other: &&Arc<Node>| !is_ready(other) && given_up(other).is_none();
    let before = zone.iter().filter(waits).filter(|other| rank(other) < rank(node)).count();
    let last = zone.iter().filter_map(|other| given_up(other)?.time_added.as_ref()).map(|at| at.0).max();
    let left = last.map_or(0, |at| match now.as_second() - at.as_second() {
        // A clock that was set back must not hold anybody.
        since if since < 0 => 0,
        since => (pause - since).max(0),
    });
    left.saturating_add(pause.saturating_mul(i64::try_from(before).unwrap_or(i64::MAX)))
}

fn rank(node: &Node) -> (Option<Timestamp>, Option<&str>) {
    let since = ready(node).and_then(|c| c.last_transition_time.as_ref());
    (since.map(|at| at.0), node.metadata.name.as_deref())
}
