//! The reactor's parts, one at a time: `cargo bench --bench parts`, or one of them with its name behind that.
//!
//! `net` and `remote` go through the public API, so that what a user pays is measured: setting a timer reads the clock
//! (it is reckoned from that moment), a turn polls the system once. `wheel` is the timer wheel without all that, its
//! source taken in as a module. `delay_queue` and the channels are what others offer for the same, in the same run.

mod output;
mod remote;
mod timers;
mod tokens;

use std::net::TcpStream;
use std::time::Duration;
use tidegate::{
    Adopt, Context, DatagramHandler, Handler, HandlerResult, Input, Reactor, StreamOptions, Token,
};

fn main() {
    divan::main();
}

struct Silent;

impl Handler for Silent {
    fn on_data(&mut self, _cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }
}

impl DatagramHandler for Silent {
    fn on_datagram(
        &mut self,
        _cx: &mut Context<'_>,
        _datagram: tidegate::Datagram<'_>,
    ) -> HandlerResult {
        Ok(())
    }
}

fn connection(options: StreamOptions) -> (Reactor, Token, TcpStream) {
    let mut reactor = Reactor::new().expect("a poll can be made");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("TCP can be bound");
    let peer = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let (socket, _) = listener.accept().expect("somebody knocks");
    let adopt = Adopt::from(socket).options(options);
    let token = reactor.net().adopt(adopt, Silent).expect("a connected socket can be adopted");
    turn(&mut reactor);
    (reactor, token, peer)
}

fn turn(reactor: &mut Reactor) {
    let _ = reactor.turn(Some(Duration::ZERO)).expect("the poll works");
}
