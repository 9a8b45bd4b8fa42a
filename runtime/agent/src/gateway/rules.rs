//! Rules of routes as the network takes them, and what is wrong with them.
//!
//! A rule whose matches cannot be read is left out; what one would do that cannot be done is an error for whoever it matches
//! (500). Both are named. A backend that cannot be used keeps its share, which hears 500 too. Nothing is done that no rule says.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use podium_network::{
    routes::{
        self, Action, Cors, Destination, HeaderChanges, Match, Mirror, Origin, PathChange, PathPattern, Pattern,
        Redirect, Rewrite, TextPattern, WeightedBackend, Words,
    },
    table::BackendPort,
};

use super::{
    kinds::{
        BackendRef, CorsFilter, Filter, GrpcMatch, GrpcRule, HeaderModifier, HttpMatch, HttpRule, MethodMatch,
        MirrorFilter, NamedValue, ObjectRef, PathModifier, RedirectFilter, TlsRule,
    },
    seen::{Namer, Seen, Unresolved},
};

/// How long the answer to a preflight is kept when nobody says.
const CORS_MAX_AGE_SECONDS: u32 = 5;

/// The rules of one route.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) done: Vec<(Vec<Match>, Arc<Action>)>,
    /// How many there are.
    pub(crate) all: usize,
    /// Rules by their place, and why they cannot be done.
    pub(crate) dropped: Vec<(usize, String)>,
    /// The first reference that leads nowhere.
    pub(crate) unresolved: Option<Unresolved>,
}

impl Rules {
    fn add(&mut self, place: usize, matches: Result<Vec<Match>, String>, action: Result<Action, String>) {
        self.all += 1;
        let why = matches.as_ref().err().or(action.as_ref().err()).cloned();
        self.dropped.extend(why.map(|why| (place, why)));
        if let Ok(matches) = matches {
            self.done.push((matches, Arc::new(action.unwrap_or_default())));
        }
    }
}

/// Of an HTTPRoute.
pub(crate) fn http(seen: &Seen, namer: Namer<'_>, rules: &[HttpRule]) -> Rules {
    let mut all = Rules::default();
    for (place, rule) in rules.iter().enumerate() {
        let mut work = Work { seen, namer, unresolved: &mut all.unresolved };
        let action = http_action(&mut work, rule);
        all.add(place, rule.matches.iter().map(http_match).collect(), action);
    }
    all
}

/// Of a GRPCRoute.
pub(crate) fn grpc(seen: &Seen, namer: Namer<'_>, rules: &[GrpcRule]) -> Rules {
    let mut all = Rules::default();
    for (place, rule) in rules.iter().enumerate() {
        let mut work = Work { seen, namer, unresolved: &mut all.unresolved };
        let action = work.action(&rule.filters, &rule.backend_refs);
        all.add(place, rule.matches.iter().map(grpc_match).collect(), action);
    }
    all
}

/// Of a TLSRoute.
pub(crate) fn tls(seen: &Seen, namer: Namer<'_>, rules: &[TlsRule]) -> Rules {
    let mut all = Rules::default();
    for (place, rule) in rules.iter().enumerate() {
        let mut work = Work { seen, namer, unresolved: &mut all.unresolved };
        let action = work.action(&[], &rule.backend_refs);
        all.add(place, Ok(Vec::new()), action);
    }
    all
}

fn http_action(work: &mut Work<'_>, rule: &HttpRule) -> Result<Action, String> {
    Ok(Action {
        timeout: timeout(rule.timeouts.request.as_deref())?,
        try_timeout: timeout(rule.timeouts.backend_request.as_deref())?,
        ..work.action(&rule.filters, &rule.backend_refs)?
    })
}

fn http_match(matched: &HttpMatch) -> Result<Match, String> {
    let path = match &matched.path {
        None => PathPattern::default(),
        Some(path) => {
            let value = path.value.clone().unwrap_or_else(|| "/".to_owned());
            match path.r#type.as_deref().unwrap_or("PathPrefix") {
                "Exact" => PathPattern::Exact(value),
                "PathPrefix" => PathPattern::Prefix(value),
                "RegularExpression" => PathPattern::Regex(Pattern::new(&value)?),
                other => return Err(format!("paths of type {other:?} cannot be matched")),
            }
        }
    };
    let method = matched.method.as_deref().map(str::parse::<Method>).transpose().map_err(|error| error.to_string())?;
    let query = matched.query_params.iter().map(|wanted| Ok((wanted.name.clone(), text(wanted)?)));
    Ok(Match { path, method, headers: headers(&matched.headers)?, query: query.collect::<Result<_, String>>()? })
}

fn grpc_match(matched: &GrpcMatch) -> Result<Match, String> {
    let path = matched.method.as_ref().map(grpc_path).transpose()?.unwrap_or_default();
    Ok(Match { path, headers: headers(&matched.headers)?, ..Match::default() })
}

fn grpc_path(wanted: &MethodMatch) -> Result<PathPattern, String> {
    let of = |part: &Option<String>| part.clone().filter(|part| !part.is_empty());
    let (service, method) = (of(&wanted.service), of(&wanted.method));
    if wanted.r#type.as_deref() == Some("RegularExpression") {
        let any = || "[^/]+".to_owned();
        let (service, method) = (service.unwrap_or_else(any), method.unwrap_or_else(any));
        return Pattern::new(&format!("/(?:{service})/(?:{method})")).map(PathPattern::Regex);
    }
    Ok(match (service, method) {
        (Some(service), Some(method)) => PathPattern::Exact(format!("/{service}/{method}")),
        (Some(service), None) => PathPattern::Prefix(format!("/{service}/")),
        (None, Some(method)) => PathPattern::GrpcMethod(method),
        (None, None) => PathPattern::default(),
    })
}

/// Of several for one header the first counts.
fn headers(wanted: &[NamedValue]) -> Result<Vec<(HeaderName, TextPattern)>, String> {
    let mut all: Vec<(HeaderName, TextPattern)> = Vec::with_capacity(wanted.len());
    for value in wanted {
        let name = header_name(&value.name)?;
        if !all.iter().any(|(known, _)| *known == name) {
            all.push((name, text(value)?));
        }
    }
    Ok(all)
}

fn text(wanted: &NamedValue) -> Result<TextPattern, String> {
    match wanted.r#type.as_deref().unwrap_or("Exact") {
        "Exact" => Ok(TextPattern::Exact(wanted.value.clone())),
        "RegularExpression" => Pattern::new(&wanted.value).map(TextPattern::Regex),
        other => Err(format!("values of type {other:?} cannot be matched")),
    }
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{name:?} cannot be the name of a header"))
}

/// Looks references up, and remembers the first that leads nowhere.
struct Work<'a> {
    seen: &'a Seen,
    namer: Namer<'a>,
    unresolved: &'a mut Option<Unresolved>,
}

impl Work<'_> {
    fn action(&mut self, filters: &[Filter], backends: &[BackendRef]) -> Result<Action, String> {
        // Both, so that every reference is looked up.
        let (backends, filters) = (self.backends(backends), self.filters(filters));
        Ok(Action { filters: filters?, backends: backends?, ..Action::default() })
    }

    fn backends(&mut self, backends: &[BackendRef]) -> Result<Vec<WeightedBackend>, String> {
        let mut one = |backend: &BackendRef| {
            let to = self.destination(&backend.object());
            Ok(WeightedBackend { weight: backend.weight.unwrap_or(1), to, filters: self.filters(&backend.filters)? })
        };
        backends.iter().map(&mut one).collect()
    }

    fn destination(&mut self, to: &ObjectRef) -> Option<Destination> {
        match self.seen.service(self.namer, to) {
            Ok((service, port)) => Some(Destination { service, port: BackendPort::Number(port) }),
            Err(why) => {
                self.unresolved.get_or_insert(why);
                None
            }
        }
    }

    fn filters(&mut self, filters: &[Filter]) -> Result<Vec<routes::Filter>, String> {
        filters.iter().map(|filter| self.filter(filter)).collect()
    }

    fn filter(&mut self, filter: &Filter) -> Result<routes::Filter, String> {
        let missing = || format!("a filter of type {} says nothing", filter.r#type);
        match filter.r#type.as_str() {
            "RequestHeaderModifier" => {
                let changes = filter.request_header_modifier.as_ref().ok_or_else(missing)?;
                Ok(routes::Filter::RequestHeaders(changes_of(changes)?))
            }
            "ResponseHeaderModifier" => {
                let changes = filter.response_header_modifier.as_ref().ok_or_else(missing)?;
                Ok(routes::Filter::ResponseHeaders(changes_of(changes)?))
            }
            "RequestRedirect" => {
                redirect(filter.request_redirect.as_ref().ok_or_else(missing)?).map(routes::Filter::Redirect)
            }
            "URLRewrite" => {
                let rewrite = filter.url_rewrite.as_ref().ok_or_else(missing)?;
                let path = rewrite.path.as_ref().and_then(path_change);
                Ok(routes::Filter::Rewrite(Rewrite { host: rewrite.hostname.clone(), path }))
            }
            "RequestMirror" => {
                Ok(routes::Filter::Mirror(self.mirror(filter.request_mirror.as_ref().ok_or_else(missing)?)))
            }
            "CORS" => cors(filter.cors.as_ref().ok_or_else(missing)?).map(Arc::new).map(routes::Filter::Cors),
            other => Err(format!("filters of type {other} are not supported")),
        }
    }

    fn mirror(&mut self, mirror: &MirrorFilter) -> Mirror {
        let share = match (&mirror.fraction, mirror.percent) {
            (Some(fraction), _) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
            (None, Some(percent)) => (percent, 100),
            (None, None) => (1, 1),
        };
        Mirror { to: self.destination(&mirror.backend_ref), share }
    }
}

fn changes_of(modifier: &HeaderModifier) -> Result<HeaderChanges, String> {
    let pairs = |values: &[NamedValue]| {
        let pair = |value: &NamedValue| {
            let text = HeaderValue::from_str(&value.value);
            let text = text.map_err(|_| format!("{:?} cannot be the value of a header", value.value))?;
            Ok::<_, String>((header_name(&value.name)?, text))
        };
        values.iter().map(pair).collect::<Result<Vec<_>, _>>()
    };
    let remove = modifier.remove.iter().map(|name| header_name(name)).collect::<Result<_, _>>()?;
    Ok(HeaderChanges { set: pairs(&modifier.set)?, add: pairs(&modifier.add)?, remove })
}

fn cors(filter: &CorsFilter) -> Result<Cors, String> {
    let origin = |text: &String| Origin::new(text).ok_or_else(|| format!("{text:?} is no origin"));
    let words = |words: &[String]| Words::new(words).map_err(|word| format!("{word:?} cannot be said in a header"));
    Ok(Cors {
        origins: filter.allow_origins.iter().map(origin).collect::<Result<_, _>>()?,
        methods: words(&filter.allow_methods)?,
        headers: words(&filter.allow_headers)?,
        exposed: words(&filter.expose_headers)?,
        credentials: filter.allow_credentials,
        max_age_seconds: filter.max_age.unwrap_or(CORS_MAX_AGE_SECONDS),
    })
}

fn redirect(filter: &RedirectFilter) -> Result<Redirect, String> {
    let code = filter.status_code.unwrap_or(302);
    let status = StatusCode::from_u16(code).ok().filter(StatusCode::is_redirection);
    Ok(Redirect {
        scheme: filter.scheme.clone(),
        host: filter.hostname.clone(),
        port: filter.port,
        path: filter.path.as_ref().and_then(path_change),
        status: status.ok_or_else(|| format!("{code} is no status of a redirection"))?,
    })
}

fn path_change(path: &PathModifier) -> Option<PathChange> {
    let full = path.replace_full_path.clone().map(PathChange::Full);
    full.or_else(|| path.replace_prefix_match.clone().map(PathChange::Prefix))
}

/// A duration as Gateway API writes it: `1h30m`, `500ms`. 0 is none.
fn timeout(text: Option<&str>) -> Result<Option<Duration>, String> {
    let Some(text) = text else { return Ok(None) };
    let bad = || format!("{text:?} is no duration such as 500ms or 1m30s");
    let (mut all, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let milliseconds: u64 = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return Err(bad()),
        };
        all += Duration::from_millis(number.saturating_mul(milliseconds));
        rest = after;
    }
    Ok(Some(all).filter(|all| !all.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let milliseconds = |text| timeout(Some(text)).map(|t| t.map(|t| t.as_millis()));
        for (text, expected) in
            [("500ms", Some(500)), ("1h30m", Some(5_400_000)), ("1m1s1ms", Some(61_001)), ("0s", None), ("", None)]
        {
            assert_eq!(milliseconds(text), Ok(expected), "{text}");
        }
        for bad in ["1", "s", "1d", "-1s", "1 s", "1.5s"] {
            assert!(milliseconds(bad).is_err(), "{bad}");
        }
        assert_eq!(timeout(None), Ok(None));
    }

    #[test]
    fn methods_of_grpc_are_paths() {
        let check = |r#type: Option<&str>, service: &str, method: &str, expected: &str| {
            let some = |text: &str| Some(text.to_owned());
            let wanted =
                MethodMatch { r#type: r#type.map(str::to_owned), service: some(service), method: some(method) };
            let found = format!("{:?}", grpc_path(&wanted).unwrap());
            assert!(found.contains(expected), "{found}");
        };
        check(None, "a.B", "C", r#"Exact("/a.B/C")"#);
        check(Some("Exact"), "a.B", "", r#"Prefix("/a.B/")"#);
        check(None, "", "C", r#"GrpcMethod("C")"#);
        check(None, "", "", r#"Prefix("/")"#);
        check(Some("RegularExpression"), "a|b", "", "/(?:a|b)/(?:[^/]+)");
    }
}
