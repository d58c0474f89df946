//! Sends back whatever arrives, over TLS. The handler is that of `echo`: it knows nothing of TLS.

mod support;

use std::process::ExitCode;

use tidegate::layer::tls::TlsInfo;
use tidegate::{Context, Handler, HandlerResult, Input, Listen, Reactor};

const HELP: &str = "tls_echo - sends back whatever arrives, over TLS

Usage: cargo run --release --features tls --example tls_echo [ADDRESS] [OPTIONS]
                                                           (default 127.0.0.1:8889)
    --cert FILE   the certificate chain, PEM; with none, a self-signed one is made at the start
    --key FILE    its private key, PEM

Try it: openssl s_client -quiet -connect 127.0.0.1:8889";

struct Echo;

impl Handler for Echo {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        // What the layer has learned. A plain connection has no such fact.
        if let (Some(tls), Some(peer)) = (cx.layer_info::<TlsInfo>(), cx.peer_addr()) {
            log::info!("{peer} speaks {} ({})", tls.version(), tls.cipher_suite());
        }
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(input.take_all());
        Ok(())
    }
}

fn main() -> ExitCode {
    support::main_with_options(HELP, |arguments| {
        let config = support::certificate::from_arguments(arguments)?.build()?;
        let [address] = arguments.rest(["127.0.0.1:8889"])?;
        let listen = Listen::tcp(&*address)
            .layer(move |_peer| config.layer())
            // A peer whose handshake fails gets no handler. This hook is called for it.
            .on_unopened(|peer, reason, _state| log::info!("{}: {reason}", peer.address()));
        let mut reactor = Reactor::new()?;
        let listener = reactor.net().listen(listen, |_peer| Echo)?;
        for at in reactor.net().local_addrs(listener) {
            support::say(format!("tls_echo: listening on {at}"))?;
        }
        reactor.run()?;
        Ok(())
    })
}
