//! Connects, sends what is typed, prints what arrives.
//!
//! Reading standard input waits until somebody types, and the reactor must not wait. So a thread
//! reads it and hands what it reads to the reactor through a `Remote`. It hands over one piece and
//! waits for leave to go on; a server that reads slowly slows down the thread, and with it whoever
//! writes into our standard input, and no more than a piece or two ever lies in memory.

mod support;

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::mpsc;

use tidegate::{
    CloseReason, Closed, Connect, Context, Handler, HandlerResult, Input, Reactor, Remote,
    SendStatus, Signal, StreamOptions, Token,
};

const HELP: &str = "client - connects, sends what is typed, prints what arrives

Usage: cargo run --release --example client [ADDRESS]        (default 127.0.0.1:8888)

It works with the chat example and with any TCP server. The end of the input (Ctrl-D) is passed on
to the server; the client ends when the server has ended too:

    printf 'Hello, world!' | cargo run --release --example client";

/// What went wrong, if anything did. It is the reactor's shared state, so that `main` can see it.
type Failure = Option<String>;

/// What the thread has read.
enum Typed {
    Bytes(Vec<u8>),
    End,
    Failed(io::Error),
}

struct Client {
    address: String,
    /// Tells the thread to read on. There is a thread once the connection stands.
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
        let (remote, connection) = (cx.net.remote(), cx.token());
        std::thread::Builder::new().spawn(move || read_input(&remote, connection, &wait))?;
        Ok(())
    }

    /// Something from the thread.
    fn on_signal(&mut self, cx: &mut Context<'_, Failure>, signal: Signal) -> HandlerResult {
        match signal.take::<Typed>() {
            Ok(Typed::Bytes(bytes)) => {
                // Above the high mark: `on_drain` will come, and then there is room for more.
                if cx.send(bytes) != SendStatus::AboveHigh {
                    self.read_on();
                }
            }
            // We have said everything, and still listen.
            Ok(Typed::End) => cx.shutdown_write(),
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
        output
            .write_all(input.take_all())
            .and_then(|()| output.flush())
            .map_err(|e| format!("cannot write to standard output: {e}"))?;
        Ok(())
    }

    // There is no `on_eof`: when the server has ended, the default closes, which is what we want.

    fn on_close(&mut self, cx: &mut Context<'_, Failure>, closed: &Closed) {
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
fn read_input(remote: &Remote<Failure>, connection: Token, wait: &mpsc::Receiver<()>) {
    let mut buffer = [0; 16 * 1024];
    loop {
        let typed = match io::stdin().read(&mut buffer) {
            Ok(0) => Typed::End,
            Ok(n) => Typed::Bytes(buffer[..n].to_vec()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => Typed::Failed(e),
        };
        let more = matches!(typed, Typed::Bytes(_));
        let handed_over = remote.signal(connection, typed).is_ok();
        // The wait fails when the connection is gone, and its handler with it.
        if !handed_over || !more || wait.recv().is_err() {
            return;
        }
    }
}

fn main() -> ExitCode {
    support::main(HELP, ["127.0.0.1:8888"], |[address]| {
        let mut reactor = Reactor::with_state(None)?;
        // By default a connection is not read while its own queue is full, which stops a peer that
        // asks and never reads the answers. A client must do the opposite: go on reading while it
        // waits to send. Against a server with the default rule (echo, say) each side would
        // otherwise wait for the other to read. The thread already keeps our queue short.
        let connect = Connect::tcp(&*address).options(StreamOptions::new().auto_pause(false));
        reactor.net().connect(connect, Client { address, read_on: None })?;
        reactor.run()?;
        match reactor.state_mut().take() {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    })
}
