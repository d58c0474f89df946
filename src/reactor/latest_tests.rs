//! Values of which only the newest counts: what is replaced, what is not, and in which order they leave.
//! The sockets are scripted; one that has no result left is full.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::scripted::{edge, event, settle};
use super::*;
use crate::connection::{Input, SendStatus, Wire};
use crate::context::Context;
use crate::error::{CloseInfo, HandlerResult};
use crate::handler::Handler;
use crate::layer::{Layer, LengthPrefixed, Lines};
use crate::options::{Overflow, StreamOptions};
use crate::sys::script::{Outcome, Script};
use crate::token::{Group, Token};

/// Notes drains and the end.
struct Listener;

type Told = Vec<String>;

impl Handler<Told> for Listener {
    fn on_data(&mut self, _: &mut Context<'_, Told>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Told>) -> HandlerResult {
        cx.state.push("drained".to_owned());
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Told>, closed: &CloseInfo) {
        cx.state.push(closed.to_string());
    }
}

struct Rig {
    reactor: Reactor<Told>,
    token: Token,
    script: Rc<RefCell<Script>>,
}

impl Rig {
    /// An open connection, whose socket takes these writes and no more.
    fn new(options: StreamOptions, takes: &[usize]) -> Self {
        let mut reactor = Reactor::with_state(Vec::new()).unwrap();
        let (token, script) = scripted::connection_with(&mut reactor, options, Listener);
        settle(&mut reactor);
        let mut rig = Rig { reactor, token, script };
        rig.takes(takes);
        rig
    }

    fn layered(layer: impl Layer + 'static, takes: &[usize]) -> Self {
        let mut reactor = Reactor::with_state(Vec::new()).unwrap();
        let (token, script) = scripted::connection(&mut reactor, Listener);
        let wire = Wire::new(Box::new(layer));
        reactor.net().core.with(token, |conn| conn.stream.set_wire(wire));
        settle(&mut reactor);
        let mut rig = Rig { reactor, token, script };
        rig.takes(takes);
        rig
    }

    fn takes(&mut self, takes: &[usize]) {
        self.script.borrow_mut().writes.extend(takes.iter().map(|&n| Outcome::Take(n)));
    }

    fn net(&mut self) -> &mut Net<Told> {
        self.reactor.net()
    }

    fn put(&mut self, key: u64, value: impl AsRef<[u8]>) -> SendStatus {
        let token = self.token;
        self.net().send_latest(token, key, value)
    }

    fn send(&mut self, message: &str) {
        let token = self.token;
        self.net().send(token, message);
    }

    /// The end of the turn.
    fn flush(&mut self) -> &mut Self {
        settle(&mut self.reactor);
        self
    }

    /// The socket has room for these writes, and says so.
    fn room(&mut self, takes: &[usize]) -> &mut Self {
        self.takes(takes);
        event(&mut self.reactor, self.token, Ready::WRITABLE);
        self
    }

    fn written(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.script.borrow_mut().written)).unwrap()
    }

    /// A group with this member.
    fn group(&mut self) -> Group {
        let token = self.token;
        let group = self.net().create_group();
        assert!(self.net().join(group, token));
        group
    }

    fn publish(&mut self, group: Group, key: u64, value: impl AsRef<[u8]>) {
        self.net().publish_latest(group, key, value);
    }

    /// Values waiting, replaced, dropped, and whether it is behind.
    fn stats(&mut self) -> (usize, u64, u64, bool) {
        let token = self.token;
        let stats = self.net().newest_stats(token).unwrap();
        (stats.waiting, stats.replaced, stats.dropped, stats.behind)
    }
}

const ALL: usize = usize::MAX;

// row 170
#[test]
fn a_value_replaces_its_unsent_predecessor_and_keeps_its_place() {
    let mut rig = Rig::new(StreamOptions::new(), &[ALL]);
    assert_eq!(rig.put(1, "a1 "), SendStatus::Queued);
    assert_eq!(rig.put(2, "b1 "), SendStatus::Queued);
    assert_eq!(rig.put(1, "a2 "), SendStatus::Replaced);
    assert_eq!(rig.stats(), (2, 1, 0, false));
    assert_eq!(rig.flush().written(), "a2 b1 ", "one write");
    assert_eq!(rig.put(1, "a3 "), SendStatus::Queued, "its predecessor has left");
    assert_eq!(rig.room(&[ALL]).flush().written(), "a3 ");
}

// row 170
#[test]
fn a_value_that_has_partly_left_is_never_replaced() {
    let mut rig = Rig::new(StreamOptions::new(), &[3]);
    rig.put(1, "a1234567 ");
    rig.put(2, "b1 ");
    assert_eq!(rig.flush().written(), "a12");
    assert_eq!(rig.put(1, "a-new "), SendStatus::Queued, "the old one is on its way");
    assert_eq!(rig.put(1, "a-newer "), SendStatus::Replaced);
    assert_eq!(rig.flush().written(), "", "the socket is full");
    assert_eq!(rig.room(&[ALL, ALL]).written(), "34567 b1 a-newer ");
    assert_eq!(rig.stats(), (0, 1, 0, false));
}

#[test]
fn what_waits_for_a_full_socket_stays_replaceable() {
    let mut rig = Rig::new(StreamOptions::new(), &[]);
    rig.put(0, "stuck ");
    rig.flush();
    for round in 0..100 {
        for key in 1..4 {
            rig.put(key, format!("{key}-{round} "));
        }
        rig.flush();
    }
    assert_eq!(rig.stats(), (3, 297, 0, false));
    assert_eq!(rig.room(&[ALL, ALL]).written(), "stuck 1-99 2-99 3-99 ");
}

#[test]
fn a_key_that_changes_all_the_time_does_not_starve_itself() {
    let mut rig = Rig::new(StreamOptions::new(), &[]);
    rig.put(0, "stuck ");
    rig.flush();
    rig.put(9, "hot ");
    for key in 1..5 {
        rig.put(key, "cold ");
        rig.put(9, format!("hot{key} "));
    }
    assert_eq!(rig.room(&[ALL, ALL]).written(), "stuck hot4 cold cold cold cold ");
}

// row 172
#[test]
fn at_most_one_batch_of_values_is_in_the_queue() {
    let value = [b'v'; 100];
    let mut rig = Rig::new(StreamOptions::new(), &[10]);
    for key in 0..1000 {
        rig.put(key, value);
    }
    // The first batch has 16 KiB, as much as is written at once.
    rig.flush();
    assert_eq!(rig.stats().0, 1000 - 164);
    // Behind a short write the batches are small: 2 KiB, and twice that once the queue is taken.
    rig.room(&[ALL, 1]);
    assert_eq!(rig.stats().0, 1000 - 164 - 41);
    assert_eq!(rig.written().len(), 16_400 + 1);
    rig.room(&[ALL; 30]);
    assert_eq!((rig.stats().0, rig.written().len()), (0, 100_000 - 16_401));
}

// row 172
#[test]
fn ordinary_messages_go_before_values_that_wait() {
    let mut rig = Rig::new(StreamOptions::new(), &[ALL]);
    rig.put(1, "value ");
    rig.send("message ");
    assert_eq!(rig.flush().written(), "message value ");
}

// row 173
#[test]
fn a_close_and_a_half_close_send_all_values_and_an_abort_counts_them() {
    let mut rig = Rig::new(StreamOptions::new(), &[]);
    rig.put(0, "stuck ");
    rig.flush();
    rig.put(1, "a1 ");
    rig.put(1, "a2 ");
    let token = rig.token;
    rig.net().half_close(token);
    assert_eq!(rig.put(1, "too late"), SendStatus::Gone);
    assert_eq!(rig.room(&[ALL]).written(), "stuck a2 ");
    assert!(rig.script.borrow().shut);

    let mut rig = Rig::new(StreamOptions::new(), &[ALL]);
    for key in 0..1000 {
        rig.put(key, "value ");
    }
    let token = rig.token;
    rig.net().close(token);
    assert_eq!(rig.flush().written().len(), 6000);
    assert!(rig.script.borrow().shut);

    let mut rig = Rig::new(StreamOptions::new(), &[]);
    rig.put(0, "stuck ");
    rig.flush();
    rig.put(1, "value ");
    let token = rig.token;
    assert_eq!(rig.net().queued(token), 12);
    rig.net().abort(token);
    rig.flush();
    assert_eq!(*rig.reactor.state(), ["aborted (12 bytes unsent)"]);
}

// row 174
#[test]
fn values_count_towards_the_output_limit_and_not_towards_the_marks() {
    let options = StreamOptions::new().output_limit(1000).high_water(500).overflow(Overflow::Drop);
    let mut rig = Rig::new(options, &[]);
    for key in 0..5 {
        assert_eq!(rig.put(key, [b'v'; 100]), SendStatus::Queued, "164 bytes each");
    }
    let token = rig.token;
    assert!(!rig.net().is_above_high_water(token));
    assert_eq!(rig.put(5, [b'v'; 117]), SendStatus::Full, "1001 bytes");
    assert_eq!(rig.put(4, [b'v'; 200]), SendStatus::Replaced);
    assert_eq!(rig.put(4, [b'v'; 300]), SendStatus::Full, "the older value stays");
    assert_eq!(rig.put(4, [b'w'; 1]), SendStatus::Replaced);
    assert_eq!(rig.net().send(token, [b'm'; 400]), SendStatus::Full);
    assert_eq!(rig.net().queued(token), 401);
    assert_eq!(rig.stats(), (5, 2, 2, false));

    let mut rig = Rig::new(StreamOptions::new().output_limit(100), &[]);
    assert_eq!(rig.put(1, [b'v'; 100]), SendStatus::Full);
    rig.flush();
    assert_eq!(*rig.reactor.state(), ["more queued output than the limit of 100 bytes"]);
}

// row 175
#[test]
fn with_both_marks_at_zero_on_drain_says_when_all_has_left() {
    let options = StreamOptions::new().high_water(0).low_water(0).auto_pause(false);
    let mut rig = Rig::new(options, &[2]);
    for key in 0..300 {
        rig.put(key, [b'v'; 100]);
    }
    rig.flush();
    rig.room(&[ALL, ALL, 5]);
    assert!(rig.reactor.state().is_empty(), "values still wait");
    rig.room(&[ALL; 20]);
    assert_eq!(*rig.reactor.state(), ["drained"]);
    assert_eq!(rig.written().len(), 30_000);
    rig.put(1, "one more");
    rig.takes(&[ALL]);
    rig.flush();
    assert_eq!(*rig.reactor.state(), ["drained"], "it was never behind");
}

#[test]
fn values_may_be_discarded_and_what_has_partly_left_may_not() {
    let mut rig = Rig::new(StreamOptions::new(), &[2]);
    rig.put(1, "a1 ");
    rig.flush();
    rig.put(2, "b1 ");
    rig.put(3, "c1 ");
    let token = rig.token;
    assert_eq!(rig.net().discard_queued(token), 2);
    assert_eq!(rig.stats(), (0, 0, 2, false));
    rig.put(2, "b2 ");
    assert_eq!(rig.room(&[ALL, ALL]).written(), "a1 b2 ");
}

// row 176
#[test]
fn layers_encode_values_when_they_leave() {
    let mut rig = Rig::layered(Lines::new(), &[2]);
    rig.put(1, "first");
    rig.flush();
    rig.put(1, "second");
    rig.put(2, "no\nline");
    rig.put(2, "line");
    rig.put(3, "no\nline");
    rig.put(1, "third");
    assert_eq!(rig.room(&[ALL, ALL]).written(), "first\nthird\nline\n");
    assert_eq!(rig.stats(), (0, 2, 1, false), "one could not be encoded");

    let mut rig = Rig::layered(LengthPrefixed::new(4), &[6]);
    rig.put(1, "first");
    rig.flush();
    rig.put(1, "second");
    rig.put(1, "3");
    let token = rig.token;
    rig.net().close(token);
    assert_eq!(rig.room(&[ALL]).written(), "\0\0\0\u{5}first\0\0\0\u{1}3");
}

// row 217
#[test]
fn a_value_that_cannot_be_encoded_when_it_leaves_is_counted_by_its_group() {
    let mut rig = Rig::layered(Lines::new(), &[2]);
    let (one, other) = (rig.group(), rig.group());
    let long = value(0, 20_000);
    rig.publish(one, 1, &long);
    rig.flush();
    assert!(rig.stats().3, "it has fallen behind: what follows waits, not encoded");
    rig.publish(one, 2, "no\nline");
    rig.publish(one, 3, "no\nline");
    rig.publish(other, 3, "no\nline either");
    rig.publish(other, 4, "a line");
    rig.put(5, "no\nline of a group");
    rig.flush();
    assert_eq!(rig.stats(), (4, 1, 0, true));
    let written = rig.room(&[ALL; 10]).written();
    assert_eq!(written, [&long, "\na line\n"].concat());
    assert_eq!(rig.stats(), (0, 1, 3, false));
    let mut dropped = |group| {
        let published = rig.net().publish(group, "");
        (rig.net().group_stats(group).unwrap().dropped, published.dropped)
    };
    assert_eq!((dropped(one), dropped(other)), ((1, 1), (1, 1)));
}

/// A value of some length, with a number in front.
fn value(number: usize, len: usize) -> String {
    format!("{number:<width$};", width = len - 1)
}

// row 177
#[test]
fn a_member_that_keeps_up_gets_every_value_in_one_write() {
    let mut rig = Rig::new(StreamOptions::new(), &[ALL]);
    let group = rig.group();
    for n in 0..1000 {
        rig.publish(group, 7, value(n, 100));
    }
    let expected: String = (0..1000).map(|n| value(n, 100)).collect();
    assert!(rig.flush().written() == expected);
    assert_eq!(rig.stats(), (0, 0, 0, false));
    assert!(rig.reactor.net().core.stream(rig.token).unwrap().has_no_queue());
}

// row 177
#[test]
fn a_member_that_falls_behind_gets_the_newest_of_each_key_until_it_has_caught_up() {
    let mut rig = Rig::new(StreamOptions::new(), &[150]);
    let group = rig.group();
    for n in 0..1000 {
        rig.publish(group, n % 10, value(n as usize, 100));
    }
    // The socket has taken one and a half: the half is finished, the others wait.
    rig.flush();
    assert_eq!(rig.stats(), (10, 988, 0, true));
    assert_eq!(rig.net().group_stats(group).unwrap().replaced, 988);
    let token = rig.token;
    assert!(rig.net().members_behind(group).eq([token]));
    rig.publish(group, 3, value(1003, 100));
    rig.net().publish(group, "in between;");
    rig.flush();
    rig.room(&[50 + 11 + 100 + 9]);
    assert_eq!(
        rig.written(),
        [value(0, 100), value(1, 100), "in between;".to_owned(), value(992, 100)].concat()
            + &value(1003, 100)[..9],
        "what has partly left is finished; ordinary messages go first; then in their places"
    );
    // It has not caught up: the queue is short, and yet only the newest count.
    rig.publish(group, 5, value(2005, 100));
    rig.publish(group, 5, value(3005, 100));
    rig.flush();
    assert!(rig.stats().3);
    rig.room(&[ALL; 9]);
    assert!(!rig.stats().3);
    let numbers = [994, 995, 996, 997, 998, 999, 990, 991, 3005].map(|n| value(n, 100)).concat();
    let expected = value(1003, 100)[9..].to_owned() + &numbers;
    assert_eq!(rig.written(), expected);
    // Now it gets every one.
    rig.takes(&[ALL]);
    rig.publish(group, 5, "a;");
    rig.publish(group, 5, "b;");
    assert_eq!(rig.flush().written(), "a;b;");
}

// row 178
#[test]
fn a_member_has_not_fallen_behind_before_its_queue_is_too_long() {
    let mut rig = Rig::new(StreamOptions::new().behind_above(1000), &[]);
    let group = rig.group();
    for n in 0..10 {
        rig.publish(group, 1, value(n, 100));
        rig.flush();
    }
    assert!(!rig.stats().3);
    rig.publish(group, 1, value(10, 100));
    rig.flush();
    rig.publish(group, 1, value(11, 100));
    rig.flush();
    assert_eq!(rig.stats(), (1, 1, 0, true));
    let expected: String = (0..10).chain([11]).map(|n| value(n, 100)).collect();
    assert_eq!(rig.room(&[ALL, ALL]).written(), expected);
    assert!(!rig.stats().3);
}

// row 178
#[test]
fn no_value_overtakes_a_newer_one_of_its_key_on_another_path() {
    // A value of the connection's own, then one of its group, in one turn.
    let mut rig = Rig::new(StreamOptions::new(), &[ALL, ALL]);
    let group = rig.group();
    rig.put(1, "own;");
    rig.publish(group, 1, "published;");
    assert_eq!(rig.flush().written(), "own;published;");
    // The other way round.
    rig.takes(&[ALL]);
    rig.publish(group, 1, "published;");
    rig.put(1, "own;");
    assert_eq!(rig.flush().written(), "published;own;");
    // And while the socket is full.
    rig.put(0, "stuck;");
    rig.flush();
    rig.put(1, "own;");
    rig.publish(group, 1, "published;");
    rig.flush();
    rig.publish(group, 1, "again;");
    rig.put(1, "last;");
    rig.flush();
    assert_eq!(rig.room(&[ALL, ALL]).written(), "stuck;last;");
}

#[test]
fn ordinary_messages_among_values_have_no_key() {
    let mut rig = Rig::new(StreamOptions::new().behind_above(0), &[]);
    let group = rig.group();
    rig.publish(group, 9, "stuck;");
    rig.flush();
    for n in 0..3 {
        rig.net().publish(group, "ordinary;");
        rig.publish(group, 1, format!("1 {n};"));
        rig.net().publish(group, "ordinary;");
        rig.publish(group, 2, format!("2 {n};"));
    }
    rig.flush();
    assert_eq!(rig.stats(), (2, 4, 0, true));
    let expected = "stuck;".to_owned() + &"ordinary;".repeat(6) + "1 2;2 2;";
    assert_eq!(rig.room(&[ALL, ALL]).written(), expected);
}

// row 179
#[test]
fn a_peer_that_takes_no_value_is_closed_by_the_stall_timeout() {
    let options = StreamOptions::new().stall_timeout(Duration::from_millis(1)).behind_above(0);
    let mut rig = Rig::new(options, &[]);
    let group = rig.group();
    rig.publish(group, 1, "value");
    for _ in 0..1000 {
        if !rig.reactor.state().is_empty() {
            break;
        }
        let _ = rig.reactor.turn(Some(Duration::from_millis(5))).unwrap();
    }
    let expected = "timed out: the peer took no output for too long (5 bytes unsent)";
    assert_eq!(*rig.reactor.state(), [expected]);
}

#[test]
fn a_direct_send_goes_behind_what_was_published_before() {
    let mut rig = Rig::new(StreamOptions::new(), &[ALL, ALL]);
    let group = rig.group();
    for n in 0..300 {
        rig.publish(group, n, value(n as usize, 100));
    }
    rig.send("direct;");
    let expected: String = (0..300).map(|n| value(n, 100)).collect();
    let written = rig.flush().written();
    assert!(written == expected + "direct;", "{} bytes", written.len());
    assert!(!rig.stats().3);
}

#[test]
fn members_behind_layers_and_of_several_groups_fall_behind_too() {
    let mut rig = Rig::layered(Lines::new(), &[10]);
    let (one, two) = (rig.group(), rig.group());
    for n in 0..400 {
        rig.publish(one, n % 20, format!("{n:<100}"));
        rig.publish(two, 100 + n % 20, format!("{:<100}", n + 1000));
    }
    rig.flush();
    let (waiting, replaced, dropped, behind) = rig.stats();
    assert!(waiting == 40 && dropped == 0 && behind && replaced > 500, "{replaced}");
    rig.room(&[ALL; 50]);
    let written = rig.written();
    let lines: Vec<&str> = written.lines().map(str::trim_end).collect();
    for n in 380..400 {
        assert!(lines.contains(&&*n.to_string()), "{n}");
        assert!(lines.contains(&&*(n + 1000).to_string()), "{n}");
    }
    assert_eq!(lines.len() as u64, 800 - replaced);
    assert!(!rig.stats().3);
}

#[test]
fn publish_reports_what_was_dropped_since_the_last_one() {
    let options = StreamOptions::new().output_limit(1000).overflow(Overflow::Drop);
    let mut rig = Rig::new(options, &[]);
    let group = rig.group();
    for n in 0..20 {
        let published = rig.net().publish(group, value(n, 100));
        assert_eq!((published.members, published.dropped), (1, 0));
    }
    rig.flush();
    assert_eq!(rig.net().publish(group, value(20, 100)).dropped, 10);
    rig.flush();
    assert_eq!(rig.net().publish_latest(group, 1, value(21, 100)).dropped, 1);
    assert_eq!(rig.net().publish(group, "").dropped, 0);
    assert_eq!(rig.net().group_stats(group).unwrap().dropped, 11);
}

// row 218
#[test]
fn publish_reports_what_was_replaced_since_the_last_one() {
    let mut rig = Rig::new(StreamOptions::new(), &[150]);
    let group = rig.group();
    for n in 0..300 {
        let published = rig.net().publish_latest(group, n % 10, value(n as usize, 100));
        assert_eq!((published.members, published.replaced), (1, 0));
    }
    rig.flush();
    assert_eq!(rig.net().publish(group, "").replaced, 288);
    assert_eq!(rig.net().publish(group, "").replaced, 0);
    rig.publish(group, 3, value(300, 100));
    rig.flush();
    let last = rig.net().publish_latest(group, 4, value(301, 100));
    assert_eq!((last.dropped, last.replaced), (0, 1));
    rig.flush();
    assert_eq!(rig.net().group_stats(group).unwrap().replaced, 290);
    let token = rig.token;
    assert!(rig.net().leave(group, token));
    assert_eq!(rig.net().publish(group, "").replaced, 1, "also where nobody is left");
}

#[test]
fn many_values_for_a_fast_peer_are_written_within_the_budget_of_a_turn() {
    let mut reactor = Reactor::build(Config::new().work_per_turn(8), |_| Ok(Vec::new())).unwrap();
    let (token, script) = scripted::connection_with(&mut reactor, StreamOptions::new(), Listener);
    settle(&mut reactor);
    script.borrow_mut().writes.extend((0..100).map(|_| Outcome::Take(ALL)));
    for key in 0..1000 {
        reactor.net().send_latest(token, key, [b'v'; 1000]);
    }
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    let first = script.borrow().written.len();
    assert!((16_000..50_000).contains(&first), "{first}");
    settle(&mut reactor);
    assert_eq!(script.borrow().written.len(), 1_000_000);
    edge(&mut reactor, token, Ready::WRITABLE);
}
