//! Keeps the built-in objects, their annotation and the conditions of FlowSchemas, and follows all changes.
//!
//! Mandatory objects are always what is built in. Suggested ones are, too, while `apf.kubernetes.io/autoupdate-spec` says
//! `true`; without the annotation, for as long as nobody has changed them. What is deleted comes back.
//!
//! # Source
//! Kubernetes `pkg/registry/flowcontrol/ensurer/strategy.go`, and `presyncFlowSchemaStatus` in
//! `staging/src/k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go`.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::flowcontrol::v1::{
        FlowSchema, FlowSchemaCondition, FlowSchemaSpec, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use podium_api::{ApiError, Kind, Object as _};
use podium_client::Delta;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::{Flow, objects, objects_of};
use crate::{
    bootstrap,
    registry::{Part, Registry, WriteContext, cache::Filter},
};

/// Whether the server keeps a suggested object as it is built in.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const MANAGER: &str = "api-priority-and-fairness-config-producer-v1";
const STATUS_MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
/// How often seats are divided anew.
const DIVIDE_EVERY: Duration = Duration::from_secs(10);
/// How often objects are looked at when nothing changes: a write may have failed.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// A kind of which some are built in.
trait Configuration: Kind + Clone {
    type Spec: PartialEq + Clone;
    fn spec(&self) -> &Option<Self::Spec>;
    fn set_spec(&mut self, spec: Option<Self::Spec>);
}

impl Configuration for FlowSchema {
    type Spec = FlowSchemaSpec;
    fn spec(&self) -> &Option<FlowSchemaSpec> {
        &self.spec
    }
    fn set_spec(&mut self, spec: Option<FlowSchemaSpec>) {
        self.spec = spec;
    }
}

impl Configuration for PriorityLevelConfiguration {
    type Spec = PriorityLevelConfigurationSpec;
    fn spec(&self) -> &Option<PriorityLevelConfigurationSpec> {
        &self.spec
    }
    fn set_spec(&mut self, spec: Option<PriorityLevelConfigurationSpec>) {
        self.spec = spec;
    }
}

impl Flow {
    /// Follows and keeps the objects for as long as the server runs.
    pub(crate) async fn run(self: Arc<Self>, registry: Arc<Registry>, stop: CancellationToken) {
        let (Ok(schemas), Ok(levels)) =
            (registry.of(&FlowSchema::NAMES), registry.of(&PriorityLevelConfiguration::NAMES))
        else {
            return;
        };
        let mut schemas = schemas.cache.subscribe(Filter::default());
        let mut levels = levels.cache.subscribe(Filter::default());
        let mut divide = tokio::time::interval(DIVIDE_EVERY);
        let mut keep = tokio::time::interval(KEEP_EVERY);
        loop {
            let changed = tokio::select! {
                () = stop.cancelled() => return,
                change = schemas.recv() => change.map(|_| true),
                change = levels.recv() => change.map(|_| true),
                _ = keep.tick() => Some(true),
                _ = divide.tick() => Some(false),
            };
            match changed {
                None => return,
                Some(false) => self.divide(),
                Some(true) => {
                    drain(&mut schemas);
                    drain(&mut levels);
                    self.load(&registry);
                    if let Err(error) = keep_all(&registry).await {
                        tracing::warn!(%error, "cannot keep an object of flow control: it is tried again");
                    }
                }
            }
        }
    }
}

fn drain(changes: &mut UnboundedReceiver<Delta>) {
    while changes.try_recv().is_ok() {}
}

/// Makes what is missing, mends what differs, and says of each schema whether its level is there.
///
/// # Errors
/// What the API says of the first write that fails.
pub(crate) async fn keep_all(registry: &Registry) -> Result<(), ApiError> {
    for mandatory in [true, false] {
        for level in objects::levels(mandatory) {
            keep(registry, level, mandatory).await?;
        }
        for schema in objects::schemas(mandatory) {
            keep(registry, schema, mandatory).await?;
        }
    }
    let levels: Vec<PriorityLevelConfiguration> = objects_of(registry);
    for schema in objects_of::<FlowSchema>(registry) {
        let level = schema.spec.as_ref().map(|s| s.priority_level_configuration.name.clone()).unwrap_or_default();
        let found = levels.iter().any(|l| l.metadata.name.as_ref() == Some(&level));
        if with_condition(&schema, &level, found).is_some() {
            match show(registry, &schema, &level, found).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

async fn keep<T: Configuration>(registry: &Registry, built_in: T, mandatory: bool) -> Result<(), ApiError> {
    let resource = registry.of(&T::NAMES)?;
    let name = built_in.meta().name.clone().unwrap_or_default();
    let Some(entry) = resource.cache.get("", &name) else {
        return bootstrap::ensure(registry, Box::new(built_in), MANAGER).await;
    };
    let stored = entry.object.downcast_ref::<T>();
    if stored.is_none_or(|stored| mended(stored, &built_in, mandatory).is_none()) {
        return Ok(());
    }
    let who = bootstrap::own();
    let context = WriteContext::new(&who, MANAGER).unchecked();
    let written = registry.update_with(&resource, ("", &name), Part::Main, &context, |entry| {
        let mended = entry.object.downcast_ref::<T>().and_then(|stored| mended(stored, &built_in, mandatory));
        Ok(mended.map_or_else(|| entry.object.boxed_clone(), |object| Box::new(object)).into())
    });
    match written.await {
        // It comes back with the next change.
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// A built-in object as it should be; `None` when it is.
fn mended<T: Configuration>(stored: &T, built_in: &T, mandatory: bool) -> Option<T> {
    let annotations = stored.meta().annotations.as_ref();
    let says = annotations.and_then(|a| a.get(AUTO_UPDATE)).and_then(|value| parse_bool(value));
    let update = mandatory || says.unwrap_or(stored.meta().generation == Some(1));
    let differs = update && stored.spec() != built_in.spec();
    if says == Some(update) && !differs {
        return None;
    }
    let mut object = stored.clone();
    object.meta_mut().annotations.get_or_insert_default().insert(AUTO_UPDATE.to_owned(), update.to_string());
    if differs {
        object.set_spec(built_in.spec().clone());
    }
    Some(object)
}

/// As Go reads one.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

async fn show(registry: &Registry, schema: &FlowSchema, level: &str, found: bool) -> Result<(), ApiError> {
    let resource = registry.of(&FlowSchema::NAMES)?;
    let name = schema.metadata.name.as_deref().unwrap_or_default();
    let who = bootstrap::own();
    let context = WriteContext::new(&who, STATUS_MANAGER).unchecked();
    let now = Time(registry.clock().now());
    let written = registry.update_with(&resource, ("", name), Part::Status, &context, |entry| {
        let shown = entry.object.downcast_ref::<FlowSchema>().and_then(|stored| with_condition(stored, level, found));
        let shown = shown.map(|mut schema| {
            let conditions = schema.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten());
            conditions.filter(|c| is_dangling(c)).for_each(|c| c.last_transition_time = Some(now.clone()));
            schema
        });
        Ok(shown.map_or_else(|| entry.object.boxed_clone(), |object| Box::new(object)).into())
    });
    written.await.map(|_| ())
}

fn is_dangling(condition: &FlowSchemaCondition) -> bool {
    condition.type_.as_deref() == Some("Dangling")
}

/// A schema that says whether its level is there; `None` when it says so already.
fn with_condition(schema: &FlowSchema, level: &str, found: bool) -> Option<FlowSchema> {
    let (status, reason, end) =
        if found { ("False", "Found", "it exists") } else { ("True", "NotFound", "there is no such object") };
    let join = if found { "and" } else { "but" };
    let message =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {join} {end}");
    let condition = FlowSchemaCondition {
        type_: Some("Dangling".to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: None,
    };
    let mut shown = schema.clone();
    let conditions = shown.status.get_or_insert_default().conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| is_dangling(c)) {
        Some(old)
            if (&old.status, &old.reason, &old.message)
                == (&condition.status, &condition.reason, &condition.message) =>
        {
            return None;
        }
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_changed_an_object_decides_who_keeps_it() {
        let built_in = objects::levels(false).remove(0);
        let mut other = built_in.clone();
        other.spec.as_mut().and_then(|s| s.limited.as_mut()).unwrap().nominal_concurrency_shares = Some(7);
        for (annotation, generation, mandatory, changed, spec, says) in [
            (Some("true"), 2, false, true, "built in", "true"),
            (Some("T"), 2, false, true, "built in", "true"),
            (Some("false"), 2, false, false, "", ""),
            (Some("false"), 2, true, true, "built in", "true"),
            (None, 1, false, true, "built in", "true"),
            (None, 2, false, true, "other", "false"),
            (Some("perhaps"), 2, false, true, "other", "false"),
        ] {
            let mut stored = other.clone();
            stored.metadata.generation = Some(generation);
            let annotations = annotation.map(|value| [(AUTO_UPDATE.to_owned(), value.to_owned())].into());
            stored.metadata.annotations = annotations;
            let mended = mended(&stored, &built_in, mandatory);
            assert_eq!(mended.is_some(), changed, "{annotation:?} {generation}");
            if let Some(mended) = mended {
                assert_eq!(mended.spec == built_in.spec, spec == "built in", "{annotation:?} {generation}");
                assert_eq!(mended.metadata.annotations.unwrap()[AUTO_UPDATE], says);
            }
        }
        assert!(super::mended(&built_in, &built_in, false).is_none());
    }

    #[test]
    fn a_schema_tells_whether_its_level_is_there() {
        let schema = FlowSchema::default();
        let shown = with_condition(&schema, "high", true).unwrap();
        let text = |s: &FlowSchema| {
            let c = &s.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
            [&c.type_, &c.status, &c.reason, &c.message].map(|t| t.clone().unwrap()).join(" ")
        };
        let start = "This FlowSchema references the PriorityLevelConfiguration object named \"high\"";
        assert_eq!(text(&shown), format!("Dangling False Found {start} and it exists"));
        assert!(with_condition(&shown, "high", true).is_none());
        let gone = with_condition(&shown, "high", false).unwrap();
        assert_eq!(text(&gone), format!("Dangling True NotFound {start} but there is no such object"));
    }
}
