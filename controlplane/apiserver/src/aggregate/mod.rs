//! API aggregation: which server serves a group and version. This one says so of its own; others are proxied to.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kube-aggregator/pkg/{controllers/autoregister,apiserver}`.

pub(crate) mod register;
