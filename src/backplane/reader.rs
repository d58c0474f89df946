//! The second connection to the engine, for names that it keeps: it waits for what is said there, from
//! the last entry on.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::BackplaneEvent;
use super::answers::{
    database_refused, fact, failed, hello, is_for_the_moment, login_refused, refusal,
};
use super::dial::{Control, arrange};
use super::envelope;
use super::plane::Waking;
use super::reading::reader_lost;
use super::slots::moved;
use super::streams::{Id, Newcomer, Next, parse_id, show_id};
use crate::connection::Input;
use crate::context::Context;
use crate::error::{CloseInfo, CloseReason, HandlerResult};
use crate::handler::Handler;
use crate::layer::LayerErrorKind;
use crate::layer::resp::{Command, Value};
use crate::net::Net;
use crate::notification::Notification;
use crate::timers::Timer;

/// Where the second connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// There is none.
    Down,
    /// On its way, or busy with something that takes no time.
    Busy,
    /// It has nothing to do: a notification wakes it.
    Idle,
    /// It waits in the engine, as a client of this number: CLIENT UNBLOCK wakes it.
    Blocked(i64),
}

/// How long a read waits that nobody can wake: what is new has to wait as long.
const SHORT: Duration = Duration::from_millis(50);

/// The notification that there is something to do.
pub(super) struct Poke;

/// What it has asked.
enum Asked {
    Nothing,
    Hello,
    Select,
    Pong,
    History(Newcomer),
    Begin(Box<[u8]>),
    /// Of several names, the first.
    Read(Box<[u8]>),
}

/// The handler of the connection.
pub(super) struct Reader<S> {
    control: Rc<Control<S>>,
    asked: Asked,
    client: i64,
    heard: Instant,
    gave_up: Option<String>,
    /// The last read was refused, and no name was found since that would be the reason.
    doubts: bool,
}

/// Entries as the engine sends them: each an id, and fields with their values.
fn entries<'a, 'm>(value: &'a Value<'m>) -> impl Iterator<Item = (Id, &'m [u8])> + 'a {
    value.as_array().unwrap_or_default().iter().filter_map(|entry| {
        let [id, fields] = entry.as_array()? else { return None };
        let [_, payload, ..] = fields.as_array()? else { return None };
        Some((parse_id(id.as_bytes()?)?, payload.as_bytes()?))
    })
}

impl<S: 'static> Reader<S> {
    pub(super) fn new(control: Rc<Control<S>>, now: Instant) -> Self {
        Reader {
            control,
            asked: Asked::Nothing,
            client: 0,
            heard: now,
            gave_up: None,
            doubts: false,
        }
    }

    /// Asks for what is next.
    fn ask(&mut self, cx: &mut Context<'_, S>) {
        let plane = &mut *self.control.plane.borrow_mut();
        let next = plane.streams.next(cx.net.now());
        let mut words: Vec<Vec<u8>> = Vec::new();
        plane.reading = Reading::Busy;
        self.asked = match next {
            Next::History(newcomer) => {
                let count = newcomer.count.max(1).to_string();
                words.extend([b"XREVRANGE".to_vec(), plane.channel(&newcomer.name)]);
                words.extend(["+", "-", "COUNT", &count].map(Into::into));
                Asked::History(newcomer)
            }
            Next::Begin(name) => {
                words.extend([b"XREVRANGE".to_vec(), plane.channel(&name)]);
                let histories = self.control.histories.borrow();
                let history = histories.iter().find(|history| *history.name == *name);
                let count = history.map_or(1, |history| history.count.max(1)).to_string();
                words.extend(["+", "-", "COUNT", &count].map(Into::into));
                Asked::Begin(name)
            }
            Next::Read(names, count) => {
                let can_be_woken = self.client != 0 && !plane.cannot_unblock;
                let wait = if can_be_woken && !plane.streams.takes_turns() {
                    plane.reading = Reading::Blocked(self.client);
                    plane.waits += 1;
                    if plane.waking == Waking::Done {
                        plane.waking = Waking::Due(0);
                    }
                    // The engine answers twice within the time after which it is given up.
                    self.control.silence / 2
                } else {
                    SHORT
                };
                let (count, wait) = (count.to_string(), wait.as_millis().max(1).to_string());
                words.extend(["XREAD", "COUNT", &count, "BLOCK", &wait, "STREAMS"].map(Into::into));
                words.extend(names.iter().map(|(name, _)| plane.channel(name)));
                words.extend(names.iter().map(|&(_, id)| show_id(id).into()));
                Asked::Read(names[0].0.clone())
            }
            Next::Nothing => {
                plane.reading = Reading::Idle;
                return;
            }
        };
        cx.send(Command::encode(&words));
    }

    fn read(&mut self, cx: &mut Context<'_, S>, value: &Value<'_>) {
        let Value::Map(streams) = value else { return }; // nothing was said
        let mut streams: Vec<_> =
            streams.iter().filter_map(|(key, value)| Some((key.as_bytes()?, value))).collect();
        streams.sort_unstable_by_key(|&(key, _)| key); // a map has no order
        for (key, value) in streams {
            for (id, payload) in entries(value) {
                let arrived = self.control.plane.borrow_mut().read(key, id, payload);
                if let Some(delivery) = arrived {
                    self.control.deliver(&delivery, cx.state, cx.net);
                }
            }
        }
    }

    /// What others have said before this process came, for the program itself.
    fn tell_history(&mut self, cx: &mut Context<'_, S>, name: &[u8], value: &Value<'_>, up_to: Id) {
        let history = {
            let histories = &mut *self.control.histories.borrow_mut();
            let at = histories.iter().position(|history| *history.name == *name);
            at.map(|at| histories.swap_remove(at))
        };
        let Some(history) = history else { return };
        let own = {
            let plane = &mut *self.control.plane.borrow_mut();
            let mut told: Vec<_> = entries(value).filter(|&(id, _)| id <= up_to).collect();
            told.reverse(); // XREVRANGE has the newest first
            plane.in_history(name, told.iter().map(|&(_, payload)| payload));
            plane.publisher()
        };
        let mut told = std::collections::HashSet::new();
        let mut messages: Vec<_> = entries(value)
            .filter(|&(id, _)| id <= up_to)
            .map(|(_, payload)| envelope::open(payload))
            .filter(|arrived| arrived.sent.is_none_or(|sent| sent.0 != own && told.insert(sent)))
            .take(history.count)
            .map(|arrived| arrived.message.bytes)
            .collect();
        messages.reverse();
        (history.then)(&messages, cx.state, cx.net);
    }

    /// What was said up to where the members here are, then what they have been told since; and from then on
    /// the newcomer is one of them. So nothing is missed, and nothing comes twice.
    fn greet(&mut self, cx: &mut Context<'_, S>, newcomer: &Newcomer, value: &Value<'_>) {
        let mut all: Vec<_> = entries(value).collect();
        all.reverse(); // XREVRANGE has the newest first
        let newest = all.last().map_or((0, 0), |&(id, _)| id);
        let unread = {
            let plane = &mut *self.control.plane.borrow_mut();
            let cursor = plane.streams.join(&newcomer.name, newest);
            // What comes behind it comes to all, but for what this process has said itself: that is dropped then,
            // and who was here has heard it.
            all.retain(|&(id, payload)| {
                id <= cursor || plane.was_said_before(&newcomer.name, payload)
            });
            plane.in_history(&newcomer.name, all.iter().map(|&(_, payload)| payload));
            plane.streams.unread(&newcomer.name)
        };
        let mut told = std::collections::HashSet::new();
        for (_, payload) in all {
            let arrived = envelope::open(payload);
            // An entry that was sent again is there twice.
            if newcomer.count > 0 && arrived.sent.is_none_or(|sent| told.insert(sent)) {
                cx.net.send(newcomer.token, arrived.message);
            }
        }
        if newcomer.count > 0 {
            for message in unread {
                cx.net.send(newcomer.token, message);
            }
        }
        join(&self.control, newcomer, cx.net);
    }

    /// Whether the history of a name can be shorter than it was asked for.
    fn ask_for_less_history(&self, name: &[u8]) -> bool {
        let histories = &mut *self.control.histories.borrow_mut();
        let history = histories.iter_mut().find(|history| history.name == name);
        let long = history.filter(|history| history.count > 1);
        long.map(|history| history.count /= 2).is_some()
    }

    /// One entry of a name is longer than any of this service may be.
    fn skip(&self, cx: &mut Context<'_, S>, name: &[u8]) {
        let now = cx.net.now();
        let is_news = self.control.plane.borrow_mut().streams.skip(name, now);
        if is_news {
            self.control.tell(&BackplaneEvent::TooLong { name: name.into() }, cx.state, cx.net);
        }
    }

    fn moved(&mut self, cx: &mut Context<'_, S>, why: &str) {
        let learned = {
            let plane = &mut *self.control.plane.borrow_mut();
            let from = plane.reader_at;
            let host = plane.nodes.get(from).map(|node| node.at.host.clone()).unwrap_or_default();
            let now = cx.net.now();
            moved(why, &host).map(|moved| plane.learn(now, from, moved))
        };
        if let Some(ending) = learned {
            arrange(&self.control, ending, cx.state, cx.net);
        }
    }

    fn answer(&mut self, cx: &mut Context<'_, S>, message: &[u8]) -> HandlerResult {
        let why = refusal(message);
        if let Some(why) = &why
            && why.starts_with("MOVED ")
        {
            self.moved(cx, why);
            // Who waits for a history waits for the next connection, which goes there.
            return Err(failed(format!("the names that are kept are at another node: {why}")));
        }
        match (std::mem::replace(&mut self.asked, Asked::Nothing), why) {
            (Asked::Hello, Some(why)) => return Err(login_refused(&self.control.url, &why)),
            (Asked::Hello, None) => {
                if let Some(Value::Integer(id)) = fact(&Value::parse(message)?, "id") {
                    self.client = *id;
                }
                let database = self.control.url.database;
                if database > 0 {
                    self.asked = Asked::Select;
                    cx.send(Command::encode(&["SELECT", &database.to_string()]));
                    return Ok(());
                }
            }
            (Asked::Select, Some(why)) => {
                return Err(database_refused(self.control.url.database, &why));
            }
            (Asked::History(newcomer), None) => match Value::parse(message) {
                Ok(value) => self.greet(cx, &newcomer, &value),
                Err(error) => {
                    join(&self.control, &newcomer, cx.net);
                    return Err(error.into());
                }
            },
            (Asked::History(newcomer), Some(why)) if is_for_the_moment(&why) => {
                self.asked = Asked::History(newcomer); // the next connection asks again
                return Err(failed(format!("the server refused a history: {why}")));
            }
            (Asked::History(newcomer), Some(why)) => {
                log::warn!("backplane: the server refused a history: {why}");
                join(&self.control, &newcomer, cx.net);
            }
            (Asked::Begin(name), None) => {
                let value = Value::parse(message)?;
                // The newest comes first.
                let id = entries(&value).next().map_or((0, 0), |(id, _)| id);
                let up_to = self.control.plane.borrow_mut().streams.begin(&name, id);
                if let Some(up_to) = up_to {
                    self.tell_history(cx, &name, &value, up_to);
                }
            }
            (Asked::Read(_), None) => {
                self.doubts = false;
                {
                    let plane = &mut *self.control.plane.borrow_mut();
                    plane.reader_failures = 0;
                    plane.streams.could_ask_for_more();
                }
                self.read(cx, &Value::parse(message)?);
            }
            (Asked::Begin(name), Some(why)) if !is_for_the_moment(&why) => {
                self.doubts = false;
                let now = cx.net.now();
                let news = self.control.plane.borrow_mut().streams.refuse(&name, now);
                if news {
                    let why = format!("{:?}: {why}", String::from_utf8_lossy(&name));
                    let event = BackplaneEvent::Refused { command: "XREVRANGE", why };
                    self.control.tell(&event, cx.state, cx.net);
                }
            }
            // One of its names, which is looked for. If it is none of them, the next one ends this.
            (Asked::Read(_), Some(why)) if !is_for_the_moment(&why) && !self.doubts => {
                self.doubts = true;
                self.control.plane.borrow_mut().streams.doubt();
            }
            (Asked::Begin(_) | Asked::Read(_), Some(why)) => {
                return Err(failed(format!("the server refused to read a stream: {why}")));
            }
            (Asked::Select, None) | (Asked::Pong, _) => {}
            (Asked::Nothing, _) => {
                return Err(failed("expected nothing from the server, an answer came".into()));
            }
        }
        self.ask(cx);
        Ok(())
    }
}

/// The end of a newcomer's wait.
pub(super) fn join<S: 'static>(control: &Control<S>, newcomer: &Newcomer, net: &mut Net<S>) {
    control.plane.borrow_mut().streams.greeted(&newcomer.name);
    // They are gone, and perhaps nobody else is there.
    if !join_group(newcomer, net) && !net.is_name_known(&newcomer.name) {
        control.plane.borrow_mut().want(&newcomer.name, false);
    }
}

/// Whether they are there to join.
pub(super) fn join_group<S: 'static>(newcomer: &Newcomer, net: &mut Net<S>) -> bool {
    if !net.is_open(newcomer.token) {
        return false;
    }
    let group = net.group(&newcomer.name);
    net.join(group, newcomer.token)
}

impl<S: 'static> Handler<S> for Reader<S> {
    fn on_open(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.heard = cx.net.now();
        self.asked = Asked::Hello;
        cx.send(hello(&self.control.url));
        cx.set_timer(self.control.silence / 2, 0);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        self.heard = cx.net.now();
        let message = input.take_all();
        if message.first() == Some(&b'>') { Ok(()) } else { self.answer(cx, message) }
    }

    fn on_notify(&mut self, cx: &mut Context<'_, S>, notification: Notification) -> HandlerResult {
        if notification.is::<Poke>() && matches!(self.asked, Asked::Nothing) {
            self.ask(cx);
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, S>, _: Timer) -> HandlerResult {
        let silence = self.control.silence;
        let silent = cx.net.now().saturating_duration_since(self.heard);
        if silent >= silence {
            self.gave_up = Some(format!("the server has said nothing for {silence:?}"));
            cx.abort();
            return Ok(());
        }
        let half = silence / 2;
        if silent >= half && matches!(self.asked, Asked::Nothing) {
            self.asked = Asked::Pong;
            self.control.plane.borrow_mut().reading = Reading::Busy;
            cx.send(Command::encode(&["PING"]));
        }
        cx.set_timer(if silent < half { half - silent } else { silence - silent }, 0);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        let is_too_large = matches!(&closed.reason, CloseReason::Layer(error)
            if error.kind() == LayerErrorKind::TooLarge);
        match std::mem::replace(&mut self.asked, Asked::Nothing) {
            Asked::History(mut newcomer) => {
                if is_too_large {
                    newcomer.count /= 2;
                }
                if is_too_large && newcomer.count == 0 {
                    join(&self.control, &newcomer, cx.net);
                } else {
                    self.control.plane.borrow_mut().streams.greet_first(newcomer);
                }
            }
            Asked::Begin(name) if is_too_large => {
                let can = self.ask_for_less_history(&name);
                if !can {
                    self.skip(cx, &name);
                }
            }
            Asked::Read(name) if is_too_large => {
                let can = self.control.plane.borrow_mut().streams.ask_for_less();
                if !can {
                    self.skip(cx, &name);
                }
            }
            _ => {}
        }
        let why = self.gave_up.take().unwrap_or_else(|| closed.reason.to_string());
        reader_lost(&self.control, why, cx.state, cx.net);
    }
}
