//! Where a Service is reached: at one of its ready endpoints.

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointSlice},
};
use podium_api::Kind as _;
use rand::RngExt as _;

use crate::registry::{Registry, cache::Filter};

/// The address of a ready endpoint, chosen by chance, and its port; or the name outside that the Service stands for.
///
/// # Errors
/// Why it cannot be reached, in Kubernetes' words.
pub(super) fn endpoint(registry: &Registry, namespace: &str, name: &str, port: i32) -> Result<(String, u16), String> {
    let services = registry.of(&Service::NAMES).map_err(|error| error.to_string())?;
    let found = services.cache.get(namespace, name);
    let service = found.as_ref().and_then(|e| e.object.downcast_ref::<Service>());
    let service = service.ok_or_else(|| format!("service {name:?} not found"))?;
    let no_port = || format!("no service port {port} found for service {name:?}");
    if let Some(spec) = service.spec.as_ref().filter(|s| s.type_.as_deref() == Some("ExternalName")) {
        let number = u16::try_from(port).map_err(|_| no_port())?;
        return Ok((spec.external_name.clone().unwrap_or_default(), number));
    }
    let mut ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let wanted = ports.find(|p| p.port == port).ok_or_else(no_port)?;
    let mut ready = ready(registry, namespace, name, wanted.name.as_deref().unwrap_or_default())?;
    if ready.is_empty() {
        return Err(format!("no endpoints available for service {name:?}"));
    }
    Ok(ready.swap_remove(rand::rng().random_range(0..ready.len())))
}

/// All ready endpoints of a Service's port.
fn ready(registry: &Registry, namespace: &str, service: &str, port_name: &str) -> Result<Vec<(String, u16)>, String> {
    let slices = registry.of(&EndpointSlice::NAMES).map_err(|error| error.to_string())?;
    let filter = Filter { namespace: namespace.to_owned(), ..Filter::default() };
    let is_ready = |e: &&Endpoint| e.conditions.as_ref().is_none_or(|c| c.ready != Some(false));
    let mut ready = Vec::new();
    for entry in slices.cache.list(&filter).entries {
        let Some(slice) = entry.object.downcast_ref::<EndpointSlice>() else { continue };
        let of = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
        if of.is_none_or(|of| of != service) {
            continue;
        }
        let mut ports = slice.ports.iter().flatten();
        let port = ports.find(|p| p.name.as_deref().unwrap_or_default() == port_name).and_then(|p| p.port);
        let Some(port) = port.and_then(|number| u16::try_from(number).ok()) else { continue };
        let endpoints = slice.endpoints.iter().flatten().filter(is_ready);
        ready.extend(endpoints.filter_map(|e| Some((e.addresses.first()?.clone(), port))));
    }
    Ok(ready)
}
