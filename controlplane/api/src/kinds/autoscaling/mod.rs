//! HorizontalPodAutoscaler, stored as `autoscaling/v2` and seen as `autoscaling/v1` too.

mod convert;
mod v1;
mod v2;
