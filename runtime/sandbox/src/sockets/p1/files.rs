//! Calls that mean files only: their descriptors are renumbered and everything else is left to `wasmtime-wasi`.

use wasmtime::{Caller, Linker};
use wasmtime_wasi::p1::{types::Errno, wasi_snapshot_preview1 as files};

use super::{MODULE, Named, enter, exported_memory};
use crate::host::CoreGuest;

/// `waits NAME(ARGUMENTS) on DESCRIPTORS else ERRNO;` the error is what a socket answers.
macro_rules! link_files {
    ($linker:ident: $($how:ident $name:ident($($arg:ident: $type:ty),*) on $($fd:ident),+; else $errno:ident;)*) => {
        $($linker.func_wrap_async(
            MODULE,
            stringify!($name),
            |mut caller: Caller<'_, CoreGuest>, ($($arg,)*): ($($type,)*)| {
                Box::new(async move {
                    let memory = exported_memory(&mut caller);
                    let (mut memory, guest) = enter(&memory, &mut caller)?;
                    $(
                        let $fd = match guest.sockets.named($fd) {
                            Named::File(fd) => fd,
                            Named::Socket(fd) if !guest.sockets.open.contains_key(&fd) => return Ok(Errno::Badf as i32),
                            Named::Socket(_) => return Ok(Errno::$errno as i32),
                        };
                    )+
                    link_files!(@$how files::$name(&mut guest.files, &mut memory, $($arg),*))
                })
            },
        )?;)*
    };
    (@waits $call:expr) => { $call.await };
    (@answers $call:expr) => { $call };
}

#[rustfmt::skip]
pub(super) fn link(linker: &mut Linker<CoreGuest>) -> wasmtime::Result<()> {
    link_files! { linker:
        waits fd_advise(fd: i32, offset: i64, bytes: i64, advice: i32) on fd; else Spipe;
        answers fd_allocate(fd: i32, offset: i64, bytes: i64) on fd; else Spipe;
        waits fd_datasync(fd: i32) on fd; else Inval;
        answers fd_fdstat_set_rights(fd: i32, base: i64, inheriting: i64) on fd; else Notsup;
        waits fd_filestat_set_size(fd: i32, bytes: i64) on fd; else Inval;
        waits fd_filestat_set_times(fd: i32, accessed: i64, modified: i64, flags: i32) on fd; else Inval;
        waits fd_pread(fd: i32, iovs: i32, count: i32, offset: i64, read: i32) on fd; else Spipe;
        waits fd_pwrite(fd: i32, iovs: i32, count: i32, offset: i64, written: i32) on fd; else Spipe;
        waits fd_seek(fd: i32, offset: i64, whence: i32, position: i32) on fd; else Spipe;
        waits fd_sync(fd: i32) on fd; else Inval;
        answers fd_tell(fd: i32, position: i32) on fd; else Spipe;
        waits path_create_directory(fd: i32, path: i32, bytes: i32) on fd; else Notdir;
        waits path_filestat_get(fd: i32, flags: i32, path: i32, bytes: i32, stat: i32) on fd; else Notdir;
        waits path_filestat_set_times(
            fd: i32, flags: i32, path: i32, bytes: i32, accessed: i64, modified: i64, times: i32
        ) on fd; else Notdir;
        waits path_link(
            fd: i32, flags: i32, path: i32, bytes: i32, to_fd: i32, to: i32, to_bytes: i32
        ) on fd, to_fd; else Notdir;
        waits path_readlink(fd: i32, path: i32, bytes: i32, buffer: i32, size: i32, read: i32) on fd; else Notdir;
        waits path_remove_directory(fd: i32, path: i32, bytes: i32) on fd; else Notdir;
        waits path_rename(fd: i32, path: i32, bytes: i32, to_fd: i32, to: i32, to_bytes: i32) on fd, to_fd; else Notdir;
        waits path_symlink(target: i32, bytes: i32, fd: i32, path: i32, path_bytes: i32) on fd; else Notdir;
        waits path_unlink_file(fd: i32, path: i32, bytes: i32) on fd; else Notdir;
    }
    Ok(())
}
