//! `wasi:keyvalue`: buckets over the container's [`crate::Stores`].
//!
//! Bounds: a key's and a value's bytes, keys of one page, bytes of one batch. A batch is not atomic, as the interface says.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};

use self::bindings::wasi::keyvalue::{atomics, batch, store};
use super::{Capability, Guest};
use crate::{
    Store, StoreError, Stores,
    stores::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
};

mod bindings {
    #![allow(missing_docs, unreachable_pub)]

    wasmtime::component::bindgen!({
        path: "wit/keyvalue",
        world: "wasi:keyvalue/imports",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": super::Bucket },
        trappable_error_type: { "wasi:keyvalue/store.error" => super::Failure },
    });
}

/// Keys of one answer to `list-keys`.
const PAGE_KEYS: usize = 1000;
/// Bytes of one answer to `get-many`.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// How often an increment is tried again because another one came first.
const INCREMENTS_MAX: usize = 10_000;

pub(super) const CAPABILITY: Capability = Capability {
    group: "wasi:keyvalue",
    interfaces: &[("atomics", &["0.2.0-draft"]), ("batch", &["0.2.0-draft"]), ("store", &["0.2.0-draft"])],
    can_be_empty: true,
    link,
};

fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, HasKeyValue>(linker, keyvalue)?;
    atomics::add_to_linker::<_, HasKeyValue>(linker, keyvalue)?;
    batch::add_to_linker::<_, HasKeyValue>(linker, keyvalue)
}

fn keyvalue(guest: &mut Guest) -> KeyValue<'_> {
    guest.called();
    let container = &guest.own.container;
    let stores = container.spec.stores.as_deref().filter(|_| container.is_granted(CAPABILITY.group));
    KeyValue { stores, table: &mut guest.table }
}

/// An open store.
#[expect(unreachable_pub, reason = "the generated code exports it")]
pub struct Bucket(Arc<dyn Store>);

/// The stores as one instance sees them.
struct KeyValue<'a> {
    stores: Option<&'a dyn Stores>,
    table: &'a mut ResourceTable,
}

struct HasKeyValue;

impl HasData for HasKeyValue {
    type Data<'a> = KeyValue<'a>;
}

/// What a guest hears, or why it ends.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated code exports it")]
pub enum Failure {
    Store(StoreError),
    Table(ResourceTableError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ResourceTableError> for Failure {
    fn from(error: ResourceTableError) -> Self {
        Self::Table(error)
    }
}

type Answer<T> = Result<T, Failure>;

impl KeyValue<'_> {
    fn bucket(&self, bucket: &Resource<Bucket>) -> Answer<Arc<dyn Store>> {
        Ok(self.table.get(bucket)?.0.clone())
    }
}

fn too_large(what: &str, bytes: usize, limit: usize) -> Failure {
    Failure::Store(StoreError::Other(format!("{what} of {bytes} bytes: at most {limit} are taken")))
}

fn check_key(key: &str) -> Answer<()> {
    match key.len() {
        0 => Err(Failure::Store(StoreError::Other("a key must not be empty".to_owned()))),
        bytes if bytes > KEY_BYTES_MAX => Err(too_large("a key", bytes, KEY_BYTES_MAX)),
        _ => Ok(()),
    }
}

fn check_value(value: &[u8]) -> Answer<()> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(too_large("a value", value.len(), VALUE_BYTES_MAX));
    }
    Ok(())
}

impl store::Host for KeyValue<'_> {
    async fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        let Some(stores) = self.stores else {
            return Err(StoreError::AccessDenied("this container has no stores".to_owned()).into());
        };
        let store = stores.open(&identifier).await?;
        Ok(self.table.push(Bucket(store))?)
    }

    fn convert_error(&mut self, failure: Failure) -> wasmtime::Result<store::Error> {
        match failure {
            Failure::Store(StoreError::NoSuchStore(_)) => Ok(store::Error::NoSuchStore),
            Failure::Store(StoreError::AccessDenied(_)) => Ok(store::Error::AccessDenied),
            Failure::Store(StoreError::Other(reason)) => Ok(store::Error::Other(reason)),
            Failure::Table(error) => Err(error.into()),
        }
    }
}

impl store::HostBucket for KeyValue<'_> {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        check_key(&key)?;
        Ok(self.bucket(&bucket)?.get(&key).await?.map(Vec::from))
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        check_key(&key)?;
        check_value(&value)?;
        Ok(self.bucket(&bucket)?.set(&key, Bytes::from(value)).await?)
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<()> {
        check_key(&key)?;
        Ok(self.bucket(&bucket)?.delete(&key).await?)
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
        check_key(&key)?;
        Ok(self.bucket(&bucket)?.get(&key).await?.is_some())
    }

    /// The interface's cursor is a number: how many keys came before. Keys that come and go meanwhile shift the rest.
    async fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<u64>) -> Answer<store::KeyResponse> {
        let store = self.bucket(&bucket)?;
        let mut skipped = 0;
        let mut last: Option<String> = None;
        loop {
            let before = cursor.unwrap_or(0) - skipped;
            let limit = if before == 0 { PAGE_KEYS } else { before.min(PAGE_KEYS as u64) as usize };
            let keys = store.list(last.as_deref(), limit).await?;
            if before == 0 {
                let more = keys.len() == PAGE_KEYS;
                return Ok(store::KeyResponse { keys, cursor: more.then(|| skipped + PAGE_KEYS as u64) });
            }
            if keys.is_empty() {
                return Ok(store::KeyResponse { keys, cursor: None });
            }
            skipped += keys.len() as u64;
            last = keys.into_iter().next_back();
        }
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for KeyValue<'_> {
    /// Values are decimal text; a key that is not there counts from 0.
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Answer<u64> {
        check_key(&key)?;
        let store = self.bucket(&bucket)?;
        for _ in 0..INCREMENTS_MAX {
            let value = store.get(&key).await?;
            let sum = number(value.as_deref())?
                .checked_add(delta)
                .ok_or_else(|| StoreError::Other(format!("{key:?} would be larger than {}", u64::MAX)))?;
            if store.compare_and_set(&key, value.as_deref(), Bytes::from(sum.to_string())).await? {
                return Ok(sum);
            }
        }
        Err(StoreError::Other(format!("{key:?} is changed by others all the time")).into())
    }
}

fn number(value: Option<&[u8]>) -> Result<u64, StoreError> {
    let Some(value) = value else { return Ok(0) };
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| StoreError::Other("the value is not a number".to_owned()))
}

impl batch::Host for KeyValue<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        let store = self.bucket(&bucket)?;
        let mut values = Vec::with_capacity(keys.len());
        let mut bytes = 0;
        for key in keys {
            check_key(&key)?;
            let value = store.get(&key).await?;
            bytes += value.as_ref().map_or(0, Bytes::len);
            if bytes > BATCH_BYTES_MAX {
                return Err(too_large("a batch", bytes, BATCH_BYTES_MAX));
            }
            values.push(value.map(|value| (key, Vec::from(value))));
        }
        Ok(values)
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, key_values: Vec<(String, Vec<u8>)>) -> Answer<()> {
        let store = self.bucket(&bucket)?;
        for (key, value) in &key_values {
            check_key(key)?;
            check_value(value)?;
        }
        for (key, value) in key_values {
            store.set(&key, Bytes::from(value)).await?;
        }
        Ok(())
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        let store = self.bucket(&bucket)?;
        for key in keys {
            check_key(&key)?;
            store.delete(&key).await?;
        }
        Ok(())
    }
}
