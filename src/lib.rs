//! A single-threaded reactor on `mio` readiness.

mod address;
mod config;
mod connect;
mod connection;
mod context;
mod core;
mod datagram;
mod error;
mod group;
mod guard;
mod handler;
pub mod layer;
mod listener;
mod net;
mod options;
mod reactor;
mod remote;
mod socket_options;
mod source;
mod sys;
mod timer;
mod timers;
mod token;

pub use address::Address;
pub use config::Config;
pub use connect::{Adopt, Connect};
pub use connection::Input;
pub use context::Context;
pub use core::SendStatus;
pub use datagram::{Interface, Udp};
pub use error::{BoxError, CloseReason, Closed, Deadline, Error, HandlerResult, Limit};
pub use group::Group;
pub use handler::{Datagram, DatagramError, DatagramHandler, Handler, Signal};
pub use layer::{Kind, Layer};
pub use listener::{Listen, ListenerStats, Peer};
pub use net::Net;
pub use options::{Overflow, StreamOptions};
pub use reactor::{Reactor, Report, Turn};
pub use remote::{PostError, Remote};
pub use socket_options::SocketOptions;
pub use source::Readiness;
pub use timers::Timer;
pub use token::Token;

/// The `mio` this crate is built on, for custom sources.
pub use mio;
