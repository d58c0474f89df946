//! A cache that speaks a part of the Redis protocol (RESP2), pipelined: PING, ECHO, SET, GET, DEL,
//! EXPIRE, TTL.

mod support;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate::layer::resp::{Command, Resp, Value, Version};
use tidegate::{Context, Handler, HandlerResult, Input, Listen, Net, StreamOptions};

const HELP: &str = "resp_server - a cache that speaks a part of the Redis protocol

Usage: cargo run --release --example resp_server [ADDRESS]         (default 127.0.0.1:6379)
Try it: redis-cli set tide high; redis-cli expire tide 60; redis-benchmark -t set,get -P 16";

// Peers choose keys and values. These limits bound the cache to about 160 MB.
const MAX_KEYS: usize = 10_000;
const MAX_COMMAND: usize = 16 * 1024;
const MAX_WORDS: usize = 64;

/// The values, and when they expire.
type Cache = HashMap<Vec<u8>, (Vec<u8>, Option<Instant>)>;

/// Once a second, removes what has expired: keys that are not used any more take no room.
fn sweep(cache: &mut Cache, net: &mut Net<Cache>) {
    let now = net.now();
    cache.retain(|_, (_, expires)| expires.is_none_or(|at| at > now));
    net.run_after(Duration::from_secs(1), sweep);
}

fn execute<'a>(cache: &'a mut Cache, now: Instant, command: &Command<'a>) -> Value<'a> {
    let key = command.word(1).unwrap_or_default();
    let argument = command.word(2).unwrap_or_default();
    if cache.get(key).and_then(|entry| entry.1).is_some_and(|at| at <= now) {
        cache.remove(key); // since the last sweep
    }
    match (command.uppercase_name(&mut [0; 8]), command.len()) {
        (b"PING", _) => Value::Simple(b"PONG"),
        (b"ECHO", 2) => Value::Bulk(key),
        (b"GET", 2) => cache.get(key).map_or(Value::Null, |entry| Value::Bulk(&entry.0)),
        (b"SET", 3) if cache.len() < MAX_KEYS || cache.contains_key(key) => {
            cache.insert(key.to_vec(), (argument.to_vec(), None));
            Value::Simple(b"OK")
        }
        (b"SET", 3) => Value::Error(b"ERR too many keys"),
        (b"DEL", 2) => Value::Integer(cache.remove(key).is_some().into()),
        (b"EXPIRE", 3) => match (number::<u32>(argument), cache.get_mut(key)) {
            (None, _) => Value::Error(b"ERR invalid expire time"),
            (_, None) => Value::Integer(0),
            (Some(seconds), Some(entry)) => {
                entry.1 = Some(now + Duration::from_secs(seconds.into()));
                Value::Integer(1)
            }
        },
        (b"TTL", 2) => Value::Integer(match cache.get(key).map(|entry| entry.1) {
            None => -2,
            Some(None) => -1,
            Some(Some(at)) => (at - now).as_secs_f64().round() as i64,
        }),
        _ => Value::Error(b"ERR unknown command or wrong number of arguments"),
    }
}

fn number<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

struct Session;

impl Handler<Cache> for Session {
    /// Called for each command of a pipeline, and not while replies pile up: the others come when they
    /// have drained. All replies of a burst leave in one write.
    fn on_data(&mut self, cx: &mut Context<'_, Cache>, input: &mut Input<'_>) -> HandlerResult {
        let command = Command::new(input.take_all(), input.fields());
        let reply = execute(cx.state, cx.net.now(), &command).encode(Version::Resp2);
        cx.send(reply);
        Ok(())
    }
}

fn main() -> ExitCode {
    support::main(HELP, ["127.0.0.1:6379"], |[address]| {
        let options = StreamOptions::new().unread_limit(MAX_COMMAND);
        let resp = Resp::server().message_limit(MAX_COMMAND).element_limit(MAX_WORDS);
        let listen = Listen::tcp(&*address)
            .layer(move |_peer| resp.clone())
            .options(options)
            .connection_limit(1000);
        let mut reactor = tidegate::Reactor::with_state(Cache::new())?;
        let listener = reactor.net().listen(listen, |_peer| Session)?;
        for at in reactor.net().local_addrs(listener) {
            support::say(format!("resp_server: listening on {at}"))?;
        }
        reactor.net().run_after(Duration::ZERO, sweep);
        reactor.run()?;
        Ok(())
    })
}
