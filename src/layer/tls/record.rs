//! What can be read of a TLS record without any key: its header (RFC 8446 section 5.1), and that
//! something is no TLS at all.

/// The size of a record's header.
pub(super) const HEADER: usize = 5;

/// The largest record on the wire, its header included: 18 437 bytes (16 KiB of content, 2 KiB of
/// what TLS 1.2 allows a cipher to add, RFC 5246 section 6.2.3, and the header).
pub const RECORD_MAX: usize = HEADER + CONTENT_MAX;

const CONTENT_MAX: usize = 16 * 1024 + 2048;

pub(super) const WARNING: u8 = 1;
pub(super) const FATAL: u8 = 2;
pub(super) const CLOSE_NOTIFY: u8 = 0;
/// What OpenSSL says to an oversized handshake, too.
pub(super) const ILLEGAL_PARAMETER: u8 = 47;
pub(super) const DECODE_ERROR: u8 = 50;

/// What the first bytes say of the record that they begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// Less than a header.
    Short,
    /// A record of so many bytes, its header included.
    Record(usize),
    /// No TLS record begins so.
    Bad,
}

/// Reads the header at the front of `wire`.
pub(super) fn peek(wire: &[u8]) -> Header {
    let [kind, major, _, high, low, ..] = *wire else { return Header::Short };
    let content = usize::from(u16::from_be_bytes([high, low]));
    // 20 to 24: change_cipher_spec, alert, handshake, application_data, heartbeat. Only
    // application data may be empty.
    let good = (20..=24).contains(&kind)
        && major == 3
        && content < CONTENT_MAX
        && (content > 0 || kind == 23);
    if good { Header::Record(HEADER + content) } else { Header::Bad }
}

/// An alert in clear text (RFC 8446 section 6).
pub(super) fn plain_alert(level: u8, description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, level, description]
}

/// Says what a peer seems to talk instead of TLS.
pub(super) fn describe_foreign(wire: &[u8], by_client: bool) -> String {
    const METHODS: [&[u8]; 10] = [
        b"GET ", b"POST ", b"PUT ", b"HEAD ", b"PRI *", b"PATCH", b"DELET", b"OPTIO", b"CONNE",
        b"TRACE",
    ];
    let expected = if by_client { "a TLS ClientHello" } else { "a TLS ServerHello" };
    let shown = preview(wire);
    if METHODS.iter().any(|method| wire.starts_with(method)) {
        format!("expected {expected}, got an HTTP request without TLS: {shown} (an http:// URL?)")
    } else if wire.starts_with(b"HTTP/") {
        format!("expected {expected}, got an HTTP response without TLS: {shown} (the wrong port?)")
    } else if wire.starts_with(b"PROXY") || wire.starts_with(b"\r\n\r\n\0") {
        format!("expected {expected}, got a PROXY protocol header: {shown}")
    } else if wire[..HEADER.min(wire.len())].iter().all(|b| (b' '..=b'~').contains(b)) {
        format!("expected {expected}, got text: {shown} (does the peer talk TLS on this port?)")
    } else {
        format!("expected {expected}, got bytes that begin no TLS record: {shown}")
    }
}

/// The first line, 40 bytes of it at most, fit for a log.
fn preview(wire: &[u8]) -> String {
    let line = wire.split(|&b| b == b'\r' || b == b'\n').find(|l| !l.is_empty()).unwrap_or(wire);
    let cut = &line[..line.len().min(40)];
    format!("\"{}\"{}", cut.escape_ascii(), if cut.len() < line.len() { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        assert_eq!(peek(&[22, 3, 1, 0]), Header::Short);
        assert_eq!(peek(&[22, 3, 1, 0, 1]), Header::Record(6));
        assert_eq!(peek(&[23, 3, 3, 0, 0]), Header::Record(5));
        assert_eq!(peek(&[22, 3, 3, 0, 0]), Header::Bad);
        assert_eq!(peek(&[22, 3, 3, 0x47, 0xff]), Header::Record(RECORD_MAX - 1));
        assert_eq!(peek(&[22, 3, 3, 0x48, 0]), Header::Bad);
        assert_eq!(peek(b"GET /"), Header::Bad);
        assert_eq!(peek(&[22, 2, 0, 0, 1]), Header::Bad);
    }

    #[test]
    fn foreign_protocols_are_named_and_nothing_unprintable_is_quoted() {
        let text = describe_foreign(b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n", true);
        assert!(text.contains("HTTP request") && text.contains("GET /\\x1b[31m"), "{text}");
        assert!(!text.contains("Host"), "{text}");
        assert!(describe_foreign(b"SSH-2.0-x", false).contains("text: \"SSH-2.0-x\""));
        assert!(describe_foreign(&[0; 9], true).contains("no TLS record"));
        assert!(describe_foreign(&[b'A'; 900], true).len() < 200);
    }
}
