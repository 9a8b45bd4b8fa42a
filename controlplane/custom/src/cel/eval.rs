//! Evaluates a tree. Every step and every byte that it makes is paid for from the budget first.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    sync::Arc,
};

use super::{
    Budget, COST_PER_CALL_MAX, EvalError, Type, Vars,
    ast::{Expr, Literal, Macro, MacroKind, Node, Op},
    functions, overloads,
    value::{Built, Key, Text, Value},
};

pub(crate) type Result<'a> = std::result::Result<Value<'a>, EvalError>;

/// One evaluation.
pub(crate) struct Machine<'a, 'b> {
    pub(crate) vars: &'b Vars<'a>,
    budget: &'b Budget,
    left: Cell<u64>,
    locals: RefCell<Vec<(&'a str, Value<'a>)>>,
    nesting: Cell<u16>,
}

/// How deep `variables` may refer to each other.
const NESTING_MAX: u16 = 4;

pub(crate) fn evaluate<'a>(root: &'a Node, vars: &Vars<'a>, budget: &Budget) -> Result<'a> {
    let machine =
        Machine { vars, budget, left: Cell::new(COST_PER_CALL_MAX), locals: RefCell::default(), nesting: Cell::new(0) };
    machine.eval(root)
}

impl<'a> Machine<'a, '_> {
    /// Pays.
    pub(crate) fn spend(&self, units: u64) -> std::result::Result<(), EvalError> {
        let left = self.left.get();
        // What is too much for this evaluation takes no more from the others than it could have used.
        self.budget.spend(units.min(left))?;
        self.left.set(left.saturating_sub(units));
        if units <= left { Ok(()) } else { Err(EvalError::Cost) }
    }

    /// Pays for walking over so many bytes.
    pub(crate) fn spend_bytes(&self, bytes: usize) -> std::result::Result<(), EvalError> {
        self.spend((bytes as u64).div_ceil(10))
    }

    pub(crate) fn eval(&self, node: &'a Node) -> Result<'a> {
        match &node.expr {
            Expr::Literal(literal) => Ok(constant(literal)),
            Expr::Ident(name) => self.identifier(name),
            Expr::Select { of, field, test, optional } => self.select(node, of, field, *test, *optional),
            Expr::Index { of, index, optional } => self.index(of, index, *optional),
            Expr::Call { target, name, args } => self.call(target.as_deref(), name, args),
            Expr::Not(of) => self.not(of),
            Expr::Negate(of) => self.negate(of),
            Expr::Binary(op, a, b) => self.binary(*op, a, b),
            Expr::And(parts) => self.joined(parts, false),
            Expr::Or(parts) => self.joined(parts, true),
            Expr::If(parts) => self.conditional(parts),
            Expr::List(items) => self.list(items),
            Expr::Map(entries) => self.map(entries),
            Expr::Struct { name, fields } => self.build(name, fields),
            Expr::Macro(m) => self.run_macro(m),
        }
    }

    fn local(&self, name: &str) -> Option<Value<'a>> {
        self.locals.borrow().iter().rev().find(|(n, _)| *n == name).map(|(_, v)| v.clone())
    }

    fn identifier(&self, name: &'a str) -> Result<'a> {
        self.spend(1)?;
        if let Some(value) = self.local(name) {
            return Ok(value);
        }
        if let Some(value) = self.vars.values.get(name) {
            return Ok(value.clone());
        }
        match type_named(name) {
            Some(of) => Ok(Value::Type(of)),
            None => Err(EvalError::new(format!("no such attribute(s): {name}"))),
        }
    }

    /// `variables.NAME`, computed once.
    fn composed(&self, name: &'a str) -> Option<Result<'a>> {
        let (name, expression) = self.vars.composed.iter().find(|(n, _)| *n == name)?;
        if let Some(done) = self.vars.done.borrow().get(name) {
            return Some(done.clone());
        }
        if self.nesting.get() >= NESTING_MAX {
            return Some(Err(EvalError::new("variables refer to each other too deeply")));
        }
        self.nesting.set(self.nesting.get() + 1);
        let locals = self.locals.take();
        let result = self.eval(&expression.inner.root);
        self.locals.replace(locals);
        self.nesting.set(self.nesting.get() - 1);
        let result = result.map_err(|error| match error {
            EvalError::Failed(text) => {
                EvalError::new(format!("composited variable {name:?} fails to evaluate: {text}"))
            }
            cost => cost,
        });
        if result != Err(EvalError::Cost) {
            self.vars.done.borrow_mut().insert(name, result.clone());
        }
        Some(result)
    }

    fn select(&self, node: &'a Node, of: &'a Node, field: &'a str, test: bool, optional: bool) -> Result<'a> {
        self.spend(1)?;
        if let Expr::Ident(name) = &of.expr
            && self.local(name).is_none()
        {
            if name == "variables"
                && let Some(result) = self.composed(field)
            {
                return if test { result.map(|_| Value::Bool(true)) } else { result };
            }
            if name == "authorizer"
                && let Some(value) = self.vars.values.get(format!("authorizer.{field}").as_str())
            {
                return Ok(value.clone());
            }
        }
        if let Some(name) = node.dotted()
            && let Some(of) = type_named(&name)
        {
            return Ok(Value::Type(of));
        }
        let value = self.eval(of)?;
        if test {
            return Ok(Value::Bool(value.field(field)?.is_some()));
        }
        if let Value::Optional(inner) = &value {
            let found = match inner {
                Some(inner) => inner.field(field)?,
                None => None,
            };
            return Ok(Value::Optional(found.map(Arc::new)));
        }
        match value.field(field)? {
            Some(found) if optional => Ok(Value::some(found)),
            Some(found) => Ok(found),
            None if optional => Ok(Value::Optional(None)),
            None => Err(EvalError::new(format!("no such key: {field}"))),
        }
    }

    fn index(&self, of: &'a Node, index: &'a Node, optional: bool) -> Result<'a> {
        let of = self.eval(of)?;
        let index = self.eval(index)?;
        self.spend(1)?;
        let (of, optional) = match of {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            of => (of, optional),
        };
        match of.item(&index) {
            Ok(found) if optional => Ok(Value::some(found)),
            Err(EvalError::Failed(text)) if optional && !text.starts_with("no such overload") => {
                Ok(Value::Optional(None))
            }
            other => other,
        }
    }

    fn call(&self, target: Option<&'a Node>, name: &'a str, args: &'a [Node]) -> Result<'a> {
        if let Some(target) = target
            && let Some(space) = target.dotted()
            && self.local(&space).is_none()
        {
            let full = format!("{space}.{name}");
            if overloads::is_function(&full) {
                return self.invoke(&full, None, args);
            }
        }
        let target = target.map(|t| self.eval(t)).transpose()?;
        self.invoke(name, target, args)
    }

    fn invoke(&self, name: &str, target: Option<Value<'a>>, args: &'a [Node]) -> Result<'a> {
        let is_method = target.is_some();
        let mut values = Vec::with_capacity(args.len() + 1);
        values.extend(target);
        // `optional.orValue(x)` needs its argument only when there is nothing.
        if let ("or" | "orValue", [Value::Optional(Some(inner))]) = (name, values.as_slice()) {
            self.spend(1)?;
            return Ok(if name == "or" { Value::Optional(Some(Arc::clone(inner))) } else { (**inner).clone() });
        }
        for arg in args {
            values.push(self.eval(arg)?);
        }
        self.spend(1)?;
        functions::call(self, name, is_method, values)
    }

    fn not(&self, of: &'a Node) -> Result<'a> {
        let value = self.eval(of)?;
        self.spend(1)?;
        value.as_bool().map(|b| Value::Bool(!b)).ok_or_else(EvalError::overload)
    }

    fn negate(&self, of: &'a Node) -> Result<'a> {
        let value = self.eval(of)?;
        self.spend(1)?;
        match value {
            Value::Int(n) => n.checked_neg().map(Value::Int).ok_or_else(|| EvalError::new("integer overflow")),
            Value::Double(n) => Ok(Value::Double(-n)),
            Value::Duration(d) => Ok(Value::Duration(-d)),
            _ => Err(EvalError::overload()),
        }
    }

    fn binary(&self, op: Op, a: &'a Node, b: &'a Node) -> Result<'a> {
        let a = self.eval(a)?;
        let b = self.eval(b)?;
        self.spend(1)?;
        functions::binary(self, op, &a, &b)
    }

    /// `&&` and `||`: what decides the result wins over what fails.
    fn joined(&self, parts: &'a [Node], decides: bool) -> Result<'a> {
        let mut failed = None;
        for part in parts {
            match self.eval(part) {
                Ok(Value::Bool(b)) if b == decides => return Ok(Value::Bool(b)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or_else(|| Some(EvalError::overload())),
                Err(EvalError::Cost) => return Err(EvalError::Cost),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn conditional(&self, parts: &'a [Node; 3]) -> Result<'a> {
        match self.eval(&parts[0])?.as_bool() {
            Some(true) => self.eval(&parts[1]),
            Some(false) => self.eval(&parts[2]),
            None => Err(EvalError::overload()),
        }
    }

    fn list(&self, items: &'a [(Node, bool)]) -> Result<'a> {
        self.spend(10)?;
        let mut list = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.eval(item)?, optional) {
                (Value::Optional(inner), true) => list.extend(inner.map(|v| (*v).clone())),
                (value, _) => list.push(value),
            }
        }
        Ok(Value::list(list))
    }

    fn map(&self, entries: &'a [(Node, Node, bool)]) -> Result<'a> {
        self.spend(30)?;
        let mut map = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = key_of(&self.eval(key)?)?;
            let value = match (self.eval(value)?, optional) {
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(inner)), true) => (*inner).clone(),
                (value, _) => value,
            };
            if map.insert(key, value).is_some() {
                return Err(EvalError::new("Failed with repeated key"));
            }
        }
        Ok(Value::Map(Arc::new(map)))
    }

    fn build(&self, name: &'a str, given: &'a [super::ast::StructField]) -> Result<'a> {
        self.spend(40)?;
        let mut fields = BTreeMap::new();
        for field in given {
            let value = match (self.eval(&field.value)?, field.optional) {
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(inner)), true) => (*inner).clone(),
                (value, _) => value,
            };
            let key = if name == "JSONPatch" {
                field.name.clone()
            } else {
                super::unescape(&field.name).map_or_else(|| field.name.clone(), |n| n.into_owned())
            };
            fields.insert(key, value);
        }
        Ok(Value::Built(Arc::new(Built { name: name.to_owned(), fields })))
    }

    fn with_locals<T>(&self, bind: [Option<(&'a str, Value<'a>)>; 2], run: impl FnOnce() -> T) -> T {
        let before = self.locals.borrow().len();
        self.locals.borrow_mut().extend(bind.into_iter().flatten());
        let result = run();
        self.locals.borrow_mut().truncate(before);
        result
    }

    fn run_macro(&self, m: &'a Macro) -> Result<'a> {
        let range = self.eval(&m.range)?;
        match m.kind {
            MacroKind::Bind => self.with_locals([Some((&m.first, range)), None], || self.eval(&m.body)),
            MacroKind::OptMap | MacroKind::OptFlatMap => {
                let Value::Optional(inner) = range else { return Err(EvalError::overload()) };
                let Some(inner) = inner else { return Ok(Value::Optional(None)) };
                let result = self.with_locals([Some((&m.first, (*inner).clone())), None], || self.eval(&m.body))?;
                Ok(if m.kind == MacroKind::OptMap { Value::some(result) } else { result })
            }
            _ => self.fold(m, &range),
        }
    }

    fn fold(&self, m: &'a Macro, range: &Value<'a>) -> Result<'a> {
        let mut fold = Fold::default();
        let entries = range.entries().ok_or_else(EvalError::overload)?;
        let is_map = matches!(range, Value::Map(_) | Value::JsonMap(..) | Value::Built(_));
        for (key, value) in entries {
            self.spend(2)?;
            let single = if is_map { key.clone() } else { value.clone() };
            let bind = match &m.second {
                None => [Some((m.first.as_str(), single.clone())), None],
                Some(second) => [Some((m.first.as_str(), key.clone())), Some((second.as_str(), value))],
            };
            let stop = self.with_locals(bind, || self.step(m, &mut fold, key, single))?;
            if stop {
                break;
            }
        }
        fold.finish(self, m.kind)
    }

    /// One round; whether it was the last.
    fn step(
        &self,
        m: &'a Macro,
        fold: &mut Fold<'a>,
        key: Value<'a>,
        single: Value<'a>,
    ) -> std::result::Result<bool, EvalError> {
        if let Some(condition) = &m.condition {
            match self.eval(condition)?.as_bool() {
                Some(true) => {}
                Some(false) => return Ok(false),
                None => return Err(EvalError::overload()),
            }
        }
        let result = self.eval(&m.body);
        if result == Err(EvalError::Cost) {
            return Err(EvalError::Cost);
        }
        match m.kind {
            MacroKind::All | MacroKind::Exists => {
                let decides = m.kind == MacroKind::Exists;
                match result {
                    Ok(Value::Bool(b)) if b == decides => fold.decided = true,
                    Ok(Value::Bool(_)) => {}
                    Ok(_) => fold.failed = fold.failed.take().or_else(|| Some(EvalError::overload())),
                    Err(error) => fold.failed = fold.failed.take().or(Some(error)),
                }
                return Ok(fold.decided);
            }
            MacroKind::ExistsOne => match result? {
                Value::Bool(b) => fold.count += u64::from(b),
                _ => return Err(EvalError::overload()),
            },
            MacroKind::Filter => match result? {
                Value::Bool(true) => fold.list.push(single),
                Value::Bool(false) => {}
                _ => return Err(EvalError::overload()),
            },
            MacroKind::Map | MacroKind::TransformList => fold.list.push(result?),
            MacroKind::SortBy => fold.keyed.push((result?, single)),
            MacroKind::TransformMap => fold.insert(key_of(&key)?, result?)?,
            MacroKind::TransformMapEntry => {
                for (key, value) in result?.entries().ok_or_else(EvalError::overload)? {
                    fold.insert(key_of(&key)?, value)?;
                }
            }
            MacroKind::Bind | MacroKind::OptMap | MacroKind::OptFlatMap => {}
        }
        Ok(false)
    }
}

/// What a macro over a list or map has gathered so far.
#[derive(Default)]
struct Fold<'a> {
    decided: bool,
    failed: Option<EvalError>,
    count: u64,
    list: Vec<Value<'a>>,
    keyed: Vec<(Value<'a>, Value<'a>)>,
    map: BTreeMap<Key, Value<'a>>,
}

impl<'a> Fold<'a> {
    fn insert(&mut self, key: Key, value: Value<'a>) -> std::result::Result<(), EvalError> {
        let shown = super::value::key_text(&key);
        match self.map.insert(key, value) {
            Some(_) => Err(EvalError::new(format!("insert failed: key {shown} already exists"))),
            None => Ok(()),
        }
    }

    fn finish(mut self, machine: &Machine<'a, '_>, kind: MacroKind) -> Result<'a> {
        match kind {
            MacroKind::All | MacroKind::Exists => match (self.decided, self.failed) {
                (false, Some(error)) => Err(error),
                (decided, _) => Ok(Value::Bool(decided == (kind == MacroKind::Exists))),
            },
            MacroKind::ExistsOne => Ok(Value::Bool(self.count == 1)),
            MacroKind::TransformMap | MacroKind::TransformMapEntry => Ok(Value::Map(Arc::new(self.map))),
            MacroKind::SortBy => {
                functions::sort(machine, &mut self.keyed, |(key, _)| key)?;
                Ok(Value::list(self.keyed.into_iter().map(|(_, v)| v).collect()))
            }
            _ => Ok(Value::list(self.list)),
        }
    }
}

impl PartialEq for Value<'_> {
    /// Only for results of evaluation that are compared with errors; values are compared by [`functions::equal`].
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::String(a), Self::String(b)) => **a == **b,
            _ => self.to_json().ok().zip(other.to_json().ok()).is_some_and(|(a, b)| a == b),
        }
    }
}

fn constant<'a>(literal: &Literal) -> Value<'a> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Int(n) => Value::Int(*n),
        Literal::Uint(n) => Value::Uint(*n),
        Literal::Double(n) => Value::Double(*n),
        Literal::String(s) => Value::String(Text::Shared(Arc::clone(s))),
        Literal::Bytes(b) => Value::Bytes(Arc::clone(b)),
    }
}

/// A type by its name.
pub(crate) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null_type" => Type::Null,
        "type" => Type::Type,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        _ => return None,
    })
}

/// A value as the key of a map.
pub(crate) fn key_of(value: &Value<'_>) -> std::result::Result<Key, EvalError> {
    Ok(match value {
        Value::Bool(b) => Key::Bool(*b),
        Value::Int(n) => Key::Int(i128::from(*n)),
        Value::Uint(n) => Key::Int(i128::from(*n)),
        #[expect(clippy::cast_possible_truncation, reason = "a whole number in range")]
        Value::Double(n) if n.fract() == 0.0 && n.abs() < 9e18 => Key::Int(*n as i128),
        Value::String(Text::Shared(s)) => Key::String(Arc::clone(s)),
        Value::String(s) => Key::String(Arc::from(&**s)),
        _ => return Err(EvalError::new("unsupported key type")),
    })
}

fn key_value<'a>(key: &Key) -> Value<'a> {
    match key {
        Key::Bool(b) => Value::Bool(*b),
        Key::Int(n) => {
            i64::try_from(*n).map(Value::Int).unwrap_or_else(|_| Value::Uint(u64::try_from(*n).unwrap_or_default()))
        }
        Key::String(s) => Value::String(Text::Shared(Arc::clone(s))),
    }
}

impl<'a> Value<'a> {
    /// A field; `None` when it is not there.
    pub(crate) fn field(&self, name: &str) -> std::result::Result<Option<Self>, EvalError> {
        Ok(match self {
            Self::JsonMap(fields, None) => fields.get(name).map(|v| Self::json(v, None)),
            Self::JsonMap(fields, Some(schema)) => schema.expressed(name).and_then(|(name, schema)| {
                let found = fields.get(&*name).map(|v| Self::json(v, schema))?;
                let shown = !found.is_null() || schema.is_none_or(|s| s.nullable);
                shown.then_some(found)
            }),
            Self::Map(entries) => entries.get(&Key::String(Arc::from(name))).cloned(),
            Self::Built(built) => built.fields.get(&*super::unescape(name).unwrap_or(name.into())).cloned(),
            Self::Optional(inner) => return inner.as_ref().map_or(Ok(None), |v| v.field(name)),
            _ => return Err(EvalError::overload()),
        })
    }

    /// An item of a list by its number, an entry of a map by its key.
    pub(crate) fn item(&self, index: &Value<'a>) -> Result<'a> {
        if let Self::List(_) | Self::JsonList(..) = self {
            let Ok(Key::Int(i)) = key_of(index) else { return Err(EvalError::overload()) };
            let found = usize::try_from(i).ok().and_then(|i| self.nth(i));
            return found.ok_or_else(|| EvalError::new(format!("index out of bounds: {i}")));
        }
        let key = key_of(index)?;
        let found = match self {
            Self::Map(entries) => entries.get(&key).cloned(),
            Self::JsonMap(fields, schema) => match &key {
                Key::String(name) => match schema {
                    Some(schema) if !schema.is_map() => self.field(name)?,
                    _ => fields.get(&**name).map(|v| Self::json(v, schema.and_then(|s| s.field(name)))),
                },
                _ => None,
            },
            Self::Built(_) => match &key {
                Key::String(name) => self.field(name)?,
                _ => None,
            },
            _ => return Err(EvalError::overload()),
        };
        found.ok_or_else(|| EvalError::new(format!("no such key: {}", super::value::key_text(&key))))
    }

    /// An item of a list.
    pub(crate) fn nth(&self, i: usize) -> Option<Self> {
        match self {
            Self::List(items) => items.get(i).cloned(),
            Self::JsonList(items, schema) => {
                items.get(i).map(|v| Self::json(v, schema.and_then(|s| s.items.as_deref())))
            }
            _ => None,
        }
    }

    /// The items of a list; `None` for what is none.
    pub(crate) fn items(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(items) => Some(items.to_vec()),
            Self::JsonList(items, _) => Some((0..items.len()).filter_map(|i| self.nth(i)).collect()),
            _ => None,
        }
    }

    /// Numbers and items of a list, keys and values of a map.
    pub(crate) fn entries(&self) -> Option<Vec<(Self, Self)>> {
        Some(match self {
            Self::List(_) | Self::JsonList(..) => {
                let numbered = |(i, v)| (Self::Int(i64::try_from(i).unwrap_or(i64::MAX)), v);
                self.items()?.into_iter().enumerate().map(numbered).collect()
            }
            Self::Map(entries) => entries.iter().map(|(k, v)| (key_value(k), v.clone())).collect(),
            Self::JsonMap(fields, schema) => fields
                .iter()
                .map(|(k, v)| (Self::String(Text::Borrowed(k)), Self::json(v, schema.and_then(|s| s.field(k)))))
                .collect(),
            Self::Built(built) => built.fields.iter().map(|(k, v)| (Self::string(k.as_str()), v.clone())).collect(),
            _ => return None,
        })
    }
}
