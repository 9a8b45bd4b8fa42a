//! `autoscaling/v1`: the same autoscalers, of which only the CPU can be said.

use k8s_openapi::api::autoscaling::{v1::HorizontalPodAutoscaler, v2};

use super::convert;
use crate::{
    field::FieldErrors,
    kind::{Cell, Column, Hub, Kind, Names, Scope, Sub},
    object::{Object, kind_of},
};

impl Kind for HorizontalPodAutoscaler {
    const NAMES: Names = Names { version: "v1", ..<v2::HorizontalPodAutoscaler as Kind>::NAMES };
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const HUB: Option<Hub<Self>> = Some(Hub {
        kind: kind_of::<v2::HorizontalPodAutoscaler>,
        to: |v1| Ok(Box::new(convert::to_v2(v1)) as Box<dyn Object>),
        from: convert::from_v2,
        fields: &[],
    });
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Reference", |h, _| {
            let target = &h.spec.scale_target_ref;
            Cell::from(format!("{}/{}", target.kind, target.name))
        })
        .field::<v2::HorizontalPodAutoscalerSpec>("scaleTargetRef"),
        Column::<Self>::text("Targets", |h, _| Cell::from(super::v2::targets(&convert::to_v2(h))))
            .field::<v2::HorizontalPodAutoscalerSpec>("metrics"),
        Column::<Self>::text("MinPods", |h, _| {
            Cell::from(h.spec.min_replicas.map_or_else(|| "<unset>".to_owned(), |m| m.to_string()))
        })
        .field::<v2::HorizontalPodAutoscalerSpec>("minReplicas"),
        Column::<Self>::text("MaxPods", |h, _| Cell::from(h.spec.max_replicas))
            .field::<v2::HorizontalPodAutoscalerSpec>("maxReplicas"),
        Column::<Self>::text("Replicas", |h, _| Cell::from(h.status.as_ref().map_or(0, |s| s.current_replicas)))
            .field::<v2::HorizontalPodAutoscalerStatus>("currentReplicas"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        self.spec.min_replicas.get_or_insert(1);
    }

    crate::kind::status_apart!();

    /// As the version that is stored is checked.
    fn validate(&self, errs: &mut FieldErrors) {
        let mut stored = convert::to_v2(self);
        stored.fill_defaults();
        stored.validate(errs);
    }
}
