//! The promise of [`Store`] kept in memory: for tests and for runs that may forget.
//!
//! "Durable" means here: handed to `sync`. Nothing survives the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use mainspring_core::id::{PartitionId, Position};

use crate::{Batch, Epoch, Error, Op, Read, Space, Store, key};

type Entries = BTreeMap<Bytes, Bytes>;

/// A store without a disk.
pub struct MemoryStore {
    partitions: u16,
    state: Mutex<State>,
}

struct State {
    /// One map per space. A snapshot shares them; a write copies a map only while a snapshot holds it.
    spaces: [Arc<Entries>; 5],
    epochs: Vec<u64>,
    commit: u64,
    synced: u64,
    is_closed: bool,
}

impl MemoryStore {
    /// An empty store of `partitions` partitions.
    pub fn new(partitions: u16) -> Self {
        let mut spaces: [Arc<Entries>; 5] = Default::default();
        Arc::make_mut(&mut spaces[Space::Index.place()]).insert(
            Bytes::from_static(&key::meta::PARTITIONS),
            Bytes::copy_from_slice(&partitions.to_be_bytes()),
        );
        Self {
            partitions,
            state: Mutex::new(State {
                spaces,
                epochs: vec![0; usize::from(partitions)],
                commit: 0,
                synced: 0,
                is_closed: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, space: Space, key: Bytes, value: Bytes) {
        Arc::make_mut(&mut self.spaces[space.place()]).insert(key, value);
    }

    fn delete(&mut self, space: Space, key: &Bytes) {
        Arc::make_mut(&mut self.spaces[space.place()]).remove(key);
    }
}

impl Store for MemoryStore {
    fn acquire(&self, partition: PartitionId) -> Result<Epoch, Error> {
        let mut state = self.state();
        if state.is_closed {
            return Err(Error::Closed);
        }
        state.commit += 1;
        state.synced = state.commit;
        let epoch = &mut state.epochs[usize::from(partition.0)];
        *epoch += 1;
        Ok(Epoch(*epoch))
    }

    fn write(&self, batch: &Batch) -> Result<u64, Error> {
        let mut state = self.state();
        if state.is_closed {
            return Err(Error::Closed);
        }
        let current = state.epochs[usize::from(batch.partition.0)];
        if batch.epoch.0 != current {
            return Err(Error::Fenced {
                partition: batch.partition,
                epoch: batch.epoch.0,
                current,
            });
        }
        if batch.is_empty() {
            return Ok(state.commit);
        }
        state.commit += 1;
        let commit = state.commit;
        let mut index = 0;
        for op in batch.ops() {
            match op {
                Op::Put { space, key, value } => state.put(*space, key.clone(), value.clone()),
                Op::Delete { space, key } => state.delete(*space, key),
                Op::Message { prefix, value } => {
                    let mut key = BytesMut::with_capacity(prefix.len() + 10);
                    key.put_slice(prefix);
                    key::position(&mut key, Position { commit, index });
                    state.put(Space::Mailbox, key.freeze(), value.clone());
                    index = index.wrapping_add(1);
                }
            }
        }
        Ok(commit)
    }

    fn sync(&self) -> Result<(), Error> {
        let mut state = self.state();
        state.synced = state.commit;
        Ok(())
    }

    fn read(&self) -> Box<dyn Read + '_> {
        Box::new(MemoryRead {
            spaces: self.state().spaces.clone(),
        })
    }

    fn partitions(&self) -> u16 {
        self.partitions
    }

    fn synced(&self) -> u64 {
        self.state().synced
    }

    fn size_bytes(&self) -> u64 {
        0
    }

    fn free_bytes(&self) -> u64 {
        u64::MAX
    }

    fn close(&self) -> Result<(), Error> {
        self.sync()?;
        self.state().is_closed = true;
        Ok(())
    }
}

struct MemoryRead {
    spaces: [Arc<Entries>; 5],
}

impl Read for MemoryRead {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.spaces[space.place()].get(key).cloned())
    }

    fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        if from >= to {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let entries = self.spaces[space.place()].range::<[u8], _>(bounds);
        let owned = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        Ok(if reverse {
            entries.rev().take(limit).map(owned).collect()
        } else {
            entries.take(limit).map(owned).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_contract() {
        crate::contract::check(&|partitions| Arc::new(MemoryStore::new(partitions)));
    }
}
