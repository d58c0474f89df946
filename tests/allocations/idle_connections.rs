//! What ten thousand idle connections cost.
//!
//! The clients live in a child process: both ends together would need more descriptors than many
//! systems allow one process.
#![cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tidegate::{Context, Handler, HandlerResult, Input, Reactor};

use crate::support::child::Helper;
use crate::support::{PATIENCE, address_of, until};

/// Fewer where the limit of descriptors is low: what is checked is the cost of each.
fn how_many() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = line.split_whitespace().nth(3).unwrap();
    soft.parse().map_or(10_000, |limit: usize| limit.saturating_sub(100).min(10_000))
}

struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(input.take_all());
        Ok(())
    }
}

/// What one idle connection may cost the process, in bytes. Its slot (socket, state, deadlines) has
/// about a hundred and the place of its handler 24; tables that grow by doubling have up to as much
/// again in reserve. Whatever had a buffer would be far above this.
const MOST: usize = 1024;

#[test]
fn an_idle_connection_costs_less_than_a_kibibyte_before_and_after_it_was_used() {
    if crate::support::child::part().is_some() {
        return clients();
    }
    let count = how_many();
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", |_| Echo).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut helper = Helper::start(
        an_idle_connection_costs_less_than_a_kibibyte_before_and_after_it_was_used,
        "clients",
    );
    helper.tell(&format!("{address} {count}"));

    let idle = allocation_counter::measure(|| {
        until(&mut reactor, "all to connect", |r| r.net().connection_count() == count);
    });
    // All answers but one are on their way when the last client has its own.
    let used = allocation_counter::measure(|| {
        helper.tell("talk");
        until(&mut reactor, "all to be answered", |_| helper.has_spoken());
    });
    assert_eq!(helper.hear(), "answered");
    let tokens = reactor.net().connection_count();
    assert_eq!(tokens, count);

    let each = |bytes: i64| usize::try_from(bytes.max(0)).unwrap() / count;
    let (before, after) = (each(idle.bytes_current), each(idle.bytes_current + used.bytes_current));
    eprintln!("{count} connections: {before} bytes each when new, {after} after an echo");
    assert!(before > 0 && before < MOST, "{before} bytes for each idle connection");
    assert!(after < MOST, "{after} bytes for each connection that was used");
    // The clients end with a reset: nothing is left in TIME_WAIT.
    drop(helper);
    until(&mut reactor, "all to close", |r| r.net().connection_count() == 0);
}

/// The child: as many connections as it is told, each of which says a word when told to.
fn clients() {
    let order = crate::support::child::hear().unwrap();
    let (address, count) = order.split_once(' ').unwrap();
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..count.parse().unwrap() {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        streams.push(stream);
    }
    crate::support::child::hear();
    for stream in &mut streams {
        stream.write_all(b"x").unwrap();
    }
    for stream in &mut streams {
        stream.read_exact(&mut [0]).unwrap();
    }
    crate::support::child::say("answered");
    crate::support::child::hear(); // until it is killed
}
