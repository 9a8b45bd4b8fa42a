//! Core dumps of instances that trap, for containers that ask for them.
//!
//! wasmtime captures them for a whole engine or not at all. Capturing walks the stack once more when a guest traps and
//! copies nothing; writing one copies the guest's memories, so it happens only on request and within bounds.

use wasmtime::Store;

use crate::container::Container;

/// Writes the dump that a trap carries, when the container asks for it and there is one.
#[cfg(feature = "core-dumps")]
pub(crate) fn keep<T: 'static>(container: &Container, error: &wasmtime::Error, store: &mut Store<T>) {
    let Some(asked) = &container.spec.core_dumps else { return };
    let Some(dump) = error.downcast_ref::<wasmtime::WasmCoreDump>() else { return };
    let memory: u64 = dump.memories().iter().map(|memory| memory.data_size(&*store) as u64).sum();
    if memory > asked.bytes_max {
        tracing::warn!(container = container.spec.name, memory, "a core dump would be too large: not written");
        return;
    }
    let bytes = dump.serialize(store, &container.spec.name);
    if bytes.len() as u64 > asked.bytes_max {
        tracing::warn!(container = container.spec.name, bytes = bytes.len(), "a core dump is too large: not written");
        return;
    }
    let (asked, name) = (asked.clone(), container.spec.name.clone());
    // Files are written where it is no guest's time.
    tokio::task::spawn_blocking(move || match write(&asked, &bytes) {
        Ok(path) => tracing::info!(container = name, path = %path.display(), "core dump written"),
        Err(error) => tracing::warn!(container = name, dir = %asked.dir.display(), %error, "cannot write a core dump"),
    });
}

#[cfg(not(feature = "core-dumps"))]
pub(crate) fn keep<T: 'static>(container: &Container, _: &wasmtime::Error, _: &mut Store<T>) {
    if container.spec.core_dumps.is_some() {
        tracing::warn!(container = container.spec.name, "this build writes no core dumps");
    }
}

#[cfg(feature = "core-dumps")]
fn write(asked: &crate::CoreDumps, bytes: &[u8]) -> std::io::Result<std::path::PathBuf> {
    use std::{
        fs,
        io::Write as _,
        sync::atomic::{AtomicU64, Ordering},
        time::{SystemTime, UNIX_EPOCH},
    };
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    fs::create_dir_all(&asked.dir)?;
    let mut kept: Vec<_> = fs::read_dir(&asked.dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "coredump"))
        .collect();
    kept.sort();
    let room = usize::try_from(asked.count_max.max(1)).unwrap_or(usize::MAX);
    for old in kept.iter().take((kept.len() + 1).saturating_sub(room)) {
        fs::remove_file(old)?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let path = asked.dir.join(format!("{now:013}-{}.coredump", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let mut file = tempfile::NamedTempFile::new_in(&asked.dir)?;
    file.write_all(bytes)?;
    file.persist(&path).map_err(|e| e.error)?;
    Ok(path)
}
