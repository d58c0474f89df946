//! The tidegate peer, as one would write it, every setting as by default (but for low-latency mode, where `--spin`
//! asks for it). The reactor keeps a `Box<dyn Handler>` for each connection.

use arena::handlers::{Client, Member, Sink};
use arena::server::{self, Args, Mode};
use std::error::Error;
use tidegate::{Config, Context, Datagram, DatagramHandler, HandlerResult, Reactor, Udp};

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

struct UdpEcho;

impl DatagramHandler for UdpEcho {
    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        cx.send_to(datagram.from, datagram.bytes);
        Ok(())
    }
}
