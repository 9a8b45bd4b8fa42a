//! A compiled image: code shared by all containers that run it, with everything resolved that does not depend on them.

use crate::ImageKind;

/// A compiled image.
#[derive(Debug)]
pub struct Image {
    digest: String,
    kind: ImageKind,
    size_bytes: u64,
    imports: Vec<String>,
}

impl Image {
    /// Digest of the `.wasm` file, as `sha256:` and 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How it runs.
    pub fn kind(&self) -> ImageKind {
        self.kind
    }

    /// Size of the `.wasm` file.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What it imports, as the file says it: interfaces of a component, `module::name` of a core module.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }
}
