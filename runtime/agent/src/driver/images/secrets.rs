//! A pod's pull secrets, read when an image has to be looked for in a registry.

use k8s_openapi::api::core::v1::{Pod, Secret};

use super::super::Shared;
use crate::{images::credentials::Keyring, volumes};

/// Pull secrets of one pod that are looked at.
const SECRETS_MAX: usize = 64;

/// Reads them. What cannot be had is said and left out: the image may be for everybody.
pub(crate) async fn keyring(shared: &Shared, namespace: &str, pod: &Pod) -> Keyring {
    let mut keyring = Keyring::default();
    let names = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten()).map(|r| &r.name);
    let mut missing = Vec::new();
    for name in names.filter(|name| !name.is_empty()).take(SECRETS_MAX) {
        match volumes::read::<Secret>(&*shared.api, namespace, name).await {
            Ok(Some(secret)) => {
                if let Err(why) = keyring.add(&secret) {
                    let words = format!("Unable to use the image pull secret {name:?}: {why}");
                    shared.note(pod, None, true, "FailedToRetrieveImagePullSecret", words);
                }
            }
            Ok(None) => missing.push(name.as_str()),
            Err(why) => {
                tracing::warn!(secret = name, why, "an image pull secret cannot be read");
                missing.push(name.as_str());
            }
        }
    }
    if !missing.is_empty() {
        let words = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        shared.note(pod, None, true, "FailedToRetrieveImagePullSecret", words);
    }
    keyring
}
