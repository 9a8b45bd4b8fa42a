//! RoleBinding and ClusterRoleBinding: who has a role. Which role that is never changes.

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};

use super::GROUP;
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    names::{self, NameRule},
};

/// The two kinds differ in where they are and in which roles they give.
macro_rules! binding {
    ($kind:ident, $scope:ident, $plural:literal, $singular:literal, $word:literal, $roles:expr) => {
        impl Kind for $kind {
            const NAMES: Names =
                Names::new(GROUP, "v1", stringify!($kind), $plural, $singular).name_rule(NameRule::PathSegment);
            const SCOPE: Scope = Scope::$scope;
            const CREATE_ON_UPDATE: bool = true;
            const COLUMNS: &'static [Column<Self>] = &[
                Column::NAME,
                Column::<Self>::text("Role", |b, _| Cell::from(role(&b.role_ref))).field::<$kind>("roleRef"),
                Column::AGE,
                Column::<Self>::wide_text("Users", |b, _| Cell::from(named(b.subjects.as_deref(), "User")))
                    .help(concat!("Users in the ", $word)),
                Column::<Self>::wide_text("Groups", |b, _| Cell::from(named(b.subjects.as_deref(), "Group")))
                    .help(concat!("Groups in the ", $word)),
                Column::<Self>::wide_text("ServiceAccounts", |b, _| {
                    Cell::from(named(b.subjects.as_deref(), "ServiceAccount"))
                })
                .help(concat!("ServiceAccounts in the ", $word)),
            ];

            fn fill_defaults(&mut self) {
                fill_defaults(&mut self.role_ref, self.subjects.as_deref_mut());
            }

            fn validate(&self, errs: &mut FieldErrors) {
                validate_ref(&self.role_ref, $roles, errs);
                validate_subjects(self.subjects.as_deref(), Self::SCOPE == Scope::Namespaced, errs);
            }

            fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
                validate_same(&self.role_ref, &old.role_ref, errs);
            }
        }
    };
}

binding!(RoleBinding, Namespaced, "rolebindings", "rolebinding", "roleBinding", &["Role", "ClusterRole"]);
binding!(
    ClusterRoleBinding,
    Cluster,
    "clusterrolebindings",
    "clusterrolebinding",
    "clusterRoleBinding",
    &["ClusterRole"]
);

fn fill_defaults(role_ref: &mut RoleRef, subjects: Option<&mut [Subject]>) {
    if role_ref.api_group.as_deref().unwrap_or_default().is_empty() {
        role_ref.api_group = Some(GROUP.to_owned());
    }
    for subject in subjects.unwrap_or_default() {
        let unset = subject.api_group.as_deref().unwrap_or_default().is_empty();
        if unset && matches!(subject.kind.as_str(), "User" | "Group") {
            subject.api_group = Some(GROUP.to_owned());
        }
    }
}

fn validate_ref(role_ref: &RoleRef, kinds: &[&str], errs: &mut FieldErrors) {
    let path = FieldPath::new("roleRef");
    let group = role_ref.api_group.as_deref().unwrap_or_default();
    if group != GROUP {
        errs.not_supported(&path.child("apiGroup"), group, &[GROUP]);
    }
    if !kinds.contains(&role_ref.kind.as_str()) {
        errs.not_supported(&path.child("kind"), &role_ref.kind, kinds);
    }
    match role_ref.name.as_str() {
        "" => errs.required(&path.child("name"), ""),
        name => errs.invalid_each(&path.child("name"), name, names::is_path_segment(name)),
    }
}

fn validate_same(new: &RoleRef, old: &RoleRef, errs: &mut FieldErrors) {
    if new != old {
        errs.invalid(
            &FieldPath::new("roleRef"),
            serde_json::to_value(new).unwrap_or_default(),
            "cannot change roleRef",
        );
    }
}

fn validate_subjects(subjects: Option<&[Subject]>, namespaced: bool, errs: &mut FieldErrors) {
    for (i, subject) in subjects.unwrap_or_default().iter().enumerate() {
        validate_subject(subject, namespaced, &FieldPath::new("subjects").index(i), errs);
    }
}

fn validate_subject(subject: &Subject, namespaced: bool, path: &FieldPath, errs: &mut FieldErrors) {
    let (name, at) = (subject.name.as_str(), path.child("name"));
    if name.is_empty() {
        errs.required(&at, "");
    }
    let group = subject.api_group.as_deref().unwrap_or_default();
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !name.is_empty() {
                errs.invalid_each(&at, name, names::is_dns1123_subdomain(name));
            }
            if !group.is_empty() {
                errs.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && subject.namespace.as_deref().unwrap_or_default().is_empty() {
                errs.required(&path.child("namespace"), "");
            }
        }
        kind @ ("User" | "Group") => {
            if name.is_empty() {
                errs.invalid(&at, name, &format!("{} name cannot be empty", kind.to_lowercase()));
            }
            if group != GROUP {
                errs.not_supported(&path.child("apiGroup"), group, &[GROUP]);
            }
        }
        kind => errs.not_supported(&path.child("kind"), kind, &["ServiceAccount", "User", "Group"]),
    }
}

fn role(role_ref: &RoleRef) -> String {
    format!("{}/{}", role_ref.kind, role_ref.name)
}

/// The subjects of one kind.
fn named(subjects: Option<&[Subject]>, kind: &str) -> String {
    let of = subjects.unwrap_or_default().iter().filter(|s| s.kind == kind);
    let shown = of.map(|s| match s.kind.as_str() {
        "ServiceAccount" => format!("{}/{}", s.namespace.as_deref().unwrap_or_default(), s.name),
        _ => s.name.clone(),
    });
    shown.collect::<Vec<_>>().join(", ")
}
