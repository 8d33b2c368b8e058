//! Where instances live: (task hub, instance) to partition, by a stable hash, and partition to its actor.
//!
//! On one machine every partition's owner is this process. What a cluster adds later is another answer to "whose actor is it?";
//! the epoch that each commit names is already there.

use actix::Addr;
use mainspring_core::id::{InstanceKey, PartitionId};
use xxhash_rust::xxh3::Xxh3;

use crate::activation::Input;
use crate::partition::{PartitionActor, Routed};

/// The partition of an instance. Stable for ever: it decides which keys a record is stored under.
pub(crate) fn partition_of(key: &InstanceKey, partitions: u16) -> PartitionId {
    let mut hash = Xxh3::new();
    hash.update(&key.hub.0.to_be_bytes());
    hash.update(key.instance.as_str().as_bytes());
    PartitionId((hash.digest() % u64::from(partitions)) as u16)
}

/// The owners of all partitions.
pub(crate) struct Placement {
    partitions: Vec<Addr<PartitionActor>>,
}

impl Placement {
    pub(crate) fn new(partitions: Vec<Addr<PartitionActor>>) -> Self {
        Self { partitions }
    }

    /// Hands `input` to the activation of `key`, which its partition starts if need be. Never blocks; callers hold credits of their own.
    pub(crate) fn send(&self, key: InstanceKey, input: Input) {
        let partition = partition_of(&key, self.count());
        self.partitions[usize::from(partition.0)].do_send(Routed { key, input });
    }

    pub(crate) fn count(&self) -> u16 {
        self.partitions.len() as u16
    }

    pub(crate) fn partitions(&self) -> &[Addr<PartitionActor>] {
        &self.partitions
    }
}

#[cfg(test)]
mod tests {
    use mainspring_core::id::{HubId, InstanceId};

    use super::*;

    #[test]
    fn an_instance_keeps_its_partition_for_ever() {
        let key = |id: &str| InstanceKey {
            hub: HubId(7),
            instance: InstanceId::from_stored(id),
        };
        let placed: Vec<u16> = ["order-1", "order-2", "order-3", "order-4"]
            .iter()
            .map(|id| partition_of(&key(id), 4).0)
            .collect();
        assert_eq!(placed, PLACED_BY_VERSION_1);
    }

    const PLACED_BY_VERSION_1: [u16; 4] = [1, 2, 3, 0];
}
