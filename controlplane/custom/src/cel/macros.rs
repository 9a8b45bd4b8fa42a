//! Calls that are no functions: `has`, `all`, `exists`, `map`, `filter` and the others that bind a name.
//!
//! # Source
//! cel-go `parser/macro.go`, `ext/comprehensions.go`, `ext/bindings.go`, `cel/library.go` (optionals).

use super::{
    ast::{Expr, Macro, MacroKind, Node},
    lex::Wrong,
    parse::node,
};

/// A call, or the macro that has this name and number of arguments.
pub(crate) fn call(at: usize, target: Option<Box<Node>>, name: String, args: Vec<Node>) -> Result<Node, Wrong> {
    let Some(target) = target else {
        if name == "has" && args.len() == 1 {
            return has(at, args);
        }
        return node(at, Expr::Call { target: None, name, args });
    };
    let two = |kind| Some((kind, false));
    let found = match (name.as_str(), args.len()) {
        ("all", 2) => two(MacroKind::All),
        ("exists", 2) => two(MacroKind::Exists),
        ("exists_one" | "existsOne", 2) => two(MacroKind::ExistsOne),
        ("map", 2 | 3) => two(MacroKind::Map),
        ("filter", 2) => two(MacroKind::Filter),
        ("sortBy", 2) => two(MacroKind::SortBy),
        ("optMap", 2) => two(MacroKind::OptMap),
        ("optFlatMap", 2) => two(MacroKind::OptFlatMap),
        ("all", 3) => Some((MacroKind::All, true)),
        ("exists", 3) => Some((MacroKind::Exists, true)),
        ("exists_one" | "existsOne", 3) => Some((MacroKind::ExistsOne, true)),
        ("transformList", 3 | 4) => Some((MacroKind::TransformList, true)),
        ("transformMap", 3 | 4) => Some((MacroKind::TransformMap, true)),
        ("transformMapEntry", 3 | 4) => Some((MacroKind::TransformMapEntry, true)),
        ("bind", 3) if matches!(&target.expr, Expr::Ident(n) if n == "cel") => return bind(at, args),
        _ => None,
    };
    match found {
        Some((kind, has_second)) => bound(at, *target, kind, has_second, args),
        None => node(at, Expr::Call { target: Some(target), name, args }),
    }
}

fn has(at: usize, mut args: Vec<Node>) -> Result<Node, Wrong> {
    match args.pop() {
        Some(Node { at, expr: Expr::Select { of, field, optional: false, .. }, .. }) => {
            node(at as usize, Expr::Select { of, field, test: true, optional: false })
        }
        _ => Err((at, "invalid argument to has() macro".to_owned())),
    }
}

fn variable(arg: Node) -> Result<String, Wrong> {
    match arg.expr {
        Expr::Ident(name) if name != "__result__" => Ok(name),
        _ => Err((arg.at as usize, "argument must be a simple name".to_owned())),
    }
}

fn bound(at: usize, range: Node, kind: MacroKind, has_second: bool, args: Vec<Node>) -> Result<Node, Wrong> {
    let mut args = args.into_iter();
    let missing = || (at, "argument must be a simple name".to_owned());
    let first = variable(args.next().ok_or_else(missing)?)?;
    let second = if has_second { Some(variable(args.next().ok_or_else(missing)?)?) } else { None };
    if second.as_ref() == Some(&first) {
        return Err((at, "duplicate variable name".to_owned()));
    }
    let mut rest: Vec<Node> = args.collect();
    let body = rest.pop().ok_or_else(missing)?;
    let condition = rest.pop();
    node(at, Expr::Macro(Box::new(Macro { kind, range, first, second, condition, body })))
}

fn bind(at: usize, args: Vec<Node>) -> Result<Node, Wrong> {
    let mut args = args.into_iter();
    let (Some(name), Some(range), Some(body)) = (args.next(), args.next(), args.next()) else {
        return Err((at, "cel.bind() variable names must be simple identifiers".to_owned()));
    };
    let place = name.at as usize;
    let wrong = |_| (place, "cel.bind() variable names must be simple identifiers".to_owned());
    let first = variable(name).map_err(wrong)?;
    let bind = Macro { kind: MacroKind::Bind, range, first, second: None, condition: None, body };
    node(at, Expr::Macro(Box::new(bind)))
}
