//! Typed reads from one snapshot.
//!
//! Every function says how much it looks at: nothing here scans more than its limit or a named bound. A value that cannot be
//! decoded is an error that names the entry, never a gap.

use bytes::{Bytes, BytesMut};
use mainspring_core::effect::{ActivityTask, Timer};
use mainspring_core::id::{HubId, InstanceKey, PartitionId, Position};
use mainspring_core::message::Message;
use mainspring_core::orchestration::{Record, Start};
use mainspring_core::time::Timestamp;

use crate::key::{self, DueKind, Parts, after_prefix, tag};
use crate::record::{decode, decode_u64, hex};
use crate::{Error, Read, Space};

mod entities;
mod hub;
mod instances;

pub use entities::{
    EntityFilter, EntityPage, delayed_operation, delayed_operations, entity, entity_state,
    query_entities,
};
pub use hub::{hub_id_max, hub_slice, hubs, retired_hubs};
pub(crate) use instances::timed_entry;
pub use instances::{
    InstanceFilter, Page, SCAN_MAX, last_completed, list_completed, query_instances,
};

/// The record of an instance; `None` if there is no such instance. One read.
pub fn record(
    read: &dyn Read,
    partition: PartitionId,
    key: &InstanceKey,
) -> Result<Option<Record>, Error> {
    let entry = built(|to| key::record(to, partition, key));
    read.get(Space::State, &entry)?
        .map(|value| decode(&value, || place(partition, key)))
        .transpose()
}

/// Record and start of an instance. Two reads.
///
/// Errors: `Corrupt` when there is a record without a start, since both are written by one batch.
pub fn instance(
    read: &dyn Read,
    partition: PartitionId,
    key: &InstanceKey,
) -> Result<Option<(Record, Start)>, Error> {
    let Some(record) = record(read, partition, key)? else {
        return Ok(None);
    };
    let entry = built(|to| key::start(to, partition, key));
    let Some(value) = read.get(Space::State, &entry)? else {
        return Err(Error::corrupt(
            place(partition, key),
            "its start is missing",
        ));
    };
    let start = decode(&value, || place(partition, key))?;
    Ok(Some((record, start)))
}

/// Chunks 0 to `chunks`, exclusive, of a generation's history, as they were written.
///
/// Errors: `Corrupt` when one is missing.
pub fn history(
    read: &dyn Read,
    partition: PartitionId,
    key: &InstanceKey,
    generation: u32,
    chunks: u32,
) -> Result<Vec<Bytes>, Error> {
    history_from(read, partition, key, generation, 0, chunks)
}

/// Chunks `first` to `end`, exclusive.
pub(crate) fn history_from(
    read: &dyn Read,
    partition: PartitionId,
    key: &InstanceKey,
    generation: u32,
    first: u32,
    end: u32,
) -> Result<Vec<Bytes>, Error> {
    let wanted = end.saturating_sub(first) as usize;
    let from = built(|to| key::history(to, partition, key, generation, first));
    let entries = match wanted {
        0 => return Ok(Vec::new()),
        // A seek costs twice a lookup.
        1 => {
            let found = read.get(Space::History, &from)?;
            found.map(|value| (from, value)).into_iter().collect()
        }
        _ => {
            let to = built(|to| key::history(to, partition, key, generation, end));
            read.range(Space::History, &from, &to, wanted, false)?
        }
    };
    // Keys within these bounds differ in the chunk alone and do not repeat: as many as wanted means all.
    if entries.len() == wanted {
        return Ok(entries.into_iter().map(|(_, chunk)| chunk).collect());
    }
    Err(Error::corrupt(
        place(partition, key),
        format!(
            "generation {generation} has {} of the history chunks {first} to {end}",
            entries.len()
        ),
    ))
}

/// Messages behind `after`, oldest first, at most `limit`.
///
/// `after` is the remembered head of the mailbox: reading starts there and never walks over what was removed before it.
pub fn mailbox(
    read: &dyn Read,
    partition: PartitionId,
    key: &InstanceKey,
    after: Position,
    limit: usize,
) -> Result<Vec<(Position, Message)>, Error> {
    let mut from = BytesMut::new();
    key::instance(&mut from, partition, key);
    let to = after_prefix(&from);
    let prefix_bytes = from.len();
    key::position(&mut from, next_position(after));
    read.range(Space::Mailbox, &from, &to, limit, false)?
        .into_iter()
        .map(|(entry, value)| {
            let at = || format!("mailbox of {}", place(partition, key));
            let position = Parts(&entry[prefix_bytes..])
                .position()
                .ok_or_else(|| Error::corrupt(at(), format!("key {}", hex(&entry))))?;
            Ok((position, decode(&value, at)?))
        })
        .collect()
}

fn next_position(after: Position) -> Position {
    match after.index.checked_add(1) {
        Some(index) => Position { index, ..after },
        None => Position {
            commit: after.commit.saturating_add(1),
            index: 0,
        },
    }
}

/// Instances of a partition with anything in their mailbox, in key order behind `after`. One seek per instance: for a
/// restart, which must miss none of them.
pub fn waiting(
    read: &dyn Read,
    partition: PartitionId,
    after: Option<&InstanceKey>,
    limit: usize,
) -> Result<Vec<InstanceKey>, Error> {
    let end = after_prefix(&partition.0.to_be_bytes());
    let mut from = match after {
        Some(key) => after_prefix(&built(|to| key::instance(to, partition, key))),
        None => Bytes::copy_from_slice(&partition.0.to_be_bytes()),
    };
    let mut found = Vec::new();
    while found.len() < limit {
        let Some((entry, _)) = read.range(Space::Mailbox, &from, &end, 1, false)?.pop() else {
            break;
        };
        let key = mailbox_owner(&entry).ok_or_else(|| broken_key(Space::Mailbox, &entry))?;
        from = after_prefix(&built(|to| key::instance(to, partition, &key)));
        found.push(key);
    }
    Ok(found)
}

fn mailbox_owner(entry: &[u8]) -> Option<InstanceKey> {
    let mut parts = Parts(entry);
    parts.partition()?;
    Some(InstanceKey {
        hub: parts.hub()?,
        instance: parts.closed_instance()?,
    })
}

/// Where a timer stands in the due order of its partition. Opaque; sorts by due time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey(Bytes);

impl TimerKey {
    /// Before all timers of a partition that are due at this time or later.
    pub fn first_at(partition: PartitionId, due: Timestamp) -> Self {
        Self(built(|to| {
            to.extend_from_slice(&partition.0.to_be_bytes());
            key::time(to, due);
        }))
    }
}

/// A timer or a scheduled start, as armed.
#[derive(Clone, Debug, PartialEq)]
pub struct TimerEntry {
    /// Its place in the due order.
    pub sort: TimerKey,
    /// Whose it is.
    pub key: InstanceKey,
    /// When it is due, to the nanosecond.
    pub due: Timestamp,
    /// What is due.
    pub what: Due,
}

/// What is due.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    /// A timer of an orchestration.
    Timer(Timer),
    /// The start of a generation that was scheduled ahead.
    Start {
        /// The generation.
        generation: u32,
    },
    /// An operation for an entity; see [`delayed_operation`].
    Operation {
        /// Its number.
        sequence: u64,
    },
}

/// Timers of a partition in due order, behind `after`, at most `limit`.
pub fn timers(
    read: &dyn Read,
    partition: PartitionId,
    after: Option<&TimerKey>,
    limit: usize,
) -> Result<Vec<TimerEntry>, Error> {
    let prefix = partition.0.to_be_bytes();
    let from = match after {
        Some(TimerKey(entry)) => behind(entry),
        None => Bytes::copy_from_slice(&prefix),
    };
    read.range(Space::Timer, &from, &after_prefix(&prefix), limit, false)?
        .into_iter()
        .map(|(entry, value)| timer_entry(entry, &value))
        .collect()
}

pub(crate) fn timer_entry(entry: Bytes, value: &[u8]) -> Result<TimerEntry, Error> {
    let parse = || {
        let mut parts = Parts(&entry);
        let partition = parts.partition()?;
        let due = parts.time()?;
        let (key, kind) = key::timer_rest(parts)?;
        Some((partition, due, key, kind))
    };
    let (partition, due, key, kind) = parse().ok_or_else(|| broken_key(Space::Timer, &entry))?;
    let what = match kind {
        DueKind::Start { generation } => Due::Start { generation },
        DueKind::Operation { sequence } => Due::Operation { sequence },
        DueKind::Timer { .. } => Due::Timer(decode(value, || place(partition, &key))?),
    };
    Ok(TimerEntry {
        sort: TimerKey(entry),
        key,
        due,
        what,
    })
}

/// Whether an instance is marked as having something to do.
pub fn is_busy(read: &dyn Read, partition: PartitionId, key: &InstanceKey) -> Result<bool, Error> {
    let entry = built(|to| key::busy(to, partition, key));
    Ok(read.get(Space::Index, &entry)?.is_some())
}

/// Instances of a partition that have something to do, in key order behind `after`, at most `limit`.
pub fn busy(
    read: &dyn Read,
    partition: PartitionId,
    after: Option<&InstanceKey>,
    limit: usize,
) -> Result<Vec<InstanceKey>, Error> {
    let prefix = built(|to| key::tag_of_partition(to, tag::BUSY, partition));
    let from = match after {
        Some(key) => behind(&built(|to| key::busy(to, partition, key))),
        None => prefix.clone(),
    };
    read.range(Space::Index, &from, &after_prefix(&prefix), limit, false)?
        .into_iter()
        .map(|(entry, _)| {
            let mut parts = Parts(&entry[prefix.len()..]);
            let hub = parts.hub();
            let instance = parts.last_instance();
            match (hub, instance) {
                (Some(hub), Some(instance)) => Ok(InstanceKey { hub, instance }),
                _ => Err(broken_key(Space::Index, &entry)),
            }
        })
        .collect()
}

/// Activities that outlive their generation, in key order behind `after` (an earlier answer's last), at most `limit`.
pub fn orphans(
    read: &dyn Read,
    partition: PartitionId,
    after: Option<&(InstanceKey, ActivityTask)>,
    limit: usize,
) -> Result<Vec<(InstanceKey, ActivityTask)>, Error> {
    let prefix = built(|to| key::tag_of_partition(to, tag::ORPHAN, partition));
    let from = match after {
        Some((key, task)) => behind(&built(|to| key::orphan(to, partition, key, &task.fence))),
        None => prefix.clone(),
    };
    read.range(Space::Index, &from, &after_prefix(&prefix), limit, false)?
        .into_iter()
        .map(|(entry, value)| {
            let mut parts = Parts(&entry[prefix.len()..]);
            let owner = parts.hub().zip(parts.closed_instance());
            let (hub, instance) = owner.ok_or_else(|| broken_key(Space::Index, &entry))?;
            let key = InstanceKey { hub, instance };
            let task = decode(&value, || place(partition, &key))?;
            Ok((key, task))
        })
        .collect()
}

/// The store's own note of how many partitions it has.
pub(crate) fn partitions(read: &dyn Read) -> Result<Option<u16>, Error> {
    let Some(value) = read.get(Space::Index, &key::meta::PARTITIONS)? else {
        return Ok(None);
    };
    match (&value[..]).try_into() {
        Ok(bytes) => Ok(Some(u16::from_be_bytes(bytes))),
        Err(_) => Err(Error::corrupt(
            "the number of partitions",
            format!("value {}", hex(&value)),
        )),
    }
}

/// A number of the store's own, such as the last commit.
pub(crate) fn number(read: &dyn Read, space: Space, key: &[u8]) -> Result<Option<u64>, Error> {
    read.get(space, key)?
        .map(|value| decode_u64(&value, || format!("{} {}", space.name(), hex(key))))
        .transpose()
}

pub(crate) fn built(build: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut key = BytesMut::with_capacity(64);
    build(&mut key);
    key.freeze()
}

/// The first possible key behind an entry.
pub(crate) fn behind(entry: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(entry.len() + 1);
    key.extend_from_slice(entry);
    key.extend_from_slice(&[0]);
    key.freeze()
}

pub(crate) fn place(partition: PartitionId, key: &InstanceKey) -> String {
    format!(
        "instance {} (hub {}, partition {})",
        key.instance, key.hub.0, partition.0
    )
}

pub(crate) fn of_hub(hub: HubId) -> String {
    format!("index of hub {}", hub.0)
}

pub(crate) fn broken_key(space: Space, entry: &[u8]) -> Error {
    Error::corrupt(
        format!("{} entry {}", space.name(), hex(entry)),
        "the key does not have the form of its kind",
    )
}
