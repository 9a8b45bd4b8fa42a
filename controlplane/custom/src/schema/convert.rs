//! From `JSONSchemaProps`, as definitions carry it, to [`Schema`].

use std::borrow::Cow;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use super::{Additional, Kind, Limits, ListKind, Pattern, Rule, Schema};

/// Reads a schema. What is not allowed in one is left out.
pub(super) fn schema(props: &JSONSchemaProps) -> Schema {
    let is_set = |flag: Option<bool>| flag == Some(true);
    let properties = props.properties.iter().flatten().map(|(name, of)| (name.clone(), schema(of))).collect();
    Schema {
        kind: kind(props.type_.as_deref()),
        nullable: is_set(props.nullable),
        int_or_string: is_set(props.x_kubernetes_int_or_string),
        preserve: is_set(props.x_kubernetes_preserve_unknown_fields),
        embedded: is_set(props.x_kubernetes_embedded_resource),
        resource: is_set(props.x_kubernetes_embedded_resource),
        properties,
        additional: match &props.additional_properties {
            None => Additional::Unset,
            Some(JSONSchemaPropsOrBool::Bool(allowed)) => Additional::Allowed(*allowed),
            Some(JSONSchemaPropsOrBool::Schema(of)) => Additional::Schema(Box::new(schema(of))),
        },
        items: match &props.items {
            Some(JSONSchemaPropsOrArray::Schema(of)) => Some(Box::new(schema(of))),
            _ => None,
        },
        default: props.default.as_ref().map(|d| d.0.clone()),
        list: match props.x_kubernetes_list_type.as_deref() {
            Some("set") => ListKind::Set,
            Some("map") => ListKind::Map(props.x_kubernetes_list_map_keys.clone().unwrap_or_default()),
            _ => ListKind::Atomic,
        },
        atomic: props.x_kubernetes_map_type.as_deref() == Some("atomic"),
        limits: limits(props),
        rules: props.x_kubernetes_validations.iter().flatten().map(Rule::new).map(Into::into).collect(),
    }
}

fn kind(name: Option<&str>) -> Kind {
    match name {
        Some("object") => Kind::Object,
        Some("array") => Kind::Array,
        Some("string") => Kind::String,
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        _ => Kind::Any,
    }
}

fn limits(props: &JSONSchemaProps) -> Limits {
    let all = |of: &Option<Vec<JSONSchemaProps>>| of.iter().flatten().map(schema).collect();
    Limits {
        format: props.format.clone().filter(|f| !f.is_empty()),
        maximum: props.maximum.map(|m| (m, props.exclusive_maximum == Some(true))),
        minimum: props.minimum.map(|m| (m, props.exclusive_minimum == Some(true))),
        max_length: props.max_length,
        min_length: props.min_length,
        pattern: props.pattern.clone().filter(|p| !p.is_empty()).map(|text| {
            let regex = crate::cel::compile_pattern(&text).ok();
            Pattern { text, regex }
        }),
        max_items: props.max_items,
        min_items: props.min_items,
        unique_items: props.unique_items == Some(true),
        multiple_of: props.multiple_of,
        one_of_values: props.enum_.as_ref().map(|values| values.iter().map(|v| v.0.clone()).collect()),
        max_properties: props.max_properties,
        min_properties: props.min_properties,
        required: props.required.clone().unwrap_or_default(),
        all_of: all(&props.all_of),
        any_of: all(&props.any_of),
        one_of: all(&props.one_of),
        not: props.not.as_deref().map(|of| Box::new(schema(of))),
    }
}

impl Schema {
    /// The field behind a name in an expression, and its schema; `None` for what expressions cannot see.
    pub(crate) fn expressed<'s, 'n>(&'s self, name: &'n str) -> Option<(Cow<'n, str>, Option<&'s Schema>)> {
        if let Additional::Schema(values) = &self.additional {
            return Some((Cow::Borrowed(name), Some(values)));
        }
        let name = crate::cel::unescape(name)?;
        if self.resource {
            match &*name {
                "apiVersion" | "kind" => return Some((name, None)),
                "metadata" => return Some((name, Some(super::metadata()))),
                _ => {}
            }
        }
        let schema = self.properties.get(&*name)?;
        Some((name, Some(schema)))
    }
}
