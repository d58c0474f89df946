//! The room and the people in it: all of the chat but its sockets.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate::stats::{Exposition, ReactorStats};
use tidegate::{
    Address, CloseInfo, CloseReason, Context, Group, Handler, HandlerResult, Input, Net,
};

use crate::elsewhere;
use crate::talk::{self, Past};

const COMMANDS: &str =
    "* /nick NAME  /who  /ping WORD  /stats  /quit  /help; anything else is said to everybody";

/// The longest line, in bytes. Longer ones cost their sender the connection.
pub(crate) const MAX_LINE: usize = 4096;
/// The longest name, in characters.
const MAX_NAME: usize = 20;

/// What all members share. Every callback gets it as `cx.state`. Each worker has one.
pub(crate) struct Room {
    /// The same on all workers, behind a lock that nobody holds for longer than a look.
    people: Arc<Mutex<People>>,
    /// Those on this worker.
    pub(crate) members: Group,
    /// What was said before, if newcomers are shown it.
    pub(crate) past: Option<Past>,
}

impl Room {
    pub(crate) fn new(net: &mut Net<Room>, people: &Arc<Mutex<People>>) -> Room {
        Room { people: Arc::clone(people), members: net.create_group(), past: None }
    }

    fn people(&self) -> MutexGuard<'_, People> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the room is shared with other processes.
    pub(crate) fn share(&self) {
        // A random number: each of these has keys of its own.
        let process = RandomState::new().build_hasher().finish();
        self.people().process = Some(format!("{process:016x}"));
    }

    /// Who is on this process, for the others: its own name, and a line for each; `None` if nobody else
    /// shares the room.
    pub(crate) fn list(&self) -> Option<String> {
        let people = self.people();
        let process = people.process.as_ref()?;
        Some(people.names.values().fold(process.clone(), |list, name| list + "\n" + name))
    }

    /// Takes the list of another process. Whether it is news to the members here: a process that they had
    /// not heard of. Of one that they know each change has come as a notice.
    pub(crate) fn hear(&self, list: &str, now: Instant) -> bool {
        let mut lines = list.lines();
        let Some(process) = lines.next() else { return false };
        let names: Vec<String> = lines.map(|name| printable(name.as_bytes())).collect();
        let is_news = !names.is_empty();
        let known = self.people().elsewhere.insert(process.to_owned(), (names, now));
        known.is_none() && is_news
    }

    /// Forgets processes that have been silent for so long. Whether somebody was on them.
    pub(crate) fn forget(&self, now: Instant, silent: Duration) -> bool {
        let mut gone = false;
        self.people().elsewhere.retain(|_, (names, heard)| {
            let stays = now.saturating_duration_since(*heard) < silent;
            gone |= !stays && !names.is_empty();
            stays
        });
        gone
    }

    /// Forgets them all: what comes from now on is news.
    pub(crate) fn forget_all(&self) {
        self.people().elsewhere.clear();
    }

    /// Everybody in the room, on whichever process.
    pub(crate) fn everybody(&self) -> String {
        let people = self.people();
        let elsewhere = people.elsewhere.values().flat_map(|(names, _)| names);
        let mut names: Vec<&String> = people.names.values().chain(elsewhere).collect();
        names.sort_by_key(|name| name.to_lowercase());
        names.dedup();
        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
        format!("* Here now: {}", names.join(", "))
    }
}

/// Who is here, and who elsewhere.
#[derive(Default)]
pub(crate) struct People {
    /// The names in use. Their lower-case form is the key, so that Anna and anna can't both be here.
    names: BTreeMap<String, String>,
    guests: u64,
    /// How many lines were said to everybody.
    said: u64,
    /// What this process calls itself, if it shares the room with others.
    process: Option<String>,
    /// Who is on the others, and when they said so.
    elsewhere: BTreeMap<String, (Vec<String>, Instant)>,
}

/// The page for Prometheus.
pub(crate) fn figures(room: &mut Room, _: &mut Net<Room>, all: &ReactorStats) -> Exposition {
    let people = room.people();
    let mut page = Exposition::new();
    page.reactor(all);
    page.gauge("chat_members", "People in the room.", people.names.len() as u64);
    page.counter("chat_lines_total", "Lines that were said to everybody.", people.said);
    page
}

impl People {
    /// Takes `name` for a newcomer or a renamed member, if nobody has it but perhaps themselves. (Two who
    /// take one at the same moment on two processes both get it.)
    fn take_name(&mut self, name: &str, before: &str) -> bool {
        let mut elsewhere = self.elsewhere.values().flat_map(|(names, _)| names);
        if elsewhere.any(|taken| taken.to_lowercase() == name.to_lowercase()) {
            return false;
        }
        let free = !self.names.contains_key(&name.to_lowercase())
            || name.to_lowercase() == before.to_lowercase();
        if free {
            self.names.remove(&before.to_lowercase());
            self.names.insert(name.to_lowercase(), name.to_owned());
        }
        free
    }

    /// A name that no other process gives to a guest at the same moment.
    fn guest_name(&mut self) -> String {
        let mark =
            self.process.as_ref().map_or(String::new(), |process| format!("_{}", &process[..6]));
        loop {
            self.guests += 1;
            let name = format!("guest{}{mark}", self.guests);
            if self.take_name(&name, "") {
                return name;
            }
        }
    }
}

/// What a member's messages are made of.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Form {
    /// Lines of a byte stream, which any program may send.
    Lines,
    /// Messages of a WebSocket, whose handshake no other protocol performs by accident.
    Messages,
}

/// One person in the room: the handler of one connection.
///
/// It is given one line a call, and what it sends becomes one line, because there are layers
/// between it and the socket. It knows nothing of TCP, TLS or WebSocket, nor which of them its
/// neighbours use.
pub(crate) struct Member {
    /// `Lines` until the first one has come.
    form: Form,
    address: Address,
    /// Empty before they are in the room, and once they have left it.
    name: String,
}

impl Handler<Room> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, Room>) -> HandlerResult {
        self.name = cx.state.people().guest_name();
        log::info!("{} is {}", self.address, self.name);
        cx.send(format!("* Welcome. You are {}. /help lists the commands.", self.name));
        if let Some(past) = &cx.state.past {
            past.show(cx.net, cx.token);
        }
        self.who(cx);
        self.say(cx, format!("* {} has joined", self.name));
        cx.net.join(cx.state.members, cx.token); // in this call: no line is missed, or comes twice
        elsewhere::announce(cx.state, cx.net);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Room>, input: &mut Input<'_>) -> HandlerResult {
        let line = printable(input.take_all());
        let line = line.trim();
        // A foreign web page can make a browser send a request here, and the lines in its body would
        // be messages of that browser's user.
        if std::mem::replace(&mut self.form, Form::Messages) == Form::Lines && is_http(line) {
            cx.send("* This is a chat for lines of text, not a web server.");
            return Err("expected a line of chat, an HTTP request came".into());
        }
        let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "" => {}
            "/nick" => self.rename(cx, argument.trim()),
            "/who" => self.who(cx),
            "/ping" => {
                // One word: no notice that begins with a name looks like this.
                let word = argument.split_whitespace().next().unwrap_or("?");
                cx.send(format!("* pong {word}"));
            }
            "/stats" => self.stats(cx),
            "/quit" => {
                self.leave(cx, "has left");
                cx.close(); // what was sent before still arrives
            }
            "/help" => {
                cx.send(COMMANDS);
            }
            _ if command.starts_with('/') => {
                cx.send(format!("* I do not know {command}. {}", &COMMANDS[2..]));
            }
            _ => {
                // Notices begin with a star and what people say with a name: nobody can fake
                // the one with the other.
                let said = format!("<{}> {line}", self.name);
                cx.state.people().said += 1;
                self.say(cx, said);
            }
        }
        Ok(())
    }

    /// Called once for everybody, however they left: `/quit`, Ctrl-D, a closed page, a broken
    /// cable. After a `close` that may be seconds later: the peer is given time to take what was
    /// sent and to close its own side. That is why `/quit` does not leave it to this.
    fn on_close(&mut self, cx: &mut Context<'_, Room>, closed: &CloseInfo) {
        let how = match closed.reason {
            CloseReason::LimitExceeded(..) => "could not keep up and was disconnected",
            CloseReason::TimedOut(_) => "does not answer any more and was disconnected",
            _ => "has left",
        };
        log::info!("{}: {closed}", self.address);
        self.leave(cx, how);
    }
}

impl Member {
    pub(crate) fn new(form: Form, address: Address) -> Member {
        Member { form, address, name: String::new() }
    }

    /// To all others.
    fn say(&self, cx: &mut Context<'_, Room>, line: String) {
        talk::say(cx.state, cx.net, cx.token, line);
    }

    /// Tells the others, once, and makes the name free.
    fn leave(&mut self, cx: &mut Context<'_, Room>, how: &str) {
        let name = std::mem::take(&mut self.name);
        let was_here = cx.state.people().names.remove(&name.to_lowercase()).is_some();
        if was_here {
            self.say(cx, format!("* {name} {how}"));
            elsewhere::announce(cx.state, cx.net);
        }
    }

    fn who(&self, cx: &mut Context<'_, Room>) {
        let everybody = cx.state.everybody();
        cx.send(everybody);
    }

    /// Live figures of the server, and of this connection. Members may ask as often as they like: a
    /// question costs each worker one walk over its sockets, which are a thousand at most. The answer comes
    /// when all workers have given theirs.
    fn stats(&self, cx: &mut Context<'_, Room>) {
        let token = cx.token;
        let answer = move |room: &mut Room,
                           net: &mut Net<Room>,
                           answers: Vec<Option<ReactorStats>>| {
            let all = answers.into_iter().flatten().fold(ReactorStats::default(), |a, b| a + b);
            let (here, said) = {
                let people = room.people();
                (people.names.len(), people.said)
            };
            let text = format!(
                "* {here} here, {said} lines said; the server has read {} bytes, written {}, accepted \
                 {} connections, lost {}",
                all.bytes_read,
                all.bytes_written,
                all.accepted,
                all.closed.failed(),
            );
            net.send(token, text);
            // Counted from the first question on: most never ask.
            if let Some(own) = net.connection_stats(token) {
                net.send(token, format!("* You: {own}"));
            } else if let Some(options) = net.options(token).cloned() {
                net.set_options(token, options.statistics(true));
            }
        };
        cx.net.ask_workers(|_room, net| net.stats(), answer);
    }

    fn rename(&mut self, cx: &mut Context<'_, Room>, name: &str) {
        let length = name.chars().count();
        let well_formed = name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
        if !(1..=MAX_NAME).contains(&length) || !well_formed {
            cx.send(format!(
                "* A name has 1 to {MAX_NAME} letters, digits, dots, hyphens or underscores"
            ));
            return;
        }
        let taken = cx.state.people().take_name(name, &self.name);
        if taken {
            let renamed = format!("* {} is now {name}", self.name);
            cx.send(&renamed);
            self.say(cx, renamed);
            self.name = name.to_owned();
            elsewhere::announce(cx.state, cx.net);
        } else {
            cx.send(format!("* {name} is taken"));
        }
    }
}

/// Whether it is the first line of an HTTP request (RFC 9112 section 3).
fn is_http(line: &str) -> bool {
    line.rsplit_once(' ').is_some_and(|(_, version)| version.starts_with("HTTP/"))
}

/// The text of a line, safe to show on anybody's terminal: control characters could move the
/// cursor, clear the screen or do worse there, and the marks for right-to-left text could make a
/// line read as something else. (A page need not care about `<b>`: ours shows text as text.)
pub(crate) fn printable(line: &[u8]) -> String {
    let visible = |c: char| match c {
        '\t' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    String::from_utf8_lossy(line).chars().map(visible).collect()
}
