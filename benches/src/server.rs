//! The command line of every server, and the line by which it tells that it listens.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
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

/// What lies between TCP and the service. Over WebSocket, a message is what is echoed, and a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Nothing.
    Plain,
    /// WebSocket.
    WebSocket,
    /// WebSocket, and the server takes `permessage-deflate` where it is offered.
    Deflate,
    /// TLS.
    Tls,
    /// WebSocket over TLS.
    Secure,
}

/// Whose cryptography TLS takes, where a server has the choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Crypto {
    /// ring, which is tidegate's default.
    #[default]
    Ring,
    /// aws-lc.
    AwsLc,
}

/// `--mode echo|chat|udp|train|sink --addr IP:PORT [--spin MILLISECONDS]`; port 0 lets the system choose. With layers
/// the mode is one of `ws-echo`, `deflate-chat`, `tls-sink`, `wss-chat` and so on, and TLS needs `--cert` and `--key`,
/// and may have `--crypto aws-lc`.
#[derive(Clone, Debug)]
pub struct Args {
    /// What to serve.
    pub mode: Mode,
    /// Over what.
    pub over: Over,
    /// Where to listen.
    pub addr: SocketAddr,
    /// How long to poll without sleeping; of the peers only tidegate has that mode.
    pub spin: Duration,
    /// The certificate, PEM; empty where there is none.
    pub cert: PathBuf,
    /// Its private key, PEM; empty where there is none.
    pub key: PathBuf,
    /// Of TLS.
    pub crypto: Crypto,
}

impl Args {
    /// Reads the command line of a server without layers; ends the process with a usage line where it is wrong.
    pub fn from_command_line() -> Self {
        Self::parse()
            .filter(|args| args.over == Over::Plain)
            .unwrap_or_else(|| usage("echo|chat|udp|train|sink", "[--spin MILLISECONDS]"))
    }

    /// The same for a server that speaks TCP over these layers.
    pub fn with_layers(overs: &[Over]) -> Self {
        let is_tcp = |args: &Self| !matches!(args.mode, Mode::Udp | Mode::Train);
        Self::parse().filter(|args| overs.contains(&args.over) && is_tcp(args)).unwrap_or_else(
            || {
                let names: Vec<_> = overs.iter().map(|over| over.prefix()).collect();
                let modes = format!("{}-echo|chat|sink", names.join("|"));
                usage(&modes, "[--cert FILE --key FILE [--crypto ring|aws-lc]]")
            },
        )
    }

    fn parse() -> Option<Self> {
        let mut spoken = None;
        let mut addr = None;
        let mut spin = Duration::ZERO;
        let (mut cert, mut key, mut crypto) = (PathBuf::new(), PathBuf::new(), Crypto::Ring);
        let mut words = std::env::args().skip(1);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            match name.as_str() {
                "--mode" => spoken = parse_mode(&value),
                "--addr" => addr = value.to_socket_addrs().ok().and_then(|mut found| found.next()),
                "--spin" => spin = Duration::from_millis(value.parse().unwrap_or(0)),
                "--cert" => cert = value.into(),
                "--key" => key = value.into(),
                "--crypto" => crypto = Crypto::parse(&value)?,
                _ => break,
            }
        }
        let (over, mode) = spoken?;
        Some(Self { mode, over, addr: addr?, spin, cert, key, crypto })
    }
}

fn usage(modes: &str, more: &str) -> ! {
    eprintln!("usage: --mode {modes} --addr IP:PORT {more}");
    std::process::exit(2);
}

/// What the command line calls a service over layers.
pub fn mode_name(over: Over, mode: Mode) -> String {
    match over.prefix() {
        "" => mode.name().to_owned(),
        prefix => format!("{prefix}-{}", mode.name()),
    }
}

fn parse_mode(name: &str) -> Option<(Over, Mode)> {
    let Some((prefix, mode)) = name.split_once('-') else {
        return Some((Over::Plain, Mode::parse(name)?));
    };
    let over = [Over::WebSocket, Over::Deflate, Over::Tls, Over::Secure]
        .into_iter()
        .find(|over| over.prefix() == prefix)?;
    Some((over, Mode::parse(mode)?))
}

impl Crypto {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "ring" => Some(Self::Ring),
            "aws-lc" => Some(Self::AwsLc),
            _ => None,
        }
    }
}

impl Over {
    fn prefix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::WebSocket => "ws",
            Self::Deflate => "deflate",
            Self::Tls => "tls",
            Self::Secure => "wss",
        }
    }

    /// Whether TLS is one of the layers.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Secure)
    }

    /// Whether WebSocket is one of the layers.
    pub fn has_websocket(self) -> bool {
        matches!(self, Self::WebSocket | Self::Deflate | Self::Secure)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_written() {
        for over in [Over::Plain, Over::WebSocket, Over::Deflate, Over::Tls, Over::Secure] {
            for mode in [Mode::Echo, Mode::Chat, Mode::Sink] {
                assert_eq!(parse_mode(&mode_name(over, mode)), Some((over, mode)));
            }
        }
        assert_eq!(parse_mode("tcp-echo"), None);
    }
}
