//! Rooms over several processes, as one would write it: the path of a WebSocket is its room, and what it says goes to
//! all others in it, here and (through Redis) elsewhere. Every setting is as by default.
//!
//!     backplane_server --addr IP:PORT --redis URL

use std::error::Error;

use tidegate::backplane::Backplane;
use tidegate::layer::websocket::{HttpRequest, WebSocket};
use tidegate::{Context, Handler, HandlerResult, Input, Listen, Message, Reactor};

#[derive(Default)]
struct Talker {
    room: Box<str>,
}

impl Handler for Talker {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.room = cx.layer_info::<HttpRequest>().map_or("/", HttpRequest::path).into();
        let room = cx.net.group(&*self.room);
        cx.join(room);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.publish_named_to_others(&*self.room, Message::text(input.take_all()));
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<_> = std::env::args().collect();
    let value = |name| words.iter().skip_while(|&word| word != name).nth(1);
    let addr = value("--addr").ok_or("expected --addr IP:PORT")?;
    let redis = value("--redis").ok_or("expected --redis URL")?;

    let mut reactor = Reactor::new()?;
    let net = reactor.net();
    Backplane::redis(redis)?.on_event(|event, _state, _net| eprintln!("{event}")).start(net)?;
    let server = WebSocket::server();
    let listen = Listen::tcp(&**addr).layer(move |_peer| server.layer());
    let listener = net.listen(listen, |_peer| Talker::default())?;
    let at = net.local_addr(listener).and_then(|at| at.socket_addr());
    arena::server::ready(at.ok_or("an IP socket has an address")?);
    reactor.run()?;
    Ok(())
}
