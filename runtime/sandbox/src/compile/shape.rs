//! Bounds on a module's shape, read before it is compiled: what makes a compiler slow for its size.

use wasmparser::{FunctionBody, Operator, Parser, Payload};

use crate::{CompileLimits, LoadError};

fn too_many(what: &str, found: u64, limit: u64) -> LoadError {
    LoadError::TooComplex { what: format!("{found} {what}; the limit is {limit}") }
}

/// Bounds that need no look into functions: their number and the size of each.
///
/// # Errors
/// `TooComplex`, naming the bound; `Invalid` when the file is broken.
pub(crate) fn check(wasm: &[u8], limits: &CompileLimits) -> Result<(), LoadError> {
    let mut functions = 0_u64;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(invalid)? {
            Payload::CodeSectionStart { count, .. } => {
                functions += u64::from(count);
                if functions > u64::from(limits.functions_max) {
                    return Err(too_many("functions", functions, limits.functions_max.into()));
                }
            }
            Payload::CodeSectionEntry(body) => {
                let bytes = body.range().len() as u64;
                if bytes > u64::from(limits.function_bytes_max) {
                    return Err(too_many("bytes in one function", bytes, limits.function_bytes_max.into()));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Bounds on what functions are made of. Reads all code: done where it is compiled.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_bodies(wasm: &[u8], nesting_max: u32) -> Result<(), LoadError> {
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::CodeSectionEntry(body) = payload.map_err(invalid)? {
            let depth = nesting(&body).map_err(invalid)?;
            if depth > nesting_max {
                return Err(too_many("blocks within each other", depth.into(), nesting_max.into()));
            }
        }
    }
    Ok(())
}

fn nesting(body: &FunctionBody<'_>) -> Result<u32, wasmparser::BinaryReaderError> {
    let (mut depth, mut deepest) = (0_u32, 0);
    for operator in body.get_operators_reader()? {
        match operator? {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } | Operator::TryTable { .. } => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            Operator::End => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(deepest)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn invalid(error: wasmparser::BinaryReaderError) -> LoadError {
    LoadError::Invalid { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let limits =
            CompileLimits { functions_max: 2, function_bytes_max: 100, nesting_max: 3, ..CompileLimits::default() };
        let nested = |depth: usize| format!("(module (func {} {}))", "(block ".repeat(depth), ")".repeat(depth));
        let cases = [
            ("(module (func) (func))".to_owned(), None),
            ("(module (func) (func) (func))".to_owned(), Some("3 functions; the limit is 2")),
            (
                "(component (core module (func) (func)) (core module (func)))".to_owned(),
                Some("3 functions; the limit is 2"),
            ),
            (format!("(module (func {}))", "nop ".repeat(200)), Some("bytes in one function; the limit is 100")),
            (nested(3), None),
            (nested(4), Some("4 blocks within each other; the limit is 3")),
        ];
        for (text, wanted) in cases {
            let wasm = wat::parse_str(&text).unwrap();
            let found = check(&wasm, &limits).and_then(|()| check_bodies(&wasm, limits.nesting_max));
            match (wanted, found) {
                (None, Ok(())) => {}
                (Some(wanted), Err(error)) if error.to_string().contains(wanted) => {}
                (_, found) => panic!("{text}: {found:?}"),
            }
        }
    }
}
