//! SPDY within a WebSocket: the bytes of the one are the binary messages of the other, cut as they come.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/client-go/transport/websocket` and KEP-4006.

use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::pipes::CHUNK_BYTES_MAX;
use crate::http::websocket::{Message, Socket};

/// The bytes within, and the work that carries them: it ends with either side.
pub(crate) fn open(socket: Socket) -> (DuplexStream, impl Future<Output = ()> + Send) {
    let (inner, outer) = tokio::io::duplex(CHUNK_BYTES_MAX * 2);
    (inner, carry(socket, outer))
}

async fn carry(socket: Socket, bytes: DuplexStream) {
    let (mut sink, mut source) = socket.split();
    let (mut from_server, mut to_server) = tokio::io::split(bytes);
    let inwards = async {
        while let Some(Ok(message)) = source.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(_) | Message::Close(_) => break,
                _ => continue,
            };
            if to_server.write_all(&data).await.is_err() {
                break;
            }
        }
        // The server is told, or has gone itself.
        let _ended = to_server.shutdown().await;
    };
    let outwards = async {
        let mut buffer = bytes::BytesMut::with_capacity(CHUNK_BYTES_MAX);
        while let Ok(1..) = from_server.read_buf(&mut buffer).await {
            if sink.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                return;
            }
            buffer.reserve(CHUNK_BYTES_MAX);
        }
        // The client may be gone already, which is as good as a goodbye.
        let _closed = sink.send(Message::Close(None)).await;
    };
    tokio::pin!(inwards, outwards);
    tokio::select! {
        () = &mut inwards => outwards.await,
        () = &mut outwards => inwards.await,
    }
}
