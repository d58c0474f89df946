//! Custom sources: anything that mio can wait for.

use mio::event::Source;
use mio::{Interest, Registry};

use crate::context::Context;
use crate::error::HandlerResult;

/// What a custom source has become ready for.
///
/// Readiness is edge-triggered: it is told once, and the source must be used until it says
/// `WouldBlock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Readiness {
    /// It may be read.
    pub readable: bool,
    /// It may be written.
    pub writable: bool,
    /// Its other end is gone, or it has an error pending.
    pub closed: bool,
}

/// The handlers' side of a custom source: the source and its callback as one.
pub(crate) trait AnySource<S> {
    fn fire(&mut self, cx: &mut Context<'_, S>, ready: Readiness) -> HandlerResult;
    fn register(
        &mut self,
        registry: &Registry,
        token: mio::Token,
        interest: Interest,
    ) -> std::io::Result<()>;
    fn deregister(&mut self, registry: &Registry);
}

pub(crate) struct WithCallback<T, F> {
    pub(crate) source: T,
    pub(crate) callback: F,
}

impl<S, T, F> AnySource<S> for WithCallback<T, F>
where
    T: Source,
    F: FnMut(&mut T, &mut Context<'_, S>, Readiness) -> HandlerResult,
{
    fn fire(&mut self, cx: &mut Context<'_, S>, ready: Readiness) -> HandlerResult {
        (self.callback)(&mut self.source, cx, ready)
    }

    fn register(
        &mut self,
        registry: &Registry,
        token: mio::Token,
        interest: Interest,
    ) -> std::io::Result<()> {
        self.source.register(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) {
        if let Err(e) = self.source.deregister(registry) {
            log::trace!("deregistering a source: {e}");
        }
    }
}
