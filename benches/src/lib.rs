//! What the Rust servers of the arena share: arguments, the `ready` line, what the peers on tokio do alike, tidegate's
//! handlers, and (for the two peers that leave reading and writing to their user) the services themselves.

pub mod by_hand;
pub mod handlers;
pub mod on_tokio;
mod pages;
pub mod server;

pub use pages::{Pages, READ_SIZE};
