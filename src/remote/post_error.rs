//! Why a message of another thread was refused.

use std::fmt;

/// A message was refused. It contains the value, for another attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PostError<T> {
    /// The reactor has ended.
    Ended(T),
    /// [`Config::post_limit`](crate::Config::post_limit) messages are waiting already.
    Full(T),
    /// The reactor is simulated (feature `sim`), and this is not the simulation's thread: a message
    /// of another one would come at a time that no seed decides.
    Simulated(T),
}

impl<T> PostError<T> {
    pub(crate) fn with<U>(self, value: U) -> PostError<U> {
        match self {
            PostError::Ended(_) => PostError::Ended(value),
            PostError::Full(_) => PostError::Full(value),
            PostError::Simulated(_) => PostError::Simulated(value),
        }
    }

    /// Returns the value that was refused.
    pub fn into_inner(self) -> T {
        match self {
            PostError::Ended(value) | PostError::Full(value) | PostError::Simulated(value) => value,
        }
    }
}

impl<T> fmt::Display for PostError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PostError::Ended(_) => "the reactor has ended",
            PostError::Full(_) => "too many messages wait for the reactor",
            PostError::Simulated(_) => "only a simulation's own thread may post to its reactors",
        })
    }
}

/// Without the value, which may be a closure.
impl<T> fmt::Debug for PostError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PostError::Ended(_) => "Ended(..)",
            PostError::Full(_) => "Full(..)",
            PostError::Simulated(_) => "Simulated(..)",
        })
    }
}

impl<T> std::error::Error for PostError<T> {}
