//! A future whose end is looked at more than once: first "is it ready?", later "what came out?".

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

/// A future, or what came out of it.
pub(crate) enum Ready<T> {
    Pending(Pin<Box<dyn Future<Output = T> + Send>>),
    Done(T),
}

impl<T> Ready<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Pending(Box::pin(future))
    }

    /// Moves on. Nothing is lost by giving up and asking again.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<&mut T> {
        if let Self::Pending(future) = self {
            let value = ready!(future.as_mut().poll(cx));
            *self = Self::Done(value);
        }
        match self {
            Self::Done(value) => Poll::Ready(value),
            Self::Pending(_) => Poll::Pending,
        }
    }

    /// What came out, if it has.
    pub(crate) fn done(self) -> Option<T> {
        match self {
            Self::Done(value) => Some(value),
            Self::Pending(_) => None,
        }
    }
}

/// For looking once, without being woken.
pub(crate) fn once() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
