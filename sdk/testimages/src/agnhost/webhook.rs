//! `agnhost webhook` and `agnhost crd-conversion-webhook`: what API servers ask.

use podium_tools::Code;
use serde_json::{Value, json};

use super::{log, review, serve};
use crate::{
    flags::Flags,
    http::{self, Request, Response},
};

pub fn run(args: &[String]) -> Code {
    let flags = Flags::read(args, &["alsologtostderr", "logtostderr"]);
    let Some(port) = flags.port("port", 443) else { return 1 };
    let sidecar = flags.text("sidecar-image", "").to_owned();
    log(format_args!("Serving admission webhooks on port {port}, without TLS"));
    serve(http::serve(port, move |request: Request| {
        let sidecar = sidecar.clone();
        async move { judge(&request, &sidecar).await }
    }))
}

async fn judge(request: &Request, sidecar: &str) -> Response {
    if request.path == "/readyz" {
        return Response::text("ok");
    }
    if request.header("content-type") != Some("application/json") {
        log(format_args!("contentType={:?}, expect application/json", request.header("content-type")));
        return Response::text("");
    }
    let asked: Value = match serde_json::from_slice(&request.body) {
        Ok(asked) => asked,
        Err(why) => return Response::error(400, format_args!("Request could not be decoded: {why}")),
    };
    let group = asked["apiVersion"].as_str().unwrap_or_default();
    if asked["kind"] != "AdmissionReview" || !group.starts_with("admission.k8s.io/") {
        return Response::error(400, format_args!("Unsupported group version kind: {group}, Kind={}", asked["kind"]));
    }
    log(format_args!("{} {} {}", request.path, asked["request"]["operation"], asked["request"]["name"]));
    let Some(mut answer) = review::review(&request.path, &asked["request"], sidecar).await else {
        return Response::error(404, "404 page not found");
    };
    answer["uid"] = asked["request"]["uid"].clone();
    Response::json(&json!({ "apiVersion": group, "kind": "AdmissionReview", "response": answer }))
}

pub fn conversion(args: &[String]) -> Code {
    let Some(port) = Flags::read(args, &["alsologtostderr", "logtostderr"]).port("port", 443) else { return 1 };
    log(format_args!("Serving conversions on port {port}, without TLS"));
    serve(http::serve(port, |request: Request| async move {
        if request.path != "/crdconvert" {
            return if request.path == "/readyz" {
                Response::text("ok")
            } else {
                Response::error(404, "404 page not found")
            };
        }
        let asked: Value = match serde_json::from_slice(&request.body) {
            Ok(asked) => asked,
            Err(why) => return Response::error(400, format_args!("Request could not be decoded: {why}")),
        };
        let version = asked["apiVersion"].clone();
        Response::json(&json!({
            "apiVersion": version, "kind": "ConversionReview", "response": convert_all(&asked["request"]),
        }))
    }))
}

fn convert_all(asked: &Value) -> Value {
    let to = asked["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = asked["objects"].as_array().cloned().unwrap_or_default();
    let result = match objects.into_iter().map(|object| convert(object, to)).collect::<Result<Vec<_>, _>>() {
        Ok(converted) => {
            return json!({ "uid": asked["uid"], "convertedObjects": converted, "result": { "status": "Success" } });
        }
        Err(why) => json!({ "status": "Failure", "message": why }),
    };
    json!({ "uid": asked["uid"], "convertedObjects": [], "result": result })
}

/// v1 has `hostPort`, v2 has `host` and `port`.
fn convert(mut object: Value, to: &str) -> Result<Value, String> {
    let from = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    if from == to {
        return Err(format!("conversion from a version to itself should not call the webhook: {to}"));
    }
    let Some(fields) = object.as_object_mut() else { return Err("no object".to_owned()) };
    match (from.as_str(), to) {
        ("stable.example.com/v1", "stable.example.com/v2") => {
            if let Some(both) = fields.remove("hostPort") {
                let text = both.as_str().unwrap_or_default();
                let Some((host, port)) = text.split_once(':').filter(|(_, port)| !port.contains(':')) else {
                    return Err(format!("invalid hostPort value `{text}`"));
                };
                fields.insert("host".to_owned(), host.into());
                fields.insert("port".to_owned(), port.into());
            }
        }
        ("stable.example.com/v2", "stable.example.com/v1") => {
            let (host, port) = (fields.remove("host"), fields.remove("port"));
            if host.is_some() || port.is_some() {
                let text =
                    |value: &Option<Value>| value.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
                fields.insert("hostPort".to_owned(), format!("{}:{}", text(&host), text(&port)).into());
            }
        }
        ("stable.example.com/v1" | "stable.example.com/v2", _) => {
            return Err(format!("unexpected conversion version {to:?}"));
        }
        _ => return Err(format!("unexpected conversion version {from:?}")),
    }
    fields.insert("apiVersion".to_owned(), to.into());
    Ok(object)
}
