//! What is likely to be read again: history chunks and the warm state of passive instances, under one ceiling in bytes.
//!
//! Nothing in here is the only copy of anything: an entry may be gone at any time. What is written is put in by the host, so
//! a chunk is replaced or removed with the turn that replaces or removes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mainspring_core::id::{InstanceKey, PartitionId};
use mainspring_core::orchestration::Orchestration;
use mainspring_entities::Entity;

use crate::{Error, Read, query};

/// Counted for each entry besides its own bytes: key, handles, and the cache's records.
const ENTRY_BYTES: usize = 160;

/// The cache has this many locks; each part holds its share of the ceiling, and no entry larger than that.
const SHARDS: usize = 4;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    History {
        instance: InstanceKey,
        generation: u32,
        chunk: u32,
    },
    Warm(InstanceKey),
}

enum Value {
    History(Bytes),
    Warm {
        orchestration: Arc<Orchestration>,
        bytes: usize,
    },
    WarmEntity {
        entity: Arc<Entity>,
        bytes: usize,
    },
}

/// A cache with a ceiling in bytes. Clones share it.
#[derive(Clone)]
pub struct Cache {
    entries: foyer::Cache<Key, Value>,
    lookups: Arc<Lookups>,
}

/// How often history was looked for in a [`Cache`], chunk by chunk.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Chunks that it had.
    pub hits: AtomicU64,
    /// Chunks that had to be read from the store.
    pub misses: AtomicU64,
}

impl Cache {
    /// An empty cache that holds at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        let entries = foyer::CacheBuilder::new(bytes_max.max(1))
            .with_shards(SHARDS)
            // What was used last is used next: a passive instance is woken by the outcome of what it began.
            .with_eviction_config(foyer::LruConfig::default())
            .with_weighter(|key: &Key, value: &Value| weight(key, value))
            .build();
        Self {
            entries,
            lookups: Arc::default(),
        }
    }

    /// Chunks 0 to `chunks`, exclusive, of a generation's history: from the cache, and what is missing from the store, which
    /// is then cached. `read` is called only when something is missing.
    ///
    /// Errors: `Corrupt` when the store lacks a chunk.
    pub fn history<'a>(
        &self,
        read: impl FnOnce() -> Box<dyn Read + 'a>,
        partition: PartitionId,
        key: &InstanceKey,
        generation: u32,
        chunks: u32,
    ) -> Result<Vec<Bytes>, Error> {
        let mut found = Vec::with_capacity(chunks as usize);
        let mut first_missing = None;
        for chunk in 0..chunks {
            let cached = self.chunk(key, generation, chunk);
            if cached.is_none() {
                first_missing.get_or_insert(chunk);
            }
            found.push(cached);
        }
        let hits = found.iter().flatten().count() as u64;
        self.lookups.hits.fetch_add(hits, Ordering::Relaxed);
        if let Some(first) = first_missing {
            let misses = u64::from(chunks) - hits;
            self.lookups.misses.fetch_add(misses, Ordering::Relaxed);
            // One range, from the first missing to the last missing: a chunk read twice costs less than another seek.
            let end = found
                .iter()
                .rposition(Option::is_none)
                .map_or(chunks, |last| last as u32 + 1);
            let stored = query::history_from(&*read(), partition, key, generation, first, end)?;
            for (chunk, events) in (first..).zip(stored) {
                let place = &mut found[chunk as usize];
                if place.is_none() {
                    self.put_history(key, generation, chunk, events.clone());
                    *place = Some(events);
                }
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Keeps a chunk that was written.
    pub fn put_history(&self, key: &InstanceKey, generation: u32, chunk: u32, events: Bytes) {
        self.entries
            .insert(history_key(key, generation, chunk), Value::History(events));
    }

    /// Drops chunks 0 to `chunks`, exclusive, of a generation. To be called whenever they are removed from the store: a later
    /// instance of the same id counts its generations anew.
    pub fn remove_history(&self, key: &InstanceKey, generation: u32, chunks: u32) {
        for chunk in 0..chunks {
            self.entries.remove(&history_key(key, generation, chunk));
        }
    }

    /// Keeps the state of an instance that becomes passive. `bytes`: its size in memory, roughly.
    pub fn put_warm(&self, key: InstanceKey, warm: Arc<Orchestration>, bytes: usize) {
        self.entries.insert(
            Key::Warm(key),
            Value::Warm {
                orchestration: warm,
                bytes,
            },
        );
    }

    /// Takes the state of an instance that becomes active; it is not in the cache any more.
    pub fn take_warm(&self, key: &InstanceKey) -> Option<Arc<Orchestration>> {
        let entry = self.entries.remove(&Key::Warm(key.clone()))?;
        match entry.value() {
            Value::Warm { orchestration, .. } => Some(orchestration.clone()),
            Value::History(_) | Value::WarmEntity { .. } => None,
        }
    }

    /// Keeps an entity that becomes passive. `bytes`: its size in memory, roughly.
    pub fn put_warm_entity(&self, key: InstanceKey, entity: Arc<Entity>, bytes: usize) {
        self.entries
            .insert(Key::Warm(key), Value::WarmEntity { entity, bytes });
    }

    /// Takes an entity that becomes active; it is not in the cache any more.
    pub fn take_warm_entity(&self, key: &InstanceKey) -> Option<Arc<Entity>> {
        let entry = self.entries.remove(&Key::Warm(key.clone()))?;
        match entry.value() {
            Value::WarmEntity { entity, .. } => Some(entity.clone()),
            Value::History(_) | Value::Warm { .. } => None,
        }
    }

    /// How often history was found here, and how often not.
    pub fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    /// Bytes held, as counted against the ceiling.
    pub fn usage_bytes(&self) -> usize {
        self.entries.usage()
    }

    fn chunk(&self, key: &InstanceKey, generation: u32, chunk: u32) -> Option<Bytes> {
        let entry = self.entries.get(&history_key(key, generation, chunk))?;
        match entry.value() {
            Value::History(events) => Some(events.clone()),
            Value::Warm { .. } | Value::WarmEntity { .. } => None,
        }
    }
}

fn history_key(key: &InstanceKey, generation: u32, chunk: u32) -> Key {
    Key::History {
        instance: key.clone(),
        generation,
        chunk,
    }
}

fn weight(key: &Key, value: &Value) -> usize {
    let (Key::History { instance, .. } | Key::Warm(instance)) = key;
    let value = match value {
        Value::History(events) => events.len(),
        Value::Warm { bytes, .. } | Value::WarmEntity { bytes, .. } => *bytes,
    };
    ENTRY_BYTES + instance.instance.as_str().len() + value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{Batch, MemoryStore, Store};
    use mainspring_core::id::{HubId, InstanceId};

    const PARTITION: PartitionId = PartitionId(0);

    fn of(instance: &str) -> InstanceKey {
        InstanceKey {
            hub: HubId(1),
            instance: InstanceId::from_stored(instance),
        }
    }

    fn chunk(number: u32) -> Bytes {
        Bytes::from(vec![number as u8; 1_000])
    }

    fn stored(chunks: u32) -> MemoryStore {
        let store = MemoryStore::new(1);
        let mut batch = Batch::new(PARTITION, store.acquire(PARTITION).unwrap());
        for number in 0..chunks {
            batch.append_history(&of("a"), 0, number, chunk(number));
        }
        store.write(&batch).unwrap();
        store
    }

    #[test]
    fn what_is_missing_is_read_and_kept() {
        let store = stored(5);
        let cache = Cache::new(1 << 20);
        cache.put_history(&of("a"), 0, 0, chunk(0));
        cache.put_history(&of("a"), 0, 2, chunk(2));
        let wanted: Vec<Bytes> = (0..5).map(chunk).collect();
        let found = cache.history(|| store.read(), PARTITION, &of("a"), 0, 5);
        assert_eq!(found.unwrap(), wanted);
        let lookups = || {
            let Lookups { hits, misses } = cache.lookups();
            [hits, misses].map(|count| count.load(Ordering::Relaxed))
        };
        assert_eq!(lookups(), [2, 3]);
        let unread = || -> Box<dyn Read> { panic!("all chunks are cached") };
        let found = cache.history(unread, PARTITION, &of("a"), 0, 5);
        assert_eq!(found.unwrap(), wanted);
        assert_eq!(lookups(), [7, 3]);
    }

    #[test]
    fn a_chunk_that_the_store_lacks_is_an_error() {
        let store = stored(2);
        let cache = Cache::new(1 << 20);
        let found = cache.history(|| store.read(), PARTITION, &of("a"), 0, 3);
        let error = found.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("instance a"), "{error}");
    }

    #[test]
    fn it_keeps_its_ceiling() {
        let cache = Cache::new(64 << 10);
        for number in 0..1_000 {
            cache.put_history(&of(&format!("instance {number}")), 0, 0, chunk(1));
            assert!(cache.usage_bytes() <= 64 << 10);
        }
        assert!(cache.usage_bytes() > 32 << 10);
    }

    #[test]
    fn removed_history_is_gone() {
        let store = MemoryStore::new(1);
        let cache = Cache::new(1 << 20);
        cache.put_history(&of("a"), 0, 0, chunk(0));
        cache.remove_history(&of("a"), 0, 1);
        let found = cache.history(|| store.read(), PARTITION, &of("a"), 0, 1);
        assert!(found.is_err());
    }
}
