//! Names, addresses and ports of the simulated network.
//!
//! Host number n (from 1) has the addresses 10.0.0.n and fd00::n. Its name resolves to both, IPv4
//! first. `localhost`, 127.0.0.0/8 and ::1 are the host itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::world::World;
use crate::address::{Address, Named, Target};

/// The network of all hosts.
const V4: u32 = 0x0a00_0000;
const V6: u128 = 0xfd00 << 112;

pub(crate) fn v4(host: u32) -> Ipv4Addr {
    Ipv4Addr::from(V4 + host + 1)
}

pub(crate) fn v6(host: u32) -> Ipv6Addr {
    Ipv6Addr::from(V6 + u128::from(host) + 1)
}

/// An IPv4 address that is written as an IPv6 one, as itself.
pub(super) fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

impl World {
    /// Whose address it is, seen from this host.
    pub(super) fn owner_of(&self, ip: IpAddr, from: u32) -> Option<u32> {
        let number = match plain(ip) {
            ip if ip.is_loopback() || ip.is_unspecified() => return Some(self.home(from)),
            IpAddr::V4(ip) => u32::from(ip).checked_sub(V4)?,
            IpAddr::V6(ip) => u32::try_from(u128::from(ip).checked_sub(V6)?).ok()?,
        };
        let index = number.checked_sub(1)?;
        (index < self.hosts.len() as u32 && self.home(index) == index).then_some(index)
    }

    /// Whether a host may bind to this address.
    pub(super) fn is_own(&self, ip: IpAddr, host: u32) -> bool {
        let any_group = plain(ip).is_multicast();
        self.owner_of(ip, host) == Some(self.home(host)) || any_group
    }

    /// The address that a host is seen with by this peer.
    pub(super) fn source_for(&self, peer: IpAddr, host: u32) -> IpAddr {
        let host = self.home(host);
        match peer {
            IpAddr::V4(ip) if ip.is_loopback() || ip.is_unspecified() => {
                IpAddr::V4(Ipv4Addr::LOCALHOST)
            }
            IpAddr::V6(ip) if ip.is_loopback() || ip.is_unspecified() => {
                IpAddr::V6(Ipv6Addr::LOCALHOST)
            }
            IpAddr::V4(_) => IpAddr::V4(v4(host)),
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
                IpAddr::V6(v4(host).to_ipv6_mapped())
            }
            IpAddr::V6(_) => IpAddr::V6(v6(host)),
        }
    }

    /// The addresses of a target, as the simulated hosts see it. It costs no time.
    pub(super) fn resolve(&self, target: &Target) -> io::Result<Vec<Address>> {
        let name = match &target.0 {
            Named::Addresses(addresses) => {
                let found: Vec<_> = addresses.iter().copied().map(Address::Ip).collect();
                return if found.is_empty() { Err(nobody("(no address)")) } else { Ok(found) };
            }
            #[cfg(unix)]
            Named::Unix(path) => return Ok(vec![Address::Unix(Some(path.clone()))]),
            Named::Name(name) => name,
        };
        if name.starts_with('[') {
            let address = name.parse::<SocketAddr>();
            let address = address.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
            return Ok(vec![Address::Ip(address)]);
        }
        let Some((host, port)) = name.rsplit_once(':') else {
            return Err(invalid("invalid socket address"));
        };
        let port: u16 = port.parse().map_err(|_| invalid("invalid port value"))?;
        let ips: [IpAddr; 2] = if host == "localhost" {
            [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        } else if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![Address::Ip(SocketAddr::new(ip, port))]);
        } else {
            let index = self.host_named(host).ok_or_else(|| nobody(host))?;
            [v4(index).into(), v6(index).into()]
        };
        Ok(ips.into_iter().map(|ip| Address::Ip(SocketAddr::new(ip, port))).collect())
    }

    /// A port that nothing uses, in the order of their numbers.
    pub(super) fn ephemeral_port(&mut self, host: u32, udp: bool) -> io::Result<u16> {
        const FIRST: u16 = 49_152;
        let host = self.machine(host);
        for _ in 0..=u16::MAX - FIRST {
            let port = host.next_port;
            host.next_port = port.checked_add(1).unwrap_or(FIRST);
            let used = if udp {
                host.udp.contains_key(&port)
            } else {
                host.tcp_ports.contains_key(&port) || host.listeners.contains_key(&port)
            };
            if !used {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }
}

fn nobody(name: &str) -> io::Error {
    let what = format!("no host of this simulation is called {name:?}");
    io::Error::new(io::ErrorKind::NotFound, what)
}
