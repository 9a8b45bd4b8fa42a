//! Labels of namespaces as they are written: they have to be valid, and who enforces more is told which pods would be
//! refused now.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use podium_api::{ApiError, Kind as _};

use super::{
    levels::{Level, Standard, Standards},
    subject::Subject,
};
use crate::{
    admission::{Operation, Request},
    registry::{Registry, cache::Filter},
};

/// At most so many pods are looked at.
const PODS_MAX: usize = 3000;
/// At most so long.
const TIME_MAX: Duration = Duration::from_secs(1);

/// Refuses labels that cannot be read; warns of pods that are there.
pub(super) fn judge(registry: &Registry, request: &Request<'_>, namespace: &Namespace) -> Result<(), ApiError> {
    let (new, wrong) = Standards::of(namespace.metadata.labels.as_ref());
    let old =
        request.old.and_then(|o| o.downcast_ref::<Namespace>()).filter(|_| request.operation == Operation::Update);
    let before = old.map(|old| Standards::of(old.metadata.labels.as_ref()));
    // What was wrong before may stay.
    let same = before.as_ref().is_some_and(|(_, errs)| errs.0 == wrong.0);
    if !wrong.is_empty() && !same {
        return Err(ApiError::invalid(&Namespace::NAMES, request.name, wrong));
    }
    let Some((before, _)) = before else { return Ok(()) };
    let (enforced, relaxed) = (new.enforce, new.enforce.level <= before.enforce.level);
    if enforced == before.enforce
        || enforced.level == Level::Privileged
        || enforced.version == before.enforce.version && relaxed
    {
        return Ok(());
    }
    let pods = pods(registry, request.name)?;
    warnings(request.name, &enforced, &pods).into_iter().for_each(|warning| request.context.warn(warning));
    Ok(())
}

/// The pods of a namespace, first one of each controller, then the others.
fn pods(registry: &Registry, namespace: &str) -> Result<Vec<Arc<Pod>>, ApiError> {
    let filter = Filter { namespace: namespace.to_owned(), ..Filter::default() };
    let entries = registry.of(&Pod::NAMES)?.cache.list(&filter).entries;
    let all = entries.into_iter().filter_map(|entry| entry.object.clone().downcast_arc::<Pod>());
    let mut seen = BTreeSet::new();
    let (mut first, others): (Vec<_>, Vec<_>) = all.partition(|pod| {
        let mut owners = pod.metadata.owner_references.iter().flatten();
        let controller = owners.find(|o| o.controller == Some(true)).map(|o| o.uid.clone());
        controller.is_none_or(|uid| seen.insert(uid))
    });
    first.extend(others);
    Ok(first)
}

fn warnings(namespace: &str, enforced: &Standard, pods: &[Arc<Pod>]) -> Vec<String> {
    let started = Instant::now();
    let mut checked = 0;
    // By what is wrong: the first of the pods by name, and how many they are.
    let mut found: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in pods.iter().take(PODS_MAX).take_while(|_| started.elapsed() < TIME_MAX) {
        checked += 1;
        let Some(spec) = &pod.spec else { continue };
        let wrong = enforced.judge(&Subject::new(pod.metadata.annotations.as_ref(), spec));
        if wrong.is_empty() {
            continue;
        }
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let reasons = wrong.into_iter().map(|v| v.reason).collect::<Vec<_>>().join(", ");
        let (first, count) = found.entry(reasons).or_insert((name, 0));
        *first = (*first).min(name);
        *count += 1;
    }
    let mut warnings = Vec::new();
    if checked < pods.len() {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {} existing pods",
            pods.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforced}\""
        ));
    }
    let mut of_pods: Vec<String> = found
        .into_iter()
        .map(|(why, (name, count))| match count {
            1 => format!("{name}: {why}"),
            2 => format!("{name} (and 1 other pod): {why}"),
            more => format!("{name} (and {} other pods): {why}", more - 1),
        })
        .collect();
    of_pods.sort_unstable();
    warnings.extend(of_pods);
    warnings
}
