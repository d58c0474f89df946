//! Players who are programs: they move, chat, and check what they are told.

use std::time::{Duration, Instant};

use tidegate::layer::Lines;
use tidegate::stats::Histogram;
use tidegate::{
    Connect, Context, Cookies, Datagram, DatagramHandler, Error, Handler, HandlerResult, Input,
    Net, Timer, Udp,
};

use crate::TICK;
use crate::game::{HEAD, NOBODY, SNAPSHOT, packed, word};

/// How often each bot says something.
const SAYS: Duration = Duration::from_secs(2);

/// What all bots have seen.
#[derive(Default)]
pub(crate) struct Bots {
    pub(crate) playing: u32,
    pub(crate) snapshots: u64,
    /// Snapshots that did not come, or behind a newer one; and datagrams that make no sense.
    pub(crate) lost: u64,
    pub(crate) wrong: u64,
    pub(crate) chatting: u32,
    pub(crate) said: u64,
    pub(crate) heard: u64,
    /// From an input to the first snapshot that knows of it.
    pub(crate) answers: Histogram,
}

/// `players` bots for the game at `game`, and, if there is an address, as many for its chat.
pub(crate) fn start(
    net: &mut Net<Bots>,
    game: &str,
    chat: Option<&str>,
    players: u32,
) -> Result<Bots, Error> {
    for number in 0..players {
        let bot = net.bind_udp(Udp::bind("0.0.0.0:0").connect(game), Bot::default())?;
        // Inputs are spread over the tick, as those of people are.
        net.set_fine_timer(bot, TICK * number / players, 0);
        if let Some(chat) = chat {
            let bot = net.connect(Connect::tcp(chat).layer(Lines::new()), Chatter)?;
            net.set_timer(bot, SAYS + SAYS * number / players, 0);
        }
    }
    Ok(Bots::default())
}

#[derive(Default)]
struct Bot {
    cookie: Option<[u8; Cookies::LEN]>,
    number: u32,
    /// An input that no snapshot has known of yet, and when it was sent.
    unanswered: Option<(u32, Instant)>,
    /// That of the newest snapshot.
    tick: Option<u32>,
}

/// Where a bot is when it sends this input. It is checked in what comes back.
fn position(number: u32) -> [f32; 2] {
    [500.0, 777.0].map(|range| number as f32 % range)
}

impl DatagramHandler<Bots> for Bot {
    fn on_timer(&mut self, cx: &mut Context<'_, Bots>, _: Timer) -> HandlerResult {
        cx.set_fine_timer(TICK, 0);
        self.number += 1;
        // A cookie comes first, until it is in.
        let cookie = self.cookie.iter().filter(|_| self.tick.is_none()).flatten();
        let mut input: Vec<u8> = cookie.copied().chain(self.number.to_be_bytes()).collect();
        input.extend(position(self.number).map(f32::to_be_bytes).as_flattened());
        cx.send(input);
        self.unanswered.get_or_insert((self.number, cx.now()));
        Ok(())
    }

    fn on_datagram(&mut self, cx: &mut Context<'_, Bots>, datagram: Datagram<'_>) -> HandlerResult {
        let (bytes, now, state) = (datagram.bytes, cx.now(), &mut *cx.state);
        if let Ok(cookie) = bytes.try_into() {
            // Also if the game has forgotten this bot, or begins anew. A late one does no harm.
            self.cookie = Some(cookie);
            state.playing -= u32::from(self.tick.take().is_some());
            return Ok(());
        }
        let [tick, newest, place] = [0, 4, 8].map(|at| u32::from_be_bytes(word(bytes, at)));
        let expected = if newest == 0 { NOBODY } else { packed(position(newest)) };
        if bytes.len() != SNAPSHOT || word(bytes, HEAD + 4 * place as usize) != expected {
            state.wrong += 1;
            return Ok(());
        }
        state.snapshots += 1;
        match self.tick {
            Some(before) => state.lost += u64::from(tick.saturating_sub(before + 1)),
            None => state.playing += 1,
        }
        self.tick = self.tick.max(Some(tick));
        if let Some((_, sent)) = self.unanswered.take_if(|(number, _)| *number <= newest) {
            state.answers.record(now - sent);
        }
        Ok(())
    }
}

struct Chatter;

impl Handler<Bots> for Chatter {
    fn on_open(&mut self, cx: &mut Context<'_, Bots>) -> HandlerResult {
        cx.state.chatting += 1;
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Bots>, _: Timer) -> HandlerResult {
        cx.state.said += 1;
        cx.send("Has anybody seen my snapshots?");
        cx.set_timer(SAYS, 0);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Bots>, input: &mut Input<'_>) -> HandlerResult {
        cx.state.heard += u64::from(input.take_all().starts_with(b"<"));
        Ok(())
    }
}
