//! list_type
