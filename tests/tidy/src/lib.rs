//! The rules of the code base that neither the compiler nor clippy checks. They are all in `tests/it`: the arrows between
//! crates, what the pure crates may use, one version of each heavy dependency, and what every source file looks like.
