//! Sessions of UDP peers: cookies, limits, silence, groups, and an attacker who forges addresses.
//!
//! A client says hello, gets a cookie, returns it with its first question, and asks until it has all its
//! answers; then it falls silent. Its address says who it is, so that whatever reaches the wrong session, or
//! a session that has ended, shows. The server's books are compared with the limits at each callback.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::sim::{Host, Link, ScenarioResult, Sim};
use tidegate::{
    Admission, CloseInfo, CloseReason, Context, Cookies, Datagram, DatagramError, DatagramHandler,
    Deadline, Error, Group, HandlerResult, Hello, Net, Notification, SendStatus, SessionOptions,
    SocketOptions, Timer, Token, Udp,
};

use super::{Dice, LIMIT, hostile, ms, pattern};

const HELLO: [u8; 16] = *b"H hello, hello, ";
const PORT: u16 = 4000;

/// How many sockets a client's host has, each with a port of its own.
const SOCKETS: u16 = 3;
const ANSWERS: u32 = 12;

/// What a server allows.
#[derive(Debug, Clone, Copy)]
struct Limits {
    sessions: usize,
    per_address: usize,
    idle: Duration,
}

/// The server's books: what its sessions have said of themselves.
struct Books {
    limits: Limits,
    live: HashMap<SocketAddr, Token>,
    /// Who may have a cookie.
    genuine: Rc<RefCell<Vec<IpAddr>>>,
    everyone: Group,
    socket: Option<Token>,
    dice: Dice,
    published: u32,
    ticks: bool,
    /// Sessions that were refused a send: they are told when the queue is empty. True: it was at the last
    /// tick.
    waiting: HashMap<Token, bool>,
}

impl Books {
    /// Publishes as long as there are sessions.
    fn tick(&mut self, net: &mut Net<Books>) {
        self.ticks = !self.live.is_empty();
        if !self.ticks {
            return;
        }
        let empty = self.socket.is_some_and(|socket| net.queued(socket) == 0);
        for (token, was_empty) in &mut self.waiting {
            assert!(!(*was_empty && empty), "{token} waits for a queue that is empty");
            *was_empty = empty;
        }
        if let Some(socket) = self.socket.filter(|_| self.dice.percent(10)) {
            let sessions = net.sessions(socket);
            let one = sessions[self.dice.size(0, sessions.len() - 1)];
            for _ in 0..20 {
                if net.send(one, [b'T'; 300]) == SendStatus::Full {
                    self.waiting.entry(one).or_default();
                }
            }
        }
        self.published += 1;
        let mut bytes = vec![b'P'];
        bytes.extend(self.published.to_be_bytes());
        bytes.extend(pattern(self.published.into(), 0, self.dice.size(0, 300)));
        net.publish(self.everyone, bytes);
        if let Some(socket) = self.socket.filter(|_| self.dice.percent(10)) {
            net.clear_queue(socket);
        }
        net.run_after(ms(50), |books: &mut Books, net| books.tick(net));
    }
}

struct Member {
    peer: SocketAddr,
    last: Instant,
    ends: bool,
}

impl Member {
    fn check(&self, cx: &Context<'_, Books>) {
        assert!(!self.ends, "{} hears something after its end", self.peer);
        assert_eq!(cx.state.live.get(&self.peer), Some(&cx.token), "the books differ");
    }

    fn send(&mut self, cx: &mut Context<'_, Books>, bytes: impl AsRef<[u8]>) {
        match cx.send(bytes.as_ref()) {
            SendStatus::Queued => {}
            SendStatus::Full => drop(cx.state.waiting.entry(cx.token).or_default()),
            other => panic!("a session that is open is {other:?}"),
        }
    }
}

impl DatagramHandler<Books> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, Books>) -> HandlerResult {
        let Books { limits, live, genuine, everyone, .. } = cx.state;
        assert_eq!(live.insert(self.peer, cx.token), None, "a second session of {}", self.peer);
        let of_address = live.keys().filter(|peer| peer.ip() == self.peer.ip()).count();
        assert!(live.len() <= limits.sessions, "{} sessions of {limits:?}", live.len());
        assert!(of_address <= limits.per_address, "{of_address} of one address, {limits:?}");
        let port = self.peer.port();
        let known =
            genuine.borrow().contains(&self.peer.ip()) && (PORT..PORT + SOCKETS).contains(&port);
        assert!(known, "{} never had a cookie", self.peer);
        if cx.state.dice.percent(70) {
            assert!(cx.net.join(*everyone, cx.token));
        }
        if !cx.state.ticks {
            cx.state.ticks = true;
            cx.net.run_after(ms(50), |books: &mut Books, net| books.tick(net));
        }
        cx.set_timer(ms(20), 1);
        Ok(())
    }

    fn on_datagram(&mut self, cx: &mut Context<'_, Books>, input: Datagram<'_>) -> HandlerResult {
        self.check(cx);
        self.last = cx.now();
        assert_eq!(input.from, self.peer, "a datagram of another peer");
        if input.bytes[0] == b'H' {
            // It has begun anew, and knows nothing of this session.
            self.ends = true;
            cx.close();
            return Ok(());
        }
        // A cookie with a question is a question that was sent twice.
        let question =
            if input.bytes[0] == b'Q' { input.bytes } else { &input.bytes[Cookies::LEN..] };
        let [b'Q', port_high, port_low, number @ ..] = question else { return Err("what?".into()) };
        let port = u16::from_be_bytes([*port_high, *port_low]);
        assert_eq!(port, self.peer.port(), "a question of another client");
        let mut answer = vec![b'A', *port_high, *port_low];
        answer.extend(number);
        let roll = cx.state.dice.between(0, 99);
        if roll < 3 {
            cx.clear_queue();
        }
        self.send(cx, &answer);
        match roll {
            3..6 => {
                self.ends = true;
                cx.close();
            }
            6..8 => {
                self.ends = true;
                cx.abort();
            }
            8..10 => {
                self.ends = true;
                return Err("enough".into());
            }
            10..14 => {
                // Another one is told to end, or ends.
                let others: Vec<Token> =
                    cx.net.sessions(cx.net.session_socket(cx.token).unwrap()).into();
                let other = others[cx.state.dice.size(0, others.len() - 1)];
                if other != cx.token {
                    cx.net.notify(other, ());
                }
            }
            14..18 => drop(cx.net.leave(cx.state.everyone, cx.token)),
            _ => {}
        }
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Books>) -> HandlerResult {
        self.check(cx);
        cx.state.waiting.remove(&cx.token); // or a message to all was refused for it
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Books>, timer: Timer) -> HandlerResult {
        self.check(cx);
        assert_eq!(timer.tag(), 1);
        self.send(cx, b"T");
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Context<'_, Books>, _: Notification) -> HandlerResult {
        self.check(cx);
        if cx.state.dice.percent(50) {
            self.ends = true;
            cx.close();
        }
        Ok(())
    }

    fn on_error(&mut self, cx: &mut Context<'_, Books>, error: DatagramError) -> HandlerResult {
        self.check(cx);
        assert_eq!(error.peer(), Some(self.peer));
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Books>, closed: &CloseInfo) {
        assert_eq!(cx.state.live.remove(&self.peer), Some(cx.token), "it ends twice");
        assert!(!cx.net.is_member(cx.state.everyone, cx.token));
        cx.state.waiting.remove(&cx.token);
        match &closed.reason {
            CloseReason::TimedOut(Deadline::Idle) => {
                let silent = cx.now() - self.last;
                let idle = cx.state.limits.idle;
                assert!(silent >= idle, "silent for {silent:?}, which is less than {idle:?}");
                assert!(!self.ends);
            }
            CloseReason::Closed | CloseReason::Aborted | CloseReason::Handler(_) => {
                assert!(self.ends, "nobody has ended it: {closed}");
            }
            CloseReason::ReactorDropped => {}
            other => panic!("it ends by {other}"),
        }
    }
}

fn server(
    sim: &mut Sim,
    limits: Limits,
    genuine: &Rc<RefCell<Vec<IpAddr>>>,
    buffer: Option<usize>,
) -> Result<Host<Books>, Error> {
    let genuine = Rc::clone(genuine);
    let seed = sim.seed();
    sim.host("server", move |net| {
        let cookies = Cookies::new(net);
        let options = SessionOptions::new()
            .idle_timeout(limits.idle)
            .max_sessions(limits.sessions)
            .max_per_address(limits.per_address);
        let mut dice = Dice::of(seed, 7);
        let queue = dice.size(600, 6_000);
        let buffer = buffer.map_or(SocketOptions::new(), |n| SocketOptions::new().send_buffer(n));
        let udp = Udp::bind("0.0.0.0:53").queue_limit(queue).socket_options(buffer);
        let admit = move |hello: &Hello<'_>| {
            if cookies.is_valid(hello.from, hello.now, hello.bytes) {
                let member = Member { peer: hello.from, last: hello.now, ends: false };
                Admission::accept(member).skip(Cookies::LEN)
            } else if hello.bytes.len() > Cookies::LEN {
                let mut reply = vec![b'C'];
                reply.extend(cookies.make(hello.from, hello.now));
                Admission::reply(reply)
            } else {
                Admission::ignore()
            }
        };
        let socket = net.bind_sessions(udp, options, admit)?;
        Ok(Books {
            limits,
            live: HashMap::new(),
            genuine: Rc::clone(&genuine),
            everyone: net.create_group(),
            socket: Some(socket),
            dice,
            published: 0,
            ticks: false,
            waiting: HashMap::new(),
        })
    })
}

/// A client's socket.
struct Asks {
    dice: Dice,
    port: u16,
    answered: u32,
    cookie: Option<Vec<u8>>,
    /// How often in a row nothing came.
    silence: u32,
}

impl Asks {
    fn ask(&mut self, cx: &mut Context<'_, Vec<u32>>) {
        let Some(cookie) = &self.cookie else {
            cx.send(HELLO);
            return;
        };
        let mut question = vec![b'Q'];
        question.extend(self.port.to_be_bytes());
        question.extend(self.answered.to_be_bytes());
        let with_cookie = self.silence > 0 || self.answered == 0 || self.dice.percent(10);
        let mut bytes = if with_cookie { cookie.clone() } else { Vec::new() };
        bytes.extend(question);
        cx.send(bytes);
    }
}

impl DatagramHandler<Vec<u32>> for Asks {
    fn on_open(&mut self, cx: &mut Context<'_, Vec<u32>>) -> HandlerResult {
        self.ask(cx);
        cx.set_timer(ms(200), 0);
        Ok(())
    }

    fn on_datagram(
        &mut self,
        cx: &mut Context<'_, Vec<u32>>,
        input: Datagram<'_>,
    ) -> HandlerResult {
        match input.bytes {
            [b'C', cookie @ ..] => {
                assert_eq!(cookie.len(), Cookies::LEN);
                if self.cookie.is_none() {
                    self.cookie = Some(cookie.to_vec());
                    self.ask(cx);
                }
            }
            [b'A', high, low, number @ ..] => {
                assert_eq!(u16::from_be_bytes([*high, *low]), self.port, "another one's answer");
                let number = u32::from_be_bytes(number.try_into()?);
                // A later number answers a question of the process before a crash.
                if number == self.answered && number < ANSWERS {
                    self.silence = 0;
                    self.answered += 1;
                    cx.state[usize::from(self.port - PORT)] = self.answered;
                    if self.answered < ANSWERS && self.dice.percent(50) {
                        self.ask(cx);
                    }
                }
            }
            [b'P', number @ ..] => {
                let (number, rest) = number.split_first_chunk().ok_or("a part of a message")?;
                assert_eq!(rest, pattern(u32::from_be_bytes(*number).into(), 0, rest.len()));
            }
            [b'T', ..] => {}
            other => panic!("what is {other:?}?"),
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Vec<u32>>, _: Timer) -> HandlerResult {
        if self.answered == ANSWERS {
            return Ok(()); // it falls silent
        }
        self.silence += 1;
        if self.silence.is_multiple_of(5) {
            self.cookie = None; // the server may have another key by now
        }
        self.ask(cx);
        let wait = self.dice.between(50, 400);
        cx.set_timer(ms(wait), 0);
        Ok(())
    }

    fn on_error(&mut self, _: &mut Context<'_, Vec<u32>>, _: DatagramError) -> HandlerResult {
        Ok(()) // the timer asks again
    }
}

/// The state is how many answers each socket has.
fn client(sim: &mut Sim, name: &str, stream: u64) -> Result<Host<Vec<u32>>, Error> {
    let seed = sim.seed();
    sim.host(name, move |net| {
        let mut dice = Dice::of(seed, stream);
        for port in PORT..PORT + SOCKETS {
            let asks = Asks { dice: dice.split(), port, answered: 0, cookie: None, silence: 0 };
            net.bind_udp(Udp::bind(("0.0.0.0", port)).connect("server:53"), asks)?;
        }
        Ok(vec![0; usize::from(SOCKETS)])
    })
}

/// The thief's own port.
const OF_THIEF: u16 = 4900;

/// Has a cookie of its own address, and sends it from the addresses of others.
struct Thief {
    cookies: Vec<Vec<u8>>,
}

impl DatagramHandler<Thief> for Asks {
    fn on_open(&mut self, cx: &mut Context<'_, Thief>) -> HandlerResult {
        cx.send(HELLO);
        cx.set_timer(ms(300), 0);
        Ok(())
    }

    fn on_datagram(&mut self, cx: &mut Context<'_, Thief>, input: Datagram<'_>) -> HandlerResult {
        if let [b'C', cookie @ ..] = input.bytes {
            cx.state.cookies.push(cookie.to_vec());
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Thief>, _: Timer) -> HandlerResult {
        self.silence += 1;
        if self.silence < 20 {
            cx.send(HELLO);
            cx.set_timer(ms(300), 0);
        }
        Ok(())
    }

    fn on_error(&mut self, _: &mut Context<'_, Thief>, _: DatagramError) -> HandlerResult {
        Ok(())
    }
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    hostile(sim)?;
    let mut dice = Dice::new(sim, 1);
    if dice.percent(30) {
        let rate = dice.between(3_000, 30_000);
        sim.default_link(Link::new().bytes_per_second(rate).latency(ms(1)..ms(30)))?;
    }
    let limits = Limits {
        sessions: dice.size(2, 8),
        per_address: dice.size(1, 3),
        idle: ms(dice.between(500, 3_000)),
    };
    let genuine = Rc::default();
    // A burst that the system does not take at once: sends are refused, until the queue is empty.
    let mut buffer = None;
    if dice.percent(30) {
        let rate = dice.between(40_000, 100_000);
        sim.default_link(Link::new().bytes_per_second(rate).latency(ms(1)..ms(5)))?;
        buffer = Some(dice.size(300, 1_500));
    }
    let server = server(sim, limits, &genuine, buffer)?;
    let mut clients = Vec::new();
    for (name, stream) in ["ada", "bob", "cleo"].into_iter().zip(2..) {
        clients.push(client(sim, name, stream)?);
        genuine.borrow_mut().push(sim.ip(name)?);
    }
    let thief = sim.host("thief", move |net| {
        let asks = Asks { dice: Dice::of(0, 0), port: 0, answered: 0, cookie: None, silence: 0 };
        net.bind_udp(Udp::bind(("0.0.0.0", OF_THIEF)).connect("server:53"), asks)?;
        Ok(Thief { cookies: Vec::new() })
    })?;
    let eve = sim.peer("eve")?;
    let to = SocketAddr::new(sim.ip("server")?, 53);
    let (of_ada, of_thief) = (sim.ip("ada")?, sim.ip("thief")?);
    for n in 0..60 {
        let roll = dice.next();
        sim.at(ms(100 * n + roll % 100), move |sim| {
            let mut nobody = [0; 4];
            nobody.copy_from_slice(&(0xc633_6400 | (roll >> 8) as u32 & 0xff).to_be_bytes());
            let stolen = sim.try_state(thief).and_then(|thief| thief.cookies.last().cloned());
            let bytes = stolen.filter(|_| roll & 1 == 0).unwrap_or_else(|| HELLO.to_vec());
            // Nobody's address; ada's, from a port that she does not have; the thief's other ports.
            let ip = [IpAddr::from(nobody), of_ada, of_thief][(roll >> 16) as usize % 3];
            // The port that its cookie is for, unless that would be the thief itself.
            let port = match ip != of_thief && roll & 2 == 0 {
                true => OF_THIEF,
                false => 5000 + (roll >> 32) as u16 % 1000,
            };
            let _ = sim.raw(eve).send_datagram(SocketAddr::new(ip, port), to, &bytes);
        });
    }
    sim.run_until(LIMIT, |sim| {
        clients.iter().all(|&client| {
            sim.is_running(client) && sim.state(client).iter().all(|&n| n == ANSWERS)
        })
    })?;
    // All are silent now: their sessions end.
    sim.run_until(LIMIT, |sim| sim.try_state(server).is_some_and(|books| books.live.is_empty()))?;
    sim.with(server, |books, net| {
        let socket = books.socket.unwrap();
        let stats = net.session_stats(socket).unwrap();
        assert_eq!((stats.open, net.sessions(socket)), (0, &[][..]));
        assert_eq!(net.members(books.everyone).len(), 0);
    });
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
