//! An admission webhook: ConfigMaps of namespaces that ask for it need a label that says whose they are.

use podium_guest::{Request, Response};
use serde_json::{Value, json};

podium_guest::serve!(serve);

fn serve(request: &Request) -> Response {
    match request.path() {
        "/healthz" => Response::text("ok\n"),
        _ => match serde_json::from_slice::<Value>(request.body()) {
            Ok(review) => Response::json(judge(&review["request"]).to_string()),
            Err(error) => Response::text(format!("no AdmissionReview: {error}\n")).with_status(400),
        },
    }
}

fn judge(request: &Value) -> Value {
    let team = &request["object"]["metadata"]["labels"]["team"];
    let mut response = json!({ "uid": request["uid"], "allowed": team.is_string() });
    if !team.is_string() {
        response["status"] = json!({ "code": 403, "reason": "Forbidden", "message": "say whose it is: label it with team" });
    }
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}
