//! WebSockets with messages of all sizes: many small ones in one read, large ones in many reads, text
//! that is cut in the middle of a character, pings between them. Each message comes back whole, in its
//! order and of its kind, however slowly it is read.

use tidegate::layer::websocket::WebSocket;
use tidegate::layer::{Layer, LayerContext, LayerEnd, LayerError, MessageKind, Step};
use tidegate::sim::{ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Config, Connect, Context, Handler, HandlerResult, Input, Listen, Message, Net,
    SocketOptions, Timer,
};

use super::{Dice, LIMIT, impatient, is_over, pattern, rough, us};
use std::time::Duration;

/// Sends back every message, some of them with a word before them.
struct Echo;

/// What goes before every seventh message.
const WORD: &str = "seven";

impl Handler for Echo {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        let request = cx.layer_info::<tidegate::layer::websocket::HttpRequest>();
        assert!(request.is_some_and(|request| request.path() == "/echo"));
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let kind = input.kind();
        let message = input.take_all();
        if message.len().is_multiple_of(7) {
            cx.send(WORD);
        }
        assert!(cx.send(Message::new(kind, message)).is_accepted());
        Ok(())
    }
}

/// Message `number` of a client, of any size and kind.
fn message(client: u64, number: u64) -> (MessageKind, Vec<u8>) {
    let mut dice = Dice::of(client, number);
    let size = match dice.between(0, 19) {
        0 => dice.size(16_000, 17_000),
        1 => dice.size(20_000, 120_000),
        2..5 => dice.size(0, 5_000),
        _ => dice.size(0, 200),
    };
    if dice.percent(50) {
        return (MessageKind::Binary, pattern(client ^ number, 0, size));
    }
    let letters = ["a", "é", "€", "𝄞", "z"];
    let text: String = (0..size / 3).map(|at| letters[(at + number as usize) % 5]).collect();
    (MessageKind::Text, text.into_bytes())
}

/// What is said before a message: nothing, or a ping.
struct Pings {
    socket: WebSocket,
    every: u64,
    said: u64,
}

impl Layer for Pings {
    fn name(&self) -> &'static str {
        "pings"
    }

    fn start(&mut self, cx: &mut LayerContext<'_>, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        self.socket.start(cx, wire)
    }

    fn is_ready(&self) -> bool {
        self.socket.is_ready()
    }

    fn decode(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        self.socket.decode(cx, wire, unit, reply)
    }

    fn encode(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        self.said += 1;
        if self.said.is_multiple_of(self.every) {
            self.socket.ping(cx, &message[..message.len().min(100)], wire);
        }
        self.socket.encode(cx, message, kind, wire)
    }

    fn end(&mut self, cx: &mut LayerContext<'_>, end: &LayerEnd<'_>, wire: &mut Vec<u8>) {
        self.socket.end(cx, end, wire);
    }

    fn on_time(
        &mut self,
        cx: &mut LayerContext<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        self.socket.on_time(cx, reply)
    }

    fn wire_ended(&mut self, cx: &mut LayerContext<'_>, left: usize) -> Result<(), LayerError> {
        self.socket.wire_ended(cx, left)
    }

    fn holds_input(&self) -> bool {
        self.socket.holds_input()
    }
}

/// How many clients have not had all their messages back.
struct Clients {
    left: usize,
}

/// Sends messages, a few of them ahead, and compares what comes back.
struct Talks {
    client: u64,
    dice: Dice,
    count: u64,
    ahead: u64,
    said: u64,
    heard: u64,
    word_heard: bool,
}

impl Talks {
    fn say(&mut self, cx: &mut Context<'_, Clients>) {
        while self.said < self.count && self.said < self.heard + self.ahead {
            let (kind, bytes) = message(self.client, self.said);
            assert!(cx.send(Message::new(kind, bytes)).is_accepted());
            self.said += 1;
        }
    }
}

impl Handler<Clients> for Talks {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        self.say(cx);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        let (kind, expected) = message(self.client, self.heard);
        let has_word = expected.len().is_multiple_of(7);
        let came = input.take_all();
        if has_word && !std::mem::replace(&mut self.word_heard, true) {
            assert_eq!(came, WORD.as_bytes(), "before message {}", self.heard);
            return Ok(());
        }
        self.word_heard = false;
        assert!(came == expected, "message {} of {} came back otherwise", self.heard, self.client);
        assert_eq!(input.kind(), kind);
        self.heard += 1;
        if self.heard == self.count {
            cx.close();
            return Ok(());
        }
        if self.dice.percent(10) {
            cx.pause();
            cx.set_timer(us(self.dice.between(0, 20_000)), 0);
        }
        self.say(cx);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Clients>, _: Timer) -> HandlerResult {
        cx.resume();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if !is_over(closed) {
            assert_eq!(self.heard, self.count, "{closed}");
            assert!(closed.reason.is_orderly(), "{closed}");
            cx.state.left -= 1;
        }
    }
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    rough(sim, &[])?;
    let seed = sim.seed();
    let mut dice = Dice::of(seed, 0);
    let config =
        Config::new().read_buffer(dice.size(512, 40_000)).messages_per_turn(dice.size(1, 40));
    let options =
        impatient().idle_timeout(None).stall_timeout(LIMIT).high_water(dice.size(500, 90_000));
    // A client reads also while it waits to send: two that wait for each other would wait for ever.
    let of_clients = options.clone().auto_pause(false);
    sim.host_with("server", config, move |net| {
        let server = WebSocket::server().allow_any_origin();
        let listen =
            Listen::tcp("0.0.0.0:80").options(options.clone()).layer(move |_| server.layer());
        net.listen(listen, |_| Echo).map(drop)
    })?;
    let client = sim.host("client", move |net: &mut Net<Clients>| {
        let mut dice = Dice::of(seed, 1);
        let left = dice.size(1, 3);
        for _ in 0..left {
            let talks = Talks {
                client: dice.next(),
                count: dice.between(1, 40),
                ahead: dice.between(1, 20),
                said: 0,
                heard: 0,
                word_heard: false,
                dice: dice.split(),
            };
            let socket = WebSocket::client("server", "/echo").layer();
            let layer = Pings { socket, every: dice.between(1, 30), said: 0 };
            let sockets = SocketOptions::new().receive_buffer(dice.size(2_000, 100_000));
            let options = of_clients.clone().socket_options(sockets);
            net.run_after(us(dice.between(0, 20_000)), move |_, net| {
                // Refused while the reactor is being dropped.
                let connect = Connect::tcp("server:80").options(options).layer(layer);
                let _ = net.connect(connect, talks);
            });
        }
        Ok(Clients { left })
    })?;
    sim.run_until(LIMIT, |sim| sim.state(client).left == 0)?;
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
