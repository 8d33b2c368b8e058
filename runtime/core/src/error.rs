//! What can be wrong with a request or with what was stored.
//!
//! None of these leaves anything changed: whoever returns one has not touched its state. A failed
//! user task is no error here; it is data in history ([`FailureDetails`]).
//!
//! [`FailureDetails`]: crate::message::FailureDetails

use crate::id::InvalidId;

/// An error of the orchestration machine. Each holds a sentence for whoever reads it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request can never be right as it is. Repeating it does not help.
    #[error("{0}")]
    Invalid(String),
    /// The instance or generation that was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// The id is taken, and the reuse policy keeps its holder.
    #[error("{0}")]
    AlreadyExists(String),
    /// The request is legal, but not in the status that the instance is in.
    #[error("{0}")]
    FailedPrecondition(String),
    /// Stored bytes contradict themselves. Nobody but an operator can act on it.
    #[error("{0}")]
    Corrupt(String),
}

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Change the request.
    Invalid,
    /// Name something that exists.
    NotFound,
    /// Choose another id or another reuse policy.
    AlreadyExists,
    /// Wait for, or bring about, another status.
    FailedPrecondition,
    /// Stop and look at the store.
    Corrupt,
}

impl Error {
    /// The kind, for mapping to status codes in one place.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::AlreadyExists(_) => ErrorKind::AlreadyExists,
            Self::FailedPrecondition(_) => ErrorKind::FailedPrecondition,
            Self::Corrupt(_) => ErrorKind::Corrupt,
        }
    }
}

impl From<InvalidId> for Error {
    fn from(error: InvalidId) -> Self {
        Self::Invalid(error.to_string())
    }
}
