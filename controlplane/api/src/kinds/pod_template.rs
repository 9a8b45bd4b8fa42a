//! PodTemplate: a template of pods as an object of its own.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go` (`ValidatePodTemplate`),
//! `pkg/registry/core/podtemplate/strategy.go`.

use k8s_openapi::api::core::v1::PodTemplate;

use super::{label_selector, pod};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
};

impl Kind for PodTemplate {
    const NAMES: Names = Names::new("", "v1", "PodTemplate", "podtemplates", "podtemplate");
    const SCOPE: Scope = Scope::Namespaced;
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Containers", |t, _| Cell::from(pod::template_containers(t.template.as_ref())))
            .help("Names of each container in the template."),
        Column::<Self>::text("Images", |t, _| Cell::from(pod::template_images(t.template.as_ref())))
            .help("Images referenced by each container in the template."),
        Column::<Self>::text("Pod Labels", |t, _| {
            let meta = t.template.as_ref().and_then(|t| t.metadata.as_ref());
            Cell::from(label_selector::labels_shown(meta.and_then(|m| m.labels.as_ref())))
        })
        .help("The labels for the pod template."),
    ];

    fn fill_defaults(&mut self) {
        pod::fill_template_defaults(self.template.get_or_insert_default());
    }

    fn generation_differs(&self, old: &Self) -> Option<bool> {
        Some(self.template != old.template)
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let default = Default::default();
        let template = self.template.as_ref().unwrap_or(&default);
        pod::validate_any_template(template, &FieldPath::new("template"), errs);
    }
}
