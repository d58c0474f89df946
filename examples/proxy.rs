//! Forwards TCP connections to another address, both ways.
//!
//! A good forwarder does three things, and `relay` does them all:
//!
//! - **Back-pressure.** When one side reads slowly, the other must be slowed down, or the proxy
//!   would have to hold the data in between. While one connection's queue is full, the other one is
//!   not read.
//! - **Half-close.** A peer that has sent everything may still wait for the answer. Its end is
//!   passed on as an end of that one direction; the other direction goes on.
//! - **Failures.** If one side is cut off, the other must be able to tell that from an end in order:
//!   it sees a reset.
//!
//! A proxy that has to look at the data calls `link` instead, for the back-pressure, and sends on
//! what it wants in `on_data` and `on_eof`.

mod support;

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;

use tidegate::{CloseInfo, CloseReason, Connect, Context, Handler, HandlerResult, Input};

const HELP: &str = "proxy - forwards TCP connections to another address

Usage: cargo run --release --example proxy [LISTEN [TARGET]]

LISTEN   where to listen (default 127.0.0.1:8887)
TARGET   where to forward to (default 127.0.0.1:8888, where the other examples listen)

Try it with the echo example in another terminal: nc 127.0.0.1 8887";

/// What all connections share: the addresses of the target.
type Target = Vec<SocketAddr>;

/// One of the two connections of a pair.
enum Half {
    /// From a client to this proxy.
    Accepted,
    /// From this proxy to the target.
    Outgoing,
}

impl Handler<Target> for Half {
    fn on_open(&mut self, cx: &mut Context<'_, Target>) -> HandlerResult {
        if let Half::Accepted = self {
            // Neither call waits. What arrives before the target is connected is kept for it.
            let target = cx.net.connect(Connect::tcp(cx.state.as_slice()), Half::Outgoing)?;
            cx.relay(target);
        }
        Ok(())
    }

    /// Not called: the reactor passes on what arrives.
    fn on_data(&mut self, _: &mut Context<'_, Target>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }

    fn on_close(&mut self, _: &mut Context<'_, Target>, closed: &CloseInfo) {
        if let CloseReason::ConnectFailed(error) = &closed.reason {
            log::warn!("{error}");
        }
    }
}

fn main() -> ExitCode {
    support::main(HELP, ["127.0.0.1:8887", "127.0.0.1:8888"], |[listen, target]| {
        // Resolved once, here: a look-up may take seconds, and in a callback every connection would
        // wait for it.
        let addresses: Target = match target.to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(e) => return Err(format!("cannot forward to {target}: {e}").into()),
        };
        let mut reactor = tidegate::Reactor::with_state(addresses)?;
        let listener = reactor.net().listen(&listen, |_peer| Half::Accepted)?;
        for at in reactor.net().local_addrs(listener) {
            support::say(format!("proxy: listening on {at}, forwarding to {target}"))?;
        }
        reactor.run()?;
        Ok(())
    })
}
