//! Lease: who holds a role, and until when; the heartbeat of nodes.

use k8s_openapi::api::coordination::v1::Lease;

use crate::kind::{Kind, Names, Scope};

impl Kind for Lease {
    const NAMES: Names = Names::new("coordination.k8s.io", "v1", "Lease", "leases", "lease");
    const SCOPE: Scope = Scope::Namespaced;
}
