//! The room in a simulated network: `cargo test --all-features --example chat`.
//!
//! Three visitors talk, one of them over a WebSocket. Whatever the network does, nobody hears a line
//! twice or out of order, and nobody misses one while they are in the room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate::layer::Lines;
use tidegate::layer::websocket::WebSocket;
use tidegate::sim::Fault::{AcceptErrors, Crashes, Descriptors, Resets};
use tidegate::sim::{Faults, Host, Sim, check};
use tidegate::{
    CloseInfo, Connect, Context, Error, Handler, HandlerResult, Input, MessageKind, Net,
    SocketOptions, StreamOptions, Timer,
};

use crate::room::{Form, MAX_LINE, Room};
use crate::{close_room, open, page};

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// The server as `main` makes it, but for TLS, whose randomness the simulation does not decide.
fn start_room(sim: &mut Sim) -> Result<Host<Room>, Error> {
    sim.host("server", move |net| {
        let web = page::server(Some("server".to_owned()));
        open(net, "0.0.0.0:8888", Form::Lines, || Lines::new().line_limit(MAX_LINE))?;
        open(net, "0.0.0.0:8080", Form::Messages, move || web.layer())?;
        Ok(Room::new(net, &Arc::default()))
    })
}

/// How long a visitor waits for a sign of life: longer than any fault of a network takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many lines each visitor says.
const LINES: u32 = 20;

/// What a visitor's host knows. A visitor whose connection ends comes again, as another guest.
#[derive(Default)]
struct Visitor {
    over_web: bool,
    /// Nothing is said before so many are here.
    awaits: usize,
    /// The guests that are here, as the room has told.
    here: usize,
    /// How many lines of each guest this session has heard.
    heard: BTreeMap<String, u32>,
    /// The room has answered behind everything that was said.
    done: bool,
    goodbye: bool,
    /// Whether to come again.
    stays_away: bool,
}

struct Session {
    said: u32,
    /// Those who have left: nothing of them may come any more.
    gone: Vec<String>,
    /// Where each guest's lines have got to.
    last: BTreeMap<String, u32>,
}

impl Handler<Visitor> for Session {
    fn on_open(&mut self, cx: &mut Context<'_, Visitor>) -> HandlerResult {
        cx.state.heard.clear();
        cx.set_timer(ms(20), 0);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Visitor>, _: Timer) -> HandlerResult {
        let mut again = ms(50);
        if cx.state.here < cx.state.awaits {
            cx.send("/who");
        } else if self.said < LINES {
            for _ in 0..4 {
                self.said += 1;
                cx.send(format!("{} bottles of beer.", self.said));
            }
        } else {
            cx.send("/ping end"); // again and again: a server that is gone does not answer
            again = ms(1000);
        }
        cx.set_timer(again, 0);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Visitor>, input: &mut Input<'_>) -> HandlerResult {
        let line = std::str::from_utf8(input.take_all())?;
        assert!(!cx.state.goodbye, "{line:?} after the goodbye");
        if let Some(names) = line.strip_prefix("* Here now: ") {
            cx.state.here = names.split(", ").count();
        } else if line == "* pong end" {
            cx.state.done = true;
        } else if line == "* The room is closing. Goodbye!" {
            cx.state.goodbye = true;
        } else if let Some((name, how)) = line.strip_prefix("* ").and_then(|l| l.split_once(' ')) {
            assert!(!self.gone.iter().any(|gone| gone == name), "{line:?} of somebody who left");
            if how == "has left" {
                self.gone.push(name.to_owned());
            }
        } else if let Some((name, said)) = line.strip_prefix('<').and_then(|l| l.split_once("> ")) {
            assert!(!self.gone.iter().any(|gone| gone == name), "{line:?} of somebody who left");
            // Half a line may be the last one of a guest who was cut off: the room takes what `nc` sends.
            if let Some(number) = said.strip_suffix(" bottles of beer.") {
                let number = number.parse()?;
                let before = self.last.insert(name.to_owned(), number);
                assert!(
                    before.is_none_or(|before| number == before + 1),
                    "{line:?} after {before:?}"
                );
                *cx.state.heard.entry(name.to_owned()).or_default() += 1;
            }
        } else {
            panic!("not a line of the room: {line:?}");
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Visitor>, _: &CloseInfo) {
        if !cx.state.stays_away && !cx.state.goodbye {
            cx.net.run_after(ms(200), |visitor, net| {
                let _ = enter(visitor, net); // refused only while the reactor is being dropped
            });
        }
    }
}

fn enter(visitor: &mut Visitor, net: &mut Net<Visitor>) -> Result<(), Error> {
    visitor.done = false;
    visitor.here = 0;
    let session = Session { said: 0, gone: Vec::new(), last: BTreeMap::new() };
    // A server that is gone without a word is noticed by its silence.
    let options = StreamOptions::new()
        .connect_timeout(PATIENCE)
        .handshake_timeout(PATIENCE)
        .stall_timeout(PATIENCE)
        .idle_timeout(PATIENCE)
        .socket_options(SocketOptions::new().nodelay(true));
    let connect = if visitor.over_web {
        let web = WebSocket::client("server:8080", "/room").default_kind(MessageKind::Text);
        Connect::tcp("server:8080").layer(web.layer())
    } else {
        Connect::tcp("server:8888").layer(Lines::new().refuse_unterminated())
    };
    net.connect(connect.options(options), session).map(drop)
}

fn start_visitor(
    sim: &mut Sim,
    name: &str,
    over_web: bool,
    awaits: usize,
) -> Result<Host<Visitor>, Error> {
    sim.host(name, move |net| {
        let mut visitor = Visitor { over_web, awaits, ..Visitor::default() };
        enter(&mut visitor, net)?;
        Ok(visitor)
    })
}

/// Three visitors, who wait for each other or not.
fn start_visitors(sim: &mut Sim, awaits: usize) -> Result<Vec<Host<Visitor>>, Error> {
    let all = [("ada", false), ("bob", false), ("cleo", true)];
    all.into_iter().map(|(name, over_web)| start_visitor(sim, name, over_web, awaits)).collect()
}

#[test]
fn everybody_hears_each_line_once_and_in_order() {
    check(0..50, |sim| {
        // Slow, late and ragged streams, but none that ends.
        let gentle = [AcceptErrors, Crashes, Descriptors, Resets];
        sim.faults(gentle.into_iter().fold(Faults::swarm(), Faults::without).until(ms(10_000)));
        let server = start_room(sim)?;
        let visitors = start_visitors(sim, 3)?;
        sim.run_until(ms(60_000), |sim| visitors.iter().all(|&v| sim.state(v).done))?;
        // What the others said last may still be on its way to those who are done.
        sim.run_for(ms(20_000))?;
        for &visitor in &visitors {
            let heard: Vec<u32> = sim.state(visitor).heard.values().copied().collect();
            assert_eq!(heard, [LINES, LINES]);
        }
        // Ctrl-C: everybody is told, and the loop ends.
        sim.with(server, |room, net| {
            close_room(room, net);
            net.shutdown(ms(2_000));
        });
        sim.run_until(ms(10_000), |sim| !sim.is_running(server))?;
        sim.settle(ms(60_000))?;
        assert!(visitors.iter().all(|&visitor| sim.state(visitor).goodbye));
        Ok(())
    });
}

#[test]
fn faults_never_mix_up_what_is_heard() {
    check(0..50, |sim| {
        sim.faults(Faults::swarm().until(ms(10_000)));
        let server = start_room(sim)?;
        let mut visitors = start_visitors(sim, 1)?;
        // The sessions check what they hear. When the faults are over, everybody has their say.
        sim.run_for(ms(20_000))?;
        sim.run_until(ms(600_000), |sim| visitors.iter().all(|&v| sim.state(v).done))?;
        // Everybody who was cut off has left the room by now: the newcomer is told of four.
        sim.run_for(ms(30_000))?;
        visitors.push(start_visitor(sim, "dora", false, 1)?);
        sim.run_until(ms(60_000), |sim| sim.state(visitors[3]).done)?;
        assert_eq!(sim.state(visitors[3]).here, 4);
        for &visitor in &visitors {
            sim.with(visitor, |visitor, _| visitor.stays_away = true);
        }
        sim.with(server, |room, net| {
            close_room(room, net);
            net.shutdown(ms(2_000));
        });
        sim.settle(ms(600_000))?;
        Ok(())
    });
}
