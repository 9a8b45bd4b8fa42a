//! Field ownership and apply: of real kinds, in Kubernetes' own cases, and for anything at all.

mod kinds;
mod smd;
