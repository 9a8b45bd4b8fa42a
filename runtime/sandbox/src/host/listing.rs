//! `read-directory`: what is in a folder, as a list that its container pays for.
//!
//! The library's own keeps a whole list on nobody's account (0.2), or one of the process' threads for as long as the guest does not
//! read on (0.3): a few hundred streams of one guest, and nothing in the process that needs such a thread would go on. Here a folder is
//! read at once, within a bound, and given out of memory.
//!
//! Deliberately not here: core modules' `fd_readdir`, whose list lasts for one call (see `sockets::p1`).

use std::{
    fs::File,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, statat},
    io::Errno,
};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};
use wasmtime::{
    StoreContextMut,
    component::{
        Destination, FutureReader, Linker, Resource, ResourceType, StreamProducer, StreamReader, StreamResult,
    },
};
use wasmtime_wasi::{
    filesystem::Descriptor, p2::bindings::filesystem::types as p2, p3::bindings::filesystem::types as p3,
};

use super::{
    Guest, HOSTCALL_BYTES_MAX,
    open_files::{P2, P3},
};
use crate::{container::Container, memory::Charge, meter};

const READ: &str = "[method]descriptor.read-directory";
const STREAM: &str = "directory-entry-stream";
const NEXT: &str = "[method]directory-entry-stream.read-directory-entry";
/// Bytes of one list: past it the guest hears that there is no memory.
const LIST_BYTES_MAX: u64 = HOSTCALL_BYTES_MAX as u64;
/// An entry beside its name.
const ENTRY_BYTES: u64 = 96;
/// What is taken of the container's memory at a time while a folder is read.
const STEP_BYTES: u64 = 64 << 10;

/// Puts these in the place of the library's.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut instance = linker.instance(P2)?;
    instance.resource(STREAM, ResourceType::host::<Listing>(), |mut store, rep| {
        store.data_mut().table.delete(Resource::<Listing>::new_own(rep))?;
        Ok(())
    })?;
    instance.func_wrap_async(READ, |store, params| Box::new(read_p2(store, params)))?;
    instance.func_wrap(NEXT, next_p2)?;
    linker.instance(P3)?.func_wrap(READ, read_p3)
}

/// What is in a folder, or the rest of it.
struct Listing {
    entries: vec::IntoIter<Entry>,
    _charge: Charge,
}

struct Entry {
    /// `None`: it is no text.
    name: Option<String>,
    kind: FileType,
}

/// Reads a folder, in the container's memory and time.
fn reading(container: Arc<Container>, dir: Arc<File>) -> JoinHandle<io::Result<Listing>> {
    spawn_blocking(move || meter::beside(&container, || list(&container, &dir)))
}

fn list(container: &Container, dir: &File) -> io::Result<Listing> {
    let mut charge = Charge::empty(container.memory.clone());
    let (mut entries, mut bytes, mut taken) = (Vec::new(), 0, 0);
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        bytes += ENTRY_BYTES + name.to_bytes().len() as u64;
        if bytes > taken {
            taken += STEP_BYTES;
            if taken > LIST_BYTES_MAX || !charge.resize(taken) {
                return Err(Errno::NOMEM.into());
            }
        }
        let kind = match entry.file_type() {
            FileType::Unknown => match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                // It has gone meanwhile.
                Err(_) => continue,
            },
            kind => kind,
        };
        entries.push(Entry { name: name.to_str().ok().map(str::to_owned), kind });
    }
    let _fits = charge.resize(bytes);
    Ok(Listing { entries: entries.into_iter(), _charge: charge })
}

fn folder(descriptor: &Descriptor) -> Option<Arc<File>> {
    match descriptor {
        Descriptor::Dir(dir) => Some(dir.dir.clone()),
        Descriptor::File(_) => None,
    }
}

async fn read_p2(
    mut store: StoreContextMut<'_, Guest>,
    (descriptor,): (Resource<Descriptor>,),
) -> wasmtime::Result<(Result<Resource<Listing>, p2::ErrorCode>,)> {
    let guest = store.data_mut();
    guest.called();
    let Some(dir) = folder(guest.table.get(&descriptor)?) else {
        return Ok((Err(p2::ErrorCode::NotDirectory),));
    };
    let listed = reading(guest.own.container.clone(), dir).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    match listed {
        Ok(listing) => Ok((Ok(guest.table.push(listing)?),)),
        Err(error) => Ok((Err(error.into()),)),
    }
}

fn next_p2(
    mut store: StoreContextMut<'_, Guest>,
    (listing,): (Resource<Listing>,),
) -> wasmtime::Result<(Result<Option<p2::DirectoryEntry>, p2::ErrorCode>,)> {
    let guest = store.data_mut();
    guest.called();
    let entry = guest.table.get_mut(&listing)?.entries.next();
    let entry = entry.map(|Entry { name, kind }| {
        let name = name.ok_or(p2::ErrorCode::IllegalByteSequence)?;
        Ok(p2::DirectoryEntry { type_: kind_p2(kind), name })
    });
    Ok((entry.transpose(),))
}

fn kind_p2(kind: FileType) -> p2::DescriptorType {
    match kind {
        FileType::Directory => p2::DescriptorType::Directory,
        FileType::RegularFile => p2::DescriptorType::RegularFile,
        FileType::Symlink => p2::DescriptorType::SymbolicLink,
        FileType::BlockDevice => p2::DescriptorType::BlockDevice,
        FileType::CharacterDevice => p2::DescriptorType::CharacterDevice,
        _ => p2::DescriptorType::Unknown,
    }
}

type Read = (StreamReader<p3::DirectoryEntry>, FutureReader<Result<(), p3::ErrorCode>>);

fn read_p3(mut store: StoreContextMut<'_, Guest>, (descriptor,): (Resource<Descriptor>,)) -> wasmtime::Result<(Read,)> {
    let (result, on_result) = oneshot::channel();
    let guest = store.data_mut();
    guest.called();
    let entries = match folder(guest.table.get(&descriptor)?) {
        Some(dir) => Entries { state: State::Reading(reading(guest.own.container.clone(), dir)), result: Some(result) },
        None => {
            let _heard = result.send(Err(p3::ErrorCode::NotDirectory));
            Entries { state: State::Over, result: None }
        }
    };
    let stream = StreamReader::new(&mut store, entries)?;
    Ok(((stream, FutureReader::new(&mut store, on_result)?),))
}

/// A stream of 0.3.
struct Entries {
    state: State,
    /// Told when it is over, whoever ended it.
    result: Option<oneshot::Sender<Result<(), p3::ErrorCode>>>,
}

enum State {
    Reading(JoinHandle<io::Result<Listing>>),
    Read(Listing),
    Over,
}

impl Entries {
    fn end(&mut self, result: Result<(), p3::ErrorCode>) {
        self.state = State::Over;
        if let Some(hearer) = self.result.take() {
            let _heard = hearer.send(result);
        }
    }

    /// The next one; `None`: it is over.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<p3::DirectoryEntry>> {
        if let State::Reading(reading) = &mut self.state {
            let Poll::Ready(read) = Pin::new(reading).poll(cx) else { return Poll::Pending };
            match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(listing) => self.state = State::Read(listing),
                Err(error) => self.end(Err(error.into())),
            }
        }
        let State::Read(listing) = &mut self.state else { return Poll::Ready(None) };
        match listing.entries.next() {
            Some(Entry { name: Some(name), kind }) => {
                return Poll::Ready(Some(p3::DirectoryEntry { type_: kind_p3(kind), name }));
            }
            Some(Entry { name: None, .. }) => self.end(Err(p3::ErrorCode::IllegalByteSequence)),
            None => self.end(Ok(())),
        }
        Poll::Ready(None)
    }
}

impl StreamProducer<Guest> for Entries {
    type Item = p3::DirectoryEntry;
    type Buffer = Option<p3::DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, Guest>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        match self.poll_next(cx) {
            Poll::Ready(Some(entry)) => {
                destination.set_buffer(Some(entry));
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(None) => Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.end(Ok(()));
    }
}

fn kind_p3(kind: FileType) -> p3::DescriptorType {
    match kind {
        FileType::Directory => p3::DescriptorType::Directory,
        FileType::RegularFile => p3::DescriptorType::RegularFile,
        FileType::Symlink => p3::DescriptorType::SymbolicLink,
        FileType::BlockDevice => p3::DescriptorType::BlockDevice,
        FileType::CharacterDevice => p3::DescriptorType::CharacterDevice,
        _ => p3::DescriptorType::Other(None),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, future::poll_fn};

    use crate::{ContainerSpec, Sandbox, SandboxConfig};

    use super::*;

    fn container(memory_bytes_max: u64) -> Arc<Container> {
        let sandbox = Sandbox::new(SandboxConfig { instances_max: 1, ..SandboxConfig::default() }).unwrap();
        let mut spec = ContainerSpec::new("lists");
        spec.limits.memory_bytes_max = memory_bytes_max;
        Container::new(sandbox.node, spec).unwrap()
    }

    fn stream(container: &Arc<Container>, dir: &Arc<File>) -> (Entries, oneshot::Receiver<Result<(), p3::ErrorCode>>) {
        let (result, on_result) = oneshot::channel();
        let state = State::Reading(reading(container.clone(), dir.clone()));
        (Entries { state, result: Some(result) }, on_result)
    }

    #[test]
    fn streams_that_nobody_reads_keep_no_threads() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..10 {
            fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        std::os::unix::fs::symlink("elsewhere", folder.path().join("link")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(2).build().unwrap();
        runtime.block_on(async {
            let (container, dir) = (container(8 << 20), Arc::new(File::open(folder.path()).unwrap()));
            let mut streams: Vec<_> = (0..20).map(|_| stream(&container, &dir)).collect();
            spawn_blocking(|| ()).await.unwrap();
            let (entries, on_result) = &mut streams[7];
            let mut found = Vec::new();
            while let Some(entry) = poll_fn(|cx| entries.poll_next(cx)).await {
                found.push((entry.name, matches!(entry.type_, p3::DescriptorType::SymbolicLink)));
            }
            found.sort();
            assert_eq!((found.len(), &found[10]), (11, &("link".to_owned(), true)));
            assert!(matches!(on_result.await, Ok(Ok(()))));
            assert!(container.memory.used_bytes() > 10 * ENTRY_BYTES);
            drop(streams);
            spawn_blocking(|| ()).await.unwrap();
        });
    }

    #[tokio::test]
    async fn lists_are_as_long_as_there_is_memory() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Arc::new(File::open(folder.path()).unwrap());
        for number in 0..1000 {
            fs::write(folder.path().join(format!("{number:0200}")), "").unwrap();
        }
        let (large, small) = (container(1 << 20), container(128 << 10));
        let listing = reading(large.clone(), dir.clone()).await.unwrap().unwrap();
        assert_eq!((listing.entries.len(), large.memory.used_bytes()), (1000, 1000 * (ENTRY_BYTES + 200)));
        drop(listing);
        assert_eq!(large.memory.used_bytes(), 0);
        let refused = reading(small.clone(), dir.clone()).await.unwrap().err().and_then(|error| error.raw_os_error());
        assert_eq!((refused, small.memory.used_bytes()), (Some(Errno::NOMEM.raw_os_error()), 0));
        let (mut entries, on_result) = stream(&small, &dir);
        assert!(poll_fn(|cx| entries.poll_next(cx)).await.is_none());
        assert!(matches!(on_result.await, Ok(Err(p3::ErrorCode::InsufficientMemory))));
    }
}
