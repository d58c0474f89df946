//! What an engine does not take for the moment, or one of its nodes.

use std::time::Duration;

use tidegate::backplane::BackplaneEvent;

use crate::support::redis::{
    Process, Turns, new_cluster, new_engine, slot_of, turned_until as until,
};

const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// With some names that are kept. Its waits are long enough to be told apart.
fn process(url: &str) -> Process {
    Process::new(url, |backplane| {
        backplane.keep("{bar}kept/", 100).longest_wait(Duration::from_secs(2))
    })
}

fn is_of_kept(words: &[&[u8]]) -> bool {
    words[0] == b"XADD"
}

fn lost(process: &Process) -> bool {
    process.events.borrow().iter().any(|event| matches!(event, BackplaneEvent::Lost { .. }))
}

/// The waits that were told.
fn waits(process: &Process) -> Vec<Duration> {
    let events = process.events.borrow();
    let waits = events.iter().filter_map(|event| match event {
        BackplaneEvent::Failed { again_in, .. } => Some(*again_in),
        _ => None,
    });
    waits.collect()
}

// row 290
#[test]
fn kept_names_that_are_refused_wait_longer_each_time_and_the_others_go_on() {
    let (mut engine, address) = new_engine();
    let url = format!("redis://{address}");
    let (mut a, mut b) = (process(&url), process(&url));
    let (mut ben, mut bea) = (b.member_of("{bar}kept/x"), b.member_of("plain"));
    until!(engine, a, b; a.backplane.is_connected() && engine.state().blocked.len() == 1);
    let tried = std::rc::Rc::new(std::cell::Cell::new(0));
    let tries = std::rc::Rc::clone(&tried);
    engine.state_mut().refuses = Some(Box::new(move |words| {
        tries.set(tries.get() + usize::from(is_of_kept(words)));
        is_of_kept(words).then_some(OOM)
    }));
    let (mut said, mut got) = (0, 0);
    until!(engine, a, b; {
        if said < 200 && said == got {
            a.say("{bar}kept/x", &format!("{said:03}"));
            a.say("plain", "p");
            said += 1;
        }
        got += bea.got().matches("T:p|").count();
        waits(&a).len() == 4
    });
    // Each of the others was confirmed meanwhile.
    let waits = waits(&a);
    for (n, wait) in waits.iter().enumerate() {
        let most = Duration::from_millis(100 << n);
        assert!(most / 2 <= *wait && *wait <= most, "{waits:?}");
    }
    let told = a.events.borrow().back().unwrap().to_string();
    assert!(
        told.starts_with(&format!("the server refuses XADD for the moment: {OOM}; again")),
        "{told}"
    );
    // What was on its way at first, and one each time.
    assert!(tried.get() <= 10, "{}", tried.get());
    assert_eq!(ben.got(), "");
    engine.state_mut().refuses = None;
    let mut heard = String::new();
    until!(engine, a, b; { heard += &ben.got(); heard.matches('|').count() == said });
    let all: String = (0..said).map(|n| format!("T:{n:03}|")).collect();
    assert_eq!(heard, all);
    assert!(!lost(&a) && a.backplane.stats().connects == 1);
    until!(engine, a, b; a.backplane.stats().queued_messages == 0);
}

// row 290
#[test]
fn a_slot_that_answers_ask_is_tried_until_it_has_moved() {
    let ([mut low, mut high], slots) = new_cluster();
    let url = format!("redis://{}", slots.borrow()[0].1);
    let (mut a, mut b) = (process(&url), process(&url));
    let (mut ben, mut bea) = (b.member_of("{bar}kept/x"), b.member_of("bar"));
    until!(low, high, a, b; a.backplane.is_connected() && low.state().blocked.len() == 1);
    let (low_at, high_at) = (slots.borrow()[0].1, slots.borrow()[1].1);
    low.state_mut().refuses =
        Some(Box::new(|words| is_of_kept(words).then_some("ASK 5061 127.0.0.1:1")));
    assert_eq!(slot_of(b"bar"), 5061);
    for n in 0..5 {
        a.say("{bar}kept/x", &n.to_string());
        a.say("bar", &n.to_string());
    }
    until!(low, high, a, b; waits(&a).len() == 3);
    let mut got = String::new();
    until!(low, high, a, b; { got += &bea.got(); got == "T:0|T:1|T:2|T:3|T:4|" });
    assert_eq!((ben.got(), lost(&a), a.backplane.stats().connects), (String::new(), false, 2));
    let told = a.events.borrow().back().unwrap().to_string();
    assert!(told.starts_with("127.0.0.1:"), "which node: {told}");
    // The move is over.
    low.state_mut().refuses = None;
    *slots.borrow_mut() = vec![(5000, low_at), (16383, high_at)];
    for (token, _) in std::mem::take(&mut low.state_mut().blocked) {
        low.net().send(token, format!("-MOVED 5061 {high_at}\r\n"));
    }
    got.clear();
    until!(low, high, a, b; { got += &ben.got(); got == "T:0|T:1|T:2|T:3|T:4|" });
    assert!(!lost(&a));
    until!(low, high, a, b; a.backplane.stats().queued_messages == 0);
}

// row 291
#[test]
fn one_message_that_is_refused_among_others_that_are_taken_is_not_lost() {
    for name in ["plain", "{bar}kept/x"] {
        let (mut engine, address) = new_engine();
        let url = format!("redis://{address}");
        let (mut a, mut b) = (process(&url), process(&url));
        let mut ben = b.member_of(name);
        until!(engine, a, b; a.backplane.is_connected() && b.backplane.is_connected());
        until!(engine, a, b; name == "plain" || engine.state().blocked.len() == 1);
        let mut left = [false, true, true, false].into_iter();
        engine.state_mut().refuses = Some(Box::new(move |words| {
            let is_said = matches!(words[0], b"PUBLISH" | b"XADD");
            (is_said && left.next().unwrap_or(false)).then_some(OOM)
        }));
        for n in 1..=5 {
            a.say(name, &n.to_string());
        }
        let mut got = String::new();
        until!(engine, a, b; {
            got += &ben.got();
            if got.ends_with("T:5|") {
                a.say(name, "6");
            }
            got.ends_with("T:6|")
        });
        // What was taken before it was known that others are not cannot be called back.
        assert!(got.starts_with("T:1|T:4|T:5|") && got.contains("T:2|T:3|"), "{got}");
        assert!(!lost(&a) && b.backplane.stats().repeated == 0);
        until!(engine, a, b; a.backplane.stats().queued_messages == 0);
        assert_eq!(a.backplane.stats().confirmed, a.backplane.stats().published);
    }
}

// row 290
#[test]
fn a_subscription_that_is_refused_for_the_moment_costs_the_others_nothing() {
    let (mut engine, address) = new_engine();
    let mut b = Process::at(address);
    let mut bea = b.member_of("plain");
    until!(engine, b; b.backplane.is_connected());
    let mut left = 3;
    engine.state_mut().refuses = Some(Box::new(move |words| {
        let is_refused = words == [&b"SUBSCRIBE"[..], b"room"] && left > 0;
        left -= usize::from(is_refused);
        is_refused.then_some("BUSY Redis is busy running a script")
    }));
    let mut ben = b.member_of("room");
    until!(engine, b; engine.state().channels.contains_key(&b"room"[..]));
    let mut a = Process::at(address);
    a.say("room", "1");
    a.say("plain", "2");
    until!(engine, a, b; ben.got() == "T:1|");
    until!(engine, a, b; bea.got() == "T:2|");
    assert!(!lost(&b) && b.backplane.stats().connects == 1);
    assert_eq!(engine.state().count("SUBSCRIBE room"), 4);
}
