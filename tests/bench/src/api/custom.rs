//! From the creation of a CustomResourceDefinition until an object of it can be created.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::{Request, StatusCode};
use kube::Client;
use podium_e2e::Cluster;
use serde_json::json;

use crate::{
    Args,
    figure::{Figure, Times},
};

/// Definitions made one after the other.
const ROUNDS: usize = 20;
/// After which an object that cannot be made is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn measure(_args: &Args) -> Result<Vec<Figure>> {
    let cluster = Cluster::start(&[])?;
    let times = super::runtime()?.block_on(usable(&cluster))?;
    cluster.podium.stop()?;
    let what = "CustomResourceDefinition created to usable";
    Ok(vec![
        Figure::new(format!("{what}, p50"), times.percentile_ms(50.0), "ms"),
        Figure::new(format!("{what}, p99"), times.percentile_ms(99.0), "ms").at_most(1000.0),
    ])
}

/// The times of all rounds.
async fn usable(cluster: &Cluster) -> Result<Times> {
    let client = super::connect(cluster).await?;
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let group = format!("g{round}.example.com");
        let begun = Instant::now();
        let status =
            post(&client, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition(&group)).await?;
        if status != StatusCode::CREATED {
            bail!("the definition was answered with {status}");
        }
        let path = format!("/apis/{group}/v1/namespaces/default/widgets");
        let widget = json!({
            "apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1},
        });
        while post(&client, &path, &widget).await? != StatusCode::CREATED {
            if begun.elapsed() > PATIENCE {
                bail!("no object after {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(begun.elapsed());
    }
    Ok(Times::new(times))
}

async fn post(client: &Client, path: &str, body: &serde_json::Value) -> Result<StatusCode> {
    let request = Request::post(path).header("content-type", "application/json").body(body.to_string().into_bytes())?;
    let answer = client.send(request.map(Into::into)).await.context("post")?;
    Ok(answer.status())
}

fn definition(group: &str) -> serde_json::Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer", "minimum": 0}}},
                }}},
            }],
        },
    })
}
