//! What the Rust servers of the arena share: arguments, the `ready` line, and (for the two peers that leave reading
//! and writing to their user) the services themselves.

pub mod by_hand;
mod pages;
pub mod server;

pub use pages::{Pages, READ_SIZE};
