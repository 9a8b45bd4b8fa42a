//! `podium logs`: what a container has written, and with `-f` what it goes on to write.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    connect::{Call, ConnectOptions, Connection},
    output::print_line,
    resources::{Resources, targets},
};

/// Shows the logs of a container
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium logs web-5d9c                   of a pod
  podium logs -f deployment/web          of one of a Deployment's pods, following
  podium logs web-5d9c -c sidecar --tail 20
  podium logs web-5d9c --previous        of the container before its last restart")]
pub(crate) struct LogsArgs {
    /// POD or TYPE/NAME
    target: String,
    /// The container, if the pod has several
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    container: String,
    /// Go on as it writes, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Of the container before its last restart
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Only what is younger, for example 90s, 5m, 2h
    #[arg(long, value_name = "DURATION", value_parser = crate::duration_seconds)]
    since: Option<u64>,
    /// The time before each line
    #[arg(long)]
    timestamps: bool,
}

/// Runs the command.
///
/// # Errors
/// No such pod or container; the node cannot be asked.
pub(crate) async fn run(args: LogsArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    let connection = connect.connect().await?;
    let pod = pod_name(&connection, &args.target).await?;
    let path = format!("{}/log", pods_path(&connection, &pod));
    let flag = |set: bool| if set { "true" } else { "" };
    let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    let call = Call::get(path)
        .accept("*/*")
        .query("container", &args.container)
        .query("follow", flag(args.follow))
        .query("previous", flag(args.previous))
        .query("tailLines", number(args.tail))
        .query("sinceSeconds", number(args.since))
        .query("timestamps", flag(args.timestamps));
    let mut stream = connection.stream(call).await?;
    let mut out = std::io::stdout().lock();
    while let Some(bytes) = stream.next().await? {
        std::io::Write::write_all(&mut out, &bytes)?;
        std::io::Write::flush(&mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn pods_path(connection: &Connection, name: &str) -> String {
    format!(
        "/api/v1/namespaces/{}/pods/{}",
        crate::connect::escape(&connection.namespace),
        crate::connect::escape(name)
    )
}

/// The pod that a target means: itself, or the first of those that a workload selects.
async fn pod_name(connection: &Connection, target: &str) -> Result<String> {
    if !target.contains('/') {
        return Ok(target.to_owned());
    }
    let (kind, name) = match targets(&[target.to_owned()])?.pop() {
        Some((kind, Some(name))) => (kind, name),
        _ => bail!(crate::Usage(format!("{target:?} is neither POD nor TYPE/NAME"))),
    };
    let resources = Resources::discover(connection).await?;
    let resource = resources.one(&kind)?;
    if resource.kind == "Pod" {
        return Ok(name);
    }
    let object = connection.json(Call::get(resource.object(&connection.namespace, &name))).await?;
    let selector = pod_selector(&object).with_context(|| format!("{} selects no pods", resource.display(&name)))?;
    let path = format!("/api/v1/namespaces/{}/pods", crate::connect::escape(&connection.namespace));
    let pods = connection.json(Call::get(path).query("labelSelector", &selector)).await?;
    let mut names: Vec<String> = sorted_by_readiness(&pods);
    if names.is_empty() {
        bail!("{} has no pods", resource.display(&name));
    }
    let first = names.swap_remove(0);
    if !names.is_empty() {
        eprintln!("Found {} pods, using pod/{first}", names.len() + 1);
    }
    Ok(first)
}

/// The label selector of a workload or a Service in its string form.
fn pod_selector(object: &Value) -> Option<String> {
    let selector = object["spec"]["selector"].clone();
    let selector = if selector["matchLabels"].is_object() || selector["matchExpressions"].is_array() {
        serde_json::from_value(selector).ok()?
    } else {
        let labels = serde_json::from_value(selector).ok()?;
        podium_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
            match_labels: Some(labels),
            match_expressions: None,
        }
    };
    podium_api::selector::label_selector_string(Some(&selector)).ok().filter(|s| !s.is_empty())
}

/// Names of pods: running ones first, then by name.
fn sorted_by_readiness(pods: &Value) -> Vec<String> {
    let mut pods: Vec<(bool, String)> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| (p["status"]["phase"] != "Running", p["metadata"]["name"].as_str().unwrap_or_default().to_owned()))
        .collect();
    pods.sort();
    pods.into_iter().map(|(_, name)| name).collect()
}

/// Says where logs are, for commands that start something.
pub(crate) fn hint(pod: &str) -> std::io::Result<()> {
    print_line(&format!("see its logs with: podium logs -f {pod}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_of_workloads_and_services() {
        for (selector, expected) in [
            (json!({"matchLabels": {"app": "web"}}), Some("app=web")),
            (json!({"app": "web", "tier": "x"}), Some("app=web,tier=x")),
            (json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}), Some("a")),
            (json!(null), None),
        ] {
            assert_eq!(pod_selector(&json!({"spec": {"selector": selector}})).as_deref(), expected);
        }
    }

    #[test]
    fn running_pods_come_first() {
        let pod = |name: &str, phase: &str| json!({"metadata": {"name": name}, "status": {"phase": phase}});
        let pods = json!({"items": [pod("a", "Pending"), pod("c", "Running"), pod("b", "Running")]});
        assert_eq!(sorted_by_readiness(&pods), ["b", "c", "a"]);
    }
}
