//! Everything that is no resource: health, version, metrics, discovery, OpenAPI.

use http::{HeaderValue, StatusCode, header};
use podium_api::{ApiError, KindRef, Reason, discovery, openapi};
use serde_json::json;

use super::{
    Call, Frontend,
    negotiate::{self, Encoding, Form},
    path::Route,
    respond::{self, Answer},
};
use crate::accounts;

/// The version of Kubernetes whose API is served.
const MINOR: &str = "36";

impl Frontend {
    /// What anybody may read.
    pub(super) fn public(&self, route: &Route<'_>, call: &Call<'_>) -> Option<Answer> {
        match route {
            Route::Version => {
                Some(respond::value(StatusCode::OK, Encoding::Json, &version()).unwrap_or_else(|e| respond::error(&e)))
            }
            Route::Health(what) => Some(self.health(what, call)),
            _ => None,
        }
    }

    pub(super) fn about(&self, route: &Route<'_>, call: &Call<'_>) -> Result<Answer, ApiError> {
        let offers = |form| matches!(form, Form::Object | Form::Discovery);
        let kinds = || -> Vec<KindRef> { self.registry.served().kinds() };
        let (document, aggregated) = match route {
            Route::Metrics => return Ok(self.metrics_text()),
            Route::OpenApiV2 if call.accept().is_some_and(openapi::v2::wants_protobuf) => {
                return Ok(respond::bytes(StatusCode::OK, openapi::v2::PROTOBUF, openapi::v2::protobuf().into()));
            }
            Route::OpenApiV2 => (openapi::v2::json(), None),
            Route::OpenIdConfiguration => {
                return respond::value(StatusCode::OK, Encoding::Json, &openid(&self.address));
            }
            Route::OpenIdKeys => {
                let mut answer = respond::value(StatusCode::OK, Encoding::Json, &self.accounts.jwks())?;
                let kind = HeaderValue::from_static("application/jwk-set+json");
                answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                return Ok(answer);
            }
            Route::OpenApi("") => (openapi::index(&self.openapi), None),
            Route::OpenApi(path) => return self.openapi_document(path, call),
            Route::CoreVersions => {
                (discovery::core_versions(&self.address), Some(discovery::aggregated_core(&kinds())))
            }
            Route::Groups => (discovery::group_list(&kinds()), Some(discovery::aggregated_groups(&kinds()))),
            Route::Group(group) => (discovery::group(&kinds(), group).ok_or_else(unknown)?, None),
            Route::Resources { group, version } => {
                (discovery::resource_list(&kinds(), group, version).ok_or_else(unknown)?, None)
            }
            _ => return Err(unknown()),
        };
        let plain = |form| form == Form::Object;
        let shape = negotiate::negotiate(call.accept(), if aggregated.is_some() { offers } else { plain })?;
        match aggregated.filter(|_| shape.form == Form::Discovery) {
            Some(aggregated) => {
                let mut answer = respond::value(StatusCode::OK, shape.encoding, &aggregated)?;
                answer
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static(discovery::AGGREGATED_MEDIA_TYPE));
                Ok(answer)
            }
            None => respond::value(StatusCode::OK, shape.encoding, &document),
        }
    }

    fn openapi_document(&self, path: &str, call: &Call<'_>) -> Result<Answer, ApiError> {
        let document = self.openapi.iter().find(|d| d.path == path).ok_or_else(unknown)?;
        let etag = format!("\"{}\"", document.hash);
        let known = call.header(header::IF_NONE_MATCH).is_some_and(|known| known.contains(&etag));
        let mut answer = if known {
            respond::bytes(StatusCode::NOT_MODIFIED, "application/json", bytes::Bytes::new())
        } else {
            respond::bytes(StatusCode::OK, "application/json", document.json.clone().into())
        };
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            answer.headers_mut().insert(header::ETAG, etag);
        }
        Ok(answer)
    }

    /// `/healthz`, `/livez`, `/readyz`, whole or one check.
    fn health(&self, what: &str, call: &Call<'_>) -> Answer {
        let (endpoint, only) = what.split_once('/').unwrap_or((what, ""));
        let store = self.registry.check_store().map_err(|e| e.message);
        let mut checks = vec![("ping", Ok(())), ("store", store)];
        if endpoint == "readyz" {
            let stopping = self.stop.is_cancelled();
            checks.push(("shutdown", if stopping { Err("process is shutting down".to_owned()) } else { Ok(()) }));
        }
        if !only.is_empty() {
            checks.retain(|(name, _)| *name == only);
            if checks.is_empty() {
                return respond::error(&unknown());
            }
        }
        let failed = checks.iter().any(|(_, result)| result.is_err());
        let status = if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        if !failed && call.query.find("verbose").is_none() {
            return respond::text(status, "ok".to_owned());
        }
        let line = |(name, result): &(&str, Result<(), String>)| match result {
            Ok(()) => format!("[+]{name} ok\n"),
            Err(why) => format!("[-]{name} failed: {why}\n"),
        };
        let lines: String = checks.iter().map(line).collect();
        respond::text(status, format!("{lines}{endpoint} check {}\n", if failed { "failed" } else { "passed" }))
    }

    fn metrics_text(&self) -> Answer {
        let limits = &self.limits;
        self.metrics.set_inflight("readOnly", Self::used(&self.reads, limits.reads_in_flight_max));
        self.metrics.set_inflight("mutating", Self::used(&self.writes, limits.writes_in_flight_max));
        self.metrics.set_inflight("streams", Self::used(&self.streams, limits.streams_max));
        for resource in self.registry.served().all() {
            let name = resource.names.qualified_resource();
            self.metrics.set_resource(&name, resource.cache.len(), resource.cache.watchers());
        }
        respond::text(StatusCode::OK, self.metrics.text())
    }
}

/// 404 for paths that are nothing.
pub(super) fn unknown() -> ApiError {
    ApiError::new(Reason::NotFound, "the server could not find the requested resource")
}

fn openid(address: &str) -> serde_json::Value {
    json!({
        "issuer": accounts::ISSUER,
        "jwks_uri": format!("https://{address}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn version() -> serde_json::Value {
    json!({
        "major": "1", "minor": MINOR,
        "gitVersion": format!("v1.{MINOR}.0+podium-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }),
    })
}
