//! Timers: never early, once, gone with their connection.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use tidegate::{Config, Context, HandlerResult, Reactor, Timer, Token};

use crate::support::xorshift::Xorshift;
use crate::support::{Log, PATIENCE, Probe, Told, client, listening, settle, until};

const MS: Duration = Duration::from_millis(1);

/// A reactor with one open connection that only writes down what it is told.
fn one_connection() -> (Reactor, Log, Token, TcpStream) {
    with_probe(|probe| probe)
}

fn with_probe(adapt: impl Fn(Probe) -> Probe + 'static) -> (Reactor, Log, Token, TcpStream) {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || adapt(Probe::new(&of_handler)));
    let stream = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let token = log.opened()[0];
    (reactor, log, token, stream)
}

fn fired(log: &Log) -> Vec<u64> {
    let tag = |told| match told {
        Told::Timer(tag) => Some(tag),
        _ => None,
    };
    log.told().into_iter().filter_map(tag).collect()
}

// row 56
#[test]
fn no_timer_is_early_and_each_fires_once() {
    let due: Rc<RefCell<Vec<(Instant, u32)>>> = Rc::default();
    let of_handler = Rc::clone(&due);
    let (mut reactor, log, token, _stream) = with_probe(move |probe| {
        let due = Rc::clone(&of_handler);
        probe.timer(move |_, timer| {
            let (at, fired) = &mut due.borrow_mut()[timer.tag() as usize];
            assert!(Instant::now() >= *at, "early by {:?}", *at - Instant::now());
            *fired += 1;
            Ok(())
        })
    });
    let mut random = Xorshift::new(56);
    for round in 0..40 {
        for _ in 0..20 {
            let delay = Duration::from_nanos(random.next() % 12_000_000);
            let mut due = due.borrow_mut();
            let tag = due.len() as u64;
            due.push((Instant::now() + delay, 0)); // from before the call
            let timer = reactor.net().set_timer(token, delay, tag);
            assert_eq!(timer.tag(), tag);
        }
        if round % 4 == 0 {
            // The turn's own clock gets old meanwhile.
            std::thread::sleep(Duration::from_micros(random.next() % 3_000));
        }
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    until(&mut reactor, "all to fire", |_| due.borrow().iter().all(|(_, fired)| *fired > 0));
    settle(&mut reactor);
    assert!(due.borrow().iter().all(|(_, fired)| *fired == 1));
    assert_eq!(log.closes(), 0);
}

// row 56
#[test]
fn zero_is_due_in_the_next_turn_and_the_longest_delays_never() {
    let (mut reactor, log, token, _stream) = one_connection();
    let net = reactor.net();
    let far = [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_secs(u64::MAX)];
    let far = far.map(|delay| net.set_timer(token, delay, 9));
    let years = net.set_timer(token, Duration::from_secs(3600 * 24 * 365 * 100), 8);
    net.set_timer(token, Duration::ZERO, 1);
    net.set_timer(token, Duration::from_nanos(1), 2);
    assert!(net.rearm_timer(far[0], Duration::MAX));
    until(&mut reactor, "the short ones", |_| fired(&log).len() == 2);
    settle(&mut reactor);
    assert_eq!(fired(&log), [1, 2]);
    // They did not wrap around into the past: all are there still, and do not keep the loop awake.
    assert!(reactor.next_deadline().is_none_or(|at| at > Instant::now() + 1_000 * MS));
    for timer in far.into_iter().chain([years]) {
        assert!(reactor.net().cancel_timer(timer));
        assert!(!reactor.net().cancel_timer(timer));
    }
}

// row 56
#[test]
fn timers_that_are_due_together_fire_in_the_order_of_their_deadlines_and_then_of_their_setting() {
    let (mut reactor, log, token, _stream) = one_connection();
    let net = reactor.net();
    for (delay, tag) in [(30, 5), (10, 2), (20, 3), (5, 1), (20, 4)] {
        net.set_timer(token, delay * MS, tag);
    }
    std::thread::sleep(40 * MS); // all are late
    until(&mut reactor, "all", |_| fired(&log).len() == 5);
    assert_eq!(fired(&log), [1, 2, 3, 4, 5]);
}

type Step = Rc<dyn Fn(&mut Context<'_>, &Rc<Cell<Option<Timer>>>) -> HandlerResult>;

/// A connection that takes the same step in each of its callbacks (but the last, when its
/// timers are dead); all of them come, and one timer with the tag 7 of the test's own.
fn step_everywhere(step: Step) -> (Reactor, Log) {
    let kept = Rc::new(Cell::new(None));
    let dead_is_refused = Rc::new(Cell::new(false));
    let tell = Rc::clone(&dead_is_refused);
    let (mut reactor, log, token, mut stream) = with_probe(move |probe| {
        let (kept, refused) = (Rc::clone(&kept), Rc::clone(&tell));
        let run = |step: &Step| {
            let (step, kept) = (Rc::clone(step), Rc::clone(&kept));
            move |cx: &mut Context<'_>| step(cx, &kept)
        };
        let (a, b, c, d, e) = (run(&step), run(&step), run(&step), run(&step), run(&step));
        probe
            .open(a)
            .data(move |cx, input| {
                input.take_all();
                b(cx)
            })
            .timer(move |cx, _| c(cx))
            .notify(move |cx, _| d(cx))
            .eof(move |cx| e(cx))
            .close(move |cx, _| {
                let timer = kept.take().unwrap();
                refused.set(!cx.cancel_timer(timer) && !cx.rearm_timer(timer, MS));
                cx.set_timer(Duration::ZERO, 99);
            })
    });
    stream.write_all(b"x").unwrap();
    until(&mut reactor, "the data", |_| log.data() == b"x");
    assert!(reactor.net().notify(token, ()));
    until(&mut reactor, "the signal", |_| log.count(|t| *t == Told::Notification) == 1);
    reactor.net().set_timer(token, Duration::ZERO, 7);
    until(&mut reactor, "the timer", |_| fired(&log).contains(&7));
    stream.shutdown(Shutdown::Write).unwrap();
    until(&mut reactor, "the end", |_| log.eofs() == 1);
    reactor.net().close(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    settle(&mut reactor);
    assert!(dead_is_refused.get());
    (reactor, log)
}

// row 57
#[test]
fn a_timer_may_be_cancelled_and_set_anew_in_every_callback() {
    let (reactor, log) = step_everywhere(Rc::new(|cx, kept| {
        if let Some(timer) = kept.take() {
            assert!(cx.cancel_timer(timer));
            assert!(!cx.cancel_timer(timer) && !cx.rearm_timer(timer, MS));
        }
        kept.set(Some(cx.set_timer(Duration::from_secs(3600), 1)));
        Ok(())
    }));
    assert_eq!(fired(&log), [7]);
    assert_eq!(reactor.next_deadline(), None);
}

// row 57
#[test]
fn a_timer_may_be_moved_in_every_callback_and_fires_at_its_last_time_only() {
    let (_reactor, log) = step_everywhere(Rc::new(|cx, kept| {
        let timer = kept.take().unwrap_or_else(|| cx.set_timer(Duration::from_secs(3600), 1));
        cx.rearm_timer(timer, Duration::from_secs(1800));
        kept.set(Some(timer));
        Ok(())
    }));
    assert_eq!(fired(&log), [7]);
}

// row 57
#[test]
fn a_timer_that_is_due_may_still_be_cancelled_or_moved_by_one_that_fires_before_it() {
    let others: Rc<RefCell<Vec<Timer>>> = Rc::default();
    let of_handler = Rc::clone(&others);
    let (mut reactor, log, token, _stream) = with_probe(move |probe| {
        let others = Rc::clone(&of_handler);
        probe.timer(move |cx, timer| {
            if timer.tag() == 0 {
                assert!(cx.cancel_timer(others.borrow()[1]));
                assert!(cx.rearm_timer(others.borrow()[2], 30 * MS));
                assert!(!cx.rearm_timer(timer, MS), "it is firing");
                assert!(!cx.cancel_timer(timer), "it is firing");
            }
            Ok(())
        })
    });
    for tag in 0..4 {
        let timer = reactor.net().set_timer(token, MS, tag);
        others.borrow_mut().push(timer);
    }
    std::thread::sleep(3 * MS);
    until(&mut reactor, "the moved one", |_| fired(&log).contains(&2));
    assert_eq!(fired(&log), [0, 3, 2]);
}

// row 57
#[test]
fn a_timer_that_sets_the_next_one_with_no_delay_does_not_hold_up_the_turn() {
    let (mut reactor, log, token, mut stream) = with_probe(|probe| {
        probe.timer(|cx, timer| {
            cx.set_timer(Duration::ZERO, timer.tag() + 1);
            Ok(())
        })
    });
    reactor.net().set_timer(token, Duration::ZERO, 0);
    stream.write_all(b"let me in").unwrap();
    until(&mut reactor, "the data", |_| log.data() == b"let me in");
    let before = fired(&log).len();
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(fired(&log).len(), before + 1, "one a turn");
}

// row 57
#[test]
fn timers_die_with_their_connection_and_their_names_reach_no_others() {
    let (mut reactor, log, token, stream) = one_connection();
    let old: Vec<_> = (0..100).map(|tag| reactor.net().set_timer(token, 20 * MS, tag)).collect();
    drop(stream);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(reactor.next_deadline(), None, "a dead timer is still waited for");
    // New ones take the places of the old.
    let count = Rc::new(Cell::new(0));
    let new: Vec<_> = (0..100)
        .map(|_| {
            let count = Rc::clone(&count);
            reactor.net().run_after(20 * MS, move |(), _| count.set(count.get() + 1))
        })
        .collect();
    for timer in old {
        assert!(!reactor.net().cancel_timer(timer));
        assert!(!reactor.net().rearm_timer(timer, Duration::MAX));
    }
    until(&mut reactor, "the new ones", |_| count.get() == 100);
    assert!(new.into_iter().all(|timer| !reactor.net().cancel_timer(timer)));
    assert_eq!(fired(&log), []);
    let nobodys = reactor.net().set_timer(token, Duration::ZERO, 1);
    assert!(!reactor.net().cancel_timer(nobodys));
    assert_eq!(reactor.next_deadline(), None);
}

// row 57
#[test]
fn a_connection_that_closes_in_a_timer_hears_of_no_other() {
    let (mut reactor, log, token, stream) = with_probe(|probe| {
        probe.timer(|cx, _| {
            cx.close();
            cx.set_timer(Duration::ZERO, 9);
            Ok(())
        })
    });
    for tag in 0..3 {
        reactor.net().set_timer(token, MS, tag);
    }
    std::thread::sleep(3 * MS);
    until(&mut reactor, "the first", |_| !fired(&log).is_empty());
    drop(stream);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(fired(&log), [0]);
}

#[test]
fn the_time_of_day_is_that_of_the_system_in_callbacks_and_outside() {
    let (before, told) = (SystemTime::now(), Rc::new(Cell::new(None)));
    let told_in = Rc::clone(&told);
    let (mut reactor, _log, _token, mut peer) = with_probe(move |probe| {
        let told = Rc::clone(&told_in);
        probe.data(move |cx, input| {
            input.take_all();
            told.set(Some((cx.system_time(), cx.net.system_time())));
            Ok(())
        })
    });
    peer.write_all(b"?").unwrap();
    until(&mut reactor, "the callback", |_| told.get().is_some());
    let (of_context, of_net) = told.get().unwrap();
    for time in [of_context, of_net, reactor.net().system_time()] {
        // It may have been set meanwhile, but not by that much.
        let hour = Duration::from_secs(3600);
        assert!(before - hour < time && time < before + hour);
    }
}

// rows 56, 57
#[test]
fn the_reactors_own_timers_run_once_may_be_cancelled_and_set_others() {
    let mut reactor = Reactor::with_state(Vec::new()).unwrap();
    let net = reactor.net();
    let start = Instant::now();
    net.run_after(5 * MS, move |seen: &mut Vec<u32>, net| {
        assert!(start.elapsed() >= 5 * MS);
        seen.push(1);
        net.run_after(Duration::ZERO, |seen, _| seen.push(2));
    });
    let owned = Rc::new(());
    let counted = Rc::clone(&owned);
    let cancelled = net.run_after(MS, move |_, _| drop(counted));
    let moved = net.run_after(MS, |seen, _| seen.push(3));
    net.run_after(Duration::MAX, |seen, _| seen.push(4));
    assert!(net.rearm_timer(moved, 30 * MS));
    assert!(net.cancel_timer(cancelled));
    assert!(!net.cancel_timer(cancelled));
    assert_eq!(Rc::strong_count(&owned), 1, "a cancelled closure is dropped at once");
    until(&mut reactor, "all three", |r| r.state().len() == 3);
    // The moved one may come before the second where the loop is late.
    assert!(matches!(reactor.state()[..], [1, 2, 3] | [1, 3, 2]), "{:?}", reactor.state());
    settle(&mut reactor);
    assert_eq!(reactor.state().len(), 3);
    assert!(!reactor.net().cancel_timer(moved));
}

// row 57
#[test]
fn a_hundred_thousand_cancelled_timers_leave_nothing_to_wait_for() {
    let (mut reactor, log, token, _stream) = one_connection();
    for n in 0..100_000_u64 {
        let timer = reactor.net().set_timer(token, Duration::from_millis(n % 50), n);
        assert!(reactor.net().cancel_timer(timer));
    }
    assert_eq!(reactor.next_deadline(), None);
    let past_all_of_them = Instant::now() + 50 * MS;
    while Instant::now() < past_all_of_them {
        let _ = reactor.turn(Some(MS)).unwrap();
    }
    assert_eq!(fired(&log), []);
}

#[test]
fn a_loop_that_waits_for_a_timer_sleeps_until_then() {
    let (mut reactor, log, token, _stream) = one_connection();
    settle(&mut reactor);
    reactor.net().set_timer(token, 200 * MS, 1);
    let mut turns = 0;
    while fired(&log).is_empty() {
        turns += 1;
        let _ = reactor.turn(None).unwrap();
    }
    assert!(turns <= 8, "{turns} turns: a wheel's cascades, and nothing else, may wake it");
}

#[test]
fn polling_without_sleep_does_not_make_timers_late() {
    let spin = 50 * MS;
    let mut reactor = Reactor::build(Config::new().spin(spin), |_| Ok(())).unwrap();
    // One that sleeps its whole time after polling takes twice as long, each time; a busy machine may
    // make any one turn late.
    let start = Instant::now();
    loop {
        let begin = Instant::now();
        let _ = reactor.turn(Some(spin)).unwrap();
        let took = begin.elapsed();
        assert!(took >= spin, "{took:?}");
        if took < spin * 19 / 10 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "never in time; the last one took {took:?}");
    }
}

// row 151
#[test]
fn a_fine_timer_is_never_early_and_fires_once() {
    let due: Rc<RefCell<Vec<(Instant, u32)>>> = Rc::default();
    let of_handler = Rc::clone(&due);
    let (mut reactor, log, token, _stream) = with_probe(move |probe| {
        let due = Rc::clone(&of_handler);
        probe.timer(move |_, timer| {
            let (at, fired) = &mut due.borrow_mut()[timer.tag() as usize];
            assert!(Instant::now() >= *at, "early by {:?}", *at - Instant::now());
            *fired += 1;
            Ok(())
        })
    });
    let mut random = Xorshift::new(151);
    for _ in 0..100 {
        let mut timers = Vec::new();
        for n in 0..10 {
            let delay = Duration::from_nanos(random.next() % 2_000_000);
            let mut due = due.borrow_mut();
            due.push((Instant::now() + delay, 0));
            let tag = due.len() as u64 - 1;
            let timer = match n % 4 {
                0 => reactor.net().set_timer(token, delay, tag),
                _ => reactor.net().set_fine_timer(token, delay, tag),
            };
            timers.push((tag, timer));
        }
        let (tag, moved) = timers[1];
        due.borrow_mut()[tag as usize].0 = Instant::now() + MS;
        if !reactor.net().rearm_timer(moved, MS) {
            due.borrow_mut()[tag as usize].0 = Instant::now() - 10 * MS; // it has fired already
        }
        let (tag, cancelled) = timers[2];
        if reactor.net().cancel_timer(cancelled) {
            due.borrow_mut()[tag as usize].1 = 1;
        }
        let _ = reactor.turn(Some(MS)).unwrap();
    }
    until(&mut reactor, "all timers", |_| due.borrow().iter().all(|&(_, fired)| fired > 0));
    settle(&mut reactor);
    assert!(due.borrow().iter().all(|&(_, fired)| fired == 1));
    assert_eq!(reactor.next_deadline(), None);
    assert!(!fired(&log).is_empty());
}

// row 152
#[test]
fn fine_timers_fire_in_the_order_of_their_deadlines() {
    let (mut reactor, log, token, _stream) = one_connection();
    let set = [(900, 4), (100, 1), (500, 3), (300, 2), (1_300, 5)];
    for (micros, tag) in set {
        reactor.net().set_fine_timer(token, Duration::from_micros(micros), tag);
    }
    until(&mut reactor, "all five", |_| fired(&log).len() == 5);
    assert_eq!(fired(&log), [1, 2, 3, 4, 5]);
}

// row 152
#[test]
fn fine_timers_end_with_their_connection() {
    let (mut reactor, log, token, _stream) = one_connection();
    let timer = reactor.net().set_fine_timer(token, MS / 2, 1);
    assert_eq!(timer, timer);
    reactor.net().abort(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    std::thread::sleep(2 * MS);
    settle(&mut reactor);
    assert_eq!(fired(&log), []);
    assert!(!reactor.net().rearm_timer(timer, MS));
    assert!(!reactor.net().cancel_timer(timer));
    assert_eq!(reactor.next_deadline(), None);
}

// row 152
#[test]
fn a_fine_timer_that_never_comes_is_no_deadline_that_matters() {
    let (mut reactor, log, token, _stream) = one_connection();
    let timer = reactor.net().set_fine_timer(token, Duration::MAX, 1);
    settle(&mut reactor);
    assert_eq!(fired(&log), []);
    assert!(reactor.net().cancel_timer(timer));
}

// row 153
#[cfg(all(target_os = "linux", feature = "timerfd", not(mio_unsupported_force_poll_poll)))]
#[test]
fn a_fine_timer_wakes_a_loop_that_waits_for_the_descriptor() {
    use std::os::fd::{AsFd, AsRawFd};
    use tidegate::mio::{Events, Interest, Poll, Token as MioToken, unix::SourceFd};

    let (mut reactor, log, token, _stream) = one_connection();
    reactor.net().set_fine_timer(token, 3 * MS, 7);
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    let mut outer = Poll::new().unwrap();
    let fd = reactor.as_fd().as_raw_fd();
    outer.registry().register(&mut SourceFd(&fd), MioToken(0), Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(4);
    while fired(&log).is_empty() {
        outer.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(!events.is_empty(), "the descriptor did not become readable");
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(fired(&log), [7]);
}
