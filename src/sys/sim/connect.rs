//! Listening, accepting, connecting.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use super::arrivals::Arrival;
use super::faults::Fault;
use super::names::plain;
use super::sockets::{Id, Kind, Sock};
use super::stream::Progress;
use super::tcp::{
    ListenerSocket, SYN_RETRANSMISSION, SYN_RETRIES, TcpSocket, back_off, overlap, port,
};
use super::trace::Event;
use super::world::World;
use crate::address::Address;
use crate::socket_options::SocketOptions;
use crate::sys::errors::no_descriptor_left;

/// The answer to a SYN: whether connect(2) succeeds, and with whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) to: Id,
    verdict: Result<Id, ErrorKind>,
    server: u32,
    attempt: u32,
}

impl World {
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
            self.machine(host).descriptors -= 1;
        }
        opened
    }

    pub(super) fn open_listener(
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
                if self.machine(host).paths.contains_key(path) {
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
            handles: 1,
        };
        let id = self.add_sock(host, Kind::Listener(Box::new(listener)));
        let host = self.machine(host);
        match on {
            Address::Ip(addr) => host.listeners.entry(addr.port()).or_default().push(id),
            #[cfg(unix)]
            Address::Unix(path) => {
                host.paths.insert(path.unwrap_or_default(), id);
            }
        }
        Ok(id.index)
    }

    pub(super) fn port_to_listen_on(
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
        let others = self.hosts[self.home(host) as usize].listeners.get(&on.port());
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
        if !self.hosts[host as usize].raw && self.fault(host, Fault::AcceptErrors) {
            self.machine(host).descriptors -= 1;
            if let Some(tcp) = self.tcp_mut(id) {
                tcp.listener = None; // nobody will ever accept it
            }
            self.reset(id);
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let label = self.label(id);
        let Some(tcp) = self.tcp_mut(id) else {
            self.machine(host).descriptors -= 1;
            return Err(ErrorKind::ConnectionAborted.into());
        };
        tcp.listener = None;
        tcp.end.open = true;
        let peer = tcp.peer.clone();
        self.move_sock(id, host);
        self.note(host, Event::Accept(label));
        self.hosts[host as usize].moved.accepted += 1;
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
            self.machine(host).descriptors -= 1;
        }
        started
    }

    pub(super) fn connect_tcp(
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
        *self.machine(host).tcp_ports.entry(local.port()).or_default() += 1;
        let id = self.add_sock(host, Kind::Tcp(Box::new(tcp)));
        let label = self.label(id);
        self.note(host, Event::Connect(label));
        self.send_syn(id, 0);
        Ok(id.index)
    }

    pub(super) fn local_for(
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
            let stays = self.owner_of(to.ip(), host) == Some(self.home(host));
            if from.is_ipv4() != to.is_ipv4() || plain(from.ip()).is_loopback() && !stays {
                return Err(wrong(from, ErrorKind::InvalidInput));
            }
            if from.port() != 0 && self.is_connected_from(host, from, to) {
                return Err(ErrorKind::AddrNotAvailable.into());
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
            return self.connect_failed(from, ErrorKind::TimedOut);
        }
        match self.owner_of(to.ip(), host) {
            // No such host: the router says so.
            None => {
                let at = self.at + 1_000_000;
                let verdict = Err(ErrorKind::HostUnreachable);
                let answer = Answer { to: from, verdict, server: host, attempt: 0 };
                self.send_at(host, at, Arrival::Answer(answer));
            }
            Some(server) => match self.packet(host, server, 60) {
                Some(at) => self.send_at(server, at, Arrival::Syn { to, from, attempt }),
                None => self.send_syn_again(from, attempt),
            },
        }
    }

    pub(super) fn send_syn_again(&mut self, from: Id, attempt: u32) {
        if self.tcp(from).is_none() {
            return;
        }
        let at = self.at + back_off(SYN_RETRANSMISSION, attempt, self);
        self.send_at(self.host_of(from), at, Arrival::Again { from, attempt: attempt + 1 });
    }

    pub(super) fn syn_arrives(&mut self, host: u32, to: SocketAddr, from: Id, attempt: u32) {
        self.events += 1;
        let Some(tcp) = self.tcp(from) else { return };
        if tcp.end.progress != Progress::Connecting {
            return;
        }
        let (client_local, reader) = (tcp.local.clone(), tcp.end.window());
        let Some(listener) = self.listener_for(host, to, port(&client_local)) else {
            return self.answer(host, from, Err(ErrorKind::ConnectionRefused));
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
        // Known from now on: a partition may delay the answer behind what this end says.
        if let Some(tcp) = self.tcp_mut(from) {
            tcp.other = Some(id);
        }
        if let Some(l) = self.listener_mut(listener) {
            l.backlog.push_back(id);
        }
        self.edge(listener);
        self.answer(host, from, Ok(id));
    }

    fn answer(&mut self, server: u32, to: Id, verdict: Result<Id, ErrorKind>) {
        let client = self.host_of(to);
        let at = self.arrival_of(server, client, 60);
        if let Some(tcp) = self.tcp_mut(to) {
            // What the server says before is not sent until the client has confirmed the answer.
            tcp.end.not_before = at;
        }
        let answer = Answer { to, verdict, server, attempt: 0 };
        self.send_at(client, at, Arrival::Answer(answer));
    }

    /// The socket that a SYN is for. Of those that share a port the peer's port chooses one.
    pub(super) fn listener_for(&self, host: u32, to: SocketAddr, peer_port: u16) -> Option<Id> {
        let candidates = self.hosts[self.home(host) as usize].listeners.get(&to.port())?;
        let fit_of = |id: Id| match self.sock(id).map(|sock| &sock.kind) {
            Some(Kind::Listener(listener)) => listener.fit(to.ip()),
            _ => None,
        };
        let best = candidates.iter().filter_map(|&id| fit_of(id)).max()?;
        let best: Vec<Id> =
            candidates.iter().copied().filter(|&id| fit_of(id) == Some(best)).collect();
        Some(best[usize::from(peer_port) % best.len()])
    }

    pub(super) fn answer_arrives(&mut self, host: u32, answer: Answer) {
        let Answer { to, verdict, server, attempt } = answer;
        self.events += 1;
        if self.way(server, host).blocked_until > self.at {
            // The server repeats it, because the client repeats its SYN.
            if attempt <= SYN_RETRIES && self.tcp(to).is_some() {
                let at = self.at + back_off(SYN_RETRANSMISSION, attempt, self);
                let answer = Answer { attempt: attempt + 1, ..answer };
                return self.send_at(host, at, Arrival::Answer(answer));
            }
            if let Ok(peer) = verdict {
                self.send_reset(host, peer);
            }
            return self.connect_failed(to, ErrorKind::TimedOut);
        }
        let window = verdict.ok().and_then(|peer| self.tcp(peer)).map(|tcp| tcp.end.window());
        match (self.tcp_mut(to), verdict) {
            // It was given up meanwhile.
            (None, Ok(peer)) => self.send_reset(host, peer),
            (None, Err(_)) => {}
            (Some(tcp), Ok(peer)) if tcp.end.progress == Progress::Connecting => {
                tcp.end.progress = Progress::Connected;
                tcp.other = Some(peer);
                tcp.end.open_window(window.unwrap_or(1));
                let label = self.label(to);
                self.note(host, Event::Established(label));
                self.edge(to);
            }
            (Some(_), Ok(_)) => {}
            (Some(_), Err(why)) => self.connect_failed(to, why),
        }
    }

    fn connect_failed(&mut self, id: Id, why: ErrorKind) {
        let host = self.host_of(id);
        let Some(tcp) = self.tcp_mut(id) else { return };
        if tcp.end.progress != Progress::Connecting {
            return;
        }
        tcp.end.progress = Progress::Failed;
        tcp.end.error = Some(why);
        let label = self.label(id);
        self.note(host, Event::Refused(label));
        self.edge(id);
    }

    /// Whether a connection between these two addresses exists.
    fn is_connected_from(&self, host: u32, from: SocketAddr, to: SocketAddr) -> bool {
        let own = |sock: &&Sock| self.home(sock.host) == self.home(host);
        self.socks.iter().filter(own).any(|sock| match &sock.kind {
            Kind::Tcp(tcp) => {
                let local = tcp.local.socket_addr();
                tcp.peer.socket_addr() == Some(to)
                    && local.is_some_and(|local| local.port() == from.port())
            }
            _ => false,
        })
    }

    #[cfg(unix)]
    pub(super) fn connect_unix(
        &mut self,
        host: u32,
        path: Option<&std::path::Path>,
        options: &SocketOptions,
    ) -> io::Result<u32> {
        let path = path.ok_or(ErrorKind::InvalidInput)?;
        let listener = self.machine(host).paths.get(path).copied();
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
}
