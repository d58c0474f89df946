//! What the backplane adds: messages a second through one Redis, and the latency of a message at light
//! load, beside the same message to a member of the same reactor.
//!
//!     backplane redis://127.0.0.1:6379 [MESSAGES [BYTES]]
//!
//! Two reactors on two threads share a topic: one publishes, a member of the other receives.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidegate::backplane::{Backplane, BackplaneHandle};
use tidegate::layer::LengthPrefixed;
use tidegate::{Adopt, Context, Handler, HandlerResult, Input, Message, Reactor};

struct Quiet;

impl Handler for Quiet {
    fn on_data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }
}

/// Publishes only while so much is on its way: what is measured is not a queue.
const WINDOW: usize = 512 * 1024;

fn process(url: &str) -> (Reactor, BackplaneHandle) {
    let mut reactor = Reactor::new().expect("a reactor");
    let backplane = Backplane::redis(url).expect("a URL").start(reactor.net()).expect("a start");
    (reactor, backplane)
}

fn member(reactor: &mut Reactor) -> UnixStream {
    let (near, far) = UnixStream::pair().expect("a pair");
    let net = reactor.net();
    let adopt = Adopt::from(near).layer(LengthPrefixed::new(4));
    let token = net.adopt(adopt, Quiet).expect("a member");
    let group = net.group("topic");
    net.join(group, token);
    far
}

fn turn_until(reactor: &mut Reactor, done: impl Fn() -> bool) {
    while !done() {
        let _ = reactor.turn(Some(Duration::from_millis(1))).expect("a turn");
    }
}

/// A reactor with one member, on a thread of its own.
fn receiver(url: &str) -> UnixStream {
    let (url, (tell, told)) = (url.to_owned(), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        let (mut reactor, backplane) = process(&url);
        let far = member(&mut reactor);
        turn_until(&mut reactor, || backplane.is_connected());
        tell.send(far).expect("it is waited for");
        reactor.run().expect("a run")
    });
    told.recv().expect("a receiver")
}

fn throughput(url: &str, messages: u64, bytes: usize) {
    let mut far = receiver(url);
    let (mut reactor, backplane) = process(url);
    turn_until(&mut reactor, || backplane.is_connected());
    let reader = std::thread::spawn(move || {
        let (mut left, mut block) = (messages as usize * (bytes + 4), vec![0; 256 * 1024]);
        while left > 0 {
            left -= far.read(&mut block).expect("all of it");
        }
    });
    let (payload, begin) = (vec![b'x'; bytes], Instant::now());
    let mut said = 0;
    while !reader.is_finished() {
        while said < messages && backplane.stats().queued_bytes < WINDOW {
            for _ in 0..64.min(messages - said) {
                reactor.net().publish_named("topic", Message::text(&payload));
                said += 1;
            }
        }
        let _ = reactor.turn(Some(Duration::from_millis(1))).expect("a turn");
    }
    let took = begin.elapsed();
    let rate = messages as f64 / took.as_secs_f64();
    println!("{messages} messages of {bytes} bytes in {took:.2?}: {rate:.0} a second");
}

/// A message a millisecond, each with the time of its sending in it.
fn latency(url: &str, messages: u64) {
    let mut away = receiver(url);
    let (mut reactor, backplane) = process(url);
    let mut near = member(&mut reactor);
    turn_until(&mut reactor, || backplane.is_connected());
    let begin = Instant::now();
    let measure = move |stream: &mut UnixStream| {
        let mut histogram =
            Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        let mut message = [0; 12];
        for _ in 0..messages {
            stream.read_exact(&mut message).expect("a message");
            let sent = u64::from_be_bytes(message[4..].try_into().expect("eight bytes"));
            histogram.saturating_record(begin.elapsed().as_nanos() as u64 - sent);
        }
        histogram
    };
    let far = std::thread::spawn(move || measure(&mut away));
    let near = std::thread::spawn(move || measure(&mut near));
    for n in 1..=messages {
        let due = begin + Duration::from_millis(n);
        while Instant::now() < due {
            let left = due.saturating_duration_since(Instant::now());
            let _ = reactor.turn(Some(left)).expect("a turn");
        }
        let now = begin.elapsed().as_nanos() as u64;
        reactor.net().publish_named("topic", Message::binary(now.to_be_bytes()));
        let _ = reactor.turn(Some(Duration::ZERO)).expect("a turn");
    }
    while !(far.is_finished() && near.is_finished()) {
        let _ = reactor.turn(Some(Duration::from_millis(1))).expect("a turn");
    }
    for (where_, thread) in [("the same reactor", near), ("through the engine", far)] {
        let histogram = thread.join().expect("figures");
        let at = |q| Duration::from_nanos(histogram.value_at_quantile(q));
        println!("{where_}: p50 {:.0?}, p99 {:.0?}", at(0.5), at(0.99));
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().expect("expected redis://HOST:PORT");
    let messages = arguments.next().map_or(1_000_000, |n| n.parse().expect("a number"));
    let bytes = arguments.next().map_or(100, |n| n.parse().expect("a number"));
    for _ in 0..3 {
        throughput(&url, messages, bytes);
    }
    latency(&url, 5_000);
}
