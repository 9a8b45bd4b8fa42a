//! Checks an expression before there are values: that names exist, that types fit, what it can cost at most.
//!
//! All that is wrong is said at once; where a part is wrong, it counts as `dyn`, so that nothing is said twice.
//!
//! # Source
//! cel-go `checker/checker.go`, `checker/cost.go`.

use std::{collections::HashMap, sync::Arc};

use super::{
    Env, Field, Size, Struct, Type,
    ast::{Expr, Literal, Macro, MacroKind, Node, Op},
    cost,
    eval::type_named,
    overloads,
    parse::located,
    types::{join, substitute, unify},
};

/// What is known of a whole expression.
pub(crate) struct Checked {
    pub(crate) result: Type,
    pub(crate) max_cost: u64,
}

/// What is known of a part.
struct Info {
    of: Type,
    size: Size,
    cost: u64,
}

impl Info {
    fn new(of: Type, size: Size, cost: u64) -> Self {
        Self { of, size, cost }
    }

    fn dynamic(cost: u64) -> Self {
        Self::new(Type::Dyn, Size::UNKNOWN, cost)
    }
}

struct Checker<'a> {
    text: &'a str,
    env: &'a Env,
    locals: Vec<(&'a str, Field)>,
    errors: Vec<String>,
}

/// Errors that are shown.
const ERRORS_MAX: usize = 20;

pub(crate) fn check(text: &str, root: &Node, env: &Env) -> Result<Checked, String> {
    let mut checker = Checker { text, env, locals: Vec::new(), errors: Vec::new() };
    let info = checker.node(root);
    if checker.errors.is_empty() {
        Ok(Checked { result: info.of, max_cost: info.cost })
    } else {
        Err(checker.errors.join("\n"))
    }
}

impl<'a> Checker<'a> {
    fn wrong(&mut self, at: u32, message: &str) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(located(self.text, at as usize, message));
        }
    }

    fn no_overload(&mut self, at: u32, name: &str, args: &[&Type], is_method: bool) -> Info {
        if args.iter().all(|t| t.is_dyn()) && !args.is_empty() && overloads::named(name).is_empty() {
            self.wrong(at, &format!("undeclared reference to '{name}' (in container '')"));
            return Info::dynamic(1);
        }
        let shown: Vec<String> = args.iter().map(ToString::to_string).collect();
        let shown = match (is_method, shown.split_first()) {
            (true, Some((target, rest))) => format!("{target}.({})", rest.join(", ")),
            _ => format!("({})", shown.join(", ")),
        };
        self.wrong(at, &format!("found no matching overload for '{name}' applied to '{shown}'"));
        Info::dynamic(1)
    }

    fn node(&mut self, node: &'a Node) -> Info {
        match &node.expr {
            Expr::Literal(literal) => constant(literal),
            Expr::Ident(name) => self.identifier(node.at, name),
            Expr::Select { of, field, test, optional } => self.select(node, of, field, *test, *optional),
            Expr::Index { of, index, optional } => self.index(node.at, of, index, *optional),
            Expr::Call { target, name, args } => self.call(node.at, target.as_deref(), name, args),
            Expr::Not(of) => self.unary(node.at, "!_", of, &[Type::Bool]),
            Expr::Negate(of) => self.unary(node.at, "-_", of, &[Type::Int, Type::Double, Type::Duration]),
            Expr::Binary(op, a, b) => self.binary(node.at, *op, a, b),
            Expr::And(parts) => self.joined(node.at, "_&&_", parts),
            Expr::Or(parts) => self.joined(node.at, "_||_", parts),
            Expr::If(parts) => self.conditional(node.at, parts),
            Expr::List(items) => self.list(items),
            Expr::Map(entries) => self.map(entries),
            Expr::Struct { name, fields } => self.build(node.at, name, fields),
            Expr::Macro(m) => self.run_macro(node.at, m),
        }
    }

    fn known(&self, name: &str) -> Option<Field> {
        let local = self.locals.iter().rev().find(|(n, _)| *n == name).map(|(_, f)| f);
        local.or_else(|| self.env.variables.get(name)).cloned()
    }

    fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|(n, _)| *n == name)
    }

    fn identifier(&mut self, at: u32, name: &str) -> Info {
        if let Some(field) = self.known(name) {
            return Info::new(field.of, field.size, 1);
        }
        if type_named(name).is_some() {
            return Info::new(Type::Type, Size::at_most(1), 1);
        }
        self.wrong(at, &format!("undeclared reference to '{name}' (in container '')"));
        Info::dynamic(1)
    }

    fn select(&mut self, node: &'a Node, of: &'a Node, field: &str, test: bool, optional: bool) -> Info {
        if let Expr::Ident(name) = &of.expr
            && !self.is_local(name)
        {
            if name == "variables"
                && let Some(composed) = &self.env.composed
            {
                let Some(found) = composed.get(field).cloned() else {
                    self.wrong(node.at, &format!("undefined field '{field}'"));
                    return Info::dynamic(1);
                };
                return if test { Info::new(Type::Bool, Size::UNKNOWN, 1) } else { Info::new(found.of, found.size, 1) };
            }
            if let Some(found) = self.known(&format!("{name}.{field}")) {
                return Info::new(found.of, found.size, 1);
            }
        }
        if node.dotted().is_some_and(|name| type_named(&name).is_some()) {
            return Info::new(Type::Type, Size::at_most(1), 1);
        }
        let of = self.node(of);
        let cost = of.cost.saturating_add(1);
        let (inner, viral) = match &of.of {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let found = match &inner {
            Type::Dyn => Field { of: Type::Dyn, size: Size::UNKNOWN },
            Type::Map(_, value) => Field { of: (**value).clone(), size: of.size.item() },
            Type::Struct(structure) => match structure.fields.get(field) {
                Some(found) => found.clone(),
                None if structure.open => Field { of: Type::Dyn, size: Size::UNKNOWN },
                None => {
                    self.wrong(node.at, &format!("undefined field '{field}'"));
                    return Info::dynamic(cost);
                }
            },
            other => {
                self.wrong(node.at, &format!("type '{other}' does not support field selection"));
                return Info::dynamic(cost);
            }
        };
        match (test, optional || viral) {
            (true, _) => Info::new(Type::Bool, Size::UNKNOWN, cost),
            (false, true) => Info::new(Type::optional(found.of), found.size, cost),
            (false, false) => Info::new(found.of, found.size, cost),
        }
    }

    fn index(&mut self, at: u32, of: &'a Node, index: &'a Node, optional: bool) -> Info {
        let of = self.node(of);
        let index = self.node(index);
        let cost = of.cost.saturating_add(index.cost).saturating_add(1);
        let (inner, viral) = match &of.of {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let found = match &inner {
            Type::Dyn => Type::Dyn,
            Type::List(item) if matches!(index.of, Type::Int | Type::Dyn | Type::Uint) => (**item).clone(),
            Type::Map(key, value) if key.accepts(&index.of) => (**value).clone(),
            Type::Struct(s) if s.open => Type::Dyn,
            _ => {
                let name = if optional { "_[?_]" } else { "_[_]" };
                return self.no_overload(at, name, &[&of.of, &index.of], false);
            }
        };
        let found = if optional || viral { Type::optional(found) } else { found };
        Info::new(found, of.size.item(), cost)
    }

    fn call(&mut self, at: u32, target: Option<&'a Node>, name: &str, args: &'a [Node]) -> Info {
        if let Some(target) = target
            && let Some(space) = target.dotted()
            && !self.is_local(&space)
        {
            let full = format!("{space}.{name}");
            if overloads::is_function(&full) {
                let args: Vec<Info> = args.iter().map(|a| self.node(a)).collect();
                return self.resolve(at, &full, false, &args);
            }
        }
        let is_method = target.is_some();
        let infos: Vec<Info> = target.into_iter().chain(args).map(|a| self.node(a)).collect();
        if !overloads::named(name).iter().any(|o| o.method == is_method) {
            self.wrong(at, &format!("undeclared reference to '{name}' (in container '')"));
            return Info::dynamic(1);
        }
        self.resolve(at, name, is_method, &infos)
    }

    fn resolve(&mut self, at: u32, name: &str, is_method: bool, args: &[Info]) -> Info {
        let mut result: Option<Type> = None;
        for overload in overloads::named(name).iter().filter(|o| o.method == is_method && o.args.len() == args.len()) {
            let mut bound = HashMap::new();
            if overload.args.iter().zip(args).all(|(want, got)| unify(want, &got.of, &mut bound)) {
                let found = substitute(&overload.result, &bound);
                result = Some(result.map_or_else(|| found.clone(), |r| if r == found { r } else { Type::Dyn }));
            }
        }
        let Some(result) = result else {
            let types: Vec<&Type> = args.iter().map(|a| &a.of).collect();
            return self.no_overload(at, name, &types, is_method);
        };
        let sizes: Vec<&Size> = args.iter().map(|a| &a.size).collect();
        let (own, size) = cost::call(name, &sizes);
        let cost = args.iter().fold(own, |sum, a| sum.saturating_add(a.cost));
        Info::new(result, size, cost)
    }

    fn unary(&mut self, at: u32, name: &str, of: &'a Node, types: &[Type]) -> Info {
        let of = self.node(of);
        if of.of.is_dyn() || types.contains(&of.of) {
            return Info::new(of.of, Size::UNKNOWN, of.cost.saturating_add(1));
        }
        self.no_overload(at, name, &[&of.of], false)
    }

    fn binary(&mut self, at: u32, op: Op, a: &'a Node, b: &'a Node) -> Info {
        let a = self.node(a);
        let b = self.node(b);
        let Some(result) = operator(op, &a.of, &b.of) else {
            return self.no_overload(at, op.name(), &[&a.of, &b.of], false);
        };
        let (own, size) = operator_cost(op, &a, &b);
        Info::new(result, size, own.saturating_add(a.cost).saturating_add(b.cost))
    }

    fn joined(&mut self, at: u32, name: &str, parts: &'a [Node]) -> Info {
        let mut cost: u64 = 0;
        for part in parts {
            let info = self.node(part);
            cost = cost.saturating_add(info.cost);
            if !Type::Bool.accepts(&info.of) {
                self.no_overload(at, name, &[&Type::Bool, &info.of], false);
            }
        }
        Info::new(Type::Bool, Size::UNKNOWN, cost)
    }

    fn conditional(&mut self, at: u32, parts: &'a [Node; 3]) -> Info {
        let [condition, yes, no] = parts;
        let condition = self.node(condition);
        let yes = self.node(yes);
        let no = self.node(no);
        let cost = condition.cost.saturating_add(yes.cost.max(no.cost));
        let result = join(&yes.of, &no.of);
        let mixed = result.is_dyn() && !yes.of.is_dyn() && !no.of.is_dyn();
        if mixed || !Type::Bool.accepts(&condition.of) {
            return self.no_overload(at, "_?_:_", &[&condition.of, &yes.of, &no.of], false);
        }
        Info::new(result, yes.size.larger(&no.size), cost)
    }

    fn list(&mut self, items: &'a [(Node, bool)]) -> Info {
        let mut of: Option<Type> = None;
        let mut size: Option<Size> = None;
        let mut cost: u64 = 10;
        for (item, optional) in items {
            let info = self.node(item);
            let found = match info.of {
                Type::Optional(inner) if *optional => (*inner).clone(),
                other => other,
            };
            cost = cost.saturating_add(info.cost);
            of = Some(of.map_or_else(|| found.clone(), |of| join(&of, &found)));
            size = Some(size.map_or_else(|| info.size.clone(), |s| s.larger(&info.size)));
        }
        let size = Size::of_items(items.len() as u64, size.unwrap_or(Size::UNKNOWN));
        Info::new(Type::list(of.unwrap_or(Type::Dyn)), size, cost)
    }

    fn map(&mut self, entries: &'a [(Node, Node, bool)]) -> Info {
        let mut of: Option<(Type, Type)> = None;
        let mut cost: u64 = 30;
        for (key, value, optional) in entries {
            let key = self.node(key);
            let value = self.node(value);
            let found = match value.of {
                Type::Optional(inner) if *optional => (*inner).clone(),
                other => other,
            };
            cost = cost.saturating_add(key.cost).saturating_add(value.cost);
            of = Some(match of {
                None => (key.of, found),
                Some((k, v)) => (join(&k, &key.of), join(&v, &found)),
            });
        }
        let (key, value) = of.unwrap_or((Type::Dyn, Type::Dyn));
        Info::new(Type::map(key, value), Size::at_most(entries.len() as u64), cost)
    }

    fn build(&mut self, at: u32, name: &str, fields: &'a [super::ast::StructField]) -> Info {
        let known = self.env.patches && (name == "Object" || name.starts_with("Object.") || name == "JSONPatch");
        if !known {
            self.wrong(at, &format!("undeclared reference to '{name}' (in container '')"));
        }
        let mut cost: u64 = 40;
        for field in fields {
            let info = self.node(&field.value);
            cost = cost.saturating_add(info.cost);
            if name != "JSONPatch" {
                continue;
            }
            let wanted = match field.name.as_str() {
                "op" | "path" | "from" => Type::String,
                "value" => Type::Dyn,
                other => {
                    self.wrong(field.at, &format!("undefined field '{other}'"));
                    continue;
                }
            };
            if !wanted.accepts(&info.of) {
                let message =
                    format!("expected type of field '{}' is '{wanted}' but provided type is '{}'", field.name, info.of);
                self.wrong(field.at, &message);
            }
        }
        Info::new(Type::built(name), Size::UNKNOWN, cost)
    }

    fn run_macro(&mut self, at: u32, m: &'a Macro) -> Info {
        let range = self.node(&m.range);
        match m.kind {
            MacroKind::Bind => {
                let body = self.bound(&[(&m.first, range.of, range.size)], &m.body);
                return Info::new(body.of, body.size, body.cost.saturating_add(range.cost).saturating_add(10));
            }
            MacroKind::OptMap | MacroKind::OptFlatMap => {
                let inner = match &range.of {
                    Type::Optional(inner) => (**inner).clone(),
                    Type::Dyn => Type::Dyn,
                    other => {
                        let other = other.clone();
                        return self.no_overload(m.range.at, "optMap", &[&other], true);
                    }
                };
                let body = self.bound(&[(&m.first, inner, range.size)], &m.body);
                let cost = body.cost.saturating_add(range.cost).saturating_add(10);
                let result = if m.kind == MacroKind::OptMap { Type::optional(body.of) } else { body.of };
                return Info::new(result, body.size, cost);
            }
            _ => {}
        }
        self.fold(at, m, &range)
    }

    fn bound(&mut self, bind: &[(&'a str, Type, Size)], body: &'a Node) -> Info {
        let before = self.locals.len();
        for (name, of, size) in bind {
            self.locals.push((name, Field { of: of.clone(), size: size.clone() }));
        }
        let info = self.node(body);
        self.locals.truncate(before);
        info
    }

    fn fold(&mut self, at: u32, m: &'a Macro, range: &Info) -> Info {
        let key_size = range.size.key.as_deref().cloned().unwrap_or(Size::UNKNOWN);
        let (key, value, key_size) = match &range.of {
            Type::List(item) => (Type::Int, (**item).clone(), Size::at_most(1)),
            Type::Map(key, value) => ((**key).clone(), (**value).clone(), key_size),
            Type::Dyn => (Type::Dyn, Type::Dyn, Size::UNKNOWN),
            other => {
                let shown = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.wrong(m.range.at, &shown);
                (Type::Dyn, Type::Dyn, Size::UNKNOWN)
            }
        };
        let is_map = matches!(range.of, Type::Map(..));
        let item = range.size.item();
        let single = if is_map { (key.clone(), key_size.clone()) } else { (value.clone(), item.clone()) };
        let bind = match &m.second {
            None => vec![(m.first.as_str(), single.0.clone(), single.1.clone())],
            Some(second) => vec![(m.first.as_str(), key.clone(), key_size), (second.as_str(), value, item)],
        };
        let condition = m.condition.as_ref().map(|c| self.bound(&bind, c));
        let body = self.bound(&bind, &m.body);
        let wants_bool =
            matches!(m.kind, MacroKind::All | MacroKind::Exists | MacroKind::ExistsOne | MacroKind::Filter);
        for checked in condition.iter().chain(wants_bool.then_some(&body)) {
            if !Type::Bool.accepts(&checked.of) {
                self.no_overload(at, "_&&_", &[&Type::Bool, &checked.of], false);
            }
        }
        let rounds = range.size.units();
        let overhead = if wants_bool && m.kind != MacroKind::Filter { 3 } else { 12 };
        let round = condition.map_or(0, |c| c.cost).saturating_add(body.cost).saturating_add(overhead);
        let cost = range.cost.saturating_add(rounds.saturating_mul(round)).saturating_add(1);
        let (of, size) = match m.kind {
            MacroKind::Map | MacroKind::TransformList => (Type::list(body.of), Size::of_items(rounds, body.size)),
            MacroKind::Filter | MacroKind::SortBy => (Type::list(single.0), Size::of_items(rounds, single.1)),
            MacroKind::TransformMap => (Type::map(key, body.of), Size::of_items(rounds, body.size)),
            MacroKind::TransformMapEntry => (body.of, Size::at_most(rounds)),
            _ => (Type::Bool, Size::UNKNOWN),
        };
        Info::new(of, size, cost)
    }
}

impl Type {
    /// The type of `NAME{...}`.
    pub fn built(name: &str) -> Self {
        Self::Struct(Arc::new(Struct { name: name.to_owned(), open: name != "JSONPatch", ..Struct::default() }))
    }
}

fn constant(literal: &Literal) -> Info {
    let (of, size) = match literal {
        Literal::Null => (Type::Null, 1),
        Literal::Bool(_) => (Type::Bool, 1),
        Literal::Int(_) => (Type::Int, 1),
        Literal::Uint(_) => (Type::Uint, 1),
        Literal::Double(_) => (Type::Double, 1),
        Literal::String(s) => (Type::String, s.len() as u64),
        Literal::Bytes(b) => (Type::Bytes, b.len() as u64),
    };
    Info::new(of, Size::at_most(size), 0)
}

fn is_number(of: &Type) -> bool {
    matches!(of, Type::Int | Type::Uint | Type::Double)
}

fn operator(op: Op, a: &Type, b: &Type) -> Option<Type> {
    let either_dyn = a.is_dyn() || b.is_dyn();
    let same = || a.accepts(b) || b.accepts(a);
    let ordered = |t: &Type| {
        is_number(t)
            || matches!(t, Type::Bool | Type::String | Type::Bytes | Type::Duration | Type::Timestamp | Type::Dyn)
    };
    match op {
        Op::Eq | Op::Ne => same().then_some(Type::Bool),
        Op::Lt | Op::Le | Op::Gt | Op::Ge => {
            let fits = ordered(a) && ordered(b) && (either_dyn || a == b || is_number(a) && is_number(b));
            fits.then_some(Type::Bool)
        }
        Op::In => match b {
            Type::Dyn => Some(Type::Bool),
            Type::List(item) => (item.accepts(a) || a.accepts(item)).then_some(Type::Bool),
            Type::Map(key, _) => (key.accepts(a) || a.accepts(key)).then_some(Type::Bool),
            _ => None,
        },
        Op::Add => match (a, b) {
            (Type::Timestamp, Type::Duration) | (Type::Duration, Type::Timestamp) => Some(Type::Timestamp),
            (Type::List(x), Type::List(y)) => same().then(|| Type::list(join(x, y))),
            (Type::String | Type::Bytes | Type::Duration, b) if a == b => Some(a.clone()),
            _ => arithmetic(a, b),
        },
        Op::Sub => match (a, b) {
            (Type::Timestamp, Type::Duration) => Some(Type::Timestamp),
            (Type::Timestamp, Type::Timestamp) | (Type::Duration, Type::Duration) => Some(Type::Duration),
            _ => arithmetic(a, b),
        },
        Op::Mul | Op::Div => arithmetic(a, b),
        Op::Rem => arithmetic(a, b).filter(|t| *t != Type::Double),
    }
}

fn arithmetic(a: &Type, b: &Type) -> Option<Type> {
    let other = if a.is_dyn() { b } else { a };
    if a.is_dyn() || b.is_dyn() {
        let fits = !matches!(other, Type::Bool | Type::Null | Type::Map(..) | Type::Struct(_) | Type::Type);
        return fits.then_some(Type::Dyn);
    }
    (a == b && is_number(a)).then(|| a.clone())
}

fn operator_cost(op: Op, a: &Info, b: &Info) -> (u64, Size) {
    let sized = |t: &Type| {
        matches!(t, Type::String | Type::Bytes | Type::List(_) | Type::Map(..) | Type::Dyn | Type::Struct(_))
    };
    let (x, y) = (a.size.units(), b.size.units());
    match op {
        Op::Add if matches!(a.of, Type::String | Type::Bytes | Type::Dyn) && sized(&b.of) => {
            (cost::walk(x.saturating_add(y)).max(1), Size::at_most(x.saturating_add(y)))
        }
        Op::Add if matches!(a.of, Type::List(_)) => (1, Size::of_items(x.saturating_add(y), a.size.item())),
        Op::In if !matches!(b.of, Type::Map(..)) => (y.max(1), Size::UNKNOWN),
        Op::Eq | Op::Ne | Op::Lt | Op::Le | Op::Gt | Op::Ge if sized(&a.of) && sized(&b.of) => {
            (cost::walk(x.min(y)).max(1), Size::UNKNOWN)
        }
        _ => (1, Size::UNKNOWN),
    }
}
