//! Turns on their way to disk: what one partition has decided, gathered into batches, and what is performed once each is durable.

use std::collections::VecDeque;
use std::time::Instant;

use mainspring_core::effect::ActivityTask;
use mainspring_core::id::{ExecutionId, InstanceKey};
use mainspring_core::message::Message;
use mainspring_core::time::Timestamp;
use mainspring_store::{Batch, Epoch};

use mainspring_core::id::PartitionId;

/// One thing to do once the batch it came with is durable. A crash before that loses nothing: all of it is found again in the store.
pub(crate) enum After {
    /// Fire a timer or a scheduled start in time.
    Arm {
        key: InstanceKey,
        due: Timestamp,
        what: mainspring_store::query::Due,
    },
    /// Tell another instance of a message that is now in its mailbox.
    Deliver {
        target: InstanceKey,
        index: u16,
        message: Message,
    },
    /// Hand out an activity.
    Schedule {
        key: InstanceKey,
        task: ActivityTask,
    },
    /// Drop a generation's activities that no worker holds, those of earlier commits included (S-5.7).
    DropActivities {
        key: InstanceKey,
        execution_id: ExecutionId,
    },
    /// Tell the instance itself of a message that is now in its mailbox.
    Arrive {
        key: InstanceKey,
        index: u16,
        message: Message,
    },
    /// The pinned cut of an episode is durable (S-4.17).
    Pinned { key: InstanceKey, batch: u64 },
    /// Answer somebody.
    Answer(Box<dyn FnOnce()>),
}

impl After {
    /// Order of performing within a commit (S-13.27): timers and messages to entities, instances it started, activities, messages that wake,
    /// answers.
    fn rank(&self) -> u8 {
        match self {
            After::Arm { .. } => 0,
            // In the order of their positions, whoever sent them: an entity's mailbox has one head.
            After::Deliver { message, .. } | After::Arrive { message, .. }
                if message.is_for_entity() =>
            {
                0
            }
            After::Deliver { message, .. } if !message.waits() => 1,
            After::Schedule { .. } | After::DropActivities { .. } => 2,
            After::Deliver { .. } | After::Arrive { .. } | After::Pinned { .. } => 3,
            After::Answer(_) => 4,
        }
    }
}

/// A batch on its way to disk.
pub(crate) struct Submitted {
    /// What is to be performed once it is durable, in order.
    pub(crate) after: Vec<After>,
    /// When its first turn was decided.
    pub(crate) opened_at: Instant,
}

/// The open batch of a partition and those in flight.
pub(crate) struct Turns {
    partition: PartitionId,
    epoch: Epoch,
    open: Batch,
    after: Vec<After>,
    /// When the first turn of the open batch was decided.
    opened_at: Option<Instant>,
    in_flight: VecDeque<Submitted>,
    /// Number of the open batch.
    sequence: u64,
    /// All batches below this number are durable.
    durable: u64,
    /// Counts what was put into batches.
    writes: u64,
    /// The same when the last turn was complete.
    whole: u64,
}

impl Turns {
    pub(crate) fn new(partition: PartitionId, epoch: Epoch) -> Self {
        Self {
            partition,
            epoch,
            open: Batch::new(partition, epoch),
            after: Vec::new(),
            opened_at: None,
            in_flight: VecDeque::new(),
            sequence: 0,
            durable: 0,
            writes: 0,
            whole: 0,
        }
    }

    pub(crate) fn batch(&mut self) -> &mut Batch {
        self.write();
        &mut self.open
    }

    fn write(&mut self) {
        self.writes += 1;
        self.opened_at.get_or_insert_with(Instant::now);
    }

    /// Messages in the open batch.
    pub(crate) fn messages(&self) -> usize {
        self.open.messages()
    }

    /// Number of the batch that takes the turns decided now.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether the batch with this number is on disk.
    pub(crate) fn is_durable(&self, sequence: u64) -> bool {
        sequence < self.durable
    }

    /// Nothing decided is waiting for the disk.
    pub(crate) fn is_settled(&self) -> bool {
        self.in_flight.is_empty() && self.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.after.is_empty()
    }

    /// A turn is complete, or a new one begins.
    pub(crate) fn mark_whole(&mut self) {
        self.whole = self.writes;
    }

    /// Whether the open batch holds whole turns only.
    pub(crate) fn is_whole(&self) -> bool {
        self.writes == self.whole
    }

    pub(crate) fn then(&mut self, after: After) {
        self.write();
        self.after.push(after);
    }

    /// Closes the open batch. `None`: nothing was decided.
    pub(crate) fn flush(&mut self) -> Option<Batch> {
        if self.is_empty() {
            return None;
        }
        let batch = std::mem::replace(&mut self.open, Batch::new(self.partition, self.epoch));
        let mut after = std::mem::take(&mut self.after);
        after.sort_by_key(After::rank);
        let opened_at = self.opened_at.take().unwrap_or_else(Instant::now);
        self.in_flight.push_back(Submitted { after, opened_at });
        self.sequence += 1;
        Some(batch)
    }

    /// The oldest batch in flight is durable, and is performed now.
    pub(crate) fn committed(&mut self) -> Submitted {
        self.durable += 1;
        self.in_flight
            .pop_front()
            .expect("commits answer in the order of submission")
    }
}

#[cfg(test)]
mod tests {
    use mainspring_core::entity::Generation;
    use mainspring_core::id::{HubId, InstanceId};

    use super::*;

    #[test]
    fn messages_to_an_entity_keep_their_order_whoever_sent_them() {
        // S-12.37: its mailbox has one head, and what stood before it would be passed over.
        let over = Generation {
            instance: InstanceId::from_stored("holder"),
            execution_id: ExecutionId::from_stored("e"),
        };
        let message = || Message::ReleaseLocks(over.clone());
        let key = || InstanceKey {
            hub: HubId(1),
            instance: InstanceId::from_stored("@a@1"),
        };
        let mut turns = Turns::new(PartitionId(0), Epoch(1));
        turns.then(After::Answer(Box::new(|| {})));
        for index in 0..6 {
            turns.then(match index % 2 {
                0 => After::Arrive {
                    key: key(),
                    index,
                    message: message(),
                },
                _ => After::Deliver {
                    target: key(),
                    index,
                    message: message(),
                },
            });
        }
        turns.flush();
        let performed: Vec<u16> = turns
            .committed()
            .after
            .into_iter()
            .filter_map(|after| match after {
                After::Arrive { index, .. } | After::Deliver { index, .. } => Some(index),
                _ => None,
            })
            .collect();
        assert_eq!(performed, [0, 1, 2, 3, 4, 5]);
    }
}
