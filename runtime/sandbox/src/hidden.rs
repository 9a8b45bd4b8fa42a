//! What the host keeps for an instance beside its linear memories, tables and GC heaps: an estimate that is billed to
//! its container.
//!
//! Every instance pays a base when it is made: its store, its stack, its page tables. What a guest makes the host
//! allocate by calling it (headers, bodies, streams, futures, tasks, timers) lies in two tables, whose entries are
//! added up at each tick of computing and every few calls, so that no guest can hide much memory between two looks.
//!
//! It is an estimate from above of what an entry may hold, not of what it holds: a body counts as a full chunk.

use std::any::Any;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable};
use wasmtime_wasi_http::{
    FieldMap,
    p2::{
        body::HostOutgoingBody,
        types::{HostFutureIncomingResponse, HostOutgoingRequest, HostOutgoingResponse},
    },
};

use crate::memory::{Held, OutOfMemory};

/// What a live instance costs before it does anything: measured, resident memory and page tables of an instance that
/// waits, less the pages of its linear memory.
pub(crate) const INSTANCE_BASE_BYTES: u64 = 96 << 10;
/// A resource: its entry, its box, its place in the guest's table of handles.
const RESOURCE_BYTES: u64 = 192;
/// An entry of what runs concurrently: a task may keep a stack of its own, of which two pages are in use at least.
const CONCURRENT_BYTES: u64 = 4 << 10;
/// One chunk of a body or stream that waits to be read.
const CHUNK_BYTES: u64 = 64 << 10;
/// A call under way: its future and what the network keeps for it.
const CALL_BYTES: u64 = 4 << 10;
/// A header beside its bytes.
const HEADER_BYTES: u64 = 128;
/// Calls between two looks, while there are few resources.
const CALLS_MIN: u32 = 16;
/// Resources for which one more call may pass between two looks, so that looking costs little however many there are.
const RESOURCES_PER_CALL: u32 = 64;

/// The estimate of one instance.
#[derive(Debug, Default)]
pub(crate) struct Hidden {
    calls_left: u32,
    resources_bytes: u64,
    concurrent_bytes: u64,
}

impl Hidden {
    /// To be told of each call that may make the host allocate.
    #[inline]
    pub(crate) fn called(&mut self, held: &mut Held, table: &mut ResourceTable) {
        match self.calls_left.checked_sub(1) {
            Some(left) => self.calls_left = left,
            // What is too much is seen by the next tick, which ends the guest.
            None => _ = self.look(held, table, None),
        }
    }

    /// Renews the estimate.
    ///
    /// # Errors
    /// When it is more than the container may have.
    pub(crate) fn look(
        &mut self,
        held: &mut Held,
        table: &mut ResourceTable,
        concurrent: Option<u64>,
    ) -> Result<(), OutOfMemory> {
        let mut count = 0_u32;
        self.resources_bytes = 0;
        for entry in table.iter_mut() {
            count += 1;
            self.resources_bytes += resource_bytes(entry);
        }
        self.calls_left = CALLS_MIN.max(count / RESOURCES_PER_CALL);
        self.concurrent_bytes = concurrent.unwrap_or(self.concurrent_bytes);
        held.hide(INSTANCE_BASE_BYTES + self.resources_bytes + self.concurrent_bytes)
    }
}

/// What the library's own table of tasks, streams, futures and sets of waitables holds.
pub(crate) fn concurrent_bytes(table: &mut ResourceTable) -> u64 {
    table.iter_mut().map(|entry| size_of_val(entry) as u64 + CONCURRENT_BYTES).sum()
}

fn resource_bytes(entry: &(dyn Any + Send)) -> u64 {
    let inside = if let Some(fields) = entry.downcast_ref::<FieldMap>() {
        fields_bytes(fields)
    } else if entry.is::<DynPollable>() {
        0
    } else if let Some(stream) = entry.downcast_ref::<DynInputStream>() {
        stream_bytes(size_of_val(&**stream))
    } else if let Some(stream) = entry.downcast_ref::<DynOutputStream>() {
        stream_bytes(size_of_val(&**stream))
    } else if entry.is::<HostOutgoingBody>() {
        CHUNK_BYTES
    } else if let Some(response) = entry.downcast_ref::<HostOutgoingResponse>() {
        fields_bytes(&response.headers)
    } else if let Some(request) = entry.downcast_ref::<HostOutgoingRequest>() {
        let text = request.path_with_query.as_ref().map_or(0, String::len);
        fields_bytes(&request.headers) + text as u64
    } else if entry.is::<HostFutureIncomingResponse>() {
        CALL_BYTES
    } else {
        0
    };
    RESOURCE_BYTES + size_of_val(entry) as u64 + inside
}

fn fields_bytes(fields: &http::HeaderMap) -> u64 {
    fields.iter().map(|(name, value)| HEADER_BYTES + (name.as_str().len() + value.len()) as u64).sum()
}

/// A connection's streams are a pointer each, to what is billed as it is: see `sockets`.
fn stream_bytes(size: usize) -> u64 {
    if size == size_of::<usize>() { 0 } else { CHUNK_BYTES }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::memory::MemoryAccount;

    #[test]
    fn what_a_guest_makes_the_host_keep_is_billed_and_given_back() {
        let account = Arc::new(MemoryAccount::new(1 << 20, None));
        let mut held = Held::new(account.clone());
        let (mut hidden, mut table) = (Hidden::default(), ResourceTable::new());
        assert_eq!(hidden.look(&mut held, &mut table, None), Ok(()));
        assert_eq!(account.used_bytes(), INSTANCE_BASE_BYTES);

        let mut fields = FieldMap::new_mutable(1 << 20);
        let value = http::HeaderValue::from_bytes(&vec![b'x'; 500_000]).unwrap();
        fields.append_raw(http::header::COOKIE, value).unwrap();
        let fields = table.push(fields).unwrap();
        for _ in 0..CALLS_MIN {
            hidden.called(&mut held, &mut table);
        }
        assert_eq!(account.used_bytes(), INSTANCE_BASE_BYTES, "not looked at each call");
        hidden.called(&mut held, &mut table);
        let one = account.used_bytes() - INSTANCE_BASE_BYTES;
        assert!((500_000..502_000).contains(&one), "{one}");

        assert_eq!(hidden.look(&mut held, &mut table, Some(1 << 20)), Err(OutOfMemory));
        assert!(account.exceeded());
        table.delete(fields).unwrap();
        assert_eq!(hidden.look(&mut held, &mut table, Some(0)), Ok(()));
        assert_eq!(account.used_bytes(), INSTANCE_BASE_BYTES);
        drop(held);
        assert_eq!(account.used_bytes(), 0);
    }
}
