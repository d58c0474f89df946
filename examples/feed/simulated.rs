//! The relay in a simulated network: `cargo test --all-features --example feed`.
//!
//! Whatever the network does, nobody gets a value behind a newer one of its symbol, and a fast subscriber
//! misses none.

use tidegate::sim::Fault::Crashes;
use tidegate::sim::{Failure, Faults, Host, Link, Sim, check};

use super::*;

/// What a slow subscriber reads in a second, in bytes.
const SPEED: u32 = 20_000;

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

fn start_relay(sim: &mut Sim) -> Result<Host<Relay>, Error> {
    sim.host("relay", |net| {
        open(net, "0.0.0.0:1", "0.0.0.0:2")?;
        Ok(Relay { newest: vec![Vec::new(); MAX_SYMBOLS], reported: net.stats() })
    })
}

fn start_bot(sim: &mut Sim, name: &str, kind: Kind) -> Result<Host<Totals>, Error> {
    sim.host(name, move |net| {
        let address = if matches!(kind, Kind::Publisher) { "relay:1" } else { "relay:2" };
        connect(net, address, kind)?;
        let ages = Histogram::new(3).expect("three digits are possible");
        Ok(Totals { values: 0, missed: 0, out_of_order: 0, ages })
    })
}

/// Publishes for so long; what is left reaches those who read.
fn publish(sim: &mut Sim, publisher: Host<Totals>, time: Duration) -> Result<u64, Failure> {
    sim.run_for(time)?;
    if sim.is_running(publisher) {
        sim.with(publisher, |_, net| net.close_all()); // else a fault has ended its connection
    }
    sim.run_for(ms(30_000))?;
    Ok(sim.state(publisher).values)
}

#[test]
fn a_fast_subscriber_misses_nothing_and_a_slow_one_gets_the_newest() {
    check(0..2, |sim| {
        sim.default_link(Link::new().latency(ms(1)..ms(3)))?;
        let relay = start_relay(sim)?;
        let fast = [start_bot(sim, "ada", Kind::Fast)?, start_bot(sim, "bob", Kind::Fast)?];
        let slow = start_bot(sim, "cleo", Kind::Slow(SPEED))?;
        sim.run_for(ms(100))?; // they are here before the first value
        let publisher = start_bot(sim, "publisher", Kind::Publisher)?;
        let sent = publish(sim, publisher, ms(3_000))?;
        assert!(sent > 50_000, "{sent}");
        for host in fast {
            let Totals { values, missed, out_of_order, ages } = sim.state(host);
            assert_eq!((*values, *missed, *out_of_order), (sent, 0, 0));
            assert!(ages.max() < 20_000, "{} us", ages.max());
        }
        let Totals { values, missed, out_of_order, ages } = sim.state(slow);
        assert_eq!((values + missed, *out_of_order), (sent, 0), "the newest ones have come");
        assert!(*values < sent / 2, "it is slow");
        // One round of all symbols, and what lies in buffers below. That of the simulator's system is
        // 128 KiB: it knows no TCP_NOTSENT_LOWAT.
        let seconds = |bytes: usize| bytes as f64 / f64::from(SPEED);
        let oldest = 1.1 * seconds(SYMBOLS * FRAME) + seconds(130 * 1024);
        assert!((ages.max() as f64) < 1e6 * oldest, "{} us of {oldest} s", ages.max());
        let (failed, replaced) =
            sim.with(relay, |_, net| (net.stats().closed.failed(), net.stats().bytes_queued));
        assert_eq!((failed, replaced), (0, 0));
        // Who comes now gets the newest value of each symbol.
        let late = start_bot(sim, "dora", Kind::Fast)?;
        sim.run_for(ms(1_000))?;
        let Totals { values, missed, .. } = sim.state(late);
        assert_eq!((*values, *missed), (SYMBOLS as u64, 0));
        Ok(())
    });
}

/// Counts whole frames of the greatest length.
struct Count;

impl Handler<Totals> for Count {
    fn on_data(&mut self, cx: &mut Context<'_, Totals>, input: &mut Input<'_>) -> HandlerResult {
        while let Some(frame) = input.take(2 + MAX_FRAME) {
            assert_eq!(frame[..2], (MAX_FRAME as u16).to_be_bytes());
            cx.state.values += 1;
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Totals>, _: &CloseInfo) {
        cx.net.stop();
    }
}

#[test]
fn a_newcomer_to_a_full_book_gets_all_of_it() {
    let value = |symbol: usize| {
        let length = (MAX_FRAME as u16).to_be_bytes();
        [&length[..], &(symbol as u32).to_be_bytes(), &[7; MAX_FRAME - 4]].concat()
    };
    let book: Vec<u8> = (0..MAX_SYMBOLS).flat_map(value).collect();
    check(0..1, |sim| {
        let relay = start_relay(sim)?;
        let publisher = sim.peer("publisher")?;
        sim.raw(publisher).connect("relay:1")?;
        sim.raw(publisher).send(&book);
        let is_full = |relay: &Relay| relay.newest.iter().all(|frame| !frame.is_empty());
        sim.run_until(ms(60_000), |sim| is_full(sim.state(relay)))?;
        let reader = sim.host("reader", |net| {
            net.connect(Connect::tcp("relay:2"), Count)?;
            let ages = Histogram::new(3).expect("three digits are possible");
            Ok(Totals { values: 0, missed: 0, out_of_order: 0, ages })
        })?;
        // All of it changes while it is on its way.
        sim.run_until(ms(60_000), |sim| sim.state(reader).values > 0)?;
        sim.raw(publisher).send(&book);
        sim.run_for(ms(30_000))?;
        assert!(sim.is_running(reader), "its connection has not ended");
        assert_eq!(sim.state(reader).values, 2 * MAX_SYMBOLS as u64);
        Ok(())
    });
}

#[test]
fn a_ragged_network_puts_no_value_behind_a_newer_one() {
    check(0..8, |sim| {
        sim.faults(Faults::swarm().without(Crashes).until(ms(1_000)));
        start_relay(sim)?;
        let readers =
            [start_bot(sim, "fast", Kind::Fast)?, start_bot(sim, "slow", Kind::Slow(SPEED))?];
        let publisher = start_bot(sim, "publisher", Kind::Publisher)?;
        let sent = publish(sim, publisher, ms(1_500))?;
        for host in readers {
            let Totals { values, missed, out_of_order, .. } = sim.state(host);
            assert_eq!(*out_of_order, 0);
            assert!(values + missed <= sent, "{values} and {missed} of {sent}");
        }
        Ok(())
    });
}

#[test]
fn a_malformed_frame_costs_its_sender_the_connection_and_nobody_else() {
    let bad: [&[u8]; 4] = [b"\0\x02ab", b"\0\x04\0\0\x27\x10", b"\xff\xff", b"GET / HTTP/1.1\r\n"];
    check(0..4, |sim| {
        start_relay(sim)?;
        let reader = start_bot(sim, "reader", Kind::Fast)?;
        let publisher = start_bot(sim, "publisher", Kind::Publisher)?;
        sim.run_for(ms(100))?;
        let eve = sim.peer("eve")?;
        sim.raw(eve).connect("relay:1")?;
        let message = bad[sim.seed() as usize % bad.len()];
        sim.raw(eve).send(message);
        sim.run_for(ms(100))?;
        assert!(sim.raw(eve).has_ended());
        let sent = publish(sim, publisher, ms(100))?;
        let Totals { values, missed, out_of_order, .. } = sim.state(reader);
        assert_eq!((*missed, *out_of_order), (0, 0));
        assert!(*values > 0 && *values <= sent);
        Ok(())
    });
}
