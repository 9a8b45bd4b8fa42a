//! An OCI registry over a folder: the distribution API as a router that any HTTP server can mount.
//!
//! Invariants: content is stored under its digest and shown only after that was checked; what was answered with success is
//! on disk. This crate knows nothing of Kubernetes: who may do what is the embedder's business.
