//! What the Rust servers of the arena share: arguments, the `ready` line, and (for the two peers that leave reading
//! and writing to their user) the services themselves.

pub mod by_hand;
pub mod server;

/// One read takes a large message whole. Every peer that reads by hand uses this size, the C ones too.
pub const READ_SIZE: usize = 256 * 1024;
