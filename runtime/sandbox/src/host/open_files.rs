//! How many files a guest may have open: each is a descriptor of the host's process, which all guests and the host share.
//!
//! Two bounds: a number per instance, as `ulimit -n` is one per process, and a share of the process' descriptors that guests
//! leave to others whatever their number is. Core modules' calls look at both themselves (see `sockets::p1`).

use std::{
    any::Any,
    os::fd::{AsRawFd as _, RawFd},
    sync::LazyLock,
};

use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource, ResourceTable};
use wasmtime_wasi::{
    filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView as _},
    p2::{DynInputStream, DynOutputStream, bindings::filesystem::types as p2},
    p3::bindings::filesystem::types as p3,
};

use super::Guest;

/// Files and streams over files that one instance may have open.
pub(crate) const OPEN_MAX: usize = 1024;

pub(super) const P2: &str = "wasi:filesystem/types@0.2.12";
pub(super) const P3: &str = "wasi:filesystem/types@0.3.0";
const OPEN_AT: &str = "[method]descriptor.open-at";

type Opening<P, O, D> = (Resource<Descriptor>, P, String, O, D);

/// Puts the bounds before what opens files.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.instance(P2)?.func_wrap_async(OPEN_AT, |store, params| Box::new(open_p2(store, params)))?;
    linker.instance(P3)?.func_wrap_concurrent(OPEN_AT, |accessor, params| Box::pin(open_p3(accessor, params)))
}

async fn open_p2(
    mut store: StoreContextMut<'_, Guest>,
    (descriptor, at, path, open, flags): Opening<p2::PathFlags, p2::OpenFlags, p2::DescriptorFlags>,
) -> wasmtime::Result<(Result<Resource<Descriptor>, p2::ErrorCode>,)> {
    let guest = store.data_mut();
    guest.called();
    if is_full(&mut guest.table) {
        return Ok((Err(p2::ErrorCode::InsufficientMemory),));
    }
    let mut files = guest.filesystem();
    let opened = p2::HostDescriptor::open_at(&mut files, descriptor, at, path, open, flags).await;
    match opened {
        Ok(file) if !has_taken_the_last(&guest.table, &file)? => Ok((Ok(file),)),
        Ok(file) => {
            guest.table.delete(file)?;
            Ok((Err(p2::ErrorCode::InsufficientMemory),))
        }
        Err(error) => Ok((Err(p2::Host::convert_error_code(&mut guest.filesystem(), error)?),)),
    }
}

async fn open_p3(
    accessor: &Accessor<Guest>,
    (descriptor, at, path, open, flags): Opening<p3::PathFlags, p3::OpenFlags, p3::DescriptorFlags>,
) -> wasmtime::Result<(Result<Resource<Descriptor>, p3::ErrorCode>,)> {
    let full = accessor.with(|mut store| {
        let guest = store.data_mut();
        guest.called();
        is_full(&mut guest.table)
    });
    if full {
        return Ok((Err(p3::ErrorCode::InsufficientMemory),));
    }
    let files = accessor.with_getter::<WasiFilesystem>(Guest::filesystem);
    let opened =
        <WasiFilesystem as p3::HostDescriptorWithStore<Guest>>::open_at(&files, descriptor, at, path, open, flags)
            .await;
    accessor.with(|mut store| {
        let guest = store.data_mut();
        match opened {
            Ok(file) if !has_taken_the_last(&guest.table, &file)? => Ok((Ok(file),)),
            Ok(file) => {
                guest.table.delete(file)?;
                Ok((Err(p3::ErrorCode::InsufficientMemory),))
            }
            Err(error) => Ok((Err(p3::Host::convert_error_code(&mut guest.filesystem(), error)?),)),
        }
    })
}

/// Whether an instance has as many files open as it may have.
fn is_full(table: &mut ResourceTable) -> bool {
    let holds = |entry: &&mut (dyn Any + Send)| {
        entry.is::<Descriptor>() || entry.is::<DynInputStream>() || entry.is::<DynOutputStream>()
    };
    table.iter_mut().filter(holds).count() >= OPEN_MAX
}

/// Whether the process runs short of descriptors: the system gives the lowest number that is free.
fn has_taken_the_last(table: &ResourceTable, file: &Resource<Descriptor>) -> wasmtime::Result<bool> {
    let number = match table.get(file)? {
        Descriptor::File(file) => file.file.as_raw_fd(),
        Descriptor::Dir(dir) => dir.dir.as_raw_fd(),
    };
    Ok(is_past_share(number))
}

/// Whether the process runs short of descriptors, for who cannot look at what was opened.
pub(crate) fn is_short() -> bool {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let free = rustix::fs::open("/", flags, rustix::fs::Mode::empty());
    free.map_or(true, |free| is_past_share(free.as_raw_fd()))
}

fn is_past_share(number: RawFd) -> bool {
    static LIMIT: LazyLock<u64> = LazyLock::new(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.map_or(u64::MAX, |limit| limit / 4 * 3)
    });
    u64::try_from(number).unwrap_or(0) >= *LIMIT
}
