//! Listening sockets: whose turn it is, what they have seen, the paths they leave behind.

#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::connection::Settings;
use crate::sys;
use crate::timer::{Chain, Key};

/// What a listener has seen. Counts since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Connections accepted, those refused by the filter included.
    pub accepted: u64,
    /// Connections the filter refused.
    pub refused: u64,
    /// Errors of accept(2) that concerned one connection only (`ECONNABORTED` and the like).
    pub transient_errors: u64,
    /// How often accepting had to wait because descriptors or memory ran out.
    pub exhausted: u64,
    /// Connections that ended before their layers were ready.
    pub failed_handshakes: u64,
    /// Connections that are open now.
    pub open: usize,
}

/// One of a listener's sockets.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) socket: sys::Listener,
    /// Errors of accept(2) since it last brought a connection.
    pub(crate) failed_in_a_row: u32,
    /// It only brings errors, and is not asked before the back-off is over.
    pub(crate) resting: bool,
}

impl Listening {
    pub(crate) fn new(socket: sys::Listener) -> Self {
        Listening { socket, failed_in_a_row: 0, resting: false }
    }
}

/// One listener, on one address or several.
#[derive(Debug)]
pub(crate) struct ListeningSockets {
    pub(crate) sockets: Vec<Listening>,
    /// The paths to remove at the end.
    #[cfg(unix)]
    pub(crate) paths: Vec<OwnPath>,
    /// Whose turn it is of the sockets.
    pub(crate) turn: usize,
    pub(crate) settings: Rc<Settings>,
    pub(crate) max_connections: usize,
    pub(crate) stats: ListenerStats,
    /// The sockets listened before they were ours.
    pub(crate) adopted: bool,
    pub(crate) timers: Chain,
    /// The timer of a back-off that is running.
    pub(crate) retry: Option<Key>,
    /// Before this tick no further warning that it cannot accept.
    pub(crate) silent_until: u64,
    /// Nobody is accepted: the backlog fills.
    pub(crate) paused: bool,
    /// It is on the list of those with work left.
    pub(crate) in_ready: bool,
    /// It waits to be reaped.
    pub(crate) dead: bool,
}

impl ListeningSockets {
    pub(crate) fn is_full(&self) -> bool {
        self.stats.open >= self.max_connections
    }
}

impl Drop for ListeningSockets {
    fn drop(&mut self) {
        #[cfg(unix)]
        for path in &self.paths {
            path.remove();
        }
    }
}

/// A path that a listener made. It is removed at the end if it still names the same file: a server
/// that starts anew may have taken the path over before the old one was gone.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct OwnPath {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

#[cfg(unix)]
impl OwnPath {
    pub(crate) fn new(path: PathBuf) -> Self {
        OwnPath { file: Self::file(&path), path }
    }

    /// Device and inode. The number is not used again while the listening socket is open.
    fn file(path: &Path) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::symlink_metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    }

    fn remove(&self) {
        if self.file.is_none() || Self::file(&self.path) != self.file {
            return log::debug!("the socket {} is not ours any more", self.path.display());
        }
        if let Err(e) = std::fs::remove_file(&self.path) {
            log::debug!("removing the socket {}: {e}", self.path.display());
        }
    }
}
