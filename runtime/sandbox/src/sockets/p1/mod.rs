//! Preview 1: a core module's descriptors of which some are sockets.
//!
//! Preview 1 cannot open sockets, it can only accept from those that are given. Descriptors are numbered so that libc
//! libraries, which look for folders from 3 on until a number is not taken, find all of them:
//!
//! | numbers | what |
//! | --- | --- |
//! | 0, 1, 2 | standard streams |
//! | 3 … | mounts |
//! | from `LISTEN_FDS_START` | `LISTEN_FDS` listening sockets, then accepted connections: [`SPAN`] numbers |
//! | after those | files that the module opens |
//!
//! Without mounts the first listening socket is 3, as elsewhere. Without listening sockets no number is set apart, and
//! everything goes to `wasmtime-wasi`.

mod calls;
mod files;
mod poll;

use std::{collections::BTreeMap, io, net::SocketAddr};

use wasmtime::{AsContextMut as _, Caller, Extern, Linker};
use wasmtime_wasi::p1::{WasiP1Ctx, types::Errno, wasi_snapshot_preview1::WasiSnapshotPreview1 as _};
use wiggle::GuestMemory;

use super::{
    Code, Family, Instance,
    p2::streams::{Reader, Writer},
    tcp::{Listener, TcpSocket},
};
use crate::host::CoreGuest;

const MODULE: &str = "wasi_snapshot_preview1";
/// Numbers that are set apart for sockets, when there are any.
const SPAN: u32 = 4096;
/// The first number after the standard streams.
const FIRST: u32 = 3;

/// A core module's descriptors.
pub(crate) struct Preview1 {
    files: WasiP1Ctx,
    sockets: Descriptors,
}

/// Those that are sockets.
struct Descriptors {
    instance: Instance,
    first: u32,
    /// `0`: none are given.
    span: u32,
    open: BTreeMap<u32, Descriptor>,
}

struct Descriptor {
    nonblocking: bool,
    kind: Kind,
}

enum Kind {
    Listener { listener: Listener, _socket: TcpSocket },
    Connection { reader: Reader, writer: Writer, _socket: TcpSocket },
}

/// What a number names.
enum Named {
    /// A number of `wasmtime-wasi`'s, or nobody's.
    File(i32),
    /// One that is set apart for sockets.
    Socket(u32),
}

impl Preview1 {
    /// Listens at each address. `mounts`: how many folders are preopened.
    ///
    /// # Errors
    /// When it cannot listen.
    pub(crate) fn new(files: WasiP1Ctx, instance: Instance, listen: &[SocketAddr], mounts: u32) -> io::Result<Self> {
        let span = if listen.is_empty() { 0 } else { SPAN };
        let mut sockets = Descriptors { instance, first: FIRST + mounts, span, open: BTreeMap::new() };
        for at in listen {
            let failed = |code: Code| io::Error::other(format!("cannot listen at {at}: {}", code.what()));
            let listening = sockets.listen(*at).map_err(failed)?;
            sockets.push(listening).map_err(|_| failed(Code::NewSocketLimit))?;
        }
        Ok(Self { files, sockets })
    }

    /// What a module is told of the sockets that it is given.
    pub(crate) fn environment(listen: &[SocketAddr], mounts: u32) -> Vec<(String, String)> {
        if listen.is_empty() {
            return Vec::new();
        }
        let (count, first) = (listen.len().to_string(), (FIRST + mounts).to_string());
        vec![("LISTEN_FDS".to_owned(), count), ("LISTEN_FDS_START".to_owned(), first)]
    }
}

impl Descriptors {
    fn listen(&self, at: SocketAddr) -> Result<Descriptor, Code> {
        let mut socket = TcpSocket::new(&self.instance, Family::of(at))?;
        socket.bind(at)?;
        let listener = socket.listen()?;
        Ok(Descriptor { nonblocking: false, kind: Kind::Listener { listener, _socket: socket } })
    }

    /// Takes the lowest free number.
    fn push(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        let free = self.free().ok_or(Errno::Nfile)?;
        self.open.insert(free, descriptor);
        Ok(free)
    }

    fn free(&self) -> Option<u32> {
        let mut taken = self.open.keys();
        (self.first..self.first + self.span).find(|number| taken.next() != Some(number))
    }

    fn named(&self, number: i32) -> Named {
        match named(self.first, self.span, number) {
            Ok(socket) => Named::Socket(socket),
            Err(file) => Named::File(file),
        }
    }

    fn get(&mut self, number: u32) -> Result<&mut Descriptor, Errno> {
        self.open.get_mut(&number).ok_or(Errno::Badf)
    }
}

/// A socket's number, or else a file's as `wasmtime-wasi` knows it.
fn named(first: u32, span: u32, number: i32) -> Result<u32, i32> {
    let unsigned = number.cast_unsigned();
    match unsigned.checked_sub(first) {
        Some(offset) if offset < span => Ok(unsigned),
        Some(_) => Err((unsigned - span).cast_signed()),
        None => Err(number),
    }
}

/// The number by which a module knows a file.
fn number_of_file(first: u32, span: u32, file: u32) -> u32 {
    if file < first { file } else { file.saturating_add(span) }
}

/// Links preview 1.
pub(crate) fn link(linker: &mut Linker<CoreGuest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p1::add_to_linker_async(linker, |guest: &mut CoreGuest| &mut guest.preview1.files)?;
    linker.allow_shadowing(true);
    files::link(linker)?;
    calls::link(linker)?;
    linker.func_wrap("wasi_snapshot_preview1", "proc_exit", exit)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Any exit code, as a system has them: wasmtime itself knows none from 126 on.
fn exit(code: i32) -> wasmtime::Result<()> {
    Err(wasmtime::Error::new(wasmtime_wasi::I32Exit(code & 0xff)))
}

fn exported_memory(caller: &mut Caller<'_, CoreGuest>) -> Option<Extern> {
    caller.get_export("memory")
}

/// A call's memory and descriptors.
fn enter<'a>(
    memory: &'a Option<Extern>,
    caller: &'a mut Caller<'_, CoreGuest>,
) -> wasmtime::Result<(GuestMemory<'a>, &'a mut Preview1)> {
    let fuel = caller.as_context_mut().hostcall_fuel();
    let (memory, guest) = match memory {
        Some(Extern::Memory(memory)) => {
            let (bytes, guest) = memory.data_and_store_mut(caller);
            (GuestMemory::Unshared(bytes), guest)
        }
        Some(Extern::SharedMemory(memory)) => (GuestMemory::Shared(memory.data()), caller.data_mut()),
        _ => wasmtime::bail!("missing required memory export"),
    };
    guest.preview1.files.set_hostcall_fuel(fuel);
    Ok((memory, &mut guest.preview1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_files_and_sockets_do_not_meet() {
        let first = 5;
        for (span, number, wanted) in [
            (0, 3, Err(3)),
            (0, 5000, Err(5000)),
            (0, -1, Err(-1)),
            (SPAN, 4, Err(4)),
            (SPAN, 5, Ok(5)),
            (SPAN, 4100, Ok(4100)),
            (SPAN, 4101, Err(5)),
            (SPAN, -1, Err(-4097)),
        ] {
            let named = named(first, span, number);
            assert_eq!(named, wanted, "{span} {number}");
            if let Err(file @ 0..) = named {
                assert_eq!(number_of_file(first, span, file.cast_unsigned()).cast_signed(), number);
            }
        }
    }
}
