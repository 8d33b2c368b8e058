//! The promise of a store: what each call does, and what is found after a crash.
//!
//! A batch is data: puts and deletes of one partition, named with the epoch of its owner. It is applied as a whole or
//! not at all. A store never decides what a turn means, and never answers anybody.

use std::fmt;

use bytes::Bytes;
use mainspring_core::id::PartitionId;
use serde::{Deserialize, Serialize};

use crate::{Batch, Error};

/// A part of the store with its own order of keys. The layout of keys is told in the crate's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Space {
    /// Records of instances: rewritten at every turn, small.
    State,
    /// History chunks: written once, deleted as a whole.
    History,
    /// Messages that wait for their target.
    Mailbox,
    /// Timers and scheduled starts, in due order.
    Timer,
    /// Everything else, told apart by a leading tag: what the wire can ask for in order, busy instances, hubs, epochs.
    Index,
}

impl Space {
    /// All spaces, in the order in which they are numbered.
    pub const ALL: [Space; 5] = [
        Space::State,
        Space::History,
        Space::Mailbox,
        Space::Timer,
        Space::Index,
    ];

    pub(crate) fn place(self) -> usize {
        self as usize
    }

    /// Name on disk and in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Space::State => "state",
            Space::History => "history",
            Space::Mailbox => "mailbox",
            Space::Timer => "timer",
            Space::Index => "index",
        }
    }
}

/// Number of an ownership of a partition. A higher one ends all lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Writes an entry, replacing an earlier value.
    Put {
        /// Where.
        space: Space,
        /// Full key.
        #[serde(with = "as_bytes")]
        key: Bytes,
        /// Full value.
        #[serde(with = "as_bytes")]
        value: Bytes,
    },
    /// Removes an entry; one that is missing stays missing.
    Delete {
        /// Where.
        space: Space,
        /// Full key.
        #[serde(with = "as_bytes")]
        key: Bytes,
    },
    /// Puts a message into a mailbox. The key is `prefix`, then the number of the commit, then the place of this message
    /// among the messages of the batch.
    Message {
        /// Partition, hub and instance of the target.
        #[serde(with = "as_bytes")]
        prefix: Bytes,
        /// The encoded message.
        #[serde(with = "as_bytes")]
        value: Bytes,
    },
}

/// Byte strings as such: serde's default would write them number by number.
mod as_bytes {
    use super::{Bytes, fmt};
    use serde::de::{Error, Visitor};

    pub fn serialize<S: serde::Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        struct Take;
        impl Visitor<'_> for Take {
            type Value = Bytes;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a byte string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes::copy_from_slice(bytes))
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes::from(bytes))
            }
        }
        from.deserialize_byte_buf(Take)
    }
}

/// A durable store of batches.
///
/// `write`, `sync` and `close` are called by the committer's thread alone: they wait for the disk. Reading is allowed from
/// any thread at any time.
pub trait Store: Send + Sync + 'static {
    /// Takes a partition over: draws a new epoch, higher than any before, and makes it durable, with everything before it.
    ///
    /// From the return of this call on, batches of former epochs are refused. After a crash within the call the former
    /// epoch or the new one is found; a later `acquire` gives a higher one in either case.
    fn acquire(&self, partition: PartitionId) -> Result<Epoch, Error>;

    /// Writes one batch and returns its commit number, higher than any before.
    ///
    /// Visible to new readers as a whole when it returns, durable only after the next [`Store::sync`]. After a crash the
    /// store holds a prefix of all batches written, at least up to the last sync. An empty batch draws no number: its
    /// epoch is compared and the number of the last commit is returned.
    ///
    /// Errors: `Fenced` concerns this batch alone and leaves nothing of it. After any other error the store takes no more.
    fn write(&self, batch: &Batch) -> Result<u64, Error>;

    /// Makes everything written so far durable. When it fails, nothing more may be written: the process stops.
    ///
    /// Called with nothing new as well, a moment after the last batch, which is when bookkeeping catches up.
    fn sync(&self) -> Result<(), Error>;

    /// A consistent snapshot: no batch is ever seen in part, and later ones are not seen. It may show batches that are not
    /// durable yet, so nothing read from it may be answered before a barrier of the committer. Keep it for a short time.
    fn read(&self) -> Box<dyn Read + '_>;

    /// Number of partitions, fixed when the store was created.
    fn partitions(&self) -> u16;

    /// The last commit known to be durable.
    fn synced(&self) -> u64;

    /// Bytes that it takes on the disk, journals included; 0 where there is none, or when it cannot be told.
    fn size_bytes(&self) -> u64;

    /// Free bytes of the disk below the store; `u64::MAX` where there is none.
    fn free_bytes(&self) -> u64;

    /// Makes everything durable and notes that the stop was clean. Later writes are refused. May be called twice.
    fn close(&self) -> Result<(), Error>;
}

/// Reading from one moment of a store.
pub trait Read {
    /// The value of one key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Entries with `from <= key < to`, in key order, or from the end backwards; at most `limit`.
    fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, Error>;
}
