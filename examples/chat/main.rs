//! A chat room. Everyone who connects is in it: with `nc`, with `openssl s_client`, or with a browser.
//!
//! `room.rs` has the room and its members, who know nothing of the network; `talk.rs` what they say, and
//! what of it newcomers are shown; `elsewhere.rs` those on other processes; `page.rs` and `page.html` the
//! web page. Here is where the sockets are, and what lines look like on each.

mod elsewhere;
mod page;
mod room;
#[cfg(all(test, feature = "sim"))]
mod simulated;
#[path = "../support/mod.rs"]
mod support;
mod talk;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::layer::Lines;
use tidegate::{
    Address, Error, Layer, Listen, Net, Overflow, Peer, SocketOptions, StreamOptions, Workers,
    WorkersHandle,
};

use room::{Form, MAX_LINE, Member, People, Room};
use talk::Past;

const HELP: &str = "chat - a room for many people, one line of text a message

Usage: cargo run --release --example chat [ADDRESS] [OPTIONS]

    ADDRESS         lines of text over TCP (default 127.0.0.1:8888)
    --tls ADDRESS   lines of text over TLS (default 127.0.0.1:8889)
    --web ADDRESS   a web page for browsers (default 127.0.0.1:8080)
    --backplane URL   redis://[user:password@]host[:port]: one room with all chats that have the same;
                    newcomers are shown the last 50 lines, which Redis keeps
    --workers N     as many threads, each with a part of the members (default 1)
    --metrics ADDRESS   figures for Prometheus at http://ADDRESS/metrics; off by default
    --name HOST     a name that browsers may know it by, besides its IP addresses and localhost
    --cert FILE     the certificate chain for TLS, PEM; with none, a self-signed one is made at
                    the start and its fingerprint printed
    --key FILE      its private key, PEM

All are in one room. Join it with: a browser at http://127.0.0.1:8080/
                                   nc 127.0.0.1 8888
                                   openssl s_client -quiet -connect 127.0.0.1:8889
Type /help there for the commands. Ctrl-C here closes the room.";

fn main() -> ExitCode {
    support::main_with_options(HELP, |arguments| {
        let tls_address = arguments.option("--tls")?.unwrap_or("127.0.0.1:8889".to_owned());
        let web_address = arguments.option("--web")?.unwrap_or("127.0.0.1:8080".to_owned());
        let metrics: Option<String> = arguments.option("--metrics")?;
        let workers = arguments.option::<NonZeroUsize>("--workers")?.map_or(1, NonZeroUsize::get);
        let backplane: Option<String> = arguments.option("--backplane")?;
        let name: Option<String> = arguments.option("--name")?;
        let certificate = support::certificate::from_arguments(arguments)?.build()?;
        let [lines_address] = arguments.rest(["127.0.0.1:8888"])?;

        let people: Arc<Mutex<People>> = Arc::default();
        let report = Workers::new(workers).run(move |worker, net| {
            // The same line of text in three forms; the handler is the same behind all of them.
            let lines = || Lines::new().line_limit(MAX_LINE);
            let certificate = certificate.clone();
            let tls_lines = move || certificate.layer().then(lines());
            let web = page::server(name.clone());
            let messages = move || web.layer();

            let for_lines = open(net, &lines_address, Form::Lines, lines)?;
            let for_tls = open(net, &tls_address, Form::Lines, tls_lines)?;
            let for_web = open(net, &web_address, Form::Messages, messages)?;
            let mut room = Room::new(net, &people);
            room.past = backplane.is_some().then(Past::default);
            if worker.index() > 0 {
                return Ok(room); // one worker speaks for all
            }
            for at in for_lines {
                let (ip, port) = (reachable(at).ip(), at.port());
                support::say(format!("chat: listening on {at}, lines: nc {ip} {port}"))?;
            }
            for at in for_tls {
                let near = reachable(at);
                support::say(format!(
                    "chat: listening on {at}, TLS: openssl s_client -quiet -connect {near}"
                ))?;
            }
            for at in for_web {
                let near = reachable(at);
                support::say(format!("chat: listening on {at}, the web: http://{near}/"))?;
            }
            if let Some(address) = &metrics {
                let listener = support::metrics::listen(net, address, room::figures)?;
                for at in net.local_addrs(listener).iter().filter_map(Address::socket_addr) {
                    let near = reachable(at);
                    support::say(format!(
                        "chat: listening on {at}, figures: http://{near}/metrics"
                    ))?;
                }
            }
            if let Some(url) = &backplane {
                elsewhere::join(url, &room, net)?;
            }
            #[cfg(unix)]
            close_on_signals(net, worker.handle().clone())?;
            Ok(room)
        })?;
        match report.connections_cut {
            0 => support::say("chat: closed")?,
            cut => support::say(format!("chat: closed; {cut} had not hung up in time"))?,
        }
        Ok(())
    })
}

/// A door to the room: a listener whose connections put what `layer` makes between their socket
/// and their `Member`. Returns its addresses.
fn open<L: Layer + 'static>(
    net: &mut Net<Room>,
    address: &str,
    form: Form,
    layer: impl Fn() -> L + 'static,
) -> Result<Vec<SocketAddr>, Error> {
    // What the room says to a member who does not read waits in that member's own queue, and
    // the others notice nothing. At 256 KiB, some thousands of lines, the member is
    // disconnected: `Overflow::Drop` would keep the connection and leave lines out, and a
    // conversation with holes in it is worse than having to come back.
    let options = StreamOptions::new()
        .output_limit(256 * 1024)
        .overflow(Overflow::Close)
        // Finds out about members whose computer is gone without a word.
        .socket_options(SocketOptions::new().keepalive(Duration::from_secs(60)));
    let listen = Listen::tcp(address)
        .options(options)
        .connection_limit(1000) // so that the list of who is here fits into the queue
        .layer(move |_peer| layer());
    // Called for each connection, to make its handler.
    let member = move |peer: &Peer<'_>| Member::new(form, peer.address().clone());
    let listener = net.listen(listen, member)?;
    Ok(net.local_addrs(listener).iter().filter_map(Address::socket_addr).collect())
}

/// Where a listener on all addresses can be reached from this machine.
fn reachable(mut at: SocketAddr) -> SocketAddr {
    if at.ip().is_unspecified() {
        at.set_ip(match at {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    at
}

/// Says goodbye to everybody on this worker and lets what was said still reach them.
fn close_room(room: &Room, net: &mut Net<Room>) {
    net.publish(room.members, "* The room is closing. Goodbye!");
    for member in net.members(room.members).to_vec() {
        net.close(member);
    }
}

/// Makes Ctrl-C and SIGTERM close the room, within two seconds at most. mio can wait for signals as for
/// sockets, with the help of signal-hook; anything else that mio can wait for is registered in the same way.
#[cfg(unix)]
fn close_on_signals(net: &mut Net<Room>, workers: WorkersHandle<Room>) -> Result<(), Error> {
    use signal_hook_mio::v1_0::Signals;
    use tidegate::mio::Interest;

    let signals = Signals::new([2, 15])?; // SIGINT (that is Ctrl-C) and SIGTERM
    let mut closing = false;
    net.register_source(signals, Interest::READABLE, move |signals, _cx, _ready| {
        for _ in signals.pending() {
            if std::mem::replace(&mut closing, true) {
                workers.stop();
                continue;
            }
            log::info!("closing the room; Ctrl-C again ends it at once");
            for worker in 0..workers.count() {
                workers.post(worker, |room, net| close_room(room, net));
            }
            workers.shutdown(Duration::from_secs(2));
        }
        Ok(())
    })?;
    Ok(())
}
