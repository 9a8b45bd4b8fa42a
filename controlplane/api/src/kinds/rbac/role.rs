//! Role and ClusterRole: lists of what may be done.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};

use super::GROUP;
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Column, Kind, Names, Scope},
    kinds::label_selector,
    names::NameRule,
};

impl Kind for Role {
    const NAMES: Names = Names::new(GROUP, "v1", "Role", "roles", "role").name_rule(NameRule::PathSegment);
    const SCOPE: Scope = Scope::Namespaced;
    const CREATE_ON_UPDATE: bool = true;
    const COLUMNS: &'static [Column<Self>] = &[Column::NAME, Column::CREATED_AT];

    fn validate(&self, errs: &mut FieldErrors) {
        validate_rules(self.rules.as_deref(), true, errs);
    }
}

impl Kind for ClusterRole {
    const NAMES: Names =
        Names::new(GROUP, "v1", "ClusterRole", "clusterroles", "clusterrole").name_rule(NameRule::PathSegment);
    const SCOPE: Scope = Scope::Cluster;
    const CREATE_ON_UPDATE: bool = true;
    const COLUMNS: &'static [Column<Self>] = &[Column::NAME, Column::CREATED_AT];

    fn validate(&self, errs: &mut FieldErrors) {
        validate_rules(self.rules.as_deref(), false, errs);
        let Some(aggregation) = &self.aggregation_rule else { return };
        let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
        let path = FieldPath::new("aggregationRule").child("clusterRoleSelectors");
        if selectors.is_empty() {
            errs.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        for (i, selector) in selectors.iter().enumerate() {
            label_selector::validate(selector, &path.index(i), errs);
        }
    }
}

fn validate_rules(rules: Option<&[PolicyRule]>, namespaced: bool, errs: &mut FieldErrors) {
    for (i, rule) in rules.unwrap_or_default().iter().enumerate() {
        validate_rule(rule, namespaced, &FieldPath::new("rules").index(i), errs);
    }
}

fn validate_rule(rule: &PolicyRule, namespaced: bool, path: &FieldPath, errs: &mut FieldErrors) {
    let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    if rule.verbs.is_empty() {
        errs.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    if let Some(urls) = rule.non_resource_urls.as_deref().filter(|urls| !urls.is_empty()) {
        let at = path.child("nonResourceURLs");
        if namespaced {
            errs.invalid(&at, urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if !(empty(&rule.api_groups) && empty(&rule.resources) && empty(&rule.resource_names)) {
            errs.invalid(&at, urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if empty(&rule.api_groups) {
        errs.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if empty(&rule.resources) {
        errs.required(&path.child("resources"), "resource rules must supply at least one resource");
    }
}
