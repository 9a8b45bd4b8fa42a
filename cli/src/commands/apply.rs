//! `podium apply`: creates what is not there and changes what differs, as kubectl's client-side apply does: a
//! three-way patch of what was applied last (kept in an annotation), what shall be and what is.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use http::Method;
use podium_api::{
    ApiError,
    patch::{PatchMeta, three_way},
};
use serde_json::{Map, Value, json};

use super::report;
pub(crate) use crate::manifest::Document;
use crate::{
    connect::{Call, ConnectOptions, Connection, JSON},
    manifest,
    output::print_line,
    resources::{Resource, Resources},
};

/// Creates or changes objects as manifests say
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium apply -f web.yaml              a file; several objects are separated by ---
  podium apply -f shop/ -R              a folder and those below it
  cat web.yaml | podium apply -f -      standard input
  podium apply -f web.yaml --dry-run server   say what would change, change nothing")]
pub(crate) struct ApplyArgs {
    /// Manifest file, folder, or - for standard input. Repeatable
    #[arg(short, long, required = true, value_name = "PATH")]
    filename: Vec<PathBuf>,
    /// Read the folders below folders too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Change nothing: ask the server what would happen
    #[arg(long, value_enum, default_value_t, value_name = "WHERE")]
    dry_run: DryRun,
    /// What unknown fields are: an error (strict), a warning (warn), or nothing (ignore)
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    validate: Validate,
}

/// Whether a command only tells what it would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DryRun {
    /// Do it
    #[default]
    None,
    /// Let the server check it
    Server,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Validate {
    #[default]
    Strict,
    Warn,
    Ignore,
}

/// What an apply does beside the objects.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ApplyOptions {
    dry_run: DryRun,
    validate: Validate,
}

impl ApplyOptions {
    fn parameters(self, call: Call) -> Call {
        let validation = match self.validate {
            Validate::Strict => "Strict",
            Validate::Warn => "Warn",
            Validate::Ignore => "Ignore",
        };
        let dry_run = if self.dry_run == DryRun::Server { "All" } else { "" };
        call.query("fieldManager", "podium-client-side-apply")
            .query("fieldValidation", validation)
            .query("dryRun", dry_run)
    }
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Runs the command.
///
/// # Errors
/// A manifest that cannot be read; the server cannot be asked.
pub(crate) async fn run(args: ApplyArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    let documents = manifest::read(&args.filename, args.recursive)?;
    let connection = connect.connect().await?;
    let options = ApplyOptions { dry_run: args.dry_run, validate: args.validate };
    let mut applier = Applier::new(&connection, options).await?;
    let mut code = ExitCode::SUCCESS;
    for document in &documents {
        match applier.apply(document).await {
            Ok(line) => print_line(&line)?,
            Err(error) => {
                report(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// Reads manifests from files and folders, and from the folders below them.
///
/// # Errors
/// With file, line and column.
pub(crate) fn read_documents(paths: &[PathBuf]) -> Result<Vec<Document>> {
    manifest::read(paths, true)
}

/// Applies documents and answers with a line for each, `deployment.apps/web created`.
///
/// # Errors
/// All that failed, after the rest has been applied.
pub(crate) async fn apply_documents(client: kube::Client, documents: &[Document]) -> Result<Vec<String>> {
    let connection = Connection::new(client, "default", "the API server");
    let mut applier = Applier::new(&connection, ApplyOptions::default()).await?;
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    for document in documents {
        match applier.apply(document).await {
            Ok(line) => lines.push(line),
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    if !errors.is_empty() {
        bail!("{} of {} objects could not be applied:\n  {}", errors.len(), documents.len(), errors.join("\n  "));
    }
    Ok(lines)
}

struct Applier<'a> {
    connection: &'a Connection,
    resources: Resources,
    options: ApplyOptions,
}

impl<'a> Applier<'a> {
    async fn new(connection: &'a Connection, options: ApplyOptions) -> Result<Self> {
        let resources = Resources::discover(connection).await.context("asking the server what it serves")?;
        Ok(Self { connection, resources, options })
    }

    /// Applies one document; answers with the line to print.
    async fn apply(&mut self, document: &Document) -> Result<String> {
        let resource = self.resource(document).await?;
        let namespace = self.namespace(&resource, document)?;
        let mut wanted = document.value.clone();
        if resource.namespaced {
            wanted["metadata"]["namespace"] = namespace.clone().into();
        }
        note_last_applied(&mut wanted);
        let (verb, name) = self
            .create_or_patch(&resource, &namespace, document.name(), &wanted)
            .await
            .with_context(|| format!("{}: {}", document.source, resource.display(document.name())))?;
        let suffix = if self.options.dry_run == DryRun::Server { " (server dry run)" } else { "" };
        Ok(format!("{} {verb}{suffix}", resource.display(&name)))
    }

    /// The kind of a document; asks the server once more when it is not known, for the document before may have
    /// defined it.
    async fn resource(&mut self, document: &Document) -> Result<Resource> {
        let known = |resources: &Resources| resources.of_kind(document.api_version(), document.kind()).cloned();
        if let Ok(found) = known(&self.resources) {
            return Ok(found);
        }
        self.resources = Resources::discover(self.connection).await?;
        known(&self.resources).with_context(|| document.source.clone())
    }

    fn namespace(&self, resource: &Resource, document: &Document) -> Result<String> {
        let own = document.value["metadata"]["namespace"].as_str().filter(|n| !n.is_empty());
        let default = &self.connection.namespace;
        match own {
            Some(own) if resource.namespaced && self.connection.namespace_given && own != default => bail!(
                "{}: the namespace from the provided object {own:?} does not match the namespace {default:?}. You must \
                 pass '--namespace={own}' to perform this operation.",
                document.source
            ),
            Some(own) => Ok(own.to_owned()),
            None => Ok(default.clone()),
        }
    }

    async fn create_or_patch(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        wanted: &Value,
    ) -> Result<(&'static str, String), ApiError> {
        let path = resource.object(namespace, name);
        let current = if name.is_empty() { None } else { found(self.connection.json(Call::get(path.as_str())).await)? };
        let Some(current) = current else {
            let call = Call::new(Method::POST, resource.collection(Some(namespace))).body(JSON, wanted);
            let created = self.connection.json(self.options.parameters(call)).await?;
            return Ok(("created", created["metadata"]["name"].as_str().unwrap_or(name).to_owned()));
        };
        let meta = patch_meta(resource);
        let patch = three_way(meta.as_deref(), &last_applied(&current), wanted, &current);
        if patch.as_object().is_some_and(Map::is_empty) {
            return Ok(("unchanged", name.to_owned()));
        }
        let media_type =
            if meta.is_some() { "application/strategic-merge-patch+json" } else { "application/merge-patch+json" };
        let call = Call::new(Method::PATCH, path).body(media_type, &patch);
        let patched = self.connection.json(self.options.parameters(call)).await?;
        // The server writes nothing when the patch only spells a value in another way (`0.5` for `500m`).
        let same = patched["metadata"]["resourceVersion"] == current["metadata"]["resourceVersion"];
        let verb = if same && self.options.dry_run == DryRun::None { "unchanged" } else { "configured" };
        Ok((verb, name.to_owned()))
    }
}

/// `None` for what is not there.
pub(crate) fn found(answer: Result<Value, ApiError>) -> Result<Option<Value>, ApiError> {
    match answer {
        Err(error) if error.is_not_found() => Ok(None),
        other => other.map(Some),
    }
}

/// The merge keys of a built-in kind.
fn patch_meta(resource: &Resource) -> Option<std::sync::Arc<PatchMeta>> {
    let is_this =
        |k: &podium_api::KindRef| k.names().kind == resource.kind && k.names().api_version() == resource.api_version();
    podium_api::kinds::all().iter().find(|k| is_this(k)).and_then(|k| PatchMeta::of(&**k))
}

/// Notes the manifest in an annotation, in the form that kubectl writes.
fn note_last_applied(wanted: &mut Value) {
    let mut bare = wanted.clone();
    if !bare["metadata"]["annotations"].is_object() {
        bare["metadata"]["annotations"] = json!({});
    }
    if let Some(annotations) = bare["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let text = format!("{bare}\n");
    bare["metadata"]["annotations"][LAST_APPLIED] = text.into();
    *wanted = bare;
}

/// What was applied last; nothing when the object was made in another way.
fn last_applied(current: &Value) -> Value {
    let text = current["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or_default();
    serde_json::from_str(text).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_kubectls() {
        let mut wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "d"}, "data": {"k": "v"}});
        note_last_applied(&mut wanted);
        assert_eq!(
            wanted["metadata"]["annotations"][LAST_APPLIED],
            "{\"apiVersion\":\"v1\",\"data\":{\"k\":\"v\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"a\",\"namespace\":\"d\"}}\n"
        );
        assert_eq!(last_applied(&wanted)["data"], json!({"k": "v"}));
        let again = wanted.clone();
        note_last_applied(&mut wanted);
        assert_eq!(wanted, again);
        assert_eq!(last_applied(&json!({"metadata": {}})), Value::Null);
    }

    #[test]
    fn applying_twice_changes_nothing() {
        let mut wanted = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
        note_last_applied(&mut wanted);
        let mut stored = wanted.clone();
        stored["metadata"]["uid"] = "1".into();
        assert_eq!(three_way(None, &last_applied(&stored), &wanted, &stored), json!({}));
        let mut next = json!({"metadata": {"name": "a"}, "data": {"other": "v"}});
        note_last_applied(&mut next);
        let patch = three_way(None, &last_applied(&stored), &next, &stored);
        assert_eq!(patch["data"], json!({"k": null, "other": "v"}));
    }
}
