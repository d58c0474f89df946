//! Forwards TCP connections to another address, both ways.
//!
//! Three things make a forwarder good, and each is a line or two here:
//!
//! - **Back-pressure.** When one side reads slowly, the other must be slowed down, or the proxy
//!   would have to hold what lies between them. `link` does that: while one connection's queue is
//!   full, the other one is not read.
//! - **Half-close.** A peer that has said everything may still be waiting for the answer. Its end is
//!   passed on as an end of that one direction; the other direction goes on.
//! - **Bad ends.** If one side is cut off, the other must be able to tell that from a proper end.

mod support;

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;

use tidegate::{CloseReason, Closed, Connect, Context, Handler, HandlerResult, Input, Token};

const HELP: &str = "proxy - forwards TCP connections to another address

Usage: cargo run --release --example proxy [LISTEN [TARGET]]

LISTEN   where to listen (default 127.0.0.1:8887)
TARGET   where to forward to (default 127.0.0.1:8888, where the other examples listen)

Try it with the echo example in another terminal: nc 127.0.0.1 8887";

/// What all connections share: the addresses of the target.
type Target = Vec<SocketAddr>;

/// One of the two connections of a pair.
struct Half {
    /// The other one. The accepted half has none before it is open.
    other: Option<Token>,
}

impl Handler<Target> for Half {
    fn on_open(&mut self, cx: &mut Context<'_, Target>) -> HandlerResult {
        if self.other.is_none() {
            // Somebody connected to us: connect to the target for them. This does not wait; what
            // is sent to the new connection before it stands goes out as soon as it does.
            let other = Half { other: Some(cx.token()) };
            let other = cx.net.connect(Connect::tcp(cx.state.as_slice()), other)?;
            cx.net.link(cx.token(), other);
            self.other = Some(other);
        }
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Target>, input: &mut Input<'_>) -> HandlerResult {
        if let Some(other) = self.other {
            cx.net.send(other, input.take_all());
        }
        Ok(())
    }

    /// This side will say no more, so the other is told the same. A connection whose both
    /// directions have ended closes by itself.
    fn on_eof(&mut self, cx: &mut Context<'_, Target>) -> HandlerResult {
        if let Some(other) = self.other {
            cx.net.shutdown_write(other);
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Target>, closed: &Closed) {
        if let CloseReason::ConnectFailed(error) = &closed.reason {
            log::warn!("{error}");
        }
        match self.other {
            // Both directions have ended, and the other half knows; it may still be flushing.
            _ if closed.reason.is_orderly() => {}
            // Anything else must not look like an end: the other peer sees a reset.
            Some(other) => cx.net.abort(other),
            None => {}
        }
    }
}

fn main() -> ExitCode {
    support::main(HELP, ["127.0.0.1:8887", "127.0.0.1:8888"], |[listen, target]| {
        // Resolved once, here: asking for a name may take seconds, and in a callback every other
        // connection would wait for it.
        let addresses: Target = match target.to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(e) => return Err(format!("cannot forward to {target}: {e}").into()),
        };
        let mut reactor = tidegate::Reactor::with_state(addresses)?;
        let listener = reactor.net().listen(&listen, |_peer| Half { other: None })?;
        for at in reactor.net().local_addrs(listener) {
            println!("proxy: listening on {at}, forwarding to {target}");
        }
        reactor.run()?;
        Ok(())
    })
}
