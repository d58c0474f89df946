//! Custom sources: anything that mio can wait for. This is the only code above `sys/` that names
//! mio, because a source implements a trait of mio.

use mio::Interest;
use mio::event::Source;

use crate::context::Context;
use crate::core::{Attached, Entity};
use crate::error::{Error, HandlerResult};
use crate::net::{AnyHandler, Net};
use crate::sys::Poller;
use crate::token::Token;

/// What a custom source is ready for.
///
/// Readiness is edge-triggered: it is reported once, and the source must be used until it returns
/// `WouldBlock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Readiness {
    /// Reading will not block.
    pub readable: bool,
    /// Writing will not block.
    pub writable: bool,
    /// The other end has closed, or an error is pending.
    pub closed: bool,
}

/// Custom sources.
impl<S: 'static> Net<S> {
    /// Registers anything that mio can wait for; `callback` is called when it becomes ready.
    /// Readiness is edge-triggered: use the source until it returns `WouldBlock`. An error or a
    /// panic of the callback closes the source; so does [`close`](Self::close) with its token.
    ///
    /// # Errors
    /// The system refuses the source, for example because it is registered already.
    pub fn register_source<T, F>(
        &mut self,
        source: T,
        interest: Interest,
        callback: F,
    ) -> Result<Token, Error>
    where
        T: Source + 'static,
        F: FnMut(&mut T, &mut Context<'_, S>, Readiness) -> HandlerResult + 'static,
    {
        let attached = Box::<Attached>::default();
        let token = self.insert(Entity::Source(attached), "cannot register the source")?;
        let mut source = Box::new(WithCallback { source, callback });
        let registered =
            AnySource::<S>::register(&mut *source, &self.core.sys, token.to_usize(), interest);
        self.or_remove(token, registered, "cannot register the source")?;
        self.pending_handlers.push((token, AnyHandler::Source(source)));
        Ok(token)
    }
}

/// The handlers' side of a custom source: the source and its callback as one.
pub(crate) trait AnySource<S> {
    fn fire(&mut self, cx: &mut Context<'_, S>, ready: Readiness) -> HandlerResult;
    fn register(&mut self, sys: &Poller, token: usize, interest: Interest) -> std::io::Result<()>;
    fn deregister(&mut self, sys: &Poller);
    /// The type of the source.
    fn source_name(&self) -> &'static str;
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

    fn register(&mut self, sys: &Poller, token: usize, interest: Interest) -> std::io::Result<()> {
        self.source.register(sys.registry_for_sources()?, mio::Token(token), interest)
    }

    fn deregister(&mut self, sys: &Poller) {
        let registry = sys.registry_for_sources();
        if let Err(e) = registry.and_then(|registry| self.source.deregister(registry)) {
            log::trace!("deregistering a source: {e}");
        }
    }

    fn source_name(&self) -> &'static str {
        std::any::type_name::<T>()
    }
}
