//! Addresses: resolved, printed, told apart.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
#[cfg(unix)]
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::sys;

/// Where a peer is, or where this side is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A Unix socket: its path, or `None` for an unnamed one (the client's end, as a rule).
    #[cfg(unix)]
    Unix(Option<PathBuf>),
}

impl Address {
    /// The IP address and port; `None` of a Unix socket.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(addr) => Some(*addr),
            #[cfg(unix)]
            Address::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Address::Ip(addr)
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::SocketAddr> for Address {
    fn from(addr: std::os::unix::net::SocketAddr) -> Self {
        Address::Unix(addr.as_pathname().map(Path::to_path_buf))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(addr) => write!(f, "{addr}"),
            #[cfg(unix)]
            Address::Unix(Some(path)) => write!(f, "{}", path.display()),
            #[cfg(unix)]
            Address::Unix(None) => f.write_str("(unnamed Unix socket)"),
        }
    }
}

/// Addresses a user named, resolved at once; the error waits for the call that uses them, so that
/// builders need no `?` of their own.
#[derive(Debug)]
pub(crate) struct Resolved(Result<Vec<Address>, Error>);

impl Resolved {
    /// Resolves `addrs`. A name may ask the system's resolver, which blocks.
    pub(crate) fn ip<A: ToSocketAddrs + fmt::Debug>(addrs: &A) -> Self {
        Resolved(match sys::resolve(addrs) {
            Ok(found) => {
                let found: Vec<Address> = found.into_iter().map(Address::Ip).collect();
                if found.is_empty() {
                    Err(Error::new(
                        format!("cannot resolve {addrs:?}"),
                        io::Error::new(io::ErrorKind::NotFound, "no address belongs to it"),
                    ))
                } else {
                    Ok(found)
                }
            }
            Err(e) => Err(Error::new(
                format!("cannot resolve {addrs:?} (expected address:port, as in 127.0.0.1:8888)"),
                e,
            )),
        })
    }

    #[cfg(unix)]
    pub(crate) fn unix(path: &Path) -> Self {
        Resolved(Ok(vec![Address::Unix(Some(path.to_path_buf()))]))
    }

    /// No address at all: what was adopted has one already.
    pub(crate) fn none() -> Self {
        Resolved(Ok(Vec::new()))
    }

    pub(crate) fn into_addresses(self) -> Result<Vec<Address>, Error> {
        self.0
    }
}
