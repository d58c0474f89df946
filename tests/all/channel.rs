//! Typed messages: the contract of `Remote`, kept by messages that share a box.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidegate::{Channel, Config, Net, PostError, Reactor};

use crate::support::{settle, until};

#[derive(Debug, PartialEq)]
struct Number(u32);

type Seen = Vec<u32>;

fn numbers(reactor: &Reactor<Seen>) -> Channel<Seen, Number> {
    reactor.remote().channel(|seen: &mut Seen, _net, Number(number)| seen.push(number))
}

fn burst(numbers: impl IntoIterator<Item = u32>) -> Vec<Number> {
    numbers.into_iter().map(Number).collect()
}

// rows 60, 210
#[test]
fn messages_of_channels_and_posts_arrive_in_the_order_in_which_they_were_sent() {
    let mut reactor = Reactor::with_state(Seen::new()).unwrap();
    let (remote, first, second) = (reactor.remote(), numbers(&reactor), numbers(&reactor));
    let strings = remote.channel(|seen: &mut Seen, _net, text: String| {
        seen.push(text.parse().unwrap());
    });
    first.send(Number(0)).unwrap();
    first.clone().send(Number(1)).unwrap();
    remote.post(|seen, _| seen.push(2)).unwrap();
    first.send_all(&mut burst(3..6)).unwrap();
    first.send(Number(6)).unwrap();
    second.send(Number(7)).unwrap();
    first.send_all(&mut burst(8..10)).unwrap();
    strings.send("10".to_owned()).unwrap();
    first.send(Number(11)).unwrap();
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(*reactor.state(), (0..12).collect::<Vec<_>>());
}

// rows 60, 210
#[test]
fn no_typed_message_is_lost_and_each_threads_messages_keep_their_order() {
    const THREADS: u32 = 4;
    const EACH: u32 = 50_000;
    let config = Config::new().post_limit(1_000);
    let mut reactor = Reactor::build(config, |_| Ok(vec![0; THREADS as usize])).unwrap();
    let channel = reactor.remote().channel(|seen: &mut Seen, _net, (thread, n): (u32, u32)| {
        assert_eq!(seen[thread as usize], n, "overtaken");
        seen[thread as usize] += 1;
    });
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let channel = channel.clone();
            std::thread::spawn(move || {
                let mut waiting = Vec::new();
                for n in 0..EACH {
                    waiting.push((thread, n));
                    // Half of them one by one, half in bursts of 1 to 7.
                    let ripe = thread % 2 == 0 || n % 7 == 0 || n + 1 == EACH;
                    while ripe && channel.send_all(&mut waiting).is_err() {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    until(&mut reactor, "all messages", |r| r.state().iter().all(|&seen| seen == EACH));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    settle(&mut reactor);
}

// row 211
#[test]
fn what_a_full_inbox_has_no_room_for_comes_back_in_its_order() {
    let config = Config::new().post_limit(5).posts_per_turn(2);
    let mut reactor = Reactor::build(config, |_| Ok(Seen::new())).unwrap();
    let channel = numbers(&reactor);
    channel.send(Number(0)).unwrap();
    let mut waiting = burst(1..8);
    assert_eq!(channel.send_all(&mut waiting), Err(PostError::Full(())));
    assert_eq!(waiting, burst(5..8));
    assert_eq!(channel.send_all(&mut waiting), Err(PostError::Full(())));
    assert_eq!(channel.send(Number(9)), Err(PostError::Full(Number(9))));
    assert!(reactor.remote().post(|_, _| {}).is_err(), "the limit is one for all");
    // Each turn handles two of the run, and makes room for two.
    for turn in 1..=2 {
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(*reactor.state(), (0..2 * turn).collect::<Vec<_>>());
        let _ = channel.send_all(&mut waiting);
    }
    assert_eq!(waiting, []);
    until(&mut reactor, "the rest", |r| r.state().len() == 8);
    assert_eq!(*reactor.state(), (0..8).collect::<Vec<_>>());
    assert_eq!(channel.send_all(&mut Vec::new()), Ok(()));
    settle(&mut reactor);
    assert_eq!(reactor.net().stats().posts, 8, "each counts");
}

// row 213
#[test]
fn a_run_over_the_budget_of_a_turn_keeps_its_place() {
    let config = Config::new().posts_per_turn(3);
    let mut reactor = Reactor::build(config, |_| Ok(Seen::new())).unwrap();
    let (remote, first, second) = (reactor.remote(), numbers(&reactor), numbers(&reactor));
    first.send_all(&mut burst(0..5)).unwrap();
    remote.post(|seen, _| seen.push(5)).unwrap();
    second.send_all(&mut burst(6..9)).unwrap();
    first.send(Number(9)).unwrap();
    for turn in 1..=4 {
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
        let seen = 10.min(3 * turn);
        assert_eq!(*reactor.state(), (0..seen).collect::<Vec<_>>());
        if turn == 1 {
            // Behind all that waits, though a run of the same channel is being handled.
            first.send(Number(10)).unwrap();
        }
    }
    until(&mut reactor, "the last one", |r| r.state().len() == 11);
    assert_eq!(*reactor.state(), (0..11).collect::<Vec<_>>());
    settle(&mut reactor);
}

#[test]
fn a_panic_ends_its_own_message_and_the_others_of_the_run_follow() {
    let mut reactor = Reactor::with_state(Seen::new()).unwrap();
    let channel = reactor.remote().channel(|seen: &mut Seen, _net, Number(number)| {
        assert_ne!(number, 1, "on purpose");
        seen.push(number);
    });
    channel.send_all(&mut burst(0..3)).unwrap();
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(*reactor.state(), [0, 2]);
}

/// Counts its drops, each of which panics.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("on purpose");
    }
}

// row 212
#[test]
fn what_was_never_handled_is_dropped_one_by_one_and_later_messages_come_back() {
    let drops = Arc::new(AtomicUsize::new(0));
    let reactor = Reactor::with_state(()).unwrap();
    let channel = reactor.remote().channel(|(), _net, bomb: Bomb| std::mem::forget(bomb));
    let mut bombs: Vec<_> = (0..3).map(|_| Bomb(Arc::clone(&drops))).collect();
    channel.send_all(&mut bombs).unwrap();
    drop(reactor);
    assert_eq!(drops.load(Ordering::Relaxed), 3);
    let Err(PostError::Ended(back)) = channel.send(Bomb(drops)) else { panic!("accepted") };
    std::mem::forget(back);
}

/// What a stop leaves waits for the next `run`; what the end of the reactor leaves is dropped, and so are
/// the closures.
// row 212
#[test]
fn what_a_stop_or_a_shutdown_leaves_is_dropped_with_the_reactor() {
    type End = fn(&mut Net<Vec<Arc<()>>>);
    let ends: [End; 2] = [Net::stop, |net| net.shutdown(Duration::ZERO)];
    for end in ends {
        let config = Config::new().posts_per_turn(3);
        let mut reactor = Reactor::build(config, |_| Ok(Vec::new())).unwrap();
        let (message, closure) = (Arc::new(()), Arc::new(()));
        let of_closure = Arc::clone(&closure);
        let channel = reactor.remote().channel(move |seen: &mut Vec<_>, net, message: Arc<()>| {
            let _ = &of_closure;
            seen.push(message);
            if seen.len() == 2 {
                end(net);
            }
        });
        channel.send_all(&mut vec![Arc::clone(&message); 7]).unwrap();
        reactor.run().unwrap();
        assert_eq!(reactor.state().len(), 3, "of the turn that ended it");
        channel.send(Arc::clone(&message)).unwrap();
        assert_eq!(Arc::strong_count(&message), 1 + 3 + 4 + 1);
        drop(reactor);
        assert_eq!(Arc::strong_count(&message), 1);
        assert_eq!(channel.send(message), Err(PostError::Ended(Arc::new(()))));
        let mut rest = vec![Arc::new(())];
        assert_eq!(channel.send_all(&mut rest), Err(PostError::Ended(())));
        assert_eq!(rest.len(), 1, "it comes back");
        drop(channel);
        assert_eq!(Arc::strong_count(&closure), 1);
    }
}

#[test]
fn a_message_that_sends_the_next_one_does_not_hold_up_the_turn() {
    let mut reactor = Reactor::with_state(0).unwrap();
    let remote = reactor.remote();
    let next = remote.clone();
    let channel = remote.channel(move |count: &mut u32, _net, Number(number)| {
        *count += 1;
        next.post(move |count, _| *count += number).unwrap();
    });
    channel.send(Number(10)).unwrap();
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(*reactor.state(), 1);
    until(&mut reactor, "the next one", |r| *r.state() == 11);
}

// row 213
#[test]
fn a_turn_with_a_deadline_handles_a_run_in_pieces() {
    let mut reactor = Reactor::with_state(Seen::new()).unwrap();
    let channel = reactor.remote().channel(|seen: &mut Seen, _net, Number(number)| {
        seen.push(number);
        std::thread::sleep(Duration::from_millis(2));
    });
    channel.send_all(&mut burst(0..10)).unwrap();
    let until = std::time::Instant::now() + Duration::from_millis(3);
    let _ = reactor.turn_until(until).unwrap();
    assert!(reactor.state().len() < 10);
    while reactor.state().len() < 10 {
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(*reactor.state(), (0..10).collect::<Vec<_>>());
}

/// The state need not cross threads; the channel does.
#[test]
fn a_channel_crosses_threads_whatever_the_state_is() {
    let mut reactor = Reactor::with_state(Rc::new(std::cell::Cell::new(0))).unwrap();
    let channel = reactor.remote().channel(|sum: &mut Rc<std::cell::Cell<u32>>, _net, n: u32| {
        sum.set(sum.get() + n);
    });
    let threads = [1, 2].map(|n| {
        let channel = channel.clone();
        std::thread::spawn(move || channel.send(n).unwrap())
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    until(&mut reactor, "both", |r| r.state().get() == 3);
}
