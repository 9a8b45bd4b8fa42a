//! What users add to the API: kinds from CustomResourceDefinitions, and rules in CEL.
//!
//! Pure, as the vocabulary is: schemas, pruning, defaulting, validation and the evaluation of expressions; no I/O and no
//! clock. The API server decides when a definition is served and fetches what a policy refers to.

pub mod cel;
pub mod definition;
pub mod kind;
pub mod schema;

pub use definition::{Approval, check_stored_versions, validate_definition};
pub use kind::{CustomKind, CustomObject, kinds};
