//! Event: something that happened to an object.

use k8s_openapi::api::core::v1::Event;

use crate::kind::{Kind, Names, Scope};

impl Kind for Event {
    const NAMES: Names = Names::new("", "v1", "Event", "events", "event").short(&["ev"]);
    const SCOPE: Scope = Scope::Namespaced;
}
