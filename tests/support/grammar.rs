//! The callback grammar as a state machine: it is told every callback and every ending that was
//! asked for, and collects what breaks the rules.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tidegate::Token;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Callback {
    Open,
    Data,
    Drain,
    Timer,
    Notification,
    Eof,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Ended,
    Gone,
}

#[derive(Debug, Default)]
struct Checker {
    states: HashMap<Token, State>,
    /// Whose end was asked for, or is due: only `on_close` may follow.
    ending: HashMap<Token, &'static str>,
    running: Option<(Token, Callback)>,
    told: HashMap<Callback, usize>,
    broken: Vec<String>,
}

/// Shared by all handlers of one reactor.
#[derive(Debug, Clone, Default)]
pub struct Grammar(Rc<RefCell<Checker>>);

/// Says that the callback has returned, or was unwound.
pub struct Running(Grammar);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.borrow_mut().running = None;
    }
}

impl Grammar {
    pub fn new() -> Self {
        Self::default()
    }

    /// A callback begins; keep what this returns until it ends.
    #[must_use]
    pub fn enter(&self, token: Token, callback: Callback) -> Running {
        let mut checker = self.0.borrow_mut();
        let Checker { states, ending, running, told, broken } = &mut *checker;
        if let Some(outer) = running.replace((token, callback)) {
            broken.push(format!("{token}: {callback:?} inside {outer:?}"));
        }
        *told.entry(callback).or_default() += 1;
        let state = states.entry(token).or_insert(State::New);
        let next = match (*state, callback) {
            (State::New, Callback::Open) => Some(State::Open),
            (State::Open, Callback::Eof) => Some(State::Ended),
            (State::New | State::Open | State::Ended, Callback::Close) => Some(State::Gone),
            (State::Open, Callback::Data) => Some(State::Open),
            (
                State::Open | State::Ended,
                Callback::Drain | Callback::Timer | Callback::Notification,
            ) => Some(*state),
            _ => None,
        };
        match next {
            Some(next) => *state = next,
            None => broken.push(format!("{token}: {callback:?} in state {state:?}")),
        }
        if let (Some(why), true) = (ending.get(&token), callback != Callback::Close) {
            broken.push(format!("{token}: {callback:?} after {why}"));
        }
        drop(checker);
        Running(self.clone())
    }

    /// From here on only `on_close` may come.
    pub fn ending(&self, token: Token, why: &'static str) {
        self.0.borrow_mut().ending.entry(token).or_insert(why);
    }

    pub fn told(&self, callback: Callback) -> usize {
        self.0.borrow().told.get(&callback).copied().unwrap_or(0)
    }

    pub fn is_gone(&self, token: Token) -> bool {
        self.0.borrow().states.get(&token) == Some(&State::Gone)
    }

    /// Every connection that a handler heard of.
    pub fn known(&self) -> Vec<Token> {
        let mut known: Vec<_> = self.0.borrow().states.keys().copied().collect();
        known.sort_unstable();
        known
    }

    /// Panics if a rule was broken so far.
    #[track_caller]
    pub fn check(&self) {
        let checker = self.0.borrow();
        assert!(checker.broken.is_empty(), "the grammar was broken: {:#?}", checker.broken);
    }

    /// The reactor is gone: every connection has had its `on_close`.
    #[track_caller]
    pub fn check_at_end(&self) {
        self.check();
        let checker = self.0.borrow();
        let left: Vec<_> = checker.states.iter().filter(|(_, s)| **s != State::Gone).collect();
        assert!(left.is_empty(), "never told on_close: {left:?}");
    }
}
