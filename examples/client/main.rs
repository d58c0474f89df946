//! Connects, sends what is typed, prints what arrives: over TCP, TLS, WebSocket, or WebSocket over
//! TLS. `wire.rs` chooses; the handler here is the same for all of them.
//!
//! Reading standard input blocks until there is some, and the reactor must not block. So a thread
//! reads it and posts each piece to the reactor through a `Remote`, then waits until it may read on.
//! A server that reads slowly slows down the thread, and with it the program that writes into our
//! standard input. No more than a piece or two is ever in memory.

#[path = "../support/mod.rs"]
mod support;
mod wire;

use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;
use std::sync::mpsc;

use tidegate::layer::websocket::PeerClose;
use tidegate::{
    CloseInfo, CloseReason, Connect, Context, Handler, HandlerResult, Input, Notification, Reactor,
    Remote, SendStatus, StreamOptions, Token,
};

const HELP: &str = "client - connects, sends what is typed, prints what arrives

Usage: cargo run --release --example client [ADDRESS] [OPTIONS]
                                                           (default 127.0.0.1:8888)
    --fingerprint SHA256  over TLS: the certificate to trust, as chat and tls_echo print it
    --ca FILE             over TLS: or whose certificates to trust, PEM
    --ws PATH             over WebSocket, and what to ask for there (say, /): each line typed is a
                          message of text, and each message is printed as a line
    --binary              its messages are binary: what is typed and what comes stays as it is
    --deflate             offer to compress them (permessage-deflate)

It works with the chat example and with any TCP server. The end of the input (Ctrl-D) is passed on
to the server; the client ends when the server has ended too:

    printf 'Hello, world!' | cargo run --release --example client

WebSocket has no half of an end: there the end of the input closes the connection.";

/// A longer line is sent in pieces: what a server takes as one message by default, as a rule.
const LONGEST_LINE: u64 = 1 << 20;

/// What went wrong, if anything did. It is the reactor's shared state, so that `main` can see it.
type Failure = Option<String>;

/// What a piece of input is, on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pieces {
    /// Whatever is there, as it is.
    Bytes,
    /// A line, without its end.
    Lines,
}

/// What the thread has read.
enum Typed {
    Bytes(Vec<u8>),
    End,
    Failed(io::Error),
}

struct Client {
    address: String,
    pieces: Pieces,
    /// Lets the thread read on. The thread starts when the connection is established.
    read_on: Option<mpsc::Sender<()>>,
}

impl Client {
    fn read_on(&self) {
        if let Some(read_on) = &self.read_on {
            let _thread_has_ended = read_on.send(());
        }
    }
}

impl Handler<Failure> for Client {
    fn on_open(&mut self, cx: &mut Context<'_, Failure>) -> HandlerResult {
        let (read_on, wait) = mpsc::channel();
        self.read_on = Some(read_on);
        let (remote, connection) = (cx.net.remote(), cx.token);
        let pieces = self.pieces;
        std::thread::Builder::new()
            .spawn(move || read_input(pieces, &remote, connection, &wait))?;
        Ok(())
    }

    /// Something from the thread.
    fn on_notify(&mut self, cx: &mut Context<'_, Failure>, signal: Notification) -> HandlerResult {
        match signal.take::<Typed>() {
            Ok(Typed::Bytes(bytes)) => {
                match cx.send(bytes) {
                    // `on_drain` will come, and then there is room for more.
                    SendStatus::AboveHighWater => {}
                    SendStatus::Unencodable => {
                        return Err("expected lines of UTF-8 (or --binary), got other bytes".into());
                    }
                    _ => self.read_on(),
                }
            }
            // We have said everything, and still listen.
            Ok(Typed::End) => cx.half_close(),
            Ok(Typed::Failed(e)) => return Err(format!("cannot read standard input: {e}").into()),
            Err(_) => {}
        }
        Ok(())
    }

    fn on_drain(&mut self, _cx: &mut Context<'_, Failure>) -> HandlerResult {
        self.read_on();
        Ok(())
    }

    /// Writing to a terminal or a pipe may wait. With a single connection that does no harm: while
    /// we wait here nothing is read, and the server is slowed down to what our output takes.
    fn on_data(&mut self, _cx: &mut Context<'_, Failure>, input: &mut Input<'_>) -> HandlerResult {
        let mut output = io::stdout().lock();
        let end: &[u8] = if self.pieces == Pieces::Lines { b"\n" } else { b"" };
        output
            .write_all(input.take_all())
            .and_then(|()| output.write_all(end))
            .and_then(|()| output.flush())
            .map_err(|e| format!("cannot write to standard output: {e}"))?;
        Ok(())
    }

    /// The server has ended. Over WebSocket it has said why (RFC 6455 section 7.4).
    fn on_eof(&mut self, cx: &mut Context<'_, Failure>) -> HandlerResult {
        if let Some(close) = cx.layer_info::<PeerClose>()
            && let Some(code) = close.code().filter(|code| !matches!(code, 1000 | 1001))
        {
            return Err(format!("the server closed with code {code}: {}", close.reason()).into());
        }
        cx.close();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Failure>, closed: &CloseInfo) {
        *cx.state = match &closed.reason {
            reason if reason.is_orderly() => None,
            CloseReason::ConnectFailed(e) => Some(e.to_string()),
            CloseReason::Handler(e) => Some(e.to_string()), // an error one of the above returned
            _ if self.read_on.is_none() => {
                Some(format!("cannot connect to {}: {closed}", self.address))
            }
            _ => Some(format!("lost the connection to {}: {closed}", self.address)),
        };
        cx.net.stop();
    }
}

/// The thread: reads pieces of the input, each after the one before has been dealt with.
fn read_input(
    pieces: Pieces,
    remote: &Remote<Failure>,
    connection: Token,
    wait: &mpsc::Receiver<()>,
) {
    loop {
        let typed = match read_piece(pieces) {
            Ok(None) => Typed::End,
            Ok(Some(piece)) => Typed::Bytes(piece),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => Typed::Failed(e),
        };
        let more = matches!(typed, Typed::Bytes(_));
        let handed_over = remote.notify(connection, typed).is_ok();
        // The wait fails when the connection is gone, and its handler with it.
        if !handed_over || !more || wait.recv().is_err() {
            return;
        }
    }
}

/// The next piece of standard input; `None` at its end.
fn read_piece(pieces: Pieces) -> io::Result<Option<Vec<u8>>> {
    let mut input = io::stdin().lock();
    let mut piece = Vec::new();
    let n = match pieces {
        Pieces::Bytes => {
            piece.resize(16 * 1024, 0);
            input.read(&mut piece)?
        }
        Pieces::Lines => input.take(LONGEST_LINE).read_until(b'\n', &mut piece)?,
    };
    piece.truncate(n);
    if pieces == Pieces::Lines && piece.ends_with(b"\n") {
        piece.pop();
    }
    Ok((n > 0).then_some(piece))
}

fn main() -> ExitCode {
    support::main_with_options(HELP, |arguments| {
        let options = wire::Options::from(arguments)?;
        let [address] = arguments.rest(["127.0.0.1:8888"])?;
        let pieces = options.pieces();
        let mut reactor = Reactor::with_state(None)?;
        // By default a connection is not read while its own queue is full, which stops a peer that
        // asks and never reads the answers. A client must do the opposite: go on reading while it
        // waits to send. Against a server with the default rule (echo, say) each side would
        // otherwise wait for the other to read. The thread already keeps our queue short.
        let mut connect = Connect::tcp(&*address).options(StreamOptions::new().auto_pause(false));
        if let Some(layer) = options.layer(&address)? {
            connect = connect.layer(layer);
        }
        reactor.net().connect(connect, Client { address, pieces, read_on: None })?;
        reactor.run()?;
        match reactor.state_mut().take() {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    })
}
