//! What the endpoints of a Service do at this moment, asked of the nodes through the API server.
//!
//! A node that cannot be asked is left out: the object is what was asked for.

use serde_json::Value;

use crate::{
    connect::{Call, Connection, escape},
    output::Grid,
    resources::Resource,
};

/// Nodes that are asked.
const NODES_MAX: usize = 16;
/// Endpoints of one port that are shown.
const ENDPOINTS_MAX: usize = 20;

/// The text for a Service; empty for anything else.
pub(super) async fn of(connection: &Connection, resource: &Resource, service: &Value) -> String {
    if resource.kind != "Service" || !resource.group.is_empty() {
        return String::new();
    }
    let word = |key: &str| service["metadata"][key].as_str().unwrap_or_default();
    let nodes = connection.json(Call::get("/api/v1/nodes").query("limit", NODES_MAX)).await;
    let Ok(nodes) = nodes else { return String::new() };
    let mut text = String::new();
    for node in nodes["items"].as_array().into_iter().flatten() {
        let node = node["metadata"]["name"].as_str().unwrap_or_default();
        let (namespace, name) = (escape(word("namespace")), escape(word("name")));
        let path = format!("/api/v1/nodes/{}/proxy/services/{namespace}/{name}", escape(node));
        if let Ok(state) = connection.json(Call::get(path)).await {
            text.push_str(&shown(&state, node));
        }
    }
    text
}

/// One node's view.
fn shown(state: &Value, node: &str) -> String {
    let mut text = format!("Endpoints now, as node {node} sees them:\n");
    if let Some(max) = state["requestsMax"].as_u64() {
        let (under_way, waiting) = (&state["requestsUnderWay"], &state["requestsWaiting"]);
        text.push_str(&format!("  Requests: {under_way} of {max} under way, {waiting} waiting\n"));
    }
    let mut grid = Grid::default();
    grid.row(["  PORT", "ENDPOINT", "UNDER WAY", "LATENCY", "FAILURES", "PASSED OVER"]);
    let (mut rows, mut left_out) = (0, 0);
    for port in state["ports"].as_array().into_iter().flatten() {
        let endpoints = port["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        let number = format!("  {}/{}", port["port"], port["protocol"].as_str().unwrap_or_default());
        for endpoint in endpoints.iter().take(ENDPOINTS_MAX) {
            grid.row(row(&number, endpoint));
            rows += 1;
        }
        let total = port["endpointsTotal"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
        left_out += total.saturating_sub(ENDPOINTS_MAX);
    }
    match rows {
        0 => text.push_str("  <none>\n"),
        _ => text.push_str(&grid.render()),
    }
    if left_out > 0 {
        text.push_str(&format!("  and {left_out} more\n"));
    }
    text
}

fn row(port: &str, endpoint: &Value) -> Vec<String> {
    let latency = endpoint["latencySeconds"].as_f64().unwrap_or_default();
    let ejected = endpoint["ejectedSeconds"].as_f64();
    vec![
        port.to_owned(),
        endpoint["address"].as_str().unwrap_or_default().to_owned(),
        endpoint["underWay"].to_string(),
        format!("{:.3}ms", latency * 1000.0),
        endpoint["failures"].to_string(),
        ejected.map_or("no".to_owned(), |seconds| format!("for {seconds:.0}s")),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_nodes_view_is_a_table() {
        let endpoint = |last: u8, ejected: Option<f64>| {
            json!({ "address": format!("10.0.0.{last}:8080"), "underWay": 3, "latencySeconds": 0.0015, "failures": 0,
                "ejectedSeconds": ejected })
        };
        let state = json!({
            "requestsUnderWay": 6, "requestsWaiting": 1, "requestsMax": 6,
            "ports": [{ "port": 80, "protocol": "TCP", "endpointsTotal": 22,
                "endpoints": [endpoint(1, None), endpoint(2, Some(8.6))] }],
        });
        let text = shown(&state, "n1");
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1].join(" "), "Requests: 6 of 6 under way, 1 waiting");
        assert_eq!(words[3].join(" "), "80/TCP 10.0.0.1:8080 3 1.500ms 0 no");
        assert_eq!(words[4].join(" "), "80/TCP 10.0.0.2:8080 3 1.500ms 0 for 9s");
        assert_eq!(words[5].join(" "), "and 2 more");
        assert!(shown(&json!({}), "n1").ends_with("  <none>\n"));
    }
}
