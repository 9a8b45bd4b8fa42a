//! ServiceAccount: an identity for pods.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::kind::{Kind, Names, Scope};

impl Kind for ServiceAccount {
    const NAMES: Names = Names::new("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount").short(&["sa"]);
    const SCOPE: Scope = Scope::Namespaced;
}
