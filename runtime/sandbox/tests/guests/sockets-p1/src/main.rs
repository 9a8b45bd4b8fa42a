//! Tries listening sockets by preview 1: what to do is the first argument.

use wasi::{
    CLOCKID_MONOTONIC, Ciovec, ERRNO_AGAIN, EVENTTYPE_CLOCK, EVENTTYPE_FD_READ, Errno, Event, FDFLAGS_NONBLOCK, Iovec,
    RIFLAGS_RECV_PEEK, RIFLAGS_RECV_WAITALL, SDFLAGS_WR, Subscription, SubscriptionClock, SubscriptionFdReadwrite,
    SubscriptionU, SubscriptionUU,
};

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let count: u32 = std::env::var("LISTEN_FDS").map_or(0, |count| count.parse().unwrap());
    let first: u32 = std::env::var("LISTEN_FDS_START").map_or(3, |first| first.parse().unwrap());
    match args[1].as_str() {
        "serve" => (0..args[2].parse().unwrap()).for_each(|_| echo(first)),
        "poll" => poll_all(first, count, args[2].parse().unwrap()),
        "look" => look(first, count),
        _ => panic!("what to do? {args:?}"),
    }
}

fn receive(fd: u32, buffer: &mut [u8], flags: u16) -> Result<usize, Errno> {
    let part = Iovec { buf: buffer.as_mut_ptr(), buf_len: buffer.len() };
    unsafe { wasi::sock_recv(fd, &[part], flags) }.map(|(read, _)| read)
}

fn send_all(fd: u32, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let part = Ciovec { buf: rest.as_ptr(), buf_len: rest.len() };
        let sent = unsafe { wasi::sock_send(fd, &[part], 0) }.unwrap();
        rest = &rest[sent..];
    }
}

/// Accepts and sends back what comes, waiting for each.
fn echo(listener: u32) {
    let fd = unsafe { wasi::sock_accept(listener, 0) }.unwrap();
    let mut start = [0; 4];
    assert_eq!(receive(fd, &mut start[..1], RIFLAGS_RECV_PEEK), Ok(1), "a look takes nothing");
    assert_eq!(receive(fd, &mut start, RIFLAGS_RECV_WAITALL), Ok(4));
    send_all(fd, &start);
    let mut buffer = vec![0; 100_000];
    let mut echoed = 4;
    loop {
        let part = Iovec { buf: buffer.as_mut_ptr(), buf_len: buffer.len() };
        let read = unsafe { wasi::fd_read(fd, &[part]) }.unwrap();
        if read == 0 {
            break;
        }
        echoed += read;
        send_all(fd, &buffer[..read]);
    }
    send_all(fd, b"<end>");
    unsafe { wasi::sock_shutdown(fd, SDFLAGS_WR) }.unwrap();
    let part = Ciovec { buf: buffer.as_ptr(), buf_len: 1 };
    let after = unsafe { wasi::fd_write(fd, &[part]) }.unwrap_err();
    unsafe { wasi::fd_close(fd) }.unwrap();
    println!("echoed {echoed} on {fd}, then {}, closed {:?}", after.name(), unsafe { wasi::fd_close(fd) }.is_err());
}

fn readable(fd: u32) -> Subscription {
    let u = SubscriptionUU { fd_read: SubscriptionFdReadwrite { file_descriptor: fd } };
    Subscription { userdata: fd.into(), u: SubscriptionU { tag: EVENTTYPE_FD_READ.raw(), u } }
}

fn after(nanoseconds: u64) -> Subscription {
    let clock = SubscriptionClock { id: CLOCKID_MONOTONIC, timeout: nanoseconds, precision: 0, flags: 0 };
    Subscription { userdata: 99, u: SubscriptionU { tag: EVENTTYPE_CLOCK.raw(), u: SubscriptionUU { clock } } }
}

/// Serves all listeners and connections in one loop that never waits but in poll.
fn poll_all(first: u32, count: u32, connections: usize) {
    let mut listeners: Vec<_> = (first..first + count).collect();
    for fd in &listeners {
        unsafe { wasi::fd_fdstat_set_flags(*fd, FDFLAGS_NONBLOCK) }.unwrap();
        assert_eq!(unsafe { wasi::sock_accept(*fd, 0) }, Err(ERRNO_AGAIN));
    }
    let ready = poll(&[readable(first), after(1_000_000)]);
    assert_eq!(ready.iter().map(|event| event.userdata).collect::<Vec<_>>(), [99], "nobody has called yet");
    println!("listening");
    let (mut open, mut accepted, mut echoed) = (Vec::new(), 0, 0);
    while accepted < connections || !open.is_empty() {
        let subscriptions: Vec<_> =
            listeners.iter().chain(&open).map(|fd| readable(*fd)).chain([after(60_000_000_000)]).collect();
        for event in poll(&subscriptions) {
            let fd = u32::try_from(event.userdata).unwrap();
            if listeners.contains(&fd) {
                open.push(unsafe { wasi::sock_accept(fd, FDFLAGS_NONBLOCK) }.unwrap());
                accepted += 1;
                continue;
            }
            let mut buffer = [0; 2000];
            match receive(fd, &mut buffer, 0) {
                Ok(0) => {
                    send_all(fd, b"<end>");
                    unsafe { wasi::fd_close(fd) }.unwrap();
                    open.retain(|other| *other != fd);
                }
                Ok(read) => {
                    echoed += read;
                    send_all(fd, &buffer[..read]);
                }
                Err(code) => assert_eq!(code, ERRNO_AGAIN),
            }
        }
    }
    listeners.clear();
    println!("echoed {echoed} in {accepted}");
}

fn poll(subscriptions: &[Subscription]) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::with_capacity(subscriptions.len());
    unsafe {
        let ready = wasi::poll_oneoff(subscriptions.as_ptr(), events.as_mut_ptr(), subscriptions.len()).unwrap();
        events.set_len(ready);
    }
    events
}

/// Which descriptors are what, and whether files still work beside sockets.
fn look(first: u32, count: u32) {
    for fd in 0..first + count + 2 {
        let kind = unsafe { wasi::fd_fdstat_get(fd) }.map(|stat| stat.fs_filetype.raw());
        println!("{fd} {:?}", kind.map_err(|code| code.name()));
    }
    println!("{:?}", unsafe { wasi::fd_seek(first, 0, wasi::WHENCE_SET) }.map_err(|code| code.name()));
    println!("{:?}", unsafe { wasi::sock_accept(1, 0) }.map_err(|code| code.name()));
    println!("{:?}", unsafe { wasi::sock_shutdown(first, SDFLAGS_WR) }.map_err(|code| code.name()));
    if let Ok(text) = std::fs::read_to_string("/data/hello.txt") {
        use std::os::fd::AsRawFd as _;
        let file = std::fs::File::open("/data/hello.txt").unwrap();
        println!("{} {}", text.trim(), file.as_raw_fd());
    }
}
