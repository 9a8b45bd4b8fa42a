//! Event: something that happened to an object.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/events.go`, `pkg/registry/core/event/strategy.go`,
//! `pkg/printers/internalversion/printers.go` (`printEvent`).

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Field, Kind, Names, Scope, human_duration},
    names,
};

impl Kind for Event {
    const NAMES: Names = Names::new("", "v1", "Event", "events", "event").short(&["ev"]);
    const SCOPE: Scope = Scope::Namespaced;
    const CREATE_ON_UPDATE: bool = true;
    const FIELDS: &'static [Field<Self>] = &[
        Field { path: "involvedObject.kind", value: |e| text(e.involved_object.kind.as_ref()) },
        Field { path: "involvedObject.namespace", value: |e| text(e.involved_object.namespace.as_ref()) },
        Field { path: "involvedObject.name", value: |e| text(e.involved_object.name.as_ref()) },
        Field { path: "involvedObject.uid", value: |e| text(e.involved_object.uid.as_ref()) },
        Field { path: "involvedObject.apiVersion", value: |e| text(e.involved_object.api_version.as_ref()) },
        Field { path: "involvedObject.resourceVersion", value: |e| text(e.involved_object.resource_version.as_ref()) },
        Field { path: "involvedObject.fieldPath", value: |e| text(e.involved_object.field_path.as_ref()) },
        Field { path: "reason", value: |e| text(e.reason.as_ref()) },
        Field { path: "reportingComponent", value: |e| text(e.reporting_component.as_ref()) },
        Field { path: "source", value: component },
        Field { path: "type", value: |e| text(e.type_.as_ref()) },
    ];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::<Self>::text("Last Seen", |e, now| Cell::from(ago(last_seen(e), now))).field::<Event>("lastTimestamp"),
        Column::<Self>::text("Type", |e, _| Cell::from(text(e.type_.as_ref()))).field::<Event>("type"),
        Column::<Self>::text("Reason", |e, _| Cell::from(text(e.reason.as_ref()))).field::<Event>("reason"),
        Column::<Self>::text("Object", |e, _| Cell::from(object(e))).field::<Event>("involvedObject"),
        Column::<Self>::wide_text("Subobject", |e, _| Cell::from(text(e.involved_object.field_path.as_ref())))
            .field::<ObjectReference>("fieldPath"),
        Column::<Self>::wide_text("Source", |e, _| Cell::from(source(e))).field::<Event>("source"),
        Column::<Self>::text("Message", |e, _| Cell::from(text(e.message.as_ref()).trim())).field::<Event>("message"),
        Column::<Self>::wide_text("First Seen", |e, now| Cell::from(ago(first_seen(e), now)))
            .field::<Event>("firstTimestamp"),
        Column::<Self>::wide_text("Count", |e, _| Cell::from(count(e))).field::<Event>("count"),
        Column::<Self>::wide_text("Name", |e, _| Cell::from(text(e.metadata.name.as_ref()))).object_name(),
    ];

    fn validate(&self, errs: &mut FieldErrors) {
        validate(self, errs);
    }
}

const TEXT_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 1024;

/// What every event has to obey, in whichever version it came. Those of today's form have a time of their own and say
/// who reports what was done.
pub(super) fn validate(event: &Event, errs: &mut FieldErrors) {
    let at = FieldPath::new("involvedObject").child("namespace");
    let own = event.metadata.namespace.as_deref().unwrap_or_default();
    let involved = event.involved_object.namespace.as_deref().unwrap_or_default();
    // Events about cluster-scoped objects are kept in the default namespace; those of today's form also elsewhere.
    let matches = match (involved, event.event_time.is_some()) {
        ("", false) => matches!(own, "" | "default"),
        ("", true) => matches!(own, "default" | "kube-system"),
        (_, false) => involved == own,
        (_, true) => true,
    };
    if !matches {
        errs.invalid(&at, involved, "does not match event.namespace");
    }
    if event.event_time.is_some() {
        validate_reporter(event, errs);
    }
    errs.invalid_each(&FieldPath::new("namespace"), own, names::is_dns1123_subdomain(own));
}

fn validate_reporter(event: &Event, errs: &mut FieldErrors) {
    let controller = event.reporting_component.as_deref().unwrap_or_default();
    let at = FieldPath::new("reportingController");
    if controller.is_empty() {
        errs.required(&at, "");
    }
    errs.invalid_each(&at, controller, names::is_qualified_name(controller));
    let texts =
        [("reportingInstance", &event.reporting_instance), ("action", &event.action), ("reason", &event.reason)];
    for (field, text) in texts {
        let text = text.as_deref().unwrap_or_default();
        if text.is_empty() {
            errs.required(&FieldPath::new(field), "");
        }
        validate_length(field, text, TEXT_BYTES_MAX, errs);
    }
    validate_length("message", event.message.as_deref().unwrap_or_default(), NOTE_BYTES_MAX, errs);
}

fn validate_length(field: &str, text: &str, bytes_max: usize, errs: &mut FieldErrors) {
    if text.len() > bytes_max {
        errs.invalid(&FieldPath::new(field), "", &format!("can have at most {bytes_max} characters"));
    }
}

fn text(field: Option<&String>) -> String {
    field.cloned().unwrap_or_default()
}

fn component(event: &Event) -> String {
    let source = event.source.as_ref().and_then(|s| s.component.as_ref()).filter(|c| !c.is_empty());
    text(source.or(event.reporting_component.as_ref()))
}

fn first_seen(event: &Event) -> Option<Timestamp> {
    let first = event.first_timestamp.as_ref().map(|Time(t)| *t);
    first.or(event.event_time.as_ref().map(|MicroTime(t)| *t))
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|MicroTime(t)| *t);
    let last = event.last_timestamp.as_ref().map(|Time(t)| *t);
    series.or(last).or_else(|| first_seen(event))
}

fn count(event: &Event) -> i32 {
    let series = event.series.as_ref().and_then(|s| s.count);
    series.unwrap_or_else(|| event.count.unwrap_or_default().max(1))
}

fn ago(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(|| "<unknown>".to_owned(), |t| human_duration(now.as_second() - t.as_second()))
}

fn object(event: &Event) -> String {
    let kind = text(event.involved_object.kind.as_ref()).to_lowercase();
    match event.involved_object.name.as_deref().unwrap_or_default() {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Event) -> String {
    let host = event.source.as_ref().and_then(|s| s.host.as_ref()).filter(|h| !h.is_empty());
    match text(host.or(event.reporting_instance.as_ref())).as_str() {
        "" => component(event),
        instance => format!("{}, {instance}", component(event)),
    }
}
