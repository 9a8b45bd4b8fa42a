//! `wasi:filesystem`: the mounts of a container, as preopened folders of whichever instance looks.
//!
//! Invariants: nothing is open while no instance has looked, so that an idle container costs no descriptor, and of few
//! containers when instances have; every path
//! of a guest is resolved beneath its mount by the kernel (`openat2` with `RESOLVE_BENEATH`), links included.
//! What a mount is, and how it is opened, is in `mounts`.

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::{filesystem::Descriptor, p2, p3};

use super::{Capability, Guest, listing, open_files};
use crate::{container::Container, mounts::Opened};

const BOTH: &[&str] = &["0.2", "0.3"];

/// The package.
pub(super) const GROUP: &str = "wasi:filesystem";

pub(super) const CAPABILITY: Capability =
    Capability { group: GROUP, interfaces: &[("preopens", BOTH), ("types", BOTH)], can_be_empty: true, link };

fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    p2::bindings::filesystem::preopens::add_to_linker::<_, HasPreopens>(linker, preopens)?;
    p3::bindings::filesystem::preopens::add_to_linker::<_, HasPreopens>(linker, preopens)?;
    open_files::link(linker)?;
    listing::link(linker)
}

fn preopens(guest: &mut Guest) -> Preopens<'_> {
    guest.called();
    Preopens { container: &guest.own.container, table: &mut guest.table }
}

/// The mounts as one instance sees them.
struct Preopens<'a> {
    container: &'a Container,
    table: &'a mut ResourceTable,
}

struct HasPreopens;

impl HasData for HasPreopens {
    type Data<'a> = Preopens<'a>;
}

type Directories = Vec<(Resource<Descriptor>, String)>;

impl Preopens<'_> {
    fn open(&mut self) -> wasmtime::Result<Directories> {
        // Libc libraries look here whether or not the program has files: nobody is told of a refusal.
        if !self.container.spec.grants.has(CAPABILITY.group) {
            return Ok(Vec::new());
        }
        let opened = self.container.files.open(self.container.spec.working_dir.as_deref())?;
        let push = |Opened { dir, guest_path, .. }| Ok((self.table.push(Descriptor::Dir(dir))?, guest_path));
        opened.into_iter().map(push).collect()
    }
}

impl p2::bindings::filesystem::preopens::Host for Preopens<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Directories> {
        self.open()
    }
}

impl p3::bindings::filesystem::preopens::Host for Preopens<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Directories> {
        self.open()
    }
}
