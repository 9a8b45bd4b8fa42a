//! A wire between processes that a test cuts and mends: TCP connections are carried from one address to another.
//!
//! One that is cut closes nothing: whoever is at its ends hears nothing more, and new connections are taken and stay silent.
//! When it is mended new connections come through again; those from before stay silent for ever, as behind a firewall that
//! has forgotten them.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};

/// A wire. It ends, with all that it carries, when it is dropped.
pub struct Wire {
    /// Where it is connected to.
    pub address: SocketAddr,
    /// Counts cuts and mendings: odd while it is cut.
    epoch: watch::Sender<u64>,
    _runtime: Runtime,
}

impl Wire {
    /// A wire from an address (port 0: any) to another.
    ///
    /// # Errors
    /// The address is taken.
    pub fn new(from: SocketAddr, to: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("start a runtime")?;
        let listener = runtime.block_on(TcpListener::bind(from)).with_context(|| format!("listen at {from}"))?;
        let address = listener.local_addr()?;
        let (epoch, seen) = watch::channel(0);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, to, seen.clone()));
            }
        });
        Ok(Self { address, epoch, _runtime: runtime })
    }

    /// Nothing comes through any more.
    pub fn cut(&self) {
        self.epoch.send_modify(|epoch| *epoch |= 1);
    }

    /// New connections come through again.
    pub fn mend(&self) {
        self.epoch.send_modify(|epoch| *epoch += *epoch & 1);
    }
}

async fn carry(mut client: TcpStream, to: SocketAddr, mut epoch: watch::Receiver<u64>) {
    let born = *epoch.borrow();
    let mut server = None;
    if born & 1 == 0 {
        let Ok(stream) = TcpStream::connect(to).await else { return };
        let stream = server.insert(stream);
        // Small messages are carried at once.
        let _ = client.set_nodelay(true);
        let _ = stream.set_nodelay(true);
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, stream) => return,
            _ = epoch.wait_for(|now| *now != born) => {}
        }
    }
    std::future::pending::<()>().await;
    drop((client, server));
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net,
        time::Duration,
    };

    use super::*;

    /// Says what it hears.
    fn echo() -> SocketAddr {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        address
    }

    fn says(client: &mut net::TcpStream, patience: Duration) -> bool {
        client.set_read_timeout(Some(patience)).unwrap();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).is_ok()
    }

    #[test]
    fn what_was_open_stays_silent_and_what_is_new_comes_through() {
        let (long, moment) = (Duration::from_secs(60), Duration::from_millis(50));
        let wire = Wire::new("127.0.0.1:0".parse().unwrap(), echo()).unwrap();
        let connect = || net::TcpStream::connect(wire.address).unwrap();
        let mut before = connect();
        assert!(says(&mut before, long));
        wire.cut();
        wire.cut();
        let mut meanwhile = connect();
        assert!(!says(&mut before, moment) && !says(&mut meanwhile, moment));
        wire.mend();
        wire.mend();
        assert!(says(&mut connect(), long));
        assert!(!says(&mut before, moment) && !says(&mut meanwhile, moment));
    }
}
