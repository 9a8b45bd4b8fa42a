//! `wasi:config`: names and values straight from the spec, so that a container that is never asked keeps nothing for it.
//!
//! Two names for one interface: `store`, as the release candidate has it, and `runtime`, as it was called before.

use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Linker, Lower},
};

use super::{Capability, Guest};

const INTERFACES: [&str; 3] =
    ["wasi:config/store@0.2.0-rc.1", "wasi:config/store@0.2.0-draft", "wasi:config/runtime@0.2.0-draft"];

pub(super) const CAPABILITY: Capability = Capability {
    group: "wasi:config",
    interfaces: &[("store", &["0.2.0-rc.1", "0.2.0-draft"]), ("runtime", &["0.2.0-draft"])],
    can_be_empty: true,
    link,
};

/// The interface's `error`. Nothing can go wrong here.
#[derive(Debug, Clone, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for name in INTERFACES {
        let mut interface = linker.instance(name)?;
        interface.func_wrap("get", |store: StoreContextMut<'_, Guest>, (key,): (String,)| {
            let value = values(&store).iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone());
            Ok((Ok::<_, Error>(value),))
        })?;
        interface.func_wrap("get-all", |store: StoreContextMut<'_, Guest>, (): ()| {
            Ok((Ok::<_, Error>(values(&store).to_vec()),))
        })?;
    }
    Ok(())
}

fn values<'a>(store: &'a StoreContextMut<'_, Guest>) -> &'a [(String, String)] {
    let container = &store.data().own.container;
    if container.is_granted(CAPABILITY.group) { &container.spec.config } else { &[] }
}
