//! API aggregation: which server serves a group and version. This one says so of its own; others are proxied to.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kube-aggregator/pkg/{controllers/autoregister,apiserver}`.

mod available;
pub(crate) mod discovery;
pub(crate) mod proxy;
pub(crate) mod register;

pub(crate) use proxy::Aggregator;
