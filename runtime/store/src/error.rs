//! What can go wrong in the store. Every message names the folder or the entry, the cause, and the way out.

use std::path::{Path, PathBuf};

use mainspring_core::id::PartitionId;

/// An error of the store.
///
/// [`Error::kind`] says who can act on it. Nothing of a batch that met an error was acknowledged as durable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The batch names an epoch that another owner has ended. Nothing of it was written; retrying cannot help.
    #[error(
        "partition {}: epoch {epoch} is over, the partition is owned in epoch {current}",
        partition.0
    )]
    Fenced {
        /// The partition written to.
        partition: PartitionId,
        /// The epoch the batch names.
        epoch: u64,
        /// The epoch of the present owner.
        current: u64,
    },
    /// The store was closed before the call. Nothing was written.
    #[error("the store is closed")]
    Closed,
    /// Stored bytes cannot be understood. Nothing was changed.
    #[error(
        "{place}: {cause}; look at the data folder with `mainspring store check`, \
         then restore a backup or use `mainspring store repair`"
    )]
    Corrupt {
        /// The entry or the folder concerned.
        place: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A write or a sync failed. What was not acknowledged may or may not be on disk; the process has to stop.
    #[error(
        "data folder {}: a write failed and the store takes no more: {cause}; \
         look after the disk, then start again: what was acknowledged is kept",
        folder.display()
    )]
    Poisoned {
        /// The data folder.
        folder: PathBuf,
        /// What the file system or the storage engine said.
        cause: String,
    },
    /// The committer's thread panicked, which is our own mistake. The process has to stop.
    #[error("the committer panicked: {0}; start again: what was acknowledged is kept")]
    Panicked(String),
    /// The store ends before a commit that was durable: a part of it is lost. Nothing is served from it.
    #[error(
        "data folder {}: the store ends at commit {stored}, but commit {witnessed} was durable: \
         a part of it is lost or damaged; restore a backup, \
         or accept the loss with `mainspring store repair`",
        folder.display()
    )]
    Behind {
        /// The data folder.
        folder: PathBuf,
        /// The last commit that all parts of the store hold.
        stored: u64,
        /// The last commit known to have been durable.
        witnessed: u64,
    },
    /// Another process uses the data folder. Nothing was touched.
    #[error(
        "data folder {} is in use by {holder}; stop that process or name another folder",
        folder.display()
    )]
    Locked {
        /// The data folder.
        folder: PathBuf,
        /// Who holds it, as far as known.
        holder: String,
    },
    /// The data folder was written by a version that this one does not know. Nothing was touched.
    #[error(
        "data folder {} has on-disk version {found}, this program reads version {known}; \
         use the program that wrote it",
        folder.display()
    )]
    Version {
        /// The data folder.
        folder: PathBuf,
        /// The version found.
        found: String,
        /// The version this program reads and writes.
        known: u32,
    },
    /// A command was asked for something it refuses to do. Nothing was touched.
    #[error("{0}")]
    Refused(String),
    /// The file system failed outside the write path.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done, such as `create`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Who can act on an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller: the partition has moved, the folder is in use, the store is stopping, the command does not fit.
    Unavailable,
    /// An operator: stored bytes cannot be trusted.
    Corrupt,
    /// An operator: the disk failed. The process stops.
    Poisoned,
}

impl Error {
    /// Who can act on this error.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Fenced { .. } | Error::Closed | Error::Locked { .. } | Error::Refused(_) => {
                Kind::Unavailable
            }
            Error::Corrupt { .. } | Error::Behind { .. } | Error::Version { .. } => Kind::Corrupt,
            Error::Poisoned { .. } | Error::Panicked(_) | Error::Io { .. } => Kind::Poisoned,
        }
    }

    pub(crate) fn corrupt(place: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Error::Corrupt {
            place: place.into(),
            cause: cause.to_string(),
        }
    }

    pub(crate) fn folder(folder: &Path, cause: impl std::fmt::Display) -> Self {
        Error::corrupt(format!("data folder {}", folder.display()), cause)
    }

    /// For `map_err` on file operations.
    pub(crate) fn io<'a>(
        doing: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Error::Io {
            doing,
            path: path.to_path_buf(),
            source,
        }
    }
}
