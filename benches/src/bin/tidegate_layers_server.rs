//! The tidegate peer over WebSocket, TLS and both, as one would write it, every setting as by default. A program of
//! its own, so that the plain one is measured as it was: without layers in its code.

use arena::handlers::{Client, Member, Sink};
use arena::server::{self, Args, Crypto, Mode, Over};
use std::error::Error;
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
    let builder = TlsServerConfig::builder().certificate(cert, key);
    Ok(match args.crypto {
        Crypto::Ring => builder.build()?,
        Crypto::AwsLc => builder.aws_lc().build()?,
    })
}

/// A service whose unit is a message.
fn listen_for_messages<L: Layer + 'static>(
    net: &mut Net,
    args: &Args,
    layer: impl Fn() -> L + 'static,
) -> Result<Token, Box<dyn Error>> {
    let listen = Listen::tcp(args.addr).layer(move |_peer| layer());
    Ok(match args.mode {
        Mode::Echo => {
            net.listen(listen, |peer| Echo(Client::from(peer.address().socket_addr())))?
        }
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

/// Its unit is the message, of text or binary as it came.
struct Echo(Client);

impl Handler for Echo {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let bytes = input.take_all();
        self.0.had(bytes);
        cx.send(Message::new(input.kind(), bytes));
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_>, closed: &CloseInfo) {
        self.0.on_close(cx, closed);
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
