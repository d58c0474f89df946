//! A backplane over the nodes of a cluster. `.ci/cluster.py` has a real one.

use std::rc::Rc;
use std::time::Duration;

use tidegate::Reactor;
use tidegate::backplane::BackplaneEvent;

use crate::support::PATIENCE;
use crate::support::redis::{
    Engine, Process, Slots, Turns, let_go, new_cluster, slot_of, turned_until,
};

/// In the first half of the slots, and in the second.
const LOW: [&str; 2] = ["bar", "{bar}2"];
const HIGH: &str = "foo";

fn url(slots: &Slots) -> String {
    format!("redis://{}", slots.borrow()[0].1)
}

fn connected(slots: &Slots) -> Process {
    Process::new(&url(slots), |backplane| backplane)
}

#[test]
fn the_names_of_these_tests_lie_where_they_say() {
    assert!(LOW.iter().all(|name| slot_of(name.as_bytes()) == 5061));
    assert_eq!(slot_of(HIGH.as_bytes()), 12182);
}

// row 270
#[test]
fn each_topic_is_at_the_node_of_its_slot_and_nowhere_else() {
    let ([mut low, mut high], slots) = new_cluster();
    let (mut a, mut b) = (connected(&slots), connected(&slots));
    let (mut anna, mut ben) = (a.member_of(LOW[0]), b.member_of(LOW[0]));
    let (mut adam, mut bea) = (a.member_of(HIGH), b.member_of(HIGH));
    turned_until!(low, high, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    assert_eq!((a.next_event(), a.next_event()), (Some(BackplaneEvent::Connected), None));
    assert_eq!(a.backplane.stats().nodes, 2);
    assert_eq!(low.state().channels.keys().collect::<Vec<_>>(), [LOW[0].as_bytes()]);
    assert_eq!(high.state().channels.keys().collect::<Vec<_>>(), [HIGH.as_bytes()]);
    for number in 0..3 {
        a.say(LOW[0], &format!("l{number}"));
        a.say(HIGH, &format!("h{number}"));
    }
    let (mut got_ben, mut got_bea) = (String::new(), String::new());
    turned_until!(low, high, a, b; {
        got_ben += &ben.got();
        got_bea += &bea.got();
        got_ben.len() + got_bea.len() == 30
    });
    assert_eq!((&*got_ben, &*got_bea), ("T:l0|T:l1|T:l2|", "T:h0|T:h1|T:h2|"));
    assert_eq!((&*anna.got(), &*adam.got()), ("T:l0|T:l1|T:l2|", "T:h0|T:h1|T:h2|"));
    assert_eq!((low.state().published, high.state().published), (3, 3));
    assert_eq!((low.state().moved, high.state().moved), (0, 0));
    drop(adam);
    turned_until!(low, high, a, b; high.state().commands.iter().any(|said| said == "SUNSUBSCRIBE foo"));
}

// row 270
#[test]
fn what_is_said_while_a_slot_moves_comes_in_order_and_once() {
    let ([mut low, mut high], slots) = new_cluster();
    let (mut a, mut b) = (connected(&slots), connected(&slots));
    let (mut ben, mut bea) = (b.member_of(LOW[0]), b.member_of(HIGH));
    turned_until!(low, high, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    let mut said = 0;
    let mut speak = |a: &mut Process| {
        for _ in 0..10 {
            said += 1;
            a.say(LOW[0], &format!("{said:04}"));
            a.say(HIGH, &format!("{said:04}"));
        }
    };
    speak(&mut a);
    a.turn_once();
    // In the middle of what is on its way: the first node has none of it any longer.
    let high_at = slots.borrow()[1].1;
    *slots.borrow_mut() = vec![(16383, high_at)];
    let_go(&mut low);
    speak(&mut a);
    a.turn_once();
    speak(&mut a);
    let moved = |process: &Process| {
        process.events.borrow().iter().any(|event| matches!(event, BackplaneEvent::Moved { .. }))
    };
    turned_until!(low, high, a, b; moved(&b) && a.backplane.stats().queued_messages == 0);
    turned_until!(low, high, a, b; a.backplane.stats().nodes + b.backplane.stats().nodes == 2);
    assert!((1..=20).contains(&a.backplane.stats().moved), "of the first two rounds");
    let at = b.events.borrow().iter().find_map(|event| match event {
        BackplaneEvent::Moved { topics, .. } => Some(*topics),
        _ => None,
    });
    assert_eq!(at, Some(1));
    // b may have missed what came before it had subscribed there, and nothing since.
    speak(&mut a);
    let (mut got, mut others) = (String::new(), String::new());
    turned_until!(low, high, a, b; {
        got += &ben.got();
        others += &bea.got();
        got.ends_with("T:0040|") && others.ends_with("T:0040|")
    });
    let all: Vec<String> = (1..=40).map(|number| format!("T:{number:04}|")).collect();
    assert_eq!(others, all.concat(), "of a slot that did not move nothing is missed");
    let came: Vec<&str> = got.split_inclusive('|').collect();
    assert!(came.is_sorted() && came.windows(2).all(|two| two[0] != two[1]), "{came:?}");
    assert!(got.ends_with(&all[30..].concat()));
    assert!(!a.events.borrow().iter().any(|event| matches!(event, BackplaneEvent::Lost { .. })));
}

// row 272
#[test]
fn a_node_that_is_lost_takes_its_topics_along_until_another_one_has_its_slots() {
    let ([mut low, high], slots) = new_cluster();
    let (mut a, mut b) = (connected(&slots), connected(&slots));
    let (mut ben, mut bea) = (b.member_of(LOW[0]), b.member_of(HIGH));
    let mut high = Some(high);
    turned_until!(low, high.as_mut().unwrap(), a, b;
        a.backplane.is_connected() && b.backplane.is_connected());
    high = None;
    turned_until!(low, a, b; !a.backplane.is_connected() && !b.backplane.is_connected());
    assert!(high.is_none());
    a.say(LOW[0], "here");
    a.say(HIGH, "later");
    let mut got = String::new();
    turned_until!(low, a, b; { got += &ben.got(); got == "T:here|" });
    assert_eq!(a.backplane.stats().queued_messages, 1);
    let low_at = slots.borrow()[0].1;
    *slots.borrow_mut() = vec![(16383, low_at)];
    turned_until!(low, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    a.say(HIGH, "now");
    let mut got = String::new();
    turned_until!(low, a, b; { got += &bea.got(); got.ends_with("T:now|") });
    assert_eq!(a.backplane.stats().queued_messages, 0);
    for process in [&a, &b] {
        let events = std::mem::take(&mut *process.events.borrow_mut());
        let told =
            |wanted: fn(&BackplaneEvent) -> bool| events.iter().filter(|e| wanted(e)).count();
        assert_eq!(told(|event| matches!(event, BackplaneEvent::Lost { .. })), 1, "{events:?}");
        assert_eq!(told(|event| matches!(event, BackplaneEvent::Resumed { .. })), 1, "{events:?}");
        let high_at = events.iter().any(|event| event.to_string().contains(": 127.0.0.1:"));
        assert!(high_at, "which node it was: {events:?}");
    }
}

// row 271
#[test]
fn nodes_that_disagree_about_a_slot_are_not_asked_without_end() {
    let ([mut low, mut high], slots) = new_cluster();
    let mut a = connected(&slots);
    let mut adam = a.member_of(HIGH);
    turned_until!(low, high, a; a.backplane.is_connected());
    // Each says that the other one has all slots.
    let (low_at, high_at) = (slots.borrow()[0].1, slots.borrow()[1].1);
    let all_at = |at| Rc::new(std::cell::RefCell::new(vec![(16383, at)]));
    low.state_mut().cluster = Some((low_at, all_at(high_at)));
    high.state_mut().cluster = Some((high_at, all_at(low_at)));
    for number in 0..100 {
        a.say(LOW[0], &format!("{number:02}"));
    }
    let moved =
        |low: &Reactor<Engine>, high: &Reactor<Engine>| low.state().moved + high.state().moved;
    // Each message is refused some times by each, and then waits.
    turned_until!(low, high, a; moved(&low, &high) >= 300);
    low.state_mut().cluster = Some((low_at, Rc::clone(&slots)));
    high.state_mut().cluster = Some((high_at, Rc::clone(&slots)));
    turned_until!(low, high, a; a.backplane.stats().queued_messages == 0);
    assert_eq!(low.state().published, 100);
    assert!(moved(&low, &high) < 1500, "{}", moved(&low, &high));
    a.say(HIGH, "to the members here");
    assert_eq!(adam.got(), "");
    turned_until!(low, high, a; adam.got() == "T:to the members here|");
}

// row 273
#[test]
fn of_kept_names_nothing_is_lost_when_their_slot_moves() {
    let ([mut low, mut high], slots) = new_cluster();
    let keeping = |slots: &Slots| {
        Process::new(&url(slots), |backplane| backplane.prefix("{bar}/").keep("", 1000))
    };
    let (mut a, mut b) = (keeping(&slots), keeping(&slots));
    let mut ben = b.member_of("x");
    // Its place is known when the first one has come.
    let mut got = String::new();
    turned_until!(low, high, a, b; {
        if a.backplane.is_connected() && b.backplane.is_connected() && a.backplane.stats().queued_messages == 0 {
            a.say("x", "begin");
        }
        got += &ben.got();
        !got.is_empty()
    });
    turned_until!(low, high, a, b; {
        got += &ben.got();
        a.backplane.stats().queued_messages == 0
            && got.matches("begin").count() as u64 == b.backplane.stats().received
    });
    got.clear();
    for number in 0..10 {
        a.say("x", &number.to_string());
    }
    a.turn_once();
    // The slot moves with its stream.
    let high_at = slots.borrow()[1].1;
    *slots.borrow_mut() = vec![(16383, high_at)];
    high.state_mut().streams = low.state().streams.clone();
    high.state_mut().last_id = low.state().last_id;
    for number in 10..20 {
        a.say("x", &number.to_string());
    }
    let all: String = (0..20).map(|number| format!("T:{number}|")).collect();
    // A read that waits in a node is refused when its slot leaves.
    for (token, _) in std::mem::take(&mut low.state_mut().blocked) {
        low.net().send(token, format!("-MOVED {} {high_at}\r\n", slot_of(b"bar")));
    }
    turned_until!(low, high, a, b; {
        got += &ben.got();
        got.replace("T:begin|", "").len() >= all.len()
    });
    assert_eq!(got.replace("T:begin|", ""), all);
    assert_eq!(a.backplane.stats().queued_messages, 0);
}

// row 274
#[test]
fn what_cannot_be_in_a_cluster_is_one_clear_line() {
    type Change = fn(tidegate::backplane::Backplane) -> tidegate::backplane::Backplane;
    let cases: [(&str, Option<&'static str>, Change, &str); 3] = [
        ("/3", None, |b| b, "a cluster has database 0 alone, 3 was asked for"),
        ("", Some("6.2.14"), |b| b, "expected Redis 7 or newer for a cluster, 6.2.14 came"),
        (
            "",
            None,
            |b| b.prefix("chat/").keep("room/", 10),
            "expected a hash tag in their beginning, such as {room}/, \"chat/room/\" came",
        ),
    ];
    for (database, version, change, why) in cases {
        let ([mut low, mut high], slots) = new_cluster();
        low.state_mut().version = version;
        let mut a = Process::new(&(url(&slots) + database), |backplane| {
            change(backplane.longest_wait(Duration::from_millis(5)))
        });
        turned_until!(low, high, a; !a.events.borrow().is_empty());
        let event = a.next_event().unwrap();
        assert!(matches!(event, BackplaneEvent::Failed { .. }), "{event:?}");
        let said = event.to_string();
        assert!(said.contains(why) && !said.contains('\n'), "{said}");
    }
}

// row 271
#[test]
fn what_a_node_says_unasked_is_not_taken_for_an_answer() {
    let ([mut low, mut high], slots) = new_cluster();
    let mut b = connected(&slots);
    // Of a slot that stays, and of one that is about to leave.
    let stays = (0..).map(|n| format!("x{n}")).find(|n| slot_of(n.as_bytes()) < 4000).unwrap();
    let _leaves = b.member_of(LOW[0]);
    let gone = b.member_of(&stays);
    turned_until!(low, high, b; b.backplane.is_connected() && low.state().channels.len() == 2);
    let group = b.reactor.net().group(&*stays);
    b.reactor.net().leave(group, gone.token);
    for _ in 0..3 {
        b.turn_once(); // the question is on its way
    }
    let (low_at, high_at) = (slots.borrow()[0].1, slots.borrow()[1].1);
    *slots.borrow_mut() = vec![(4999, low_at), (16383, high_at)];
    let_go(&mut low);
    turned_until!(low, high, b; high.state().channels.contains_key(LOW[0].as_bytes()));
}

// row 272
#[test]
fn a_node_that_is_away_is_asked_for_at_a_steady_pace() {
    let ([mut low, high], slots) = new_cluster();
    let mut a = connected(&slots);
    drop(high);
    let asked = |low: &Reactor<Engine>| {
        low.state().commands.iter().filter(|said| *said == "CLUSTER SLOTS").count()
    };
    // It is dialled every few milliseconds, and asked for once in half a second, however long that takes here.
    let begun = std::time::Instant::now();
    turned_until!(low, a; a.events.borrow().len() > 60);
    let most = 4 + begun.elapsed().as_millis() / 500;
    assert!(asked(&low) as u128 <= most, "{} of {most}", asked(&low));
}

// row 273
#[test]
fn kept_names_are_read_again_where_another_node_takes_the_place_of_theirs() {
    let ([mut low, high], slots) = new_cluster();
    let mut b = Process::new(&url(&slots), |backplane| backplane.prefix("{foo}/").keep("", 1000));
    let _ben = b.member_of("x");
    let mut high = Some(high);
    turned_until!(low, high.as_mut().unwrap(), b; high.as_ref().unwrap().state().blocked.len() == 1);
    high = None;
    assert!(high.is_none());
    // Meanwhile the second connection is tried, and there is none to have.
    turned_until!(low, b; b.events.borrow().len() > 20);
    let low_at = slots.borrow()[0].1;
    *slots.borrow_mut() = vec![(16383, low_at)];
    turned_until!(low, b; b.backplane.is_connected() && low.state().blocked.len() == 1);
}

// row 290
#[test]
fn a_read_that_is_refused_is_tried_after_its_wait_whatever_else_is_said() {
    let ([mut low, high], slots) = new_cluster();
    let mut b = Process::new(&url(&slots), |backplane| backplane.prefix("{bar}/").keep("", 1000));
    let _ben = b.member_of("x");
    let mut high = Some(high);
    turned_until!(low, high.as_mut().unwrap(), b; low.state().blocked.len() == 1);
    // Of a cluster of which a part is away, the other one may refuse everything.
    high = None;
    assert!(high.is_none());
    turned_until!(low, b; !b.backplane.is_connected());
    low.state_mut().unreadable = Some("CLUSTERDOWN The cluster is down");
    let begun = std::time::Instant::now();
    for _ in 0..2000 {
        b.say("x", "something");
        low.turn_once();
        b.turn_once();
    }
    turned_until!(low, b; low.state().refused_reads > 1);
    let (reads, most) = (low.state().refused_reads, 4 + begun.elapsed().as_millis() / 10);
    assert!(reads as u128 <= most, "{reads} of {most}");
    low.state_mut().unreadable = None;
    turned_until!(low, b; low.state().blocked.len() == 1);
}

// row 272
#[test]
fn it_is_resumed_when_the_topics_of_a_lost_node_are_subscribed_elsewhere() {
    let ([mut low, high], slots) = new_cluster();
    let mut a = connected(&slots);
    let _bea = a.member_of(HIGH);
    let mut high = Some(high);
    turned_until!(low, high.as_mut().unwrap(), a; a.backplane.is_connected());
    high = None;
    assert!(high.is_none());
    turned_until!(low, a; !a.backplane.is_connected());
    let low_at = slots.borrow()[0].1;
    *slots.borrow_mut() = vec![(16383, low_at)];
    low.state_mut().holds = true;
    turned_until!(low, a; !low.state().held.is_empty());
    for _ in 0..20 {
        low.turn_once();
        a.turn_once();
    }
    assert!(!a.backplane.is_connected(), "its subscription is not confirmed");
    low.state_mut().holds = false;
    for (token, answer) in std::mem::take(&mut low.state_mut().held) {
        low.net().send(token, answer);
    }
    turned_until!(low, a; a.backplane.is_connected());
}

// row 293
#[test]
fn a_slot_without_a_node_is_told_and_keeps_nobody_else_from_being_connected() {
    let ([mut low, mut high], slots) = new_cluster();
    let (low_at, high_at) = (slots.borrow()[0].1, slots.borrow()[1].1);
    let nobody = ([127, 0, 0, 1], 0).into();
    let gap = slot_of(HIGH.as_bytes());
    *slots.borrow_mut() = vec![(8191, low_at), (gap - 1, high_at), (gap, nobody), (16383, high_at)];
    let mut a = connected(&slots);
    let (mut adam, _anna) = (a.member_of(LOW[0]), a.member_of(HIGH));
    until_connected(&mut low, &mut high, &mut a);
    let unserved = |names: &[&str]| BackplaneEvent::Unserved {
        topics: names.iter().map(|name| name.as_bytes().to_vec()).collect(),
    };
    assert_eq!(a.next_event(), Some(unserved(&[HIGH])));
    assert_eq!(a.next_event(), Some(BackplaneEvent::Connected));
    // Others go on; and what is said to it, or to another one of that slot, waits.
    let other = "{foo}2";
    let mut b = connected(&slots);
    b.say(LOW[0], "1");
    b.say(other, "later");
    b.say(HIGH, "2");
    turned_until!(low, high, a, b; adam.got() == "T:1|");
    turned_until!(low, high, a, b; b.backplane.is_connected());
    assert_eq!(b.next_event(), Some(unserved(&[HIGH, other])));
    assert_eq!(b.next_event(), Some(BackplaneEvent::Connected));
    assert_eq!(b.backplane.stats().queued_messages, 2);
    // It is asked for, and each is named once.
    let asked = |low: &Reactor<Engine>, high: &Reactor<Engine>| {
        low.state().count("CLUSTER SLOTS") + high.state().count("CLUSTER SLOTS")
    };
    let before = asked(&low, &high);
    turned_until!(low, high, a, b; asked(&low, &high) >= before + 3);
    assert_eq!((a.next_event(), b.next_event()), (None, None));
    *slots.borrow_mut() = vec![(8191, low_at), (16383, high_at)];
    turned_until!(low, high, a, b; b.backplane.stats().queued_messages == 0);
    turned_until!(low, high, a, b; !a.events.borrow().is_empty());
    assert!(matches!(a.next_event(), Some(BackplaneEvent::Moved { topics: 1, .. })));
    assert_eq!((a.next_event(), b.next_event()), (None, None));
    let mut bea = a.member_of(other);
    turned_until!(low, high, a, b; high.state().channels.len() == 2);
    b.say(other, "now");
    turned_until!(low, high, a, b; bea.got() == "T:now|");
    // A slot that loses its node later keeps nobody from being together again.
    *slots.borrow_mut() = vec![(8191, low_at), (gap - 1, high_at), (gap, nobody), (16383, high_at)];
    for token in low.state().clients.clone() {
        low.net().abort(token);
    }
    let resumed = |event: &BackplaneEvent| matches!(event, BackplaneEvent::Resumed { .. });
    turned_until!(low, high, a, b; a.events.borrow().iter().any(resumed));
    assert!(a.events.borrow().contains(&unserved(&[HIGH, other])));
    assert_eq!(
        unserved(&["a", "b"]).to_string(),
        "no node has the slots of 2 topics, which wait: \"a\", \"b\""
    );
}

fn until_connected(low: &mut Reactor<Engine>, high: &mut Reactor<Engine>, a: &mut Process) {
    turned_until!(low, high, a; a.backplane.is_connected());
}

// row 294
#[test]
fn a_shutdown_waits_for_what_moves_from_node_to_node() {
    let ([mut low, mut high], slots) = new_cluster();
    let mut a = connected(&slots);
    until_connected(&mut low, &mut high, &mut a);
    low.state_mut().holds_published = true;
    let (low_at, high_at) = (slots.borrow()[0].1, slots.borrow()[1].1);
    *slots.borrow_mut() = vec![(5000, low_at), (16383, high_at)];
    for number in 0..3 {
        a.say(LOW[0], &number.to_string());
    }
    turned_until!(low, high, a; low.state().held.len() == 3);
    // The first one says that the slot is elsewhere, and the others are not answered yet.
    let (to, answer) = low.state_mut().held.remove(0);
    low.net().send(to, answer);
    turned_until!(low, high, a; a.backplane.stats().moved == 1);
    a.reactor.net().shutdown(PATIENCE * 10);
    a.say(LOW[0], "3");
    for _ in 0..20 {
        low.turn_once();
        high.turn_once();
        a.turn_once(); // it has not ended
    }
    for (to, answer) in low.state_mut().let_out() {
        low.net().send(to, answer);
    }
    let begin = std::time::Instant::now();
    while a.reactor.turn(Some(Duration::ZERO)).unwrap().is_continue() {
        low.turn_once();
        high.turn_once();
        assert!(begin.elapsed() < PATIENCE);
    }
    turned_until!(high; high.state().published == 4);
}
