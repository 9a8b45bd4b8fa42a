//! Preview 1: a core module's descriptors of which some are sockets.
//!
//! Preview 1 cannot open sockets, it can only accept from those that are given. Those come first, where whoever knows the
//! convention of `LISTEN_FDS` looks for them (Go's `net.FileListener`, the crate `listenfd`, systemd's `SD_LISTEN_FDS_START`):
//!
//! | numbers | what |
//! | --- | --- |
//! | 0, 1, 2 | standard streams |
//! | 3 … | `LISTEN_FDS` listening sockets |
//! | after those | mounts |
//! | after those | accepted connections: [`ACCEPTED_MAX`] numbers, set apart when there is a listening socket |
//! | after those | files that the module opens |
//!
//! Language runtimes look for folders from 3 on until `fd_prestat_get` says that a number is not taken. For a listening socket it
//! says that there is something preopened which is no folder, with a tag that preview 1 does not know: wasi-libc (C, Rust, TinyGo)
//! and Go pass over it and look on; of errors the first would end there, or end the program. Zig's library looks at no tag and asks
//! for a name, which is empty.
//! Without listening sockets no number is set apart, and everything goes to `wasmtime-wasi`.

mod calls;
mod files;
mod poll;

use std::{collections::BTreeMap, io, net::SocketAddr, ops::Range};

use wasmtime::{AsContextMut as _, Caller, Extern, Linker};
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::p1::{WasiP1Ctx, types::Errno, wasi_snapshot_preview1::WasiSnapshotPreview1 as _};
use wiggle::GuestMemory;

use super::{
    Code, Family, Instance,
    p2::streams::{Reader, Writer},
    tcp::{Listener, TcpSocket},
};
use crate::host::CoreGuest;

const MODULE: &str = "wasi_snapshot_preview1";
/// Numbers that are set apart for connections, when there is a listening socket.
const ACCEPTED_MAX: u32 = 4096;
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
    numbers: Numbers,
    open: BTreeMap<u32, Descriptor>,
}

/// How a module's numbers are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbers {
    /// Listening sockets; 0: nothing is set apart.
    listeners: u32,
    /// Folders that are preopened.
    mounts: u32,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        let listeners = u32::try_from(listen.len()).map_err(io::Error::other)?;
        let mut sockets = Descriptors { instance, numbers: Numbers { listeners, mounts }, open: BTreeMap::new() };
        for (number, at) in (FIRST..).zip(listen) {
            let failed = |code: Code| io::Error::other(format!("cannot listen at {at}: {}", code.what()));
            let listening = sockets.listen(*at).map_err(failed)?;
            sockets.open.insert(number, listening);
        }
        Ok(Self { files, sockets })
    }

    /// What a module is told of the sockets that it is given.
    pub(crate) fn environment(listen: &[SocketAddr]) -> Option<(String, String)> {
        (!listen.is_empty()).then(|| ("LISTEN_FDS".to_owned(), listen.len().to_string()))
    }

    /// How many files, folders and streams it has open.
    pub(crate) fn open_files(&mut self) -> usize {
        self.files.ctx().table.iter_mut().count()
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
        let mut numbers = self.numbers.accepted();
        let mut taken = self.open.range(numbers.clone()).map(|(number, _)| number);
        numbers.find(|number| taken.next() != Some(number))
    }

    fn named(&self, number: i32) -> Named {
        self.numbers.named(number)
    }

    /// Whether a number is one of a listening socket that the module was given and still has.
    fn is_listener(&self, number: u32) -> bool {
        self.open.get(&number).is_some_and(|it| matches!(it.kind, Kind::Listener { .. }))
    }

    fn get(&mut self, number: u32) -> Result<&mut Descriptor, Errno> {
        self.open.get_mut(&number).ok_or(Errno::Badf)
    }
}

impl Numbers {
    /// Those of accepted connections.
    fn accepted(self) -> Range<u32> {
        let first = FIRST + self.listeners + self.mounts;
        first..first + if self.listeners == 0 { 0 } else { ACCEPTED_MAX }
    }

    /// A socket's number, or else a file's as `wasmtime-wasi` knows it.
    fn named(self, number: i32) -> Named {
        let unsigned = number.cast_unsigned();
        let accepted = self.accepted();
        let file = match unsigned {
            ..FIRST => unsigned,
            _ if unsigned < FIRST + self.listeners || accepted.contains(&unsigned) => return Named::Socket(unsigned),
            _ if unsigned < accepted.start => unsigned - self.listeners,
            _ => unsigned - self.listeners - (accepted.end - accepted.start),
        };
        Named::File(file.cast_signed())
    }

    /// The number by which a module knows a file.
    fn of_file(self, file: u32) -> u32 {
        let accepted = self.accepted();
        match file {
            ..FIRST => file,
            _ if file < FIRST + self.mounts => file + self.listeners,
            _ => file.saturating_add(self.listeners + (accepted.end - accepted.start)),
        }
    }
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
        use Named::{File, Socket};
        let none = Numbers { listeners: 0, mounts: 2 };
        let some = Numbers { listeners: 2, mounts: 3 };
        for (numbers, number, wanted) in [
            (none, 2, File(2)),
            (none, 3, File(3)),
            (none, 5000, File(5000)),
            (none, -1, File(-1)),
            (some, 2, File(2)),
            (some, 3, Socket(3)),
            (some, 4, Socket(4)),
            (some, 5, File(3)),
            (some, 7, File(5)),
            (some, 8, Socket(8)),
            (some, 4103, Socket(4103)),
            (some, 4104, File(6)),
            (some, -1, File(-4099)),
        ] {
            let named = numbers.named(number);
            assert_eq!(named, wanted, "{numbers:?} {number}");
            if let File(file @ 0..) = named {
                assert_eq!(numbers.of_file(file.cast_unsigned()).cast_signed(), number, "{numbers:?}");
            }
        }
    }
}
