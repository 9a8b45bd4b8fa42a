//! Field ownership and apply: of real kinds, in Kubernetes' own cases, and for anything at all.

mod anything;
mod kinds;
mod managers;
mod smd;
