//! Bursts of short connections at a listener with several addresses, a connection limit and a filter,
//! and a shutdown in the middle: everybody who was accepted is served, at the limit nobody is lost, and
//! the counts agree. A listener that is closed makes way at once for another one at its address.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::sim::{ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Config, Connect, Context, Error, Handler, HandlerResult, Input, Listen, Net, Timer,
    Token,
};

use super::{Dice, LIMIT, impatient, is_over, ms, pattern, rough, us};

struct Server {
    /// Peers that passed the filter and have not ended.
    inside: i64,
    most: i64,
}

/// Answers one request, at once or later, and ends.
struct Once {
    dice: Dice,
}

const ANSWER: usize = 300;

impl Handler<Server> for Once {
    fn on_data(&mut self, cx: &mut Context<'_, Server>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        cx.set_timer(us(self.dice.between(0, 5_000)), 0);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Server>, _: Timer) -> HandlerResult {
        cx.send(pattern(3, 0, ANSWER));
        cx.close();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Server>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.inside -= 1;
        assert!(closed.reason.is_orderly(), "{closed}");
    }
}

/// When the shutdown was called.
type Ended = Rc<Cell<Option<Instant>>>;

struct Clients {
    left: usize,
    ended: Ended,
}

struct Visits {
    opened: Option<Instant>,
    heard: Vec<u8>,
}

impl Handler<Clients> for Visits {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        self.opened = Some(cx.now());
        cx.send("?");
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        self.heard.extend(input.take_all());
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        let in_time = match (self.opened, cx.state.ended.get()) {
            (Some(opened), Some(ended)) => opened < ended,
            (_, ended) => ended.is_none(),
        };
        if in_time {
            assert!(closed.reason.is_orderly(), "it was accepted in time: {closed}");
            assert_eq!(self.heard, pattern(3, 0, ANSWER), "it was accepted in time: {closed}");
        }
    }
}

// ---- a listener that is replaced with each visitor ----

/// Ends, and has another listener take the place of its own.
struct Replaces {
    listener: Token,
}

fn listen_anew(net: &mut Net<()>) -> Result<(), Error> {
    let listen = Listen::tcp("0.0.0.0:90")
        .options(impatient())
        .filter(|peer, ()| peer.address().socket_addr().is_none_or(|it| it.port() % 4 != 0));
    net.listen(listen, |peer| Replaces { listener: peer.listener() }).map(drop)
}

impl Handler for Replaces {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        if cx.net.is_open(self.listener) {
            cx.net.close(self.listener);
            listen_anew(cx.net).expect("its address is free when close returns");
        }
        cx.close();
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }
}

/// Comes, and goes as it is told. Who has not been accepted yet is reset; some are refused.
struct Looks;

impl Handler<Clients> for Looks {
    fn on_data(&mut self, _: &mut Context<'_, Clients>, _: &mut Input<'_>) -> HandlerResult {
        Err("nobody says anything".into())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if !is_over(closed) {
            cx.state.left -= 1;
        }
    }
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    rough(sim, &[])?;
    let seed = sim.seed();
    let mut dice = Dice::new(sim, 1);
    // At its limit a listener serves nobody more once it shuts down, so that it is one or the other.
    let limit = dice.percent(50).then(|| dice.size(1, 4));
    let config = Config::new().read_buffer(1024).accepts_per_turn(dice.size(1, 5));
    let two = dice.percent(60);
    let own = dice.split();
    let server = sim.host_with("server", config, move |net| {
        let on = [([0, 0, 0, 0], 80).into(), ([0, 0, 0, 0], 81).into()];
        let on: &[std::net::SocketAddr] = if two { &on } else { &on[..1] };
        let mut listen = Listen::tcp(on)
            .options(impatient().close_timeout(ms(200)))
            .filter(|_, state: &mut Server| {
                state.inside += 1;
                state.most = state.most.max(state.inside);
                true
            })
            .on_unopened(|_, _, state| state.inside -= 1);
        if let Some(limit) = limit {
            listen = listen.connection_limit(limit);
        }
        let mut own = own.clone();
        net.listen(listen, move |_| Once { dice: own.split() })?;
        Ok(Server { inside: 0, most: 0 })
    })?;
    sim.host("moving", listen_anew)?;
    let ended = Ended::default();
    let shared = Rc::clone(&ended);
    let client = sim.host("client", move |net: &mut Net<Clients>| {
        let mut dice = Dice::of(seed, 2);
        let mut left = 0;
        for _ in 0..dice.between(1, 4) {
            let at = us(dice.between(0, 60_000));
            let port = if two && dice.percent(50) { 81 } else { 80 };
            for _ in 0..dice.between(1, 10) {
                left += 1;
                let port = if two && dice.percent(20) { 161 - port } else { port };
                net.run_after(at, move |_, net| {
                    let options = impatient().connect_timeout(LIMIT).idle_timeout(None);
                    let connect = Connect::tcp(("server", port)).options(options);
                    // Refused while the reactor is being dropped.
                    let _ = net.connect(connect, Visits { opened: None, heard: Vec::new() });
                });
            }
        }
        for _ in 0..dice.between(0, 5) {
            left += 1;
            net.run_after(us(dice.between(0, 20_000)), |_, net| {
                let _ = net.connect(Connect::tcp("moving:90").options(impatient()), Looks);
            });
        }
        Ok(Clients { left, ended: Rc::clone(&shared) })
    })?;
    for _ in 0..dice.between(0, 4) {
        let at = us(dice.between(0, 80_000));
        let time = us(dice.between(0, 20_000));
        sim.at(at, move |sim| sim.pause("server", time).expect("it exists"));
    }
    let shuts_down = limit.is_none() && dice.percent(70);
    if shuts_down {
        sim.run_for(us(dice.between(0, 80_000)))?;
        sim.with(server, |_, net| {
            ended.set(Some(net.now()));
            net.shutdown(Duration::from_secs(60));
        });
    }
    sim.run_until(LIMIT, |sim| sim.state(client).left == 0)?;
    sim.settle(Duration::from_secs(3600))?;
    let state = sim.state(server);
    assert_eq!(state.inside, 0, "each peer that passed the filter has one end");
    if let Some(limit) = limit {
        assert!(state.most <= limit as i64, "{} connections above the limit", state.most);
    }
    assert_eq!(sim.is_running(server), !shuts_down, "the loop ends with its last connection");
    Ok(())
}
