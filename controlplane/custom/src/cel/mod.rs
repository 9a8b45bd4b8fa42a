//! CEL as Kubernetes speaks it: expressions are compiled against what they may name, checked for types, and evaluated
//! within a budget.
//!
//! The functions of Kubernetes' libraries come from `kube-cel`. The parser, the type checker and the evaluator are here,
//! since those of the `cel` crate have no positions, no types, no limit on what an evaluation costs, lack message
//! construction and the macros with two variables, read `!!x` as `!x`, and copy every value that they touch.
//!
//! Invariants: nothing here panics or recurses deeper than the limits of [`parse`], whatever the text and the values;
//! an evaluation ends when its [`Budget`] is used up.

mod ast;
mod authorizer;
mod check;
mod convert;
mod cost;
mod env;
mod escape;
mod eval;
mod functions;
mod lex;
mod library;
mod macros;
mod openapi;
mod overloads;
mod parse;
mod pattern;
mod strings;
mod temporal;
pub(crate) use temporal::formats as temporal_formats;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::{cell::Cell, fmt, sync::Arc};

pub use authorizer::{Attributes, Authorizer, Decision};
pub(crate) use cost::REQUEST_BYTES_MAX;
pub use cost::Size;
pub use env::{AdmissionEnv, Env, Vars};
pub use escape::{escape, unescape};
pub use types::{Field, Struct, Type};
pub use value::Value;

/// Cost units that one evaluation may use.
pub const COST_PER_CALL_MAX: u64 = 1_000_000;
/// Cost units that all rules about one object may use.
pub const COST_PER_OBJECT_MAX: u64 = 10_000_000;

/// Why a text is no expression that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It cannot be read, or names something that is not there, or its types do not fit.
    #[error("compilation failed: {0}")]
    Invalid(String),
    /// It has a type that is not asked for.
    #[error("{0}")]
    Result(String),
}

/// Why an evaluation has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// `no such key: x`, `index out of bounds: 3`, `division by zero`, ...
    #[error("{0}")]
    Failed(String),
    /// The budget is used up.
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
}

impl EvalError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    pub(crate) fn overload() -> Self {
        Self::Failed("no such overload".to_owned())
    }
}

/// Cost units left, for one evaluation or several.
#[derive(Debug)]
pub struct Budget(Cell<u64>);

impl Budget {
    /// A budget of so many cost units.
    pub fn new(units: u64) -> Self {
        Self(Cell::new(units))
    }

    /// What is left.
    pub fn left(&self) -> u64 {
        self.0.get()
    }

    /// Takes some of it.
    ///
    /// # Errors
    /// When there is less; nothing is left then.
    pub fn spend(&self, units: u64) -> Result<(), EvalError> {
        let left = self.0.get().checked_sub(units);
        self.0.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or(EvalError::Cost)
    }
}

/// A compiled expression. Cheap to clone.
#[derive(Clone)]
pub struct Expression {
    inner: Arc<Compiled>,
}

struct Compiled {
    text: String,
    root: ast::Node,
    result: Type,
    max_cost: u64,
    names: Vec<String>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.inner.text).finish()
    }
}

impl Expression {
    /// Reads and checks a text. At most [`parse::TEXT_MAX`] bytes.
    ///
    /// # Errors
    /// What is wrong and where, in the words of Kubernetes.
    pub fn compile(text: &str, env: &Env) -> Result<Self, CompileError> {
        let root = parse::parse(text).map_err(CompileError::Invalid)?;
        let checked = check::check(text, &root, env).map_err(CompileError::Invalid)?;
        let names = root.free_names();
        let check::Checked { result, max_cost } = checked;
        Ok(Self { inner: Arc::new(Compiled { text: text.to_owned(), root, result, max_cost, names }) })
    }

    /// The same, for an expression that must have one of these types.
    ///
    /// # Errors
    /// As [`Expression::compile`], and `must evaluate to bool`.
    pub fn compile_as(text: &str, env: &Env, results: &[Type]) -> Result<Self, CompileError> {
        let expression = Self::compile(text, env)?;
        let got = expression.result();
        if *got == Type::Dyn || results.iter().any(|t| t.accepts(got)) {
            return Ok(expression);
        }
        Err(CompileError::Result(match results {
            [only] => format!("must evaluate to {only}"),
            several => {
                let names = several.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                format!("must evaluate to one of [{names}]")
            }
        }))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.inner.text
    }

    /// The type of its value, as far as it is known before.
    pub fn result(&self) -> &Type {
        &self.inner.result
    }

    /// The most that one evaluation can cost, estimated from the sizes that the schema allows.
    pub fn max_cost(&self) -> u64 {
        self.inner.max_cost
    }

    /// Whether it names a variable.
    pub fn names(&self, variable: &str) -> bool {
        self.inner.names.iter().any(|n| n == variable)
    }

    /// Its value. Costs at most what is left of the budget, and at most [`COST_PER_CALL_MAX`].
    ///
    /// # Errors
    /// What failed, in the words of cel-go, or that the budget is used up.
    pub fn evaluate<'a>(&'a self, vars: &Vars<'a>, budget: &Budget) -> Result<Value<'a>, EvalError> {
        eval::evaluate(&self.inner.root, vars, budget)
    }

    /// [`Expression::evaluate`] for conditions.
    ///
    /// # Errors
    /// Also when the value is not a boolean.
    pub fn holds<'a>(&'a self, vars: &Vars<'a>, budget: &Budget) -> Result<bool, EvalError> {
        match eval::evaluate(&self.inner.root, vars, budget)? {
            Value::Bool(holds) => Ok(holds),
            _ => Err(EvalError::overload()),
        }
    }
}

/// A pattern of a schema, bounded like those of expressions.
pub(crate) fn compile_pattern(text: &str) -> Result<regex::Regex, String> {
    strings::pattern(text)
}
