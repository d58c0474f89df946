//! Names that the engine of a backplane keeps: nothing is lost, and newcomers hear what was said.

use std::cell::RefCell;
use std::rc::Rc;

use tidegate::Reactor;
use tidegate::backplane::BackplaneEvent;

use crate::support::redis::{
    Engine, Member, Process, Turns, keeping, new_engine, restarted, turned_until as until,
};

// row 248
#[test]
fn of_names_that_are_kept_nothing_is_lost_while_the_engine_is_away() {
    let (mut first, address) = new_engine();
    let (mut a, mut b) = (keeping(address), keeping(address));
    let (mut of_a, mut of_b) = (a.member_of("room"), b.member_of("room"));
    until!(first, a, b; first.state().blocked.len() == 2);
    a.say("room", "1");
    b.say("room", "2");
    let mut got = [String::new(), String::new()];
    until!(first, a, b; {
        got[0] += &of_a.got();
        got[1] += &of_b.got();
        got.iter().all(|got| got.len() == 8)
    });
    assert_eq!(got[0], "T:1|T:2|");
    // Nobody confirms 3 and 4, which are there twice then; what is said by a while b is away is there when
    // b comes back.
    first.state_mut().keeps_quiet = true;
    a.say("room", "3");
    a.say("room", "4");
    until!(first, a; first.state().last_id == 4);
    let mut second = restarted(first, address);
    until!(a, b; !a.backplane.is_connected() && !b.backplane.is_connected());
    a.say("room", "5");
    until!(second, a; a.backplane.stats().queued_messages == 0);
    assert_eq!(second.state().last_id, 7);
    assert!(!b.backplane.is_connected());
    let mut got = String::new();
    until!(second, a, b; { got += &of_b.got(); got.ends_with("T:5|") });
    assert_eq!(got, "T:3|T:4|T:5|");
    assert_eq!(of_a.got(), got, "here they were heard at once");
    // And the next is not lost either.
    b.say("room", "6");
    until!(second, a, b; of_a.got() == "T:6|");
    assert_eq!(of_b.got(), "T:6|");
    assert!(second.state().channels.is_empty(), "no subscription");
}

// row 247
#[test]
fn a_newcomer_hears_what_was_said_before_and_nothing_twice() {
    let (mut engine, address) = new_engine();
    let (mut a, mut b) = (keeping(address), keeping(address));
    let mut of_a = a.member_of("room");
    until!(engine, a, b; engine.state().blocked.len() == 1 && b.backplane.is_connected());
    for n in 1..=5 {
        a.say("room", &n.to_string());
    }
    until!(engine, a, b; a.backplane.stats().own == 5);
    // The first member of b, and one more of a, which has just said something that nobody has read.
    let (mut of_b, mut late) = (b.stranger(), a.stranger());
    b.backplane.join_with_history(b.reactor.net(), "room", of_b.token, 3);
    a.say("room", "6");
    a.backplane.join_with_history(a.reactor.net(), "room", late.token, 2);
    let mut got = [String::new(), String::new()];
    until!(engine, a, b; {
        got[0] += &of_b.got();
        got[1] += &late.got();
        got.iter().all(|got| got.ends_with("6|"))
    });
    a.say("room", "7");
    b.say("room", "8");
    let mut all = String::new();
    until!(engine, a, b; {
        got[0] += &of_b.got();
        got[1] += &late.got();
        all += &of_a.got();
        got.iter().all(|got| got.contains("7|") && got.contains("8|")) && all.contains("8|")
    });
    let without = |text: &str| text.replace("T:8|", "");
    let history = without(&got[0]);
    assert!("T:2|T:3|T:4|T:5|T:6|T:7|".ends_with(&history) && history.len() >= 16, "{history}");
    let history = without(&got[1]);
    assert!("T:3|T:4|T:5|T:6|T:7|".ends_with(&history) && history.len() >= 12, "{history}");
    assert_eq!(without(&all), "T:1|T:2|T:3|T:4|T:5|T:6|T:7|");
    // What somebody says who waits for the history of a name in which nobody is yet.
    let mut first = a.stranger();
    a.backplane.join_with_history(a.reactor.net(), "new", first.token, 3);
    a.say("new", "x");
    let mut got = String::new();
    until!(engine, a, b; { got += &first.got(); got == "T:x|" });
    a.say("new", "y");
    until!(engine, a, b; { got += &first.got(); got.ends_with("y|") });
    until!(engine, a, b; a.backplane.stats().queued_messages == 0);
    assert_eq!(got + &first.got(), "T:x|T:y|");
    // And somebody who is gone before the answer leaves nothing behind.
    let gone = a.stranger();
    let topics = a.backplane.stats().topics;
    a.backplane.join_with_history(a.reactor.net(), "empty", gone.token, 3);
    a.reactor.net().close(gone.token);
    until!(engine, a, b; a.backplane.stats().topics == topics);
    // Without the engine they join at once.
    drop(engine);
    until!(a, b; !a.backplane.is_connected());
    let mut alone = a.stranger();
    a.backplane.join_with_history(a.reactor.net(), "room", alone.token, 3);
    a.say("room", "9");
    until!(a, b; alone.got() == "T:9|");
}

// row 247
#[test]
fn a_newcomer_whose_question_is_lost_waits_for_the_next_connection() {
    let (mut engine, address) = new_engine();
    let (mut a, mut b) = (keeping(address), keeping(address));
    let _of_a = a.member_of("room");
    until!(engine, a, b; engine.state().blocked.len() == 1 && b.backplane.is_connected());
    a.say("room", "1");
    until!(engine, a, b; a.backplane.stats().own == 1);
    // b's second connection, the fourth in all, breaks before it has answered.
    until!(engine, a, b; engine.state().clients.len() == 4);
    let mut late = b.stranger();
    b.backplane.join_with_history(b.reactor.net(), "room", late.token, 5);
    let second = engine.state().clients[3];
    engine.net().abort(second);
    until!(engine, b; engine.state().clients.len() == 5);
    a.say("room", "2");
    let mut got = String::new();
    until!(engine, a, b; { got += &late.got(); got.ends_with("2|") });
    assert_eq!(got, "T:1|T:2|");
}

// row 275
#[test]
fn a_program_is_told_what_was_said_before_it_came_and_then_what_follows() {
    use std::cell::RefCell;
    use std::rc::Rc;

    let (mut engine, address) = new_engine();
    let mut a = keeping(address);
    let _of_a = a.member_of("room");
    until!(engine, a; engine.state().blocked.len() == 1);
    for n in 1..=5_u64 {
        a.say("room", &n.to_string());
    }
    until!(engine, a; a.backplane.stats().own == 5);
    // It says something before it is connected, and others go on while it asks.
    let told = Rc::new(RefCell::new(Vec::new()));
    let (history, after) = (Rc::clone(&told), Rc::clone(&told));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut b = Process::new(&format!("redis://{address}"), |backplane| {
        backplane
            .keep("", 1000)
            .on_history("room", 3, move |messages, _, _| {
                let messages: Vec<_> = messages.iter().map(|message| text(message)).collect();
                history.borrow_mut().push(messages.join(" "));
            })
            .on_message("room", move |message, _, _| after.borrow_mut().push(text(&message)))
    });
    b.say("room", "own");
    let mut n = 5_u64;
    until!(engine, a, b; {
        n += 1;
        a.say("room", &n.to_string());
        told.borrow().len() >= 3
    });
    until!(engine, a, b; told.borrow().last().unwrap() == &n.to_string());
    // Three of before, and from there on each once.
    let told = told.borrow().join(" ");
    let first: u64 = told.split(' ').next().unwrap().parse().unwrap();
    let all: Vec<String> = (first..=n).map(|n| n.to_string()).collect();
    assert!(told == all.join(" ") && first >= 3, "{told}");
}

#[test]
fn a_history_of_a_name_that_is_not_kept_is_refused() {
    let mut reactor = Reactor::new().unwrap();
    let refused = tidegate::backplane::Backplane::redis("redis://127.0.0.1")
        .unwrap()
        .keep("room/", 1000)
        .on_history("lobby", 3, |_, _, _| {})
        .start(reactor.net());
    let why = refused.err().unwrap().to_string();
    assert_eq!(
        why,
        "expected a name that is kept (`Backplane::keep`) for a history, \"lobby\" came"
    );
}

// row 277
#[test]
fn an_entry_that_went_out_twice_comes_once_to_who_was_told_it_in_a_history() {
    let (mut engine, address) = new_engine();
    let (mut a, mut b) = (keeping(address), keeping(address));
    let _of_a = a.member_of("room");
    until!(engine, a, b; engine.state().blocked.len() == 1 && b.backplane.is_connected());
    a.say("room", "1");
    until!(engine, a, b; a.backplane.stats().own == 1);
    let mut late = b.stranger();
    b.backplane.join_with_history(b.reactor.net(), "room", late.token, 5);
    let mut got = String::new();
    until!(engine, a, b; { got += &late.got(); got == "T:1|" });
    // As if nobody had confirmed it.
    engine.state_mut().last_id += 1;
    let id = engine.state().last_id;
    let entries = engine.state_mut().streams.get_mut(&b"room"[..]).unwrap();
    let again = (id, entries[0].1.clone());
    entries.push(again);
    a.say("room", "2");
    until!(engine, a, b; { got += &late.got(); got.ends_with("2|") });
    assert_eq!((got.as_str(), b.backplane.stats().repeated), ("T:1|T:2|", 1));
}

// row 247
#[test]
fn names_come_and_go_while_the_reader_waits() {
    let (mut engine, address) = new_engine();
    let (mut a, mut b) = (keeping(address), keeping(address));
    let _first = a.member_of("first");
    until!(engine, a, b; engine.state().blocked.len() == 1 && b.backplane.is_connected());
    let mut others: Vec<Member> = (0..20).map(|n| a.member_of(&format!("room{n}"))).collect();
    until!(engine, a, b; matches!(&engine.state().blocked[..], [(_, names)] if names.len() == 21));
    for n in 0..20 {
        b.say(&format!("room{n}"), "hello");
    }
    for other in &mut others {
        until!(engine, a, b; other.got() == "T:hello|");
    }
    drop(others);
    until!(engine, a, b; matches!(&engine.state().blocked[..], [(_, names)] if names.len() == 1));
}

// row 248
#[test]
fn a_name_that_the_engine_refuses_to_read_does_not_stop_the_others() {
    let (mut engine, address) = new_engine();
    engine.state_mut().wrong.push(b"bad".to_vec());
    let (mut a, mut b) = (keeping(address), keeping(address));
    let (_bad, _also_bad) = (b.member_of("bad"), b.member_of("later"));
    let mut of_b = b.member_of("room");
    let reads = |engine: &Reactor<Engine>, count| matches!(&engine.state().blocked[..], [(_, names)] if names.len() == count);
    until!(engine, a, b; a.backplane.is_connected() && reads(&engine, 2));
    a.say("room", "1");
    until!(engine, a, b; of_b.got() == "T:1|");
    // Another one turns bad while it is read.
    engine.state_mut().wrong.push(b"later".to_vec());
    a.say("room", "2");
    until!(engine, a, b; of_b.got() == "T:2|");
    until!(engine, a, b; reads(&engine, 1));
    a.say("room", "3");
    until!(engine, a, b; of_b.got() == "T:3|");
    let events: Vec<_> = b.events.borrow().iter().map(ToString::to_string).collect();
    let refused = |name| {
        format!(
            "the server refused XREVRANGE: {name:?}: WRONGTYPE Operation against a key holding the \
             wrong kind of value"
        )
    };
    assert_eq!(events, ["connected".into(), refused("bad"), refused("later")]);
}

// row 276
#[test]
fn an_entry_that_is_too_long_costs_its_own_name_a_gap_and_no_other() {
    let (mut engine, address) = new_engine();
    let (mut a, mut b) = (keeping(address), keeping(address));
    let (_big, mut of_b) = (b.member_of("big"), b.member_of("room"));
    let reads = |engine: &Reactor<Engine>, count| matches!(&engine.state().blocked[..], [(_, names)] if names.len() == count);
    until!(engine, a, b; a.backplane.is_connected() && reads(&engine, 2));
    // Another program has put it there.
    engine.state_mut().last_id += 1;
    let id = engine.state().last_id;
    let long = vec![b'x'; 18 * 1024 * 1024];
    engine.state_mut().streams.entry("big".into()).or_default().push((id, long));
    a.say("room", "1");
    let too_long = |event: &BackplaneEvent| matches!(event, BackplaneEvent::TooLong { .. });
    until!(engine, a, b; b.events.borrow().iter().any(too_long));
    let told = b.events.borrow().iter().find(|event| too_long(event)).unwrap().to_string();
    assert_eq!(told, "an entry of \"big\" is too long for this side, and is left out");
    let mut got = String::new();
    until!(engine, a, b; { got += &of_b.got(); got == "T:1|" });
    a.say("room", "2");
    until!(engine, a, b; of_b.got() == "T:2|");
}

// row 276
#[test]
fn a_history_that_is_too_long_is_asked_for_in_part() {
    let (mut engine, address) = new_engine();
    let mut a = keeping(address);
    let _of_a = a.member_of("room");
    until!(engine, a; engine.state().blocked.len() == 1);
    let mut b = keeping(address);
    for n in 0..20_u64 {
        engine.state_mut().last_id += 1;
        let long = vec![b'a' + n as u8; 1024 * 1024];
        let id = engine.state().last_id;
        engine.state_mut().streams.entry("room".into()).or_default().push((id, long));
    }
    until!(engine, a, b; b.backplane.is_connected());
    let mut late = b.stranger();
    b.backplane.join_with_history(b.reactor.net(), "room", late.token, 20);
    let mut got = String::new();
    until!(engine, a, b; { got += &late.got(); got.matches('|').count() == 10 });
    let firsts: String = got.split('|').filter_map(|text| text.chars().nth(2)).collect();
    assert_eq!(firsts, "klmnopqrst");
}

// row 295
#[test]
fn a_reader_that_is_slow_to_wake_is_woken_once() {
    let (mut engine, address) = new_engine();
    let (mut a, mut b) = (keeping(address), keeping(address));
    let _first = b.member_of("first");
    until!(engine, a, b; engine.state().blocked.len() == 1 && a.backplane.is_connected());
    engine.state_mut().wakes_late = true;
    let before = engine.state().count("CLIENT UNBLOCK");
    let mut second = b.member_of("second");
    until!(engine, a, b; engine.state().count("CLIENT UNBLOCK") == before + 1);
    // Answers come, and it is not asked for again.
    let pings = a.backplane.stats().confirmed;
    for n in 1..=20 {
        b.say("else", "x");
        until!(engine, a, b; b.backplane.stats().confirmed == n);
    }
    assert_eq!(a.backplane.stats().confirmed, pings);
    assert_eq!(engine.state().count("CLIENT UNBLOCK"), before + 1);
    // It learns of it.
    engine.state_mut().wakes_late = false;
    let reader = *engine.state().clients.last().unwrap();
    engine.net().send(reader, "_\r\n");
    until!(engine, a, b; matches!(&engine.state().blocked[..], [(_, names)] if names.len() == 2));
    a.say("second", "hello");
    until!(engine, a, b; second.got() == "T:hello|");
}

// row 295
#[test]
fn a_wake_that_comes_too_early_is_sent_again_after_waits_that_grow() {
    let (mut engine, address) = new_engine();
    let mut b = keeping(address);
    engine.state_mut().reads_late = Some(0);
    let _first = b.member_of("first");
    until!(engine, b; engine.state().reads_late == Some(1));
    let begun = std::time::Instant::now();
    let _second = b.member_of("second");
    until!(engine, b; engine.state().count("CLIENT UNBLOCK") == 6);
    let least = [4, 8, 16, 32, 64].iter().sum();
    assert!(begun.elapsed() >= std::time::Duration::from_millis(least));
}

// row 275
#[test]
fn a_newcomer_who_is_gone_does_not_end_what_the_program_listens_to() {
    let (mut engine, address) = new_engine();
    let mut a = keeping(address);
    let heard = Rc::new(RefCell::new(0));
    let hears = Rc::clone(&heard);
    let mut b = Process::new(&format!("redis://{address}"), |backplane| {
        backplane.keep("", 100).on_message("x", move |_, (), _| *hears.borrow_mut() += 1)
    });
    until!(engine, a, b; a.backplane.is_connected() && engine.state().blocked.len() == 1);
    let guest = b.stranger();
    until!(engine, b; b.reactor.net().is_open(guest.token));
    b.backplane.join_with_history(b.reactor.net(), "x", guest.token, 5);
    b.reactor.net().abort(guest.token);
    for _ in 0..30 {
        b.turn_once();
        engine.turn_once();
    }
    a.say("x", "something");
    until!(engine, a, b; *heard.borrow() == 1);
}
