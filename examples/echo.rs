//! Sends back whatever arrives, over TCP and UDP on the same port.

mod support;

use std::process::ExitCode;
use tidegate::{Context, Datagram, DatagramHandler, Handler, HandlerResult, Input, Reactor};

const HELP: &str = "echo - sends back whatever arrives, over TCP and UDP on the same port
Usage: cargo run --release --example echo [ADDRESS]        (default 127.0.0.1:8888)
Try it: nc 127.0.0.1 8888, or for UDP nc -u 127.0.0.1 8888";

struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(input.take_all()); // queued if the system takes less; it never blocks
        Ok(())
    }
}

impl DatagramHandler for Echo {
    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        cx.send_to(datagram.from, datagram.bytes);
        Ok(())
    }
}

fn main() -> ExitCode {
    support::main(HELP, ["127.0.0.1:8888"], |[address]| {
        let mut reactor = Reactor::new()?;
        let tcp = reactor.net().listen(&address, |_peer| Echo)?;
        for at in reactor.net().local_addrs(tcp).iter().filter_map(tidegate::Address::socket_addr) {
            reactor.net().bind_udp(at, Echo)?; // a name may have several addresses
            support::say(format!("echo: listening on {at}, TCP and UDP"))?;
        }
        reactor.run()?;
        Ok(())
    })
}
