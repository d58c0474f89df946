//! Other threads: nothing is lost, nothing overtakes, nothing spins.

use std::io::Read;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidegate::{Config, Peer, PostError, Reactor, Token};

#[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
use crate::support::child;
use crate::support::endpoints::deaf;
use crate::support::{
    Log, Probe, Server, Told, address_of, client, listening, read_n, settle, until,
};

/// What each thread has posted so far, as the reactor's thread saw it come.
type Seen = Vec<usize>;

// row 60
#[test]
fn nothing_is_lost_and_each_threads_messages_keep_their_order() {
    const THREADS: usize = 4;
    const EACH: usize = 100_000;
    let mut reactor = Reactor::with_state(vec![0; THREADS]).unwrap();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let remote = reactor.remote();
            std::thread::spawn(move || {
                for n in 0..EACH {
                    let count = move |seen: &mut Seen, _: &mut _| {
                        assert_eq!(seen[thread], n, "overtaken");
                        seen[thread] += 1;
                    };
                    remote.post(count).unwrap();
                }
            })
        })
        .collect();
    until(&mut reactor, "all messages", |r| *r.state() == [EACH; THREADS]);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    settle(&mut reactor);
    assert_eq!(*reactor.state(), [EACH; THREADS]);
}

// row 60
#[test]
fn messages_posted_while_the_loop_sleeps_or_is_about_to_always_wake_it() {
    // One at a time, answered before the next: a lost wake would hang this.
    let handled = Arc::new(AtomicUsize::new(0));
    let server = Server::start(
        || (),
        |net| {
            let listener = net.listen("127.0.0.1:0", |_| Probe::new(&Log::new())).unwrap();
            net.local_addr(listener).unwrap().socket_addr().unwrap()
        },
    );
    for n in 0..5_000 {
        let count = Arc::clone(&handled);
        server
            .remote
            .post(move |(), _| {
                count.fetch_add(1, Ordering::SeqCst);
            })
            .unwrap();
        let start = Instant::now();
        while handled.load(Ordering::SeqCst) != n + 1 {
            assert!(start.elapsed() < crate::support::PATIENCE, "message {n} lies there");
            std::hint::spin_loop();
        }
    }
}

// row 60
#[test]
#[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
fn a_batch_costs_one_wake() {
    // In a process of its own: the waker is found among all descriptors.
    if child::part().is_none() {
        let mut helper = child::Helper::start(a_batch_costs_one_wake, "post");
        assert_eq!(helper.hear(), "wakes of a batch: 1");
        assert_eq!(helper.hear(), "wakes of two: 2");
        return;
    }
    let mut reactor = Reactor::with_state(0).unwrap();
    let wakes = |remote: &tidegate::Remote<i32>| {
        for _ in 0..1_000 {
            remote.post(|count, _| *count += 1).unwrap();
        }
        eventfd_count()
    };
    let remote = reactor.remote();
    child::say(&format!("wakes of a batch: {}", wakes(&remote)));
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(*reactor.state(), 1_000);
    child::say(&format!("wakes of two: {}", wakes(&remote)));
}

/// What has been written to the waker (eventfd(2)), which mio never reads. From proc(5).
#[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
fn eventfd_count() -> u64 {
    let entries = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let counts: Vec<u64> = entries
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|info| {
            let line = info.lines().find(|line| line.starts_with("eventfd-count:"))?;
            u64::from_str_radix(line.split_whitespace().last()?, 16).ok()
        })
        .collect();
    assert_eq!(counts.len(), 1);
    counts[0]
}

// row 60
#[test]
fn after_a_batch_the_loop_sleeps_again() {
    let mut reactor = Reactor::with_state(0).unwrap();
    let remote = reactor.remote();
    for _ in 0..10_000 {
        remote.post(|count, _| *count += 1).unwrap();
    }
    until(&mut reactor, "all", |r| *r.state() == 10_000);
    settle(&mut reactor);
    assert_eq!(reactor.next_deadline(), None);
    let start = Instant::now();
    assert_eq!(reactor.turn(Some(Duration::from_millis(50))).unwrap(), ControlFlow::Continue(()));
    assert!(start.elapsed() >= Duration::from_millis(50), "woken for nothing");
}

#[test]
fn a_full_inbox_hands_the_value_back_and_takes_more_when_there_is_room() {
    let config = Config::new().post_limit(3).posts_per_turn(1);
    let mut reactor = Reactor::build(config, |_| Ok(0)).unwrap();
    let remote = reactor.remote();
    let token = some_token(&mut reactor);
    for _ in 0..3 {
        remote.post(|count: &mut i32, _| *count += 1).unwrap();
    }
    assert!(matches!(remote.post(|_, _| {}), Err(PostError::Full(_))));
    assert_eq!(remote.send(token, b"back".to_vec()), Err(PostError::Full(b"back".to_vec())));
    assert_eq!(remote.notify(token, 17).unwrap_err().into_inner(), 17);
    // The limit counts what waits, wherever it waits: each turn makes room for one.
    for n in 1..=10 {
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(*reactor.state(), n);
        remote.post(|count: &mut i32, _| *count += 1).unwrap();
        assert!(remote.post(|_: &mut i32, _| panic!()).is_err(), "above the limit in turn {n}");
    }
    until(&mut reactor, "the rest", |r| *r.state() == 13);
}

// They would gather without a limit otherwise: each turn takes them out of the inbox.
#[test]
fn signals_to_a_connection_that_does_not_stand_yet_count_until_it_does_or_ends() {
    let deaf = deaf();
    let config = Config::new().post_limit(3);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let newborn = reactor.net().connect(deaf.address, Probe::new(&Log::new())).unwrap();
    let remote = reactor.remote();
    for n in 0..3 {
        remote.notify(newborn, n).unwrap();
    }
    settle(&mut reactor);
    assert!(matches!(remote.notify(newborn, 3), Err(PostError::Full(3))));
    reactor.net().close(newborn);
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    remote.post(|(), _| {}).unwrap();
}

// A loop that sleeps makes no room, and whoever is refused does not wake it.
#[test]
fn a_signal_that_was_told_makes_room_in_its_own_turn() {
    let log = Log::new();
    let of_handler = log.clone();
    let config = Config::new().post_limit(3);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let make = move |_: &Peer<'_>| Probe::new(&of_handler);
    let listener = reactor.net().listen("127.0.0.1:0", make).unwrap();
    let _stream = client(address_of(&mut reactor, listener));
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let (token, remote) = (log.opened()[0], reactor.remote());
    for told in 1..=3 {
        for n in 0..3 {
            remote.notify(token, n).unwrap();
        }
        assert!(remote.notify(token, 3).is_err());
        let _ = reactor.turn(Some(crate::support::PATIENCE)).unwrap();
        assert_eq!(log.count(|what| *what == Told::Notification), 3 * told);
    }
}

fn some_token<S: 'static>(reactor: &mut Reactor<S>) -> Token {
    reactor.net().listen("127.0.0.1:0", |_| Probe::new(&Log::new())).unwrap()
}

#[test]
fn after_the_reactor_has_ended_the_value_comes_back() {
    let mut reactor = Reactor::with_state(0).unwrap();
    let token = some_token(&mut reactor);
    let remote = reactor.remote();
    let waiting = Arc::new(());
    let held = Arc::clone(&waiting);
    remote.post(move |_, _| drop(held)).unwrap();
    drop(reactor);
    assert_eq!(Arc::strong_count(&waiting), 1, "what waited is dropped with the reactor");
    assert_eq!(remote.send(token, b"back".to_vec()), Err(PostError::Ended(b"back".to_vec())));
    assert_eq!(remote.notify(token, "value").unwrap_err().into_inner(), "value");
    let refused = remote.clone().post(|count: &mut i32, net| {
        *count += 1;
        net.stop();
    });
    let _same_closure = refused.unwrap_err().into_inner();
    for ended in [remote.close(token), remote.stop(), remote.shutdown(Duration::ZERO)] {
        assert_eq!(ended, Err(PostError::Ended(())));
        assert_eq!(ended.unwrap_err().to_string(), "the reactor has ended");
    }
}

#[test]
fn a_posted_closure_that_posts_does_not_hold_up_the_turn() {
    fn again(count: &mut i32, net: &mut tidegate::Net<i32>) {
        *count += 1;
        net.remote().post(again).unwrap();
    }
    let mut reactor = Reactor::with_state(0).unwrap();
    reactor.remote().post(again).unwrap();
    for n in 1..=100 {
        let _ = reactor.turn(None).unwrap();
        assert_eq!(*reactor.state(), n);
    }
}

#[test]
fn bytes_signals_and_closes_reach_a_connection_by_its_token_and_nobody_by_a_stale_one() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || Probe::new(&of_handler));
    let first = client(address);
    until(&mut reactor, "the first", |_| log.opens() == 1);
    drop(first);
    until(&mut reactor, "its close", |_| log.closes() == 1);
    let mut second = client(address);
    until(&mut reactor, "the second", |_| log.opens() == 2);
    let (stale, live) = (log.opened()[0], log.opened()[1]);
    let remote = reactor.remote();
    let thread = std::thread::spawn(move || {
        for token in [stale, live] {
            remote.send(token, b"hello, ".to_vec()).unwrap();
            remote.notify(token, 5_u8).unwrap();
            remote.send(token, b"world".to_vec()).unwrap();
        }
        remote.close(stale).unwrap();
        let heard = read_n(&mut second, 12);
        remote.close(live).unwrap();
        (heard, second.read(&mut [0]).unwrap())
    });
    until(&mut reactor, "the thread", |_| thread.is_finished());
    assert_eq!(thread.join().unwrap(), (b"hello, world".to_vec(), 0));
    until(&mut reactor, "the close", |_| log.closes() == 2);
    assert_eq!(log.count(|told| *told == Told::Notification), 1);
}

#[test]
fn a_remote_serves_a_reactor_whose_state_cannot_leave_its_thread() {
    let mut reactor = Reactor::with_state(Rc::new(0)).unwrap();
    let remote = reactor.remote();
    let ran = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&ran);
    std::thread::spawn(move || {
        remote.post(move |state, _| tell.store(**state == 0, Ordering::SeqCst)).unwrap();
        remote.stop().unwrap();
    });
    reactor.run().unwrap();
    assert!(ran.load(Ordering::SeqCst));
}

#[test]
fn a_budget_of_one_message_a_turn_loses_none() {
    let config = Config::new().posts_per_turn(1).events_per_turn(1);
    let mut reactor = Reactor::build(config, |_| Ok(Vec::new())).unwrap();
    let remote = reactor.remote();
    let thread = std::thread::spawn(move || {
        for n in 0..2_000 {
            remote.post(move |seen: &mut Vec<i32>, _| seen.push(n)).unwrap();
            if n % 100 == 0 {
                std::thread::yield_now();
            }
        }
    });
    until(&mut reactor, "all", |r| r.state().len() == 2_000);
    thread.join().unwrap();
    assert!(reactor.state().iter().copied().eq(0..2_000));
}

#[test]
fn shared_bytes_and_a_half_close_leave_in_their_order() {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let on = "127.0.0.1:0";
    let listener = reactor.net().listen(on, move |_: &Peer<'_>| Probe::new(&of_handler)).unwrap();
    let mut peer = client(address_of(&mut reactor, listener));
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    let (token, remote) = (log.opened()[0], reactor.remote());
    let shared: Arc<[u8]> = vec![7; 100_000].into();
    let large = Arc::clone(&shared);
    let posting = std::thread::spawn(move || {
        remote.send(token, b"first".to_vec()).unwrap();
        remote.send_shared(token, large).unwrap();
        remote.half_close(token).unwrap();
    });
    let got = crate::support::with_client(&mut reactor, move || {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        got
    });
    posting.join().unwrap();
    assert!(got.starts_with(b"first") && got[5..] == *shared, "{} bytes", got.len());
    until(&mut reactor, "the peer's end", |_| log.closes() == 1);
    assert_eq!(log.reasons(), ["both sides ended"]);
}
