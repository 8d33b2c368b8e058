//! Building a batch: one atomic commit of whole turns of one partition.
//!
//! The host says what a turn changed in its own words; keys and encodings stay here. A batch may carry several turns. When it
//! changes an entry twice, only the last change is kept, so the cost of a batch follows the entries it touches.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use mainspring_core::effect::{ActivityTask, Timer};
use mainspring_core::entity::Operation;
use mainspring_core::id::{HubId, InstanceKey, PartitionId, Position};
use mainspring_core::message::{Fence, Message};
use mainspring_core::orchestration::{Record, Start, Status};
use mainspring_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::key::{self, DueKind};
use crate::{Epoch, Op, Space, record};

/// Messages that one batch can carry: their place in it is a `u16`.
pub const BATCH_MESSAGES_MAX: usize = 1 << 16;

/// First allocation of a batch; a turn of a small orchestration fits.
const ARENA_BYTES: usize = 2 << 10;

/// One atomic batch: whole turns of one partition, by its owner in one epoch.
///
/// It is data: it can be encoded with serde and written elsewhere with the same effect.
#[derive(Debug, Serialize, Deserialize)]
pub struct Batch {
    /// Whose turns these are.
    pub partition: PartitionId,
    /// The ownership in which they were decided.
    pub epoch: Epoch,
    ops: Vec<Op>,
    messages: usize,
    /// Keys and values are split off from here, many to an allocation.
    #[serde(skip)]
    arena: BytesMut,
    /// Where in `ops` a key was changed, by hash of space and key.
    #[serde(skip)]
    places: HashMap<u64, usize>,
}

/// Two batches are equal when they change the same things.
impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        (self.partition, self.epoch, &self.ops) == (other.partition, other.epoch, &other.ops)
    }
}

impl Batch {
    /// An empty batch. Submitted as it is, it is a barrier.
    pub fn new(partition: PartitionId, epoch: Epoch) -> Self {
        Self {
            partition,
            epoch,
            ops: Vec::new(),
            messages: 0,
            arena: BytesMut::new(),
            places: HashMap::new(),
        }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Number of messages among the changes, at most [`BATCH_MESSAGES_MAX`].
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// The changes, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Adds changes that a query made out, such as [`crate::query::hub_slice`].
    pub fn extend(&mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Put { space, key, value } => self.put(space, key, value),
                Op::Delete { space, key } => self.delete(space, key),
                Op::Message { .. } => {
                    self.count_message();
                    self.ops.push(op);
                }
            }
        }
    }

    /// Adds changes as they are, entries changed twice included, as a decoded batch may have them.
    pub(crate) fn push_as_they_are(&mut self, ops: Vec<Op>) {
        self.ops.extend(ops);
    }

    /// Writes an instance's record.
    pub fn put_record(&mut self, key: &InstanceKey, record: &Record) {
        let partition = self.partition;
        let entry = self.key(|to| key::record(to, partition, key));
        let value = record::encode(&mut self.arena, record);
        self.put(Space::State, entry, value);
    }

    /// Writes what a generation started with.
    pub fn put_start(&mut self, key: &InstanceKey, start: &Start) {
        let partition = self.partition;
        let entry = self.key(|to| key::start(to, partition, key));
        let value = record::encode(&mut self.arena, start);
        self.put(Space::State, entry, value);
    }

    /// Writes one history chunk: framed, encoded events, as they are. Chunks of a generation are numbered from 0.
    pub fn append_history(
        &mut self,
        key: &InstanceKey,
        generation: u32,
        chunk: u32,
        events: Bytes,
    ) {
        let partition = self.partition;
        let entry = self.key(|to| key::history(to, partition, key, generation, chunk));
        self.put(Space::History, entry, events);
    }

    /// Removes chunks 0 to `chunks`, exclusive, of a generation.
    pub fn remove_history(&mut self, key: &InstanceKey, generation: u32, chunks: u32) {
        let partition = self.partition;
        for chunk in 0..chunks {
            let entry = self.key(|to| key::history(to, partition, key, generation, chunk));
            self.delete(Space::History, entry);
        }
    }

    /// Removes record and start. History, mailbox and index entries have removals of their own.
    pub fn remove_instance(&mut self, key: &InstanceKey) {
        let partition = self.partition;
        let entry = self.key(|to| key::record(to, partition, key));
        self.delete(Space::State, entry);
        let entry = self.key(|to| key::start(to, partition, key));
        self.delete(Space::State, entry);
    }

    /// Puts a message into the mailbox of `target`, which may be of another partition, and returns its place among the
    /// messages of this batch: with the commit number it gives the message's [`Position`].
    ///
    /// Panics beyond [`BATCH_MESSAGES_MAX`] messages; [`Batch::messages`] tells how many there are.
    pub fn put_message(
        &mut self,
        target_partition: PartitionId,
        target: &InstanceKey,
        message: &Message,
        mark_busy: bool,
    ) -> u16 {
        let prefix = self.key(|to| key::instance(to, target_partition, target));
        let value = record::encode(&mut self.arena, message);
        let index = self.count_message();
        self.ops.push(Op::Message { prefix, value });
        if mark_busy {
            let entry = self.key(|to| key::busy(to, target_partition, target));
            self.put(Space::Index, entry, Bytes::new());
        }
        index
    }

    /// Removes a message from an own mailbox.
    pub fn remove_message(&mut self, key: &InstanceKey, position: Position) {
        let partition = self.partition;
        let entry = self.key(|to| {
            key::instance(to, partition, key);
            key::position(to, position);
        });
        self.delete(Space::Mailbox, entry);
    }

    /// Notes that an instance has something to do, so that a restart finds it.
    pub fn mark_busy(&mut self, key: &InstanceKey) {
        let partition = self.partition;
        let entry = self.key(|to| key::busy(to, partition, key));
        self.put(Space::Index, entry, Bytes::new());
    }

    /// Notes that an instance has nothing to do.
    pub fn clear_busy(&mut self, key: &InstanceKey) {
        let partition = self.partition;
        let entry = self.key(|to| key::busy(to, partition, key));
        self.delete(Space::Index, entry);
    }

    /// Keeps a timer until it is disarmed.
    pub fn arm_timer(&mut self, key: &InstanceKey, timer: &Timer) {
        let entry = self.timer_key(key, timer);
        let value = record::encode(&mut self.arena, timer);
        self.put(Space::Timer, entry, value);
    }

    /// Removes a timer: fired, canceled, or of a generation that is over.
    pub fn disarm_timer(&mut self, key: &InstanceKey, timer: &Timer) {
        let entry = self.timer_key(key, timer);
        self.delete(Space::Timer, entry);
    }

    /// Keeps a scheduled start among the timers.
    pub fn arm_start(&mut self, key: &InstanceKey, at: Timestamp, generation: u32) {
        let entry = self.start_key(key, at, generation);
        self.put(Space::Timer, entry, Bytes::new());
    }

    /// Removes a scheduled start.
    pub fn disarm_start(&mut self, key: &InstanceKey, at: Timestamp, generation: u32) {
        let entry = self.start_key(key, at, generation);
        self.delete(Space::Timer, entry);
    }

    /// Writes an entity's record.
    pub fn put_entity(&mut self, key: &InstanceKey, record: &mainspring_entities::Record) {
        let partition = self.partition;
        let entry = self.key(|to| key::entity(to, partition, key));
        let value = record::encode(&mut self.arena, record);
        self.put(Space::State, entry, value);
    }

    /// Writes an entity's state; `None` removes it.
    pub fn put_entity_state(&mut self, key: &InstanceKey, state: Option<&str>) {
        let partition = self.partition;
        let entry = self.key(|to| key::entity_state(to, partition, key));
        match state {
            Some(state) => {
                let value = Bytes::copy_from_slice(state.as_bytes());
                self.put(Space::State, entry, value);
            }
            None => self.delete(Space::State, entry),
        }
    }

    /// Removes an entity's record and state. Its mailbox has removals of its own.
    pub fn remove_entity(&mut self, key: &InstanceKey) {
        let partition = self.partition;
        let entry = self.key(|to| key::entity(to, partition, key));
        self.delete(Space::State, entry);
        self.put_entity_state(key, None);
    }

    /// Keeps an entity's operation among the timers until it is due. Sequences rise in order of arrival.
    pub fn arm_operation(
        &mut self,
        key: &InstanceKey,
        due: Timestamp,
        sequence: u64,
        operation: &Operation,
    ) {
        let timer = self.operation_key(key, due, sequence);
        self.put(Space::Timer, timer, Bytes::new());
        let partition = self.partition;
        // Apart from the timer, of which many are read at once.
        let entry = self.key(|to| key::delayed(to, partition, key, due, sequence));
        let value = record::encode(&mut self.arena, operation);
        self.put(Space::State, entry, value);
    }

    /// Removes an operation that was kept until it was due.
    pub fn disarm_operation(&mut self, key: &InstanceKey, due: Timestamp, sequence: u64) {
        let timer = self.operation_key(key, due, sequence);
        self.delete(Space::Timer, timer);
        let partition = self.partition;
        let entry = self.key(|to| key::delayed(to, partition, key, due, sequence));
        self.delete(Space::State, entry);
    }

    /// Lists an instance by its created time. To be called at creation and whenever its status changes.
    pub fn index_created(&mut self, key: &InstanceKey, created_at: Timestamp, status: Status) {
        let entry = self.key(|to| key::created(to, key, created_at));
        let value = record::encode_status(status);
        self.put(Space::Index, entry, value);
    }

    /// Takes an instance off the list by created time.
    pub fn unindex_created(&mut self, key: &InstanceKey, created_at: Timestamp) {
        let entry = self.key(|to| key::created(to, key, created_at));
        self.delete(Space::Index, entry);
    }

    /// Lists a finished instance by its completed time.
    pub fn index_completed(&mut self, key: &InstanceKey, completed_at: Timestamp, status: Status) {
        let entry = self.key(|to| key::completed(to, key, completed_at));
        let value = record::encode_status(status);
        self.put(Space::Index, entry, value);
    }

    /// Takes an instance off the list by completed time.
    pub fn unindex_completed(&mut self, key: &InstanceKey, completed_at: Timestamp) {
        let entry = self.key(|to| key::completed(to, key, completed_at));
        self.delete(Space::Index, entry);
    }

    /// Keeps an activity that outlives the generation that scheduled it, whose history goes.
    pub fn put_orphan(&mut self, key: &InstanceKey, task: &ActivityTask) {
        let partition = self.partition;
        let entry = self.key(|to| key::orphan(to, partition, key, &task.fence));
        let value = record::encode(&mut self.arena, task);
        self.put(Space::Index, entry, value);
    }

    /// Removes an activity kept by [`Batch::put_orphan`].
    pub fn remove_orphan(&mut self, key: &InstanceKey, fence: &Fence) {
        let partition = self.partition;
        let entry = self.key(|to| key::orphan(to, partition, key, fence));
        self.delete(Space::Index, entry);
    }

    /// Names a hub incarnation. Its number is noted for ever, so that it is not given twice.
    pub fn put_hub(&mut self, name: &str, id: HubId) {
        let entry = self.key(|to| key::hub(to, name));
        let value = record::encode_hub(&mut self.arena, id);
        self.put(Space::Index, entry, value);
        let entry = self.key(|to| key::timed_of_hub(to, key::tag::HUB_EVER, id));
        self.put(Space::Index, entry, Bytes::new());
    }

    /// Removes a hub name.
    pub fn remove_hub(&mut self, name: &str) {
        let entry = self.key(|to| key::hub(to, name));
        self.delete(Space::Index, entry);
    }

    /// Notes that all entries of a hub incarnation are to be deleted, by slices.
    pub fn retire_hub(&mut self, id: HubId) {
        let entry = self.key(|to| key::timed_of_hub(to, key::tag::RETIRED_HUB, id));
        self.put(Space::Index, entry, Bytes::new());
    }

    /// Notes that nothing of a retired hub incarnation is left.
    pub fn forget_hub(&mut self, id: HubId) {
        let entry = self.key(|to| key::timed_of_hub(to, key::tag::RETIRED_HUB, id));
        self.delete(Space::Index, entry);
    }

    fn timer_key(&mut self, key: &InstanceKey, timer: &Timer) -> Bytes {
        let partition = self.partition;
        let kind = DueKind::Timer {
            generation: timer.generation,
            scheduling: timer.fence.scheduling,
        };
        self.key(|to| key::timer(to, partition, timer.fire_at, key, kind))
    }

    fn start_key(&mut self, key: &InstanceKey, at: Timestamp, generation: u32) -> Bytes {
        let partition = self.partition;
        self.key(|to| key::timer(to, partition, at, key, DueKind::Start { generation }))
    }

    fn operation_key(&mut self, key: &InstanceKey, due: Timestamp, sequence: u64) -> Bytes {
        let partition = self.partition;
        self.key(|to| key::timer(to, partition, due, key, DueKind::Operation { sequence }))
    }

    fn key(&mut self, build: impl FnOnce(&mut BytesMut)) -> Bytes {
        if self.arena.capacity() == 0 {
            self.arena.reserve(ARENA_BYTES);
        }
        build(&mut self.arena);
        self.arena.split().freeze()
    }

    fn count_message(&mut self) -> u16 {
        let index = u16::try_from(self.messages)
            .expect("a batch is split by its builder before it holds 65,536 messages");
        self.messages += 1;
        index
    }

    fn put(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.change(space, Op::Put { space, key, value });
    }

    fn delete(&mut self, space: Space, key: Bytes) {
        self.change(space, Op::Delete { space, key });
    }

    /// Adds a change, in place of an earlier one of the same entry.
    fn change(&mut self, space: Space, op: Op) {
        let (Op::Put { key, .. } | Op::Delete { key, .. }) = &op else {
            unreachable!("messages are added by their own way");
        };
        let hash = xxh3_64_with_seed(key, space as u64);
        let place = *self.places.entry(hash).or_insert(self.ops.len());
        match self.ops.get_mut(place) {
            Some(
                Op::Put {
                    space: was_in,
                    key: was,
                    ..
                }
                | Op::Delete {
                    space: was_in,
                    key: was,
                },
            ) if *was_in == space && was == key => self.ops[place] = op,
            // New, or another entry with the same hash: the store keeps the last change of an entry anyway.
            _ => self.ops.push(op),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use mainspring_core::id::InstanceId;

    fn of(instance: &str) -> InstanceKey {
        InstanceKey {
            hub: HubId(1),
            instance: InstanceId::from_stored(instance),
        }
    }

    fn batch() -> Batch {
        Batch::new(PartitionId(2), Epoch(3))
    }

    #[test]
    fn the_last_change_of_an_entry_takes_the_place_of_the_first() {
        let mut batch = batch();
        batch.mark_busy(&of("a"));
        batch.mark_busy(&of("b"));
        batch.clear_busy(&of("a"));
        batch.append_history(&of("a"), 0, 0, Bytes::from_static(b"first"));
        batch.append_history(&of("a"), 0, 0, Bytes::from_static(b"second"));
        assert_eq!(batch.len(), 3);
        assert!(matches!(batch.ops()[0], Op::Delete { .. }));
        assert!(matches!(&batch.ops()[2], Op::Put { value, .. } if value == "second"));
    }

    #[test]
    fn many_messages_to_one_target_mark_it_busy_once() {
        let mut batch = batch();
        let message = Message::Terminate {
            output: None,
            recurse: false,
        };
        for expected in 0..10 {
            let index = batch.put_message(PartitionId(0), &of("target"), &message, true);
            assert_eq!(index, expected);
        }
        assert_eq!((batch.messages(), batch.len()), (10, 11));
    }

    #[test]
    fn a_batch_is_data() {
        // Aim: what is encoded elsewhere and read back does the same.
        let mut batch = batch();
        batch.mark_busy(&of("a"));
        batch.clear_busy(&of("b"));
        let message = Message::Terminate {
            output: Some("x".to_owned()),
            recurse: true,
        };
        batch.put_message(PartitionId(0), &of("c"), &message, false);
        let bytes = rmp_serde::to_vec(&batch).unwrap();
        let mut back: Batch = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(back, batch);
        assert_eq!(
            back.put_message(PartitionId(0), &of("c"), &message, false),
            1
        );
    }
}
