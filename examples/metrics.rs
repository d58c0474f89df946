//! An echo that says how it is doing: `GET /metrics` for Prometheus, from the same reactor.
//!
//! `support/metrics.rs` is the HTTP side of it, `chat --metrics ADDRESS` another user of that.

mod support;

use std::process::ExitCode;
use std::time::Duration;
use tidegate::stats::{Exposition, ReactorStats};
use tidegate::{Config, Context, Handler, HandlerResult, Input, Net, Reactor};

const HELP: &str = "metrics - an echo with figures for Prometheus
Usage: cargo run --release --features histograms --example metrics [ADDRESS [METRICS]]
       (default 127.0.0.1:8888 and 127.0.0.1:9464)
Try it: nc 127.0.0.1 8888, and curl http://127.0.0.1:9464/metrics
For Prometheus: scrape_configs: [{job_name: echo, static_configs: [{targets: ['127.0.0.1:9464']}]}]";

/// What the handlers count themselves.
#[derive(Default)]
struct Shared {
    lines: u64,
}

struct Echo;

impl Handler<Shared> for Echo {
    fn on_data(&mut self, cx: &mut Context<'_, Shared>, input: &mut Input<'_>) -> HandlerResult {
        cx.state.lines += input.iter().filter(|&&byte| byte == b'\n').count() as u64;
        cx.send(input.take_all());
        Ok(())
    }
}

/// The page: the reactor's figures, where its time went since the last scrape, and our own.
fn page(state: &mut Shared, net: &mut Net<Shared>, all: &ReactorStats) -> Exposition {
    let mut page = Exposition::new();
    page.reactor(all);
    if let Some(latency) = net.take_latency() {
        page.latency(&latency);
    }
    page.counter("echo_lines_total", "Lines that were sent back.", state.lines);
    page
}

fn main() -> ExitCode {
    support::main(HELP, ["127.0.0.1:8888", "127.0.0.1:9464"], |[address, metrics]| {
        let config = Config::new()
            .measure(true) // histograms; some 100 ns for each callback
            .slow_callback(Duration::from_millis(10)); // a warning in the log, with the handler's name
        let mut reactor = Reactor::build(config, |_| Ok(Shared::default()))?;
        let net = reactor.net();
        let echo = net.listen(&address, |_peer| Echo)?;
        let scraped = support::metrics::listen(net, &metrics, page)?;
        for at in net.local_addrs(echo) {
            support::say(format!("metrics: listening on {at}, the echo"))?;
        }
        for at in net.local_addrs(scraped) {
            support::say(format!("metrics: listening on {at}, http://{at}/metrics"))?;
        }
        reactor.run()?;
        Ok(())
    })
}
