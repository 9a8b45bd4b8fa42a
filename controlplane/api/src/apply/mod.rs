//! Field ownership and server-side apply: who owns which field of an object, and what applying a configuration makes
//! of it.
//!
//! Works on plain JSON and [`RootType`], for built-in kinds and custom ones alike. Values that come in and go out hold
//! no `metadata.managedFields`: the caller takes them out and puts the new ones in.
//!
//! # Source
//! `sigs.k8s.io/structured-merge-diff` and Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/managedfields`.

mod compare;
mod conflict;
mod element;
mod field_set;
mod fields;
mod last_applied;
mod managed;
mod merge;
mod reconcile;
mod remove;
mod set;
mod typed;
mod updater;

use jiff::Timestamp;
use serde_json::Value;

pub use managed::{ManagedFields, UPDATE_MANAGERS_MAX};

use crate::{error::ApiError, schema::RootType};
use managed::Id;
pub(crate) use updater::internal;
use updater::{Failure, Updater};

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager; `unknown` when empty.
    pub manager: &'a str,
    /// The subresource written through, for example `status`; empty for the object itself.
    pub subresource: &'a str,
    /// `apiVersion` of what is written, for example `apps/v1`.
    pub api_version: &'a str,
    /// Now.
    pub time: Timestamp,
}

/// Paths that a write may not own, since it does not change them: `status` for the object itself, `spec` for its
/// status. Dots separate fields: `metadata.labels`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reset<'a>(pub &'a [&'a str]);

/// The other versions of a kind.
pub trait Versions {
    /// The value in another version; `None` when there is no such version any more.
    fn convert(&self, value: &Value, to_api_version: &str) -> Option<Value>;
    /// The types of another version.
    fn types(&self, api_version: &str) -> Option<RootType>;
}

/// The types of the version that is written, and the other versions if there are any. Made from `&RootType` for kinds
/// with one version.
#[derive(Clone, Copy)]
pub struct Schemas<'a> {
    /// The version that is written.
    pub types: &'a RootType,
    /// The others.
    pub versions: Option<&'a dyn Versions>,
}

impl<'a> From<&'a RootType> for Schemas<'a> {
    fn from(types: &'a RootType) -> Self {
        Self { types, versions: None }
    }
}

/// Who owned what before the first apply, where nobody kept track of it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Who owns what after a write that is no apply. `old` is `None` for a creation.
///
/// An object that nobody owns anything of stays so (its owners asked for that), unless it is a new one.
///
/// # Errors
/// None so far: lists whose items cannot be told apart are owned as a whole.
pub fn update<'a>(
    types: impl Into<Schemas<'a>>,
    old: Option<&Value>,
    new: &Value,
    managed: ManagedFields,
    writer: &Writer<'_>,
    reset: &Reset<'_>,
) -> Result<ManagedFields, ApiError> {
    let is_new = old.is_none_or(|old| field(old, "uid").is_empty());
    if managed.is_empty() && !is_new {
        return Ok(managed);
    }
    let id = Id::of(writer, Operation::Update);
    Ok(Updater::new(types.into(), writer, reset).update(old, new, managed, id))
}

/// Applies a configuration to an object (`live` is `None` when there is none yet): the merged object, not yet defaulted,
/// and who owns what then.
///
/// # Errors
/// 409 with a cause for each field that somebody else owns with another value, unless `force` is set; 400 for another
/// version or a configuration with `metadata.managedFields`; 500, as Kubernetes has it, for a configuration that does
/// not have the shape of its types (unknown fields, duplicate keys).
pub fn apply<'a>(
    types: impl Into<Schemas<'a>>,
    live: Option<&Value>,
    config: &Value,
    managed: ManagedFields,
    writer: &Writer<'_>,
    reset: &Reset<'_>,
    force: bool,
) -> Result<(Value, ManagedFields), ApiError> {
    let schemas = types.into();
    check_config(&schemas, config, writer)?;
    let updater = Updater::new(schemas, writer, reset);
    let managed = match live {
        Some(live) if managed.is_empty() => {
            let id = Id::new(BEFORE_FIRST_APPLY, Operation::Update, writer.api_version, writer.subresource);
            updater.update(None, live, managed, id)
        }
        _ => managed,
    };
    let is_kubectl = writer.manager == last_applied::KUBECTL;
    let again = (is_kubectl && !force).then(|| managed.clone());
    let (mut object, managed) = match (updater.apply(live, config, managed, force), again, live) {
        (Ok(done), ..) => done,
        (Err(Failure::Other(error)), ..) => return Err(error),
        (Err(Failure::Conflicts(conflicts)), Some(managed), Some(live)) => {
            let left = last_applied::remaining(schemas.types, writer.api_version, live, conflicts);
            if !left.is_empty() {
                return Err(conflict::error(&left));
            }
            match updater.apply(Some(live), config, managed, true) {
                Ok(done) => done,
                Err(Failure::Other(error)) => return Err(error),
                Err(Failure::Conflicts(conflicts)) => return Err(conflict::error(&conflicts)),
            }
        }
        (Err(Failure::Conflicts(conflicts)), ..) => return Err(conflict::error(&conflicts)),
    };
    if is_kubectl {
        last_applied::refresh(&mut object, config);
    }
    Ok((object, managed))
}

fn check_config(schemas: &Schemas<'_>, config: &Value, writer: &Writer<'_>) -> Result<(), ApiError> {
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    let version = text("apiVersion");
    if version != writer.api_version {
        return Err(ApiError::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
            writer.api_version
        )));
    }
    if config.get("metadata").and_then(|m| m.get("managedFields")).is_some_and(|m| !m.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    field_set::validate(schemas.types, config).map_err(|why| {
        let (namespace, name) = (field(config, "namespace"), field(config, "name"));
        let what = format!("{namespace}/{name}; {version}, Kind={}", text("kind"));
        internal(format!("failed to create typed patch object ({what}): {why}"))
    })
}

/// A text of the metadata; empty when it is not there.
fn field<'v>(object: &'v Value, name: &str) -> &'v str {
    object.get("metadata").and_then(|m| m.get(name)).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
