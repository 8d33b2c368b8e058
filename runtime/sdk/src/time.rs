//! Times as the wire writes them.

use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

use crate::orchestration::LATEST_SECOND;

/// What the protocol can tell lies between the years 1 and 9999; later times are told as its last second.
pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) if since.as_secs() >= LATEST_SECOND as u64 => Timestamp {
            seconds: LATEST_SECOND,
            nanos: 0,
        },
        _ => Timestamp::from(at),
    }
}

/// What the wire says, if it says anything.
pub(crate) fn system_time(at: Option<Timestamp>) -> Option<SystemTime> {
    at.and_then(|at| SystemTime::try_from(at).ok())
}
