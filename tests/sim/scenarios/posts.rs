//! Messages from other threads, closures and those of channels: in bursts, while others are being handled,
//! above the limit. What was taken is done once and in its order, no more waits than the limit says, what
//! ends something is never refused, and the shutdown that was asked for last is the one that counts.
//! Messages that come without end starve nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::sim::{Host, ScenarioResult, Sim};
use tidegate::{
    Channel, CloseInfo, Config, Connect, Context, Datagram, DatagramHandler, Group, Handler,
    HandlerResult, Input, Listen, Net, Notification, PostError, Remote, Timer, Token, Udp,
};

use super::{Dice, LIMIT, impatient, ms, rough, us};

#[derive(Default)]
struct Server {
    /// The numbers of the posted calls, as they were called.
    done: Vec<u32>,
    open: Vec<Token>,
    closed: Vec<Token>,
    notified: u32,
    /// All connections: somebody always has a message for it in the storm.
    crowd: Option<Group>,
    socket: Option<Token>,
    /// What came in the storm.
    rang: bool,
    heard: bool,
}

struct Waits;

impl Handler<Server> for Waits {
    fn on_open(&mut self, cx: &mut Context<'_, Server>) -> HandlerResult {
        cx.state.open.push(cx.token);
        if let Some(crowd) = cx.state.crowd {
            cx.net.join(crowd, cx.token);
        }
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Server>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Context<'_, Server>, it: Notification) -> HandlerResult {
        cx.state.notified += 1;
        let number = it.take::<u32>().map_err(|_| "another type")?;
        cx.send(number.to_be_bytes());
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Server>, _: &CloseInfo) {
        cx.state.closed.push(cx.token);
    }
}

/// Says something now and then.
struct Client {
    left: u32,
}

impl Handler for Client {
    fn on_data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }

    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.set_timer(ms(5), 0);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: Timer) -> HandlerResult {
        cx.send("still here");
        self.left -= 1;
        if self.left > 0 {
            cx.set_timer(ms(7), 0);
        }
        Ok(())
    }
}

/// The port at which the server hears itself.
const OWN: u16 = 9;

struct Hears;

impl DatagramHandler<Server> for Hears {
    fn on_datagram(&mut self, cx: &mut Context<'_, Server>, _: Datagram<'_>) -> HandlerResult {
        cx.state.heard = true;
        Ok(())
    }
}

/// A message that publishes something, and posts itself again until the end of the storm.
fn storm(remote: &Remote<Server>, until: Instant) {
    let again = remote.clone();
    // Refused where the queue is full: there are enough of them then.
    let _ = remote.post(move |state: &mut Server, net: &mut Net<Server>| {
        if net.now() < until {
            if let Some(crowd) = state.crowd {
                net.publish(crowd, ".");
            }
            storm(&again, until);
        }
    });
}

/// While messages come in every turn, and groups always have some, a timer fires, what was sent otherwise
/// leaves, and a socket is read.
fn starves_nobody(sim: &mut Sim, server: Host<Server>) -> ScenarioResult {
    let remote = sim.remote(server);
    sim.with(server, |state, net| {
        let until = net.now() + ms(6);
        for _ in 0..4 {
            storm(&remote, until);
        }
        net.run_after(ms(2), |state: &mut Server, _| state.rang = true);
        net.send_to(state.socket.expect("it is bound"), ([127, 0, 0, 1], OWN).into(), "hello");
    });
    sim.run_for(ms(5))?;
    let Server { rang, heard, .. } = sim.state(server);
    assert!(rang, "messages come all the time, and a timer starves");
    assert!(heard, "messages come all the time, and a socket or what it sends starves");
    Ok(())
}

/// A message of a channel: its number, and what shows whether each is dropped.
#[derive(Debug)]
struct Numbered {
    number: u32,
    _alive: Arc<()>,
}

/// Who posts.
struct Poster {
    remote: Remote<Server>,
    channels: [Channel<Server, Numbered>; 2],
    alive: Arc<()>,
    dice: Dice,
    next: u32,
    /// Those that were taken.
    taken: Vec<u32>,
    /// Connections that were told to end.
    ended: Vec<Token>,
    notified: u32,
}

impl Poster {
    fn numbered(&self, number: u32) -> Numbered {
        Numbered { number, _alive: Arc::clone(&self.alive) }
    }

    /// Typed messages, one by one or all at once.
    fn send(&mut self, channel: &Channel<Server, Numbered>) {
        let numbers = self.next..self.next + self.dice.between(1, 5) as u32;
        self.next = numbers.end;
        if self.dice.percent(50) {
            for number in numbers {
                match channel.send(self.numbered(number)) {
                    Ok(()) => self.taken.push(number),
                    Err(PostError::Full(back)) => assert_eq!(back.number, number),
                    Err(e) => panic!("{e}"),
                }
            }
            return;
        }
        let mut waiting: Vec<_> = numbers.clone().map(|number| self.numbered(number)).collect();
        let sent = channel.send_all(&mut waiting);
        let taken = numbers.start..numbers.end - waiting.len() as u32;
        let back = waiting.iter().map(|message| message.number);
        assert!(back.eq(taken.end..numbers.end), "the rest comes back, in its order");
        match sent {
            Ok(()) => assert!(waiting.is_empty()),
            Err(PostError::Full(())) => assert!(!waiting.is_empty()),
            Err(e) => panic!("{e}"),
        }
        self.taken.extend(taken);
    }

    fn burst(&mut self, most: u64, open: &[Token]) {
        for _ in 0..self.dice.between(1, most) {
            let channel = self.channels.get(self.dice.size(0, 3));
            if let Some(channel) = channel.cloned() {
                self.send(&channel);
                continue;
            }
            let number = self.next;
            self.next += 1;
            let again = self.dice.percent(10).then(|| self.remote.clone());
            let call = move |state: &mut Server, _: &mut Net<Server>| {
                state.done.push(number);
                if let Some(remote) = again {
                    // From inside of the loop, while a batch is handled; its result is not needed.
                    let _ = remote.post(|_: &mut Server, _| {});
                }
            };
            match self.remote.post(call) {
                Ok(()) => self.taken.push(number),
                Err(PostError::Full(_)) => {}
                Err(e) => panic!("{e}"),
            }
        }
        let Some(&token) = open.get(self.dice.size(0, 30)) else { return };
        match self.dice.between(0, 2) {
            0 => {
                self.remote.close(token).expect("what ends something is never refused");
                self.ended.push(token);
            }
            1 => {
                self.remote.abort(token).expect("what ends something is never refused");
                self.ended.push(token);
            }
            _ if self.ended.contains(&token) => {}
            _ => self.notified += u32::from(self.remote.notify(token, 5_u32).is_ok()),
        }
    }
}

/// A channel of numbers.
fn numbers(remote: &Remote<Server>) -> Channel<Server, Numbered> {
    remote.channel(|state: &mut Server, _, message: Numbered| state.done.push(message.number))
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    rough(sim, &[])?;
    let mut dice = Dice::new(sim, 1);
    let limit = dice.size(1, 16);
    let config = Config::new().read_buffer(1024).posts_per_turn(dice.size(1, 4)).post_limit(limit);
    let server = sim.host_with("server", config, |net| {
        let options = impatient().idle_timeout(None).close_timeout(ms(200));
        net.listen(Listen::tcp("0.0.0.0:5").options(options), |_| Waits)?;
        let socket = Some(net.bind_udp(Udp::bind(("0.0.0.0", OWN)), Hears)?);
        Ok(Server { crowd: Some(net.create_group()), socket, ..Server::default() })
    })?;
    let clients = dice.size(0, 6);
    let options = impatient().idle_timeout(None);
    let client = sim.host("client", move |net| {
        for _ in 0..clients {
            net.connect(Connect::tcp("server:5").options(options.clone()), Client { left: 30 })?;
        }
        Ok(())
    })?;
    let remote = sim.remote(server);
    let mut poster = Poster {
        remote: remote.clone(),
        channels: [numbers(&remote), numbers(&remote)],
        alive: Arc::default(),
        dice: dice.split(),
        next: 0,
        taken: Vec::new(),
        ended: Vec::new(),
        notified: 0,
    };
    for _ in 0..dice.between(3, 20) {
        // Bursts between which the loop sleeps, and some that come from turn to turn.
        for _ in 0..dice.between(1, 6) {
            let open = sim.state(server).open.clone();
            sim.with(client, |(), _| poster.burst(6, &open));
            let waiting = poster.taken.len() - sim.state(server).done.len();
            assert!(waiting <= limit, "{waiting} messages wait, of {limit}");
            sim.run_for(Duration::from_nanos(dice.between(100, 3_000)))?;
        }
        sim.run_for(us(dice.between(0, 20_000)))?;
    }
    starves_nobody(sim, server)?;
    // Time enough for all that was taken, and for the ends of connections that close.
    sim.run_for(Duration::from_secs(2))?;
    let state = sim.state(server);
    assert_eq!(state.done, poster.taken, "what was taken is done, once and in its order");
    for token in &poster.ended {
        assert!(state.closed.contains(token), "{token} was told to end and has not");
    }
    assert!(state.notified <= poster.notified, "a notification came twice");
    // The last shutdown counts.
    let shutdown = |sim: &mut Sim, grace| {
        let shutdown = sim.with(client, |(), _| remote.shutdown(grace));
        shutdown.expect("what ends something is never refused");
    };
    shutdown(sim, LIMIT);
    sim.run_for(us(dice.between(0, 2_000)))?;
    if sim.is_running(server) {
        if dice.percent(50) {
            sim.with(client, |(), _| poster.burst(3, &[]));
        }
        shutdown(sim, ms(50));
        sim.run_for(Duration::from_secs(1))?;
    }
    assert!(!sim.is_running(server), "the shutdown is over, and the loop is not");
    let late = poster.channels[0].send(poster.numbered(0));
    assert!(matches!(late, Err(PostError::Ended(_))), "{late:?}");
    drop(late);
    assert_eq!(Arc::strong_count(&poster.alive), 1, "messages that nobody dropped");
    // The clients' connections ended with the server, and so did their timers.
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
