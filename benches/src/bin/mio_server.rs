//! The mio peer: its own slab of connections and one shared read buffer, each socket registered once.

use arena::by_hand::{Chat, Datagrams, Echo, Peer, Ready, Service, Sink, Socket, Then, UdpEcho};
use arena::server::{self, Args, Mode};
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;

const LISTENER: Token = Token(usize::MAX - 1);

fn main() -> io::Result<()> {
    let args = Args::from_command_line();
    match args.mode {
        Mode::Echo => serve(args.addr, Echo::default()),
        Mode::Sink => serve(args.addr, Sink::default()),
        Mode::Chat => serve(args.addr, Chat::default()),
        Mode::Udp | Mode::Train => serve_udp(args.addr),
    }
}

fn serve<V: Service>(addr: SocketAddr, mut service: V) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut listener = TcpListener::bind(addr)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut peers = Slab::<Peer<Stream, V::State>>::new();
    server::ready(listener.local_addr()?);
    loop {
        wait(&mut poll, &mut events)?;
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&poll, &listener, &mut peers)?;
                continue;
            }
            let key = event.token().0;
            let ended = event.is_read_closed() || event.is_error();
            let ready = Ready { readable: event.is_readable() || ended, ended };
            // A connection closes only on its own event, and has one a turn: no event here can be stale.
            match service.ready(key, &mut peers[key], ready) {
                Ok(Then::Keep) => {}
                Ok(Then::Close) | Err(_) => drop(peers.remove(key)),
            }
        }
        service.turn_ends(&mut peers);
    }
}

fn accept_all<C: Default>(
    poll: &Poll,
    listener: &TcpListener,
    peers: &mut Slab<Peer<Stream, C>>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        let entry = peers.vacant_entry();
        poll.registry().register(
            &mut stream,
            Token(entry.key()),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        entry.insert(Peer { socket: Stream(stream), state: C::default() });
    }
}

fn serve_udp(addr: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(8);
    let mut socket = UdpSocket::bind(addr)?;
    poll.registry().register(&mut socket, Token(0), Interest::READABLE | Interest::WRITABLE)?;
    server::ready(socket.local_addr()?);
    let socket = Udp(socket);
    let mut service = UdpEcho::default();
    loop {
        wait(&mut poll, &mut events)?;
        service.ready(&socket)?;
    }
}

fn wait(poll: &mut Poll, events: &mut Events) -> io::Result<()> {
    loop {
        match poll.poll(events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

struct Stream(TcpStream);

impl Socket for Stream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.0).write_vectored(slices)
    }
}

struct Udp(UdpSocket);

impl Datagrams for Udp {
    fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_from(buffer)
    }
    fn send_to(&self, bytes: &[u8], peer: SocketAddr) -> io::Result<usize> {
        self.0.send_to(bytes, peer)
    }
}
