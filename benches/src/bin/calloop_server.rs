//! The calloop peer: an edge-triggered `Generic` source for each socket, the connections in the loop's shared data.

use arena::by_hand::{Chat, Datagrams, Echo, Peer, Ready, Service, Sink, Socket, Then, UdpEcho};
use arena::server::{self, Args, Mode};
use calloop::generic::Generic;
use calloop::{EventLoop, Interest, LoopHandle, PostAction};
use slab::Slab;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

fn main() -> calloop::Result<()> {
    let args = Args::from_command_line();
    match args.mode {
        Mode::Echo => serve(args.addr, Echo::default()),
        Mode::Sink => serve(args.addr, Sink::default()),
        Mode::Chat => serve(args.addr, Chat::default()),
        Mode::Udp | Mode::Train => serve_udp(args.addr),
    }
}

struct Shared<V: Service> {
    service: V,
    peers: Slab<Peer<Stream, V::State>>,
    handle: LoopHandle<'static, Self>,
}

fn serve<V: Service + 'static>(addr: SocketAddr, service: V) -> calloop::Result<()> {
    let mut event_loop = EventLoop::<Shared<V>>::try_new()?;
    let listener = listen(addr)?;
    server::ready(listener.local_addr()?);
    let mut shared = Shared { service, peers: Slab::new(), handle: event_loop.handle() };
    let source = Generic::new(listener, Interest::READ, calloop::Mode::Edge);
    let inserted = event_loop.handle().insert_source(source, |_, listener, shared| {
        loop {
            match listener.accept() {
                Ok((stream, _)) => shared.add(stream)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(PostAction::Continue);
                }
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    });
    inserted.map_err(|failed| failed.error)?;
    event_loop.run(None, &mut shared, |shared| shared.service.turn_ends(&mut shared.peers))
}

/// As `TcpListener::bind`, with a backlog that takes a burst of connects.
fn listen(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl<V: Service + 'static> Shared<V> {
    fn add(&mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = Stream(Rc::new(stream));
        let peer = Peer { socket: stream.clone(), state: V::State::default() };
        let key = self.peers.insert(peer);
        let source = Generic::new(stream, Interest::BOTH, calloop::Mode::Edge);
        let inserted = self.handle.insert_source(source, move |readiness, _, shared| {
            // calloop does not tell the end of a stream apart: with `ended` always set, a short read is followed
            // by one that finds nothing. Any other rule could miss the end.
            let ready = Ready { readable: readiness.readable, ended: true };
            match shared.service.ready(key, &mut shared.peers[key], ready) {
                Ok(Then::Keep) => Ok(PostAction::Continue),
                Ok(Then::Close) | Err(_) => {
                    shared.peers.remove(key);
                    Ok(PostAction::Remove)
                }
            }
        });
        inserted.map(drop).map_err(|failed| io::Error::other(failed.error))
    }
}

fn serve_udp(addr: SocketAddr) -> calloop::Result<()> {
    let mut event_loop = EventLoop::<UdpEcho>::try_new()?;
    let socket = UdpSocket::bind(addr)?;
    socket.set_nonblocking(true)?;
    server::ready(socket.local_addr()?);
    let source = Generic::new(Udp(socket), Interest::BOTH, calloop::Mode::Edge);
    let inserted = event_loop.handle().insert_source(source, |_, socket, service| {
        service.ready(socket.as_ref())?;
        Ok(PostAction::Continue)
    });
    inserted.map_err(|failed| failed.error)?;
    event_loop.run(None, &mut UdpEcho::default(), |_| {})
}

/// Shared between the source, which is registered by it, and the list of peers, through which others write to it.
#[derive(Clone)]
struct Stream(Rc<TcpStream>);

impl Socket for Stream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self.0).write_vectored(slices)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
