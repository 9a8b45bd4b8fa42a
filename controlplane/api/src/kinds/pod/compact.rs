//! Pods without slack: reading a list that says no length reserves room for four, and a container is large.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Shrinks what is large or common.
pub(super) fn spec(spec: &mut PodSpec) {
    let init = spec.init_containers.iter_mut().flatten();
    spec.containers.iter_mut().chain(init).for_each(container);
    spec.containers.shrink_to_fit();
    shrink(&mut spec.init_containers);
    shrink(&mut spec.volumes);
    shrink(&mut spec.tolerations);
    let sources = spec.volumes.iter_mut().flatten().filter_map(|volume| volume.projected.as_mut());
    sources.for_each(|projected| shrink(&mut projected.sources));
}

fn container(container: &mut Container) {
    shrink(&mut container.args);
    shrink(&mut container.command);
    shrink(&mut container.env);
    shrink(&mut container.env_from);
    shrink(&mut container.ports);
    shrink(&mut container.volume_mounts);
}

fn shrink<T>(list: &mut Option<Vec<T>>) {
    if let Some(list) = list {
        list.shrink_to_fit();
    }
}
