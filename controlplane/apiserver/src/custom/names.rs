//! Which names a definition may have: those that no other resource or kind of its group has.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/controller/status/naming_controller.go`.

use std::collections::HashSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames,
};

use super::status::is_true;
use crate::registry::served::Served;

/// Whether a definition has all the names that it wants.
pub(super) fn are_accepted(definition: &CustomResourceDefinition) -> bool {
    is_true(definition, "NamesAccepted")
}

/// What came of the names that are wanted.
pub(super) struct Accepted {
    pub(super) names: CustomResourceDefinitionNames,
    /// Reason and message, when one is taken.
    pub(super) conflict: Option<(&'static str, String)>,
}

/// Names that others of the group have.
struct Taken {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl Taken {
    fn by_others(definition: &CustomResourceDefinition, all: &[CustomResourceDefinition], served: &Served) -> Self {
        let mut taken = Self { resources: HashSet::new(), kinds: HashSet::new() };
        let group = &definition.spec.group;
        for other in all.iter().filter(|o| o.spec.group == *group && o.metadata.name != definition.metadata.name) {
            let Some(names) = other.status.as_ref().and_then(|s| s.accepted_names.as_ref()) else { continue };
            taken.resources.insert(names.plural.clone());
            taken.resources.extend(names.singular.clone());
            taken.resources.extend(names.short_names.iter().flatten().cloned());
            taken.kinds.insert(names.kind.clone());
            taken.kinds.extend(names.list_kind.clone());
        }
        let defined = |plural: &str| all.iter().any(|d| d.spec.group == *group && d.spec.names.plural == plural);
        for built_in in served.all().iter().filter(|r| r.names.group == group && !defined(r.names.plural)) {
            taken.resources.extend([built_in.names.plural, built_in.names.singular].map(str::to_owned));
            taken.resources.extend(built_in.names.short.iter().map(|s| (*s).to_owned()));
            taken.kinds.extend([built_in.names.kind.to_owned(), format!("{}List", built_in.names.kind)]);
        }
        taken
    }
}

/// Decides on the names of a definition.
pub(super) fn decide(
    definition: &CustomResourceDefinition,
    all: &[CustomResourceDefinition],
    served: &Served,
) -> Accepted {
    let taken = Taken::by_others(definition, all, served);
    let wanted = &definition.spec.names;
    let had = definition.status.as_ref().and_then(|s| s.accepted_names.clone()).unwrap_or_default();
    let mut names = had.clone();
    let mut conflict = None;
    let mut one = |reason, wanted: Option<&str>, had: Option<&str>, used: &HashSet<String>| {
        let fits = wanted == had || wanted.is_none_or(|w| !used.contains(w));
        if !fits {
            conflict = Some((reason, format!("{:?} is already in use", wanted.unwrap_or_default())));
        }
        fits
    };
    if one("PluralConflict", Some(&wanted.plural), Some(&had.plural), &taken.resources) {
        names.plural.clone_from(&wanted.plural);
    }
    if one("SingularConflict", wanted.singular.as_deref(), had.singular.as_deref(), &taken.resources) {
        names.singular.clone_from(&wanted.singular);
    }
    let own = had.short_names.clone().unwrap_or_default();
    let short = wanted.short_names.iter().flatten().filter(|s| !own.contains(s));
    let refused: Vec<String> =
        short.filter(|s| taken.resources.contains(*s)).map(|s| format!("{s:?} is already in use")).collect();
    let shown = if refused.len() > 1 { format!("[{}]", refused.join(", ")) } else { refused.concat() };
    if one("KindConflict", Some(&wanted.kind), Some(&had.kind), &taken.kinds) {
        names.kind.clone_from(&wanted.kind);
    }
    if one("ListKindConflict", wanted.list_kind.as_deref(), had.list_kind.as_deref(), &taken.kinds) {
        names.list_kind.clone_from(&wanted.list_kind);
    }
    if shown.is_empty() {
        names.short_names.clone_from(&wanted.short_names);
    } else {
        conflict.get_or_insert(("ShortNamesConflict", shown));
    }
    names.categories.clone_from(&wanted.categories);
    Accepted { names, conflict }
}
