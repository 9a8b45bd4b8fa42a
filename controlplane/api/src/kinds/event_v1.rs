//! The Event of `events.k8s.io`: another way to see the same events, with stricter rules for new ones.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/events.go`, `pkg/apis/events/v1/conversion.go`.

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{self as core, EventSource},
    events::v1::{Event, EventSeries},
};

use super::event;
use crate::{
    error::ApiError,
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Field, Hub, Kind, Names, Scope},
    object::kind_of,
};

impl Kind for Event {
    const NAMES: Names = Names::new("events.k8s.io", "v1", "Event", "events", "event").short(&["ev"]);
    const SCOPE: Scope = Scope::Namespaced;
    const CREATE_ON_UPDATE: bool = true;
    const FIELDS: &'static [Field<Self>] = &[
        Field { path: "regarding.kind", value: |e| text(regarding(e).kind.as_ref()) },
        Field { path: "regarding.namespace", value: |e| text(regarding(e).namespace.as_ref()) },
        Field { path: "regarding.name", value: |e| text(regarding(e).name.as_ref()) },
        Field { path: "regarding.uid", value: |e| text(regarding(e).uid.as_ref()) },
        Field { path: "regarding.apiVersion", value: |e| text(regarding(e).api_version.as_ref()) },
        Field { path: "regarding.resourceVersion", value: |e| text(regarding(e).resource_version.as_ref()) },
        Field { path: "regarding.fieldPath", value: |e| text(regarding(e).field_path.as_ref()) },
        Field { path: "reason", value: |e| text(e.reason.as_ref()) },
        Field { path: "reportingController", value: |e| text(e.reporting_controller.as_ref()) },
        Field { path: "type", value: |e| text(e.type_.as_ref()) },
    ];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::<Self>::text("Last Seen", |e, now| cell(e, now, "Last Seen")).field::<core::Event>("lastTimestamp"),
        Column::<Self>::text("Type", |e, now| cell(e, now, "Type")).field::<core::Event>("type"),
        Column::<Self>::text("Reason", |e, now| cell(e, now, "Reason")).field::<core::Event>("reason"),
        Column::<Self>::text("Object", |e, now| cell(e, now, "Object")).field::<core::Event>("involvedObject"),
        Column::<Self>::wide_text("Subobject", |e, now| cell(e, now, "Subobject"))
            .field::<core::ObjectReference>("fieldPath"),
        Column::<Self>::wide_text("Source", |e, now| cell(e, now, "Source")).field::<core::Event>("source"),
        Column::<Self>::text("Message", |e, now| cell(e, now, "Message")).field::<core::Event>("message"),
        Column::<Self>::wide_text("First Seen", |e, now| cell(e, now, "First Seen"))
            .field::<core::Event>("firstTimestamp"),
        Column::<Self>::wide_text("Count", |e, now| cell(e, now, "Count")).field::<core::Event>("count"),
        Column::<Self>::wide_text("Name", |e, now| cell(e, now, "Name")).object_name(),
    ];
    const HUB: Option<Hub<Self>> = Some(Hub {
        kind: kind_of::<core::Event>,
        to: |event| Ok(Box::new(to_core(event))),
        from: |stored| {
            let event = stored.downcast_ref::<core::Event>();
            event.map(from_core).ok_or_else(|| ApiError::internal("a stored event is not of the core kind".to_owned()))
        },
        fields: &[
            ("regarding.kind", "involvedObject.kind"),
            ("regarding.namespace", "involvedObject.namespace"),
            ("regarding.name", "involvedObject.name"),
            ("regarding.uid", "involvedObject.uid"),
            ("regarding.apiVersion", "involvedObject.apiVersion"),
            ("regarding.resourceVersion", "involvedObject.resourceVersion"),
            ("regarding.fieldPath", "involvedObject.fieldPath"),
            ("reportingController", "reportingComponent"),
        ],
    });

    fn validate(&self, errs: &mut FieldErrors) {
        event::validate(&to_core(self), errs);
    }

    fn validate_create(&self, errs: &mut FieldErrors) {
        validate_series(self, errs);
        let unset = "needs to be unset";
        if self.event_time.is_none() {
            errs.required(&FieldPath::new("eventTime"), "");
        }
        let kind = self.type_.as_deref().unwrap_or_default();
        if !matches!(kind, "Normal" | "Warning") {
            errs.invalid(&FieldPath::new("type"), "", &format!("has invalid value: {kind}"));
        }
        let source = self.deprecated_source.as_ref().is_some_and(|s| *s != EventSource::default());
        let set = [
            ("firstTimestamp", self.deprecated_first_timestamp.is_some()),
            ("lastTimestamp", self.deprecated_last_timestamp.is_some()),
            ("count", self.deprecated_count.unwrap_or_default() != 0),
            ("source", source),
        ];
        for (field, _) in set.iter().filter(|(_, set)| *set) {
            errs.invalid(&FieldPath::new(field), "", unset);
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        if self.series != old.series {
            validate_series(self, errs);
        }
        // Only the series of an event goes on; its fields are named as they are stored.
        let (new, old) = (to_core(self), to_core(old));
        errs.immutable(&FieldPath::new("involvedObject"), &new.involved_object, &old.involved_object);
        errs.immutable(&FieldPath::new("reason"), &new.reason, &old.reason);
        errs.immutable(&FieldPath::new("message"), &new.message, &old.message);
        errs.immutable(&FieldPath::new("source"), &new.source, &old.source);
        errs.immutable(&FieldPath::new("firstTimestamp"), &new.first_timestamp, &old.first_timestamp);
        errs.immutable(&FieldPath::new("lastTimestamp"), &new.last_timestamp, &old.last_timestamp);
        errs.immutable(&FieldPath::new("count"), &new.count, &old.count);
        errs.immutable(&FieldPath::new("type"), &new.type_, &old.type_);
        errs.immutable(&FieldPath::new("eventTime"), &new.event_time, &old.event_time);
        errs.immutable(&FieldPath::new("action"), &new.action, &old.action);
        errs.immutable(&FieldPath::new("related"), &new.related, &old.related);
        let controller = FieldPath::new("reportingController");
        errs.immutable(&controller, &new.reporting_component, &old.reporting_component);
        errs.immutable(&FieldPath::new("reportingInstance"), &new.reporting_instance, &old.reporting_instance);
    }
}

fn validate_series(event: &Event, errs: &mut FieldErrors) {
    if event.series.as_ref().is_some_and(|s| s.count < 2) {
        errs.invalid(&FieldPath::new("series.count"), "", "should be at least 2");
    }
}

fn text(field: Option<&String>) -> String {
    field.cloned().unwrap_or_default()
}

fn regarding(event: &Event) -> core::ObjectReference {
    event.regarding.clone().unwrap_or_default()
}

/// The cell of the column of the same name of the stored event.
fn cell(event: &Event, now: Timestamp, name: &str) -> Cell {
    let column = core::Event::COLUMNS.iter().find(|c| c.name == name);
    column.map(|c| (c.value)(&to_core(event), now)).unwrap_or_default()
}

fn to_core(event: &Event) -> core::Event {
    let event = event.clone();
    core::Event {
        action: event.action,
        count: event.deprecated_count,
        event_time: event.event_time,
        first_timestamp: event.deprecated_first_timestamp,
        involved_object: event.regarding.unwrap_or_default(),
        last_timestamp: event.deprecated_last_timestamp,
        message: event.note,
        metadata: event.metadata,
        reason: event.reason,
        related: event.related,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
        series: event
            .series
            .map(|s| core::EventSeries { count: Some(s.count), last_observed_time: Some(s.last_observed_time) }),
        source: event.deprecated_source,
        type_: event.type_,
    }
}

fn from_core(event: &core::Event) -> Event {
    let event = event.clone();
    // A time that is not set cannot be said in this version: it is that of the event, or the first of all.
    let seen = event.event_time.clone();
    Event {
        action: event.action,
        deprecated_count: event.count,
        deprecated_first_timestamp: event.first_timestamp,
        deprecated_last_timestamp: event.last_timestamp,
        deprecated_source: event.source,
        event_time: event.event_time,
        metadata: event.metadata,
        note: event.message,
        reason: event.reason,
        regarding: Some(event.involved_object),
        related: event.related,
        reporting_controller: event.reporting_component,
        reporting_instance: event.reporting_instance,
        series: event.series.map(|s| EventSeries {
            count: s.count.unwrap_or_default(),
            last_observed_time: s
                .last_observed_time
                .or(seen)
                .unwrap_or(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(Timestamp::UNIX_EPOCH)),
        }),
        type_: event.type_,
    }
}
