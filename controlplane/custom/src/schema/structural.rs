//! structural
