//! Reads what containers and volumes refer to.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use podium_api::{ApiError, Kind, ObjectKey};
use podium_client::{Api, ApiExt as _};

use crate::decide::env::Sources;

const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads ConfigMaps and Secrets of a namespace. One that is not there is no error: it may be optional.
///
/// # Errors
/// When the API does not answer.
pub(crate) async fn read_all(
    api: &dyn Api,
    namespace: &str,
    config_maps: BTreeSet<String>,
    secrets: BTreeSet<String>,
) -> Result<Sources, String> {
    let mut sources = Sources::default();
    for name in config_maps {
        let found = read(api, namespace, &name).await?;
        sources.config_maps.insert(name, found);
    }
    for name in secrets {
        let found = read(api, namespace, &name).await?;
        sources.secrets.insert(name, found);
    }
    Ok(sources)
}

/// `None`: there is no such object.
///
/// # Errors
/// When the API does not answer.
pub(crate) async fn read<K: Kind>(api: &dyn Api, namespace: &str, name: &str) -> Result<Option<Arc<K>>, String> {
    let key = ObjectKey::new(namespace, name);
    let kind = K::NAMES.singular;
    match tokio::time::timeout(READ_TIMEOUT, api.get_typed::<K>(&key)).await {
        Ok(Ok(object)) => Ok(Some(object)),
        Ok(Err(error)) if error.is_not_found() => Ok(None),
        Ok(Err(ApiError { message, .. })) => Err(format!("cannot read {kind} {name:?}: {message}")),
        Err(_) => {
            Err(format!("cannot read {kind} {name:?}: no answer from the API within {} s", READ_TIMEOUT.as_secs()))
        }
    }
}
