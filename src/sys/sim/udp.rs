//! UDP sockets of the simulated world.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::arrivals::Arrival;
use super::faults::Fault;
use super::names::plain;
use super::sockets::{Id, Kind};
use super::tcp::{fit, overlap};
use super::trace::{Event, of_bytes};
use super::world::World;
use crate::packet_info::{Ecn, PacketInfo};
use crate::socket_options::SocketOptions;
use crate::sys::errors::{message_too_long, no_descriptor_left};
use crate::sys::{Mark, Ready};

/// The most bytes that UDP carries over IPv4.
const MOST: usize = 65_507;

/// What a socket's buffers hold without an option, in bytes (`net.core.rmem_default`).
const BUFFER: usize = 212_992;

/// What a datagram takes of a receive buffer beside its bytes.
const OVERHEAD: usize = 256;

/// What the headers of a datagram take on the wire.
const HEADERS: usize = 28;

/// A datagram on its way.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    to: SocketAddr,
    from: SocketAddr,
    sender: Id,
    ecn: Option<Ecn>,
    bytes: Vec<u8>,
}

/// A datagram that has arrived.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) from: SocketAddr,
    /// If the socket asked for it.
    pub(crate) info: Option<PacketInfo>,
}

#[derive(Debug)]
pub(super) struct UdpSocket {
    on: SocketAddr,
    only_v6: bool,
    reuse: bool,
    peer: Option<SocketAddr>,
    queue: VecDeque<Received>,
    tells_info: bool,
    queued: usize,
    receive_buffer: usize,
    send_buffer: usize,
    /// An ICMP error about an earlier datagram.
    error: Option<ErrorKind>,
    /// A send was refused for want of room.
    no_space: bool,
    memberships: BTreeSet<IpAddr>,
    loops: bool,
    broadcast: bool,
}

impl UdpSocket {
    pub(super) fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        (Some(self.on), self.peer)
    }

    pub(super) fn bits(&self) -> u8 {
        let readable = !self.queue.is_empty() || self.error.is_some();
        let mut bits = if readable { Ready::READABLE } else { 0 };
        if !self.no_space {
            bits |= Ready::WRITABLE;
        }
        if self.error.is_some() {
            bits |= Ready::ERROR;
        }
        bits
    }
}

impl World {
    fn udp(&self, id: Id) -> Option<&UdpSocket> {
        match &self.sock(id)?.kind {
            Kind::Udp(udp) => Some(udp),
            _ => None,
        }
    }

    fn udp_mut(&mut self, id: Id) -> Option<&mut UdpSocket> {
        match &mut self.sock_mut(id)?.kind {
            Kind::Udp(udp) => Some(udp),
            _ => None,
        }
    }

    pub(super) fn bind_udp(
        &mut self,
        host: u32,
        on: SocketAddr,
        peer: Option<SocketAddr>,
        options: &SocketOptions,
    ) -> io::Result<u32> {
        self.call();
        if !self.take_own_descriptor(host) {
            return Err(no_descriptor_left());
        }
        let opened = self.open_udp(host, on, peer, options);
        if opened.is_err() {
            self.machine(host).descriptors -= 1;
        }
        opened
    }

    fn open_udp(
        &mut self,
        host: u32,
        mut on: SocketAddr,
        peer: Option<SocketAddr>,
        options: &SocketOptions,
    ) -> io::Result<u32> {
        if !self.is_own(on.ip(), host) {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        let only_v6 = options.chosen_only_v6().unwrap_or(false);
        let reuse = options.reuse_port || options.reuse_address;
        if on.port() == 0 {
            on.set_port(self.ephemeral_port(host, true)?);
        } else {
            let others = self.hosts[self.home(host) as usize].udp.get(&on.port());
            for &other in others.into_iter().flatten() {
                let Some(other) = self.udp(other) else { continue };
                let shared = reuse && other.reuse;
                if !shared && overlap((on.ip(), only_v6), (other.on.ip(), other.only_v6)) {
                    return Err(ErrorKind::AddrInUse.into());
                }
            }
        }
        if let Some(peer) = peer {
            let mixed = on.is_ipv4() && peer.is_ipv6();
            if mixed || on.is_ipv6() && peer.is_ipv4() {
                let what = "connecting: the peer's address is of another family";
                return Err(io::Error::new(ErrorKind::InvalidInput, what));
            }
            if on.ip().is_unspecified() {
                on.set_ip(self.source_for(peer.ip(), host));
            }
        }
        let socket = UdpSocket {
            on,
            only_v6,
            reuse,
            peer,
            queue: VecDeque::new(),
            tells_info: false,
            queued: 0,
            receive_buffer: options.receive_buffer.unwrap_or(BUFFER),
            send_buffer: options.send_buffer.unwrap_or(BUFFER),
            error: None,
            no_space: false,
            memberships: BTreeSet::new(),
            loops: options.multicast.looped.unwrap_or(true),
            broadcast: options.broadcast,
        };
        let id = self.add_sock(host, Kind::Udp(Box::new(socket)));
        self.machine(host).udp.entry(on.port()).or_default().push(id);
        Ok(id.index)
    }

    pub(super) fn udp_addr(&self, index: u32) -> io::Result<SocketAddr> {
        self.udp(self.id(index)).map(|udp| udp.on).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    pub(super) fn udp_peer(&self, index: u32) -> io::Result<SocketAddr> {
        let udp = self.udp(self.id(index));
        udp.and_then(|udp| udp.peer).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    #[cfg(feature = "packet-info")]
    pub(super) fn tell_packet_info(&mut self, index: u32) -> io::Result<()> {
        self.call();
        let id = self.id(index);
        self.udp_mut(id).ok_or(ErrorKind::NotConnected)?.tells_info = true;
        Ok(())
    }

    /// Joins or leaves a multicast group. Hosts have one interface, so that it need not be named.
    pub(super) fn membership(&mut self, index: u32, group: IpAddr, join: bool) -> io::Result<()> {
        self.call();
        let id = self.id(index);
        if !group.is_multicast() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let Some(udp) = self.udp_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        match (join, udp.memberships.contains(&group)) {
            (true, true) => Err(ErrorKind::AddrInUse.into()),
            (false, false) => Err(ErrorKind::AddrNotAvailable.into()),
            (true, false) => {
                udp.memberships.insert(group);
                Ok(())
            }
            (false, true) => {
                udp.memberships.remove(&group);
                Ok(())
            }
        }
    }

    // ---- sending ----

    pub(super) fn send_datagram(
        &mut self,
        index: u32,
        bytes: &[u8],
        to: Option<SocketAddr>,
        mark: Mark,
    ) -> io::Result<()> {
        self.call();
        let (local, ecn) = parts_of(mark);
        let id = self.id(index);
        let host = self.host_of(id);
        if local.is_some_and(|local| !self.is_own(local, host)) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no address of this host"));
        }
        let at = self.at;
        let Some(udp) = self.udp_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        if let Some(error) = udp.error.take() {
            return Err(error.into());
        }
        let to = to.or(udp.peer).ok_or_else(|| {
            io::Error::new(ErrorKind::InvalidInput, "no destination (EDESTADDRREQ)")
        })?;
        let (on, send_buffer, loops) = (udp.on, udp.send_buffer, udp.loops);
        if on.is_ipv4() != to.is_ipv4() {
            return Err(ErrorKind::InvalidInput.into());
        }
        if bytes.len() > MOST {
            return Err(message_too_long());
        }
        let ip = plain(to.ip());
        let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        if is_broadcast && !udp.broadcast {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let all = ip.is_multicast() || is_broadcast;
        let mut targets = Vec::new();
        if all {
            let hosts = (0..self.hosts.len() as u32).filter(|&other| self.home(other) == other);
            targets.extend(hosts.filter(|&other| loops || other != self.home(host)));
        } else {
            let target = self.owner_of(ip, host).ok_or(ErrorKind::NetworkUnreachable)?;
            if plain(on.ip()).is_loopback() && target != self.home(host) {
                return Err(ErrorKind::InvalidInput.into());
            }
            targets.push(target);
        }
        if let &[one] = &targets[..] {
            if bytes.len() > self.way(host, one).link.mtu {
                return Err(message_too_long());
            }
            // What waits for the link lies in the send buffer.
            let way = self.way(host, one);
            let per_second = way.link.bytes_per_second.unwrap_or(u64::MAX);
            let waits = way.free_at.saturating_sub(at);
            let waiting = (u128::from(waits) * u128::from(per_second) / 1_000_000_000) as usize;
            if waiting + bytes.len() > send_buffer.max(bytes.len()) {
                let room_at = at + waits / 2 + 1;
                if let Some(udp) = self.udp_mut(id)
                    && !std::mem::replace(&mut udp.no_space, true)
                {
                    self.send_at(host, room_at, Arrival::Room(id));
                }
                return Err(self.would_block(id));
            }
        }
        let label = self.label_of(host, Some(on), Some(to));
        self.hosts[host as usize].progress = true;
        self.hosts[host as usize].moved.datagrams_sent += 1;
        self.note(host, Event::Sends(label, bytes.len() as u32));
        let ip = match local {
            Some(local) => local,
            None if on.ip().is_unspecified() => self.source_for(to.ip(), host),
            None => on.ip(),
        };
        let from = SocketAddr::new(ip, on.port());
        for target in targets {
            if all && !self.wants_group(target, ip_of(to), to.port()) {
                continue;
            }
            let bytes = bytes.to_vec();
            self.send_packet(host, target, Packet { to, from, sender: id, ecn, bytes });
        }
        Ok(())
    }

    fn wants_group(&self, host: u32, group: IpAddr, port: u16) -> bool {
        let sockets = self.hosts[host as usize].udp.get(&port);
        sockets.into_iter().flatten().any(|&id| self.is_for(id, group).is_some())
    }

    /// A datagram whose source is whatever its sender says, as anybody can send them.
    pub(crate) fn inject(
        &mut self,
        host: u32,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.call();
        let target = self.owner_of(to.ip(), host).ok_or(ErrorKind::NetworkUnreachable)?;
        let label = self.label_of(host, Some(from), Some(to));
        self.note(host, Event::Sends(label, bytes.len() as u32));
        // No socket sends it, so that no error about it comes to one.
        let sender = Id::NOBODY;
        let bytes = bytes.to_vec();
        self.send_packet(host, target, Packet { to, from, sender, ecn: None, bytes });
        Ok(())
    }

    fn send_packet(&mut self, from: u32, to: u32, packet: Packet) {
        let size = packet.bytes.len() + HEADERS;
        let duplicates = self.way(from, to).link.duplicates;
        let twice = self.network.chance(duplicates) || self.fault(to, Fault::Duplicates);
        if twice && let Some(at) = self.packet(from, to, size) {
            self.send_at(to, at, Arrival::Datagram(Box::new(packet.clone())));
        }
        match self.packet(from, to, size) {
            Some(at) => {
                if self.is_connected_udp(packet.sender) && self.fault(to, Fault::IcmpErrors) {
                    self.send_at(from, at, Arrival::Icmp(packet.sender));
                }
                self.send_at(to, at, Arrival::Datagram(Box::new(packet)));
            }
            None => {
                let label = self.label_of(from, Some(packet.from), Some(packet.to));
                self.note(from, Event::DatagramLost(label, packet.bytes.len() as u32));
            }
        }
    }

    fn is_connected_udp(&self, id: Id) -> bool {
        self.udp(id).is_some_and(|udp| udp.peer.is_some())
    }

    pub(super) fn udp_room_again(&mut self, id: Id) {
        if let Some(udp) = self.udp_mut(id)
            && std::mem::take(&mut udp.no_space)
        {
            self.edge(id);
        }
    }

    // ---- receiving ----

    /// How well a socket fits a destination.
    fn is_for(&self, id: Id, to: IpAddr) -> Option<u8> {
        let udp = self.udp(id)?;
        let ip = plain(to);
        if ip.is_multicast() {
            let joined = udp.memberships.iter().any(|group| plain(*group) == ip);
            return joined.then_some(1);
        }
        if ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return udp.on.ip().is_unspecified().then_some(1);
        }
        fit(udp.on.ip(), udp.only_v6, to)
    }

    pub(super) fn datagram_arrives(&mut self, host: u32, packet: Packet) {
        self.events += 1;
        let to = packet.to;
        let sockets =
            self.hosts[self.home(host) as usize].udp.get(&to.port()).cloned().unwrap_or_default();
        let from_peer = |udp: &UdpSocket| match udp.peer {
            None => Some(0),
            Some(peer) => {
                let same = peer.port() == packet.from.port()
                    && plain(peer.ip()) == plain(packet.from.ip());
                same.then_some(1)
            }
        };
        let mut fitting: Vec<(u8, u8, Id)> = Vec::new();
        for id in sockets {
            if let Some(fit) = self.is_for(id, to.ip())
                && let Some(peer) = self.udp(id).and_then(from_peer)
            {
                fitting.push((peer, fit, id));
            }
        }
        let all = plain(to.ip()).is_multicast()
            || !plain(to.ip()).is_loopback() && {
                plain(to.ip()) == IpAddr::V4(Ipv4Addr::BROADCAST)
            };
        if all {
            for (_, _, id) in fitting {
                self.queue_datagram(id, packet.clone());
            }
            return;
        }
        let Some(best) = fitting.iter().map(|&(peer, fit, _)| (peer, fit)).max() else {
            return self.unreachable(host, packet.sender);
        };
        let best: Vec<Id> = fitting
            .into_iter()
            .filter(|&(peer, fit, _)| (peer, fit) == best)
            .map(|(_, _, id)| id)
            .collect();
        let chosen = best[usize::from(packet.from.port()) % best.len()];
        self.queue_datagram(chosen, packet);
    }

    /// No socket is there: the sender learns of it if its socket is connected.
    fn unreachable(&mut self, host: u32, sender: Id) {
        if !self.is_connected_udp(sender) {
            return;
        }
        let to = self.host_of(sender);
        if let Some(at) = self.packet(host, to, 56) {
            self.send_at(to, at, Arrival::Icmp(sender));
        }
    }

    pub(super) fn icmp_arrives(&mut self, id: Id) {
        self.events += 1;
        if let Some(udp) = self.udp_mut(id) {
            udp.error = Some(ErrorKind::ConnectionRefused);
            self.edge(id);
        }
    }

    fn queue_datagram(&mut self, id: Id, packet: Packet) {
        let Packet { to, from, ecn, bytes, .. } = packet;
        let host = self.host_of(id);
        let received = self.wall_at(Some(host), self.at);
        let Some(on) = self.udp(id).map(|udp| udp.on) else { return };
        let label = self.label_of(host, Some(on), Some(from));
        let Some(udp) = self.udp_mut(id) else { return };
        let len = bytes.len() as u32;
        if udp.queued + bytes.len() + OVERHEAD > udp.receive_buffer.max(OVERHEAD + bytes.len()) {
            return self.note(host, Event::DatagramLost(label, len));
        }
        let contents = of_bytes(&bytes);
        udp.queued += bytes.len() + OVERHEAD;
        // A socket of IPv6 sees IPv4 peers by their mapped addresses.
        let seen = |address| match (udp.on, address) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            (_, address) => address,
        };
        let (from, local) = (seen(from), Some(seen(to).ip()));
        let info = PacketInfo { local, interface: Some(1), ecn, received: Some(received) };
        udp.queue.push_back(Received { bytes, from, info: udp.tells_info.then_some(info) });
        self.note_with(host, Event::Datagram(label, len), contents);
        self.edge(id);
    }

    /// Takes up to `most` datagrams. Returns whether none is left, as far as a system tells: some
    /// bring many with a call and thereby show it, some bring one.
    pub(super) fn receive(
        &mut self,
        index: u32,
        arrivals: &mut Arrivals,
        most: usize,
    ) -> io::Result<bool> {
        self.call();
        arrivals.datagrams.clear();
        arrivals.active = true;
        let id = self.id(index);
        let host = self.host_of(id);
        let asked = self.network.between(1, most.min(32) as u64) as usize;
        let many = self.network.chance(500_000);
        let poll_like = self.hosts[host as usize].poll_like;
        let Some(udp) = self.udp_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        if let Some(error) = udp.error.take() {
            return Err(error.into());
        }
        if udp.queue.is_empty() {
            return Err(self.would_block(id));
        }
        let asked = if many { asked } else { 1 };
        while arrivals.datagrams.len() < asked {
            let Some(received) = udp.queue.pop_front() else { break };
            udp.queued -= received.bytes.len() + OVERHEAD;
            arrivals.datagrams.push(received);
        }
        self.hosts[host as usize].progress = true;
        self.hosts[host as usize].moved.datagrams_received += arrivals.datagrams.len() as u64;
        Ok(many && !poll_like && arrivals.datagrams.len() < asked)
    }

    /// Whether datagrams wait here that no poll will report.
    pub(crate) fn is_lost_datagram(&self, index: u32) -> bool {
        let Some(sock) = self.sock(self.id(index)) else { return false };
        matches!(&sock.kind, Kind::Udp(udp) if !udp.queue.is_empty()) && !sock.queued
    }

    pub(super) fn close_udp(&mut self, id: Id) {
        let host = self.host_of(id);
        let Some(port) = self.udp(id).map(|udp| udp.on.port()) else { return };
        let sockets = &mut self.machine(host).udp;
        if let Some(there) = sockets.get_mut(&port) {
            there.retain(|&other| other != id);
            if there.is_empty() {
                sockets.remove(&port);
            }
        }
        self.remove_sock(id);
    }
}

#[cfg(feature = "packet-info")]
fn parts_of(Mark { local, ecn, .. }: Mark) -> (Option<IpAddr>, Option<Ecn>) {
    (local.filter(|local| !local.is_unspecified()), ecn)
}

#[cfg(not(feature = "packet-info"))]
fn parts_of(Mark {}: Mark) -> (Option<IpAddr>, Option<Ecn>) {
    (None, None)
}

fn ip_of(address: SocketAddr) -> IpAddr {
    address.ip()
}

/// The datagrams of one call.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) active: bool,
    pub(crate) datagrams: Vec<Received>,
}
