//! The game: players, who move, and a chat. It knows no sockets but the tokens of its players.

use std::time::Duration;

use tidegate::layer::Lines;
use tidegate::layer::websocket::WebSocket;
use tidegate::{
    Admission, CloseInfo, Context, Cookies, Datagram, DatagramHandler, Error, Group, Handler,
    HandlerResult, Input, Listen, MessageKind, Net, SessionOptions, Token,
};

/// A snapshot is a datagram that every path carries whole (RFC 9000, section 14): the number of the tick,
/// of the player's newest input, of its own place, and the position of everybody.
pub(crate) const SNAPSHOT: usize = 1200;
pub(crate) const HEAD: usize = 12;
const PLAYERS: usize = (SNAPSHOT - HEAD) / 4;
/// The position of an empty place.
pub(crate) const NOBODY: [u8; 4] = [0x80, 0, 0x80, 0];
/// An input: its number, and where the player is, as two f32 (a real game would check whether it can be
/// there). It is as long as a cookie: a stranger's answer is no longer than what came.
const INPUT: usize = Cookies::LEN;
const AHEAD: u32 = 600; // how far an input's number may be ahead of the newest one: ten seconds

/// What all handlers share, and the loop changes between turns.
pub(crate) struct Game {
    players: Vec<Option<Player>>,
    pub(crate) sockets: [Token; 3],
    /// Everybody who chats, over TCP or a WebSocket.
    pub(crate) chat: Group,
    chatters: u32,
    tick: u32,
}

struct Player {
    session: Token,
    /// The number of its newest input.
    newest: u32,
    position: [u8; 4],
}

/// Four bytes of a datagram; zeros behind its end.
pub(crate) fn word(bytes: &[u8], at: usize) -> [u8; 4] {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk().copied()).unwrap_or_default()
}

/// A position as it is in a snapshot: two i16.
pub(crate) fn packed([x, y]: [f32; 2]) -> [u8; 4] {
    let ([a, b], [c, d]) = ((x as i16).to_be_bytes(), (y as i16).to_be_bytes());
    [a, b, c, d]
}

/// Opens the sockets: for players, for chat lines, for the chat of browsers.
pub(crate) fn open(net: &mut Net<Game>, [players, lines, web]: [&str; 3]) -> Result<Game, Error> {
    // A player's address is proved before anything is kept for it: input, cookie, cookie and input.
    let cookies = Cookies::new(net);
    let options = SessionOptions::new()
        .idle_timeout(Duration::from_secs(5))
        .max_sessions(PLAYERS)
        .max_per_address(PLAYERS); // for bots: they come from one address
    let socket = net.bind_sessions(players, options, move |hello| {
        if cookies.is_valid(hello.from, hello.now, hello.bytes) {
            Admission::accept(Session(0)).skip(Cookies::LEN)
        } else {
            Admission::reply(cookies.make(hello.from, hello.now))
        }
    })?;
    // One room and one handler; what a line looks like on the wire is the layer's concern.
    let lines = Listen::tcp(lines).layer(|_peer| Lines::new().line_limit(1024));
    let server = WebSocket::server().default_kind(MessageKind::Text).message_limit(1024);
    let web = Listen::tcp(web).layer(move |_peer| server.layer());
    let lines = net.listen(lines, |_peer| Chatter(0))?;
    let web = net.listen(web, |_peer| Chatter(0))?;
    let (chat, sockets) = (net.create_group(), [socket, lines, web]);
    Ok(Game { players: Vec::new(), sockets, chat, chatters: 0, tick: 0 })
}

impl Game {
    /// One tick: tells every player where everybody is.
    pub(crate) fn tick(&mut self, net: &mut Net<Game>) {
        self.tick += 1;
        let mut snapshot = [0; SNAPSHOT];
        snapshot[..4].copy_from_slice(&self.tick.to_be_bytes());
        for (place, at) in snapshot[HEAD..].chunks_exact_mut(4).enumerate() {
            let player = self.players.get(place).and_then(Option::as_ref);
            at.copy_from_slice(player.map_or(&NOBODY, |player| &player.position));
        }
        net.clear_queue(self.sockets[0]); // a snapshot that has not left is stale
        for (place, player) in self.players.iter().enumerate() {
            let Some(player) = player else { continue };
            snapshot[4..8].copy_from_slice(&player.newest.to_be_bytes());
            snapshot[8..HEAD].copy_from_slice(&(place as u32).to_be_bytes());
            net.send(player.session, snapshot);
        }
    }
}

/// One player, at its place: the handler of a UDP session.
struct Session(usize);

impl DatagramHandler<Game> for Session {
    fn on_open(&mut self, cx: &mut Context<'_, Game>) -> HandlerResult {
        let players = &mut cx.state.players;
        self.0 = players.iter().position(Option::is_none).unwrap_or(players.len());
        players.resize_with(players.len().max(self.0 + 1), || None);
        players[self.0] = Some(Player { session: cx.token, newest: 0, position: NOBODY });
        cx.net.publish(cx.state.chat, format!("* player {} has joined", self.0));
        Ok(())
    }

    fn on_datagram(&mut self, cx: &mut Context<'_, Game>, datagram: Datagram<'_>) -> HandlerResult {
        // A cookie proves an address and not a datagram: anybody can write a player's address on one. So none
        // ends a session, and none is so new that no own one is newer. The rest is for encryption.
        // It comes behind a cookie, as long as the player has not heard that it is in.
        let known = [INPUT, Cookies::LEN + INPUT].contains(&datagram.bytes.len());
        let Some(input) = datagram.bytes.last_chunk::<INPUT>().filter(|_| known) else {
            return Ok(());
        };
        let number = u32::from_be_bytes(word(input, 0));
        let [x, y] = [4, 8].map(|at| f32::from_be_bytes(word(input, at)));
        let player = cx.state.players[self.0].as_mut();
        // The first one was behind a valid cookie. Of the others some have been overtaken.
        let is_next = |newest| newest == 0 || (1..=AHEAD).contains(&number.wrapping_sub(newest));
        if let Some(player) = player.filter(|player| is_next(player.newest)) {
            player.newest = number;
            player.position = packed([x, y]);
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Game>, closed: &CloseInfo) {
        log::debug!("player {}: {closed}", self.0);
        cx.state.players[self.0] = None;
        cx.net.publish(cx.state.chat, format!("* player {} has left", self.0));
    }
}

/// Somebody who chats, with a number: the handler of a TCP connection, with lines or a WebSocket on it.
struct Chatter(u32);

impl Handler<Game> for Chatter {
    fn on_open(&mut self, cx: &mut Context<'_, Game>) -> HandlerResult {
        cx.state.chatters += 1;
        self.0 = cx.state.chatters;
        let playing = cx.net.sessions(cx.state.sockets[0]).len();
        cx.send(format!("* you are guest {}; {playing} play", self.0));
        cx.join(cx.state.chat);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Game>, input: &mut Input<'_>) -> HandlerResult {
        let said = String::from_utf8_lossy(input.take_all()).replace(char::is_control, "");
        cx.net.publish(cx.state.chat, format!("<{}> {said}", self.0));
        Ok(())
    }
}
