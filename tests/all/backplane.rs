//! The backplane: groups that span processes, through an engine that may be away.

use std::cell::RefCell;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::backplane::{Backplane, BackplaneEvent, BackplaneHandle, WhenFull};
use tidegate::layer::Lines;
use tidegate::layer::resp::{Value, Version};
use tidegate::{
    Adopt, CloseInfo, Context, Handler, HandlerResult, Input, Message, MessageKind, Net, Token,
    Workers,
};

use crate::support::PATIENCE;
use crate::support::redis::{Process, Turns, engine, keeping, new_engine, turned_until as until};

// row 247
#[test]
fn members_of_two_processes_hear_each_other_in_order_and_nobody_twice() {
    let (mut engine, address) = new_engine();
    let (mut a, mut b) = (Process::at(address), Process::at(address));
    let mut of_a = [a.member_of("room"), a.member_of("room"), a.member_of("other")];
    let mut of_b = b.member_of("room");
    until!(engine, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    let mut expected = String::new();
    for n in 0..500 {
        let text = format!("a{n}\r\n\0");
        a.say("room", &text);
        expected += &format!("T:{text}|");
        if n % 7 == 0 {
            a.turn_once();
        }
    }
    a.reactor.net().publish_named("room", Message::binary(b"\xff\0"));
    a.reactor.net().publish_named("room", b"plain");
    a.reactor.net().publish_named_latest("room", 7, Message::text("newest"));
    let mut got = String::new();
    until!(engine, a, b; { got += &of_b.got(); got.ends_with("newest|") });
    expected += &format!("B:{}|D:plain|T:newest|", String::from_utf8_lossy(b"\xff\0"));
    assert_eq!(got, expected);
    until!(engine, a, b; a.backplane.stats().own == 503 && a.backplane.stats().confirmed == 503);
    assert_eq!(of_a[0].got(), expected, "once, and not again from the engine");
    assert_eq!(of_a[1].got(), expected);
    assert_eq!(of_a[2].got(), "");
    b.say("room", "back");
    until!(engine, a, b; of_a[0].got() == "T:back|");
    assert_eq!(a.next_event(), Some(BackplaneEvent::Connected));
    assert_eq!(a.next_event(), None);
    let stats = b.backplane.stats();
    assert_eq!((stats.received, stats.published, stats.repeated), (503, 1, 0));
}

// row 247
#[test]
fn subscriptions_follow_membership() {
    let (mut engine, address) = new_engine();
    let mut a = Process::at(address);
    let early = a.member_of("early");
    until!(engine, a; a.backplane.is_connected());
    assert_eq!(engine.state().commands, ["HELLO 3", "SUBSCRIBE early"]);
    let [one, two, three] = ["room"; 3].map(|name| a.member_of(name));
    until!(engine, a; engine.state().commands.len() == 3);
    // Left and joined again in one turn: nothing is said.
    let net = a.reactor.net();
    let room = net.group("room");
    for member in [&one, &two, &three] {
        assert!(net.leave(room, member.token));
    }
    assert!(net.join(room, one.token));
    a.say("room", "x");
    until!(engine, a; engine.state().published == 1);
    let net = a.reactor.net();
    assert!(net.leave(room, one.token));
    net.close(early.token);
    drop(early);
    until!(engine, a; engine.state().commands.len() == 5);
    let mut said = engine.state().commands[2..].to_vec();
    said[1..].sort();
    assert_eq!(said, ["SUBSCRIBE room", "UNSUBSCRIBE early", "UNSUBSCRIBE room"]);
    assert_eq!(a.backplane.stats().topics, 0);
}

// row 247
#[test]
fn the_url_logs_in_and_the_prefix_separates_services() {
    let (mut engine, address) = new_engine();
    let url = format!("redis://anna:p%40ss@{address}/3");
    let mut a = Process::new(&url, |backplane| backplane.prefix("a/"));
    let mut b = Process::new(&format!("redis://{address}"), |backplane| backplane.prefix("b/"));
    let (mut of_a, mut of_b) = (a.member_of("room"), b.member_of("room"));
    until!(engine, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    let said = &engine.state().commands;
    for command in ["HELLO 3 AUTH anna p@ss", "SELECT 3", "SUBSCRIBE a/room", "SUBSCRIBE b/room"] {
        assert!(said.iter().any(|said| said == command), "{said:?}");
    }
    // Another program's message is one as it is.
    let push = Value::Push([b"message", &b"a/room"[..], b"hello"].map(Value::Bulk).to_vec());
    let to = engine.state().channels[&b"a/room"[..]][0];
    engine.net().send(to, push.encode(Version::Resp3));
    until!(engine, a, b; of_a.got() == "D:hello|");
    a.say("room", "a");
    until!(engine, a, b; a.backplane.stats().own == 1);
    assert_eq!(of_b.got(), "");
}

// row 247
#[test]
fn the_program_itself_hears_what_others_publish() {
    let (mut engine, address) = new_engine();
    let mut a = Process::at(address);
    for keep in [false, true] {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let hears = Rc::clone(&heard);
        let mut b = Process::new(&format!("redis://{address}"), |backplane| {
            let backplane = if keep { backplane.keep("", 100) } else { backplane };
            backplane.on_message("people", move |message, (), net| {
                hears.borrow_mut().push((message.kind(), message.to_vec()));
                net.publish_named("heard", b"it");
            })
        });
        let member = b.member_of("people");
        until!(engine, a, b; a.backplane.is_connected() && b.backplane.is_connected());
        drop(member); // the name is wanted still
        until!(engine, a, b; b.reactor.net().find_group("people").is_none());
        until!(engine, a, b; !keep || engine.state().blocked.len() == 1);
        let payload = Message::text("anna");
        if keep {
            let mut c = keeping(address);
            c.reactor.net().publish_named("people", payload);
            until!(engine, c, b; heard.borrow().len() == 1);
        } else {
            a.reactor.net().publish_named("people", payload);
            until!(engine, a, b; heard.borrow().len() == 1);
        }
        b.say("people", "of its own: not heard");
        until!(engine, a, b; b.backplane.stats().own == 1 && b.backplane.stats().published == 2);
        assert_eq!(heard.borrow()[..], [(MessageKind::Text, b"anna".to_vec())]);
    }
}

/// Says each line in the room.
struct Speaker;

impl Handler for Speaker {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.net.publish_named("room", input.take_all());
        Ok(())
    }
}

// row 279
#[test]
fn many_who_speak_at_once_lose_nothing_while_the_engine_keeps_up() {
    const SPEAKERS: usize = 12;
    const LINES: usize = 2000;
    let (mut engine, address) = new_engine();
    // Two thousand messages, of twenty-four thousand.
    let mut a =
        Process::new(&format!("redis://{address}"), |backplane| backplane.queue_limit(256 * 1024));
    let _member = a.member_of("room");
    until!(engine, a; a.backplane.is_connected());
    let mut speakers = Vec::new();
    for _ in 0..SPEAKERS {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let text = b"says something in the room, and then more\n".repeat(LINES);
        assert_eq!(far.write(&text).unwrap(), text.len(), "all of it waits in the system");
        a.reactor.net().adopt(Adopt::from(near).layer(Lines::new()), Speaker).unwrap();
        speakers.push(far);
    }
    all_confirmed(&mut engine, &mut a, SPEAKERS * LINES);
}

/// With an engine that answers at once.
fn all_confirmed(engine: &mut impl Turns, process: &mut Process, all: usize) {
    let start = Instant::now();
    while process.backplane.stats().confirmed < all as u64 {
        assert!(start.elapsed() < PATIENCE, "{:?}", process.backplane.stats());
        process.turn_once();
        for _ in 0..20 {
            engine.turn_once();
        }
        assert_eq!(process.backplane.stats().dropped, 0, "{:?}", process.backplane.stats());
    }
    assert_eq!(process.backplane.stats().own, all as u64);
}

// row 279
#[test]
fn other_threads_that_publish_without_a_pause_lose_nothing_while_the_engine_keeps_up() {
    const ALL: usize = 30_000;
    let (mut engine, address) = new_engine();
    // Four thousand messages: what is posted in four turns.
    let mut a =
        Process::new(&format!("redis://{address}"), |backplane| backplane.queue_limit(512 * 1024));
    let _member = a.member_of("room");
    until!(engine, a; a.backplane.is_connected());
    let remote = a.reactor.remote();
    for _ in 0..ALL {
        let text = "says something in the room, and then more";
        remote.post(move |(), net| _ = net.publish_named("room", text)).unwrap();
    }
    all_confirmed(&mut engine, &mut a, ALL);
}

// row 248
#[test]
fn while_the_engine_is_away_members_here_go_on_and_the_rest_goes_out_later() {
    let (mut first, address) = new_engine();
    let (mut a, mut b) = (Process::at(address), Process::at(address));
    let (mut of_a, mut of_b) = (a.member_of("room"), b.member_of("room"));
    until!(first, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    drop(first);
    until!(a, b; !a.backplane.is_connected() && !b.backplane.is_connected());
    a.say("room", "1");
    a.say("room", "2");
    until!(a, b; of_a.got() == "T:1|T:2|");
    until!(a, b; a.events.borrow().iter().any(|e| matches!(e, BackplaneEvent::Failed { .. })));
    // A room that is opened meanwhile.
    let mut late = b.member_of("late");
    let (mut second, _) = engine(address);
    // What a says may be back before b has subscribed.
    until!(second, b; b.backplane.is_connected());
    until!(second, a, b; a.backplane.is_connected());
    let mut got = String::new();
    until!(second, a, b; { got += &of_b.got(); got == "T:1|T:2|" });
    a.say("late", "3");
    until!(second, a, b; late.got() == "T:3|");
    assert_eq!(a.next_event(), Some(BackplaneEvent::Connected));
    let lost = a.next_event().unwrap();
    assert!(matches!(lost, BackplaneEvent::Lost { unconfirmed: 0, .. }), "{lost:?}");
    while let Some(event) = a.next_event() {
        match event {
            BackplaneEvent::Failed { why, .. } => assert!(why.contains("refused"), "{why}"),
            BackplaneEvent::Resumed { dropped, .. } => assert_eq!(dropped, 0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(a.backplane.stats().connects, 2);
}

// row 248
#[test]
fn what_the_engine_did_not_confirm_goes_out_again_and_arrives_once() {
    let (mut first, address) = new_engine();
    let (mut a, mut b) = (Process::at(address), Process::at(address));
    let mut of_b = b.member_of("room");
    until!(first, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    first.state_mut().keeps_quiet = true;
    a.say("room", "1");
    a.say("room", "2");
    let mut got = String::new();
    until!(first, a, b; { got += &of_b.got(); got == "T:1|T:2|" });
    drop(first);
    until!(a, b; !a.backplane.is_connected() && !b.backplane.is_connected());
    a.say("room", "3");
    let (mut second, _) = engine(address);
    until!(second, b; b.backplane.is_connected());
    until!(second, a, b; { got += &of_b.got(); got == "T:1|T:2|T:3|" });
    assert_eq!(second.state().published, 3);
    assert_eq!(b.backplane.stats().repeated, 2);
    assert_eq!(a.next_event(), Some(BackplaneEvent::Connected));
    assert!(matches!(a.next_event(), Some(BackplaneEvent::Lost { unconfirmed: 2, .. })));
}

// row 248
#[test]
fn the_queue_is_bounded_while_the_engine_is_away() {
    for (policy, expected) in [
        (WhenFull::DropOldest, ["T:996|", "T:997|", "T:998|", "T:999|"]),
        (WhenFull::Refuse, ["T:000|", "T:001|", "T:002|", "T:003|"]),
    ] {
        let (first, address) = new_engine();
        drop(first);
        let mut b = Process::at(address);
        let mut of_b = b.member_of("room");
        // A command of that length is 70 bytes.
        let adapt =
            |backplane: Backplane| backplane.queue_limit(300).when_full(policy).message_limit(100);
        let mut a = Process::new(&format!("redis://{address}"), adapt);
        for n in 0..1000 {
            a.say("room", &format!("{n:03}"));
        }
        a.say("room", &"x".repeat(97));
        let stats = a.backplane.stats();
        assert!(stats.queued_bytes <= 300, "{stats:?}");
        let kept = stats.queued_messages;
        assert_eq!((stats.published, stats.dropped), (1000, 1000 - kept as u64));
        assert_eq!(stats.too_large, 1);
        let (mut engine, _) = engine(address);
        until!(engine, b; b.backplane.is_connected());
        until!(engine, a, b; a.backplane.stats().queued_messages == 0);
        let mut got = String::new();
        until!(engine, a, b; { got += &of_b.got(); got.matches('|').count() == kept });
        let edge = if policy == WhenFull::Refuse { 0 } else { 4 - kept };
        let expected: String = match policy {
            WhenFull::Refuse => expected[..kept].concat(),
            _ => expected[edge..].concat(),
        };
        assert_eq!(got, expected);
    }
}

// row 249
#[test]
fn an_engine_that_falls_silent_is_given_up_and_one_that_is_only_idle_is_not() {
    let (mut engine, address) = new_engine();
    let silence = Duration::from_millis(300);
    let url = format!("redis://{address}");
    let mut a = Process::new(&url, |backplane| backplane.silence(silence));
    until!(engine, a; engine.state().pings == 3);
    assert!(a.backplane.is_connected(), "PING keeps it");
    // It is stopped: its connections stay, and nobody answers.
    let begin = Instant::now();
    until!(a; !a.backplane.is_connected());
    assert!(begin.elapsed() < silence + PATIENCE / 2);
    assert_eq!(a.next_event(), Some(BackplaneEvent::Connected));
    let lost = a.next_event().unwrap().to_string();
    assert_eq!(lost, "lost: the server has said nothing for 300ms");
    // The stopped one is dialled again, and is not up before it answers.
    until!(a; a.events.borrow().iter().any(|e| matches!(e, BackplaneEvent::Failed { .. })));
    until!(engine, a; a.backplane.is_connected());
}

// row 249
#[test]
fn what_the_server_refuses_is_one_clear_line() {
    for (refusal, said) in [
        ("WRONGPASS invalid username-password pair", "the server refused the login: WRONGPASS"),
        ("NOAUTH HELLO must be called with", "the server wants a login: redis://user:password@"),
        ("ERR no such user geheim", "the server refused the login: ERR no such user ***"),
        ("NOPROTO unsupported protocol version", "the server is too old, expected Redis 6"),
        ("ERR unknown command `HELLO`", "the server is too old, expected Redis 6 or newer"),
        ("LOADING Redis is loading", "the server refused the login: LOADING"),
    ] {
        let (mut engine, address) = new_engine();
        engine.state_mut().refusal = Some(refusal);
        let mut a = Process::new(&format!("redis://:geheim@{address}"), |backplane| backplane);
        until!(engine, a; !a.events.borrow().is_empty());
        let event = a.next_event().unwrap();
        assert!(matches!(event, BackplaneEvent::Failed { .. }), "{event:?}");
        let line = event.to_string();
        assert!(line.contains(said) && !line.contains(['\n', '\r']), "{line}");
        assert!(!line.contains("geheim"), "{line}");
        // It goes on trying: a server that loads, or is put right, is found.
        engine.state_mut().refusal = None;
        until!(engine, a; a.backplane.is_connected());
    }
    let (mut engine, address) = new_engine();
    let mut a = Process::at(address);
    let (_one, _other) = (a.member_of("forbidden"), a.member_of("room"));
    until!(engine, a; a.backplane.is_connected());
    let refused = a.next_event().unwrap().to_string();
    assert_eq!(refused, "the server refused SUBSCRIBE: NOPERM no permissions");
}

// row 248
#[test]
fn what_an_engine_refuses_for_the_moment_goes_out_later() {
    for (n, busy) in [
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "MISCONF Redis is configured to save RDB snapshots",
        "READONLY You can't write against a read only replica.",
        "NOREPLICAS Not enough good replicas to write.",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
    ]
    .into_iter()
    .enumerate()
    {
        let (mut engine, address) = new_engine();
        let new = if n % 2 == 0 { Process::at } else { keeping };
        let (mut a, mut b) = (new(address), new(address));
        let mut of_b = b.member_of("room");
        until!(engine, a, b; a.backplane.is_connected() && b.backplane.is_connected());
        until!(engine, a, b; n % 2 == 0 || engine.state().blocked.len() == 1);
        engine.state_mut().busy = Some(busy);
        a.say("room", "1");
        a.say("room", "2");
        until!(engine, a, b; a.events.borrow().iter().any(|event| match event {
            BackplaneEvent::Lost { why, .. } => why.contains(busy),
            _ => false,
        }));
        engine.state_mut().busy = None;
        let mut got = String::new();
        until!(engine, a, b; { got += &of_b.got(); got == "T:1|T:2|" });
        until!(engine, a, b; a.backplane.stats().confirmed == 2);
        assert_eq!(a.backplane.stats().refused, 0);
    }
}

// row 247
#[test]
fn a_name_that_is_left_before_it_is_subscribed_does_not_keep_it_from_being_connected() {
    let (mut engine, address) = new_engine();
    engine.state_mut().holds = true;
    let mut a = Process::at(address);
    let member = a.member_of("room");
    until!(engine, a; !engine.state().held.is_empty());
    let net = a.reactor.net();
    let room = net.group("room");
    assert!(net.leave(room, member.token));
    a.turn_once();
    let (link, answer) = engine.state_mut().held.remove(0);
    engine.net().send(link, answer);
    until!(engine, a; a.backplane.is_connected());
    assert_eq!(a.next_event(), Some(BackplaneEvent::Connected));
}

#[test]
fn a_connection_that_breaks_while_it_subscribes_keeps_the_next_one_from_nothing() {
    let (mut before, address) = new_engine();
    before.state_mut().holds = true;
    let mut a = Process::at(address);
    let _member = a.member_of("room");
    until!(before, a; !before.state().held.is_empty());
    drop(before);
    let (mut after, _) = engine(address);
    until!(after, a; a.backplane.is_connected());
}

// row 247
#[test]
fn a_second_start_takes_the_place_of_the_first() {
    let (mut engine, address) = new_engine();
    let (mut a, mut b) = (Process::at(address), Process::at(address));
    let (mut of_a, mut of_b) = (a.member_of("room"), b.member_of("room"));
    until!(engine, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    let first = a.backplane.clone();
    let url = format!("redis://{address}");
    let backplane = Backplane::redis(&url).unwrap().longest_wait(Duration::from_millis(20));
    a.backplane = backplane.start(a.reactor.net()).unwrap();
    assert!(!first.is_connected());
    until!(engine, a, b; a.backplane.is_connected());
    until!(engine, a, b; a.reactor.net().stats().connections == 2);
    // It is not this one that is stopped.
    first.stop(a.reactor.net());
    a.say("room", "1");
    until!(engine, a, b; of_b.got() == "T:1|");
    b.say("room", "2");
    let mut got = String::new();
    until!(engine, a, b; { got += &of_a.got(); got.ends_with("T:2|") });
    assert_eq!(got, "T:1|T:2|");
    // And it is this one that comes back.
    drop(engine);
    until!(a, b; !a.backplane.is_connected() && !b.backplane.is_connected());
    let (mut engine, _) = self::engine(address);
    until!(engine, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    b.say("room", "3");
    until!(engine, a, b; of_a.got() == "T:3|");
    assert_eq!((first.stats().published, first.stats().connects), (0, 1));
}

// row 247
#[test]
fn of_several_workers_one_has_the_backplane_until_it_is_stopped() {
    let workers = Workers::new(2).start(|_, _: &mut Net<Option<BackplaneHandle>>| Ok(None));
    let workers = workers.unwrap();
    let start = |worker| {
        let (started, starts) = std::sync::mpsc::channel();
        assert!(workers.handle().post(worker, move |kept, net| {
            // Nobody listens there: it goes on trying.
            let result = Backplane::redis("redis://127.0.0.1:1").unwrap().start(net);
            let refused = result.map(|backplane| *kept = Some(backplane));
            drop(started.send(refused.map_err(|error| error.to_string())));
        }));
        starts.recv_timeout(PATIENCE).unwrap()
    };
    assert_eq!(start(0), Ok(()));
    let refused = start(1).unwrap_err();
    assert!(refused.starts_with("the backplane runs on worker 0 already; start it on one worker"));
    assert_eq!(start(0), Ok(()), "in place of the first");
    assert!(start(1).is_err());
    assert!(workers.handle().post(0, |kept, net| kept.take().unwrap().stop(net)));
    let begin = Instant::now();
    while start(1).is_err() {
        assert!(begin.elapsed() < PATIENCE);
    }
    assert!(start(0).unwrap_err().contains("worker 1"));
    workers.handle().stop();
    workers.wait().unwrap();
}

// row 249
#[test]
fn the_last_words_of_a_shutdown_go_out() {
    struct Speaker(Rc<RefCell<Option<Token>>>);
    impl Handler for Speaker {
        fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
            Ok(())
        }
        fn on_close(&mut self, cx: &mut Context<'_>, _: &CloseInfo) {
            self.0.take();
            cx.net.publish_named("room", b"last words");
        }
    }
    let (mut engine, address) = new_engine();
    let mut a = Process::at(address);
    let (near, far) = UnixStream::pair().unwrap();
    let speaker = Rc::new(RefCell::new(None));
    let token = a.reactor.net().adopt(near, Speaker(Rc::clone(&speaker))).unwrap();
    *speaker.borrow_mut() = Some(token);
    until!(engine, a; a.backplane.is_connected());
    a.reactor.net().shutdown(PATIENCE * 10);
    a.turn_once();
    drop(far);
    let begin = Instant::now();
    while a.reactor.turn(Some(Duration::ZERO)).unwrap().is_continue() {
        engine.turn_once();
        assert!(begin.elapsed() < PATIENCE);
    }
    assert_eq!(*speaker.borrow(), None);
    until!(engine; engine.state().published == 1);
}

// row 249
#[test]
fn a_shutdown_does_not_wait_for_the_backplane_and_flushes_it() {
    let (mut engine, address) = new_engine();
    let mut a = Process::at(address);
    let member = a.member_of("room");
    until!(engine, a; a.backplane.is_connected());
    a.reactor.net().shutdown(PATIENCE * 10);
    a.say("room", "last words");
    a.turn_once();
    assert!(a.backplane.is_connected(), "a member is left to be served");
    drop(member);
    let begin = Instant::now();
    let report = loop {
        engine.turn_once();
        if let ControlFlow::Break(report) = a.reactor.turn(Some(Duration::ZERO)).unwrap() {
            break report;
        }
        assert!(begin.elapsed() < PATIENCE);
    };
    assert_eq!(report.connections_cut, 0);
    assert_eq!(engine.state().published, 1);
}

#[test]
fn a_stopped_backplane_leaves_local_groups_and_says_nothing_more() {
    let (mut engine, address) = new_engine();
    let mut a = Process::at(address);
    let mut member = a.member_of("room");
    until!(engine, a; a.backplane.is_connected());
    let handle = a.backplane.clone();
    handle.stop(a.reactor.net());
    a.say("room", "here");
    until!(engine, a; member.got() == "T:here|");
    until!(engine, a; a.reactor.net().stats().connections == 1);
    assert_eq!(engine.state().published, 0);
    assert_eq!(a.next_event(), Some(BackplaneEvent::Connected));
    assert_eq!(a.next_event(), None);
}
