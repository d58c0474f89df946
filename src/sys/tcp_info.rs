//! What Linux knows of a TCP connection: asked through sock_diag(7), since no crate has a safe call of
//! getsockopt(2) with `TCP_INFO`. The answer has the same structure.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::{Nla, TcpInfo as SystemInfo};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::stats::TcpInfo;

/// An answer is below a thousand bytes.
const ANSWER: usize = 8192;

/// The socket that asks: made with the first question, and kept.
#[derive(Debug, Default)]
pub(crate) struct Diagnosis(Option<Socket>);

impl Diagnosis {
    /// Asks for one connection by its two addresses, which the system looks up in its table. It answers
    /// inside the call.
    pub(crate) fn of(&mut self, local: SocketAddr, peer: SocketAddr) -> io::Result<TcpInfo> {
        let socket = match &mut self.0 {
            Some(socket) => socket,
            none => none.insert(open()?),
        };
        let answered = ask(socket, local, peer);
        if answered.is_err() {
            self.0 = None; // what it may still hold would be taken for the next answer
        }
        answered
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

fn ask(socket: &Socket, local: SocketAddr, peer: SocketAddr) -> io::Result<TcpInfo> {
    let socket_id = SocketId {
        source_port: local.port(),
        destination_port: peer.port(),
        source_address: local.ip(),
        destination_address: peer.ip(),
        interface_id: match local {
            SocketAddr::V6(local) => local.scope_id(), // of a link-local address
            SocketAddr::V4(_) => 0,
        },
        cookie: [0xff; 8], // not known
    };
    let request = InetRequest {
        family: if local.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states: StateFlags::all(),
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut room = vec![0; ANSWER];
    let len = socket.recv(&mut &mut room[..], 0)?;
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&room[..len])
        .map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(answer)) => {
            // The look-up falls back to the listener of the port.
            if answer.header.socket_id.destination_port != peer.port() {
                return Err(gone());
            }
            let info = answer.nlas.iter().find_map(|part| match part {
                Nla::TcpInfo(info) => Some(told(info)),
                _ => None,
            });
            info.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no TCP_INFO in the answer"))
        }
        NetlinkPayload::Error(error) => match error.to_io() {
            e if e.kind() == ErrorKind::NotFound => Err(gone()),
            e => Err(e),
        },
        _ => Err(io::Error::new(ErrorKind::InvalidData, "an answer of another kind")),
    }
}

fn gone() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "the system has no such connection any more")
}

fn told(info: &SystemInfo) -> TcpInfo {
    let micros = |time: u32| Duration::from_micros(time.into());
    // The system has no shortest one yet.
    let least = if info.min_rtt == u32::MAX { 0 } else { info.min_rtt };
    TcpInfo {
        round_trip: micros(info.rtt),
        variation: micros(info.rttvar),
        least_round_trip: micros(least),
        retransmission_timeout: micros(info.rto),
        timeouts_in_a_row: info.retransmits,
        unacknowledged: info.unacked,
        lost: info.lost,
        retransmitted: info.total_retrans.into(),
        acknowledged_bytes: info.bytes_acked,
        unsent_bytes: info.notsent_bytes,
        congestion_window: info.snd_cwnd,
        segment_size: info.snd_mss,
        delivery_rate: info.delivery_rate,
    }
}
