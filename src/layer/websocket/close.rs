//! Closing (RFC 6455 sections 5.5.1 and 7.4): codes, and what a peer said with its own.

use super::fault::Fault;

/// The purpose of the connection is fulfilled.
pub(super) const NORMAL: u16 = 1000;
/// The peer broke the protocol.
pub(super) const PROTOCOL: u16 = 1002;
/// Text that is not UTF-8.
pub(super) const NOT_UTF8: u16 = 1007;
/// Over a limit.
pub(super) const TOO_BIG: u16 = 1009;

/// What the peer's Close frame said: a fact of the connection from then on
/// (`Layer::fact(TypeId::of::<PeerClose>())`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerClose {
    code: Option<u16>,
    reason: String,
}

impl PeerClose {
    /// Reads the payload of a Close frame.
    pub(super) fn parse(payload: &[u8]) -> Result<PeerClose, Fault> {
        let (code, reason) = match payload {
            [] => return Ok(PeerClose { code: None, reason: String::new() }),
            [_] => return Err(Fault::protocol("a Close frame with half of a code")),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        if !may_be_sent(code) {
            return Err(Fault::protocol(format!("a Close frame with the code {code}")));
        }
        let Ok(reason) = std::str::from_utf8(reason) else {
            return Err(Fault::not_utf8("the reason in a Close frame"));
        };
        Ok(PeerClose { code: Some(code), reason: reason.to_owned() })
    }

    /// The code, if there was one: 1000 for a normal end, 1001 for a page that was left, 3000 to
    /// 4999 for what libraries and programs agree on (RFC 6455 section 7.4).
    pub fn code(&self) -> Option<u16> {
        self.code
    }

    /// The reason: 123 bytes of text at most, and often none. It is the peer's word.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Codes that stand in frames. 1004 to 1006 and 1015 stand for things that no frame can say; 1012
/// to 1014 came later, by way of the IANA registry.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
