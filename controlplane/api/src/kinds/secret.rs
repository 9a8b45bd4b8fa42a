//! Secret: settings that nobody but their readers may see.

use k8s_openapi::api::core::v1::Secret;

use crate::kind::{Kind, Names, Scope};

impl Kind for Secret {
    const NAMES: Names = Names::new("", "v1", "Secret", "secrets", "secret");
    const SCOPE: Scope = Scope::Namespaced;
}
