//! A market-data feed in virtual time: 20,000 values a second of 1,000 symbols, in bursts of 500. Fast
//! subscribers miss nothing; for the slow ones (20 KB/s) the age of a value is at most one round of all
//! symbols at their own speed, and a tenth.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::sim::{Link, ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Connect, Context, Group, Handler, HandlerResult, Input, Listen, Net, SocketOptions,
    StreamOptions,
};

use crate::kit::ms;

const SYMBOLS: u64 = 1_000;
const BURST: u64 = 500;
const BURSTS: u64 = 200;
const PERIOD: Duration = Duration::from_millis(25);
/// The bytes of a value.
const LEN: usize = 34;
/// What a slow subscriber reads in a second, in bytes.
const SPEED: u64 = 20_000;
const FAST: usize = if cfg!(debug_assertions) { 20 } else { 195 };
const SLOW: usize = 5;

/// When each number was published.
type Published = Rc<RefCell<Vec<Instant>>>;

struct Exchange {
    feed: Group,
    published: Published,
    bursts: u64,
    /// The most that waited for one subscriber, in values.
    most: usize,
    replaced: u64,
}

struct Member;

impl Handler<Exchange> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, Exchange>) -> HandlerResult {
        cx.join(cx.state.feed);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Exchange>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }

    fn on_close(&mut self, _: &mut Context<'_, Exchange>, closed: &CloseInfo) {
        assert!(closed.reason.is_orderly() && closed.unsent == 0, "{closed}");
    }
}

/// The symbol of a value: in an order that is not the one of the burst before.
fn symbol(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0xffff_ffff
}

fn burst(state: &mut Exchange, net: &mut Net<Exchange>) {
    for &member in &net.members(state.feed).to_vec() {
        let stats = net.newest_stats(member).unwrap_or_default();
        state.most = state.most.max(stats.waiting);
    }
    state.replaced = net.group_stats(state.feed).map_or(0, |stats| stats.replaced);
    if state.bursts == BURSTS {
        return net.close_all();
    }
    state.bursts += 1;
    for _ in 0..BURST {
        let number = state.published.borrow().len() as u64;
        state.published.borrow_mut().push(net.now());
        let key = symbol(number) % SYMBOLS;
        net.publish_latest(state.feed, key, format!("{key:04} {number:028};"));
    }
    net.run_after(PERIOD, burst);
}

#[derive(Default)]
struct Heard {
    numbers: Vec<u64>,
    /// The greatest age of a value when it came.
    oldest: Duration,
    ended: bool,
}

type Reader = (Published, Heard);

struct Reads;

impl Handler<Reader> for Reads {
    fn on_data(&mut self, cx: &mut Context<'_, Reader>, input: &mut Input<'_>) -> HandlerResult {
        let now = cx.now();
        let (published, heard) = &mut *cx.state;
        while let Some(value) = input.take(LEN) {
            let (key, number) =
                std::str::from_utf8(&value[..LEN - 1])?.split_once(' ').ok_or("torn")?;
            let (key, number): (u64, u64) = (key.parse()?, number.parse()?);
            assert_eq!(key, symbol(number) % SYMBOLS);
            heard.numbers.push(number);
            let age = now.saturating_duration_since(published.borrow()[number as usize]);
            heard.oldest = heard.oldest.max(age);
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Reader>, closed: &CloseInfo) {
        assert!(closed.reason.is_orderly(), "{closed}");
        cx.state.1.ended = true;
    }
}

fn feed(sim: &mut Sim) -> ScenarioResult {
    let published = Published::default();
    let of_server = Rc::clone(&published);
    let server = sim.host("exchange", move |net| {
        // The system's buffer holds old values as well: as little of it as keeps the link busy.
        let socket = SocketOptions::new().send_buffer(2_048).not_sent_low_water(2_048);
        net.listen(
            Listen::tcp("0.0.0.0:1").options(StreamOptions::new().socket_options(socket)),
            |_| Member,
        )?;
        // That of the fast ones has to take a burst: as it would with the default of 128 KiB.
        net.listen("0.0.0.0:2", |_| Member)?;
        net.run_after(ms(100), burst);
        let (feed, published) = (net.create_group(), Rc::clone(&of_server));
        Ok(Exchange { feed, published, bursts: 0, most: 0, replaced: 0 })
    })?;
    let mut hosts = Vec::new();
    for n in 0..SLOW + FAST {
        let slow = n < SLOW;
        let name = format!("{}-{n}", if slow { "slow" } else { "fast" });
        let published = Rc::clone(&published);
        let host = sim.host(&name, move |net| {
            net.connect(Connect::tcp(("exchange", if slow { 1 } else { 2 })), Reads)?;
            Ok((Rc::clone(&published), Heard::default()))
        })?;
        if slow {
            sim.link("exchange", &name, Link::new().bytes_per_second(SPEED))?;
        }
        hosts.push((host, slow));
    }
    sim.run_until(Duration::from_secs(60), |sim| {
        hosts.iter().all(|&(host, _)| sim.state(host).1.ended)
    })?;
    let total = BURST * BURSTS;
    let round = Duration::from_secs_f64(SYMBOLS as f64 * LEN as f64 / SPEED as f64);
    let mut ages = Vec::new();
    for &(host, slow) in &hosts {
        let heard = &sim.state(host).1;
        if !slow {
            assert!(heard.numbers.iter().copied().eq(0..total), "a fast one has missed something");
            continue;
        }
        let mut newest = vec![None; SYMBOLS as usize];
        for &number in &heard.numbers {
            let last = &mut newest[(symbol(number) % SYMBOLS) as usize];
            assert!(*last < Some(number));
            *last = Some(number);
        }
        let mut expected = vec![None; SYMBOLS as usize];
        (0..total).for_each(|n| expected[(symbol(n) % SYMBOLS) as usize] = Some(n));
        assert!(newest == expected, "a slow one has not got the newest values");
        assert!(heard.oldest <= round.mul_f64(1.1), "{:?} of {round:?}", heard.oldest);
        ages.push((heard.oldest, heard.numbers.len()));
    }
    let state = sim.state(server);
    assert!(state.most <= SYMBOLS as usize);
    let got: usize = ages.iter().map(|age| age.1).sum();
    assert_eq!(state.replaced, SLOW as u64 * total - got as u64, "what was replaced is counted");
    println!("round {round:?}, ages {ages:?}, most waiting {}", state.most);
    Ok(())
}

#[test]
fn a_slow_subscriber_is_at_most_one_round_behind_and_a_fast_one_misses_nothing() {
    feed(&mut Sim::new(1)).unwrap();
}
