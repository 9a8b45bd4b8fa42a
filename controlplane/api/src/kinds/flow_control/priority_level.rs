//! PriorityLevelConfiguration: how much of the server requests of one priority may take, and how they wait.

use k8s_openapi::api::flowcontrol::v1::{
    ExemptPriorityLevelConfiguration, LimitResponse, LimitedPriorityLevelConfiguration, PriorityLevelConfiguration,
    PriorityLevelConfigurationSpec, QueuingConfiguration,
};

use super::GROUP;
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
};

const SHARES: i32 = 30;
const HAND_SIZE: i32 = 8;
const QUEUES: i32 = 64;
const QUEUES_MAX: i32 = 10_000_000;
const QUEUE_LENGTH: i32 = 50;
const HASH_BITS_MAX: f64 = 60.0;

impl Kind for PriorityLevelConfiguration {
    const NAMES: Names = Names::new(
        GROUP,
        "v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
        "prioritylevelconfiguration",
    );
    const SCOPE: Scope = Scope::Cluster;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Type", |p, _| Cell::from(spec(p).type_)).field::<PriorityLevelConfigurationSpec>("type"),
        Column::<Self>::text("NominalConcurrencyShares", |p, _| {
            shown(spec(p).limited.and_then(|l| l.nominal_concurrency_shares))
        })
        .field::<LimitedPriorityLevelConfiguration>("nominalConcurrencyShares"),
        Column::<Self>::text("Queues", |p, _| shown(queuing(p).and_then(|q| q.queues)))
            .field::<QueuingConfiguration>("queues"),
        Column::<Self>::text("HandSize", |p, _| shown(queuing(p).and_then(|q| q.hand_size)))
            .field::<QueuingConfiguration>("handSize"),
        Column::<Self>::text("QueueLengthLimit", |p, _| shown(queuing(p).and_then(|q| q.queue_length_limit)))
            .field::<QueuingConfiguration>("queueLengthLimit"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        if let Some(exempt) = &mut spec.exempt {
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        let Some(limited) = &mut spec.limited else { return };
        limited.nominal_concurrency_shares.get_or_insert(SHARES);
        limited.lendable_percent.get_or_insert(0);
        if let Some(queuing) = limited.limit_response.as_mut().and_then(|r| r.queuing.as_mut()) {
            let unset = |field: &mut Option<i32>, default| *field = field.filter(|v| *v != 0).or(Some(default));
            unset(&mut queuing.hand_size, HAND_SIZE);
            unset(&mut queuing.queues, QUEUES);
            unset(&mut queuing.queue_length_limit, QUEUE_LENGTH);
        }
    }

    crate::kind::status_apart!();
    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        validate_spec(&spec(self), name, &FieldPath::new("spec"), errs);
        validate_mandatory(&spec(self), name, &FieldPath::new("spec"), errs);
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let conditions = self.status.iter().flat_map(|s| s.conditions.iter().flatten());
        super::validate_conditions(conditions.map(|c| c.type_.as_ref()), errs);
    }
}

fn spec(level: &PriorityLevelConfiguration) -> PriorityLevelConfigurationSpec {
    level.spec.clone().unwrap_or_default()
}

fn queuing(level: &PriorityLevelConfiguration) -> Option<QueuingConfiguration> {
    spec(level).limited?.limit_response?.queuing
}

fn shown(number: Option<i32>) -> Cell {
    number.map_or_else(|| "<none>".into(), Cell::from)
}

fn validate_spec(spec: &PriorityLevelConfigurationSpec, name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let kind = spec.type_.as_str();
    if (name == "exempt") != (kind == "Exempt") {
        let detail = "type must be 'Exempt' if and only if name is 'exempt'";
        errs.invalid(&path.child("type"), kind, detail);
    }
    match kind {
        "Exempt" => {
            if spec.limited.is_some() {
                errs.forbidden(&path.child("limited"), "must be nil if the type is Exempt");
            }
            if let Some(exempt) = &spec.exempt {
                let at = path.child("exempt");
                validate_shares(exempt.nominal_concurrency_shares, exempt.lendable_percent, &at, errs);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                errs.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
            }
            match &spec.limited {
                None => errs.required(&path.child("limited"), "must not be empty when type is Limited"),
                Some(limited) => validate_limited(limited, &path.child("limited"), errs),
            }
        }
        kind => errs.not_supported(&path.child("type"), kind, &["Exempt", "Limited"]),
    }
}

/// What the server cannot do without stays as it is.
fn validate_mandatory(spec: &PriorityLevelConfigurationSpec, name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let (same, but) = match name {
        // Of the exempt level the shares may be changed.
        "exempt" => {
            let fixed = PriorityLevelConfigurationSpec {
                type_: "Exempt".to_owned(),
                exempt: spec.exempt.clone(),
                limited: None,
            };
            (*spec == fixed, " except the 'spec.exempt' field")
        }
        "catch-all" => (*spec == catch_all(), ""),
        _ => return,
    };
    if !same {
        let value = serde_json::to_value(spec).unwrap_or_default();
        errs.invalid(path, value, &format!("spec of '{name}'{but} must equal the fixed value"));
    }
}

/// # Source
/// Kubernetes `staging/src/k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go`.
fn catch_all() -> PriorityLevelConfigurationSpec {
    PriorityLevelConfigurationSpec {
        type_: "Limited".to_owned(),
        exempt: None::<ExemptPriorityLevelConfiguration>,
        limited: Some(LimitedPriorityLevelConfiguration {
            nominal_concurrency_shares: Some(5),
            lendable_percent: Some(0),
            borrowing_limit_percent: None,
            limit_response: Some(LimitResponse { type_: "Reject".to_owned(), queuing: None }),
        }),
    }
}

fn validate_shares(shares: Option<i32>, lendable: Option<i32>, path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(shares) = shares.filter(|s| *s < 0) {
        errs.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    if let Some(percent) = lendable.filter(|p| !(0..=100).contains(p)) {
        errs.invalid(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn validate_limited(limited: &LimitedPriorityLevelConfiguration, path: &FieldPath, errs: &mut FieldErrors) {
    validate_shares(limited.nominal_concurrency_shares, None, path, errs);
    let response = limited.limit_response.clone().unwrap_or_default();
    validate_response(&response, &path.child("limitResponse"), errs);
    validate_shares(None, limited.lendable_percent, path, errs);
    if let Some(percent) = limited.borrowing_limit_percent.filter(|p| *p < 0) {
        let detail = "if specified, must be a non-negative integer";
        errs.invalid(&path.child("borrowingLimitPercent"), percent, detail);
    }
}

fn validate_response(response: &LimitResponse, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("queuing");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", Some(_)) => {
            errs.forbidden(&at, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Queue", None) => errs.required(&at, "must not be empty if limited.limitResponse.type is Limited"),
        ("Queue", Some(queuing)) => validate_queuing(queuing, &at, errs),
        ("Reject", None) => {}
        (kind, _) => errs.not_supported(&path.child("type"), kind, &["Queue", "Reject"]),
    }
}

fn validate_queuing(queuing: &QueuingConfiguration, path: &FieldPath, errs: &mut FieldErrors) {
    let length = queuing.queue_length_limit.unwrap_or_default();
    if length <= 0 {
        errs.invalid(&path.child("queueLengthLimit"), length, "must be positive");
    }
    let (queues, hand) = (queuing.queues.unwrap_or_default(), queuing.hand_size.unwrap_or_default());
    if queues <= 0 {
        errs.invalid(&path.child("queues"), queues, "must be positive");
    } else if queues > QUEUES_MAX {
        errs.invalid(&path.child("queues"), queues, &format!("must not be greater than {QUEUES_MAX}"));
    }
    let at = path.child("handSize");
    if hand <= 0 {
        errs.invalid(&at, hand, "must be positive");
    } else if hand > queues {
        errs.invalid(&at, hand, &format!("should not be greater than queues ({queues})"));
    } else if (f64::from(queues).log2() * f64::from(hand)).ceil() > HASH_BITS_MAX {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS_MAX}"
        );
        errs.invalid(&at, hand, &detail);
    }
}
