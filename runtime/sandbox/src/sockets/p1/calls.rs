//! Calls that sockets answer as well as files, and those that only sockets answer.

use std::{future::poll_fn, task::Poll};

use wasmtime::{Caller, Linker};
use wasmtime_wasi::{
    WasiView as _,
    p1::{
        WasiP1Ctx,
        types::{self, Errno, Fdflags, Filetype, Rights},
        wasi_snapshot_preview1 as files,
    },
    p2::{InputStream as _, OutputStream as _, Pollable as _, StreamError, bindings::sockets::network::ErrorCode},
};
use wiggle::{GuestMemory, GuestPtr};

use super::{Descriptor, Kind, MODULE, Named, Preview1, enter, exported_memory, poll::poll_oneoff};
use crate::{
    host::{CoreGuest, OPEN_MAX, is_short},
    sockets::{
        Code,
        p2::streams::{CHUNK_BYTES_MAX, Reader, Writer},
        tcp::TcpSocket,
    },
};

/// Parts of one read or write: `IOV_MAX`.
const PARTS_MAX: u32 = 1024;
/// `riflags`.
const PEEK: i32 = 1;
const WAIT_ALL: i32 = 2;
/// `sdflags`.
const SHUT_RECEIVE: i32 = 1;
const SHUT_SEND: i32 = 2;
/// A tag of `$prestat` that preview 1 does not know: 0 is a folder. What follows is the length of a name.
const NO_FOLDER: u32 = 1;
/// Bytes of `$filestat`, and where the size is among them.
const FILESTAT_BYTES: usize = 64;
const FILESTAT_SIZE: usize = 32;
/// How much larger a list of a folder's entries is in memory than the folder: a name takes some twenty bytes there.
const LIST_FACTOR: u64 = 16;
/// Bytes of `$fdstat`.
const FDSTAT_BYTES: usize = 24;

/// What a call on a socket comes to.
pub(super) type Answer<T> = Result<T, types::Error>;
/// Where the parts of a read or write lie, and how many there are.
type Parts = (i32, i32);

/// `NAME(ARGUMENTS);` each is the function of that name below.
macro_rules! link_own {
    ($linker:ident: $($name:ident($($arg:ident),*);)*) => {
        $($linker.func_wrap_async(
            MODULE,
            stringify!($name),
            |mut caller: Caller<'_, CoreGuest>, ($($arg,)*): ($(link_own!(@i32 $arg),)*)| {
                Box::new(async move {
                    let memory = exported_memory(&mut caller);
                    let (mut memory, guest) = enter(&memory, &mut caller)?;
                    $name(guest, &mut memory, $($arg),*).await
                })
            },
        )?;)*
    };
    (@i32 $arg:ident) => { i32 };
}

pub(super) fn link(linker: &mut Linker<CoreGuest>) -> wasmtime::Result<()> {
    link_own! { linker:
        fd_close(fd);
        fd_fdstat_get(fd, stat);
        fd_fdstat_set_flags(fd, flags);
        fd_filestat_get(fd, stat);
        fd_prestat_dir_name(fd, path, bytes);
        fd_prestat_get(fd, prestat);
        fd_read(fd, parts, count, read);
        fd_renumber(from, to);
        fd_write(fd, parts, count, written);
        poll_oneoff(subscriptions, events, count, ready);
        sock_accept(fd, flags, accepted);
        sock_recv(fd, parts, count, flags, read, told);
        sock_send(fd, parts, count, flags, written);
        sock_shutdown(fd, how);
    }
    link_open(linker)?;
    link_readdir(linker)
}

/// Files that a module opens are renumbered.
fn link_open(linker: &mut Linker<CoreGuest>) -> wasmtime::Result<()> {
    type Arguments = (i32, i32, i32, i32, i32, i64, i64, i32, i32);
    linker.func_wrap_async(MODULE, "path_open", |mut caller: Caller<'_, CoreGuest>, arguments: Arguments| {
        Box::new(async move {
            let (fd, look, path, bytes, how, base, inheriting, flags, opened) = arguments;
            let memory = exported_memory(&mut caller);
            let (mut memory, Preview1 { files, sockets }) = enter(&memory, &mut caller)?;
            let memory = &mut memory;
            let Named::File(fd) = sockets.named(fd) else { return Ok(Errno::Notdir as i32) };
            if files.ctx().table.iter_mut().count() >= OPEN_MAX {
                return Ok(Errno::Mfile as i32);
            }
            if is_short() {
                return Ok(Errno::Nfile as i32);
            }
            let code =
                files::path_open(files, memory, fd, look, path, bytes, how, base, inheriting, flags, opened).await?;
            if code == Errno::Success as i32 {
                let file: u32 = memory.read(at(opened))?;
                memory.write(at(opened), sockets.numbers.of_file(file))?;
            }
            Ok(code)
        })
    })?;
    Ok(())
}

/// Each call makes the library list the whole folder, in memory that the container pays for meanwhile.
fn link_readdir(linker: &mut Linker<CoreGuest>) -> wasmtime::Result<()> {
    type Arguments = (i32, i32, i32, i64, i32);
    linker.func_wrap_async(MODULE, "fd_readdir", |mut caller: Caller<'_, CoreGuest>, arguments: Arguments| {
        Box::new(async move {
            let (fd, buffer, bytes, cookie, read) = arguments;
            let memory = exported_memory(&mut caller);
            let (mut memory, Preview1 { files, sockets }) = enter(&memory, &mut caller)?;
            let fd = match sockets.named(fd) {
                Named::File(fd) => fd,
                Named::Socket(fd) if !sockets.open.contains_key(&fd) => return Ok(Errno::Badf as i32),
                Named::Socket(_) => return Ok(Errno::Notdir as i32),
            };
            let list_bytes = folder_bytes(files, fd).await?.saturating_mul(LIST_FACTOR);
            let Ok(_charge) = sockets.instance.charge(list_bytes) else { return Ok(Errno::Nomem as i32) };
            files::fd_readdir(files, &mut memory, fd, buffer, bytes, cookie, read).await
        })
    })?;
    Ok(())
}

/// What a folder itself takes up in its file system; 0 when it cannot be asked: whoever lists it hears why.
async fn folder_bytes(files: &mut WasiP1Ctx, fd: i32) -> wasmtime::Result<u64> {
    let mut stat = [0; FILESTAT_BYTES];
    let code = files::fd_filestat_get(files, &mut GuestMemory::Unshared(&mut stat), fd, 0).await?;
    let size = stat[FILESTAT_SIZE..].first_chunk().filter(|_| code == Errno::Success as i32);
    Ok(size.map_or(0, |size| u64::from_le_bytes(*size)))
}

/// As a call returns it.
pub(super) fn errno(answer: Answer<()>) -> wasmtime::Result<i32> {
    match answer {
        Ok(()) => Ok(Errno::Success as i32),
        Err(error) => error.downcast().map(|errno| errno as i32),
    }
}

pub(super) fn at<T>(address: i32) -> GuestPtr<T> {
    GuestPtr::new(address.cast_unsigned())
}

/// What a file answers to a call that only sockets know.
async fn no_socket(guest: &mut Preview1, file: i32) -> wasmtime::Result<i32> {
    let mut stat = [0; FDSTAT_BYTES];
    let code = files::fd_fdstat_get(&mut guest.files, &mut GuestMemory::Unshared(&mut stat), file, 0).await?;
    Ok(if code == Errno::Success as i32 { Errno::Notsock as i32 } else { code })
}

async fn fd_close(guest: &mut Preview1, memory: &mut GuestMemory<'_>, fd: i32) -> wasmtime::Result<i32> {
    match guest.sockets.named(fd) {
        Named::File(fd) => files::fd_close(&mut guest.files, memory, fd).await,
        Named::Socket(fd) => errno(guest.sockets.open.remove(&fd).map(drop).ok_or_else(|| Errno::Badf.into())),
    }
}

async fn fd_fdstat_get(
    guest: &mut Preview1,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    stat: i32,
) -> wasmtime::Result<i32> {
    let fd = match guest.sockets.named(fd) {
        Named::File(fd) => return files::fd_fdstat_get(&mut guest.files, memory, fd, stat).await,
        Named::Socket(fd) => fd,
    };
    match guest.sockets.get(fd) {
        Ok(descriptor) => errno(memory.write(at(stat), told_of(descriptor)).map_err(Into::into)),
        Err(code) => Ok(code as i32),
    }
}

fn told_of(descriptor: &Descriptor) -> types::Fdstat {
    let stream = Rights::FD_READ | Rights::FD_WRITE | Rights::SOCK_SHUTDOWN;
    let all = Rights::POLL_FD_READWRITE | Rights::FD_FDSTAT_SET_FLAGS | Rights::FD_FILESTAT_GET;
    let (base, inheriting) = match descriptor.kind {
        Kind::Listener { .. } => (Rights::SOCK_ACCEPT | all, stream | all),
        Kind::Connection { .. } => (stream | all, Rights::empty()),
    };
    types::Fdstat {
        fs_filetype: Filetype::SocketStream,
        fs_flags: if descriptor.nonblocking { Fdflags::NONBLOCK } else { Fdflags::empty() },
        fs_rights_base: base,
        fs_rights_inheriting: inheriting,
    }
}

async fn fd_fdstat_set_flags(
    guest: &mut Preview1,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    flags: i32,
) -> wasmtime::Result<i32> {
    match guest.sockets.named(fd) {
        Named::File(fd) => files::fd_fdstat_set_flags(&mut guest.files, memory, fd, flags),
        Named::Socket(fd) => {
            let set = guest.sockets.get(fd).map(|descriptor| descriptor.nonblocking = is_nonblocking(flags));
            errno(set.map_err(Into::into))
        }
    }
}

fn is_nonblocking(flags: i32) -> bool {
    flags & i32::from(Fdflags::NONBLOCK.bits()) != 0
}

async fn fd_filestat_get(
    guest: &mut Preview1,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    stat: i32,
) -> wasmtime::Result<i32> {
    let fd = match guest.sockets.named(fd) {
        Named::File(fd) => return files::fd_filestat_get(&mut guest.files, memory, fd, stat).await,
        Named::Socket(fd) => fd,
    };
    if let Err(code) = guest.sockets.get(fd) {
        return Ok(code as i32);
    }
    let told = types::Filestat {
        dev: 0,
        ino: u64::from(fd),
        filetype: Filetype::SocketStream,
        nlink: 1,
        size: 0,
        atim: 0,
        mtim: 0,
        ctim: 0,
    };
    errno(memory.write(at(stat), told).map_err(Into::into))
}

/// A listening socket is preopened and no folder: see the table of numbers.
async fn fd_prestat_get(
    guest: &mut Preview1,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    prestat: i32,
) -> wasmtime::Result<i32> {
    match guest.sockets.named(fd) {
        Named::File(fd) => files::fd_prestat_get(&mut guest.files, memory, fd, prestat),
        Named::Socket(fd) if !guest.sockets.is_listener(fd) => Ok(Errno::Badf as i32),
        Named::Socket(_) => errno(tell_no_folder(memory, prestat)),
    }
}

fn tell_no_folder(memory: &mut GuestMemory<'_>, prestat: i32) -> Answer<()> {
    let place = at::<u32>(prestat);
    memory.write(place, NO_FOLDER)?;
    Ok(memory.write(place.add(1)?, 0)?)
}

async fn fd_prestat_dir_name(
    guest: &mut Preview1,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    path: i32,
    bytes: i32,
) -> wasmtime::Result<i32> {
    match guest.sockets.named(fd) {
        Named::File(fd) => files::fd_prestat_dir_name(&mut guest.files, memory, fd, path, bytes),
        Named::Socket(fd) if !guest.sockets.is_listener(fd) => Ok(Errno::Badf as i32),
        // Its name has no bytes.
        Named::Socket(_) => Ok(Errno::Success as i32),
    }
}

async fn fd_read(
    guest: &mut Preview1,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    parts: i32,
    count: i32,
    read: i32,
) -> wasmtime::Result<i32> {
    match guest.sockets.named(fd) {
        Named::File(fd) => files::fd_read(&mut guest.files, memory, fd, parts, count, read).await,
        Named::Socket(fd) => errno(receive(guest, memory, fd, (parts, count), 0, read).await),
    }
}

async fn fd_write(
    guest: &mut Preview1,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    parts: i32,
    count: i32,
    written: i32,
) -> wasmtime::Result<i32> {
    match guest.sockets.named(fd) {
        Named::File(fd) => files::fd_write(&mut guest.files, memory, fd, parts, count, written).await,
        Named::Socket(fd) => errno(send(guest, memory, fd, (parts, count), written).await),
    }
}

/// Files take the place of files, sockets that of sockets.
async fn fd_renumber(guest: &mut Preview1, memory: &mut GuestMemory<'_>, from: i32, to: i32) -> wasmtime::Result<i32> {
    match (guest.sockets.named(from), guest.sockets.named(to)) {
        (Named::File(from), Named::File(to)) => files::fd_renumber(&mut guest.files, memory, from, to).await,
        (Named::Socket(from), Named::Socket(to)) => {
            let open = &mut guest.sockets.open;
            if !open.contains_key(&to) {
                return Ok(Errno::Badf as i32);
            }
            let Some(descriptor) = open.remove(&from) else { return Ok(Errno::Badf as i32) };
            open.insert(to, descriptor);
            Ok(Errno::Success as i32)
        }
        _ => Ok(Errno::Notsup as i32),
    }
}

async fn sock_accept(
    guest: &mut Preview1,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    flags: i32,
    accepted: i32,
) -> wasmtime::Result<i32> {
    match guest.sockets.named(fd) {
        Named::File(fd) => no_socket(guest, fd).await,
        Named::Socket(fd) => errno(accept(guest, memory, fd, flags, accepted).await),
    }
}

async fn accept(guest: &mut Preview1, memory: &mut GuestMemory<'_>, fd: u32, flags: i32, accepted: i32) -> Answer<()> {
    if guest.sockets.free().is_none() {
        return Err(Errno::Nfile.into());
    }
    let descriptor = guest.sockets.get(fd)?;
    let Kind::Listener { listener, .. } = &mut descriptor.kind else { return Err(Errno::Inval.into()) };
    if !descriptor.nonblocking {
        poll_fn(|cx| listener.poll_ready(cx)).await;
    }
    let socket = match listener.try_accept() {
        Poll::Ready(accepted) => accepted.map_err(Errno::from)?,
        Poll::Pending => return Err(Errno::Again.into()),
    };
    let connection = connection(socket, is_nonblocking(flags)).map_err(Errno::from)?;
    let number = guest.sockets.push(connection)?;
    Ok(memory.write(at(accepted), number)?)
}

fn connection(mut socket: TcpSocket, nonblocking: bool) -> Result<Descriptor, Code> {
    let (reader, writer) = (Reader::new(socket.take_receiver()?), Writer::new(socket.take_sender()?));
    Ok(Descriptor { nonblocking, kind: Kind::Connection { reader, writer, _socket: socket } })
}

#[expect(clippy::too_many_arguments, reason = "they are preview 1's")]
async fn sock_recv(
    guest: &mut Preview1,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    parts: i32,
    count: i32,
    flags: i32,
    read: i32,
    told: i32,
) -> wasmtime::Result<i32> {
    let fd = match guest.sockets.named(fd) {
        Named::File(fd) => return no_socket(guest, fd).await,
        Named::Socket(fd) => fd,
    };
    let answer = receive(guest, memory, fd, (parts, count), flags, read).await;
    // A stream's data is never cut.
    errno(answer.and_then(|()| Ok(memory.write(at(told), 0_u16)?)))
}

async fn sock_send(
    guest: &mut Preview1,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    parts: i32,
    count: i32,
    _flags: i32,
    written: i32,
) -> wasmtime::Result<i32> {
    match guest.sockets.named(fd) {
        Named::File(fd) => no_socket(guest, fd).await,
        Named::Socket(fd) => errno(send(guest, memory, fd, (parts, count), written).await),
    }
}

async fn sock_shutdown(
    guest: &mut Preview1,
    _memory: &mut GuestMemory<'_>,
    fd: i32,
    how: i32,
) -> wasmtime::Result<i32> {
    let fd = match guest.sockets.named(fd) {
        Named::File(fd) => return no_socket(guest, fd).await,
        Named::Socket(fd) => fd,
    };
    let descriptor = match guest.sockets.get(fd) {
        Ok(descriptor) => descriptor,
        Err(code) => return Ok(code as i32),
    };
    let Kind::Connection { reader, writer, .. } = &descriptor.kind else { return Ok(Errno::Notconn as i32) };
    if how & (SHUT_RECEIVE | SHUT_SEND) == 0 {
        return Ok(Errno::Inval as i32);
    }
    if how & SHUT_RECEIVE != 0 {
        reader.shutdown();
    }
    if how & SHUT_SEND != 0 {
        writer.shutdown();
    }
    Ok(Errno::Success as i32)
}

/// The first part of a read or write that is not empty: where, and how many bytes.
fn first_part(memory: &GuestMemory<'_>, (parts, count): Parts) -> Answer<(GuestPtr<u8>, u32)> {
    let count = count.cast_unsigned();
    if count > PARTS_MAX {
        return Err(Errno::Inval.into());
    }
    for part in at::<types::Iovec>(parts).as_array(count).iter() {
        let part = memory.read(part?)?;
        if part.buf_len > 0 {
            return Ok((part.buf, part.buf_len));
        }
    }
    Ok((GuestPtr::new(0), 0))
}

/// Reads into the first part: something, or all of it when that was asked for.
async fn receive(
    guest: &mut Preview1,
    memory: &mut GuestMemory<'_>,
    fd: u32,
    parts: Parts,
    flags: i32,
    read: i32,
) -> Answer<()> {
    let (into, size) = first_part(memory, parts)?;
    let descriptor = guest.sockets.get(fd)?;
    let Kind::Connection { reader, .. } = &mut descriptor.kind else { return Err(Errno::Notconn.into()) };
    let (peek, wait_all) = (flags & PEEK != 0, flags & WAIT_ALL != 0);
    let mut filled = 0;
    while filled < size {
        if !descriptor.nonblocking {
            reader.ready().await;
        }
        let most = (size - filled) as usize;
        let bytes = if peek { reader.peek(most) } else { reader.read(most) };
        let bytes = match bytes {
            Ok(bytes) if !bytes.is_empty() => bytes,
            Err(StreamError::Closed) => break,
            // What was read already is not lost.
            _ if filled > 0 => break,
            Ok(_) if descriptor.nonblocking => return Err(Errno::Again.into()),
            Ok(_) => continue,
            Err(error) => return Err(failed(error)),
        };
        let length = u32::try_from(bytes.len())?;
        memory.copy_from_slice(&bytes, into.add(filled)?.as_array(length))?;
        filled += length;
        if peek || !wait_all {
            break;
        }
    }
    Ok(memory.write(at(read), filled)?)
}

/// Writes of the first part as much as there is room for, at least one byte.
async fn send(guest: &mut Preview1, memory: &mut GuestMemory<'_>, fd: u32, parts: Parts, written: i32) -> Answer<()> {
    let (from, size) = first_part(memory, parts)?;
    let descriptor = guest.sockets.get(fd)?;
    let Kind::Connection { writer, .. } = &mut descriptor.kind else { return Err(Errno::Notconn.into()) };
    let length = loop {
        let room = writer.check_write().map_err(failed)?;
        if room > 0 {
            break size.min(u32::try_from(room.min(CHUNK_BYTES_MAX))?);
        }
        if descriptor.nonblocking {
            return Err(Errno::Again.into());
        }
        writer.ready().await;
    };
    let bytes = memory.to_vec(from.as_array(length))?;
    writer.write(bytes.into()).map_err(failed)?;
    Ok(memory.write(at(written), length)?)
}

fn failed(error: StreamError) -> types::Error {
    let errno = match error {
        StreamError::Closed => Errno::Pipe,
        StreamError::Trap(error) => return types::Error::trap(error),
        StreamError::LastOperationFailed(error) => match error.downcast_ref::<ErrorCode>() {
            Some(ErrorCode::ConnectionReset) => Errno::Connreset,
            Some(ErrorCode::ConnectionAborted) => Errno::Connaborted,
            Some(ErrorCode::Timeout) => Errno::Timedout,
            Some(ErrorCode::OutOfMemory) => Errno::Nobufs,
            Some(ErrorCode::RemoteUnreachable) => Errno::Hostunreach,
            Some(ErrorCode::AccessDenied) => Errno::Acces,
            _ => Errno::Io,
        },
    };
    errno.into()
}
