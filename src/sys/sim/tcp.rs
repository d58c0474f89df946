//! Streams and listeners of the simulated world: TCP, and Unix sockets within one host.
//!
//! Linux' habits are kept where programs have stumbled over them: data and end may come in one edge;
//! the poll reports room for output when a third of the buffer is free, though a write would be taken
//! earlier; closing with unread input resets; after a reset what was received can still be read.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use super::faults::Fault;
use super::stream::{End, Progress, Segment};
use super::trace::{Event, Socket, of_bytes};
use super::world::{Arrival, Id, Kind, World};
use crate::address::Address;
use crate::socket_options::SocketOptions;
use crate::sys::Ready;
use crate::sys::errors::no_descriptor_left;

/// Linux' least time until a segment is sent again, in nanoseconds.
const RETRANSMISSION: u64 = 200_000_000;

/// Linux' time until a SYN is sent again.
const SYN_RETRANSMISSION: u64 = 1_000_000_000;

/// How often a SYN is sent again (`tcp_syn_retries`).
const SYN_RETRIES: u32 = 6;

/// How often a segment is sent again before the connection counts as dead (`tcp_retries2`).
const RETRIES: u32 = 15;

/// No pause between two attempts is longer.
const LONGEST: u64 = 120_000_000_000;

/// What a socket's buffers hold without an option, in bytes.
const BUFFER: usize = 128 * 1024;

/// The most one segment carries: what the system's offloads join.
const SEGMENT: usize = 32 * 1024;

/// A connection that is in a backlog, or accepted, or connecting.
#[derive(Debug)]
pub(super) struct TcpSocket {
    pub(super) end: End,
    local: Address,
    peer: Address,
    /// The other end, while it exists.
    pub(super) other: Option<Id>,
    /// In whose backlog it is.
    listener: Option<Id>,
    /// The coming close is a reset (`SO_LINGER` zero).
    pub(super) resets_on_close: bool,
    /// The local port is counted.
    holds_port: bool,
    retries: u32,
    /// What was read and not yet taken by the handler, where that is compared.
    pub(super) read_log: Option<VecDeque<u8>>,
}

pub(super) fn port(address: &Address) -> u16 {
    address.socket_addr().map_or(0, |address| address.port())
}

impl TcpSocket {
    fn new(end: End, local: Address, peer: Address) -> Self {
        TcpSocket {
            end,
            local,
            peer,
            other: None,
            listener: None,
            resets_on_close: false,
            holds_port: false,
            retries: 0,
            read_log: None,
        }
    }

    pub(super) fn label(&self) -> Socket {
        Socket { local: port(&self.local), peer: port(&self.peer) }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.end.progress == Progress::Connected
    }

    pub(super) fn bits(&self) -> u8 {
        let end = &self.end;
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        if end.progress == Progress::Connecting {
            return 0;
        }
        bit(end.is_readable(), Ready::READABLE)
            | bit(end.is_writable(), Ready::WRITABLE)
            | bit(end.ended || end.error.is_some(), Ready::READ_CLOSED)
            | bit(end.error.is_some(), Ready::ERROR)
            | bit(end.is_urgent(), Ready::URGENT)
    }
}

#[derive(Debug)]
pub(super) struct ListenerSocket {
    pub(super) on: Address,
    pub(super) backlog: VecDeque<Id>,
    limit: usize,
    only_v6: bool,
    reuse_port: bool,
    send_buffer: Option<usize>,
    receive_buffer: Option<usize>,
}

impl ListenerSocket {
    /// How well it fits a destination: a socket on the very address before one on all of them.
    fn fit(&self, to: IpAddr) -> Option<u8> {
        let on = self.on.socket_addr()?.ip();
        fit(on, self.only_v6, to)
    }
}

/// How well a socket bound to `on` fits a destination.
pub(super) fn fit(on: IpAddr, only_v6: bool, to: IpAddr) -> Option<u8> {
    if super::names::plain(on) == super::names::plain(to) {
        return Some(2);
    }
    let dual = on.is_ipv6() && !only_v6;
    (on.is_unspecified() && (on.is_ipv4() == to.is_ipv4() || dual)).then_some(1)
}

/// Whether two sockets on these addresses would get each other's packets.
pub(super) fn overlap((a, a_only): (IpAddr, bool), (b, b_only): (IpAddr, bool)) -> bool {
    let covers = |any: IpAddr, only_v6: bool, one: IpAddr| {
        any.is_unspecified() && (any.is_ipv4() == one.is_ipv4() || any.is_ipv6() && !only_v6)
    };
    a == b || covers(a, a_only, b) || covers(b, b_only, a)
}

/// The pause before attempt `attempt`, twice as long each time, and not the same for all.
fn back_off(first: u64, attempt: u32, world: &mut World) -> u64 {
    let time = (first << attempt.min(10)).min(LONGEST);
    time + world.network.below(time / 8 + 1)
}

impl World {
    pub(super) fn tcp(&self, id: Id) -> Option<&TcpSocket> {
        match &self.sock(id)?.kind {
            Kind::Tcp(tcp) => Some(tcp),
            _ => None,
        }
    }

    pub(super) fn tcp_mut(&mut self, id: Id) -> Option<&mut TcpSocket> {
        match &mut self.sock_mut(id)?.kind {
            Kind::Tcp(tcp) => Some(tcp),
            _ => None,
        }
    }

    fn listener_mut(&mut self, id: Id) -> Option<&mut ListenerSocket> {
        match &mut self.sock_mut(id)?.kind {
            Kind::Listener(listener) => Some(listener),
            _ => None,
        }
    }

    pub(super) fn host_of(&self, id: Id) -> u32 {
        self.sock(id).map_or(0, |sock| sock.host)
    }

    /// The buffers of a new connection: small ones are a fault like any other.
    fn new_end(
        &mut self,
        host: u32,
        progress: Progress,
        send: Option<usize>,
        receive: Option<usize>,
    ) -> End {
        let (mut send, mut receive) = (send.unwrap_or(BUFFER), receive.unwrap_or(BUFFER));
        if self.fault(host, Fault::SmallBuffers) {
            let rng = self.dice.of(Fault::SmallBuffers);
            let most = 1 << rng.between(3, 13);
            (send, receive) = (rng.between(1, most) as usize, rng.between(1, most) as usize);
        }
        End::new(progress, send, receive)
    }

    // ---- listening ----

    pub(super) fn listen(
        &mut self,
        host: u32,
        on: &Address,
        backlog: u32,
        options: &SocketOptions,
        several: bool,
    ) -> io::Result<u32> {
        self.call();
        if !self.take_own_descriptor(host) {
            return Err(no_descriptor_left());
        }
        let opened = self.open_listener(host, on, backlog, options, several);
        if opened.is_err() {
            self.hosts[host as usize].descriptors -= 1;
        }
        opened
    }

    fn open_listener(
        &mut self,
        host: u32,
        on: &Address,
        backlog: u32,
        options: &SocketOptions,
        several: bool,
    ) -> io::Result<u32> {
        let only_v6 = options.chosen_only_v6().unwrap_or(several);
        let on = match on {
            Address::Ip(addr) => {
                let port = self.port_to_listen_on(host, *addr, only_v6, options.reuse_port)?;
                Address::Ip(SocketAddr::new(addr.ip(), port))
            }
            #[cfg(unix)]
            Address::Unix(Some(path)) if path.as_os_str().is_empty() => {
                return Err(ErrorKind::InvalidInput.into());
            }
            #[cfg(unix)]
            Address::Unix(Some(path)) => {
                if self.hosts[host as usize].paths.contains_key(path) {
                    return Err(ErrorKind::AddrInUse.into());
                }
                on.clone()
            }
            #[cfg(unix)]
            Address::Unix(None) => return Err(ErrorKind::InvalidInput.into()),
        };
        let listener = ListenerSocket {
            on: on.clone(),
            backlog: VecDeque::new(),
            limit: backlog as usize,
            only_v6,
            reuse_port: options.reuse_port,
            send_buffer: options.send_buffer,
            receive_buffer: options.receive_buffer,
        };
        let id = self.add_sock(host, Kind::Listener(Box::new(listener)));
        let host = &mut self.hosts[host as usize];
        match on {
            Address::Ip(addr) => host.listeners.entry(addr.port()).or_default().push(id),
            #[cfg(unix)]
            Address::Unix(path) => {
                host.paths.insert(path.unwrap_or_default(), id);
            }
        }
        Ok(id.index)
    }

    fn port_to_listen_on(
        &mut self,
        host: u32,
        on: SocketAddr,
        only_v6: bool,
        reuse_port: bool,
    ) -> io::Result<u16> {
        if !self.is_own(on.ip(), host) {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        if on.port() == 0 {
            return self.ephemeral_port(host, false);
        }
        let others = self.hosts[host as usize].listeners.get(&on.port());
        for &other in others.into_iter().flatten() {
            let Some(Kind::Listener(other)) = self.sock(other).map(|sock| &sock.kind) else {
                continue;
            };
            let Some(there) = other.on.socket_addr() else { continue };
            let shares = reuse_port && other.reuse_port;
            if !shares && overlap((on.ip(), only_v6), (there.ip(), other.only_v6)) {
                return Err(ErrorKind::AddrInUse.into());
            }
        }
        Ok(on.port())
    }

    pub(super) fn listener_addr(&self, index: u32) -> io::Result<Address> {
        match &self.socks[index as usize].kind {
            Kind::Listener(listener) => Ok(listener.on.clone()),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    pub(super) fn accept(&mut self, index: u32) -> io::Result<(u32, Address)> {
        self.call();
        let listener = self.id(index);
        let host = self.host_of(listener);
        let Some(&id) = self.listener_mut(listener).and_then(|l| l.backlog.front()) else {
            return Err(self.would_block(listener));
        };
        if !self.take_descriptor(host) {
            return Err(no_descriptor_left());
        }
        if let Some(l) = self.listener_mut(listener) {
            l.backlog.pop_front();
        }
        if self.fault(host, Fault::AcceptErrors) {
            self.hosts[host as usize].descriptors -= 1;
            self.reset(id);
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let label = self.label(id);
        let Some(tcp) = self.tcp_mut(id) else {
            self.hosts[host as usize].descriptors -= 1;
            return Err(ErrorKind::ConnectionAborted.into());
        };
        tcp.listener = None;
        tcp.end.open = true;
        let peer = tcp.peer.clone();
        self.note(host, Event::Accept(label));
        Ok((id.index, peer))
    }

    // ---- connecting ----

    pub(super) fn connect(
        &mut self,
        host: u32,
        to: &Address,
        from: Option<SocketAddr>,
        options: &SocketOptions,
    ) -> io::Result<u32> {
        self.call();
        if !self.take_descriptor(host) {
            return Err(no_descriptor_left());
        }
        let started = match to {
            Address::Ip(addr) => self.connect_tcp(host, *addr, from, options),
            #[cfg(unix)]
            Address::Unix(path) => self.connect_unix(host, path.as_deref(), options),
        };
        if started.is_err() {
            self.hosts[host as usize].descriptors -= 1;
        }
        started
    }

    fn connect_tcp(
        &mut self,
        host: u32,
        to: SocketAddr,
        from: Option<SocketAddr>,
        options: &SocketOptions,
    ) -> io::Result<u32> {
        let local = self.local_for(host, to, from)?;
        let (send, receive) = (options.send_buffer, options.receive_buffer);
        let end = self.new_end(host, Progress::Connecting, send, receive);
        let mut tcp = TcpSocket::new(end, Address::Ip(local), Address::Ip(to));
        tcp.holds_port = true;
        *self.hosts[host as usize].tcp_ports.entry(local.port()).or_default() += 1;
        let id = self.add_sock(host, Kind::Tcp(Box::new(tcp)));
        let label = self.label(id);
        self.note(host, Event::Connect(label));
        self.send_syn(id, 0);
        Ok(id.index)
    }

    fn local_for(
        &mut self,
        host: u32,
        to: SocketAddr,
        from: Option<SocketAddr>,
    ) -> io::Result<SocketAddr> {
        let wrong = |from: SocketAddr, kind: ErrorKind| {
            io::Error::new(kind, format!("binding to the local address {from}: {kind}"))
        };
        let mut ip = self.source_for(to.ip(), host);
        let mut port = 0;
        if let Some(from) = from {
            if !self.is_own(from.ip(), host) {
                return Err(wrong(from, ErrorKind::AddrNotAvailable));
            }
            if from.is_ipv4() != to.is_ipv4() {
                return Err(wrong(from, ErrorKind::InvalidInput));
            }
            if !from.ip().is_unspecified() {
                ip = from.ip();
            }
            port = from.port();
        }
        if port == 0 {
            port = self.ephemeral_port(host, false)?;
        }
        Ok(SocketAddr::new(ip, port))
    }

    /// Sends a SYN, for the first time or again.
    pub(super) fn send_syn(&mut self, from: Id, attempt: u32) {
        let host = self.host_of(from);
        let Some(tcp) = self.tcp(from) else { return };
        if tcp.end.progress != Progress::Connecting {
            return;
        }
        let Some(to) = tcp.peer.socket_addr() else { return };
        if attempt > SYN_RETRIES {
            return self.answer_arrives(from, None, Some(ErrorKind::TimedOut));
        }
        match self.owner_of(to.ip(), host) {
            // No such host: the router says so.
            None => {
                let at = self.at + 1_000_000;
                let why = Some(ErrorKind::HostUnreachable);
                self.send_at(host, at, Arrival::Answer { to: from, peer: None, why });
            }
            Some(server) => match self.packet(host, server, 60) {
                Some(at) => self.send_at(server, at, Arrival::Syn { to, from, attempt }),
                None => self.send_syn_again(from, attempt),
            },
        }
    }

    fn send_syn_again(&mut self, from: Id, attempt: u32) {
        let at = self.at + back_off(SYN_RETRANSMISSION, attempt, self);
        self.send_at(self.host_of(from), at, Arrival::Again { from, attempt: attempt + 1 });
    }

    pub(super) fn syn_arrives(&mut self, host: u32, to: SocketAddr, from: Id, attempt: u32) {
        self.events += 1;
        let client = self.host_of(from);
        let Some(tcp) = self.tcp(from) else { return };
        if tcp.end.progress != Progress::Connecting {
            return;
        }
        let (client_local, reader) = (tcp.local.clone(), tcp.end.window());
        let Some(listener) = self.listener_for(host, to, port(&client_local)) else {
            let why = Some(ErrorKind::ConnectionRefused);
            let at = self.reliable(host, client);
            return self.send_at(client, at, Arrival::Answer { to: from, peer: None, why });
        };
        let Some(l) = self.listener_mut(listener) else { return };
        if l.backlog.len() > l.limit {
            // Linux drops the SYN, so that the peer tries again.
            return self.send_syn_again(from, attempt);
        }
        let (send, receive) = (l.send_buffer, l.receive_buffer);
        let mut end = self.new_end(host, Progress::Connected, send, receive);
        end.open = false;
        end.open_window(reader);
        let mut tcp = TcpSocket::new(end, Address::Ip(to), client_local);
        tcp.other = Some(from);
        tcp.listener = Some(listener);
        let id = self.add_sock(host, Kind::Tcp(Box::new(tcp)));
        if let Some(l) = self.listener_mut(listener) {
            l.backlog.push_back(id);
        }
        self.edge(listener);
        let at = self.reliable(host, client);
        self.send_at(client, at, Arrival::Answer { to: from, peer: Some(id), why: None });
    }

    /// The socket that a SYN is for. Of those that share a port the peer's port chooses one.
    fn listener_for(&self, host: u32, to: SocketAddr, peer_port: u16) -> Option<Id> {
        let candidates = self.hosts[host as usize].listeners.get(&to.port())?;
        let fit_of = |id: Id| match self.sock(id).map(|sock| &sock.kind) {
            Some(Kind::Listener(listener)) => listener.fit(to.ip()),
            _ => None,
        };
        let best = candidates.iter().filter_map(|&id| fit_of(id)).max()?;
        let best: Vec<Id> =
            candidates.iter().copied().filter(|&id| fit_of(id) == Some(best)).collect();
        Some(best[usize::from(peer_port) % best.len()])
    }

    pub(super) fn answer_arrives(&mut self, to: Id, peer: Option<Id>, why: Option<ErrorKind>) {
        self.events += 1;
        let host = self.host_of(to);
        let label = self.label(to);
        let window = peer.and_then(|peer| self.tcp(peer)).map(|tcp| tcp.end.window());
        let Some(tcp) = self.tcp_mut(to) else {
            // It was given up meanwhile.
            if let Some(peer) = peer {
                self.reset_arrives_at(peer);
            }
            return;
        };
        if tcp.end.progress != Progress::Connecting {
            return;
        }
        match (peer, why) {
            (Some(peer), None) => {
                tcp.end.progress = Progress::Connected;
                tcp.other = Some(peer);
                tcp.end.open_window(window.unwrap_or(1));
                self.note(host, Event::Established(label));
            }
            (_, why) => {
                tcp.end.progress = Progress::Failed;
                tcp.end.error = Some(why.unwrap_or(ErrorKind::ConnectionRefused));
                self.note(host, Event::Refused(label));
            }
        }
        self.edge(to);
    }

    #[cfg(unix)]
    fn connect_unix(
        &mut self,
        host: u32,
        path: Option<&std::path::Path>,
        options: &SocketOptions,
    ) -> io::Result<u32> {
        let path = path.ok_or(ErrorKind::InvalidInput)?;
        let listener = self.hosts[host as usize].paths.get(path).copied();
        let listener = listener.ok_or(ErrorKind::NotFound)?;
        let l = self.listener_mut(listener).ok_or(ErrorKind::ConnectionRefused)?;
        if l.backlog.len() > l.limit {
            return Err(ErrorKind::WouldBlock.into());
        }
        let on = l.on.clone();
        let (send, receive) = (options.send_buffer, options.receive_buffer);
        let mut near = self.new_end(host, Progress::Connected, send, receive);
        let mut far = self.new_end(host, Progress::Connected, None, None);
        near.open_window(far.window());
        far.open_window(near.window());
        far.open = false;
        let near = TcpSocket::new(near, Address::Unix(None), on.clone());
        let mut far = TcpSocket::new(far, on, Address::Unix(None));
        far.listener = Some(listener);
        let near = self.add_sock(host, Kind::Tcp(Box::new(near)));
        far.other = Some(near);
        let far = self.add_sock(host, Kind::Tcp(Box::new(far)));
        if let Some(tcp) = self.tcp_mut(near) {
            tcp.other = Some(far);
        }
        if let Some(l) = self.listener_mut(listener) {
            l.backlog.push_back(far);
        }
        self.edge(listener);
        Ok(near.index)
    }

    // ---- packets ----

    /// When a packet of this size arrives that leaves now; `None` if it is lost.
    pub(super) fn packet(&mut self, from: u32, to: u32, bytes: usize) -> Option<u64> {
        self.maybe_partition(from, to);
        let arrives = self.crossing(from, to, bytes);
        let way = self.ways.of(from, to);
        let blocked = way.blocked_until > self.at;
        let loss = way.link.loss;
        let lost = self.network.chance(loss) || self.fault(to, Fault::Loss);
        (!blocked && !lost).then_some(arrives)
    }

    /// When a packet arrives that is not lost: one of a connection's own, which TCP would repeat.
    fn reliable(&mut self, from: u32, to: u32) -> u64 {
        for attempt in 0..RETRIES {
            if let Some(at) = self.packet(from, to, 60) {
                return at + if attempt == 0 { 0 } else { RETRANSMISSION << attempt.min(8) };
            }
        }
        self.at + LONGEST
    }

    fn crossing(&mut self, from: u32, to: u32, bytes: usize) -> u64 {
        let jitter = self.fault(to, Fault::Jitter);
        let at = self.at;
        let way = self.ways.of(from, to);
        let leaves = match way.link.bytes_per_second {
            None => at,
            Some(per_second) => {
                let takes = bytes as u64 * 1_000_000_000 / per_second;
                way.free_at = way.free_at.max(at) + takes;
                way.free_at
            }
        };
        let latency = &way.link.latency;
        let mut time = if latency.end > latency.start {
            self.network.between(latency.start, latency.end - 1)
        } else {
            latency.start
        };
        if jitter {
            time += self.dice.of(Fault::Jitter).below(10 * time + 1);
        }
        // Never at the very time: an effect comes after its cause.
        leaves + time.max(1)
    }

    // ---- data ----

    /// Sends what the peer's window lets leave.
    fn pump(&mut self, id: Id) {
        let host = self.host_of(id);
        loop {
            let Some(tcp) = self.tcp_mut(id) else { return };
            if tcp.end.progress != Progress::Connected || !tcp.end.has_to_send() {
                return;
            }
            let mut most = SEGMENT;
            if self.fault(host, Fault::SmallSegments) {
                let rng = self.dice.of(Fault::SmallSegments);
                let bits = rng.between(0, 6);
                most = rng.between(1, 1 << bits) as usize;
            }
            let Some(tcp) = self.tcp_mut(id) else { return };
            let Some((bytes, marked, end)) = tcp.end.next_to_send(most) else { return };
            if self.fault(host, Fault::Resets) {
                return self.reset(id);
            }
            let urgent = marked || !bytes.is_empty() && self.fault(host, Fault::Urgent);
            self.transmit(id, Segment::Data { bytes, urgent, end });
        }
    }

    /// Puts a segment on its way to the other end.
    fn transmit(&mut self, from: Id, segment: Segment) {
        let host = self.host_of(from);
        let Some(other) = self.tcp(from).and_then(|tcp| tcp.other) else { return };
        if !self.hosts[host as usize].up {
            return; // the machine has stopped
        }
        if self.sock(other).is_none() {
            return self.start_probing(from);
        }
        let to = self.host_of(other);
        let len = match &segment {
            Segment::Data { bytes, .. } => bytes.len() + 40,
            Segment::Reset => 40,
        };
        let mut at = match self.packet(host, to, len) {
            Some(at) => at,
            None => {
                // TCP notices and sends it again; that may be lost, too.
                let mut late = RETRANSMISSION;
                for _ in 0..4 {
                    if self.network.chance(500_000) {
                        break;
                    }
                    late *= 2;
                }
                self.crossing(host, to, len) + late
            }
        };
        let Some(tcp) = self.tcp_mut(other) else { return };
        if let Some(&(before, _)) = tcp.end.incoming.back() {
            at = at.max(before);
        }
        tcp.end.incoming.push_back((at, segment));
        self.send_at(to, at, Arrival::Segment(other));
    }

    pub(super) fn segment_arrives(&mut self, id: Id) {
        let at = self.at;
        let host = self.host_of(id);
        let other = self.tcp(id).and_then(|tcp| tcp.other);
        let Some(tcp) = self.tcp_mut(id) else { return };
        let due = tcp.end.incoming.front().is_some_and(|&(due, _)| due <= at);
        if !due || tcp.end.stalled_until > at {
            return;
        }
        // A partition: the sender repeats it, at longer and longer intervals.
        if let Some(from) = other.filter(|&other| self.sock(other).is_some()) {
            let from = self.host_of(from);
            if self.ways.of(from, host).blocked_until > at {
                return self.stall(id, other);
            }
        }
        let Some(tcp) = self.tcp_mut(id) else { return };
        tcp.end.stalls = 0;
        let Some((_, segment)) = tcp.end.incoming.pop_front() else { return };
        self.events += 1;
        match segment {
            Segment::Reset => self.reset_arrives_at(id),
            Segment::Data { bytes, urgent, end } => self.data_arrives(id, &bytes, urgent, end),
        }
    }

    /// What is on its way waits for its next repetition.
    fn stall(&mut self, id: Id, other: Option<Id>) {
        let host = self.host_of(id);
        let Some(tcp) = self.tcp_mut(id) else { return };
        let stalls = tcp.end.stalls;
        tcp.end.stalls += 1;
        if stalls >= RETRIES {
            // The sender gives up; this end never learns of it.
            tcp.end.incoming.clear();
            if let Some(other) = other {
                self.fail(other, ErrorKind::TimedOut);
            }
            return;
        }
        let again = self.at + back_off(RETRANSMISSION, stalls, self);
        let Some(tcp) = self.tcp_mut(id) else { return };
        tcp.end.stalled_until = again;
        // Everything behind it arrives with it: each has an arrival of its own.
        let waiting = tcp.end.incoming.len();
        for segment in &mut tcp.end.incoming {
            segment.0 = segment.0.max(again);
        }
        for _ in 0..waiting {
            self.send_at(host, again, Arrival::Segment(id));
        }
    }

    fn data_arrives(&mut self, id: Id, bytes: &[u8], urgent: bool, end: bool) {
        let host = self.host_of(id);
        let label = self.label(id);
        let contents = of_bytes(bytes);
        let Some(tcp) = self.tcp_mut(id) else { return };
        let other = tcp.other;
        if tcp.end.error.is_some() {
            return;
        }
        if !tcp.end.open && tcp.listener.is_none() && !bytes.is_empty() {
            // Nobody will ever read it: the close was a promise to read no more.
            self.reset(id);
            return;
        }
        tcp.end.receive(bytes, urgent, end);
        let closed = !tcp.end.open && tcp.listener.is_none();
        if !bytes.is_empty() {
            self.note_with(host, Event::Arrives(label, bytes.len() as u32), contents);
            self.send_ack(id);
        }
        if end {
            self.note(host, Event::EndArrives(label));
            self.end_was_delivered(other);
        }
        if closed {
            self.free_if_over(id);
        } else {
            self.edge(id);
        }
    }

    /// The peer's system has the end: a closed socket that had nothing else to do is gone.
    fn end_was_delivered(&mut self, sender: Option<Id>) {
        let Some(sender) = sender else { return };
        if let Some(tcp) = self.tcp_mut(sender) {
            tcp.end.end_delivered = true;
        }
        self.free_if_over(sender);
    }

    fn free_if_over(&mut self, id: Id) {
        let Some(tcp) = self.tcp(id) else { return };
        if !tcp.end.open && tcp.listener.is_none() && tcp.end.end_delivered {
            self.free_tcp(id);
        }
    }

    fn free_tcp(&mut self, id: Id) {
        let host = self.host_of(id);
        let Some(tcp) = self.tcp(id) else { return };
        let port = tcp.holds_port.then(|| port(&tcp.local));
        // What is on its way here meets no socket: its sender gets a reset.
        let unheard = tcp.end.incoming.iter().any(|(_, segment)| segment.has_bytes());
        let other = tcp.other.filter(|_| unheard);
        if let Some(port) = port {
            let ports = &mut self.hosts[host as usize].tcp_ports;
            if let Some(count) = ports.get_mut(&port) {
                *count -= 1;
                if *count == 0 {
                    ports.remove(&port);
                }
            }
        }
        self.remove_sock(id);
        if let Some(other) = other {
            self.start_probing(other);
        }
    }

    /// Acknowledges what has arrived and says how much more may come.
    fn send_ack(&mut self, from: Id) {
        let host = self.host_of(from);
        let Some(other) = self.tcp(from).and_then(|tcp| tcp.other) else { return };
        if self.sock(other).is_none() {
            return;
        }
        let to = self.host_of(other);
        // An acknowledgement that is lost is made good by the next one; it only comes later here.
        let mut at = self.crossing(host, to, 40);
        let blocked = self.ways.of(host, to).blocked_until;
        if blocked > self.at {
            at = at.max(blocked.saturating_add(RETRANSMISSION));
        }
        let Some(tcp) = self.tcp_mut(from) else { return };
        let ack = tcp.end.ack(at);
        let now = self.at.min(self.now);
        let Some(tcp) = self.tcp_mut(other) else { return };
        tcp.end.push_ack(ack, now);
        self.await_ack(other);
    }

    /// If the end waits for room or for the peer's window, its next acknowledgement is an arrival.
    fn await_ack(&mut self, id: Id) {
        let Some(tcp) = self.tcp_mut(id) else { return };
        let end = &mut tcp.end;
        if end.awaits_ack || !(end.no_space || end.is_window_limited()) {
            return;
        }
        let Some(at) = end.acks.front().map(|ack| ack.at) else { return };
        end.awaits_ack = true;
        let host = self.host_of(id);
        self.send_at(host, at, Arrival::Ack(id));
    }

    pub(super) fn ack_arrives(&mut self, id: Id) {
        let at = self.at;
        let Some(tcp) = self.tcp_mut(id) else { return };
        tcp.end.awaits_ack = false;
        tcp.end.take_acks(at);
        self.events += 1;
        self.pump(id);
        self.room_again(id);
        self.await_ack(id);
    }

    /// There may be room in the send buffer: an edge if the poll would report it.
    pub(super) fn room_again(&mut self, id: Id) {
        let Some(tcp) = self.tcp_mut(id) else { return self.udp_room_again(id) };
        if tcp.end.no_space && tcp.end.is_writable() {
            tcp.end.no_space = false;
            self.edge(id);
        }
    }

    // ---- resets ----

    /// This end resets the connection.
    pub(super) fn reset(&mut self, id: Id) {
        self.transmit(id, Segment::Reset);
        let Some(tcp) = self.tcp_mut(id) else { return };
        tcp.end.drop_unsent();
        if tcp.end.open || tcp.listener.is_some() {
            self.reset_arrives_at(id);
        } else {
            self.free_tcp(id);
        }
    }

    fn reset_arrives_at(&mut self, id: Id) {
        let host = self.host_of(id);
        let label = self.label(id);
        self.note(host, Event::ResetArrives(label));
        self.fail(id, ErrorKind::ConnectionReset);
    }

    /// The connection is dead at this end.
    fn fail(&mut self, id: Id, error: ErrorKind) {
        let host = self.host_of(id);
        let discards = self.dice.drawn.is_on(Fault::DiscardingResets)
            && self.fault(host, Fault::DiscardingResets);
        let Some(tcp) = self.tcp_mut(id) else { return };
        if !tcp.end.open && tcp.listener.is_none() {
            return self.free_tcp(id);
        }
        tcp.end.fail(error, discards);
        tcp.other = None;
        self.edge(id);
    }

    /// The other end vanished without a word: ask for a sign of life.
    pub(super) fn start_probing(&mut self, from: Id) {
        let host = self.host_of(from);
        let Some(tcp) = self.tcp_mut(from) else { return };
        if tcp.retries == 0 {
            tcp.retries = 1;
            let at = self.at + RETRANSMISSION / 4;
            self.send_at(host, at, Arrival::Probe { from, attempt: 1 });
        }
    }

    pub(super) fn probe(&mut self, from: Id, attempt: u32) {
        let host = self.host_of(from);
        let Some(tcp) = self.tcp(from) else { return };
        let Some(peer) = tcp.peer.socket_addr() else {
            return self.fail(from, ErrorKind::ConnectionReset);
        };
        let answers = self.owner_of(peer.ip(), host).filter(|&server| {
            self.hosts[server as usize].up
                && self.ways.of(host, server).blocked_until <= self.at
                && self.ways.of(server, host).blocked_until <= self.at
        });
        if answers.is_some() {
            // Its system knows no such connection.
            self.reset_arrives_at(from);
        } else if attempt >= RETRIES {
            self.fail(from, ErrorKind::TimedOut);
        } else {
            let at = self.at + back_off(RETRANSMISSION, attempt, self);
            self.send_at(host, at, Arrival::Probe { from, attempt: attempt + 1 });
        }
    }

    // ---- calls ----

    pub(super) fn read(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<usize> {
        self.call();
        let id = self.id(index);
        let host = self.host_of(id);
        let label = self.label(id);
        let other = self.tcp(id).and_then(|tcp| tcp.other);
        let peer_waits =
            other.and_then(|other| self.tcp(other)).is_some_and(|tcp| tcp.end.is_window_limited());
        let Some(tcp) = self.tcp_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        if tcp.end.progress == Progress::Connecting {
            return Err(self.would_block(id));
        }
        let count = tcp.end.read(buffer);
        if count > 0 || buffer.is_empty() {
            World::log_read(&mut tcp.read_log, &buffer[..count]);
            if tcp.end.has_window_news(peer_waits) {
                self.send_ack(id);
            }
            self.note(host, Event::Read(label, count as u32));
            self.hosts[host as usize].progress = true;
            return Ok(count);
        }
        if let Some(error) = tcp.end.error.take() {
            return Err(error.into());
        }
        if tcp.end.ended || tcp.end.is_dead() {
            self.hosts[host as usize].progress = true;
            return Ok(0);
        }
        Err(self.would_block(id))
    }

    pub(super) fn write(&mut self, index: u32, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.call();
        let id = self.id(index);
        let host = self.host_of(id);
        let at = self.at;
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        let short = all > 1 && self.fault(host, Fault::ShortWrites);
        let Some(tcp) = self.tcp_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        match tcp.end.progress {
            Progress::Connecting => return Err(self.would_block(id)),
            Progress::Failed if tcp.end.error.is_none() => return Err(ErrorKind::BrokenPipe.into()),
            _ => {}
        }
        if let Some(error) = tcp.end.error.take() {
            return Err(error.into());
        }
        if tcp.end.ending || tcp.end.is_dead() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        tcp.end.take_acks(at);
        let mut most = all;
        if short {
            most = self.dice.of(Fault::ShortWrites).between(1, all as u64 - 1) as usize;
        }
        let Some(tcp) = self.tcp_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        let taken = tcp.end.write(slices, most);
        if std::mem::take(&mut tcp.end.marks_next) && taken > 0 {
            tcp.end.mark_urgent();
        }
        let (no_space, third_free) = (tcp.end.no_space, tcp.end.is_writable());
        let label = tcp.label();
        if taken > 0 {
            self.note(host, Event::Write(label, taken as u32));
            self.hosts[host as usize].progress = true;
            self.pump(id);
        }
        self.await_ack(id);
        if no_space && third_free {
            // The system was short of memory and not of room in this buffer.
            let at = self.at + self.network.between(10_000, 1_000_000);
            self.send_at(host, at, Arrival::Room(id));
        }
        if taken == 0 && all > 0 { Err(self.would_block(id)) } else { Ok(taken) }
    }

    /// Writes a byte of urgent data (`MSG_OOB`, send(2)). It stays in the stream (`SO_OOBINLINE`).
    pub(super) fn write_urgent(&mut self, index: u32, byte: u8) -> io::Result<usize> {
        // Marked before it leaves: a write sends at once.
        let id = self.id(index);
        if let Some(tcp) = self.tcp_mut(id) {
            tcp.end.marks_next = true;
        }
        self.write(index, &[io::IoSlice::new(&[byte])])
    }

    pub(super) fn shutdown_write(&mut self, index: u32) -> io::Result<()> {
        self.call();
        let id = self.id(index);
        let Some(tcp) = self.tcp_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        if tcp.end.progress != Progress::Connected || tcp.end.is_dead() {
            return Err(ErrorKind::NotConnected.into());
        }
        tcp.end.ending = true;
        self.pump(id);
        self.await_ack(id);
        Ok(())
    }

    pub(super) fn take_error(&mut self, index: u32) -> Option<io::Error> {
        self.call();
        let id = self.id(index);
        self.tcp_mut(id)?.end.error.take().map(io::Error::from)
    }

    pub(super) fn peer_addr(&self, index: u32) -> io::Result<Address> {
        match self.tcp(self.id(index)) {
            Some(tcp) if tcp.is_connected() && !tcp.end.is_dead() => Ok(tcp.peer.clone()),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    pub(super) fn local_addr(&self, index: u32) -> io::Result<Address> {
        let tcp = self.tcp(self.id(index));
        tcp.map(|tcp| tcp.local.clone()).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    pub(super) fn set_resets_on_close(&mut self, index: u32) {
        self.call();
        if let Some(tcp) = self.tcp_mut(self.id(index)) {
            tcp.resets_on_close = true;
        }
    }

    pub(super) fn set_buffers(&mut self, index: u32, options: &SocketOptions) {
        self.call();
        if let Some(tcp) = self.tcp_mut(self.id(index)) {
            tcp.end.set_buffers(options.send_buffer, options.receive_buffer);
        }
    }

    /// close(2).
    pub(super) fn close(&mut self, index: u32) {
        self.call();
        let id = self.id(index);
        let Some(sock) = self.sock_mut(id) else { return };
        let host = sock.host;
        sock.token = usize::MAX;
        let label = self.label(id);
        self.note(host, Event::Closes(label));
        let descriptors = &mut self.hosts[host as usize].descriptors;
        *descriptors = descriptors.saturating_sub(1);
        match self.sock(id).map(|sock| &sock.kind) {
            Some(Kind::Tcp(_)) => self.close_stream(id),
            Some(Kind::Listener(_)) => self.close_listener(id),
            Some(Kind::Udp(_)) => self.close_udp(id),
            Some(Kind::Free) | None => {}
        }
    }

    fn close_stream(&mut self, id: Id) {
        let Some(tcp) = self.tcp_mut(id) else { return };
        tcp.end.open = false;
        tcp.read_log = None;
        let connected = tcp.end.progress == Progress::Connected && !tcp.end.is_dead();
        if !connected || tcp.other.is_none() {
            return self.free_tcp(id);
        }
        if tcp.resets_on_close || tcp.end.has_unread() {
            return self.reset(id);
        }
        tcp.end.ending = true;
        self.pump(id);
        self.await_ack(id);
        self.free_if_over(id);
    }

    fn close_listener(&mut self, id: Id) {
        let host = self.host_of(id);
        let Some(listener) = self.listener_mut(id) else { return };
        let (on, backlog) = (listener.on.clone(), std::mem::take(&mut listener.backlog));
        for waiting in backlog {
            if let Some(tcp) = self.tcp_mut(waiting) {
                tcp.listener = None;
                self.reset(waiting);
            }
        }
        let listeners = &mut self.hosts[host as usize];
        match on {
            Address::Ip(addr) => {
                if let Some(there) = listeners.listeners.get_mut(&addr.port()) {
                    there.retain(|&other| other != id);
                    if there.is_empty() {
                        listeners.listeners.remove(&addr.port());
                    }
                }
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                listeners.paths.remove(&path.unwrap_or_default());
            }
        }
        self.remove_sock(id);
    }

    // ---- what checks ask ----

    /// Whether this socket is ready for these kinds of input or output, and no poll will say so.
    pub(crate) fn is_lost(&self, index: u32, bits: u8) -> bool {
        let Some(sock) = self.sock(self.id(index)) else { return false };
        let Kind::Tcp(tcp) = &sock.kind else { return false };
        !sock.queued
            && sock.token != usize::MAX
            && tcp.bits() & bits != 0
            // Room after a write that was cut for want of memory is reported a little later.
            && !(bits == Ready::WRITABLE && tcp.end.no_space)
    }
}
