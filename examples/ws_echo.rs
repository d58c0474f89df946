//! Sends back every message, over WebSocket: text as text, binary as binary.

mod support;

use std::process::ExitCode;

use tidegate::layer::websocket::{HttpRequest, Upgrade, WebSocket};
use tidegate::{Context, Handler, HandlerResult, Input, Listen, Message, Reactor, StreamOptions};

const HELP: &str = "ws_echo - sends back every message, over WebSocket

Usage: cargo run --release --features websocket --example ws_echo [ADDRESS] [OPTIONS]
                                                           (default 127.0.0.1:8080)
    --max-message BYTES   the longest message that is taken (default 1048576)
    --deflate             compress messages, with clients that offer it (permessage-deflate)

Try it: open http://127.0.0.1:8080 in a browser, and in the console of that page (pages from
elsewhere may not open a socket here) say
    socket = new WebSocket('ws://127.0.0.1:8080'); socket.onmessage = m => console.log(m.data)
    socket.send('hello')";

struct Echo;

impl Handler for Echo {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        if let (Some(request), Some(upgrade)) =
            (cx.layer_info::<HttpRequest>(), cx.layer_info::<Upgrade>())
        {
            let how = if upgrade.is_compressed() { "compressed" } else { "plain" };
            log::debug!("{} opened {}, {how}", cx.token, request.path());
        }
        Ok(())
    }

    /// One call is one message, whole, however many frames it came in.
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(Message::new(input.kind(), input.take_all()));
        Ok(())
    }
}

fn main() -> ExitCode {
    support::main_with_options(HELP, |arguments| {
        let message_limit = arguments.option("--max-message")?.unwrap_or(1 << 20);
        let deflate = arguments.flag("--deflate");
        let [address] = arguments.rest(["127.0.0.1:8080"])?;

        let server = WebSocket::server().message_limit(message_limit).deflate(deflate);
        // What is sent back has to fit into the queue: a message behind one that is on its way.
        let options =
            StreamOptions::new().output_limit(message_limit.saturating_mul(2).max(4 << 20));
        let listen = Listen::tcp(&*address)
            .options(options)
            .layer(move |_peer| server.layer())
            .on_unopened(|peer, reason, _state| log::info!("{}: {reason}", peer.address()));
        let mut reactor = Reactor::new()?;
        let listener = reactor.net().listen(listen, |_peer| Echo)?;
        for at in reactor.net().local_addrs(listener) {
            support::say(format!("ws_echo: listening on {at}"))?;
        }
        reactor.run()?;
        Ok(())
    })
}
