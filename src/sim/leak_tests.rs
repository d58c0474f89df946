//! Nothing of a connection stays in the world behind its end.

use std::time::Duration;

use super::{Faults, Link, Sim};
use crate::{CloseInfo, Connect, Context, Handler, HandlerResult, Input, Net, StreamOptions};

/// How a connection ends.
#[derive(Clone, Copy)]
enum Way {
    Close,
    HalfClose,
    Abort,
    CloseWithUnread,
    Timer,
}

struct Ends(Way);

impl<S: 'static> Handler<S> for Ends {
    fn on_open(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        cx.send([7; 300]);
        match self.0 {
            Way::HalfClose => cx.half_close(),
            Way::Close => cx.close(),
            Way::Abort => cx.abort(),
            Way::CloseWithUnread | Way::Timer => {
                if let Way::CloseWithUnread = self.0 {
                    cx.pause();
                }
                cx.set_timer(Duration::from_millis(3), 0);
            }
        }
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        if let Way::Timer = self.0 {
            cx.close(); // both at about the same time
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, S>, _: crate::Timer) -> HandlerResult {
        cx.close();
        Ok(())
    }
}

struct Clients(Way, usize);

impl Handler<usize> for Clients {
    fn on_open(&mut self, cx: &mut Context<'_, usize>) -> HandlerResult {
        Handler::<usize>::on_open(&mut Ends(self.0), cx)
    }

    fn on_data(&mut self, cx: &mut Context<'_, usize>, input: &mut Input<'_>) -> HandlerResult {
        Ends(self.0).on_data(cx, input)
    }

    fn on_timer(&mut self, cx: &mut Context<'_, usize>, timer: crate::Timer) -> HandlerResult {
        Ends(self.0).on_timer(cx, timer)
    }

    fn on_close(&mut self, cx: &mut Context<'_, usize>, _: &CloseInfo) {
        *cx.state += 1;
        next(cx.net, self.1);
    }
}

const WAYS: [Way; 5] = [Way::Close, Way::HalfClose, Way::Abort, Way::CloseWithUnread, Way::Timer];

fn options() -> StreamOptions {
    StreamOptions::new().idle_timeout(Duration::from_secs(2))
}

/// Connects again, as often as is left.
fn next(net: &mut Net<usize>, left: usize) {
    if left > 0 {
        let to = Connect::tcp("10.0.0.1:7").options(options());
        // Refused while the reactor is being dropped.
        let _ = net.connect(to, Clients(WAYS[left % 5], left - 1));
    }
}

fn run(seed: u64, faults: Faults, connections: usize) {
    let mut sim = Sim::new(seed);
    sim.faults(faults);
    let ms = Duration::from_millis;
    sim.default_link(Link::new().latency(ms(1)..ms(5))).unwrap();
    sim.host("server", |net| {
        let mut count = 0;
        net.listen(crate::Listen::tcp("0.0.0.0:7").options(options()), move |_| {
            count += 1;
            Ends(WAYS[count % 7 % 5])
        })
        .map(drop)
    })
    .unwrap();
    let client = sim
        .host("client", move |net| {
            (0..20).for_each(|_| next(net, connections / 20));
            Ok(0)
        })
        .unwrap();
    sim.run_for(Duration::from_secs(3600)).unwrap();
    sim.settle(Duration::from_secs(7200)).unwrap();
    assert!(sim.is_running(client) && *sim.state(client) > 0);
    let world = sim.world();
    assert_eq!(world.sockets(), 1, "seed {seed}: only the listener is left");
    for host in &world.hosts {
        let (descriptors, kept) = (host.descriptors, host.kept());
        assert!(descriptors <= 1 && kept < 100, "seed {seed}: {descriptors} {kept}");
    }
    let (places, wakes) = world.places_and_wakes();
    assert!(places < 500 && wakes < 200, "seed {seed}: {places} places, {wakes} wakes");
}

#[test]
fn ten_thousand_connections_leave_nothing() {
    run(1, Faults::none(), 10_000);
}

#[test]
fn nor_do_they_in_a_hostile_network() {
    for seed in 0..12 {
        run(seed, Faults::swarm().until(Duration::from_secs(20)), 200);
    }
}
