//! The status of a definition, as a function of what is there.

use jiff::Timestamp;
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, CustomResourceDefinitionCondition,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use podium_api::FieldPath;
use podium_custom::{Approval, schema::structural_errors};

use super::names;
use crate::registry::served::Served;

/// Whether a condition holds.
pub(super) fn is_true(definition: &CustomResourceDefinition, kind: &str) -> bool {
    find(definition, kind).is_some_and(|c| c.status == "True")
}

fn find<'d>(definition: &'d CustomResourceDefinition, kind: &str) -> Option<&'d CustomResourceDefinitionCondition> {
    definition.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Sets a condition; its time changes only when its status does.
pub(super) fn set(
    definition: &mut CustomResourceDefinition,
    kind: &str,
    holds: bool,
    (reason, message): (&str, &str),
    now: Timestamp,
) {
    let status = if holds { "True" } else { "False" };
    let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let before = find(definition, kind).filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    let new = CustomResourceDefinitionCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(before.unwrap_or(Time(seconds))),
        observed_generation: None,
    };
    let conditions = definition.status.get_or_insert_default().conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(condition) => *condition = new,
        None => conditions.push(new),
    }
}

/// The definition with the status that it should have, short of being established.
pub(super) fn decide(
    definition: &CustomResourceDefinition,
    all: &[CustomResourceDefinition],
    served: &Served,
    now: Timestamp,
) -> CustomResourceDefinition {
    let mut decided = definition.clone();
    let accepted = names::decide(definition, all, served);
    decided.status.get_or_insert_default().accepted_names = Some(accepted.names);
    match &accepted.conflict {
        None => set(&mut decided, "NamesAccepted", true, ("NoConflicts", "no conflicts found"), now),
        Some((reason, message)) => set(&mut decided, "NamesAccepted", false, (reason, message), now),
    }
    if !is_true(&decided, "Established") {
        let why = match accepted.conflict {
            None => ("Installing", "the initial names have been accepted"),
            Some(_) => ("NotAccepted", "not all names are accepted"),
        };
        set(&mut decided, "Established", false, why, now);
    }
    if let Some((holds, reason, message)) = Approval::of(definition).map(Approval::condition) {
        set(&mut decided, "KubernetesAPIApprovalPolicyConformant", holds, (reason, &message), now);
    }
    non_structural(&mut decided, now);
    decided
}

/// The definition, established.
pub(super) fn established(definition: &CustomResourceDefinition, now: Timestamp) -> CustomResourceDefinition {
    let mut established = definition.clone();
    set(&mut established, "Established", true, ("InitialNamesAccepted", "the initial names have been accepted"), now);
    established
}

fn non_structural(definition: &mut CustomResourceDefinition, now: Timestamp) {
    let mut messages = Vec::new();
    for (i, version) in definition.spec.versions.iter().enumerate() {
        let Some(props) = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()) else { continue };
        let path = FieldPath::new("spec.versions").index(i).child("schema").child("openAPIV3Schema");
        messages.extend(structural_errors(&path, props).0.iter().map(ToString::to_string));
    }
    if messages.is_empty() {
        if let Some(conditions) = definition.status.as_mut().and_then(|s| s.conditions.as_mut()) {
            conditions.retain(|c| c.type_ != "NonStructuralSchema");
        }
        return;
    }
    let message = if messages.len() > 1 { format!("[{}]", messages.join(", ")) } else { messages.concat() };
    set(definition, "NonStructuralSchema", true, ("Violations", &message), now);
}
