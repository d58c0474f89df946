//! A cache that speaks a part of the Redis protocol (RESP2), pipelined: PING, ECHO, SET, GET, DEL,
//! EXPIRE, TTL.

mod support;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate::{BoxError, Context, Handler, HandlerResult, Input, Listen, Net, StreamOptions};

const HELP: &str = "resp_server - a cache that speaks a part of the Redis protocol

Usage: cargo run --release --example resp_server [ADDRESS]         (default 127.0.0.1:6379)
Try it: redis-cli set tide high; redis-cli expire tide 60; redis-benchmark -t set,get -P 16";

// Peers choose keys and values. These limits bound the cache to about 160 MB.
const MAX_KEYS: usize = 10_000;
const MAX_COMMAND: usize = 16 * 1024;

/// The values, and when they expire.
type Cache = HashMap<Vec<u8>, (Vec<u8>, Option<Instant>)>;

/// Once a second, removes what has expired: keys that are not used any more take no room.
fn sweep(cache: &mut Cache, net: &mut Net<Cache>) {
    let now = net.now();
    cache.retain(|_, (_, expires)| expires.is_none_or(|at| at > now));
    net.run_after(Duration::from_secs(1), sweep);
}

fn execute(cache: &mut Cache, now: Instant, command: &[&[u8]]) -> Vec<u8> {
    let Some((name, words)) = command.split_first() else { return Vec::new() };
    let key = words.first().copied().unwrap_or_default();
    if cache.get(key).and_then(|entry| entry.1).is_some_and(|at| at <= now) {
        cache.remove(key); // since the last sweep
    }
    let integer = |n: i64| format!(":{n}\r\n").into_bytes();
    let bulk = |b: &[u8]| [format!("${}\r\n", b.len()).as_bytes(), b, b"\r\n"].concat();
    match (&*name.to_ascii_uppercase(), words.get(1..).unwrap_or_default()) {
        (b"PING", _) => b"+PONG\r\n".to_vec(),
        (b"ECHO", []) => bulk(key),
        (b"GET", []) => cache.get(key).map_or(b"$-1\r\n".to_vec(), |entry| bulk(&entry.0)),
        (b"SET", [value]) if cache.len() < MAX_KEYS || cache.contains_key(key) => {
            cache.insert(key.to_vec(), (value.to_vec(), None));
            b"+OK\r\n".to_vec()
        }
        (b"SET", [_]) => b"-ERR too many keys\r\n".to_vec(),
        (b"DEL", []) => integer(cache.remove(key).is_some().into()),
        (b"EXPIRE", [seconds]) => match (number::<u32>(seconds), cache.get_mut(key)) {
            (None, _) => b"-ERR invalid expire time\r\n".to_vec(),
            (_, None) => integer(0),
            (Some(seconds), Some(entry)) => {
                entry.1 = Some(now + Duration::from_secs(seconds.into()));
                integer(1)
            }
        },
        (b"TTL", []) => integer(match cache.get(key).map(|entry| entry.1) {
            None => -2,
            Some(None) => -1,
            Some(Some(at)) => (at - now).as_secs_f64().round() as i64,
        }),
        _ => b"-ERR unknown command or wrong number of arguments\r\n".to_vec(),
    }
}

fn number<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The words of one command; `None` until all of it has arrived.
fn command<'a>(input: &mut Input<'a>) -> Result<Option<Vec<&'a [u8]>>, BoxError> {
    let header = |input: &mut Input<'a>, mark: u8, max: usize| {
        let Some(line) = input.take_until(b'\n') else { return Ok(None) };
        let digits = line.strip_prefix(&[mark]).and_then(|line| line.strip_suffix(b"\r"));
        let n = digits.and_then(number::<usize>).filter(|&n| n <= max);
        n.map(Some).ok_or_else(|| format!("expected {} and up to {max}", mark as char))
    };
    let Some(count) = header(input, b'*', 64)? else { return Ok(None) };
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(length) = header(input, b'$', MAX_COMMAND)? else { return Ok(None) };
        let Some(word) = input.take(length + 2) else { return Ok(None) };
        words.push(&word[..length]);
    }
    Ok(Some(words))
}

struct Session;

impl Handler<Cache> for Session {
    fn on_data(&mut self, cx: &mut Context<'_, Cache>, input: &mut Input<'_>) -> HandlerResult {
        // Not while replies pile up: what is left is offered again when they have drained.
        while !cx.is_above_high_water() {
            let mut rest = Input::new(input); // a cursor: `input` keeps what is not whole
            let Some(words) = command(&mut rest)? else { break };
            let reply = execute(cx.state, cx.now(), &words);
            cx.send(reply); // all replies of this call leave in one write
            input.advance(input.len() - rest.len());
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    support::main(HELP, ["127.0.0.1:6379"], |[address]| {
        let options = StreamOptions::new().unread_limit(MAX_COMMAND);
        let listen = Listen::tcp(&*address).options(options).connection_limit(1000);
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
