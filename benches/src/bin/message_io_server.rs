//! The message-io peer, on its network half alone (`network::split`), which needs no second thread.
//!
//! It writes each `send` at once and spins while a socket is full, offers no `TCP_NODELAY`, and has no place where a
//! turn ends: what one read brought of a chat costs one write for each member. It reports the end of a stream only
//! after the connection is gone, so a sink could not answer: that service is missing here.

use arena::server::{self, Args, Mode};
use message_io::network::{self, Endpoint, NetEvent, Transport};
use std::collections::HashMap;
use std::io;

fn main() -> io::Result<()> {
    let args = Args::from_command_line();
    if args.mode == Mode::Sink {
        eprintln!("message-io closes with the end of the input, a sink can't answer");
        std::process::exit(2);
    }
    let (network, mut processor) = network::split();
    let datagrams = matches!(args.mode, Mode::Udp | Mode::Train);
    let transport = if datagrams { Transport::Udp } else { Transport::Tcp };
    let (_, addr) = network.listen(transport, args.addr)?;
    server::ready(addr);
    let mut lines = HashMap::<Endpoint, Vec<u8>>::new();
    loop {
        processor.process_poll_event(None, |event| match event {
            NetEvent::Message(from, bytes) => match args.mode {
                Mode::Echo | Mode::Udp | Mode::Train | Mode::Sink => {
                    network.send(from, bytes);
                }
                Mode::Chat => {
                    let rest = lines.get_mut(&from).expect("an accepted member");
                    rest.extend_from_slice(bytes);
                    let whole = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                    let said: Vec<u8> = rest.drain(..whole).collect();
                    if !said.is_empty() {
                        for &member in lines.keys().filter(|&&member| member != from) {
                            network.send(member, &said);
                        }
                    }
                }
            },
            NetEvent::Accepted(member, _) => drop(lines.insert(member, Vec::new())),
            NetEvent::Disconnected(member) => drop(lines.remove(&member)),
            NetEvent::Connected(..) => {}
        });
    }
}
