//! The tidegate peer over WebSocket, TLS and both, as one would write it, every setting as by default. A program of
//! its own, so that the plain one is measured as it was: without layers in its code.

use arena::server::{self, Args, Mode, Over};
use std::error::Error;
use std::net::SocketAddr;
use tidegate::layer::Layer;
use tidegate::layer::tls::{Pem, TlsServerConfig};
use tidegate::layer::websocket::WebSocket;
use tidegate::{
    CloseInfo, Context, Group, Handler, HandlerResult, Input, Listen, Message, Net, Reactor, Token,
};

fn main() -> Result<(), Box<dyn Error>> {
    let layers = [Over::WebSocket, Over::Deflate, Over::Tls, Over::Secure];
    let args = Args::with_layers(&layers);
    let mut reactor = Reactor::new()?;
    let net = reactor.net();
    let listener = match args.over {
        Over::Plain => unreachable!("not one of the layers"),
        Over::WebSocket | Over::Deflate => {
            let server = WebSocket::server().deflate(args.over == Over::Deflate);
            listen_for_messages(net, &args, move || server.layer())?
        }
        Over::Secure => {
            let (tls, server) = (certified(&args)?, WebSocket::server());
            listen_for_messages(net, &args, move || tls.layer().then(server.layer()))?
        }
        Over::Tls => {
            let tls = certified(&args)?;
            listen_for_bytes(net, &args, move || tls.layer())?
        }
    };
    let at = net
        .local_addr(listener)
        .and_then(|at| at.socket_addr())
        .ok_or("an IP socket has an address")?;
    server::ready(at);
    reactor.run()?;
    Ok(())
}

fn certified(args: &Args) -> Result<TlsServerConfig, Box<dyn Error>> {
    let (cert, key) = (Pem::file(&args.cert), Pem::file(&args.key));
    Ok(TlsServerConfig::builder().certificate(cert, key).build()?)
}

/// A service whose unit is a message.
fn listen_for_messages<L: Layer + 'static>(
    net: &mut Net,
    args: &Args,
    layer: impl Fn() -> L + 'static,
) -> Result<Token, Box<dyn Error>> {
    let listen = Listen::tcp(args.addr).layer(move |_peer| layer());
    Ok(match args.mode {
        Mode::Echo => net.listen(listen, |peer| Client::from(peer.address().socket_addr()))?,
        Mode::Chat => {
            let room = net.create_group();
            net.listen(listen, move |_peer| Talker { room })?
        }
        Mode::Sink | Mode::Udp | Mode::Train => return Err("no service of messages".into()),
    })
}

/// A service whose unit is the byte. The handlers are those of the plain server.
fn listen_for_bytes<L: Layer + 'static>(
    net: &mut Net,
    args: &Args,
    layer: impl Fn() -> L + 'static,
) -> Result<Token, Box<dyn Error>> {
    let listen = Listen::tcp(args.addr).layer(move |_peer| layer());
    Ok(match args.mode {
        Mode::Echo => net.listen(listen, |peer| Client::from(peer.address().socket_addr()))?,
        Mode::Sink => net.listen(listen, |_peer| Sink::default())?,
        Mode::Chat => {
            let room = net.create_group();
            net.listen(listen, move |_peer| Member { room })?
        }
        Mode::Udp | Mode::Train => return Err("no service of bytes".into()),
    })
}

/// As in the plain server: 48 bytes of who it is, and what it had.
struct Client {
    from: Option<SocketAddr>,
    messages: u64,
    bytes: u64,
}

const _: () = assert!(size_of::<Client>() == 48);

impl From<Option<SocketAddr>> for Client {
    fn from(from: Option<SocketAddr>) -> Self {
        Self { from, messages: 0, bytes: 0 }
    }
}

impl Handler for Client {
    /// One call is one message, of text or binary as it came; over TLS alone, what one turn decrypted.
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let bytes = input.take_all();
        self.messages += 1;
        self.bytes += bytes.len() as u64;
        cx.send(Message::new(input.kind(), bytes));
        Ok(())
    }

    fn on_close(&mut self, _cx: &mut Context<'_>, closed: &CloseInfo) {
        let Self { from, messages, bytes } = self;
        log::debug!("{from:?}: {bytes} bytes in {messages} messages, then {closed}");
    }
}

/// A member of a room whose lines are messages.
struct Talker {
    room: Group,
}

impl Handler for Talker {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.net.join(self.room, cx.token);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let line = Message::new(input.kind(), input.take_all());
        cx.net.publish_except(self.room, cx.token, line);
        Ok(())
    }
}

#[derive(Default)]
struct Sink {
    received: u64,
}

impl Handler for Sink {
    fn on_data(&mut self, _cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        self.received += input.take_all().len() as u64;
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.send(self.received.to_le_bytes());
        cx.close();
        Ok(())
    }
}

/// A member of a room whose lines end with a newline.
struct Member {
    room: Group,
}

impl Handler for Member {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.net.join(self.room, cx.token);
        Ok(())
    }

    /// Passes on the whole lines; the part of one stays in the input until its rest arrives.
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let whole = input.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        if let Some(lines) = input.take(whole).filter(|lines| !lines.is_empty()) {
            cx.net.publish_except(self.room, cx.token, lines);
        }
        Ok(())
    }
}
