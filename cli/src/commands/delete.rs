//! `podium delete`: deletes objects by name, by selector or by manifest, and waits until they are gone.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{apply::found, report};
use crate::{
    Usage,
    connect::{Call, ConnectOptions, Connection, JSON},
    manifest,
    output::print_line,
    resources::{Resource, Resources, targets},
};

/// Deletes objects
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium delete pod web-1
  podium delete deployment/web service/web
  podium delete -f web.yaml                 what a manifest names
  podium delete pods -l app=web             what a selector matches
  podium delete pod web-1 --grace-period 1 --wait=false")]
pub(crate) struct DeleteArgs {
    /// TYPE NAME…, TYPE/NAME…, or TYPE with -l or --all
    #[arg(value_name = "TYPE")]
    targets: Vec<String>,
    /// Manifest file, folder, or - for standard input. Repeatable
    #[arg(short, long, value_name = "PATH", conflicts_with = "targets")]
    filename: Vec<PathBuf>,
    /// Read the folders below folders too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// All objects with these labels
    #[arg(short = 'l', long, default_value = "", hide_default_value = true, value_name = "SELECTOR")]
    selector: String,
    /// All objects of the type
    #[arg(long)]
    all: bool,
    /// No error for objects that are not there
    #[arg(long)]
    ignore_not_found: bool,
    /// Seconds that a pod has to end; without it what the pod asks for
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// Delete at once, without waiting for the node
    #[arg(long)]
    force: bool,
    /// What becomes of the objects that the deleted ones own
    #[arg(long, value_enum, default_value_t)]
    cascade: Cascade,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    wait: bool,
    /// How long to wait; 0s: for as long as it takes
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = crate::duration_seconds)]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Cascade {
    /// They are deleted afterwards
    #[default]
    Background,
    /// They are deleted before
    Foreground,
    /// They stay
    Orphan,
}

/// One object to delete.
struct Doomed {
    resource: Resource,
    namespace: String,
    name: String,
}

/// Runs the command.
///
/// # Errors
/// What the server says; nothing named.
pub(crate) async fn run(args: DeleteArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    let documents = if args.filename.is_empty() { Vec::new() } else { manifest::read(&args.filename, args.recursive)? };
    let connection = connect.connect().await?;
    let resources = Resources::discover(&connection).await?;
    let doomed = if documents.is_empty() {
        named(&connection, &resources, &args).await?
    } else {
        let of = |d: &manifest::Document| {
            let resource = resources.of_kind(d.api_version(), d.kind())?.clone();
            let own = d.value["metadata"]["namespace"].as_str();
            let namespace = own.unwrap_or(&connection.namespace).to_owned();
            Ok(Doomed { resource, namespace, name: d.name().to_owned() })
        };
        documents.iter().map(of).collect::<Result<_>>()?
    };
    let mut code = ExitCode::SUCCESS;
    let mut waiting = Vec::new();
    for object in doomed {
        match delete(&connection, &object, &args).await {
            Ok(uid) => {
                let forced = if args.force { " force" } else { "" };
                print_line(&format!("{} {:?}{forced} deleted", object.resource.qualified_singular(), object.name))?;
                waiting.push((object, uid));
            }
            Err(error) if args.ignore_not_found && error.is_not_found() => {}
            Err(error) => {
                report(&error.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    if args.wait {
        wait(&connection, &waiting, args.timeout).await?;
    }
    Ok(code)
}

async fn named(connection: &Connection, resources: &Resources, args: &DeleteArgs) -> Result<Vec<Doomed>> {
    if args.targets.is_empty() {
        bail!(Usage("name objects (`pod web-1`), or manifests with -f".to_owned()));
    }
    let mut out = Vec::new();
    for (kind, name) in targets(&args.targets)? {
        for resource in resources.called(&kind)? {
            let namespace = connection.namespace.clone();
            match &name {
                Some(name) => out.push(Doomed { resource: resource.clone(), namespace, name: name.clone() }),
                None if args.selector.is_empty() && !args.all => {
                    bail!(Usage(format!("name the {} to delete, or add -l SELECTOR or --all", resource.plural)));
                }
                None => out.extend(selected(connection, resource, &args.selector).await?),
            }
        }
    }
    Ok(out)
}

async fn selected(connection: &Connection, resource: &Resource, selector: &str) -> Result<Vec<Doomed>> {
    let path = resource.collection(Some(&connection.namespace));
    let list = connection.json(Call::get(path).query("labelSelector", selector)).await?;
    let doomed = |item: &Value| Doomed {
        resource: resource.clone(),
        namespace: connection.namespace.clone(),
        name: item["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
    };
    Ok(list["items"].as_array().into_iter().flatten().map(doomed).collect())
}

/// Asks for the deletion; answers with the uid, if the server tells.
async fn delete(
    connection: &Connection,
    object: &Doomed,
    args: &DeleteArgs,
) -> Result<Option<String>, podium_api::ApiError> {
    let answer = connection
        .json(
            Call::new(Method::DELETE, object.resource.object(&object.namespace, &object.name))
                .body(JSON, &options(args)),
        )
        .await?;
    let uid = answer["metadata"]["uid"].as_str().or(answer["details"]["uid"].as_str());
    Ok(uid.map(str::to_owned))
}

fn options(args: &DeleteArgs) -> Value {
    let policy = match args.cascade {
        Cascade::Background => "Background",
        Cascade::Foreground => "Foreground",
        Cascade::Orphan => "Orphan",
    };
    let mut options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy });
    if let Some(seconds) = args.grace_period.or(args.force.then_some(0)) {
        options["gracePeriodSeconds"] = seconds.into();
    }
    options
}

/// Asks until none is there any more, ever more seldom.
async fn wait(connection: &Connection, objects: &[(Doomed, Option<String>)], timeout_seconds: u64) -> Result<()> {
    let deadline = (timeout_seconds > 0).then(|| Instant::now() + Duration::from_secs(timeout_seconds));
    for (object, uid) in objects {
        let mut pause = Duration::from_millis(20);
        let path = object.resource.object(&object.namespace, &object.name);
        while let Some(still) = found(connection.json(Call::get(path.as_str())).await)? {
            if uid.as_deref().is_some_and(|uid| still["metadata"]["uid"] != uid) {
                break;
            }
            if deadline.is_some_and(|d| Instant::now() >= d) {
                let finalizers = &still["metadata"]["finalizers"];
                let why =
                    if finalizers.is_array() { format!(" (its finalizers: {finalizers})") } else { String::new() };
                bail!("{} is still there after {timeout_seconds} s{why}", object.resource.display(&object.name));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
    Ok(())
}
