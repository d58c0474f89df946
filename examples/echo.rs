//! Sends back whatever arrives, over TCP and UDP on the same port.
//!
//! ```text
//! cargo run --release --example echo [ADDRESS]        (default 127.0.0.1:8888)
//! ```

use tidegate::{Context, Datagram, DatagramHandler, Handler, HandlerResult, Input, Reactor};

struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(input.take_all());
        Ok(())
    }
}

impl DatagramHandler for Echo {
    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        cx.send_to(datagram.from, datagram.bytes);
        Ok(())
    }
}

fn main() {
    env_logger::init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8888".to_owned());
    let mut reactor = Reactor::new().unwrap();
    reactor.net().listen(&address, |_peer| Echo).unwrap();
    reactor.net().bind_udp(&address, Echo).unwrap();
    reactor.run().unwrap();
}
