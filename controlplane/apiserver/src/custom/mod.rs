//! Custom resources: follows CustomResourceDefinitions, serves what they define, and cleans up after them.
//!
//! One task does what Kubernetes' controllers for them do: names are accepted or refused, kinds are installed in the
//! registry, conditions say so; a definition that is deleted takes its objects with it first. Everything is decided from
//! the caches; a definition is looked at again when it, or one that shares its group, changes.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/controller/{status,establish,finalizer,nonstructuralschema}`.

mod admit;
mod cleanup;
mod convert;
mod names;
mod status;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    Metadata as _,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, CustomResourceDefinitionSpec},
};
use podium_api::{ApiError, Kind as _, KindRef, Object};
use podium_custom::CustomKind;
use tokio_util::sync::CancellationToken;

pub(crate) use self::{admit::Definitions as DefinitionRules, cleanup::begin_deletion};
use crate::{
    bootstrap::own,
    registry::{Part, Registry, WriteContext, cache::Filter, served::Conversion},
};

/// How often a deletion that waits for objects, or a failure, is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// The field manager of what is written here.
const MANAGER: &str = "apiextensions-apiserver";

/// Serves custom resources.
pub(crate) struct Custom {
    registry: Arc<Registry>,
    installed: HashMap<String, Installed>,
    /// Definitions to look at again.
    waiting: BTreeSet<String>,
    /// What went wrong with them last, so that it is logged once.
    failed: HashMap<String, String>,
}

/// What is served of a definition.
struct Installed {
    uid: String,
    spec: CustomResourceDefinitionSpec,
    group: String,
    plural: String,
    /// All versions, those that are not served too: objects may be stored as them.
    _kinds: Vec<Arc<CustomKind>>,
}

impl Custom {
    /// Serves what is defined already.
    pub(crate) async fn open(registry: Arc<Registry>) -> Self {
        let mut custom = Self { registry, installed: HashMap::new(), waiting: BTreeSet::new(), failed: HashMap::new() };
        custom.waiting = custom.names();
        custom.settle().await;
        custom
    }

    /// Follows the definitions for as long as the server runs.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let Ok(resource) = self.registry.of(&CustomResourceDefinition::NAMES) else { return };
        let mut changes = resource.cache.subscribe(Filter::default());
        loop {
            let waits = !self.waiting.is_empty();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN), if waits => {}
                change = changes.recv() => match change {
                    Some(delta) => self.concerns(&**delta.object()),
                    None => return,
                },
            }
            while let Ok(delta) = changes.try_recv() {
                self.concerns(&**delta.object());
            }
            self.settle().await;
        }
    }

    /// The definition itself, and those of its group that may now have names which it gave up.
    fn concerns(&mut self, object: &dyn Object) {
        let Some(changed) = object.downcast_ref::<CustomResourceDefinition>() else { return };
        self.waiting.extend(changed.metadata.name.clone());
        let others = self.definitions();
        let others = others.iter().filter(|d| d.spec.group == changed.spec.group && !names::are_accepted(d));
        self.waiting.extend(others.filter_map(|d| d.metadata.name.clone()));
    }

    /// Every definition.
    fn definitions(&self) -> Vec<CustomResourceDefinition> {
        let Ok(resource) = self.registry.of(&CustomResourceDefinition::NAMES) else { return Vec::new() };
        let listed = resource.cache.list(&Filter::default());
        listed.entries.iter().filter_map(|e| e.object.downcast_ref().cloned()).collect()
    }

    fn names(&self) -> BTreeSet<String> {
        self.definitions().into_iter().filter_map(|d| d.metadata.name).collect()
    }

    async fn settle(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        // What is gone first: its names are free for the others.
        let defined = self.names();
        let (left, gone): (Vec<String>, Vec<String>) = waiting.into_iter().partition(|name| defined.contains(name));
        for name in gone.into_iter().chain(left) {
            match self.look_at(&name).await {
                Ok(done) => {
                    self.failed.remove(&name);
                    self.waiting.extend((!done).then_some(name));
                }
                Err(error) => {
                    let why = error.to_string();
                    if self.failed.insert(name.clone(), why.clone()) != Some(why) {
                        tracing::warn!(definition = name, %error, "a CustomResourceDefinition cannot be served");
                    }
                    self.waiting.insert(name);
                }
            }
        }
    }

    /// Brings one definition to where it should be; `false` when that takes longer.
    async fn look_at(&mut self, name: &str) -> Result<bool, ApiError> {
        let resource = self.registry.of(&CustomResourceDefinition::NAMES)?;
        let entry = resource.cache.get("", name);
        let found = entry.as_ref().and_then(|e| e.object.downcast_ref::<CustomResourceDefinition>());
        let gone = found.is_none_or(|d| self.installed.get(name).is_some_and(|i| i.uid != uid(d)));
        if gone {
            self.withdraw(name);
        }
        let Some(definition) = found else { return Ok(true) };
        if definition.metadata.deletion_timestamp.is_some() {
            return self.delete(name, definition).await;
        }
        let decided =
            status::decide(definition, &self.definitions(), &self.registry.served(), self.registry.clock().now());
        let decided = self.write_status(name, definition, decided).await?;
        if !names::are_accepted(&decided) {
            return Ok(true);
        }
        self.install(name, &decided).await?;
        if !status::is_true(&decided, "Established") {
            let established = status::established(&decided, self.registry.clock().now());
            self.write_status(name, &decided, established).await?;
        }
        Ok(true)
    }

    /// Brings the end of a definition on; `false` while objects of it are left.
    async fn delete(&mut self, name: &str, definition: &CustomResourceDefinition) -> Result<bool, ApiError> {
        self.install(name, definition).await?;
        let held = cleanup::held(definition);
        if held == cleanup::Held::No {
            return Ok(true);
        }
        if !cleanup::delete_all(&self.registry, definition).await? {
            return Ok(false);
        }
        if held == cleanup::Held::ByObjects {
            // Whoever sees that the definition is gone does not find its resource in discovery any more.
            self.withdraw(name);
        }
        cleanup::release(&self.registry, definition).await?;
        Ok(true)
    }

    fn withdraw(&mut self, name: &str) {
        if let Some(installed) = self.installed.remove(name) {
            self.registry.withdraw(&installed.group, &installed.plural);
        }
    }

    /// Writes the status when it differs; answers with the definition as it is then.
    async fn write_status(
        &self,
        name: &str,
        old: &CustomResourceDefinition,
        new: CustomResourceDefinition,
    ) -> Result<CustomResourceDefinition, ApiError> {
        if new.status == old.status {
            return Ok(new);
        }
        let resource = self.registry.of(&CustomResourceDefinition::NAMES)?;
        let who = own();
        let context = WriteContext::new(&who, MANAGER).unchecked();
        let status = new.status.clone();
        let change = |current: &crate::registry::cache::Entry| {
            let mut object = current.object.boxed_clone();
            if let Some(definition) = object.downcast_mut::<CustomResourceDefinition>() {
                definition.status.clone_from(&status);
            }
            Ok(object.into())
        };
        let written = self.registry.update_with(&resource, ("", name), Part::Status, &context, change).await?;
        Ok(written.object.downcast_ref().cloned().unwrap_or(new))
    }

    async fn install(&mut self, name: &str, definition: &CustomResourceDefinition) -> Result<(), ApiError> {
        if !names::are_accepted(definition) {
            return Ok(());
        }
        if self.installed.get(name).is_some_and(|i| i.spec == definition.spec) {
            return Ok(());
        }
        let kinds = podium_custom::kinds(definition)
            .map_err(|errs| ApiError::invalid(&CustomResourceDefinition::NAMES, name, errs))?;
        let Some(stored) = kinds.first().cloned() else { return Ok(()) };
        let served = kinds.iter().filter(|k| k.is_served()).map(|k| k.clone() as KindRef).collect();
        let conversion: Arc<dyn Conversion> = convert::of(definition, &self.registry);
        self.registry
            .install(stored, served, Some(conversion))
            .await
            .map_err(|error| ApiError::internal(format!("reading the objects of {name}: {error}")))?;
        let (group, plural) = (definition.spec.group.clone(), definition.spec.names.plural.clone());
        let installed = Installed { uid: uid(definition), spec: definition.spec.clone(), group, plural, _kinds: kinds };
        self.installed.insert(name.to_owned(), installed);
        tracing::info!(definition = name, "a custom resource is served");
        Ok(())
    }
}

fn uid(definition: &CustomResourceDefinition) -> String {
    definition.metadata().uid.clone().unwrap_or_default()
}
