//! What the system's sockets have in common: readiness, their making, the addresses of a target.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
#[cfg(unix)]
use std::path::Path;

use mio::Interest;
#[cfg(unix)]
use socket2::SockAddr;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::Ready;
use crate::address::{Address, Named, Target};

/// mio's event as bits.
pub(super) fn ready(event: &mio::event::Event) -> Ready {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let bits = bit(event.is_readable(), Ready::READABLE)
        | bit(event.is_writable(), Ready::WRITABLE)
        | bit(event.is_read_closed(), Ready::READ_CLOSED)
        | bit(event.is_error(), Ready::ERROR)
        | bit(event.is_priority(), Ready::URGENT);
    Ready { token: event.token().0, bits }
}

/// Both directions for the whole life of a socket: edge-triggered readiness makes changes needless.
pub(super) fn interest() -> Interest {
    let both = Interest::READABLE | Interest::WRITABLE;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let both = both | Interest::PRIORITY;
    both
}

pub(super) const LINUX: bool = cfg!(any(target_os = "linux", target_os = "android"));

pub(super) fn domain_of(address: SocketAddr) -> Domain {
    Domain::for_address(address)
}

/// A new socket that does not block.
pub(super) fn socket(domain: Domain, ty: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    let socket = Socket::new(domain, ty, protocol)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A path as the system takes it. With a NUL byte inside it would be cut there and name another
/// file; an empty one would bind to a name that the system makes up (unix(7), "autobind"). A path that
/// begins with a NUL byte is a name of Linux's abstract namespace, in which every byte counts.
#[cfg(unix)]
pub(super) fn unix_address(path: &Path) -> io::Result<SockAddr> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    let is_abstract = LINUX && bytes.first() == Some(&0);
    let wrong = match bytes {
        [] => "an empty path names no socket",
        _ if !is_abstract && bytes.contains(&0) => "there is a NUL byte inside the path",
        _ => return SockAddr::unix(path),
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, wrong))
}

/// Sets close-on-exec, as every socket of this crate's own has it: a socket that was handed to this
/// process (socket activation) need not have it, and a child would keep it open.
#[cfg(unix)]
pub(super) fn keep_from_children(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_cloexec(true)
}

#[cfg(not(unix))]
pub(super) fn keep_from_children(_: &SockRef<'_>) -> io::Result<()> {
    Ok(())
}

/// A socket of the system has no place in a simulation.
pub(super) fn refuse_in_simulation() -> io::Result<()> {
    #[cfg(feature = "sim")]
    if super::sim::is_simulated() {
        return Err(super::sim::real("a socket of the system"));
    }
    Ok(())
}

/// The addresses of a target; at least one. A name asks the system's resolver, which blocks
/// (getaddrinfo(3)).
pub(crate) fn resolve(target: &Target) -> io::Result<Vec<Address>> {
    #[cfg(feature = "sim")]
    if super::sim::is_simulated() {
        return super::sim::resolve(target);
    }
    let found: Vec<Address> = match &target.0 {
        // Brackets are those of an IPv6 address: no resolver has to be asked about the rest.
        Named::Name(name) if name.starts_with('[') => {
            let address = name.parse::<SocketAddr>();
            let invalid = |e| io::Error::new(io::ErrorKind::InvalidInput, e);
            vec![Address::Ip(address.map_err(invalid)?)]
        }
        Named::Name(name) => name.to_socket_addrs()?.map(Address::Ip).collect(),
        Named::Addresses(addresses) => addresses.iter().copied().map(Address::Ip).collect(),
        #[cfg(unix)]
        Named::Unix(path) => vec![Address::Unix(Some(path.clone()))],
    };
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no address belongs to it"));
    }
    Ok(found)
}
