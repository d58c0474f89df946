//! Close codes (RFC 6455, section 7.4.1).

/// The purpose of the connection is fulfilled.
pub(super) const NORMAL: u16 = 1000;
/// The process goes away, or gives an idle peer up.
pub(super) const GOING_AWAY: u16 = 1001;
/// The peer broke the protocol.
pub(super) const PROTOCOL: u16 = 1002;
/// Text that is not UTF-8.
pub(super) const NOT_UTF8: u16 = 1007;
/// The peer did what this side does not allow, and no other code is more exact.
pub(super) const POLICY: u16 = 1008;
/// Over a limit.
pub(super) const TOO_BIG: u16 = 1009;
/// This side failed.
pub(super) const INTERNAL: u16 = 1011;
