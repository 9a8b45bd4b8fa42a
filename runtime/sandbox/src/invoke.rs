//! Calls one function of a core module that has no `_start`: the first argument names it, the others are its parameters, its
//! results are printed, one per line. As `wasmtime run --invoke` does.

use wasmtime::{ExternType, FuncType, InstancePre, Store, Val, ValType};

use crate::{ContainerSpec, StartError, Stream, container::Container, host::CoreGuest};

/// Called first, once, when it is there.
const INITIALIZE: &str = "_initialize";
/// Functions told of when none is named.
const LISTED_MAX: usize = 20;

/// A call, its parameters parsed.
pub(crate) struct Call {
    name: String,
    parameters: Vec<Val>,
    results: usize,
}

impl Call {
    /// Reads a container's arguments.
    pub(crate) fn of(pre: &InstancePre<CoreGuest>, spec: &ContainerSpec) -> Result<Self, StartError> {
        let functions = functions(pre);
        let refused = |reason: String| StartError::Call { reason };
        let Some(name) = spec.args.get(1) else {
            return Err(refused(format!(
                "the first argument has to name one of its functions: {}",
                listed(&functions)
            )));
        };
        let Some((_, function)) = functions.iter().find(|(exported, _)| exported == name) else {
            return Err(refused(format!("it has no function {name:?}, only {}", listed(&functions))));
        };
        let given = &spec.args[2..];
        let wanted = function.params();
        if given.len() != wanted.len() {
            let shown = shown(name, function);
            return Err(refused(format!("{shown} takes {} arguments, not {}", wanted.len(), given.len())));
        }
        let parse = |(text, of): (&String, ValType)| {
            parse(text, &of)
                .ok_or_else(|| refused(format!("{text:?} is no {of}, as {} takes it", shown(name, function))))
        };
        let parameters = given.iter().zip(wanted).map(parse).collect::<Result<_, _>>()?;
        Ok(Self { name: name.clone(), parameters, results: function.results().len() })
    }

    /// Makes the call.
    pub(crate) async fn run(
        self,
        pre: &InstancePre<CoreGuest>,
        store: &mut Store<CoreGuest>,
        container: &Container,
    ) -> wasmtime::Result<()> {
        let instance = pre.instantiate_async(&mut *store).await?;
        if let Some(initialize) = instance.get_func(&mut *store, INITIALIZE) {
            initialize.call_async(&mut *store, &[], &mut []).await?;
        }
        let Some(function) = instance.get_func(&mut *store, &self.name) else {
            wasmtime::bail!("invariant: {} was there before", self.name);
        };
        let mut results = vec![Val::I32(0); self.results];
        function.call_async(&mut *store, &self.parameters, &mut results).await?;
        let printed: String = results.iter().map(printed).collect();
        container.write(Stream::Stdout, printed.as_bytes());
        Ok(())
    }
}

fn functions(pre: &InstancePre<CoreGuest>) -> Vec<(String, FuncType)> {
    let exports = pre.module().exports().filter_map(|export| match export.ty() {
        ExternType::Func(function) if export.name() != INITIALIZE => Some((export.name().to_owned(), function)),
        _ => None,
    });
    exports.collect()
}

fn listed(functions: &[(String, FuncType)]) -> String {
    let mut shown: Vec<_> = functions.iter().take(LISTED_MAX).map(|(name, function)| shown(name, function)).collect();
    if functions.len() > LISTED_MAX {
        shown.push(format!("and {} more", functions.len() - LISTED_MAX));
    }
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

fn shown(name: &str, function: &FuncType) -> String {
    let parameters: Vec<_> = function.params().map(|of| of.to_string()).collect();
    format!("{name}({})", parameters.join(" "))
}

fn parse(text: &str, of: &ValType) -> Option<Val> {
    match of {
        ValType::I32 => text.parse().ok().or_else(|| Some(text.parse::<u32>().ok()?.cast_signed())).map(Val::I32),
        ValType::I64 => text.parse().ok().or_else(|| Some(text.parse::<u64>().ok()?.cast_signed())).map(Val::I64),
        ValType::F32 => text.parse().ok().map(|number: f32| Val::F32(number.to_bits())),
        ValType::F64 => text.parse().ok().map(|number: f64| Val::F64(number.to_bits())),
        ValType::V128 | ValType::Ref(_) => None,
    }
}

fn printed(result: &Val) -> String {
    match result {
        Val::I32(number) => format!("{number}\n"),
        Val::I64(number) => format!("{number}\n"),
        Val::F32(bits) => format!("{}\n", f32::from_bits(*bits)),
        Val::F64(bits) => format!("{}\n", f64::from_bits(*bits)),
        Val::V128(bits) => format!("{}\n", bits.as_u128()),
        other => format!("<{}>\n", kind(other)),
    }
}

fn kind(value: &Val) -> &'static str {
    match value {
        Val::FuncRef(_) => "funcref",
        Val::ExternRef(_) => "externref",
        _ => "reference",
    }
}
