//! The handlers of the tidegate peer whose unit is the byte: of the plain server, and of the one over TLS.

use std::net::SocketAddr;
use tidegate::{CloseInfo, Context, Group, Handler, HandlerResult, Input};

/// What a service keeps for a client as a rule: who it is, and what it had. 48 bytes, so that the memory of an idle
/// connection is measured with a handler that has state.
#[derive(Debug)]
pub struct Client {
    from: Option<SocketAddr>,
    reads: u64,
    bytes: u64,
}

const _: () = assert!(size_of::<Client>() == 48);

impl From<Option<SocketAddr>> for Client {
    fn from(from: Option<SocketAddr>) -> Self {
        Self { from, reads: 0, bytes: 0 }
    }
}

impl Client {
    /// It has sent that.
    #[inline]
    pub fn had(&mut self, bytes: &[u8]) {
        self.reads += 1;
        self.bytes += bytes.len() as u64;
    }
}

impl Handler for Client {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let bytes = input.take_all();
        self.had(bytes);
        cx.send(bytes);
        Ok(())
    }

    fn on_close(&mut self, _cx: &mut Context<'_>, closed: &CloseInfo) {
        let Self { from, reads, bytes } = self;
        log::debug!("{from:?}: {bytes} bytes in {reads} reads, then {closed}");
    }
}

/// Counts what comes, and answers with the count at the end.
#[derive(Debug, Default)]
pub struct Sink {
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
#[derive(Debug)]
pub struct Member {
    /// The room.
    pub room: Group,
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
