//! A relay between clients and an echo server: what one side says the other hears, and ends are passed
//! on.

use std::time::Duration;

use tidegate::sim::{ScenarioResult, Sim};
use tidegate::{Connect, Context, Handler, HandlerResult, Input, Listen, Relayed};

use super::echo::{Echo, start_client};
use super::{LIMIT, hostile, patient};

struct Front;

impl Handler for Front {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        let options = patient().high_water(800).output_limit(2_500);
        let back = cx.net.connect(Connect::tcp("server:7").options(options), Relayed)?;
        if !cx.relay(back) {
            // It has failed at once, for want of a descriptor. An orderly end would be a lie.
            cx.abort();
        }
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    hostile(sim)?;
    let options = patient().high_water(1_000);
    sim.host("server", move |net| {
        let listen = Listen::tcp("0.0.0.0:7").options(options.clone());
        net.listen(listen, |_| Echo).map(drop)
    })?;
    let options = patient().high_water(900).output_limit(2_500);
    sim.host("proxy", move |net| {
        let listen = Listen::tcp("0.0.0.0:1080").options(options.clone());
        net.listen(listen, |_| Front).map(drop)
    })?;
    let client = sim.host("client", |net| start_client(net, "proxy:1080"))?;
    sim.run_until(LIMIT, |sim| sim.is_running(client) && sim.state(client).done)?;
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
