//! The kinds that Podium serves: one file each, one line each in [`all`].

use crate::object::{KindRef, kind_of};

mod config_map;

/// Every built-in kind.
pub fn all() -> Vec<KindRef> {
    use k8s_openapi::api::core::v1;
    vec![kind_of::<v1::ConfigMap>()]
}
