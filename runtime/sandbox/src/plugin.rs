//! Functions that the embedder calls: plug-ins, rules, user-defined functions of a database.
//!
//! Each call has an instance of its own, so nothing that one call leaves behind reaches another, and whatever goes wrong ends
//! that call alone, save memory: a plug-in past its limit ends as a whole, as every container does.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use futures::channel::oneshot;
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use wasmtime::{
    Trap, WasmBacktrace,
    component::{
        Func,
        types::{ComponentFunc, ComponentItem},
    },
};

use crate::{
    CallFailure, Ending, Image, StartError, Usage,
    container::Container,
    dump,
    failure::Failure,
    host,
    image::Code,
    task::{self, Turn},
};

/// A value of the component model.
pub use wasmtime::component::Val as Value;

/// A component whose functions are called. Dropping it kills what is under way.
#[derive(Debug)]
pub struct Plugin {
    container: Arc<Container>,
    image: Arc<Image>,
    permits: Arc<Semaphore>,
    waiting: AtomicU32,
}

/// One call, on its way to an instance.
struct Call {
    function: String,
    parameters: Vec<Value>,
}

impl Plugin {
    /// Checks that it may run; nothing has run yet.
    pub(crate) fn start(container: Arc<Container>, image: Arc<Image>) -> Result<Self, StartError> {
        if !matches!(image.code, Code::Library(_)) {
            return Err(StartError::WrongKind { kind: image.kind().name(), wanted: "a component with functions" });
        }
        container.spec.grants.check(&image)?;
        if image.looks_at_files() {
            container.files.try_open()?;
        }
        let concurrency = usize::try_from(container.spec.limits.concurrency_max).unwrap_or(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self { container, image, permits, waiting: AtomicU32::new(0) })
    }

    /// Calls a function: by its name, or by `package:name/interface@version#function` when an interface holds it.
    ///
    /// # Errors
    /// `BadRequest` when there is no such function or the parameters are not what it takes; else how the call ended.
    pub async fn call(&self, function: &str, parameters: &[Value]) -> Result<Vec<Value>, CallFailure> {
        if self.container.ended.is_cancelled() {
            return Err(CallFailure::Stopped);
        }
        let deadline = Instant::now() + self.container.spec.limits.request_timeout;
        let permit = self.permit(deadline).await?;
        let call = Call { function: function.to_owned(), parameters: parameters.to_vec() };
        let (reply, answer) = oneshot::channel();
        let turn = Arc::new(Turn::default());
        let (container, image, of_guest) = (self.container.clone(), self.image.clone(), turn.clone());
        let guest = Box::pin(async move {
            let result = tokio::select! {
                biased;
                () = container.ended.cancelled() => Err(ended(&container)),
                result = timeout_at(deadline, run(&container, &image, of_guest.clone(), call)) => {
                    result.unwrap_or(Err(CallFailure::TimedOut))
                }
            };
            // What it cost is known before whoever waits is told.
            of_guest.book(&container);
            drop(permit);
            // Nobody listens when the caller is gone.
            let _ = reply.send(result);
        });
        task::spawn(&Handle::current(), self.container.clone(), turn, guest);
        let result = answer.await.unwrap_or(Err(CallFailure::Killed))?;
        self.container.answered();
        Ok(result)
    }

    /// What it has used.
    pub fn usage(&self) -> Usage {
        self.container.usage()
    }

    /// Ends everything at once; it takes no more calls.
    pub fn kill(&self) {
        self.container.end(Ending::Killed);
    }

    /// Waits for the right to make an instance.
    async fn permit(&self, deadline: Instant) -> Result<tokio::sync::OwnedSemaphorePermit, CallFailure> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let limit = self.container.spec.limits.queue_max;
        let admitted = self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < limit).then_some(n + 1));
        if admitted.is_err() {
            return Err(CallFailure::QueueFull { waiting: limit });
        }
        let _waiting = Waiting(&self.waiting);
        match timeout_at(deadline, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(CallFailure::Stopped),
            Err(_elapsed) => Err(CallFailure::TimedOut),
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Counts a call that waits.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn ended(container: &Container) -> CallFailure {
    match container.ending() {
        Some(Ending::OutOfMemory { limit_bytes }) => CallFailure::OutOfMemory { limit_bytes },
        _ => CallFailure::Killed,
    }
}

async fn run(
    container: &Arc<Container>,
    image: &Image,
    turn: Arc<Turn>,
    call: Call,
) -> Result<Vec<Value>, CallFailure> {
    let failed = |error: wasmtime::Error| {
        if container.end_if_out_of_memory() {
            return ended(container);
        }
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return CallFailure::BadRequest { reason: refused.0.clone() };
        }
        let failure = Failure::of(&error);
        if let (Failure::Trap { message, backtrace }, Some(observer)) = (&failure, &container.spec.observer) {
            observer.trapped(message, backtrace);
        }
        failure.of_call(container)
    };
    let result = answer(container, image, turn, call).await;
    if result.is_ok() && container.end_if_out_of_memory() {
        return Err(ended(container));
    }
    result.map_err(failed)
}

/// The call is not what the component offers.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

async fn answer(
    container: &Arc<Container>,
    image: &Image,
    turn: Arc<Turn>,
    call: Call,
) -> wasmtime::Result<Vec<Value>> {
    let Code::Library(pre) = &image.code else { wasmtime::bail!("invariant: looked at when it was started") };
    let mut store = host::store(container, turn);
    let instance = pre.instantiate_async(&mut store).await?;
    let (interface, name) = call.function.rsplit_once('#').map_or((None, &*call.function), |(i, n)| (Some(i), n));
    let missing = || Refused(format!("the component exports no function {:?}", call.function));
    let parent = match interface {
        Some(interface) => Some(instance.get_export_index(&mut store, None, interface).ok_or_else(missing)?),
        None => None,
    };
    let (found, index) = instance.get_export(&mut store, parent.as_ref(), name).ok_or_else(missing)?;
    let ComponentItem::ComponentFunc(of) = found else { return Err(missing().into()) };
    check(&of, &call)?;
    let function: Func = instance.get_func(&mut store, index).ok_or_else(missing)?;
    let mut results = vec![Value::Bool(false); of.results().len()];
    match function.call_async(&mut store, &call.parameters, &mut results).await {
        Ok(()) => Ok(results),
        // No code was running: the parameters could not be handed over.
        Err(error) if error.downcast_ref::<WasmBacktrace>().is_none() && !error.is::<Trap>() && !is_end(&error) => {
            Err(Refused(format!("{:?} cannot be called like this: {error:#}", call.function)).into())
        }
        Err(error) => Err(dump::keep(container, error, &mut store)),
    }
}

/// Whether the guest ended by itself or for want of memory.
fn is_end(error: &wasmtime::Error) -> bool {
    !matches!(Failure::of(error), Failure::Trap { .. })
}

/// Counts parameters; that each is of the right type is seen when it is lowered.
fn check(of: &ComponentFunc, call: &Call) -> Result<(), Refused> {
    let wanted = of.params().len();
    if wanted == call.parameters.len() {
        return Ok(());
    }
    Err(Refused(format!("{:?} takes {wanted} parameters, not {}", call.function, call.parameters.len())))
}
