//! A room: everybody hears every line, each speaker's lines in their order and none twice.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tidegate::layer::Lines;
use tidegate::sim::{ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Connect, Context, Error, Group, Handler, HandlerResult, Input, Listen, Net, Timer,
    Token,
};

use super::{LIMIT, hostile, impatient, ms};

/// The server's state.
pub(crate) struct Room {
    everyone: Group,
}

struct Member;

impl Handler<Room> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, Room>) -> HandlerResult {
        cx.join(cx.state.everyone);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Room>, input: &mut Input<'_>) -> HandlerResult {
        let line = input.take_all();
        // A connection that was cut off may leave half a line, which the layer cannot know.
        if line.ends_with(b" and what it is about") {
            cx.net.publish(cx.state.everyone, line);
        }
        Ok(())
    }
}

/// How many lines each speaker says.
const LINES: u32 = 30;

/// A speaker's state: what it has said over all of its connections, and whether it heard the last line.
#[derive(Default)]
pub(crate) struct Speaker {
    name: &'static str,
    pub(crate) done: bool,
    said: u32,
    /// How many sessions there were. It outlives a crash: two sessions of one number would be taken for
    /// one, whose lines come twice.
    sessions: Rc<Cell<u32>>,
    connection: Option<Token>,
}

struct Session {
    number: u32,
    /// The last line heard of each session of each speaker.
    heard: BTreeMap<String, u32>,
}

impl Session {
    fn say(&self, cx: &mut Context<'_, Speaker>) {
        let name = cx.state.name;
        let session = self.number;
        for _ in 0..3 {
            if cx.state.said < LINES {
                cx.state.said += 1;
                let line = format!("{name}-{session} {} and what it is about", cx.state.said);
                cx.send(line);
            }
        }
        cx.set_timer(ms(40), 0);
    }
}

impl Handler<Speaker> for Session {
    fn on_open(&mut self, cx: &mut Context<'_, Speaker>) -> HandlerResult {
        self.say(cx);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Speaker>, _: Timer) -> HandlerResult {
        self.say(cx);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Speaker>, input: &mut Input<'_>) -> HandlerResult {
        let line = String::from_utf8(input.take_all().to_vec())?;
        let mut words = line.split(' ');
        let who = words.next().unwrap_or_default().to_owned();
        let number: u32 = words.next().unwrap_or_default().parse()?;
        if !line.ends_with(" and what it is about") {
            return Ok(()); // the same, of the server's end
        }
        let own = who == format!("{}-{}", cx.state.name, self.number);
        let before = self.heard.insert(who, number);
        assert!(before.is_none_or(|before| number > before), "{line:?} after line {before:?}");
        if own {
            assert!(before.is_none_or(|before| number == before + 1), "a line was left out");
            if number == LINES {
                cx.state.done = true;
                cx.close();
            }
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Speaker>, _: &CloseInfo) {
        cx.state.connection = None;
        if !cx.state.done {
            cx.net.run_after(ms(100), |state, net| {
                let _ = join(state, net); // refused only while the reactor is being dropped
            });
        }
    }
}

fn join(state: &mut Speaker, net: &mut Net<Speaker>) -> Result<(), Error> {
    state.sessions.set(state.sessions.get() + 1);
    // What an earlier session said may be lost: it is said again.
    state.said = 0;
    let session = Session { number: state.sessions.get(), heard: BTreeMap::new() };
    let connect = Connect::tcp("server:9").options(impatient()).layer(Lines::new());
    state.connection = Some(net.connect(connect, session)?);
    Ok(())
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    hostile(sim)?;
    sim.host("server", |net| {
        let listen = Listen::tcp("[::]:9").options(impatient()).layer(|_| Lines::new());
        net.listen(listen, |_| Member)?;
        Ok(Room { everyone: net.create_group() })
    })?;
    let mut speakers = Vec::new();
    for name in ["ada", "bob", "cleo"] {
        let sessions = Rc::default();
        speakers.push(sim.host(name, move |net| {
            let sessions = Rc::clone(&sessions);
            let mut state = Speaker { name, sessions, ..Speaker::default() };
            join(&mut state, net)?;
            Ok(state)
        })?);
    }
    sim.run_until(LIMIT, |sim| {
        speakers.iter().all(|&speaker| sim.is_running(speaker) && sim.state(speaker).done)
    })?;
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
