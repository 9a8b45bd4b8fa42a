//! `poll_oneoff` over sockets, files and clocks together. What is no socket is polled by `wasmtime-wasi`, from a copy of those
//! subscriptions alone.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use wasmtime_wasi::p1::{WasiP1Ctx, types::Errno, wasi_snapshot_preview1 as files};
use wiggle::GuestMemory;

use super::{
    Descriptors, Kind, Named, Preview1,
    calls::{Answer, at, errno},
};

/// Sizes and places of what lies in the guest's memory: `$subscription` and `$event`.
const SUBSCRIPTION_BYTES: usize = 48;
const TAG: usize = 8;
const FD: usize = 16;
const EVENT_BYTES: usize = 32;
/// Subscriptions of one call.
const SUBSCRIPTIONS_MAX: u32 = 16 << 10;
/// `$eventtype`.
const FD_READ: u8 = 1;
const FD_WRITE: u8 = 2;
/// `$eventrwflags`.
const HANGUP: u16 = 1;

/// A socket that is waited for.
struct Waiting {
    userdata: [u8; 8],
    kind: u8,
    fd: u32,
}

/// Everything that one call waits for.
#[derive(Default)]
struct Subscriptions {
    sockets: Vec<Waiting>,
    /// The others, as the guest wrote them but for numbers.
    others: Vec<u8>,
}

type Event = [u8; EVENT_BYTES];

pub(super) async fn poll_oneoff(
    guest: &mut Preview1,
    memory: &mut GuestMemory<'_>,
    subscriptions: i32,
    events: i32,
    count: i32,
    ready: i32,
) -> wasmtime::Result<i32> {
    if guest.sockets.numbers.listeners == 0 {
        return files::poll_oneoff(&mut guest.files, memory, subscriptions, events, count, ready).await;
    }
    let waiting = match read(&mut guest.sockets, memory, subscriptions, count.cast_unsigned()) {
        Ok(waiting) => waiting,
        Err(error) => return errno(Err(error)),
    };
    let happened = match wait(guest, waiting).await? {
        Ok(happened) => happened,
        Err(code) => return Ok(code),
    };
    errno(tell(memory, &happened, events, ready))
}

fn read(sockets: &mut Descriptors, memory: &GuestMemory<'_>, subscriptions: i32, count: u32) -> Answer<Subscriptions> {
    match count {
        0 => return Err(Errno::Inval.into()),
        SUBSCRIPTIONS_MAX.. => return Err(Errno::Nomem.into()),
        _ => {}
    }
    let bytes = memory.to_vec(at::<u8>(subscriptions).as_array(count * SUBSCRIPTION_BYTES as u32))?;
    let mut all = Subscriptions::default();
    for subscription in bytes.chunks_exact(SUBSCRIPTION_BYTES) {
        let kind = subscription[TAG];
        let start = all.others.len();
        if !matches!(kind, FD_READ | FD_WRITE) {
            all.others.extend_from_slice(subscription);
            continue;
        }
        match sockets.named(i32::from_le_bytes(array(&subscription[FD..]))) {
            Named::Socket(fd) => {
                sockets.get(fd)?;
                all.sockets.push(Waiting { userdata: array(subscription), kind, fd });
            }
            Named::File(file) => {
                all.others.extend_from_slice(subscription);
                all.others[start + FD..start + FD + 4].copy_from_slice(&file.to_le_bytes());
            }
        }
    }
    Ok(all)
}

fn tell(memory: &mut GuestMemory<'_>, happened: &[Event], events: i32, ready: i32) -> Answer<()> {
    let bytes = happened.concat();
    memory.copy_from_slice(&bytes, at::<u8>(events).as_array(u32::try_from(bytes.len())?))?;
    Ok(memory.write(at(ready), u32::try_from(happened.len())?)?)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

/// Waits until something has happened; an error is `wasmtime-wasi`'s.
async fn wait(guest: &mut Preview1, waiting: Subscriptions) -> wasmtime::Result<Result<Vec<Event>, i32>> {
    let Preview1 { files, sockets } = guest;
    let Subscriptions { sockets: waited_for, others } = waiting;
    let mut others = (!others.is_empty()).then(|| Box::pin(poll_others(files, others)));
    poll_fn(|cx| {
        let mut events: Vec<_> = waited_for.iter().filter_map(|waiting| poll_socket(sockets, waiting, cx)).collect();
        let polled = others.as_mut().map_or(Poll::Pending, |others| Pin::new(others).poll(cx));
        match polled {
            Poll::Ready(Ok(Ok(more))) => events.extend(more),
            Poll::Ready(failed) => return Poll::Ready(failed),
            Poll::Pending if events.is_empty() => return Poll::Pending,
            Poll::Pending => {}
        }
        Poll::Ready(Ok(Ok(events)))
    })
    .await
}

/// Polls what is no socket, in a memory of its own.
async fn poll_others(files: &mut WasiP1Ctx, subscriptions: Vec<u8>) -> wasmtime::Result<Result<Vec<Event>, i32>> {
    let count = subscriptions.len() / SUBSCRIPTION_BYTES;
    let events = subscriptions.len();
    let told = events + count * EVENT_BYTES;
    let mut scratch = subscriptions;
    scratch.resize(told + 4, 0);
    let mut memory = GuestMemory::Unshared(&mut scratch);
    let [count, events_at, told_at] = [count, events, told].map(|number| i32::try_from(number).unwrap_or(i32::MAX));
    let code = files::poll_oneoff(files, &mut memory, 0, events_at, count, told_at).await?;
    if code != Errno::Success as i32 {
        return Ok(Err(code));
    }
    let happened = u32::from_le_bytes(array(&scratch[told..])) as usize;
    Ok(Ok(scratch[events..told].chunks_exact(EVENT_BYTES).take(happened).map(array).collect()))
}

/// What there is to say of a socket now.
fn poll_socket(sockets: &mut Descriptors, waiting: &Waiting, cx: &mut Context<'_>) -> Option<Event> {
    let Ok(descriptor) = sockets.get(waiting.fd) else { return Some(event(waiting, Errno::Badf, 0, 0)) };
    let is_ready = match (&mut descriptor.kind, waiting.kind) {
        (Kind::Listener { listener, .. }, FD_READ) => listener.poll_ready(cx).is_ready(),
        // Nothing can ever be written to one that listens.
        (Kind::Listener { .. }, _) => false,
        (Kind::Connection { reader, .. }, FD_READ) => reader.poll_ready(cx).is_ready(),
        (Kind::Connection { writer, .. }, _) => writer.poll_ready(cx).is_ready(),
    };
    if !is_ready {
        return None;
    }
    let (bytes, flags) = match (&descriptor.kind, waiting.kind) {
        (Kind::Connection { reader, .. }, FD_READ) => match reader.waiting_bytes() {
            Ok(bytes) => (bytes as u64, 0),
            Err(_) => (0, HANGUP),
        },
        _ => (1, 0),
    };
    Some(event(waiting, Errno::Success, bytes, flags))
}

fn event(waiting: &Waiting, errno: Errno, bytes: u64, flags: u16) -> Event {
    let mut event = [0; EVENT_BYTES];
    event[..8].copy_from_slice(&waiting.userdata);
    event[8..10].copy_from_slice(&(errno as u16).to_le_bytes());
    event[10] = waiting.kind;
    event[16..24].copy_from_slice(&bytes.to_le_bytes());
    event[24..26].copy_from_slice(&flags.to_le_bytes());
    event
}
