//! A relay between two scripted sockets: splices that stop, fail or are refused at
//! the exact call where it hurts.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;

use super::*;
use crate::connection::Input;
use crate::context::Context;
use crate::error::{CloseInfo, HandlerResult};
use crate::handler::Handler;
use crate::options::StreamOptions;
use crate::sys::script::{Outcome, Script};
use crate::token::Token;
use Outcome::{Bytes, Errno, Fail, Take};

const EINVAL: i32 = 22;
const EPIPE: i32 = 32;
const ECONNRESET: i32 = 104;

/// What a read brings that makes the next one a splice.
const BIG: usize = 64 * 1024;

type Log = Vec<String>;

struct Notes(&'static str);

impl Handler<Log> for Notes {
    fn on_data(&mut self, _: &mut Context<'_, Log>, _: &mut Input<'_>) -> HandlerResult {
        panic!("a relayed connection's handler is not called")
    }

    fn on_close(&mut self, cx: &mut Context<'_, Log>, closed: &CloseInfo) {
        cx.state.push(format!("{}: {closed}", self.0));
    }
}

/// A reactor with a relay from a scripted `source` to a scripted `target`.
struct Rig {
    reactor: Reactor<Log>,
    tokens: [Token; 2],
    source: Rc<RefCell<Script>>,
    target: Rc<RefCell<Script>>,
    /// What the source has brought.
    brought: Vec<u8>,
}

fn rig() -> Rig {
    let mut reactor = Reactor::with_state(Log::new()).unwrap();
    let (from, source) = scripted::connection(&mut reactor, Notes("source"));
    let (to, target) = scripted::connection(&mut reactor, Notes("target"));
    assert!(reactor.net().relay(from, to));
    let mut rig = Rig { reactor, tokens: [from, to], source, target, brought: Vec::new() };
    rig.settle();
    rig
}

/// One that has brought so much that it is spliced from now on.
fn piped() -> Rig {
    let mut rig = rig();
    rig.brings(BIG);
    rig.target.borrow_mut().writes.push_back(Take(BIG));
    rig.source_event();
    assert!(rig.target.borrow().written == rig.brought);
    assert_eq!(rig.target.borrow().spliced, 0);
    rig
}

impl Rig {
    /// Bytes that encode their position come next.
    fn brings(&mut self, n: usize) {
        let at = self.brought.len();
        self.brought.extend((at..at + n).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8));
        self.source.borrow_mut().reads.push_back(Bytes(self.brought[at..].to_vec()));
    }

    fn takes(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.target.borrow_mut().writes.extend(outcomes);
    }

    fn settle(&mut self) {
        scripted::settle(&mut self.reactor);
    }

    fn event(&mut self, which: usize, bits: u8) {
        scripted::event(&mut self.reactor, self.tokens[which], bits);
    }

    fn source_event(&mut self) {
        self.event(0, Ready::READABLE);
    }

    fn target_event(&mut self) {
        self.event(1, Ready::WRITABLE);
    }

    fn queued(&mut self) -> usize {
        let target = self.tokens[1];
        self.reactor.net().queued(target)
    }

    #[track_caller]
    fn assert_all_arrived(&mut self) {
        assert_eq!(self.queued(), 0);
        let target = self.target.borrow();
        assert!(target.written == self.brought, "{} bytes", target.written.len());
    }
}

#[test]
fn a_big_read_makes_the_next_one_a_splice_and_a_small_splice_ends_that() {
    let mut rig = piped();
    let before = rig.source.borrow().spliced;
    rig.brings(BIG);
    rig.takes([Take(BIG)]);
    rig.source_event();
    assert_eq!(rig.source.borrow().spliced - before, 2, "one that moves, one that finds nothing");
    assert_eq!(rig.target.borrow().spliced, 1);
    rig.brings(100);
    rig.brings(100);
    rig.takes([Take(100), Take(100)]);
    rig.source_event();
    assert_eq!(rig.source.borrow().spliced - before, 3, "the second one is read");
    rig.assert_all_arrived();
}

// A splice that returns `WouldBlock` means an empty socket, and the next edge is served.
#[test]
fn a_splice_that_would_block_waits_for_the_next_edge() {
    let mut rig = piped();
    for _ in 0..3 {
        rig.source_event(); // nothing there
        rig.brings(20_000);
        rig.source.borrow_mut().reads.push_back(Fail(ErrorKind::Interrupted));
        rig.brings(20_000);
        rig.takes([Take(20_000), Take(20_000)]);
        rig.source_event();
        rig.assert_all_arrived();
    }
}

#[test]
fn a_target_may_stop_at_every_point_and_loses_nothing() {
    for cut in [1, 2, 4_095, 4_096, 50_000, BIG - 1] {
        let mut rig = piped();
        rig.brings(BIG);
        rig.takes([Take(cut), Fail(ErrorKind::WouldBlock)]);
        rig.source_event();
        assert_eq!(rig.queued(), BIG - cut, "what is in the pipe is queued");
        // A short count alone does not mean that the target is full.
        rig.takes([Fail(ErrorKind::Interrupted), Take(BIG)]);
        rig.target_event();
        rig.assert_all_arrived();
    }
}

#[test]
fn more_than_a_turns_budget_arrives_from_one_edge() {
    let mut rig = piped();
    for _ in 0..20 {
        rig.brings(BIG);
        rig.takes([Take(BIG)]);
    }
    scripted::edge(&mut rig.reactor, rig.tokens[0], Ready::READABLE);
    let reads = Config::default().reads_per_turn;
    assert_eq!(rig.source.borrow().reads.len(), 20 - reads, "the budget holds");
    rig.settle();
    rig.assert_all_arrived();
}

#[test]
fn a_full_target_holds_two_pipes_at_most_and_what_comes_behind_is_read() {
    let mut rig = piped();
    let before = rig.source.borrow().spliced;
    rig.takes([Fail(ErrorKind::WouldBlock)]);
    // Each alone stays below the high-water mark.
    for _ in 0..3 {
        rig.brings(17_000);
        rig.source_event();
    }
    // Two that move something, and one between them that finds nothing.
    assert_eq!(rig.source.borrow().spliced - before, 3);
    assert_eq!(rig.queued(), 3 * 17_000);
    rig.takes([Take(17_000), Take(17_000), Take(17_000)]);
    rig.target_event();
    rig.assert_all_arrived();
}

#[test]
fn what_is_queued_before_and_behind_a_pipe_stays_there() {
    let mut rig = piped();
    let target = rig.tokens[1];
    rig.takes([Fail(ErrorKind::WouldBlock)]);
    rig.reactor.net().send(target, "<before>");
    rig.settle();
    rig.brings(BIG);
    rig.source_event();
    rig.reactor.net().send(target, "<behind>");
    // Large enough to be written from the caller's own bytes, were it first.
    rig.reactor.net().send(target, vec![b'#'; 20_000]);
    rig.settle();
    rig.takes([Take(3)].into_iter().chain((0..12).map(|_| Take(10_000))));
    for _ in 0..20 {
        rig.target_event();
    }
    let mut expected = rig.brought[..BIG].to_vec();
    expected.extend(b"<before>");
    expected.extend(&rig.brought[BIG..]);
    expected.extend(b"<behind>");
    expected.extend([b'#'; 20_000]);
    assert!(rig.target.borrow().written == expected);
    assert_eq!(rig.queued(), 0);
}

// ---- refusals ----

#[test]
fn a_source_that_cannot_be_spliced_is_read_and_not_asked_again() {
    let mut rig = piped();
    let before = rig.source.borrow().spliced;
    rig.source.borrow_mut().reads.push_back(Errno(EINVAL));
    for _ in 0..3 {
        rig.brings(BIG);
        rig.takes([Take(BIG)]);
    }
    while !rig.source.borrow().reads.is_empty() {
        rig.source_event();
    }
    rig.assert_all_arrived();
    assert_eq!(rig.source.borrow().spliced - before, 1);
    assert_eq!(rig.target.borrow().spliced, 0);
}

#[test]
fn what_cannot_be_spliced_to_the_target_is_taken_out_of_the_pipe() {
    for cut in [0, 1, 30_000] {
        let mut rig = piped();
        rig.brings(BIG);
        if cut > 0 {
            rig.takes([Take(cut)]);
        }
        rig.takes([Errno(EINVAL), Take(5), Take(BIG)]);
        rig.source_event();
        rig.target_event();
        rig.assert_all_arrived();
        // And never again.
        let before = rig.target.borrow().spliced;
        rig.brings(BIG);
        rig.takes([Take(BIG)]);
        rig.source_event();
        rig.assert_all_arrived();
        assert_eq!(rig.target.borrow().spliced, before);
    }
}

#[test]
fn an_unsupported_write_of_anything_else_is_an_error() {
    let mut rig = piped();
    rig.brings(10);
    rig.takes([Fail(ErrorKind::Unsupported)]);
    // Less than a block, and read because it is urgent.
    rig.event(0, Ready::READABLE | Ready::URGENT);
    assert_eq!(rig.reactor.state().len(), 2, "{:?}", rig.reactor.state());
}

// ---- ends ----

#[test]
fn the_end_behind_a_splice_is_read_and_passed_on() {
    let mut rig = piped();
    rig.brings(BIG);
    rig.source.borrow_mut().reads.extend([Bytes(Vec::new()), Bytes(Vec::new())]);
    rig.takes([Take(BIG)]);
    rig.event(0, Ready::READABLE | Ready::READ_CLOSED);
    rig.assert_all_arrived();
    assert!(rig.target.borrow().shut);
    assert!(!rig.source.borrow().shut);
}

// The system returns an error once; a read after it finds an ordinary end.
#[test]
fn an_error_of_a_splice_is_no_end() {
    let mut rig = piped();
    rig.brings(BIG);
    rig.source.borrow_mut().reads.extend([Errno(ECONNRESET), Bytes(Vec::new())]);
    rig.takes([Take(BIG)]);
    rig.event(0, Ready::READABLE | Ready::READ_CLOSED | Ready::ERROR);
    let reset = std::io::Error::from_raw_os_error(ECONNRESET);
    assert_eq!(*rig.reactor.state(), [format!("source: {reset}"), "target: aborted".into()]);
    assert!(rig.target.borrow().written == rig.brought, "what came before it is passed on");
    assert!(!rig.target.borrow().shut, "nothing that looks like an end");
}

#[test]
fn a_target_that_breaks_reports_what_is_in_the_pipe() {
    let mut rig = piped();
    rig.brings(BIG);
    rig.takes([Take(1_000), Errno(EPIPE)]);
    rig.source_event();
    let broken = std::io::Error::from_raw_os_error(EPIPE);
    let unsent = BIG - 1_000;
    assert_eq!(
        *rig.reactor.state(),
        [format!("target: {broken} ({unsent} bytes unsent)"), "source: aborted".into()]
    );
}

// Output that is queued for the source is written before both end.
#[test]
fn a_target_that_breaks_is_heard_to_its_end_and_the_source_no_more() {
    let mut rig = piped();
    rig.target.borrow_mut().reads.push_back(Bytes(b"sorry".to_vec()));
    rig.source.borrow_mut().writes.push_back(Take(5));
    rig.brings(BIG);
    rig.brings(10);
    rig.takes([Errno(EPIPE)]);
    rig.source_event();
    assert_eq!(rig.source.borrow().written, b"sorry");
    assert_eq!(rig.source.borrow().reads.len(), 1, "nothing to read it for");
    assert_eq!(rig.reactor.state().len(), 2);
}

// splice(2) stops before an urgent mark and returns that there is nothing.
#[test]
fn urgent_data_is_read() {
    let mut rig = piped();
    let before = rig.source.borrow().spliced;
    rig.brings(BIG);
    rig.takes([Take(BIG)]);
    rig.event(0, Ready::READABLE | Ready::URGENT);
    assert_eq!(rig.source.borrow().spliced, before);
    rig.assert_all_arrived();
}

#[test]
fn nothing_is_written_behind_a_group_message_that_ended_the_target() {
    let mut rig = piped();
    let group = rig.reactor.net().create_group();
    assert!(rig.reactor.net().join(group, rig.tokens[1]));
    let too_much = vec![b'g'; StreamOptions::new().output_limit + 1];
    rig.reactor.net().publish(group, &too_much);
    rig.brings(BIG);
    rig.takes([Take(BIG), Take(BIG)]);
    rig.source_event();
    assert_eq!(rig.target.borrow().written.len(), BIG, "what was written before");
}

// row 133
#[test]
fn one_that_broke_ends_with_its_peers_end_and_not_with_a_deadline() {
    let mut rig = rig();
    rig.source.borrow_mut().writes.push_back(Errno(EPIPE));
    rig.target.borrow_mut().reads.push_back(Bytes(b"never heard".to_vec()));
    rig.source.borrow_mut().reads.extend([Bytes(b"last words".to_vec()), Bytes(Vec::new())]);
    rig.takes([Take(10)]);
    rig.event(1, Ready::READABLE);
    assert_eq!(rig.target.borrow().written, b"last words");
    let broken = std::io::Error::from_raw_os_error(EPIPE);
    assert_eq!(
        *rig.reactor.state(),
        [format!("source: {broken} (11 bytes unsent)"), "target: aborted".into()]
    );
}

// row 134
#[test]
fn what_groups_had_for_a_full_target_loses_no_edge_of_the_source() {
    let mut rig = rig();
    let group = rig.reactor.net().create_group();
    assert!(rig.reactor.net().join(group, rig.tokens[1]));
    let all_there_is = vec![b'g'; StreamOptions::new().output_limit];
    rig.reactor.net().publish(group, &all_there_is);
    rig.brings(10);
    rig.source_event();
    assert_eq!(rig.queued(), all_there_is.len(), "there is no room");
    rig.takes((0..100).map(|_| Take(all_there_is.len())));
    rig.target_event();
    assert_eq!(rig.queued(), 0);
    assert_eq!(rig.target.borrow().written.len(), all_there_is.len() + 10);
}

// row 134
#[test]
fn what_groups_had_for_a_full_target_goes_before_what_the_source_had_left() {
    struct Leaves;
    impl Handler<Log> for Leaves {
        fn on_data(&mut self, _: &mut Context<'_, Log>, _: &mut Input<'_>) -> HandlerResult {
            Ok(())
        }
        fn on_close(&mut self, cx: &mut Context<'_, Log>, closed: &CloseInfo) {
            cx.state.push(closed.to_string());
        }
    }
    let mut reactor = Reactor::with_state(Log::new()).unwrap();
    let (from, source) = scripted::connection(&mut reactor, Leaves);
    let (to, target) = scripted::connection(&mut reactor, Leaves);
    scripted::settle(&mut reactor);
    source.borrow_mut().reads.push_back(Bytes(b"left".to_vec()));
    scripted::event(&mut reactor, from, Ready::READABLE);
    let group = reactor.net().create_group();
    assert!(reactor.net().join(group, to));
    let all_there_is = vec![b'g'; StreamOptions::new().output_limit];
    reactor.net().publish(group, &all_there_is);
    assert!(reactor.net().relay(from, to));
    scripted::settle(&mut reactor);
    assert!(
        reactor.state().is_empty(),
        "there is no room, and nothing is over: {:?}",
        reactor.state()
    );
    target.borrow_mut().writes.extend((0..100).map(|_| Take(all_there_is.len())));
    scripted::event(&mut reactor, to, Ready::WRITABLE);
    assert_eq!(target.borrow().written.len(), all_there_is.len() + 4);
}

// row 137
#[test]
fn a_source_whose_output_broke_waits_for_room_in_the_target() {
    let mut rig = rig();
    for _ in 0..80 {
        rig.brings(100_000);
    }
    rig.source.borrow_mut().reads.push_back(Bytes(Vec::new()));
    // A write to the source breaks; what its peer sent is still to be read. The target takes nothing.
    rig.source.borrow_mut().writes.push_back(Errno(EPIPE));
    let source = rig.tokens[0];
    rig.reactor.net().send(source, b"back");
    rig.settle();
    rig.event(0, Ready::READABLE | Ready::READ_CLOSED);
    assert!(rig.queued() < 1 << 20, "it is held back at the high-water mark");
    assert!(rig.reactor.state().is_empty(), "and waits");
    // Each time there is room again, more is passed on, until the source has ended.
    while rig.reactor.state().is_empty() {
        rig.takes([Take(usize::MAX)]);
        rig.target_event();
    }
    // Only what was in the queue at that moment may be cut off: the end is no proper one.
    let target = rig.target.borrow();
    assert!(rig.brought.starts_with(&target.written));
    assert!(target.written.len() + (1 << 20) >= rig.brought.len(), "{}", target.written.len());
}

// row 25
#[test]
fn an_end_behind_a_failed_write_is_not_passed_on() {
    let mut rig = rig();
    rig.source.borrow_mut().writes.push_back(Errno(ECONNRESET));
    rig.target.borrow_mut().reads.push_back(Bytes(b"never heard".to_vec()));
    rig.source.borrow_mut().reads.push_back(Bytes(Vec::new()));
    rig.event(1, Ready::READABLE);
    assert!(!rig.target.borrow().shut, "its peer would take the reset for an end");
    assert!(rig.reactor.state().contains(&"target: aborted".to_owned()));
}
