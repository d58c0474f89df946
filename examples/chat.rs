//! A chat room. Whoever connects is in it; `nc 127.0.0.1 8888` will do for a client.

mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use tidegate::layer::Lines;
use tidegate::{
    Address, CloseReason, Closed, Context, Group, Handler, HandlerResult, Input, Listen, Net,
    Overflow, Peer, Reactor, SocketOptions, StreamOptions,
};

const HELP: &str = "chat - a room for many people, one line of text a message

Usage: cargo run --release --example chat [ADDRESS]        (default 127.0.0.1:8888)

Connect from two terminals with: nc 127.0.0.1 8888
Type /help there for the commands. Ctrl-C here closes the room.";

const COMMANDS: &str = "* /nick NAME  /who  /quit  /help; anything else is said to everybody";

/// The longest line, in bytes. Longer ones cost their sender the connection.
const MAX_LINE: usize = 4096;
/// The longest name, in characters.
const MAX_NAME: usize = 20;

/// What all members share. Every callback gets it as `cx.state`; there is one thread, so that
/// nothing needs a lock.
#[derive(Default)]
struct Room {
    /// The names in use. Their lower-case form is the key, so that Anna and anna can't both be here.
    names: BTreeMap<String, String>,
    guests: u64,
}

impl Room {
    /// Takes `name` for a newcomer or a renamed member, if nobody has it but perhaps themselves.
    fn take_name(&mut self, name: &str, before: &str) -> bool {
        let free = !self.names.contains_key(&name.to_lowercase())
            || name.to_lowercase() == before.to_lowercase();
        if free {
            self.names.remove(&before.to_lowercase());
            self.names.insert(name.to_lowercase(), name.to_owned());
        }
        free
    }

    fn guest_name(&mut self) -> String {
        loop {
            self.guests += 1;
            let name = format!("guest{}", self.guests);
            if self.take_name(&name, "") {
                return name;
            }
        }
    }
}

/// One person in the room: the handler of one connection.
///
/// It is given one line a call, and what it sends becomes one line, because there is the `Lines`
/// layer between it and the socket. It knows nothing of TCP.
struct Member {
    /// The group of all members: what is published to it reaches them all.
    room: Group,
    address: Address,
    /// Empty before they are in the room, and once they have left it.
    name: String,
}

impl Handler<Room> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, Room>) -> HandlerResult {
        self.name = cx.state.guest_name();
        log::info!("{} is {}", self.address, self.name);
        cx.send(format!("* Welcome. You are {}. /help lists the commands.", self.name));
        self.who(cx);
        cx.net.publish(self.room, format!("* {} has joined", self.name));
        cx.net.join(self.room, cx.token()); // after that message, which is for the others
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Room>, input: &mut Input<'_>) -> HandlerResult {
        let line = printable(input.take_all());
        match line.trim() {
            "" => {}
            "/quit" => {
                self.leave(cx, "has left");
                cx.close(); // what was sent before still arrives
            }
            "/who" => self.who(cx),
            "/help" => {
                cx.send(COMMANDS);
            }
            command if command.starts_with('/') => match command.strip_prefix("/nick ") {
                Some(name) => self.rename(cx, name.trim()),
                None => {
                    cx.send(format!("* I do not know {command}. {}", &COMMANDS[2..]));
                }
            },
            text => {
                // Notices begin with a star and what people say with a name: nobody can fake
                // the one with the other.
                let said = format!("<{}> {text}", self.name);
                cx.net.publish_except(self.room, cx.token(), said);
            }
        }
        Ok(())
    }

    /// Called once for everybody, however they left: `/quit`, Ctrl-D, a broken cable. After a
    /// `close` that may be seconds later: the peer is given time to take what was sent and to
    /// close its own side. That is why `/quit` does not leave it to this.
    fn on_close(&mut self, cx: &mut Context<'_, Room>, closed: &Closed) {
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
    /// Tells the others, once, and makes the name free.
    fn leave(&mut self, cx: &mut Context<'_, Room>, how: &str) {
        let name = std::mem::take(&mut self.name);
        if cx.state.names.remove(&name.to_lowercase()).is_some() {
            cx.net.publish_except(self.room, cx.token(), format!("* {name} {how}"));
        }
    }

    fn who(&self, cx: &mut Context<'_, Room>) {
        let names: Vec<&str> = cx.state.names.values().map(String::as_str).collect();
        cx.send(format!("* Here now: {}", names.join(", ")));
    }

    fn rename(&mut self, cx: &mut Context<'_, Room>, name: &str) {
        let length = name.chars().count();
        let well_formed = name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
        if !(1..=MAX_NAME).contains(&length) || !well_formed {
            cx.send(format!(
                "* A name has 1 to {MAX_NAME} letters, digits, dots, hyphens or underscores"
            ));
        } else if cx.state.take_name(name, &self.name) {
            cx.net.publish(self.room, format!("* {} is now {name}", self.name));
            self.name = name.to_owned();
        } else {
            cx.send(format!("* {name} is taken"));
        }
    }
}

/// The text of a line, safe to show on anybody's terminal: control characters could move the
/// cursor, clear the screen or do worse there, and the marks for right-to-left text could make a
/// line read as something else.
fn printable(line: &[u8]) -> String {
    let visible = |c: char| match c {
        '\t' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    String::from_utf8_lossy(line).chars().map(visible).collect()
}

/// Says goodbye to everybody and lets what was said still reach them, for two seconds at most.
fn close_room(net: &mut Net<Room>, room: Group) {
    log::info!("closing the room; Ctrl-C again ends it at once");
    net.publish(room, "* The room is closing. Goodbye!");
    for member in net.members(room).to_vec() {
        net.close(member);
    }
    net.shutdown(Duration::from_secs(2));
}

/// Makes Ctrl-C and SIGTERM close the room. mio can wait for signals as for sockets, with the help
/// of signal-hook; anything else that mio can wait for is registered in the same way.
#[cfg(unix)]
fn close_on_signals(net: &mut Net<Room>, room: Group) -> Result<(), Box<dyn std::error::Error>> {
    use signal_hook_mio::v1_0::Signals;
    use tidegate::mio::Interest;

    let signals = Signals::new([2, 15])?; // SIGINT (that is Ctrl-C) and SIGTERM
    let mut closing = false;
    net.register(signals, Interest::READABLE, move |signals, cx, _ready| {
        for _ in signals.pending() {
            match std::mem::replace(&mut closing, true) {
                false => close_room(cx.net, room),
                true => cx.net.stop(),
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn main() -> ExitCode {
    support::main(HELP, ["127.0.0.1:8888"], |[address]| {
        let mut reactor = Reactor::with_state(Room::default())?;
        let room = reactor.net().create_group();

        // What the room says to a member who does not read waits in that member's own queue, and
        // the others notice nothing. At 256 KiB, some thousands of lines, the member is
        // disconnected: `Overflow::Drop` would keep the connection and leave lines out, and a
        // conversation with holes in it is worse than having to come back.
        let options = StreamOptions::new()
            .output_cap(256 * 1024)
            .overflow(Overflow::Close)
            // Finds out about members whose computer is gone without a word.
            .socket(SocketOptions::new().keepalive(Duration::from_secs(60)));
        let listen = Listen::tcp(&*address)
            .options(options)
            .max_connections(10_000)
            .layer(|_peer| Lines::new().max_line(MAX_LINE));
        // Called for each connection, to make its handler.
        let member = move |peer: &Peer<'_>| {
            let address = peer.address().clone();
            Member { room, address, name: String::new() }
        };
        let listener = reactor.net().listen(listen, member)?;
        for at in reactor.net().local_addrs(listener) {
            println!("chat: listening on {at}");
        }
        #[cfg(unix)]
        close_on_signals(reactor.net(), room)?;

        let report = reactor.run()?;
        match report.connections_cut {
            0 => println!("chat: closed"),
            cut => println!("chat: closed; {cut} did not take our goodbye in time"),
        }
        Ok(())
    })
}
