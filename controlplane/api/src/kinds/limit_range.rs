//! LimitRange: bounds and defaults for what is made in a namespace. Applied at admission.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go` (`ValidateLimitRange`), `pkg/apis/core/v1/defaults.go`
//! (`SetDefaults_LimitRangeItem`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{LimitRange, LimitRangeItem},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};

use super::pod::validate_quantity;
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Column, Kind, Names, Scope},
    names,
    quantity::Quantity,
};

type Amounts = BTreeMap<String, WireQuantity>;

impl Kind for LimitRange {
    const NAMES: Names = Names::new("", "v1", "LimitRange", "limitranges", "limitrange").short(&["limits"]);
    const SCOPE: Scope = Scope::Namespaced;
    const CREATE_ON_UPDATE: bool = true;
    const COLUMNS: &'static [Column<Self>] = &[Column::NAME, Column::CREATED_AT];

    fn fill_defaults(&mut self) {
        for item in self.spec.iter_mut().flat_map(|s| &mut s.limits).filter(|i| i.type_ == "Container") {
            fill_item(item);
        }
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec").child("limits");
        let mut types = BTreeSet::new();
        for (i, item) in self.spec.iter().flat_map(|s| &s.limits).enumerate() {
            let path = path.index(i);
            validate_item(item, &path, errs);
            if !types.insert(item.type_.as_str()) {
                errs.duplicate(&path.child("type"), item.type_.as_str());
            }
        }
    }
}

/// A default limit is the maximum where none is given, a default request the default limit or the minimum.
fn fill_item(item: &mut LimitRangeItem) {
    let fill = |into: &mut Amounts, from: Option<&Amounts>| {
        for (name, amount) in from.into_iter().flatten() {
            into.entry(name.clone()).or_insert_with(|| amount.clone());
        }
    };
    let max = item.max.clone();
    let default = item.default.get_or_insert_default();
    fill(default, max.as_ref());
    let default = default.clone();
    let min = item.min.clone();
    let request = item.default_request.get_or_insert_default();
    fill(request, Some(&default));
    fill(request, min.as_ref());
    item.default = item.default.take().filter(|d| !d.is_empty());
    item.default_request = item.default_request.take().filter(|d| !d.is_empty());
}

fn validate_item(item: &LimitRangeItem, path: &FieldPath, errs: &mut FieldErrors) {
    let kind = item.type_.as_str();
    match kind {
        "" => errs.required(&path.child("type"), ""),
        "Container" | "Pod" | "PersistentVolumeClaim" => {}
        other => errs.invalid_each(&path.child("type"), other, names::is_qualified_name(other)),
    }
    let mut known = BTreeSet::new();
    let mut read = |field: &str, amounts: Option<&Amounts>, errs: &mut FieldErrors| {
        let mut out = BTreeMap::new();
        for (name, amount) in amounts.into_iter().flatten() {
            let at = path.child(field).key(name);
            errs.invalid_each(&at, name, names::is_qualified_name(name));
            if let Some(amount) = validate_quantity(amount, &at, errs) {
                out.insert(name.clone(), amount);
            }
            known.insert(name.clone());
        }
        out
    };
    let max = read("max", item.max.as_ref(), errs);
    let min = read("min", item.min.as_ref(), errs);
    if kind == "Pod" {
        for (field, given) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
            if given.as_ref().is_some_and(|g| !g.is_empty()) {
                errs.forbidden(&path.child(field), "may not be specified when `type` is 'Pod'");
            }
        }
        return;
    }
    let default = read("default", item.default.as_ref(), errs);
    let request = read("defaultRequest", item.default_request.as_ref(), errs);
    let ratio = read("maxLimitRequestRatio", item.max_limit_request_ratio.as_ref(), errs);
    if kind == "PersistentVolumeClaim" && !min.contains_key("storage") && !max.contains_key("storage") {
        errs.required(
            &path.child("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
    for name in known {
        let of = |amounts: &BTreeMap<String, Quantity>| amounts.get(&name).cloned();
        let (max, min, default, request) = (of(&max), of(&min), of(&default), of(&request));
        above(path, "min", (&name, &min), ("max", &max), errs);
        above(path, "defaultRequest", (&name, &request), ("max", &max), errs);
        above(path, "defaultRequest", (&name, &request), ("default", &default), errs);
        above(path, "default", (&name, &default), ("max", &max), errs);
        below(path, "defaultRequest", (&name, &request), &min, errs);
        below(path, "default", (&name, &default), &min, errs);
        if let Some(ratio) = of(&ratio).filter(|r| r.milli() < 1000) {
            let at = path.child("maxLimitRequestRatio").key(&name);
            errs.invalid(&at, ratio.to_string(), &format!("ratio {ratio} is less than 1"));
        }
    }
}

fn above(
    path: &FieldPath,
    field: &str,
    (name, amount): (&str, &Option<Quantity>),
    (other, bound): (&str, &Option<Quantity>),
    errs: &mut FieldErrors,
) {
    if let (Some(amount), Some(bound)) = (amount, bound)
        && amount > bound
    {
        let label = match (field, other) {
            ("min", _) => format!("min value {amount} is greater than max value {bound}"),
            ("default", _) => format!("default value {amount} is greater than max value {bound}"),
            (_, "default") => format!("default request value {amount} is greater than default limit value {bound}"),
            _ => format!("default request value {amount} is greater than max value {bound}"),
        };
        errs.invalid(&path.child(field).key(name), amount.to_string(), &label);
    }
}

fn below(
    path: &FieldPath,
    field: &str,
    (name, amount): (&str, &Option<Quantity>),
    min: &Option<Quantity>,
    errs: &mut FieldErrors,
) {
    if let (Some(amount), Some(min)) = (amount, min)
        && min > amount
    {
        let what = if field == "default" { "default value" } else { "default request value" };
        let detail = format!("min value {min} is greater than {what} {amount}");
        errs.invalid(&path.child("min").key(name), min.to_string(), &detail);
    }
}
