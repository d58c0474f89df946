//! What the system knows of a TCP connection.

use std::fmt;
use std::time::Duration;

/// What the system knows of a TCP connection (`TCP_INFO`, tcp(7)); see
/// [`Net::tcp_info`](crate::Net::tcp_info). A plain value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// The round-trip time, smoothed over some tens of segments (RFC 6298). Zero before the first
    /// measurement.
    pub round_trip: Duration,
    /// How much single round trips differ from it.
    pub variation: Duration,
    /// The shortest round trip lately.
    pub least_round_trip: Duration,
    /// How long the system waits for an acknowledgement until it sends again.
    pub retransmission_timeout: Duration,
    /// How often in a row it has done so for the segment that is due.
    pub timeouts_in_a_row: u8,
    /// Segments on their way: sent, and not acknowledged.
    pub unacknowledged: u32,
    /// Those of them that are held for lost.
    pub lost: u32,
    /// Segments that were sent again, since the connection was made.
    pub retransmitted: u64,
    /// Bytes that the peer has acknowledged, since the connection was made.
    pub acknowledged_bytes: u64,
    /// Bytes that were written and not sent yet.
    pub unsent_bytes: u32,
    /// How many segments may be on their way (the congestion window).
    pub congestion_window: u32,
    /// How long a segment is at most, in bytes.
    pub segment_size: u32,
    /// How fast the network has taken bytes lately, in bytes a second. A lower bound while this side has
    /// too little to send.
    pub delivery_rate: u64,
}

/// One line: `rtt 23.4ms (±1.2ms, least 20ms), 4 segments of 1448 unacknowledged (window 10), 0 lost, 2 sent
/// again`.
impl fmt::Display for TcpInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rtt {:.1?} (±{:.1?}, least {:.1?}), {} segments of {} unacknowledged (window {}), {} lost, \
             {} sent again",
            self.round_trip,
            self.variation,
            self.least_round_trip,
            self.unacknowledged,
            self.segment_size,
            self.congestion_window,
            self.lost,
            self.retransmitted,
        )
    }
}
