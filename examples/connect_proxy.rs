//! An HTTP proxy for `CONNECT` (RFC 9110 section 9.3.6): the tunnel that browsers and curl use for
//! https.
//!
//! The order matters: connect to the target, send 200 when that connection is open, and only then
//! relay. After a 200 that came too early, a failed connect would look like an end of the target.
//!
//! Who can reach this proxy can reach what this machine reaches: listen where only its users are.

mod support;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;
use tidegate::{
    CloseInfo, CloseReason, Config, Connect, ConnectErrorKind, Context, Handler, HandlerResult,
    Input, Listen, Net, Reactor, StreamOptions, Token,
};

const HELP: &str = "connect_proxy - an HTTP proxy for CONNECT, the tunnel of https

Usage: cargo run --release --example connect_proxy [ADDRESS]       (default 127.0.0.1:8886)
Try it: curl -p -x http://127.0.0.1:8886 http://127.0.0.1:8080";

/// The longest request head, in bytes. The search for its end begins anew with each piece of it.
const MAX_HEAD: usize = 8 * 1024;
/// Names that may be looked up at once: each takes a thread. Further ones are refused.
const MAX_LOOKUPS: usize = 64;

/// A client. Its handler reads the request head; what follows is relayed.
struct Client;

impl Handler for Client {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(()); // offered again when more has arrived; the options below limit it
        };
        let head = String::from_utf8_lossy(&input[..end]).into_owned();
        input.advance(end + 4);
        match *head.lines().next().unwrap_or_default().split(' ').collect::<Vec<_>>() {
            ["CONNECT", to, "HTTP/1.1" | "HTTP/1.0"] if to.contains(':') => look_up(cx, to.into()),
            ["CONNECT", ..] => refuse(cx.net, cx.token, "400 Bad Request"),
            _ => refuse(cx.net, cx.token, "405 Method Not Allowed\r\nAllow: CONNECT"),
        }
        Ok(())
    }
}

/// Resolves the target and connects to it. A look-up may take seconds, in which every connection
/// would wait: another thread makes it.
fn look_up(cx: &mut Context<'_>, target: String) {
    let client = cx.token;
    let resolve = move || target.to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>);
    let connect = move |found: Result<io::Result<_>, _>, (): &mut (), net: &mut Net| {
        let options = StreamOptions::new().connect_timeout(Duration::from_secs(5));
        let to =
            found.ok().and_then(Result::ok).map(|to: Vec<_>| Connect::tcp(to).options(options));
        if to.is_none_or(|to| net.connect(to, Outgoing(client)).is_err()) {
            refuse(net, client, "502 Bad Gateway");
        }
    };
    if cx.net.offload(resolve, connect).is_err() {
        return refuse(cx.net, client, "503 Service Unavailable");
    }
    cx.pause(); // what comes early, a TLS hello, waits in the system's buffer; the relay resumes
}

fn refuse(net: &mut Net, client: Token, status: &str) {
    net.send(
        client,
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    );
    net.close(client);
}

/// The connection to the target, and the client that it is for.
struct Outgoing(Token);

impl Handler for Outgoing {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.net.send(self.0, "HTTP/1.1 200 Connection Established\r\n\r\n");
        if !cx.relay(self.0) {
            cx.close(); // the client has gone meanwhile
        }
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
        Ok(()) // not called: the reactor relays
    }

    fn on_close(&mut self, cx: &mut Context<'_>, closed: &CloseInfo) {
        let CloseReason::ConnectFailed(error) = &closed.reason else { return };
        let late = error.kind() == ConnectErrorKind::TimedOut;
        refuse(cx.net, self.0, if late { "504 Gateway Timeout" } else { "502 Bad Gateway" });
    }
}

fn main() -> ExitCode {
    support::main(HELP, ["127.0.0.1:8886"], |[address]| {
        let options = StreamOptions::new()
            .unread_limit(MAX_HEAD)
            .message_timeout(Duration::from_secs(10)) // for a head, from its first byte
            .idle_timeout(Duration::from_secs(600));
        let listen = Listen::tcp(&*address).options(options).connection_limit(1000);
        let config = Config::new().offload_threads(MAX_LOOKUPS).offload_limit(MAX_LOOKUPS);
        let mut reactor = Reactor::build(config, |_| Ok(()))?;
        let listener = reactor.net().listen(listen, |_peer| Client)?;
        for at in reactor.net().local_addrs(listener) {
            support::say(format!("connect_proxy: listening on {at}"))?;
        }
        reactor.run()?;
        Ok(())
    })
}
