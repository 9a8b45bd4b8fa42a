//! Everything that is no resource: health, version, metrics. For discovery and OpenAPI see `documents`.

use http::{HeaderValue, StatusCode, header};
use podium_api::{ApiError, Reason};
use serde_json::json;

use super::{
    Call, Frontend,
    negotiate::Encoding,
    path::Route,
    respond::{self, Answer},
};
use crate::accounts;

/// The version of Kubernetes whose API is served.
const MINOR: &str = "36";

/// The oldest that could run beside it, as Kubernetes has it.
const MINOR_COMPATIBLE: &str = "35";

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

    pub(super) async fn about(&self, route: &Route<'_>, call: &Call<'_>) -> Result<Answer, ApiError> {
        match route {
            Route::Metrics => Ok(self.metrics_text()),
            Route::OpenIdConfiguration => respond::value(StatusCode::OK, Encoding::Json, &openid(&self.address)),
            Route::OpenIdKeys => {
                let mut answer = respond::value(StatusCode::OK, Encoding::Json, &self.accounts.jwks())?;
                let kind = HeaderValue::from_static("application/jwk-set+json");
                answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                Ok(answer)
            }
            Route::OpenApi(_) | Route::OpenApiV2 => self.openapi(route, call).await,
            _ => self.discovery(route, call),
        }
    }

    /// `/healthz`, `/livez`, `/readyz`, whole or one check.
    fn health(&self, what: &str, call: &Call<'_>) -> Answer {
        let (endpoint, only) = what.split_once('/').unwrap_or((what, ""));
        let store = self.registry.check_store().map_err(|e| e.message);
        let mut checks = vec![("ping", Ok(())), ("store", store)];
        if endpoint == "readyz" {
            let stopping = self.closing.is_cancelled();
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
        let [reads, writes] = self.flow.under_way();
        self.metrics.set_inflight("readOnly", reads);
        self.metrics.set_inflight("mutating", writes);
        let streams = self.limits.streams_max.saturating_sub(self.streams.available_permits());
        self.metrics.set_inflight("streams", streams);
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

/// When this was built, as the build was told (reproducible builds: <https://reproducible-builds.org/specs/source-date-epoch>).
fn build_date() -> String {
    let seconds = option_env!("SOURCE_DATE_EPOCH").and_then(|s| s.parse().ok()).unwrap_or_default();
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

fn version() -> serde_json::Value {
    json!({
        "major": "1", "minor": MINOR,
        "emulationMajor": "1", "emulationMinor": MINOR,
        "minCompatibilityMajor": "1", "minCompatibilityMinor": MINOR_COMPATIBLE,
        "gitVersion": format!("v1.{MINOR}.0+podium-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": build_date(),
        "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }),
    })
}
