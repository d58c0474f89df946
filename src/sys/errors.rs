//! What an error of the system means: for a listener, a connect, a UDP socket. Error numbers are
//! named here, and `EINPROGRESS` in `stream.rs`.

use std::io;

/// Whether an error of a UDP socket is an ICMP error about an earlier datagram, which peers can cause,
/// and not a fault of the socket.
pub(crate) fn is_icmp_error(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
        || accept_failure(error) == Failure::OneConnection
        || error.raw_os_error() == Some(EMSGSIZE)
}

/// Whether this host lacks the address, or its whole family (a kernel without IPv6): an address of
/// the other family may work.
pub(crate) fn is_missing_family(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error().is_some_and(|code| FAMILY_MISSING.contains(&code))
}

/// Whether the process or the system has no descriptor left (`EMFILE`, `ENFILE`).
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code))
}

/// What an error of accept(2) means for the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It concerns the one connection that was being accepted: the next is tried at once.
    OneConnection,
    /// Descriptors or memory ran out, or something unknown happened: wait, then try again.
    Exhausted,
}

/// Classifies an error of accept(2). Network errors of the connection are transient (accept(2), "Error
/// handling"). Any other error counts as exhaustion, so that no error makes the loop spin.
pub(crate) fn accept_failure(error: &io::Error) -> Failure {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionAborted
        | Kind::ConnectionReset
        | Kind::PermissionDenied
        | Kind::NetworkDown
        | Kind::NetworkUnreachable
        | Kind::HostUnreachable
        | Kind::TimedOut => Failure::OneConnection,
        _ => match error.raw_os_error() {
            Some(code) if TRANSIENT.contains(&code) => Failure::OneConnection,
            _ => Failure::Exhausted,
        },
    }
}

/// EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET: error codes that `std` has no kind for.
#[cfg(any(target_os = "linux", target_os = "android"))]
const TRANSIENT: &[i32] = &[71, 92, 112, 64];
/// EPROTO, ENOPROTOOPT, EHOSTDOWN.
#[cfg(any(target_os = "macos", target_os = "ios"))]
const TRANSIENT: &[i32] = &[100, 42, 64];
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "ios"
)))]
const TRANSIENT: &[i32] = &[];

/// EAFNOSUPPORT, EPROTONOSUPPORT.
#[cfg(any(target_os = "linux", target_os = "android"))]
const FAMILY_MISSING: &[i32] = &[97, 93];
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const FAMILY_MISSING: &[i32] = &[47, 43];
#[cfg(windows)]
const FAMILY_MISSING: &[i32] = &[10047, 10043];

/// ENFILE, EMFILE: the same numbers on every Unix.
#[cfg(unix)]
const OUT_OF_DESCRIPTORS: &[i32] = &[23, 24];
/// WSAEMFILE.
#[cfg(windows)]
const OUT_OF_DESCRIPTORS: &[i32] = &[10024];

#[cfg(any(target_os = "linux", target_os = "android"))]
const EMSGSIZE: i32 = 90;
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const EMSGSIZE: i32 = 40;
#[cfg(windows)]
const EMSGSIZE: i32 = 10040;

/// `EMFILE`, for a simulated process that has no descriptor left.
#[cfg(feature = "sim")]
pub(super) fn no_descriptor_left() -> io::Error {
    io::Error::from_raw_os_error(OUT_OF_DESCRIPTORS[OUT_OF_DESCRIPTORS.len() - 1])
}

/// `EMSGSIZE`, for a datagram that a simulated link does not carry.
#[cfg(feature = "sim")]
pub(super) fn message_too_long() -> io::Error {
    io::Error::from_raw_os_error(EMSGSIZE)
}

#[cfg(all(test, target_os = "linux"))]
#[path = "accept_failure_tests.rs"]
mod accept_failure_tests;
