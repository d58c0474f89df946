//! The tidegate peer, as one would write it, every setting as by default (but for low-latency mode, where `--spin`
//! asks for it). The reactor keeps a `Box<dyn Handler>` for each connection.

use arena::server::{self, Args, Mode};
use std::error::Error;
use std::net::SocketAddr;
use tidegate::{
    CloseInfo, Config, Context, Datagram, DatagramHandler, Group, Handler, HandlerResult, Input,
    Reactor, Udp,
};

fn main() -> Result<(), Box<dyn Error>> {
    let Args { mode, addr, spin, .. } = Args::from_command_line();
    let mut reactor = Reactor::build(Config::new().spin(spin), |_| Ok(()))?;
    let net = reactor.net();
    let token = match mode {
        Mode::Echo => net.listen(addr, |peer| Client::from(peer.address().socket_addr()))?,
        Mode::Sink => net.listen(addr, |_peer| Sink::default())?,
        Mode::Chat => {
            let room = net.create_group();
            net.listen(addr, move |_peer| Member { room })?
        }
        Mode::Udp => net.bind_udp(addr, UdpEcho)?,
        Mode::Train => net.bind_udp(Udp::bind(addr).receive_trains(true), UdpEcho)?,
    };
    let at = net
        .local_addr(token)
        .and_then(|at| at.socket_addr())
        .ok_or("an IP socket has an address")?;
    server::ready(at);
    reactor.run()?;
    Ok(())
}

/// What a service keeps for a client as a rule: who it is, and what it had. 48 bytes, so that the memory of an idle
/// connection is measured with a handler that has state.
struct Client {
    from: Option<SocketAddr>,
    reads: u64,
    bytes: u64,
}

const _: () = assert!(size_of::<Client>() == 48);

impl From<Option<SocketAddr>> for Client {
    fn from(from: Option<SocketAddr>) -> Self {
        Self { from, reads: 0, bytes: 0 }
    }
}

impl Handler for Client {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let bytes = input.take_all();
        self.reads += 1;
        self.bytes += bytes.len() as u64;
        cx.send(bytes);
        Ok(())
    }

    fn on_close(&mut self, _cx: &mut Context<'_>, closed: &CloseInfo) {
        let Self { from, reads, bytes } = self;
        log::debug!("{from:?}: {bytes} bytes in {reads} reads, then {closed}");
    }
}

struct UdpEcho;

impl DatagramHandler for UdpEcho {
    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        cx.send_to(datagram.from, datagram.bytes);
        Ok(())
    }
}

#[derive(Default)]
struct Sink {
    received: u64,
}

impl Handler for Sink {
    fn on_data(&mut self, _cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        self.received += input.take_all().len() as u64;
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.send(self.received.to_le_bytes());
        cx.close();
        Ok(())
    }
}

struct Member {
    room: Group,
}

impl Handler for Member {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.net.join(self.room, cx.token);
        Ok(())
    }

    /// Passes on the whole lines; the part of one stays in the input until its rest arrives.
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let whole = input.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        if let Some(lines) = input.take(whole).filter(|lines| !lines.is_empty()) {
            cx.net.publish_except(self.room, cx.token, lines);
        }
        Ok(())
    }
}
