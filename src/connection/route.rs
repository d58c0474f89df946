//! Where a connection that does not stand yet may still go.

use crate::address::Address;

/// The addresses of a connect.
#[derive(Debug)]
pub(crate) struct Route {
    /// The addresses to try, the next one last.
    pub(crate) left: Vec<Address>,
    /// The one that is being tried.
    pub(crate) current: Option<Address>,
    /// The local address to connect from.
    pub(crate) from: Option<std::net::SocketAddr>,
    /// The tick by which it has to stand, all addresses together.
    pub(crate) deadline: u64,
}
