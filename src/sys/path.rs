//! Files that Unix sockets leave behind.

use std::path::{Path, PathBuf};

/// A path that a listener made. It is removed at the end if it still names the same file: a
/// server that is restarted may have bound the path again before the old one ended.
#[derive(Debug)]
pub(crate) struct OwnPath {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl OwnPath {
    pub(crate) fn new(path: PathBuf) -> Self {
        #[cfg(feature = "sim")]
        if super::sim::is_simulated() {
            return OwnPath { path, file: None }; // simulated hosts have no files
        }
        // A relative path must survive a change of the working directory.
        let path = std::path::absolute(&path).unwrap_or(path);
        OwnPath { file: Self::file(&path), path }
    }

    /// Device and inode. The number is not used again while the listening socket is open.
    fn file(path: &Path) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::symlink_metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    }

    pub(crate) fn remove(&self) {
        if self.file.is_none() || Self::file(&self.path) != self.file {
            return log::debug!("the socket {} is not ours any more", self.path.display());
        }
        if let Err(e) = std::fs::remove_file(&self.path) {
            log::debug!("removing the socket {}: {e}", self.path.display());
        }
    }
}
