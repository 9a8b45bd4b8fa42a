//! ServiceAccount: an identity for pods.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::kind::{Cell, Column, Kind, Names, Scope, Sub, Verb};

impl Kind for ServiceAccount {
    const NAMES: Names = Names::new("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount").short(&["sa"]);
    const SCOPE: Scope = Scope::Namespaced;
    const RETURNS_DELETED: bool = true;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::verb("token", Verb::Token)];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Secrets", |a, _| Cell::from(a.secrets.as_ref().map_or(0, |s| s.len())))
            .field::<ServiceAccount>("secrets"),
        Column::AGE,
    ];
}
