//! The vocabulary of the Kubernetes API: kinds, defaulting, validation, selectors, quantities, patches, `Status`.
//!
//! Pure: no I/O, no clock, no randomness, no async. What needs the time or a random name takes it as an argument.
//! A kind is one file in [`kinds`] plus one line in its list; everything above works on [`AnyKind`] and [`Object`]
//! and knows no kind by name.

pub mod apply;
mod decode;
pub mod discovery;
pub mod error;
pub mod field;
pub mod intern;
mod ip;
pub mod kind;
pub mod kinds;
pub mod meta;
pub mod names;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod read;
pub mod schema;
pub mod selector;
pub mod table;
mod tree;
pub mod yaml;

pub use error::{ApiError, Reason};
pub use field::{FieldError, FieldErrors, FieldPath};
pub use intern::intern;
pub use k8s_openapi;
pub use kind::{Cell, Column, ColumnType, Field, Hub, Kind, Names, Scope, Storage, Sub, SubBehaviour, Verb};
pub use names::NameRule;
pub use object::{AnyKind, Decoded, KindRef, Object, ObjectKey, Revision, SubresourceInfo, kind_of};
pub use quantity::{Millicores, Quantity, QuantityError};
pub use selector::{FieldSelector, Selector, SelectorError};
