//! Bodies between pods of one node: the very bytes that were sent arrive, frame by frame, trailers too.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use podium_network::{Body, BoxError, CallError, HttpHandler};

use super::{caller, ip, network, service, slice};

/// Answers with the body that it is sent.
struct Echo;

#[async_trait]
impl HttpHandler for Echo {
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        Ok(Response::new(request.into_body()))
    }
}

#[tokio::test]
async fn no_byte_is_copied_from_pod_to_pod() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let _pod = network.attach(ip(1), 8080, Arc::new(Echo));
    let sent: Vec<Bytes> = (1..=3).map(|frame| Bytes::from(vec![frame; 64 << 10])).collect();
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "3".parse().unwrap())]);
    for target in ["http://web/", "http://10.244.0.1:8080/"] {
        let frames = sent.iter().cloned().map(Frame::data).chain([Frame::trailers(trailers.clone())]);
        let body = StreamBody::new(stream::iter(frames.map(Ok::<_, BoxError>).collect::<Vec<_>>()));
        let request = Request::post(target).body(body.boxed_unsync()).unwrap();
        let answer = network.dialer(caller()).send(request).await.unwrap();
        let frames: Vec<_> = BodyStream::new(answer.into_body()).try_collect().await.unwrap();
        let got: Vec<&Bytes> = frames.iter().filter_map(Frame::data_ref).collect();
        let places = |all: &[&Bytes]| all.iter().map(|bytes| (bytes.as_ptr(), bytes.len())).collect::<Vec<_>>();
        assert_eq!(places(&got), places(&sent.iter().collect::<Vec<_>>()), "{target}");
        assert_eq!(frames.last().and_then(Frame::trailers_ref), Some(&trailers), "{target}");
    }
}
