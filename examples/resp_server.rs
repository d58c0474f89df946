//! A store that speaks a part of the Redis protocol (RESP2): PING, ECHO, SET with EX, GET, DEL,
//! EXPIRE and TTL, over pipelined connections.
//!
//! The answers of one read leave in one write. A peer that sends commands and does not read the
//! answers is not read from while 64 KiB wait for it. Entries that have expired are removed when
//! they are asked for, and the others once a second.

mod support;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate::{Context, Handler, HandlerResult, Input, Listen, Net, Reactor, StreamOptions};

const HELP: &str = "resp_server - a store that speaks a part of the Redis protocol

Usage: cargo run --release --example resp_server [ADDRESS]         (default 127.0.0.1:6379)
Try it: redis-cli set tide high, or: printf 'PING\\r\\n' | nc -N 127.0.0.1 6379";

/// The longest command, in bytes: what a handler may leave unread until the rest arrives.
const MAX_COMMAND: usize = 1 << 20;
/// The most words of a command, so that a length cannot ask for memory that no bytes came for.
const MAX_WORDS: usize = 1024;
/// The most keys; without a limit a peer could fill the memory.
const MAX_KEYS: usize = 100_000;

#[derive(Default)]
struct Cache(HashMap<Vec<u8>, (Vec<u8>, Option<Instant>)>);

impl Cache {
    fn remove_expired(&mut self, now: Instant) {
        self.0.retain(|_, (_, end)| end.is_none_or(|end| now < end));
    }

    /// The entry, unless it has expired.
    fn get(&mut self, key: &[u8], now: Instant) -> Option<&mut (Vec<u8>, Option<Instant>)> {
        if self.0.get(key)?.1.is_some_and(|end| end <= now) {
            self.0.remove(key);
        }
        self.0.get_mut(key)
    }

    fn answer(&mut self, words: &[&[u8]], now: Instant) -> Vec<u8> {
        let in_seconds = |text| Some(now + Duration::from_secs(number(text)?.min(1 << 32)));
        let name = words[0].to_ascii_uppercase();
        match (name.as_slice(), &words[1..]) {
            (b"PING", []) => b"+PONG\r\n".to_vec(),
            (b"PING" | b"ECHO", [text]) => bulk(text),
            (b"GET", [key]) => self.get(key, now).map_or(b"$-1\r\n".to_vec(), |e| bulk(&e.0)),
            (b"SET", [key, value, time @ ..]) => {
                let end = match time {
                    [] => None,
                    [ex, s] if ex.eq_ignore_ascii_case(b"EX") && in_seconds(s).is_some() => in_seconds(s),
                    _ => return b"-ERR syntax error\r\n".to_vec(),
                };
                if self.0.len() >= MAX_KEYS && !self.0.contains_key(*key) {
                    return b"-ERR too many keys\r\n".to_vec();
                }
                self.0.insert(key.to_vec(), (value.to_vec(), end));
                b"+OK\r\n".to_vec()
            }
            (b"DEL", keys @ [_, ..]) => {
                integer(keys.iter().filter(|key| self.get(key, now).is_some() && self.0.remove(**key).is_some()).count())
            }
            (b"EXPIRE", [key, s]) => match (self.get(key, now), in_seconds(s)) {
                (_, None) => b"-ERR value is not an integer\r\n".to_vec(),
                (None, _) => integer(0),
                (Some(entry), end) => {
                    entry.1 = end;
                    integer(1)
                }
            },
            (b"TTL", [key]) => match self.get(key, now) {
                None => b":-2\r\n".to_vec(),
                Some((_, None)) => b":-1\r\n".to_vec(),
                Some((_, Some(end))) => integer((*end - now).as_millis().div_ceil(1000)),
            },
            _ => b"-ERR unknown command or wrong number of arguments\r\n".to_vec(),
        }
    }
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn integer(n: impl std::fmt::Display) -> Vec<u8> {
    format!(":{n}\r\n").into_bytes()
}

fn number<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Takes the words of one command from the front of `rest`. `Ok(None)`: it is not all there yet.
fn command<'a>(rest: &mut &'a [u8]) -> Result<Option<Vec<&'a [u8]>>, &'static str> {
