//! The entry: one engine per process, and what all containers share.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    CommandContainer, ContainerSpec, HttpContainer, Image, LoadError, SandboxConfig, SandboxError, StartError,
};

/// One engine with its caches and clocks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sandbox;

impl Sandbox {
    /// Makes the engine and reserves its address space.
    ///
    /// # Errors
    /// When the address space is too small or the cache folder cannot be used.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        drop(config);
        Ok(Self)
    }

    /// Compiles an image, or takes it from memory or from the cache on disk. Many callers with one file share one
    /// compile; it goes on when callers give up.
    ///
    /// # Errors
    /// When it cannot run here; nothing of it has run then.
    pub async fn load(&self, wasm: Bytes) -> Result<Arc<Image>, LoadError> {
        Err(LoadError::NotWasm { first_bytes: format!("{:?}", wasm.first()) })
    }

    /// An image that is in memory already.
    pub fn cached(&self, digest: &str) -> Option<Arc<Image>> {
        let _ = digest;
        None
    }

    /// Starts a container of an HTTP image. It owns no instance until it is called.
    ///
    /// # Errors
    /// When the image is no HTTP image.
    pub fn http(&self, image: &Arc<Image>, spec: ContainerSpec) -> Result<HttpContainer, StartError> {
        let _ = (image, spec);
        Err(StartError::NoRuntime)
    }

    /// Starts a command on the current tokio runtime.
    ///
    /// # Errors
    /// When the image is no command, or outside a tokio runtime.
    pub fn command(&self, image: &Arc<Image>, spec: ContainerSpec) -> Result<CommandContainer, StartError> {
        let _ = (image, spec);
        Err(StartError::NoRuntime)
    }
}
