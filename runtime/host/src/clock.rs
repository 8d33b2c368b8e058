//! The scheduler's only readers of time and randomness.

use std::time::{SystemTime, UNIX_EPOCH};

use mainspring_core::id::FreshIds;
use mainspring_core::time::Timestamp;

/// The time of this machine.
pub fn now() -> Timestamp {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Timestamp::new(since.as_secs() as i64, i64::from(since.subsec_nanos())),
        Err(before) => Timestamp::new(-(before.duration().as_secs() as i64), 0),
    }
}

/// Unguessable 128-bit numbers from the operating system, drawn in blocks: one system call serves 256 of them.
#[derive(Default)]
pub struct RandomIds {
    block: Vec<u8>,
}

const BLOCK_BYTES: usize = 4096;

impl FreshIds for RandomIds {
    fn next(&mut self) -> u128 {
        if self.block.len() < 16 {
            self.block.resize(BLOCK_BYTES, 0);
            getrandom::fill(&mut self.block).expect("the operating system provides random numbers");
        }
        let at = self.block.len() - 16;
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.block[at..]);
        self.block.truncate(at);
        u128::from_le_bytes(bytes)
    }
}
