//! Error kind to gRPC status: the one table.

use mainspring_host::{Error, ErrorKind};
use tonic::{Code, Status};

/// Begins the message of every `INTERNAL` that is our own mistake. The transport has its own `INTERNAL`s, for requests
/// that it cannot decode; this tells them apart.
pub(crate) const INTERNAL_PREFIX: &str = "internal error: ";

/// The code of each kind of error (S-1.15, style of the errors: who can act on it).
pub(crate) fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        // Clients retry this one by themselves: it means that nothing was applied (S-1.13).
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    }
}

/// What a caller is told. Errors that nobody but an operator can act on are logged here, once.
pub(crate) fn status(error: Error) -> Status {
    let code = code(error.kind());
    match error.kind() {
        ErrorKind::Internal => {
            tracing::error!(%error, "a call failed by our own mistake");
            Status::new(code, format!("{INTERNAL_PREFIX}{error}"))
        }
        ErrorKind::Corrupt => {
            tracing::error!(%error, "a call met stored bytes that cannot be trusted");
            Status::new(code, error.to_string())
        }
        _ => Status::new(code, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-1.15, S-1.13, S-1.14: neither UNKNOWN, which .NET retries, nor CANCELLED, which ends old Python workers.
    #[test]
    fn every_kind_of_error_has_its_code() {
        for (kind, expected) in [
            (ErrorKind::Invalid, Code::InvalidArgument),
            (ErrorKind::NotFound, Code::NotFound),
            (ErrorKind::AlreadyExists, Code::AlreadyExists),
            (ErrorKind::FailedPrecondition, Code::FailedPrecondition),
            (ErrorKind::Exhausted, Code::ResourceExhausted),
            (ErrorKind::Unavailable, Code::Unavailable),
            (ErrorKind::Denied, Code::PermissionDenied),
            (ErrorKind::Corrupt, Code::DataLoss),
            (ErrorKind::Internal, Code::Internal),
        ] {
            assert_eq!(status(Error::new(kind, "x")).code(), expected);
        }
    }

    #[test]
    fn the_message_reaches_the_caller_unchanged_but_our_own_mistakes_are_marked() {
        assert_eq!(
            status(Error::new(ErrorKind::NotFound, "no hub 'x'")).message(),
            "no hub 'x'"
        );
        assert_eq!(
            status(Error::new(ErrorKind::Internal, "x")).message(),
            "internal error: x"
        );
    }
}
