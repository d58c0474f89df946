//! Sockets with work that no event announces, in the order in which they are served.

use std::collections::VecDeque;

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
    /// How many are in it. A turn looks once, and not into four lists.
    count: usize,
    /// The units of work that trunks may still spend in this turn before others are served.
    allotted: usize,
    /// The units that may still be lent to trunks for the answers that they get in this turn.
    lendable: usize,
    /// A trunk has used up a turn alone, with one long message or a slow callback. They are behind the others
    /// until one of those has been served.
    trunks_rest: bool,
}

/// The one that is served next.
pub(crate) struct Served {
    pub(crate) token: Token,
    /// It is a trunk, before the others.
    pub(crate) first: bool,
}

impl Line {
    fn queue(&mut self, trunk: bool) -> &mut Queue {
        if trunk { &mut self.trunks } else { &mut self.others }
    }

    /// It is served in this turn, if the work of others leaves room.
    pub(crate) fn join(&mut self, token: Token, trunk: bool) {
        self.queue(trunk).ready.push_back(token);
        self.count += 1;
    }

    /// It is served in the next turn.
    pub(crate) fn join_later(&mut self, token: Token, trunk: bool) {
        self.queue(trunk).later.push(token);
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many are to be served in this turn.
    pub(crate) fn len(&self) -> usize {
        self.trunks.ready.len() + self.others.ready.len()
    }

    /// A turn with this much work begins.
    pub(crate) fn begin_turn(&mut self, work: usize) {
        self.trunks.begin_turn();
        self.others.begin_turn();
        self.lendable = work.saturating_mul(2);
        self.trunks_rest &= !self.others.ready.is_empty();
        // One unit at least is the trunks'; where it is the only one, every second turn is theirs.
        self.allotted = if self.trunks_rest { 0 } else { work - work / 4 };
    }

    /// Takes out the next one.
    pub(crate) fn next(&mut self) -> Option<Served> {
        if self.allotted > 0
            && let Some(token) = self.trunks.ready.pop_front()
        {
            self.count -= 1;
            return Some(Served { token, first: true });
        }
        let token = match self.others.ready.pop_front() {
            Some(token) => {
                self.trunks_rest = false;
                token
            }
            None => self.trunks.ready.pop_front()?,
        };
        self.count -= 1;
        Some(Served { token, first: false })
    }

    /// What a trunk may use now.
    pub(crate) fn allotted(&self) -> usize {
        self.allotted
    }

    /// Lends units for answers, on top of what is allotted: as much as two turns' work to all trunks together.
    pub(crate) fn lend(&mut self, answers: usize) -> usize {
        let lent = answers.min(self.lendable);
        self.lendable -= lent;
        lent
    }

    /// A trunk has been served and has used so many units, what was lent first. Returns what is given back.
    pub(crate) fn trunk_used(&mut self, units: usize, lent: usize) -> usize {
        let back = lent.saturating_sub(units);
        self.lendable += back;
        self.allotted = self.allotted.saturating_sub(units.saturating_sub(lent));
        back
    }

    /// The trunk that was served has used up the turn.
    pub(crate) fn trunks_rest(&mut self) {
        self.trunks_rest = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(index: usize) -> Token {
        Token::new(index, 1).unwrap()
    }

    fn next(line: &mut Line) -> Option<(usize, bool)> {
        line.next().map(|served| (served.token.index(), served.first))
    }

    // row 278
    #[test]
    fn trunks_are_first_and_one_that_is_cut_goes_behind_the_other() {
        let mut line = Line::default();
        line.join(token(1), false);
        line.join_later(token(2), true);
        line.join_later(token(3), true);
        line.begin_turn(8);
        assert_eq!((line.len(), line.allotted()), (3, 6));
        assert_eq!(next(&mut line), Some((2, true)));
        line.join_later(token(2), true);
        line.trunk_used(6, 0);
        assert_eq!(next(&mut line), Some((1, false)));
        assert_eq!(next(&mut line), Some((3, false)), "nobody else waits");
        line.join_later(token(3), true);
        line.begin_turn(8);
        assert_eq!(next(&mut line), Some((2, true)));
        line.trunk_used(2, 0);
        assert_eq!((next(&mut line), line.allotted()), (Some((3, true)), 4), "they share");
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
            assert_eq!(line.allotted(), work - work / 4);
            assert_eq!(next(&mut line), Some((1, true)));
            line.join_later(token(1), true);
            line.trunk_used(work, 0);
            line.trunks_rest();
            line.begin_turn(work);
            assert_eq!(next(&mut line), Some((2, false)));
            line.join_later(token(2), false);
            line.begin_turn(work);
            assert_eq!(next(&mut line).map(|(token, _)| token), Some(1));
            line.trunk_used(work, 0);
            assert_eq!(next(&mut line).map(|(token, _)| token), Some(2));
        }
    }

    // row 278
    #[test]
    fn trunks_that_rest_wait_for_one_of_the_others_to_be_served() {
        let mut line = Line::default();
        line.join_later(token(1), true);
        line.trunks_rest();
        line.begin_turn(8);
        assert_eq!(line.allotted(), 6, "nobody else waits");
        line.trunks_rest();
        line.join(token(2), false);
        for _ in 0..3 {
            line.begin_turn(8); // a turn with a deadline may not come to them
            assert_eq!(line.allotted(), 0);
        }
        assert_eq!(next(&mut line), Some((2, false)));
        line.begin_turn(8);
        assert_eq!(line.allotted(), 6);
    }

    // row 279
    #[test]
    fn what_is_lent_for_answers_is_limited_for_all_trunks_together() {
        let mut line = Line::default();
        line.join(token(1), true);
        line.begin_turn(8);
        assert_eq!(line.lend(10), 10);
        assert_eq!(line.trunk_used(3, 10), 7, "which was not needed");
        assert_eq!((line.lend(20), line.allotted()), (13, 6));
        assert_eq!(line.trunk_used(15, 13), 0);
        assert_eq!((line.lend(20), line.allotted()), (0, 4));
    }
}
