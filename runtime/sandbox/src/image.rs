//! A compiled image: code shared by all containers that run it, with everything resolved that does not depend on them.

use std::fs::File;

use wasmtime::{
    Engine, InstancePre, Linker, Module,
    component::{self, Component},
};
use wasmtime_wasi::{p2::bindings::CommandPre, p3::bindings::CommandPre as AsyncCommandPre};
use wasmtime_wasi_http::{p2::bindings::ProxyPre, p3::bindings::ServicePre};

use crate::{
    ImageKind, LoadError,
    host::{CoreGuest, Guest},
    inspect::Inspected,
};

/// A page of linear memory.
const PAGE_BYTES: u64 = 64 << 10;

/// A compiled image.
pub struct Image {
    digest: String,
    kind: ImageKind,
    size_bytes: u64,
    imports: Vec<String>,
    initial_memory_bytes: u64,
    pub(crate) code: Code,
}

/// Ready to be instantiated.
pub(crate) enum Code {
    HttpHandler(ProxyPre<Guest>),
    HttpService(ServicePre<Guest>),
    Command(CommandPre<Guest>),
    AsyncCommand(AsyncCommandPre<Guest>),
    CoreCommand(InstancePre<CoreGuest>),
    CoreReactor(InstancePre<CoreGuest>),
    Library(component::InstancePre<Guest>),
}

/// What host interfaces are linked with.
pub(crate) struct Linkers {
    pub(crate) component: component::Linker<Guest>,
    pub(crate) core: Linker<CoreGuest>,
}

impl Linkers {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut component = component::Linker::new(engine);
        crate::host::link(&mut component)?;
        let mut core = Linker::new(engine);
        crate::sockets::link_preview1(&mut core)?;
        Ok(Self { component, core })
    }
}

/// Compiled, not yet linked.
pub(crate) enum Compiled {
    Component(Component),
    Core(Module),
}

impl Compiled {
    /// Compiles an image without keeping the artefact.
    pub(crate) fn compile(engine: &Engine, kind: ImageKind, wasm: &[u8]) -> wasmtime::Result<Self> {
        match kind {
            kind if kind.is_core() => Module::from_binary(engine, wasm).map(Self::Core),
            _ => Component::from_binary(engine, wasm).map(Self::Component),
        }
    }

    /// Compiles an image to an artefact that [`Compiled::map`] takes.
    pub(crate) fn artefact(engine: &Engine, kind: ImageKind, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
        match kind {
            kind if kind.is_core() => engine.precompile_module(wasm),
            _ => engine.precompile_component(wasm),
        }
    }

    /// Maps an artefact that this process, or one with the same engine, made with [`Compiled::artefact`].
    ///
    /// `file`: from [`crate::cache::CodeCache::find`], which has verified its checksum.
    #[expect(unsafe_code, reason = "compiled code is trusted as machine code; see SAFETY")]
    pub(crate) fn map(engine: &Engine, kind: ImageKind, file: File) -> wasmtime::Result<Self> {
        // SAFETY: the bytes are what `artefact` returned: their SHA-256 is the one written beside them after the
        // compile, the folder is named by the engine's compatibility and is writable by this user alone, and files
        // in it are replaced by renaming, never written in place. wasmtime itself checks its version and settings.
        unsafe {
            match kind {
                kind if kind.is_core() => Module::deserialize_open_file(engine, file).map(Self::Core),
                _ => deserialize_component(engine, file).map(Self::Component),
            }
        }
    }

    /// What the largest linear memory of an instance begins with.
    fn initial_memory_bytes(&self) -> u64 {
        let needs = match self {
            Self::Core(module) => Some(module.resources_required()),
            Self::Component(component) => component.resources_required(),
        };
        needs.and_then(|needs| needs.max_initial_memory_size).unwrap_or(0).saturating_mul(PAGE_BYTES)
    }

    fn link(&self, linkers: &Linkers, kind: ImageKind) -> wasmtime::Result<Code> {
        let component = match self {
            Self::Core(module) => {
                let code = if kind == ImageKind::CoreReactor { Code::CoreReactor } else { Code::CoreCommand };
                return linkers.core.instantiate_pre(module).map(code);
            }
            Self::Component(component) => component,
        };
        let pre = linkers.component.instantiate_pre(component)?;
        match kind {
            ImageKind::HttpHandler => ProxyPre::new(pre).map(Code::HttpHandler),
            ImageKind::HttpService => ServicePre::new(pre).map(Code::HttpService),
            ImageKind::AsyncCommand => AsyncCommandPre::new(pre).map(Code::AsyncCommand),
            ImageKind::Library => Ok(Code::Library(pre)),
            _ => CommandPre::new(pre).map(Code::Command),
        }
    }
}

/// Maps a component.
///
/// # Safety
/// As [`Component::deserialize_file`]: the file is an artefact of this engine.
#[expect(unsafe_code, reason = "passes its caller's promise on")]
unsafe fn deserialize_component(engine: &Engine, file: File) -> wasmtime::Result<Component> {
    use std::os::fd::AsRawFd as _;
    // Components have no `deserialize_open_file`; the descriptor's name leads to the very file that was verified.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the caller's promise.
    unsafe { Component::deserialize_file(engine, path) }
}

impl Image {
    /// Links compiled code with the host's interfaces.
    pub(crate) fn link(
        compiled: &Compiled,
        linkers: &Linkers,
        digest: String,
        inspected: Inspected,
        size_bytes: u64,
    ) -> Result<Self, LoadError> {
        let code = compiled.link(linkers, inspected.kind).map_err(|error| missing(&error))?;
        let initial_memory_bytes = compiled.initial_memory_bytes();
        Ok(Self { digest, kind: inspected.kind, size_bytes, imports: inspected.imports, initial_memory_bytes, code })
    }

    /// Digest of the `.wasm` file, as `sha256:` and 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How it runs.
    pub fn kind(&self) -> ImageKind {
        self.kind
    }

    /// What the largest linear memory of an instance has when it is made.
    pub fn initial_memory_bytes(&self) -> u64 {
        self.initial_memory_bytes
    }

    /// Size of the `.wasm` file.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether it may look at the file system.
    pub(crate) fn looks_at_files(&self) -> bool {
        const OF_CORE: &str = "wasi_snapshot_preview1::fd_prestat_get";
        self.imports.iter().any(|import| import.starts_with("wasi:filesystem/preopens") || import == OF_CORE)
    }

    /// What it imports, as the file says it: interfaces of a component, `module::name` of a core module.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("digest", &self.digest).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The linker knows what [`crate::inspect`] cannot see: single functions and their types.
fn missing(error: &wasmtime::Error) -> LoadError {
    let message = format!("{error:#}");
    let name = message.split('`').nth(1).unwrap_or("an interface").to_owned();
    LoadError::MissingImport { name, hint: message }
}
