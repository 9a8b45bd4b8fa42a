//! Where a request from outside goes, as plain data: what Ingresses and the routes of Gateways are compiled to.
//!
//! A [`Route`] says what a request has to look like and what is done with it; a [`RouteTable`] finds the route of a request.
//! Nothing here reads a clock or a socket. Kubernetes' objects, and what is wrong with them, are the agent's.

mod cors;
pub(crate) mod filters;
mod host;
mod query;
mod table;

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;

pub use self::{
    cors::{Cors, Origin, Words},
    host::Host,
    table::RouteTable,
};
pub(crate) use self::{host::without_port, table::Found};
use crate::table::{BackendPort, Name};

/// The longest compiled form of a regular expression, in bytes.
const PATTERN_BYTES_MAX: usize = 64 << 10;

/// What a request has to look like, and what is done with it. Of routes that are equally exact the first one wins.
#[derive(Debug, Clone)]
pub struct Route {
    /// What it is called in logs, for example `HTTPRoute shop/web`.
    pub name: Arc<str>,
    /// For which hosts; none: for all.
    pub hosts: Vec<Host>,
    /// One of these has to hold; none: every request.
    pub matches: Vec<Match>,
    /// What is done.
    pub action: Arc<Action>,
}

/// What a request has to look like: all of it.
#[derive(Debug, Clone, Default)]
pub struct Match {
    /// The path.
    pub path: PathPattern,
    /// The method.
    pub method: Option<Method>,
    /// Headers.
    pub headers: Vec<(HeaderName, TextPattern)>,
    /// Parameters of the query; of one that comes several times the first counts.
    pub query: Vec<(String, TextPattern)>,
}

/// How a path is matched.
#[derive(Debug, Clone)]
pub enum PathPattern {
    /// The whole path.
    Exact(String),
    /// Whole elements of the path.
    Prefix(String),
    /// A regular expression for the whole path.
    Regex(Pattern),
    /// The method of any service of gRPC: the path's last element of two.
    GrpcMethod(String),
}

impl Default for PathPattern {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}

/// How a value is matched.
#[derive(Debug, Clone)]
pub enum TextPattern {
    /// It is this.
    Exact(String),
    /// A regular expression for the whole value.
    Regex(Pattern),
}

impl TextPattern {
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Regex(pattern) => pattern.0.is_match(text),
        }
    }
}

/// A regular expression that the whole of a text has to match.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// # Errors
    /// What is wrong with the expression, or that it is too large.
    pub fn new(expression: &str) -> Result<Self, String> {
        let whole = format!("^(?:{expression})$");
        let built = regex::RegexBuilder::new(&whole).size_limit(PATTERN_BYTES_MAX).build();
        built.map(Self).map_err(|error| error.to_string())
    }
}

/// What is done with a request.
#[derive(Debug, Clone, Default)]
pub struct Action {
    /// What is changed, in this order.
    pub filters: Vec<Filter>,
    /// Who answers, by weight. Nobody, or a weight of 0 in all: 500.
    pub backends: Vec<WeightedBackend>,
    /// Until the head of the answer, all tries included; then 504.
    pub timeout: Option<Duration>,
    /// The same for one try.
    pub try_timeout: Option<Duration>,
}

/// One of those who answer.
#[derive(Debug, Clone)]
pub struct WeightedBackend {
    /// Its share.
    pub weight: u32,
    /// `None`: it does not exist or may not be used, and its share of the requests hears 500.
    pub to: Option<Destination>,
    /// What is changed for it.
    pub filters: Vec<Filter>,
}

/// A Service's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The Service.
    pub service: Name,
    /// Its port.
    pub port: BackendPort,
}

/// What is changed on the way.
#[derive(Debug, Clone)]
pub enum Filter {
    /// Headers of the request.
    RequestHeaders(HeaderChanges),
    /// Headers of the answer.
    ResponseHeaders(HeaderChanges),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// The request is sent with another host or path.
    Rewrite(Rewrite),
    /// A copy of the request is sent elsewhere too; its answer is not waited for.
    Mirror(Mirror),
    /// Pages of other origins may ask; their preflights are answered.
    Cors(Arc<Cors>),
}

/// Changes of headers: those that are set replace, those that are added do not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// In place of all there are.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside those that there are.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Away.
    pub remove: Vec<HeaderName>,
}

/// Where a client is sent; what is not said stays as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// The port; that of the scheme when only that is said.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// With what host and path a request is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The host.
    pub host: Option<String>,
    /// The path.
    pub path: Option<PathChange>,
}

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// This.
    Full(String),
    /// This in place of the prefix that the route matched.
    Prefix(String),
}

/// Who hears a request too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Who; `None`: there is nobody.
    pub to: Option<Destination>,
    /// Of how many requests: the first of so many of the second.
    pub share: (u32, u32),
}
