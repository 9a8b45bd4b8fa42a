//! [`Compiler`] and [`Base`]: what both kinds of admission policies have in common, compiled.

use k8s_openapi::api::admissionregistration::v1::{MatchCondition, MatchResources, ParamKind, Variable};
use podium_api::{FieldErrors, FieldPath};
use podium_custom::cel::{AdmissionEnv, Env, Expression, Type, Vars};

use super::matching::{self, Condition, Matcher};

/// Compiles one expression after the other and keeps what is wrong with them.
pub(super) struct Compiler<'a> {
    errs: &'a mut FieldErrors,
    broken: Option<String>,
}

impl<'a> Compiler<'a> {
    /// `errs` gets what is wrong, by field.
    pub(super) fn new(errs: &'a mut FieldErrors) -> Self {
        Self { errs, broken: None }
    }

    /// Compiles an expression that has to have one of some types (none: any).
    pub(super) fn compile(&mut self, text: &str, env: &Env, types: &[Type], path: &FieldPath) -> Option<Expression> {
        let text = text.trim();
        let compiled =
            if types.is_empty() { Expression::compile(text, env) } else { Expression::compile_as(text, env, types) };
        compiled
            .map_err(|error| {
                self.errs.invalid(path, text, &error.to_string());
                self.broken.get_or_insert_with(|| error.to_string());
            })
            .ok()
    }

    /// Compiles the variables; each environment knows them then, one after the other.
    fn variables(&mut self, given: &[Variable], envs: &mut [Env]) -> Vec<(String, Expression)> {
        let mut variables = Vec::new();
        for (i, variable) in given.iter().enumerate() {
            let path = FieldPath::new("spec.variables").index(i).child("expression");
            let Some(env) = envs.first() else { break };
            let Some(expression) = self.compile(&variable.expression, env, &[], &path) else { continue };
            envs.iter_mut().for_each(|env| env.compose(&variable.name, expression.result().clone()));
            variables.push((variable.name.clone(), expression));
        }
        variables
    }

    fn conditions(&mut self, given: &[MatchCondition], params: bool) -> Vec<Condition> {
        let conditions = matching::conditions(Some(given), params);
        for (i, ((_, condition), written)) in conditions.iter().zip(given).enumerate() {
            if let Err(error) = condition {
                let path = FieldPath::new("spec.matchConditions").index(i).child("expression");
                self.errs.invalid(&path, written.expression.as_str(), &error.to_string());
            }
        }
        conditions
    }
}

/// What both kinds of policies say alike.
pub(super) struct Given<'a> {
    pub(super) name: Option<&'a String>,
    pub(super) failure_policy: Option<&'a String>,
    pub(super) constraints: Option<&'a MatchResources>,
    pub(super) conditions: Option<&'a Vec<MatchCondition>>,
    pub(super) variables: Option<&'a Vec<Variable>>,
    pub(super) param_kind: Option<&'a ParamKind>,
}

/// The same, compiled.
pub(super) struct Base {
    pub(super) name: String,
    /// Whether a failing expression refuses.
    pub(super) fails: bool,
    pub(super) matcher: Matcher,
    pub(super) param_kind: Option<ParamKind>,
    pub(super) conditions: Vec<Condition>,
    variables: Vec<(String, Expression)>,
    /// Why it cannot be used.
    pub(super) broken: Option<String>,
}

impl Base {
    /// Compiles what is common, then `rest` with environments that know the variables: one with the names of `full`, and
    /// one that lacks the authorizer.
    pub(super) fn compile<T>(
        given: &Given<'_>,
        errs: &mut FieldErrors,
        full: AdmissionEnv,
        rest: impl FnOnce(&mut Compiler<'_>, [&Env; 2]) -> T,
    ) -> (Self, T) {
        let params = given.param_kind.is_some();
        let full = AdmissionEnv { params, variables: true, ..full };
        let mut envs = [Env::admission(full), Env::admission(AdmissionEnv { authorizer: false, ..full })];
        let mut compiler = Compiler::new(errs);
        let variables = compiler.variables(given.variables.map(Vec::as_slice).unwrap_or_default(), &mut envs);
        let [first, second] = &envs;
        let rest = rest(&mut compiler, [first, second]);
        let conditions = compiler.conditions(given.conditions.map(Vec::as_slice).unwrap_or_default(), params);
        let base = Self {
            name: given.name.cloned().unwrap_or_default(),
            fails: given.failure_policy.is_none_or(|p| p != "Ignore"),
            matcher: Matcher::new(given.constraints.unwrap_or(&MatchResources::default())),
            param_kind: given.param_kind.cloned(),
            conditions,
            variables,
            broken: compiler.broken,
        };
        (base, rest)
    }

    /// The same values, with the variables.
    pub(super) fn with_variables<'v>(&'v self, vars: Vars<'v>) -> Vars<'v> {
        self.variables.iter().fold(vars, |vars, (name, expression)| vars.variable(name, expression))
    }
}
