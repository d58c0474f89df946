//! Agreeing on `permessage-deflate` (RFC 7692 section 7.1).

use super::http::split_unquoted;

const DEFLATE: &str = "permessage-deflate";

/// What a client offers: no parameters. `client_max_window_bits` is left out because the
/// compressor has one window, of 32 KiB.
pub(super) const OFFER: &str = DEFLATE;

/// What both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreed {
    /// This side's compressor forgets each message (`server_no_context_takeover` on a server).
    pub(super) forget: bool,
    /// The peer's does: what it sends cannot refer to earlier messages.
    pub(super) peer_forgets: bool,
}

/// The parameters of one offer, or of the response.
#[derive(Debug, Default)]
struct Params {
    server_forgets: bool,
    client_forgets: bool,
    server_bits: Option<u8>,
    /// Whether it is there. Its value is a limit on the peer, which may use less than the window
    /// that this side has for it anyhow.
    client_bits: bool,
}

/// A server's choice among the offers, and the field that says so. An offer with anything in it
/// that cannot be kept is declined, as it must be (RFC 7692 section 7), and without any, messages are sent as
/// they are.
pub(super) fn choose<'a>(offers: impl Iterator<Item = &'a str>) -> Option<(Agreed, String)> {
    for offer in offers {
        let Some(params) = parse(offer) else { continue };
        // The compressor has one window, of 32 KiB; a peer with less room could not follow it.
        if params.server_bits.is_some_and(|bits| bits < 15) {
            continue;
        }
        let mut field = DEFLATE.to_owned();
        if params.server_forgets {
            field.push_str("; server_no_context_takeover");
        }
        if params.client_forgets {
            field.push_str("; client_no_context_takeover");
        }
        if params.server_bits.is_some() {
            field.push_str("; server_max_window_bits=15");
        }
        return Some((
            Agreed { forget: params.server_forgets, peer_forgets: params.client_forgets },
            field,
        ));
    }
    None
}

/// What a client reads in the response to [`OFFER`].
pub(super) fn accepted<'a>(mut extensions: impl Iterator<Item = &'a str>) -> Option<Agreed> {
    let params = parse(extensions.next()?)?;
    if extensions.next().is_some() || params.client_bits {
        return None;
    }
    Some(Agreed { forget: params.client_forgets, peer_forgets: params.server_forgets })
}

/// `permessage-deflate` with its parameters; none if it is another extension, or if a parameter is
/// unknown, twice there, or of a value that it cannot have.
fn parse(extension: &str) -> Option<Params> {
    let mut parts = split_unquoted(extension, ';');
    if !parts.next()?.eq_ignore_ascii_case(DEFLATE) {
        return None;
    }
    let mut params = Params::default();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquoted(value.trim())?)),
            None => (part, None),
        };
        match (name, value) {
            ("server_no_context_takeover", None) if !params.server_forgets => {
                params.server_forgets = true;
            }
            ("client_no_context_takeover", None) if !params.client_forgets => {
                params.client_forgets = true;
            }
            ("server_max_window_bits", Some(bits)) if params.server_bits.is_none() => {
                params.server_bits = Some(window_bits(bits)?);
            }
            ("client_max_window_bits", bits) if !params.client_bits => {
                if let Some(bits) = bits {
                    window_bits(bits)?;
                }
                params.client_bits = true;
            }
            _ => return None,
        }
    }
    Some(params)
}

/// A token, or what is in a quoted string; none if there is a quote elsewhere. (A string with an
/// escape in it is no value of any parameter here.)
fn unquoted(value: &str) -> Option<&str> {
    let inside = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    Some(inside.unwrap_or(value)).filter(|value| !value.contains('"'))
}

/// 8 to 15, without leading zeros (RFC 7692 section 7.1.2.1).
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok()?;
    ((8..=15).contains(&bits) && !value.starts_with(['0', '+'])).then_some(bits)
}
