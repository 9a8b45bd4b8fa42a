//! What the standard library does not offer on WASI: symbolic links, and which folders there are at all.
//!
//! The only place with `unsafe`: functions of the C library and of WASI itself, and the environment.

use std::{ffi::CString, io};

mod raw {
    use std::ffi::{c_char, c_int};

    unsafe extern "C" {
        pub fn symlink(target: *const c_char, link: *const c_char) -> c_int;
        /// The working folder as WASI's C library keeps it.
        pub static mut __wasilibc_cwd: *const c_char;
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub fn fd_prestat_get(fd: u32, kind_and_length: *mut [u32; 2]) -> u32;
        pub fn fd_prestat_dir_name(fd: u32, name: *mut u8, length: u32) -> u32;
    }
}

/// Makes a symbolic link.
pub fn symlink(target: &str, link: &str) -> io::Result<()> {
    let (target, link) = (CString::new(target)?, CString::new(link)?);
    // SAFETY: both are strings that end with a zero byte and live until the call returns.
    let answer = unsafe { raw::symlink(target.as_ptr(), link.as_ptr()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The folders that this program was given.
pub fn mounts() -> Vec<String> {
    let mut found = Vec::new();
    for fd in 3.. {
        let mut stat = [0; 2];
        // SAFETY: the host writes the eight bytes of a `prestat`, which is what is behind the pointer.
        if unsafe { raw::fd_prestat_get(fd, &raw mut stat) } != 0 {
            break;
        }
        let mut name = vec![0; stat[1] as usize];
        // SAFETY: the host writes at most as many bytes as it is told.
        if unsafe { raw::fd_prestat_dir_name(fd, name.as_mut_ptr(), stat[1]) } == 0 {
            found.push(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned());
        }
    }
    found
}

/// Goes to a folder: one that can be opened, or that leads to others.
pub fn change_dir(dir: &str) -> io::Result<()> {
    let failed = match std::env::set_current_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let whole = std::env::current_dir().unwrap_or_default().join(dir);
    let mut parts: Vec<_> = Vec::new();
    for part in whole.components() {
        match part {
            std::path::Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    let whole = format!("/{}", parts.join("/"));
    if whole != "/" && leads_to(&whole).is_empty() {
        return Err(failed);
    }
    let kept = CString::new(whole)?.into_raw();
    // SAFETY: a WASI program has one thread; the string ends with a zero byte and is never freed.
    unsafe { raw::__wasilibc_cwd = kept };
    Ok(())
}

/// What lies in a folder that only leads to others: `/` where `/data/a` is all there is.
pub fn leads_to(dir: &str) -> Vec<String> {
    let dir = format!("{}/", dir.trim_end_matches('/'));
    let mounts = mounts();
    let below = mounts.iter().filter_map(|mount| mount.strip_prefix(dir.as_str()));
    let mut names: Vec<String> =
        below.filter_map(|rest| rest.split('/').next()).filter(|n| !n.is_empty()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// Sets a variable of the environment.
pub fn set_var(name: &str, value: &str) {
    // SAFETY: a WASI program has one thread.
    unsafe { std::env::set_var(name, value) };
}

/// Removes a variable of the environment.
pub fn remove_var(name: &str) {
    // SAFETY: as above.
    unsafe { std::env::remove_var(name) };
}
