//! Names that live as long as the process, each kept once: what kinds made at run time (custom resources) are called.
//!
//! [`crate::Names`] is small and copied everywhere, which is worth a few bytes that never come back for each custom
//! resource ever defined while a server runs. They are bounded.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

/// Bytes of all interned names together: a hundred thousand definitions.
const BYTES_MAX: usize = 32 * 1024 * 1024;

#[derive(Default)]
struct Table {
    known: HashSet<&'static str>,
    bytes: usize,
}

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

/// The one copy of a text; `None` when there are too many of them.
pub fn intern(text: &str) -> Option<&'static str> {
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let table = table.get_or_insert_default();
    if let Some(known) = table.known.get(text) {
        return Some(known);
    }
    if table.bytes.saturating_add(text.len()) > BYTES_MAX {
        return None;
    }
    let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
    table.bytes += text.len();
    table.known.insert(kept);
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_kept_once() {
        let first = intern("widgets.example.com").unwrap();
        let again = intern("widgets.example.com").unwrap();
        assert!(std::ptr::eq(first, again));
        assert_eq!(intern(&"x".repeat(BYTES_MAX + 1)), None);
    }
}
