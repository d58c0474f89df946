//! The table of endings: what can be reached, and what each event makes of it.

use std::collections::{HashMap, VecDeque};

use super::*;
use Phase::{Closing, Connecting, Dead, Failing, Handshaking, Lingering, Open};

const EVENTS: [Event; 17] = [
    Event::Established,
    Event::Opened,
    Event::Close,
    Event::CloseHandshake,
    Event::EndWrite { ready: true },
    Event::EndWrite { ready: false },
    Event::Flushed,
    Event::SocketEnd,
    Event::FormatEnd,
    Event::EndDelivered,
    Event::EndUndelivered,
    Event::OutputFailed,
    Event::InputUsedUp,
    Event::Quiet,
    Event::Abort,
    Event::TimeUp,
    Event::Die,
];

/// Every state that a connection can come to, by search from its beginning, with the way there.
fn reachable() -> HashMap<Life, Vec<Event>> {
    let start = Life::new(Connecting);
    let mut found = HashMap::from([(start, Vec::new())]);
    let mut queue = VecDeque::from([start]);
    while let Some(life) = queue.pop_front() {
        let way = found[&life].clone();
        for event in EVENTS.into_iter().filter(|&event| may_happen(life, event)) {
            let (next, _) = life.after(event);
            found.entry(next).or_insert_with(|| {
                queue.push_back(next);
                way.iter().copied().chain([event]).collect()
            });
        }
    }
    found
}

/// What the rest of the connection never does: it reads no socket before that is established, passes
/// on no end before there was one, and flushes an end only that is due.
fn may_happen(life: Life, event: Event) -> bool {
    match event {
        Event::SocketEnd => !life.exhausted && life.phase != Connecting,
        Event::FormatEnd => !matches!(life.phase, Connecting | Closing | Lingering),
        Event::EndDelivered => {
            life.read == ReadSide::Ended && !matches!(life.phase, Connecting | Handshaking)
        }
        Event::Flushed => life.write == WriteSide::Ending && matches!(life.phase, Open | Closing),
        _ => true,
    }
}

#[test]
fn a_life_only_moves_downwards_and_every_state_can_end() {
    let all = reachable();
    assert!(all.len() > 30, "{}", all.len());
    for (life, way) in &all {
        for event in EVENTS.into_iter().filter(|&event| may_happen(*life, event)) {
            let (next, effects) = life.after(event);
            assert!(next.phase >= life.phase, "{way:?}, {event:?}: {life:?} → {next:?}");
            assert!(next.exhausted || !life.exhausted, "{way:?}, {event:?}");
            let died = life.phase != Dead && next.phase == Dead;
            assert_eq!(died, effects.death.is_some(), "{way:?}, {event:?}");
        }
        assert_eq!(life.after(Event::Die).0.phase, Dead);
    }
}

#[test]
fn nothing_happens_to_the_dead() {
    for life in reachable().into_keys().filter(|life| life.phase == Dead) {
        for event in EVENTS {
            assert_eq!(life.after(event), (life, Effects::default()), "{event:?}");
        }
    }
}

#[test]
fn a_write_side_that_has_ended_never_opens_again() {
    for (life, way) in reachable() {
        for event in EVENTS.into_iter().filter(|&event| may_happen(life, event)) {
            let next = life.after(event).0;
            let back = match life.write {
                WriteSide::Open => false,
                WriteSide::Ending => next.write == WriteSide::Open,
                WriteSide::Ended => next.write != WriteSide::Ended,
            };
            assert!(!back, "{way:?}, {event:?}: {life:?} → {next:?}");
        }
    }
}

#[test]
fn a_close_ends_without_a_reset_whatever_came_before_it() {
    for (life, way) in reachable() {
        if life.phase != Open {
            continue;
        }
        let (closing, effects) = life.after(Event::Close);
        assert!(!effects.has(Effects::RESET), "{way:?}");
        let flushed = if closing.phase == Closing {
            assert!(effects.has(Effects::WRITE_END), "{way:?}");
            let (flushed, effects) = closing.after(Event::Flushed);
            assert!(flushed.phase == Dead || effects.has(Effects::CLOSE_DEADLINE), "{way:?}");
            flushed
        } else {
            closing
        };
        // Only a socket whose end has been read is closed without waiting for it.
        assert_eq!(flushed.phase == Dead, life.exhausted, "{way:?}: {flushed:?}");
        assert!(matches!(flushed.phase, Dead | Lingering), "{way:?}: {flushed:?}");
    }
}

#[test]
fn both_directions_ended_is_a_close() {
    let open = Life::new(Open);
    let read_end = open.after(Event::SocketEnd).0.after(Event::EndDelivered).0;
    let ending = read_end.after(Event::EndWrite { ready: true }).0;
    let (life, effects) = ending.after(Event::Flushed);
    assert_eq!((life.phase, effects.death), (Dead, Some(Death::BothEnded)));
    assert!(effects.has(Effects::SHUT));

    // The other way round, and by a format's end, after which the socket's own is waited for.
    let ended = open.after(Event::EndWrite { ready: true }).0.after(Event::Flushed).0;
    let read_end = ended.after(Event::FormatEnd).0;
    let (life, effects) = read_end.after(Event::EndDelivered);
    assert_eq!((life.phase, effects.death), (Lingering, None));
    let (life, effects) = life.after(Event::SocketEnd).0.after(Event::InputUsedUp);
    assert_eq!((life.phase, effects.death), (Dead, Some(Death::BothEnded)));
}

#[test]
fn a_half_close_waits_for_the_layers() {
    let (life, effects) = Life::new(Open).after(Event::EndWrite { ready: false });
    assert_eq!((life.write, effects.has(Effects::WRITE_END)), (WriteSide::Ending, false));
    let (life, effects) = life.after(Event::EndWrite { ready: true });
    assert_eq!((life.write, effects.has(Effects::WRITE_END)), (WriteSide::Ending, true));
}

#[test]
fn what_is_not_open_yet_is_cancelled() {
    for phase in [Connecting, Handshaking] {
        for event in [Event::Close, Event::Abort] {
            let (life, effects) = Life::new(phase).after(event);
            assert_eq!((life.phase, effects.death), (Dead, Some(Death::Cancelled)));
            assert!(!effects.has(Effects::RESET));
        }
    }
    let (life, effects) = Life::new(Handshaking).after(Event::CloseHandshake);
    assert_eq!((life.phase, effects.death), (Closing, None), "its layer's words are flushed");
}

#[test]
fn a_failed_write_offers_what_is_left_to_read() {
    let (life, effects) = Life::new(Open).after(Event::OutputFailed);
    assert_eq!((life.phase, life.write), (Failing, WriteSide::Ended));
    assert!(effects.has(Effects::READ_ALL) && effects.has(Effects::SERVE));
    assert_eq!(life.after(Event::OutputFailed), (life, Effects::default()), "once is enough");
    assert_eq!(life.after(Event::InputUsedUp).1.death, Some(Death::BothEnded));
    // Behind the peer's end there is nothing to read.
    let read_end = Life::new(Open).after(Event::SocketEnd).0.after(Event::EndDelivered).0;
    assert_eq!(read_end.after(Event::OutputFailed).1.death, Some(Death::Given));
}

#[test]
fn an_end_that_only_a_relay_has_heard_is_told_again() {
    let delivered = Life::new(Open).after(Event::SocketEnd).0.after(Event::EndDelivered).0;
    let (life, effects) = delivered.after(Event::EndUndelivered);
    assert_eq!((life.read, effects.has(Effects::SERVE)), (ReadSide::Ended, true));
}
