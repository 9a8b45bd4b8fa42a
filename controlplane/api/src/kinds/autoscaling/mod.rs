//! HorizontalPodAutoscaler, stored as `autoscaling/v2` and seen as `autoscaling/v1` too.

mod annotations;
mod convert;
mod metric;
mod v1;
mod v2;
