//! Requests and answers, in every way that a handler may work: at once, later, in pieces as the queue
//! drains, one request for each call; and every way to end. In a rough network each answer arrives
//! whole, in its order, and each end has its true reason.

use std::time::Duration;

use tidegate::sim::{Host, ScenarioResult, Sim};
use tidegate::{
    CloseInfo, CloseReason, Connect, Context, Error, Handler, HandlerResult, Input, Listen, Net,
    Notification, Timer, Token,
};

use super::{Dice, LIMIT, impatient, is_over, ms, pattern, rough, us};

/// What a request asks for.
const BY_TIMER: u8 = 1;
const BY_NOTIFICATION: u8 = 2;
const IN_PIECES: u8 = 3;
/// Without a pause, so that only the last request may be one.
const HELD: u8 = 4;
const THEN_CLOSE: u8 = 5;
const THEN_FAIL: u8 = 6;
/// No answer; so many bytes follow that mean nothing.
const JUNK: u8 = 7;

/// Operation, whether the client may end its side badly, size, number.
const HEAD: usize = 8;

fn request(what: u8, bad: bool, size: u16, number: u32) -> Vec<u8> {
    let mut bytes = vec![what, u8::from(bad)];
    bytes.extend(size.to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes
}

fn answer(number: u32, size: u16) -> Vec<u8> {
    pattern(number.into(), 0, size.into())
}

// ---- the server ----

struct Server {
    dice: Dice,
    /// Tokens of connections that are gone.
    stale: Vec<Token>,
}

/// What a timer or a notification brings.
#[derive(Clone, Copy)]
struct Answer(u32, u16);

struct Serves {
    dice: Dice,
    /// One request for each call; the rest is left.
    one_each: bool,
    skip: usize,
    later: Option<Answer>,
    /// What is sent in pieces, and how much of it was sent.
    pieces: Option<(Answer, usize)>,
    bad: bool,
    failed: bool,
    /// A timer that is moved and cancelled and has no other task.
    spare: Option<Timer>,
}

/// The timer that answers; others do nothing.
const ANSWERS: u64 = 1;

impl Serves {
    fn new(mut dice: Dice) -> Self {
        let one_each = dice.percent(50);
        Serves {
            dice,
            one_each,
            skip: 0,
            later: None,
            pieces: None,
            bad: true, // until the first request says that it is not
            failed: false,
            spare: None,
        }
    }

    fn send_pieces(&mut self, cx: &mut Context<'_, Server>) {
        while let Some((Answer(number, size), sent)) = &mut self.pieces {
            if cx.is_above_high_water() {
                return;
            }
            let len = self.dice.size(1, 700).min(usize::from(*size) - *sent);
            // Refused if its peer has cut it, which it may.
            let status = cx.send(pattern((*number).into(), *sent, len));
            assert!(status.is_accepted() || self.bad, "{status:?}");
            *sent += len;
            if *sent == usize::from(*size) {
                self.pieces = None;
            }
        }
    }

    fn serve(&mut self, cx: &mut Context<'_, Server>, head: &[u8]) -> HandlerResult {
        let size = u16::from_be_bytes([head[2], head[3]]);
        let number = u32::from_be_bytes(head[4..].try_into()?);
        let it = Answer(number, size);
        self.bad = head[1] != 0;
        let wait = us(self.dice.between(0, 40_000));
        match head[0] {
            BY_TIMER => {
                self.later = Some(it);
                cx.pause();
                cx.set_timer(wait, ANSWERS);
            }
            BY_NOTIFICATION => {
                self.later = Some(it);
                cx.pause();
                assert!(cx.net.notify(cx.token, it));
            }
            IN_PIECES => {
                self.pieces = Some((it, 0));
                self.send_pieces(cx);
            }
            HELD => {
                assert!(cx.hold());
                self.later = Some(it);
                cx.set_timer(wait, ANSWERS);
            }
            JUNK => self.skip = size.into(),
            what => {
                let status = cx.send(answer(number, size));
                assert!(status.is_accepted() || self.bad, "{status:?}");
                if what == THEN_CLOSE {
                    cx.close();
                } else if what == THEN_FAIL {
                    self.failed = true;
                    return Err("this request is refused".into());
                }
            }
        }
        Ok(())
    }

    fn answer_now(&mut self, cx: &mut Context<'_, Server>) {
        let Some(Answer(number, size)) = self.later.take() else { return };
        let status = cx.send(answer(number, size));
        assert!(status.is_accepted() || self.bad, "{status:?}");
        cx.release();
        cx.resume();
    }

    /// Sets, moves and cancels; that a timer is not early the simulation sees.
    fn play_with_timers(&mut self, cx: &mut Context<'_, Server>) {
        let wait = us(self.dice.between(0, 5_000));
        match self.spare {
            Some(timer) if self.dice.percent(60) => {
                if !cx.rearm_timer(timer, wait) {
                    self.spare = None;
                }
            }
            Some(timer) => {
                cx.cancel_timer(timer);
                self.spare = None;
            }
            None => self.spare = Some(cx.set_timer(wait, 0)),
        }
    }
}

/// A token of the past is refused by everything.
fn try_a_stale_token(cx: &mut Context<'_, Server>) {
    let count = cx.state.stale.len();
    if count == 0 {
        return;
    }
    let token = cx.state.stale[cx.state.dice.size(0, count - 1)];
    assert!(!cx.net.is_open(token), "{token} is gone and open");
    assert!(!cx.net.send(token, "for nobody").is_accepted(), "{token} is gone and took a message");
    assert!(!cx.net.notify(token, ()), "{token} is gone and took a notification");
    cx.net.pause(token);
    cx.net.half_close(token);
    cx.net.close(token);
}

impl Handler<Server> for Serves {
    fn on_data(&mut self, cx: &mut Context<'_, Server>, input: &mut Input<'_>) -> HandlerResult {
        try_a_stale_token(cx);
        self.play_with_timers(cx);
        loop {
            self.send_pieces(cx);
            if self.later.is_some() || cx.is_above_high_water() {
                return Ok(()); // what is left comes again when the pause is over, or the queue drained
            }
            let junk = self.skip.min(input.len());
            input.advance(junk);
            self.skip -= junk;
            let Some(head) = input.take(HEAD) else { return Ok(()) };
            self.serve(cx, head)?;
            if self.one_each || !cx.is_open() {
                return Ok(());
            }
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Server>) -> HandlerResult {
        self.send_pieces(cx);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Server>, timer: Timer) -> HandlerResult {
        if timer.tag() == ANSWERS {
            self.answer_now(cx);
        } else {
            self.spare = None;
        }
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Context<'_, Server>, _: Notification) -> HandlerResult {
        self.answer_now(cx);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Server>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        if cx.state.stale.len() < 16 {
            cx.state.stale.push(cx.token);
        }
        if self.failed {
            assert!(
                matches!(closed.reason, CloseReason::Handler(_)),
                "an error of the handler began the close, and its reason is {closed}"
            );
        } else if !self.bad {
            assert!(closed.reason.is_orderly(), "nobody ended this one badly, but: {closed}");
        }
        if !self.bad {
            assert_eq!(closed.unsent, 0, "{closed}");
        }
    }
}

// ---- the clients ----

/// How a client ends.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It ends its side behind its last request, and hears all the answers.
    Ends,
    /// The server ends, and the client goes on sending.
    IsLeft,
    /// It aborts at some time.
    Aborts,
    /// It asks for much and reads nothing, until it aborts.
    IsDeaf,
}

#[derive(Default)]
struct Clients {
    left: usize,
}

struct Asks {
    dice: Dice,
    fate: Fate,
    requests: u32,
    asked: u32,
    expected: Vec<u8>,
    heard: usize,
    ended: bool,
    pauses: u32,
}

const PAUSE_OVER: u64 = 1;
const MORE_JUNK: u64 = 2;
const ABORT: u64 = 3;

impl Asks {
    fn new(mut dice: Dice) -> Self {
        let fate = match dice.between(0, 9) {
            0..5 => Fate::Ends,
            5..8 => Fate::IsLeft,
            8 => Fate::Aborts,
            _ => Fate::IsDeaf,
        };
        let requests = dice.between(1, 12) as u32;
        let expected = Vec::new();
        Asks { dice, fate, requests, asked: 0, expected, heard: 0, ended: false, pauses: 0 }
    }

    fn next_request(&mut self) -> Vec<u8> {
        self.asked += 1;
        let last = self.asked == self.requests;
        let (mut what, mut size) = (self.dice.between(0, 3) as u8, self.dice.between(1, 300));
        if last {
            what = match self.fate {
                Fate::Ends if self.dice.percent(30) => HELD,
                Fate::Ends | Fate::Aborts => what,
                Fate::IsLeft | Fate::IsDeaf if self.dice.percent(50) => THEN_CLOSE,
                Fate::IsLeft | Fate::IsDeaf => THEN_FAIL,
            };
        }
        if last && self.fate == Fate::IsDeaf {
            size = 20_000;
        } else if what == IN_PIECES || last {
            size = self.dice.between(1, 2_500);
        }
        let bad = matches!(self.fate, Fate::Aborts | Fate::IsDeaf);
        let (size, number) = (size as u16, self.dice.next() as u32);
        self.expected.extend(answer(number, size));
        request(what, bad, size, number)
    }

    /// Some requests, as one piece or in several ones.
    fn ask(&mut self, cx: &mut Context<'_, Clients>) {
        let mut some = self.dice.between(1, 5);
        while some > 0 && self.asked < self.requests {
            some -= 1;
            let mut bytes = self.next_request();
            while self.asked < self.requests && self.dice.percent(60) {
                bytes.extend(self.next_request());
            }
            cx.send(bytes);
        }
        if self.asked < self.requests {
            return;
        }
        match self.fate {
            Fate::Ends => cx.half_close(),
            Fate::IsLeft => drop(cx.set_timer(ms(20), MORE_JUNK)),
            Fate::IsDeaf => {
                cx.pause();
                cx.set_timer(Duration::from_secs(10), ABORT);
            }
            Fate::Aborts => {}
        }
    }
}

impl Handler<Clients> for Asks {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        self.ask(cx);
        if self.fate == Fate::Aborts {
            cx.set_timer(us(self.dice.between(0, 20_000)), ABORT);
        }
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        let bytes = input.take_all();
        let expected = self.expected.get(self.heard..self.heard + bytes.len());
        assert!(expected == Some(bytes), "wrong bytes behind {} of the answers", self.heard);
        self.heard += bytes.len();
        if self.pauses < 5 && self.dice.percent(10) {
            self.pauses += 1;
            cx.pause();
            let long = self.pauses == 1 && self.dice.percent(30);
            let time = if long { 1_500 } else { self.dice.between(0, 60) };
            cx.set_timer(ms(time), PAUSE_OVER);
        }
        let is_behind = self.heard < self.expected.len();
        if self.asked < self.requests && (self.dice.percent(50) || !is_behind) {
            self.ask(cx);
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Clients>, timer: Timer) -> HandlerResult {
        match timer.tag() {
            PAUSE_OVER if self.fate != Fate::IsDeaf || self.asked < self.requests => cx.resume(),
            MORE_JUNK => {
                let size = self.dice.between(0, 20) as u16;
                if !self.ended && cx.queued() == 0 {
                    let mut junk = request(JUNK, false, size, 0);
                    junk.resize(HEAD + usize::from(size), 0);
                    cx.send(junk);
                }
                cx.set_timer(ms(20), MORE_JUNK);
            }
            ABORT => cx.abort(),
            _ => {}
        }
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        self.ended = true;
        cx.close();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        if matches!(self.fate, Fate::Ends | Fate::IsLeft) {
            let (heard, expected) = (self.heard, self.expected.len());
            assert!(closed.reason.is_orderly(), "heard {heard} of {expected} bytes: {closed}");
            assert!(self.ended && heard == expected, "heard {heard} of {expected} bytes: {closed}");
        }
    }
}

fn client_host(sim: &mut Sim, name: &str, stream: u64) -> Result<Host<Clients>, Error> {
    let seed = sim.seed();
    sim.host(name, move |net: &mut Net<Clients>| {
        let mut dice = Dice::of(seed, stream);
        let left = dice.size(1, 5);
        for _ in 0..left {
            let client = Asks::new(dice.split());
            net.run_after(ms(dice.between(0, 60)), |_, net| {
                // Refused while the reactor is being dropped.
                let options = impatient().idle_timeout(None).stall_timeout(LIMIT).auto_pause(false);
                let _ = net.connect(Connect::tcp("server:80").options(options), client);
            });
        }
        Ok(Clients { left })
    })
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    rough(sim, &[])?;
    let mut dice = Dice::new(sim, 1);
    let high = dice.size(50, 1_500);
    let options = impatient()
        .idle_timeout(None)
        .high_water(high)
        .low_water(dice.size(0, high / 2))
        .close_timeout(ms(dice.between(300, 900)));
    let server = sim.host("server", move |net| {
        let listen = Listen::tcp("0.0.0.0:80").options(options.clone());
        let mut connections = dice.clone();
        net.listen(listen, move |_| Serves::new(connections.split()))?;
        Ok(Server { dice: dice.clone(), stale: Vec::new() })
    })?;
    let clients = [client_host(sim, "ada", 2)?, client_host(sim, "bob", 3)?];
    sim.run_until(LIMIT, |sim| clients.iter().all(|&host| sim.state(host).left == 0))?;
    sim.settle(Duration::from_secs(3600))?;
    let open = sim.with(server, |_, net| net.connection_count());
    assert_eq!(open, 0, "connections of the server whose peers are gone");
    Ok(())
}
