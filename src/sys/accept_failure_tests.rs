//! What each error of accept(2) is taken for.

use std::io;

use super::{Failure, accept_failure};

/// The errors that accept(2) passes on from the network, and those that concern the one connection.
const ONE_CONNECTION: &[(i32, &str)] = &[
    (1, "EPERM"),
    (13, "EACCES"),
    (64, "ENONET"),
    (71, "EPROTO"),
    (92, "ENOPROTOOPT"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (103, "ECONNABORTED"),
    (104, "ECONNRESET"),
    (110, "ETIMEDOUT"),
    (112, "EHOSTDOWN"),
    (113, "EHOSTUNREACH"),
];

/// Descriptors and memory, and what is in no list of ours but would be returned again at once.
const EXHAUSTED: &[(i32, &str)] = &[
    (5, "EIO"),
    (9, "EBADF"),
    (12, "ENOMEM"),
    (14, "EFAULT"),
    (22, "EINVAL"),
    (23, "ENFILE"),
    (24, "EMFILE"),
    (38, "ENOSYS"),
    (88, "ENOTSOCK"),
    (95, "EOPNOTSUPP"),
    (105, "ENOBUFS"),
];

// row 76
#[test]
fn errors_of_the_network_concern_one_connection() {
    for &(code, name) in ONE_CONNECTION {
        let failure = accept_failure(&io::Error::from_raw_os_error(code));
        assert_eq!(failure, Failure::OneConnection, "{name}");
    }
}

// row 13
#[test]
fn missing_descriptors_and_memory_are_exhaustion() {
    for &(code, name) in EXHAUSTED {
        let failure = accept_failure(&io::Error::from_raw_os_error(code));
        assert_eq!(failure, Failure::Exhausted, "{name}");
    }
}

#[test]
fn every_other_error_waits_so_that_nothing_spins() {
    let known = |code| ONE_CONNECTION.iter().any(|&(c, _)| c == code);
    for code in (0..4096).filter(|&code| !known(code)) {
        let error = io::Error::from_raw_os_error(code);
        assert_eq!(accept_failure(&error), Failure::Exhausted, "{error}");
    }
    assert_eq!(accept_failure(&io::Error::other("no number")), Failure::Exhausted);
}
