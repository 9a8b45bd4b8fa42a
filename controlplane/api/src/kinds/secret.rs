//! Secret: settings that nobody but their readers may see. No value of one is ever part of a message.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidateSecret`, `ValidateSecretUpdate`;
//! `pkg/apis/core/v1/conversion.go` for `stringData`.

use k8s_openapi::{ByteString, api::core::v1::Secret};

use serde_json::Value;

use super::config_map::{DATA_BYTES_MAX, IMMUTABLE, validate_key};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Field, Kind, Names, Scope},
};

const ACCOUNT_ANNOTATION: &str = "kubernetes.io/service-account.name";

impl Kind for Secret {
    const NAMES: Names = Names::new("", "v1", "Secret", "secrets", "secret");
    const SCOPE: Scope = Scope::Namespaced;
    const FIELDS: &'static [Field<Self>] = &[Field { path: "type", value: |s| s.type_.clone().unwrap_or_default() }];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Type", |s, _| Cell::from(s.type_.clone().unwrap_or_default())).field::<Secret>("type"),
        Column::<Self>::text("Data", |s, _| Cell::from(s.data.as_ref().map_or(0, |d| d.len()))).field::<Secret>("data"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        super::pod::text_default(&mut self.type_, "Opaque");
        if let Some(plain) = self.string_data.take() {
            let data = self.data.get_or_insert_default();
            data.extend(plain.into_iter().map(|(k, v)| (k, ByteString(v.into_bytes()))));
        }
    }

    fn prepare_create(&mut self) {
        self.fill_defaults();
    }

    fn prepare_update(&mut self, old: &Self) {
        if self.type_.as_deref().unwrap_or_default().is_empty() {
            self.type_.clone_from(&old.type_);
        }
        self.fill_defaults();
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let mut bytes = 0;
        for (key, value) in self.data.iter().flatten() {
            bytes += value.0.len();
            validate_key("data", key, errs);
        }
        if bytes > DATA_BYTES_MAX {
            errs.too_long(&FieldPath::new("data"), DATA_BYTES_MAX);
        }
        validate_type(self, errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        errs.immutable(&FieldPath::new("type"), &self.type_, &old.type_);
        if old.immutable == Some(true) {
            if self.immutable != Some(true) {
                errs.forbidden(&FieldPath::new("immutable"), IMMUTABLE);
            }
            if self.data != old.data {
                errs.forbidden(&FieldPath::new("data"), IMMUTABLE);
            }
        }
    }
}

fn validate_type(secret: &Secret, errs: &mut FieldErrors) {
    let data = FieldPath::new("data");
    let has = |key: &str| secret.data.as_ref().is_some_and(|d| d.contains_key(key));
    match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            let account = secret.metadata.annotations.as_ref().and_then(|a| a.get(ACCOUNT_ANNOTATION));
            if account.is_none_or(|a| a.is_empty()) {
                let at = FieldPath::new("metadata").child("annotations").key(ACCOUNT_ANNOTATION);
                errs.required(&at, "");
            }
        }
        "kubernetes.io/dockercfg" => validate_json(secret, ".dockercfg", errs),
        "kubernetes.io/dockerconfigjson" => validate_json(secret, ".dockerconfigjson", errs),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errs.required(&data.key("username"), "");
            errs.required(&data.key("password"), "");
        }
        "kubernetes.io/ssh-auth"
            if secret.data.as_ref().and_then(|d| d.get("ssh-privatekey")).is_none_or(|k| k.0.is_empty()) =>
        {
            errs.required(&data.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|k| !has(k)) {
                errs.required(&data.key(key), "");
            }
        }
        _ => {}
    }
}

fn validate_json(secret: &Secret, key: &str, errs: &mut FieldErrors) {
    let at = FieldPath::new("data").key(key);
    match secret.data.as_ref().and_then(|d| d.get(key)) {
        None => errs.required(&at, ""),
        Some(value) => {
            if let Some(wrong) = wrong_with_json(&value.0) {
                errs.invalid(&at, "<secret contents redacted>", &wrong);
            }
        }
    }
}

/// Why a text is no JSON object, in the words of Go's decoder where they show nothing of the text.
fn wrong_with_json(text: &[u8]) -> Option<String> {
    let kind = match serde_json::from_slice::<Value>(text) {
        Ok(Value::Null | Value::Object(_)) => return None,
        Ok(Value::Array(_)) => "array",
        Ok(Value::String(_)) => "string",
        Ok(Value::Number(_)) => "number",
        Ok(Value::Bool(_)) => "bool",
        Err(error) if error.is_eof() => return Some("unexpected end of JSON input".to_owned()),
        Err(_) => return Some("invalid JSON".to_owned()),
    };
    Some(format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"))
}
