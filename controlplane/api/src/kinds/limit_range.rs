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

use super::{pod::validate_quantity, resource_name};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Column, Kind, Names, Scope},
    names,
    quantity::Quantity,
};

const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

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
    let messages = names::is_qualified_name(kind);
    if messages.is_empty() && !kind.contains('/') && !TYPES.contains(&kind) {
        errs.invalid(&path.child("type"), kind, "must be a standard limit type or fully qualified");
    }
    errs.invalid_each(&path.child("type"), kind, messages);
    let mut known = BTreeSet::new();
    let mut read = |field: &str, amounts: Option<&Amounts>, errs: &mut FieldErrors| {
        let mut out = BTreeMap::new();
        for (name, amount) in amounts.into_iter().flatten() {
            let at = path.child(field).key(name);
            match kind {
                "Pod" | "Container" => resource_name::validate_of_container(name, &at, errs),
                _ => resource_name::validate(name, &at, errs),
            }
            if let Some(amount) = validate_quantity(amount, &at, errs) {
                out.insert(name.clone(), amount);
            }
            known.insert(name.clone());
        }
        out
    };
    let max = read("max", item.max.as_ref(), errs);
    let min = read("min", item.min.as_ref(), errs);
    let (mut default, mut request) = (BTreeMap::new(), BTreeMap::new());
    if kind == "Pod" {
        for (field, given) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
            if given.as_ref().is_some_and(|g| !g.is_empty()) {
                errs.forbidden(&path.child(field), "may not be specified when `type` is 'Pod'");
            }
        }
    } else {
        default = read("default", item.default.as_ref(), errs);
        request = read("defaultRequest", item.default_request.as_ref(), errs);
    }
    if kind == "PersistentVolumeClaim" && !min.contains_key("storage") && !max.contains_key("storage") {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errs.required(&path.child("limits"), detail);
    }
    let ratio = read("maxLimitRequestRatio", item.max_limit_request_ratio.as_ref(), errs);
    for name in known {
        let of = |amounts: &BTreeMap<String, Quantity>| amounts.get(&name).cloned();
        let bounds = Bounds { min: of(&min), max: of(&max), default: of(&default), request: of(&request) };
        validate_bounds(&name, &bounds, path, errs);
        validate_ratio(&name, of(&ratio), &bounds, path, errs);
        validate_promise(&name, &bounds, path, errs);
    }
}

/// What is said of one resource.
struct Bounds {
    min: Option<Quantity>,
    max: Option<Quantity>,
    default: Option<Quantity>,
    request: Option<Quantity>,
}

/// Each pair of bounds of which the first may not be greater than the second, with the field that is wrong then.
fn validate_bounds(name: &str, bounds: &Bounds, path: &FieldPath, errs: &mut FieldErrors) {
    let Bounds { min, max, default, request } = bounds;
    let pairs = [
        (("min", min), ("max", max), ("min", min)),
        (("min", min), ("default request", request), ("defaultRequest", request)),
        (("default request", request), ("max", max), ("defaultRequest", request)),
        (("default request", request), ("default limit", default), ("defaultRequest", request)),
        (("min", min), ("default", default), ("default", min)),
        (("default", default), ("max", max), ("default", max)),
    ];
    for ((less, low), (more, high), (field, value)) in pairs {
        if let (Some(low), Some(high), Some(value)) = (low, high, value)
            && low > high
        {
            let detail = format!("{less} value {low} is greater than {more} value {high}");
            errs.invalid(&path.child(field).key(name), value.to_string(), &detail);
        }
    }
}

fn validate_ratio(name: &str, ratio: Option<Quantity>, bounds: &Bounds, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(ratio) = ratio else { return };
    let at = path.child("maxLimitRequestRatio").key(name);
    if ratio.milli() < 1000 {
        errs.invalid(&at, ratio.to_string(), &format!("ratio {ratio} is less than 1"));
    }
    if let (Some(min), Some(max)) = (&bounds.min, &bounds.max) {
        #[expect(clippy::cast_precision_loss, reason = "as the API has it: the ratio is shown to six places")]
        let (limit, given) = (max.milli() as f64 / min.milli() as f64, ratio.milli() as f64 / 1000.0);
        if given > limit {
            errs.invalid(&at, ratio.to_string(), &format!("ratio {ratio} is greater than max/min = {limit:.6}"));
        }
    }
}

/// Of what cannot be promised twice, all that is asked for is also the limit.
fn validate_promise(name: &str, bounds: &Bounds, path: &FieldPath, errs: &mut FieldErrors) {
    if let (Some(default), Some(request)) = (&bounds.default, &bounds.request)
        && !resource_name::may_overcommit(name)
        && default != request
    {
        let detail = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        errs.invalid(&path.child("defaultRequest").key(name), request.to_string(), &detail);
    }
}
