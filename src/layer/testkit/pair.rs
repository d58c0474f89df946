//! Two layers that talk to each other.

use super::super::{Delivery, Layer, MessageKind};
use super::driver::Driver;
use super::environment::Environment;

/// The limit on transmissions in one [`Pair::run`]: layers that reply to each other for ever are a
/// failure, not a hang.
const TRANSMISSIONS: usize = 100_000;

/// A client's layer and a server's, joined by a wire in memory.
///
/// ```
/// use tidegate::layer::testkit::Pair;
/// use tidegate::layer::{MessageKind, Lines};
///
/// let mut pair = Pair::new(Lines::new(), Lines::new()).chunks(3, usize::MAX);
/// pair.handshake();
/// pair.client.send(b"hello", MessageKind::Default)?;
/// pair.run();
/// assert_eq!(pair.server.take_messages(), [b"hello"]);
/// # Ok::<(), tidegate::layer::LayerError>(())
/// ```
#[derive(Debug)]
pub struct Pair<Client, Server> {
    /// The side whose layer was given first.
    pub client: Driver<Client>,
    /// The other side.
    pub server: Driver<Server>,
    to_server: usize,
    to_client: usize,
}

impl<Client: Layer, Server: Layer> Pair<Client, Server> {
    /// Starts both layers. Nothing passes between them before [`run`](Pair::run) or
    /// [`handshake`](Pair::handshake).
    pub fn new(client: Client, server: Server) -> Self {
        #[cfg(feature = "random")]
        // Two sides that drew the same numbers would hide mistakes.
        let environment = Environment::new().seed(1);
        #[cfg(not(feature = "random"))]
        let environment = Environment::new();
        Pair::of(Driver::new(client), Driver::within(environment, server))
    }

    /// Joins two drivers, for instance after a [`switch`](Driver::switch) on each side.
    pub fn of(client: Driver<Client>, server: Driver<Server>) -> Self {
        Pair { client, server, to_server: usize::MAX, to_client: usize::MAX }
    }

    /// How many bytes arrive at once at the server and at the client. All there are, by default.
    ///
    /// # Panics
    /// When one of them is 0.
    #[must_use]
    pub fn chunks(mut self, to_server: usize, to_client: usize) -> Self {
        assert!(to_server > 0 && to_client > 0, "a chunk has at least one byte");
        (self.to_server, self.to_client) = (to_server, to_client);
        self
    }

    /// Carries what each side sends to the other, a chunk each in turn, until both send nothing more.
    /// What an ended or failed side should still receive is dropped.
    ///
    /// # Panics
    /// When they never stop sending.
    pub fn run(&mut self) {
        let (mut up, mut down) = (Wire::default(), Wire::default());
        let mut sent = 0;
        loop {
            sent += usize::from(up.take(&mut self.client));
            sent += usize::from(down.take(&mut self.server));
            assert!(sent < TRANSMISSIONS, "the layers go on replying to each other");
            if up.is_empty() && down.is_empty() {
                return;
            }
            up.give(self.to_server, &mut self.server);
            down.give(self.to_client, &mut self.client);
        }
    }

    /// [`run`](Pair::run)s until both sides are ready.
    ///
    /// # Panics
    /// When one is not, with its error.
    pub fn handshake(&mut self) {
        self.run();
        assert!(
            self.client.is_ready() && self.server.is_ready(),
            "the handshake failed\n client: ready {}, error {:?}\n server: ready {}, error {:?}",
            self.client.is_ready(),
            self.client.error(),
            self.server.is_ready(),
            self.server.error()
        );
    }

    /// Sends the messages from each side to the other, both ways at once.
    ///
    /// # Panics
    /// When they cannot be sent, or do not arrive as they are.
    pub fn carries(&mut self, messages: &[&[u8]]) {
        for message in messages {
            self.client.send(message, MessageKind::Default).expect("the client can say it");
            self.server.send(message, MessageKind::Default).expect("the server can say it");
        }
        self.run();
        arrived("server", &mut self.server, messages);
        arrived("client", &mut self.client, messages);
    }

    /// Both sides end, the client first, then the wire.
    ///
    /// # Panics
    /// When a side takes that for an error.
    pub fn close(&mut self) {
        self.client.end();
        self.run();
        self.server.end();
        self.run();
        self.server.end_of_wire();
        self.client.end_of_wire();
        for (side, error) in [("client", self.client.error()), ("server", self.server.error())] {
            assert!(error.is_none(), "the {side} did not end in order: {error:?}");
        }
    }
}

fn arrived<L: Layer>(side: &str, driver: &mut Driver<L>, messages: &[&[u8]]) {
    let got = driver.take_messages();
    let same = match driver.layer().delivery() {
        Delivery::Stream => got.concat() == messages.concat(),
        Delivery::Messages => got == messages,
    };
    assert!(
        same,
        "the {side} did not get what was sent\n sent: {messages:?}\n got: {got:?}\n error: {:?}",
        driver.error()
    );
}

/// One direction: what was sent and has not arrived.
#[derive(Debug, Default)]
struct Wire {
    bytes: Vec<u8>,
    arrived: usize,
}

impl Wire {
    fn is_empty(&self) -> bool {
        self.arrived == self.bytes.len()
    }

    /// Takes what `from` sends. Returns whether that was anything.
    fn take<L: Layer>(&mut self, from: &mut Driver<L>) -> bool {
        let said = from.take_wire();
        if self.is_empty() {
            self.bytes.clear();
            self.arrived = 0;
        }
        self.bytes.extend_from_slice(&said);
        !said.is_empty()
    }

    fn give<L: Layer>(&mut self, most: usize, to: &mut Driver<L>) {
        let rest = &self.bytes[self.arrived..];
        let chunk = &rest[..rest.len().min(most)];
        self.arrived += chunk.len();
        if !chunk.is_empty() {
            to.feed(chunk);
        }
    }
}
