//! A single-threaded **reactor** on [`mio`] readiness (epoll, kqueue). You write a protocol once,
//! as a [`Handler`]; the reactor drives it over non-blocking TCP, Unix sockets and UDP, without an
//! async runtime.
//!
//! ```no_run
//! use tidegate::{Context, Handler, HandlerResult, Input, Reactor};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
//!         cx.send(input.take_all());
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut reactor = Reactor::new()?;
//!     reactor.net().listen("127.0.0.1:8888", |_peer| Echo)?;
//!     reactor.run()?;
//!     Ok(())
//! }
//! ```
//!
//! # The flow
//!
//! ```text
//! socket ─▶ the one read buffer ─▶ layers (decode) ─▶ Input ─▶ your Handler
//!                                                                   │ send, publish, close …
//! socket ◀─ one vectored write ◀─ output queue ◀─ layers (encode) ◀─┘ to any connection, by token
//! ```
//!
//! # Where to look
//!
//! - [`Handler`] and [`DatagramHandler`]: the callbacks and their order.
//! - [`Context`] and [`Net`]: the operations that a callback may use.
//! - [`Input`]: the bytes or the message that arrived.
//! - [`Listen`], [`Connect`], [`Adopt`], [`Udp`]: builders of sockets. [`StreamOptions`] and
//!   [`SocketOptions`]: limits, deadlines and socket options, each with its default.
//! - [`Reactor`]: the loop and the steps of one turn. [`Config`]: its budgets. [`Remote`]: a handle
//!   for other threads, [`Channel`] one for typed messages; [`Net::offload`] runs a job on one.
//! - [`Workers`]: several reactors on several threads, one port, topics that span them.
//! - [`CloseReason`]: why a connection ended.
//! - [`layer`]: wire formats, and the contract for a layer of your own.
//! - `backplane` (feature `backplane`): named groups that span processes, through Redis.
//! - `sim` (feature `sim`): a network in virtual time, to test a protocol against what real networks do.
//!
//! The guide, `docs/guide.md`, leads from the first program to a protocol of your own;
//! `docs/simulation.md` to tests of it.

mod address;
#[cfg(feature = "backplane")]
pub mod backplane;
mod channel;
mod config;
mod connect;
mod connection;
mod context;
#[cfg(feature = "cookies")]
mod cookies;
mod core;
mod datagram;
mod error;
mod guard;
mod handler;
pub mod layer;
mod listener;
mod message;
mod net;
mod notification;
mod options;
mod packet_info;
mod reactor;
mod remote;
mod session;
#[cfg(feature = "sim")]
pub mod sim;
mod socket_options;
mod source;
pub mod stats;
mod sys;
mod timer;
mod timers;
mod token;
#[cfg(feature = "sim")]
mod witness;
mod workers;

pub use address::{Address, Target};
pub use channel::Channel;
pub use config::Config;
pub use connect::{Adopt, Connect};
pub use connection::{Input, NewestStats, SendStatus};
pub use context::Context;
#[cfg(feature = "cookies")]
pub use cookies::Cookies;
pub use core::{GroupStats, ListenerStats, Published};
pub use datagram::Udp;
pub use error::{
    BoxError, CloseInfo, CloseReason, ConnectError, ConnectErrorKind, DatagramError, Deadline,
    Error, HandlerResult, Limit,
};
pub use handler::{Datagram, DatagramHandler, Handler, Relayed};
pub use layer::{Layer, MessageKind};
pub use listener::{Listen, ListeningSocket, Peer};
pub use message::{IntoMessage, Message};
pub use net::{JobPanicked, Net, OffloadError};
pub use notification::Notification;
pub use options::{Overflow, StreamOptions};
#[cfg(feature = "packet-info")]
pub use packet_info::SendTo;
pub use packet_info::{Ecn, PacketInfo};
pub use reactor::{Reactor, ShutdownReport};
pub use remote::{PostError, Remote};
pub use session::{Admission, Hello, SessionOptions, SessionStats};
pub use socket_options::{MulticastInterface, SocketOptions};
pub use source::Readiness;
pub use stats::{ConnectionStats, ReactorStats, SlowCallback};
pub use timers::Timer;
pub use token::{Group, Token};
pub use workers::{
    Balance, OnFailure, RunningWorkers, Undelivered, Worker, WorkerToken, Workers, WorkersHandle,
};

/// The `mio` this crate is built on, for custom sources.
pub use mio;

/// The programs of the README, of the guide and of the other documents are tests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/guide.md")]
    struct Guide;
    #[cfg(feature = "backplane")]
    #[doc = include_str!("../docs/backplane.md")]
    struct Backplane;
    #[cfg(feature = "sim")]
    #[doc = include_str!("../docs/simulation.md")]
    struct Simulation;
}
