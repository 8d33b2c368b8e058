//! What a request does not bring with it: the time at which it came, and an id for an instance that it does not name.

use std::time::{SystemTime, UNIX_EPOCH};

use mainspring_core::id::FreshIds;
use mainspring_core::time::Timestamp;

/// The time of this machine.
pub(crate) fn now() -> Timestamp {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Timestamp::new(since.as_secs() as i64, i64::from(since.subsec_nanos())),
        Err(before) => Timestamp::new(-(before.duration().as_secs() as i64), 0),
    }
}

/// Random numbers of the operating system.
pub(crate) struct Fresh;

impl FreshIds for Fresh {
    fn next(&mut self) -> u128 {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system provides random numbers");
        u128::from_le_bytes(bytes)
    }
}
