//! A request or a connection to a Service: within its limits, to one of its endpoints, to another when that is safe.
//!
//! Only requests that ask and carry nothing (GET, HEAD, OPTIONS without a body) are sent again once they were begun;
//! others are when no endpoint has begun them.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};

use crate::{
    Body, CallError, CallTimeouts, Network, SocketError,
    attach::{Attached, Ticket},
    balance::{Chooser, Endpoint, Moment, Open, Outcome, breaker::Slot},
    bodies::{heard, tallied},
    http_client::PriorKnowledge,
    metrics::Unserved,
    policy::Source,
    services::{Lookup, Port},
    spans::{Of, Span},
    stream::PodStream,
    table::{Name, Protocol},
    tcp::{self, Visit},
    trace,
    tunnel::{Missed, Peer},
};

/// Endpoints of one table asked for one request before giving up.
const ASKED_MAX: usize = 4;
/// Tables read for one request before giving up.
const TABLES_MAX: usize = 8;

/// Endpoints of other nodes tried for what none of them has begun.
const UNBEGUN_MAX: usize = 8;

/// Hears of Services that are called and have nobody.
pub trait Observer: Send + Sync + 'static {
    /// A Service was called at a port and has no endpoint that is ready. Not each time: some seconds lie between.
    fn no_endpoints(&self, service: &Name, port: u16);
}

/// Someone who takes a request or a connection.
enum Taker {
    /// On this node.
    Here(Arc<Attached>, Ticket),
    /// On another: it is asked there whether it does.
    There(Arc<Peer>),
    /// Outside the cluster.
    Beyond,
}

impl Network {
    /// Sends a request to one of a Service's endpoints.
    pub(crate) async fn call_port(
        &self,
        port: Arc<Port>,
        from: Source,
        request: Request<Body>,
        timeouts: CallTimeouts,
    ) -> Result<Response<Body>, CallError> {
        let since = Instant::now();
        let mut request = request;
        if port.traffic.h2_ports.contains(&port.number) {
            request.extensions_mut().insert(PriorKnowledge);
        }
        let mut span = self.call_span(&port, &mut request);
        let shared = port.shared.clone();
        let (limit, service) = (port.traffic.settings.request_timeout, port.service.clone());
        let call = self.within_limits(port, from, request, timeouts);
        let answer = match limit {
            None => call.await,
            Some(limit) => tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
                Err(CallError::TimedOut(format!("service {service} did not answer within {limit:?}")))
            }),
        };
        let status = answer.as_ref().ok().map(Response::status);
        shared.metrics().answered(status, since.elapsed().as_secs_f64());
        match (answer, span.take()) {
            (Ok(answer), Some(mut span)) => {
                span.answered(status);
                Ok(answer.map(|body| heard(body, span)))
            }
            (answer, span) => {
                span.into_iter().for_each(|mut span| span.answered(status));
                answer
            }
        }
    }

    /// A span of a call, where spans are recorded.
    fn call_span(&self, port: &Port, request: &mut Request<Body>) -> Option<Box<Span>> {
        self.inner().tracer.get()?;
        let begun = trace::pass_on(request.headers_mut());
        let mut span = self.span(Of::Client, request.headers_mut(), begun)?;
        span.name(format!("{} {}", request.method(), port.service));
        span.say("http.request.method", request.method().as_str());
        span.say("url.path", request.uri().path());
        span.say("podium.service", port.service.to_string());
        span.say("server.port", port.number);
        Some(span)
    }

    async fn within_limits(
        &self,
        port: Arc<Port>,
        from: Source,
        request: Request<Body>,
        timeouts: CallTimeouts,
    ) -> Result<Response<Body>, CallError> {
        let shared = port.shared.clone();
        let slot = self.slot(&port).await?;
        let request = match request.body().is_end_stream() {
            true => request,
            false => request.map(|body| tallied(body, shared.metrics().received.clone(), ())),
        };
        let (answer, open) = self.tries(port, from, request, timeouts).await?;
        Ok(answer.map(|body| tallied(body, shared.metrics().sent.clone(), (slot, open))))
    }

    /// Waits for its turn where the Service bounds what is under way.
    async fn slot(&self, port: &Port) -> Result<Option<Slot>, CallError> {
        let settings = &port.traffic.settings;
        let Some(most) = settings.requests_max else { return Ok(None) };
        let entering = port.shared.breaker.enter(most, settings.pending_max);
        match tokio::time::timeout(self.inner().config.connect_timeout, entering).await {
            Ok(Ok(slot)) => Ok(Some(slot)),
            _ => {
                port.shared.metrics().unserved(Unserved::TooMany);
                let service = &port.service;
                Err(CallError::NotAccepted(format!("service {service} has {most} requests under way, and more wait")))
            }
        }
    }

    /// Tries one endpoint, and others while that is safe and the budget lasts. Whoever answered has something under way until
    /// what comes with the answer is dropped.
    async fn tries(
        &self,
        mut port: Arc<Port>,
        from: Source,
        mut request: Request<Body>,
        timeouts: CallTimeouts,
    ) -> Result<(Response<Body>, Open), CallError> {
        let (settings, shared) = (port.traffic.settings.clone(), port.shared.clone());
        shared.budget.earn(settings.retry_budget_percent);
        let mut again = Again::new(&request).filter(|_| settings.retries > 0 && port.endpoints.len() > 1);
        let (mut tried, mut last) = (Vec::new(), None);
        loop {
            let (endpoint, taker) = match self.taker(&mut port, from, &tried) {
                Ok(taker) => taker,
                Err(error) => return last.unwrap_or(Err(error)),
            };
            self.inner().policies.judge(from, endpoint.address, Protocol::Tcp)?;
            let (address, load) = (endpoint.address, endpoint.begin(Moment::now()));
            let call = self.call_taker((taker, &port.service), (from, address), request, timeouts);
            let limit = settings.try_timeout.into_iter().chain(timeouts.one_try).min();
            let (answer, back) = match limit {
                None => call.await,
                Some(limit) => tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
                    (Err(CallError::TimedOut(format!("{address} did not answer within {limit:?}"))), None)
                }),
            };
            let outcome = outcome(&answer);
            let answer = answer.map(|answer| (answer, endpoint.hold()));
            if load.end(outcome, &port.endpoints, &settings.outliers, Moment::now()) {
                shared.metrics().ejections.inc();
                tracing::info!(service = %port.service, %address, "an endpoint keeps failing and is passed over");
            }
            tried.push(address);
            if let Some(back) = back.filter(|_| tried.len() < UNBEGUN_MAX) {
                (request, last) = (back, Some(answer));
                continue;
            }
            match again.as_mut().filter(|_| outcome == Outcome::Failed && tried.len() <= settings.retries as usize) {
                Some(next) if shared.budget.spend(Moment::now()) => {
                    shared.metrics().retries.inc();
                    (request, last) = (next.request(), Some(answer));
                }
                _ => return answer,
            }
        }
    }

    /// Passes a request to who takes it; gives it back when a pod of another node has not begun it.
    async fn call_taker(
        &self,
        (taker, service): (Taker, &Name),
        (from, to): (Source, SocketAddr),
        request: Request<Body>,
        timeouts: CallTimeouts,
    ) -> (Result<Response<Body>, CallError>, Option<Request<Body>>) {
        match taker {
            Taker::Here(attached, ticket) => {
                let watch = self.watch(from, attached.address);
                (attached.call(self, request, ticket, (timeouts, watch)).await, None)
            }
            // Boxed, so that a call on this node is no larger for it.
            Taker::There(peer) => match Box::pin(self.call_elsewhere(&peer, (from, to), request, timeouts)).await {
                Ok(answer) => (Ok(answer), None),
                Err(Missed { error, back }) => (Err(error), back),
            },
            Taker::Beyond => (Box::pin(self.call_beyond((service, to), request, timeouts)).await, None),
        }
    }

    /// Someone of a Service who takes a request or a connection, of the newest table. A caller that waited for a processor
    /// may hold endpoints that have all gone since, and only the present ones may say no.
    fn taker(
        &self,
        port: &mut Arc<Port>,
        from: Source,
        tried: &[SocketAddr],
    ) -> Result<(Arc<Endpoint>, Taker), CallError> {
        for _ in 0..TABLES_MAX {
            if port.endpoints.is_empty() {
                self.unserved(port);
                return Err(CallError::Refused(format!("service {} has no ready endpoints", port.service)));
            }
            if let Some(found) = self.admitted(port, from, tried) {
                return Ok(found);
            }
            match self.inner().services.again(port) {
                Lookup::Found(now) if !Arc::ptr_eq(&now, port) => *port = now,
                _ => break,
            }
        }
        Err(CallError::NotAccepted(format!("no endpoint of service {} takes requests now", port.service)))
    }

    /// The first endpoint that lets a request begin, of the few that are asked.
    fn admitted(&self, port: &Port, from: Source, tried: &[SocketAddr]) -> Option<(Arc<Endpoint>, Taker)> {
        let now = Moment::now();
        let take = |endpoint: Arc<Endpoint>| {
            let taker = match self.inner().attachments.get(endpoint.address) {
                Some(attached) => {
                    let ticket = attached.admit()?;
                    Taker::Here(attached, ticket)
                }
                None if self.leads_beyond(from, endpoint.address.ip()) => Taker::Beyond,
                None => {
                    let peer = self.elsewhere(endpoint.address.ip())?;
                    if endpoint.reach.get_or_init(|| peer.reach.clone()).is_lost() {
                        // It was chosen because there is nobody else.
                        peer.want();
                        return None;
                    }
                    Taker::There(peer)
                }
            };
            Some((endpoint, taker))
        };
        if let Some(taker) = port.kept(from, tried, now).and_then(take) {
            port.keep(from, taker.0.address, now);
            return Some(taker);
        }
        let mut asked = tried.to_vec();
        while asked.len() < tried.len() + ASKED_MAX {
            let mut rng = rand::rng();
            let mut chooser = Chooser { slow_start: port.traffic.settings.slow_start, now, rng: &mut rng };
            let endpoint = chooser.pick(&port.endpoints, &asked)?;
            asked.push(endpoint.address);
            if let Some(taker) = take(endpoint) {
                port.keep(from, taker.0.address, now);
                return Some(taker);
            }
        }
        None
    }

    /// Says that a Service was called and has nobody; not too often.
    fn unserved(&self, port: &Port) {
        port.shared.metrics().unserved(Unserved::NoEndpoints);
        if port.shared.said.take(tokio::time::Instant::now()).is_some()
            && let Some(observer) = self.inner().observer.get()
        {
            observer.no_endpoints(&port.service, port.number);
        }
    }

    /// Connects to one of a Service's endpoints. `held` is held by the client's end.
    pub(crate) async fn visit_service<G: Send + Unpin + 'static>(
        &self,
        mut port: Arc<Port>,
        from: Source,
        client: SocketAddr,
        held: G,
    ) -> Result<PodStream, SocketError> {
        let (mut held, mut tried, mut last) = (held, Vec::new(), None);
        loop {
            let found = self.taker(&mut port, from, &tried);
            let refused = |error: CallError| SocketError::Refused(error.to_string());
            let (endpoint, taker) = match found {
                Ok(found) => found,
                Err(error) => return Err(last.unwrap_or_else(|| refused(error))),
            };
            let to = endpoint.address;
            let error = match taker {
                Taker::Here(attached, _ticket) => {
                    let visit = Visit { from, client, server: to, held: (held, endpoint.hold()), counted: true };
                    return tcp::visit(self, &attached, visit).await;
                }
                Taker::There(peer) => {
                    let hold = (held, endpoint.hold());
                    match Box::pin(self.connect_elsewhere(&peer, (from, to), client, hold)).await {
                        Ok(stream) => return Ok(stream),
                        Err((error, (back, _))) => {
                            held = back;
                            error
                        }
                    }
                }
                Taker::Beyond => {
                    let hold = (held, endpoint.hold());
                    return Box::pin(self.connect_beyond((&port.service, to), hold)).await;
                }
            };
            tried.push(to);
            if !matches!(error, SocketError::Refused(_)) || tried.len() >= UNBEGUN_MAX {
                return Err(error);
            }
            last = Some(error);
        }
    }
}

/// What an answer says of who gave it.
fn outcome(answer: &Result<Response<Body>, CallError>) -> Outcome {
    const FAILED: [StatusCode; 3] =
        [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    match answer {
        Ok(response) if FAILED.contains(&response.status()) => Outcome::Failed,
        Ok(_) => Outcome::Answered,
        Err(CallError::Denied(_) | CallError::NameNotFound(_)) => Outcome::Unknown,
        Err(_) => Outcome::Failed,
    }
}

/// A request that can be sent again.
struct Again(request::Parts);

impl Again {
    /// `None` for one that may do something, or that carries something.
    fn new(request: &Request<Body>) -> Option<Self> {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if !safe || !request.body().is_end_stream() || request.headers().contains_key(http::header::UPGRADE) {
            return None;
        }
        let mut copy = Request::new(());
        request.method().clone_into(copy.method_mut());
        request.uri().clone_into(copy.uri_mut());
        request.headers().clone_into(copy.headers_mut());
        request.extensions().clone_into(copy.extensions_mut());
        *copy.version_mut() = request.version();
        Some(Self(copy.into_parts().0))
    }

    fn request(&mut self) -> Request<Body> {
        let empty = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
        Request::from_parts(self.0.clone(), empty)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[test]
    fn only_what_asks_and_carries_nothing_is_sent_again() {
        let can = |method: &str, body: &'static str, header: &str| {
            let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {}).boxed_unsync();
            let request = Request::builder().method(method).uri("http://web/").header(header, "x").body(body).unwrap();
            Again::new(&request).map(|mut again| again.request().headers().contains_key(header))
        };
        for (method, expected) in [
            ("GET", Some(true)),
            ("HEAD", Some(true)),
            ("OPTIONS", Some(true)),
            ("POST", None),
            ("PUT", None),
            ("DELETE", None),
            ("PATCH", None),
            ("CONNECT", None),
        ] {
            assert_eq!(can(method, "", "accept"), expected, "{method}");
        }
        assert_eq!(can("GET", "something", "accept"), None);
        assert_eq!(can("GET", "", "upgrade"), None);
    }

    #[test]
    fn answers_say_how_endpoints_fare() {
        let status = |code: u16| {
            let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
            outcome(&Ok(Response::builder().status(code).body(body).unwrap()))
        };
        for (code, expected) in [
            (200, Outcome::Answered),
            (404, Outcome::Answered),
            (500, Outcome::Answered),
            (502, Outcome::Failed),
            (503, Outcome::Failed),
            (504, Outcome::Failed),
        ] {
            assert_eq!(status(code), expected, "{code}");
        }
        assert_eq!(outcome(&Err(CallError::Failed(String::new()))), Outcome::Failed);
        assert_eq!(outcome(&Err(CallError::Denied(String::new()))), Outcome::Unknown);
    }
}
