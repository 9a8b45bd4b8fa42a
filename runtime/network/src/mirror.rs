//! A copy of a request for somebody whose answer nobody waits for.
//!
//! The copy never holds the request back: a mirror that does not take the body as it comes gets none of the rest, and its
//! request fails. Mirrors at once are bounded; those past it get nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::mpsc;

use crate::{
    Body, BoxError, CallTimeouts, Network,
    bodies::{Hears, heard},
    policy::Source,
    routes::{Destination, Mirror},
    services::Lookup,
    tunnel::wire,
};

/// Pieces of a body that a mirror may be behind.
const PIECES_MAX: usize = 64;
/// Mirrored requests under way.
const UNDER_WAY_MAX: usize = 1024;
/// How long one may take, its answer's body included.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a number drawn below the second of the share is in it.
pub(crate) fn is_meant(mirror: &Mirror) -> bool {
    let (of, all) = mirror.share;
    of > 0 && (of >= all || rand::random_range(0..all) < of)
}

/// How many are under way.
#[derive(Clone, Default)]
pub(crate) struct Mirrors(Arc<AtomicUsize>);

struct UnderWay(Mirrors);

impl Mirrors {
    fn enter(&self) -> Option<UnderWay> {
        let enter = |count: usize| (count < UNDER_WAY_MAX).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).ok()?;
        Some(UnderWay(self.clone()))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends a copy of a request to a Service. Returns the request, whose body the copy reads along.
pub(crate) fn send(network: &Network, to: &Destination, from: Source, request: Request<Body>) -> Request<Body> {
    let Some(under_way) = network.inner().mirrors.enter() else { return request };
    let Lookup::Found(port) = network.inner().services.backend(&to.service, &to.port) else { return request };
    let (head, body) = request.into_parts();
    let mut copied = Request::new(());
    head.method.clone_into(copied.method_mut());
    head.uri.clone_into(copied.uri_mut());
    head.headers.clone_into(copied.headers_mut());
    *copied.version_mut() = head.version;
    let (body, copy) = tee(body);
    copied.headers_mut().remove(wire::CALLER);
    let (copied, network) = (copied.map(|()| copy), network.clone());
    let tasks = network.inner().tasks.clone();
    tasks.spawn(async move {
        let call = async {
            if let Ok(answer) = network.call_port(port, from, copied, CallTimeouts::default()).await {
                let mut body = answer.into_body();
                while let Some(Ok(_)) = body.frame().await {}
            }
        };
        // Who answers late is cut off.
        let _late = tokio::time::timeout(PATIENCE, call).await;
        drop(under_way);
    });
    Request::from_parts(head, body)
}

/// One body as two: the second gets what the first one gets when it gets it, and fails when it does not get all.
fn tee(body: Body) -> (Body, Body) {
    let (to, mut pieces) = mpsc::channel(PIECES_MAX);
    let ended = http_body::Body::is_end_stream(&body);
    let whole = Arc::new(AtomicBool::new(ended));
    let first = heard(body, Tee { to: Some(to).filter(|_| !ended), whole: whole.clone() });
    let copy = futures::stream::poll_fn(move |cx| {
        let piece = ready!(pieces.poll_recv(cx));
        let broken = piece.is_none() && !whole.swap(true, Ordering::Acquire);
        let error = || Err("the request that this is a copy of was given up, or was faster".into());
        Poll::Ready(if broken { Some(error()) } else { piece.map(Ok) })
    });
    (first, StreamBody::new(copy).boxed_unsync())
}

/// Passes on what goes by, for as long as it is taken.
struct Tee {
    to: Option<mpsc::Sender<Frame<Bytes>>>,
    /// Whether all has been passed on.
    whole: Arc<AtomicBool>,
}

impl Hears for Tee {
    fn frame(&mut self, frame: &Frame<Bytes>) -> Result<(), BoxError> {
        let copy = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Frame::data(data.clone()),
            (None, Some(trailers)) => Frame::trailers(trailers.clone()),
            (None, None) => return Ok(()),
        };
        self.to = self.to.take().filter(|to| to.try_send(copy).is_ok());
        Ok(())
    }

    fn over(&mut self, whole: bool) {
        if whole && self.to.is_some() {
            self.whole.store(true, Ordering::Release);
        }
        self.to = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: usize) -> Body {
        let pieces = (0..pieces).map(|i| Ok(Frame::data(Bytes::from(vec![u8::try_from(i % 256).unwrap()]))));
        StreamBody::new(futures::stream::iter(pieces.collect::<Vec<_>>())).boxed_unsync()
    }

    #[tokio::test]
    async fn both_get_the_same() {
        let (first, copy) = tee(body(5));
        let first = first.collect().await.unwrap().to_bytes();
        assert_eq!(
            (&first, &copy.collect().await.unwrap().to_bytes()),
            (&Bytes::from_static(&[0, 1, 2, 3, 4]), &first)
        );
        let empty = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        let (_first, copy) = tee(empty);
        assert!(copy.collect().await.unwrap().to_bytes().is_empty());
    }

    #[tokio::test]
    async fn who_does_not_read_holds_nobody_back() {
        let (first, copy) = tee(body(1000));
        assert_eq!(first.collect().await.unwrap().to_bytes().len(), 1000);
        assert!(copy.collect().await.is_err());
        let (mut first, copy) = tee(body(9));
        first.frame().await.unwrap().unwrap();
        drop(first);
        assert!(copy.collect().await.is_err(), "half a request is none");
    }

    #[test]
    fn shares() {
        let mirror = |share| Mirror { to: None, share };
        let all = |share| (0..100).filter(|_| is_meant(&mirror(share))).count();
        assert_eq!((all((0, 100)), all((100, 100)), all((5, 1))), (0, 100, 100));
        assert!((1..1000).contains(&(0..1000).filter(|_| is_meant(&mirror((1, 2)))).count()));
    }
}
