//! Pulls from a registry, and from one that misbehaves.
