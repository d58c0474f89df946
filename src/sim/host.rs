//! The hosts of a simulation: reactors whose state is of any type, side by side.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::error::Error;
use crate::net::Net;
use crate::reactor::Reactor;
use crate::stats::ReactorStats;

use super::workers::Crew;

/// A host of a simulation, with state of type `S`: the key to it. A plain value.
pub struct Host<S> {
    pub(super) index: u32,
    /// Which simulation it belongs to.
    pub(super) sim: u64,
    state: PhantomData<fn() -> S>,
}

impl<S> Host<S> {
    pub(super) fn new(index: u32, sim: u64) -> Self {
        Host { index, sim, state: PhantomData }
    }
}

impl<S> Clone for Host<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Host<S> {}

impl<S> fmt::Debug for Host<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.index)
    }
}

/// A reactor, whatever its state is.
pub(super) trait Process {
    /// One turn; `false` when the loop has ended. With a length the loop keeps deadlines.
    fn turn(&mut self, length: Option<Duration>) -> Result<bool, Error>;
    fn has_leftovers(&self) -> bool;
    fn next_deadline(&self) -> Option<Instant>;
    fn forgotten(&self) -> Option<String>;
    fn leftovers(&self) -> Option<String>;
    fn stats(&self) -> ReactorStats;
    fn socket_count(&self) -> usize;
    fn is_live_timer(&self, key: u64) -> Option<bool>;
    /// The loop has ended: every handler gets its `on_close`, and the state stays.
    fn finish(&mut self);
    /// The process is killed.
    fn vanish(self: Box<Self>);
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

pub(super) struct Running<S: 'static>(pub(super) Reactor<S>);

impl<S: 'static> Process for Running<S> {
    fn turn(&mut self, length: Option<Duration>) -> Result<bool, Error> {
        let verdict = match length {
            None => self.0.turn(None),
            Some(length) => self.0.turn_until(self.0.this_moment() + length),
        };
        Ok(matches!(verdict?, ControlFlow::Continue(())))
    }

    fn has_leftovers(&self) -> bool {
        self.0.has_leftovers()
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.0.next_deadline()
    }

    fn forgotten(&self) -> Option<String> {
        self.0.forgotten()
    }

    fn leftovers(&self) -> Option<String> {
        self.0.leftovers()
    }

    fn stats(&self) -> ReactorStats {
        self.0.stats()
    }

    fn socket_count(&self) -> usize {
        self.0.socket_count()
    }

    fn is_live_timer(&self, key: u64) -> Option<bool> {
        self.0.is_live_timer(key)
    }

    fn finish(&mut self) {
        self.0.finish();
    }

    fn vanish(self: Box<Self>) {
        self.0.vanish();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Makes a host's reactor: at first, and again after each crash.
pub(super) trait SetUp {
    fn start(&self, config: Config) -> Result<Box<dyn Process>, Error>;

    /// What the hosts of a machine have in common, if they are workers.
    fn crew(&self) -> Option<&dyn Crew> {
        None
    }
}

pub(super) struct With<S, F> {
    set_up: F,
    state: PhantomData<fn() -> S>,
}

impl<S, F> With<S, F> {
    pub(super) fn new(set_up: F) -> Self {
        With { set_up, state: PhantomData }
    }
}

impl<S, F> SetUp for With<S, F>
where
    S: 'static,
    F: Fn(&mut Net<S>) -> Result<S, Error>,
{
    fn start(&self, config: Config) -> Result<Box<dyn Process>, Error> {
        let reactor = Reactor::build(config, |net| (self.set_up)(net))?;
        Ok(Box::new(Running(reactor)))
    }
}
