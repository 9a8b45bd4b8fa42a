//! Which pages of other origins may ask, and what is said of that: Cross-Origin Resource Sharing. Pure.
//!
//! # Source
//! Gateway API, `HTTPCORSFilter`; Fetch, "CORS protocol", for what a preflight is.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use super::HeaderChanges;

/// What the headers of an answer may say of it; a pod's own word on it does not count.
const OF_ANSWERS: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
];

/// Who may ask what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// Of these origins; none: nobody.
    pub origins: Vec<Origin>,
    /// With these methods, beside the simple ones.
    pub methods: Words,
    /// With these headers, beside the simple ones.
    pub headers: Words,
    /// Which headers of the answer pages may see, beside the simple ones.
    pub exposed: Words,
    /// Whether cookies and the like may be sent along.
    pub credentials: bool,
    /// How many seconds the answer to a preflight may be kept.
    pub max_age_seconds: u32,
}

/// Some words, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(Vec<HeaderValue>);

impl Words {
    /// # Errors
    /// The word that cannot be said in a header.
    pub fn new(words: &[String]) -> Result<Self, String> {
        let word = |word: &String| HeaderValue::from_str(word).map_err(|_| word.clone());
        words.iter().map(word).collect::<Result<_, _>>().map(Self)
    }

    fn is_all(&self) -> bool {
        self.0.iter().any(|word| word == "*")
    }

    /// What an answer says: `asked`, where all are allowed and credentials forbid to say so.
    fn said(&self, credentials: bool, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self.is_all() && credentials {
            true => asked.cloned(),
            false => {
                let words: Vec<_> = self.0.iter().map(HeaderValue::as_bytes).collect();
                let said = (!words.is_empty()).then(|| words.join(&b", "[..]))?;
                HeaderValue::from_bytes(&said).ok()
            }
        }
    }
}

/// An origin that may ask: `*`, `https://a.example:8443`, `https://*.a.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(Option<Parts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` for what is no origin.
    pub fn new(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self(None));
        }
        Parts::read(text).map(|parts| Self(Some(parts)))
    }

    fn matches(&self, origin: &str) -> bool {
        let Some(wanted) = &self.0 else { return true };
        let Some(asked) = Parts::read(origin) else { return false };
        let host = match wanted.host.split_once('*') {
            None => wanted.host == asked.host,
            Some((before, after)) => {
                let between = asked.host.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                between.is_some_and(|between| !between.is_empty())
            }
        };
        host && wanted.scheme == asked.scheme && wanted.port == asked.port
    }
}

impl Parts {
    fn read(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (scheme, rest) = text.split_once("://")?;
        let known = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (rest, known),
        };
        (!host.is_empty()).then(|| Self { scheme: scheme.to_owned(), host: host.to_owned(), port })
    }
}

impl Cors {
    /// What the answer to a preflight says, where a request is one.
    pub(crate) fn preflight<B>(&self, request: &Request<B>) -> Option<HeaderMap> {
        let asked = |name| request.headers().get(name);
        let method = asked(header::ACCESS_CONTROL_REQUEST_METHOD);
        if request.method() != Method::OPTIONS || method.is_none() || asked(header::ORIGIN).is_none() {
            return None;
        }
        let mut headers = HeaderMap::new();
        let changes = self.answered(request)?;
        changes.apply(&mut headers);
        if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            let wanted = asked(header::ACCESS_CONTROL_REQUEST_HEADERS);
            let methods = self.methods.said(self.credentials, method);
            let allowed = self.headers.said(self.credentials, wanted);
            headers.extend(methods.map(|value| (header::ACCESS_CONTROL_ALLOW_METHODS, value)));
            headers.extend(allowed.map(|value| (header::ACCESS_CONTROL_ALLOW_HEADERS, value)));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age_seconds.into());
        }
        Some(headers)
    }

    /// What becomes of the headers of an answer; `None` for a request that no other origin makes.
    pub(crate) fn answered<B>(&self, request: &Request<B>) -> Option<HeaderChanges> {
        let origin = request.headers().get(header::ORIGIN)?;
        let mut changes =
            HeaderChanges { add: vec![(header::VARY, HeaderValue::from_static("origin"))], ..Default::default() };
        let text = origin.to_str().unwrap_or_default();
        if self.origins.iter().any(|allowed| allowed.matches(text)) {
            let any = self.origins.iter().any(|allowed| allowed.0.is_none()) && !self.credentials;
            let origin = if any { HeaderValue::from_static("*") } else { origin.clone() };
            changes.set.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin));
            if self.credentials {
                changes.set.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
            }
            let exposed = self.exposed.said(self.credentials, None);
            changes.set.extend(exposed.map(|value| (header::ACCESS_CONTROL_EXPOSE_HEADERS, value)));
        }
        let set = |name: &HeaderName| changes.set.iter().any(|(known, _)| known == name);
        changes.remove = OF_ANSWERS.into_iter().filter(|name| !set(name)).collect();
        Some(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Words {
        Words::new(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    fn cors(origins: &str, methods: &str, headers: &str, exposed: &str, credentials: bool) -> Cors {
        let origins = origins.split_whitespace().map(|origin| Origin::new(origin).unwrap()).collect();
        let (methods, headers, exposed) = (words(methods), words(headers), words(exposed));
        Cors { origins, methods, headers, exposed, credentials, max_age_seconds: 5 }
    }

    /// What is said of a request (`METHOD origin=.. method=.. headers=..`), without `access-control-`.
    fn said(cors: &Cors, request: &str) -> String {
        let mut words = request.split_whitespace();
        let mut asked = Request::builder().method(words.next().unwrap());
        for (name, value) in words.map(|word| word.split_once('=').unwrap()) {
            let name = match name {
                "method" => header::ACCESS_CONTROL_REQUEST_METHOD,
                "headers" => header::ACCESS_CONTROL_REQUEST_HEADERS,
                _ => header::ORIGIN,
            };
            asked = asked.header(name, value);
        }
        let asked = asked.body(()).unwrap();
        let headers = cors.preflight(&asked).unwrap_or_else(|| {
            let mut headers = HeaderMap::new();
            cors.answered(&asked).into_iter().for_each(|changes| changes.apply(&mut headers));
            headers
        });
        let shown = headers.iter().filter(|(name, _)| *name != header::VARY);
        let shown = shown.map(|(name, value)| {
            let name = name.as_str().trim_start_matches("access-control-").trim_start_matches("allow-");
            format!("{name}={}", value.to_str().unwrap())
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort();
        shown.join("; ")
    }

    /// The shapes of HTTPRouteCORS.
    #[test]
    fn the_conformance_suites_requests() {
        let several = cors("https://www.foo.com https://*.bar.com", "GET OPTIONS", "x-1 x-2", "x-3 x-4", true);
        let methods = cors("https://www.foo.com", "*", "", "", false);
        let any = cors("*", "PUT", "", "", false);
        let all = cors("*", "*", "*", "", true);
        let open = cors("*", "*", "*", "", false);
        let whole = |origin: &str| {
            format!(
                "credentials=true; expose-headers=x-3, x-4; headers=x-1, x-2; max-age=5; methods=GET, OPTIONS; origin={origin}"
            )
        };
        for (cors, request, expected) in [
            (&several, "OPTIONS origin=https://www.foo.com method=GET headers=x-1,x-2", &*whole("https://www.foo.com")),
            (&several, "OPTIONS origin=https://www.bar.com method=GET", &whole("https://www.bar.com")),
            (&several, "OPTIONS origin=https://xpto.www.bar.com method=GET", &whole("https://xpto.www.bar.com")),
            (&several, "OPTIONS origin=https://foobar.com method=GET", ""),
            (
                &several,
                "GET origin=https://www.foo.com",
                "credentials=true; expose-headers=x-3, x-4; origin=https://www.foo.com",
            ),
            (&several, "GET origin=https://foobar.com", ""),
            (&several, "OPTIONS method=GET", ""),
            (
                &methods,
                "OPTIONS origin=https://www.foo.com method=POST",
                "max-age=5; methods=*; origin=https://www.foo.com",
            ),
            (&any, "OPTIONS origin=https://foobar.com:12345 method=PUT", "max-age=5; methods=PUT; origin=*"),
            (&any, "PUT origin=https://foobar.com:12345", "origin=*"),
            (
                &all,
                "OPTIONS origin=https://other.foo.com method=PUT headers=x-1,x-2",
                "credentials=true; headers=x-1,x-2; max-age=5; methods=PUT; origin=https://other.foo.com",
            ),
            (&all, "OPTIONS origin=https://a method=PUT", "credentials=true; max-age=5; methods=PUT; origin=https://a"),
            (&open, "OPTIONS origin=https://a method=PUT headers=x-1", "headers=*; max-age=5; methods=*; origin=*"),
            (&all, "GET origin=https://a", "credentials=true; origin=https://a"),
        ] {
            assert_eq!(said(cors, request), expected, "{request}");
        }
    }

    #[test]
    fn origins() {
        for (allowed, origin, matches) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "HTTPS://A.example:443", true),
            ("https://a.example:443", "https://a.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://*.example", "https://b.a.example", true),
            ("https://*.example", "https://.example", false),
            ("https://*.example", "https://xexample", false),
            ("https://*", "https://anything", true),
            ("https://*", "http://anything", false),
            ("http://*:8080", "http://x:8080", true),
            ("http://*:8080", "http://x", false),
            ("*", "null", true),
            ("https://*", "null", false),
            ("http://[::1]:80", "http://[::1]", true),
        ] {
            assert_eq!(Origin::new(allowed).unwrap().matches(origin), matches, "{allowed} {origin}");
        }
        assert!(["a.example", "ftp://a", "https://", "https://a:x"].into_iter().all(|bad| Origin::new(bad).is_none()));
    }

    #[test]
    fn a_pods_own_word_does_not_count() {
        let request = Request::get("/").header("origin", "https://evil.example").body(()).unwrap();
        let changes = cors("https://a.example", "", "", "", false).answered(&request).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        changes.apply(&mut headers);
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(headers[header::VARY], "origin");
    }
}
