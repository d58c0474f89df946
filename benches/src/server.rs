//! The command line of every server, and the line by which it tells that it listens.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// The services that every peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// TCP: every byte comes back.
    Echo,
    /// TCP: every line (ended by a newline) goes to all other members.
    Chat,
    /// UDP: every datagram comes back.
    Udp,
    /// The same, for peers that send trains: a server may receive them as such (`UDP_GRO`).
    Train,
    /// TCP: discards; at the end of the input answers with the count, eight bytes, little-endian, and closes.
    Sink,
}

/// `--mode echo|chat|udp|train|sink --addr IP:PORT [--spin MILLISECONDS]`; port 0 lets the system choose.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// What to serve.
    pub mode: Mode,
    /// Where to listen.
    pub addr: SocketAddr,
    /// How long to poll without sleeping; of the peers only tidegate has that mode.
    pub spin: Duration,
}

impl Args {
    /// Reads the command line; ends the process with a usage line where it is wrong.
    pub fn from_command_line() -> Self {
        let mut mode = None;
        let mut addr = None;
        let mut spin = Duration::ZERO;
        let mut words = std::env::args().skip(1);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            match name.as_str() {
                "--mode" => mode = Mode::parse(&value),
                "--addr" => addr = value.to_socket_addrs().ok().and_then(|mut found| found.next()),
                "--spin" => spin = Duration::from_millis(value.parse().unwrap_or(0)),
                _ => break,
            }
        }
        let (Some(mode), Some(addr)) = (mode, addr) else {
            eprintln!(
                "usage: --mode echo|chat|udp|train|sink --addr IP:PORT [--spin MILLISECONDS]"
            );
            std::process::exit(2);
        };
        Self { mode, addr, spin }
    }
}

impl Mode {
    /// The mode of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "echo" => Self::Echo,
            "chat" => Self::Chat,
            "udp" => Self::Udp,
            "train" => Self::Train,
            "sink" => Self::Sink,
            _ => return None,
        })
    }

    /// The name that the command line takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Chat => "chat",
            Self::Udp => "udp",
            Self::Train => "train",
            Self::Sink => "sink",
        }
    }
}

/// Prints `ready ADDRESS`, the line that the runner waits for.
pub fn ready(addr: SocketAddr) {
    println!("ready {addr}");
    let _ = std::io::stdout().flush();
}
