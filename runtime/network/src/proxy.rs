//! A request from outside on its way by a route: filters, one of the backends by weight, copies for mirrors, timeouts.

use std::{borrow::Cow, net::IpAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};

use crate::{
    Body, CallError, CallTimeouts, Network,
    external::Goal,
    mirror,
    policy::Source,
    routes::{
        Destination, Filter, Found, HeaderChanges, WeightedBackend,
        filters::{self, Arrival},
        without_port,
    },
    services::Lookup,
    table::Name,
    tunnel::wire,
    upgrade,
};

/// Who asks, and how they came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) peer: IpAddr,
    /// What policies take it for.
    pub(crate) from: Source,
    /// Whether it speaks TLS.
    pub(crate) secure: bool,
    /// At which port it came.
    pub(crate) port: u16,
}

impl Client {
    pub(crate) fn scheme(self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

/// An answer, and the Service that gave it, if one did.
pub(crate) type Served = (Response<Body>, Option<Name>);

/// Does with a request what its route says.
pub(crate) async fn serve(network: &Network, found: &Found, client: Client, request: Request<Body>) -> Served {
    let mut work = Work { network, found, client, answers: Vec::new() };
    let action = &found.action;
    let request = match work.filter(&action.filters, request) {
        Ok(request) => request,
        Err(answer) => return (work.finish(*answer), None),
    };
    let number = match filters::weight(&action.backends) {
        0 => 0,
        all => rand::random_range(0..all),
    };
    let Some(WeightedBackend { to: Some(to), filters, .. }) = filters::pick(&action.backends, number) else {
        let answer = text(StatusCode::INTERNAL_SERVER_ERROR, "The route has no backend for this request.\n");
        return (work.finish(answer), None);
    };
    let request = match work.filter(filters, request) {
        Ok(request) => request,
        Err(answer) => return (work.finish(*answer), None),
    };
    let sent = work.send(to, request);
    let answer = match action.timeout {
        None => sent.await,
        Some(limit) => tokio::time::timeout(limit, sent)
            .await
            .unwrap_or_else(|_| failure(&CallError::TimedOut(format!("there was no answer within {limit:?}")))),
    };
    (work.finish(answer), Some(to.service.clone()))
}

struct Work<'a> {
    network: &'a Network,
    found: &'a Found,
    client: Client,
    /// What becomes of the answer's headers.
    answers: Vec<Cow<'a, HeaderChanges>>,
}

impl<'a> Work<'a> {
    /// Changes a request, or answers it.
    fn filter(
        &mut self,
        filters: &'a [Filter],
        mut request: Request<Body>,
    ) -> Result<Request<Body>, Box<Response<Body>>> {
        let mut redirect = None;
        for filter in filters {
            match filter {
                Filter::RequestHeaders(changes) => changes.apply(request.headers_mut()),
                Filter::ResponseHeaders(changes) => self.answers.push(Cow::Borrowed(changes)),
                Filter::Cors(cors) => match cors.preflight(&request) {
                    Some(headers) => return Err(Box::new(preflight(headers))),
                    None => self.answers.extend(cors.answered(&request).map(Cow::Owned)),
                },
                Filter::Rewrite(rewrite) => rewrite.apply(&mut request, self.found.prefix_bytes),
                Filter::Redirect(to) => redirect = Some(to),
                Filter::Mirror(mirror) => {
                    if let Some(to) = mirror.to.as_ref().filter(|_| mirror::is_meant(mirror)) {
                        request = mirror::send(self.network, to, self.client.from, request);
                    }
                }
            }
        }
        let Some(redirect) = redirect else { return Ok(request) };
        let host = without_port(host(&request)).to_owned();
        let arrival = Arrival { scheme: self.client.scheme(), host: &host, port: self.client.port };
        let location = redirect.location(arrival, request.uri(), self.found.prefix_bytes);
        let mut answer = text(redirect.status, "");
        match HeaderValue::from_str(&location) {
            Ok(location) => answer.headers_mut().insert(header::LOCATION, location),
            Err(_) => return Err(Box::new(text(StatusCode::BAD_REQUEST, "The host cannot be redirected to.\n"))),
        };
        Err(Box::new(answer))
    }

    async fn send(&self, to: &Destination, request: Request<Body>) -> Response<Body> {
        let timeouts = CallTimeouts { one_try: self.found.action.try_timeout, ..CallTimeouts::default() };
        let answer = match self.network.goal(to) {
            Ok(Some(Goal::Port(port))) => {
                call(self.network, Lookup::Found(port), self.client.from, request, timeouts).await
            }
            Ok(Some(Goal::Host(host))) => {
                let answer = Box::pin(self.network.call_named(&host, request, timeouts)).await;
                Some(answer.unwrap_or_else(|error| failure(&error)))
            }
            Ok(None) => None,
            Err(error) => Some(failure(&error)),
        };
        answer.unwrap_or_else(|| text(StatusCode::SERVICE_UNAVAILABLE, "The service has no such port.\n"))
    }

    fn finish(&self, mut answer: Response<Body>) -> Response<Body> {
        self.answers.iter().for_each(|changes| changes.apply(answer.headers_mut()));
        answer
    }
}

/// The answer of a Service's port; `None` when there is no such port.
pub(crate) async fn call(
    network: &Network,
    lookup: Lookup,
    from: Source,
    mut request: Request<Body>,
    timeouts: CallTimeouts,
) -> Option<Response<Body>> {
    let Lookup::Found(port) = lookup else { return None };
    // Nobody outside is a workload, whatever it or a route says.
    request.headers_mut().remove(wire::CALLER);
    // Another protocol needs a connection; pods that are called have none.
    let answer = match upgrade::is_wanted(&request) && network.behind_now(&port).await.listens() {
        true => Box::pin(upgrade::pass_on(network, port, from, request)).await,
        false => network.call_port(port, from, request, timeouts).await,
    };
    Some(answer.unwrap_or_else(|error| failure(&error)))
}

/// The host that a request names.
pub(crate) fn host<B>(request: &Request<B>) -> &str {
    let by_header = || request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let host = authority.or_else(by_header).unwrap_or_default();
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

/// The answer for a request that no pod answered.
pub(crate) fn failure(error: &CallError) -> Response<Body> {
    let status = match error {
        CallError::Refused(_) | CallError::NotAccepted(_) => StatusCode::SERVICE_UNAVAILABLE,
        CallError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        CallError::Denied(_) => StatusCode::FORBIDDEN,
        CallError::NameNotFound(_) | CallError::Failed(_) => StatusCode::BAD_GATEWAY,
    };
    tracing::debug!(%status, %error, "a request has no answer");
    let mut response = text(status, &format!("{error}\n"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The answer to a preflight.
fn preflight(headers: HeaderMap) -> Response<Body> {
    let mut answer = text(StatusCode::NO_CONTENT, "");
    *answer.headers_mut() = headers;
    answer
}

pub(crate) fn text(status: StatusCode, message: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(message.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_come_again_hears_when() {
        let why = || "why".to_owned();
        for (error, status, again) in [
            (CallError::NotAccepted(why()), 503, Some("1")),
            (CallError::Refused(why()), 503, Some("1")),
            (CallError::TimedOut(why()), 504, None),
            (CallError::Denied(why()), 403, None),
            (CallError::NameNotFound(why()), 502, None),
            (CallError::Failed(why()), 502, None),
        ] {
            let answer = failure(&error);
            let after = answer.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!((answer.status().as_u16(), after), (status, again), "{error}");
        }
    }
}
