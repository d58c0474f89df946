//! The tidegate peer, as one would write it, every setting as by default. The reactor keeps a `Box<dyn Handler>` for
//! each connection.

use arena::server::{self, Args, Mode};
use std::error::Error;
use tidegate::{
    Context, Datagram, DatagramHandler, Group, Handler, HandlerResult, Input, Reactor, Udp,
};

fn main() -> Result<(), Box<dyn Error>> {
    let Args { mode, addr } = Args::from_command_line();
    let mut reactor = Reactor::new()?;
    let net = reactor.net();
    let token = match mode {
        Mode::Echo => net.listen(addr, |_peer| Echo)?,
        Mode::Sink => net.listen(addr, |_peer| Sink::default())?,
        Mode::Chat => {
            let room = net.create_group();
            net.listen(addr, move |_peer| Member { room })?
        }
        Mode::Udp => net.bind_udp(addr, Echo)?,
        Mode::Train => net.bind_udp(Udp::bind(addr).receive_trains(true), Echo)?,
    };
    let at = net.local_addr(token).and_then(|at| at.ip()).ok_or("an IP socket has an address")?;
    server::ready(at);
    reactor.run()?;
    Ok(())
}

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
        cx.net.join(self.room, cx.token());
        Ok(())
    }

    /// Passes on the whole lines; the part of one stays in the input until its rest arrives.
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let whole = input.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        if let Some(lines) = input.take(whole).filter(|lines| !lines.is_empty()) {
            cx.net.publish_except(self.room, cx.token(), lines);
        }
        Ok(())
    }
}
