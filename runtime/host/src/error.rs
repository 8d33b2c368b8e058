//! What can go wrong at the host's edge, told by what the caller should do next.

/// An error that a caller of the scheduler sees. The text names what was wrong; nothing was made durable unless it says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// Who can act on an [`Error`], and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request can never be right as it stands; the caller changes it.
    Invalid,
    /// The task hub or instance does not exist.
    NotFound,
    /// The instance id is taken.
    AlreadyExists,
    /// A legal request in the wrong state.
    FailedPrecondition,
    /// A limit is reached, such as disk space; the caller retries later.
    Exhausted,
    /// Stopping; nothing was applied, and the caller retries.
    Unavailable,
    /// The operator has not enabled this.
    Denied,
    /// Stored bytes cannot be trusted.
    Corrupt,
    /// Our own mistake.
    Internal,
}

impl Error {
    /// Which of the few kinds this error is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// An error of the given kind with its message for the caller.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::FailedPrecondition, message)
    }

    pub(crate) fn missing_instance(id: &str) -> Self {
        Self::not_found(format!("no orchestration instance with id '{id}'"))
    }

    pub(crate) fn stopping() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "the scheduler is stopping; try again",
        )
    }
}

impl From<mainspring_core::Error> for Error {
    fn from(error: mainspring_core::Error) -> Self {
        use mainspring_core::Error as Core;
        let kind = match &error {
            Core::Invalid(_) => ErrorKind::Invalid,
            Core::NotFound(_) => ErrorKind::NotFound,
            Core::AlreadyExists(_) => ErrorKind::AlreadyExists,
            Core::FailedPrecondition(_) => ErrorKind::FailedPrecondition,
            Core::Corrupt(_) => ErrorKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<mainspring_store::Error> for Error {
    fn from(error: mainspring_store::Error) -> Self {
        let kind = match &error {
            mainspring_store::Error::Fenced { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}
