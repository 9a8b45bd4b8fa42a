//! The bridge to `kube-cel`'s functions, the quantities, and the questions to the authorizer.
//!
//! A library function gets its values through variables of a context, since the `cel` crate calls functions with
//! expressions. It may fail in ways of its own, so a panic there ends the evaluation only.

use std::{
    cmp::Ordering,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use kube_cel::{
    KubeCelExt,
    cel::{self, Context, objects::Opaque},
};

use super::{
    Attributes, EvalError,
    eval::{Machine, Result, key_of},
    functions,
    value::{Key, Value, key_text},
};

/// Bytes of all arguments of one library call.
const BYTES_MAX: usize = 1 << 20;
/// Digits of a precision or width in `format`.
const FORMAT_DIGITS_MAX: usize = 2;

/// An amount, as `quantity('1Gi')`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantity(pub(crate) podium_api::Quantity);

impl Opaque for Quantity {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.Quantity"
    }
}

/// A function that is none of the language itself.
pub(crate) fn call<'a>(machine: &Machine<'a, '_>, name: &str, is_method: bool, args: Vec<Value<'a>>) -> Result<'a> {
    if let Some(result) = quantities(name, &args) {
        return result;
    }
    if let Some(result) = authorization(machine, name, &args) {
        return result;
    }
    if !super::overloads::is_library(name) {
        return Err(EvalError::overload());
    }
    let mut bytes = 0;
    let arguments = args.iter().map(|v| to_library(v, &mut bytes)).collect::<std::result::Result<Vec<_>, _>>()?;
    machine.spend_bytes(bytes * 2)?;
    if bytes > BYTES_MAX {
        return Err(EvalError::Cost);
    }
    if name == "format" {
        check_format(args.first().and_then(Value::as_str).unwrap_or(""))?;
    }
    let wrong = |_| EvalError::new(format!("{name} cannot take these arguments"));
    let result = catch_unwind(AssertUnwindSafe(|| invoke(name, is_method, arguments))).map_err(wrong)??;
    let result = from_library(&result)?;
    Ok(match (name, result) {
        // The library says `null` for a name that it does not know.
        ("format.named", Value::Null) => Value::Optional(None),
        ("format.named", found) => Value::some(found),
        (_, result) => result,
    })
}

fn check_format(format: &str) -> std::result::Result<(), EvalError> {
    let long = format.split('%').skip(1).any(|rest| {
        let digits = rest.trim_start_matches(['.', '%']);
        digits.bytes().take_while(u8::is_ascii_digit).count() > FORMAT_DIGITS_MAX
    });
    if long { Err(EvalError::new("could not parse formatting clause: precision is too large")) } else { Ok(()) }
}

thread_local! {
    static CONTEXT: Context<'static> = {
        let mut context = Context::default();
        context.register_all();
        context
    };
}

fn invoke(name: &str, is_method: bool, args: Vec<cel::Value>) -> std::result::Result<cel::Value, EvalError> {
    use cel::common::ast::{CallExpr, Expr, IdedExpr};
    CONTEXT.with(|context| {
        let mut scope = context.new_inner_scope();
        let mut nodes = Vec::with_capacity(args.len());
        for (i, arg) in args.into_iter().enumerate() {
            let variable = format!("@{i}");
            scope.add_variable_from_value(variable.as_str(), arg);
            nodes.push(IdedExpr { id: i as u64 + 1, expr: Expr::Ident(variable) });
        }
        let (target, args) = if is_method {
            let rest = nodes.split_off(1);
            (nodes.pop().map(Box::new), rest)
        } else {
            (None, nodes)
        };
        let call = IdedExpr { id: 0, expr: Expr::Call(CallExpr { func_name: name.to_owned(), target, args }) };
        scope.resolve(&call).map_err(|error| match error {
            cel::ExecutionError::FunctionError { message, .. } => EvalError::new(message),
            other => EvalError::new(other.to_string()),
        })
    })
}

fn to_library(value: &Value<'_>, bytes: &mut usize) -> std::result::Result<cel::Value, EvalError> {
    *bytes += usize::try_from(value.size()).unwrap_or(usize::MAX).min(1 << 30);
    if *bytes > BYTES_MAX {
        return Err(EvalError::Cost);
    }
    Ok(match value {
        Value::Null => cel::Value::Null,
        Value::Bool(b) => cel::Value::Bool(*b),
        Value::Int(n) => cel::Value::Int(*n),
        Value::Uint(n) => cel::Value::UInt(*n),
        Value::Double(n) => cel::Value::Float(*n),
        Value::String(s) => cel::Value::String(Arc::new(s.to_string())),
        Value::Bytes(b) => cel::Value::Bytes(Arc::new(b.to_vec())),
        // Only `format` takes these; it shows them as texts.
        Value::Duration(_) | Value::Timestamp(_) | Value::Type(_) => cel::Value::String(Arc::new(match value {
            Value::Duration(d) => super::temporal::show_duration(*d),
            Value::Timestamp(t) => super::temporal::show_timestamp(*t),
            other => other.type_name(),
        })),
        Value::Library(opaque, _) => cel::Value::Opaque(Arc::clone(opaque)),
        Value::List(_) | Value::JsonList(..) => {
            let items = value.items().unwrap_or_default();
            let items = items.iter().map(|v| to_library(v, bytes)).collect::<std::result::Result<Vec<_>, _>>()?;
            cel::Value::List(Arc::new(items))
        }
        Value::Map(_) | Value::JsonMap(..) | Value::Built(_) => {
            let mut map = HashMap::new();
            for (key, value) in value.entries().unwrap_or_default() {
                let key = key_of(&key)?;
                let key = match &key {
                    Key::Bool(b) => cel::objects::Key::Bool(*b),
                    Key::Int(n) => cel::objects::Key::Int(i64::try_from(*n).unwrap_or(i64::MAX)),
                    Key::String(_) => cel::objects::Key::String(Arc::new(key_text(&key))),
                };
                map.insert(key, to_library(&value, bytes)?);
            }
            cel::Value::Map(cel::objects::Map { map: Arc::new(map) })
        }
        Value::Optional(Some(inner)) => to_library(inner, bytes)?,
        _ => return Err(EvalError::overload()),
    })
}

fn from_library<'a>(value: &cel::Value) -> Result<'a> {
    Ok(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(b) => Value::Bool(*b),
        cel::Value::Int(n) => Value::Int(*n),
        cel::Value::UInt(n) => Value::Uint(*n),
        cel::Value::Float(n) => Value::Double(*n),
        cel::Value::String(s) => Value::string(s.as_str()),
        cel::Value::Bytes(b) => Value::Bytes(Arc::from(b.as_slice())),
        cel::Value::List(items) => Value::list(items.iter().map(from_library).collect::<std::result::Result<_, _>>()?),
        cel::Value::Map(map) => {
            let mut entries = Vec::new();
            for (key, value) in map.map.iter() {
                entries.push((key.to_string(), from_library(value)?));
            }
            functions::text_map(entries)
        }
        cel::Value::Opaque(opaque) => {
            let name = match opaque.runtime_type_name() {
                "net.IP" => "net.IP",
                "net.CIDR" => "net.CIDR",
                "kubernetes.URL" => "kubernetes.URL",
                "kubernetes.Semver" => "kubernetes.Semver",
                "kubernetes.Format" => "kubernetes.NamedFormat",
                "optional_type" => {
                    let optional = opaque.downcast_ref::<cel::objects::OptionalValue>();
                    let inner = optional.and_then(|o| o.value()).map(from_library).transpose()?;
                    return Ok(Value::Optional(inner.map(Arc::new)));
                }
                _ => return Err(EvalError::overload()),
            };
            Value::Library(Arc::clone(opaque), name)
        }
        _ => return Err(EvalError::overload()),
    })
}

fn amount(value: &Value<'_>) -> Option<podium_api::Quantity> {
    match value {
        Value::Library(opaque, _) => opaque.downcast_ref::<Quantity>().map(|q| q.0),
        _ => None,
    }
}

fn quantity<'a>(of: podium_api::Quantity) -> Value<'a> {
    Value::Library(Arc::new(Quantity(of)), "kubernetes.Quantity")
}

fn quantities<'a>(name: &str, args: &[Value<'a>]) -> Option<Result<'a>> {
    use podium_api::quantity::Format;
    if let ("quantity" | "isQuantity", [Value::String(text)]) = (name, args) {
        let parsed = text.parse::<podium_api::Quantity>();
        return Some(match (name, parsed) {
            ("isQuantity", parsed) => Ok(Value::Bool(parsed.is_ok())),
            (_, Ok(parsed)) => Ok(quantity(parsed)),
            (_, Err(error)) => Err(EvalError::new(error.to_string())),
        });
    }
    let q = amount(args.first()?)?;
    let other = args.get(1).and_then(|v| match v {
        Value::Int(n) => Some(podium_api::Quantity::from_value(*n, Format::DecimalSi)),
        v => amount(v),
    });
    let order = || other.map(|o| q.cmp(&o)).ok_or_else(EvalError::overload);
    let sign = |o: Ordering| Value::Int(o as i64);
    Some(match name {
        "sign" => Ok(sign(q.cmp(&podium_api::Quantity::ZERO))),
        "isInteger" => Ok(Value::Bool(q.is_whole())),
        "asInteger" if q.is_whole() => Ok(Value::Int(q.value())),
        "asInteger" => Err(EvalError::new("cannot convert value to integer")),
        #[expect(clippy::cast_precision_loss, reason = "approximate, as it says")]
        "asApproximateFloat" => {
            let whole = q.value() as f64;
            Ok(Value::Double(if q.is_whole() { whole } else { q.milli() as f64 / 1000.0 }))
        }
        "isGreaterThan" => order().map(|o| Value::Bool(o.is_gt())),
        "isLessThan" => order().map(|o| Value::Bool(o.is_lt())),
        "compareTo" => order().map(sign),
        "add" => other.map(|o| quantity(q + o)).ok_or_else(EvalError::overload),
        "sub" => other.map(|o| quantity(q - o)).ok_or_else(EvalError::overload),
        "string" => Ok(Value::string(q.to_string())),
        _ => return None,
    })
}

/// Cost of one question.
const CHECK_COST: u64 = 350_000;

fn authorization<'a>(machine: &Machine<'a, '_>, name: &str, args: &[Value<'a>]) -> Option<Result<'a>> {
    let (first, rest) = args.split_first()?;
    let text = || rest.first().and_then(Value::as_str).unwrap_or_default().to_owned();
    let with = |of: &Arc<Attributes>, change: &dyn Fn(&mut Attributes)| {
        let mut changed = (**of).clone();
        change(&mut changed);
        Arc::new(changed)
    };
    Some(Ok(match (first, name, rest.len()) {
        (Value::Authorizer(a), "path", 1) => Value::PathCheck(with(a, &|a| a.path = Some(text()))),
        (Value::Authorizer(a), "group", 1) => Value::GroupCheck(with(a, &|a| a.group = text())),
        (Value::Authorizer(a), "serviceAccount", 2) => {
            let name = rest.get(1).and_then(Value::as_str).unwrap_or_default().to_owned();
            Value::Authorizer(with(a, &|a| a.service_account = Some((text(), name.clone()))))
        }
        (Value::GroupCheck(a), "resource", 1) => Value::ResourceCheck(with(a, &|a| a.resource = text())),
        (Value::ResourceCheck(a), "subresource", 1) => Value::ResourceCheck(with(a, &|a| a.subresource = text())),
        (Value::ResourceCheck(a), "namespace", 1) => Value::ResourceCheck(with(a, &|a| a.namespace = text())),
        (Value::ResourceCheck(a), "name", 1) => Value::ResourceCheck(with(a, &|a| a.name = text())),
        (Value::ResourceCheck(a), "fieldSelector", 1) => Value::ResourceCheck(with(a, &|a| a.field_selector = text())),
        (Value::ResourceCheck(a), "labelSelector", 1) => Value::ResourceCheck(with(a, &|a| a.label_selector = text())),
        (Value::ResourceCheck(a) | Value::PathCheck(a), "check", 1) => {
            if let Err(error) = machine.spend(CHECK_COST) {
                return Some(Err(error));
            }
            let asked = with(a, &|a| a.verb = text());
            let decision = machine.vars.authorizer.map(|authorizer| authorizer.authorize(&asked)).unwrap_or_default();
            Value::Decision(Arc::new(decision))
        }
        (Value::Decision(d), "allowed", 0) => Value::Bool(d.allowed),
        (Value::Decision(d), "reason", 0) => Value::string(d.reason.as_str()),
        (Value::Decision(d), "errored", 0) => Value::Bool(d.error.is_some()),
        (Value::Decision(d), "error", 0) => Value::string(d.error.as_deref().unwrap_or_default()),
        _ => return None,
    }))
}
