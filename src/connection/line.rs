//! Sockets with work that no event announces, in the order in which they are served.

use std::collections::VecDeque;

use super::read::Budget;
use crate::config::Config;
use crate::token::Token;

/// Those of one kind.
#[derive(Debug, Default)]
struct Queue {
    /// With unread input, an unused edge, a pending callback.
    ready: VecDeque<Token>,
    /// Those that have used up their budget: they join `ready` in the next turn.
    later: Vec<Token>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.later.is_empty()
    }

    fn begin_turn(&mut self) {
        if !self.later.is_empty() {
            self.ready.extend(self.later.drain(..));
        }
    }
}

/// The trunks ([`StreamOptions::trunk`](crate::StreamOptions::trunk)), and behind them all others.
///
/// Trunks have three quarters of a turn's work among them. One that is cut goes behind the other trunks.
#[derive(Debug, Default)]
pub(crate) struct Line {
    trunks: Queue,
    others: Queue,
    /// The units of work that trunks may still spend in this turn before others are served.
    allotted: usize,
    /// A trunk has used up the turn alone, with one long message or a slow callback. The next turn
    /// belongs to the others.
    trunks_rest: bool,
}

/// The one that is served next.
pub(crate) struct Served {
    pub(crate) token: Token,
    /// It is a trunk, and its budget is this many units.
    pub(crate) allotted: Option<usize>,
}

impl Served {
    pub(crate) fn budget(&self, config: &Config) -> Budget {
        match self.allotted {
            Some(units) => Budget::of_trunk(units),
            None => Budget::new(config),
        }
    }
}

impl Line {
    fn queue(&mut self, trunk: bool) -> &mut Queue {
        if trunk { &mut self.trunks } else { &mut self.others }
    }

    /// It is served in this turn, if the work of others leaves room.
    pub(crate) fn join(&mut self, token: Token, trunk: bool) {
        self.queue(trunk).ready.push_back(token);
    }

    /// It is served in the next turn.
    pub(crate) fn join_later(&mut self, token: Token, trunk: bool) {
        self.queue(trunk).later.push(token);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.trunks.is_empty() && self.others.is_empty()
    }

    /// How many are to be served in this turn.
    pub(crate) fn len(&self) -> usize {
        self.trunks.ready.len() + self.others.ready.len()
    }

    /// A turn with this much work begins.
    pub(crate) fn begin_turn(&mut self, work: usize) {
        // One unit at least is the trunks'; where it is the only one, every second turn is theirs.
        let rest = std::mem::take(&mut self.trunks_rest);
        self.allotted = if rest { 0 } else { work - work / 4 };
        self.trunks.begin_turn();
        self.others.begin_turn();
    }

    /// Takes out the next one.
    pub(crate) fn next(&mut self) -> Option<Served> {
        if self.allotted > 0
            && let Some(token) = self.trunks.ready.pop_front()
        {
            return Some(Served { token, allotted: Some(self.allotted) });
        }
        let token = self.others.ready.pop_front().or_else(|| self.trunks.ready.pop_front())?;
        Some(Served { token, allotted: None })
    }

    /// A trunk has been served and has left this of what was allotted. `used_up`: the turn's work is at its
    /// end.
    pub(crate) fn trunk_left(&mut self, units: usize, used_up: bool) {
        self.allotted = units;
        self.trunks_rest = used_up;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(index: usize) -> Token {
        Token::new(index, 1).unwrap()
    }

    fn next(line: &mut Line) -> Option<(usize, Option<usize>)> {
        line.next().map(|served| (served.token.index(), served.allotted))
    }

    // row 278
    #[test]
    fn trunks_are_first_and_one_that_is_cut_goes_behind_the_other() {
        let mut line = Line::default();
        line.join(token(1), false);
        line.join_later(token(2), true);
        line.join_later(token(3), true);
        line.begin_turn(8);
        assert_eq!(line.len(), 3);
        assert_eq!(next(&mut line), Some((2, Some(6))));
        line.join_later(token(2), true);
        line.trunk_left(0, false);
        assert_eq!(next(&mut line), Some((1, None)));
        assert_eq!(next(&mut line), Some((3, None)), "nobody else waits");
        line.join_later(token(3), true);
        line.begin_turn(8);
        assert_eq!(next(&mut line), Some((2, Some(6))));
        line.trunk_left(4, false);
        assert_eq!(next(&mut line), Some((3, Some(4))), "they share what is allotted");
        assert!(line.is_empty());
    }

    // row 278
    #[test]
    fn behind_a_turn_that_a_trunk_has_used_up_the_others_have_one() {
        let mut line = Line::default();
        for work in [1, 1024] {
            line.join(token(1), true);
            line.join(token(2), false);
            line.begin_turn(work);
            assert_eq!(next(&mut line), Some((1, Some(work - work / 4))));
            line.join_later(token(1), true);
            line.trunk_left(0, true);
            line.begin_turn(work);
            assert_eq!(next(&mut line), Some((2, None)));
            line.join_later(token(2), false);
            line.begin_turn(work);
            assert_eq!(next(&mut line).map(|(token, _)| token), Some(1));
            line.trunk_left(0, false);
            assert_eq!(next(&mut line).map(|(token, _)| token), Some(2));
        }
    }
}
