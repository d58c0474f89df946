//! Addresses, and the targets that users give instead of them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
#[cfg(unix)]
use std::path::{Path, PathBuf};

/// The address of a peer, or a local address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A Unix socket: its path, or `None` for an unnamed one (usually the client's end).
    #[cfg(unix)]
    Unix(Option<PathBuf>),
}

impl Address {
    /// The IP address and port; `None` for a Unix socket.
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

/// Where to connect to or listen on, as the caller gave it: one address, several, a name with a
/// port, or the path of a Unix socket. It is resolved when it is used, not when it is made.
///
/// ```
/// use tidegate::Target;
///
/// let target = Target::from("example.org:443");
/// assert_eq!(target.to_string(), "example.org:443");
/// assert_eq!(Target::from(("::1", 80)).to_string(), "[::1]:80");
/// ```
///
/// An IPv6 zone is a number (`[fe80::1%2]:80`). Interface names (`%eth0`) are refused, because the
/// parser of the standard library refuses them; if_nametoindex(3) returns the number.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Target(pub(crate) Named);

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Named {
    /// `host:port`.
    Name(String),
    Addresses(Vec<SocketAddr>),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Target {
    /// Whether it is the path of a Unix socket.
    pub(crate) fn is_unix(&self) -> bool {
        #[cfg(unix)]
        if let Named::Unix(_) = self.0 {
            return true;
        }
        false
    }

    /// The Unix stream socket at `path`.
    #[cfg(unix)]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Target(Named::Unix(path.as_ref().to_path_buf()))
    }
}

#[cfg(feature = "backplane")]
impl Target {
    /// Whether no resolver has to be asked.
    pub(crate) fn is_address(&self) -> bool {
        !matches!(self.0, Named::Name(_))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Named::Name(name) => f.write_str(name),
            Named::Addresses(addresses) => {
                if addresses.is_empty() {
                    return f.write_str("(no address)");
                }
                for (index, address) in addresses.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{address}")?;
                }
                Ok(())
            }
            #[cfg(unix)]
            Named::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<&str> for Target {
    fn from(name: &str) -> Self {
        match name.parse::<SocketAddr>() {
            Ok(address) => address.into(),
            Err(_) => Target(Named::Name(name.to_owned())),
        }
    }
}

impl From<String> for Target {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl From<&String> for Target {
    fn from(name: &String) -> Self {
        name.as_str().into()
    }
}

impl From<(&str, u16)> for Target {
    fn from((host, port): (&str, u16)) -> Self {
        match host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port).into(),
            Err(_) => Target(Named::Name(format!("{host}:{port}"))),
        }
    }
}

impl From<(String, u16)> for Target {
    fn from((host, port): (String, u16)) -> Self {
        (host.as_str(), port).into()
    }
}

impl From<(IpAddr, u16)> for Target {
    fn from((ip, port): (IpAddr, u16)) -> Self {
        SocketAddr::new(ip, port).into()
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        vec![address].into()
    }
}

impl From<&[SocketAddr]> for Target {
    fn from(addresses: &[SocketAddr]) -> Self {
        addresses.to_vec().into()
    }
}

impl<const N: usize> From<[SocketAddr; N]> for Target {
    fn from(addresses: [SocketAddr; N]) -> Self {
        addresses.to_vec().into()
    }
}

impl<const N: usize> From<&[SocketAddr; N]> for Target {
    fn from(addresses: &[SocketAddr; N]) -> Self {
        addresses.to_vec().into()
    }
}

impl From<Vec<SocketAddr>> for Target {
    fn from(addresses: Vec<SocketAddr>) -> Self {
        Target(Named::Addresses(addresses))
    }
}
