//! `podium scale`: sets how many replicas are wanted.

use std::process::ExitCode;

use anyhow::{Result, bail};
use http::Method;
use podium_api::ApiError;
use serde_json::json;

use super::report;
use crate::{
    Usage,
    connect::{Call, ConnectOptions, Connection},
    output::print_line,
    resources::{Resource, Resources, targets},
};

/// Sets the number of replicas
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium scale deployment/web --replicas 5
  podium scale deployment web shop --replicas 0
  podium scale rs/web-5d9c --replicas 2 --current-replicas 3   only if there are three now")]
pub(crate) struct ScaleArgs {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(required = true, value_name = "TYPE")]
    targets: Vec<String>,
    /// How many are wanted
    #[arg(long, value_name = "COUNT")]
    replicas: u32,
    /// Only if so many are wanted now
    #[arg(long, value_name = "COUNT")]
    current_replicas: Option<i64>,
}

/// Runs the command.
///
/// # Errors
/// What the server says; a type that cannot be scaled.
pub(crate) async fn run(args: ScaleArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    let connection = connect.connect().await?;
    let resources = Resources::discover(&connection).await?;
    let mut code = ExitCode::SUCCESS;
    for (kind, name) in targets(&args.targets)? {
        let resource = resources.one(&kind)?;
        let Some(name) = name else { bail!(Usage(format!("name the {} to scale", resource.plural))) };
        if !resource.subresources.iter().any(|s| s == "scale") {
            bail!("{} cannot be scaled", resource.plural);
        }
        match scale(&connection, resource, &name, &args).await {
            Ok(()) => print_line(&format!("{} scaled", resource.display(&name)))?,
            Err(error) => {
                report(&error.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

async fn scale(connection: &Connection, resource: &Resource, name: &str, args: &ScaleArgs) -> Result<(), ApiError> {
    let path = format!("{}/scale", resource.object(&connection.namespace, name));
    let mut patch = json!({ "spec": { "replicas": args.replicas } });
    if let Some(expected) = args.current_replicas {
        let current = connection.json(Call::get(path.as_str())).await?;
        let found = current["spec"]["replicas"].as_i64().unwrap_or(0);
        if found != expected {
            let message = format!("Expected replicas to be {expected}, was {found}");
            return Err(ApiError::new(podium_api::Reason::Conflict, message));
        }
        // The server refuses the patch if somebody else has scaled in between.
        patch["metadata"] = json!({ "resourceVersion": current["metadata"]["resourceVersion"] });
    }
    let call = Call::new(Method::PATCH, path).body("application/merge-patch+json", &patch);
    connection.json(call).await.map(drop)
}
