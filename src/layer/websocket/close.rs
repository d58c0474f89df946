//! Closing (RFC 6455 sections 5.5.1 and 7.4): codes, and the Close frame of the peer.

use super::codes::{GOING_AWAY, INTERNAL, NORMAL, POLICY};
use super::fault::Fault;
use super::send::MAX_CONTROL;
use crate::layer::LayerEnd;

/// A Close frame carries a code of two bytes and this many bytes of text at most.
const MAX_REASON: usize = MAX_CONTROL - 2;

/// The payload of the Close frame for `end`: a code, and the text that the handler chose.
pub(super) fn payload(end: &LayerEnd<'_>) -> Vec<u8> {
    let (code, reason) = match *end {
        LayerEnd::Closed => (NORMAL, ""),
        LayerEnd::GoingAway | LayerEnd::TimedOut => (GOING_AWAY, ""),
        LayerEnd::HandlerFailed => (INTERNAL, ""),
        LayerEnd::LimitExceeded | LayerEnd::LayerFailed => (POLICY, ""),
        // No frame can carry that code, and text needs one.
        LayerEnd::Chosen { code, .. } if !may_be_sent(code) => return Vec::new(),
        LayerEnd::Chosen { code, reason } => (code, reason),
    };
    let mut payload = code.to_be_bytes().to_vec();
    // Cut between two characters: the text of a frame is UTF-8.
    let mut ends = (0..=reason.len().min(MAX_REASON)).rev();
    let end = ends.find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    payload
}

/// The content of the peer's Close frame: returned by `layer_info` once it has arrived
/// (`Layer::layer_info(TypeId::of::<PeerClose>())`).
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

    /// The reason: 123 bytes of text at most, and often none. The peer chose it, so it is
    /// untrusted.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Codes that a frame may carry. 1004 to 1006 and 1015 are never sent (RFC 6455 section 7.4.1); 1012
/// to 1014 came later, by way of the IANA registry.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
