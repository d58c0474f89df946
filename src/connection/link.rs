//! What makes two connections a pair.

use std::io;

use super::{Phase, Stream};
use crate::token::Token;

/// The other connection of a pair, seen from one of them.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its full output pauses this one's reads.
    pub(crate) other: Token,
    /// How the reactor passes on to it what this one brings; `None` if the handlers do.
    pub(crate) relay: Option<Carriage>,
    /// Bytes can be spliced to this one, as far as is known.
    pub(crate) takes_pipes: bool,
}

/// How bytes get from one socket to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carriage {
    /// Read and written: cheaper while little comes at once.
    Copied,
    /// Spliced: much came at once.
    Piped,
    /// This socket cannot be spliced from, or has ended.
    OnlyCopied,
}

impl Stream {
    pub(crate) fn link(&self) -> Option<&Link> {
        self.extra.as_ref()?.link.as_ref()
    }

    /// Notes how it is done from now on. What cannot be spliced never is.
    pub(crate) fn carry_by(&mut self, carriage: Carriage) {
        if let Some(link) = self.extra.as_mut().and_then(|extra| extra.link.as_mut())
            && let Some(relay) = &mut link.relay
            && *relay != Carriage::OnlyCopied
        {
            *relay = carriage;
        }
    }

    /// Whether the next bytes may be spliced from here. Not those of an urgent mark: splice(2) stops
    /// before it for ever, and only a read goes past it.
    pub(crate) fn may_be_piped(&self) -> bool {
        let piped = self.link().is_some_and(|link| link.relay == Some(Carriage::Piped));
        piped && self.phase == Phase::Open && !self.urgent
    }

    /// Whether bytes may be spliced to here: they pass no layer and wait for no opening. A queue
    /// that never runs empty takes the next pipe before the last one is free, but no third.
    pub(crate) fn takes_pipes(&self) -> bool {
        self.phase == Phase::Open
            && self.link().is_some_and(|link| link.takes_pipes)
            && self.accepts_output()
            && self.wire().is_none()
            && self.output.as_ref().is_none_or(|output| output.pipes() < 2)
    }

    /// A write that is not supported: if it was out of a pipe, what pipes hold is written like
    /// anything else, and nothing is spliced to here any more.
    #[cold]
    pub(super) fn refuses_pipes(&mut self, error: io::Error) -> io::Result<()> {
        let Some(output) = &mut self.output else { return Err(error) };
        if !output.unpipe()? {
            return Err(error);
        }
        if let Some(link) = self.extra.as_mut().and_then(|extra| extra.link.as_mut()) {
            link.takes_pipes = false;
        }
        Ok(())
    }

    /// Where the reactor passes on to what this one brings; `None` if its handler is told.
    pub(crate) fn relayed_to(&self) -> Option<Token> {
        self.link().filter(|link| link.relay.is_some()).map(|link| link.other)
    }
}
