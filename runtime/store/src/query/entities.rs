//! Entities: one by its id, pages of them in order of their ids, operations that are not due yet.

use bytes::{BufMut, Bytes, BytesMut};
use mainspring_core::entity::Operation;
use mainspring_core::id::{HubId, InstanceId, InstanceKey, PartitionId};
use mainspring_core::time::Timestamp;
use mainspring_entities::Record;

use super::{SCAN_MAX, behind, broken_key, built, place};
use crate::key::{self, Parts, after_prefix};
use crate::record::decode;
use crate::{Error, Read, Space};

/// Records read from a partition at a time.
const STEP: usize = 256;

/// Operations due at one instant for one entity that are looked at, at most: a repetition follows soon.
const SAME_TIME_MAX: usize = 100;

/// The record of an entity; `None` if nothing is known of it. One read.
pub fn entity(
    read: &dyn Read,
    partition: PartitionId,
    key: &InstanceKey,
) -> Result<Option<Record>, Error> {
    let entry = built(|to| key::entity(to, partition, key));
    read.get(Space::State, &entry)?
        .map(|value| decode(&value, || place(partition, key)))
        .transpose()
}

/// The state of an entity that has some.
///
/// Errors: `Corrupt` when it is no text.
pub fn entity_state(
    read: &dyn Read,
    partition: PartitionId,
    key: &InstanceKey,
) -> Result<Option<String>, Error> {
    let entry = built(|to| key::entity_state(to, partition, key));
    let Some(value) = read.get(Space::State, &entry)? else {
        return Ok(None);
    };
    match String::from_utf8(value.into()) {
        Ok(state) => Ok(Some(state)),
        Err(error) => Err(Error::corrupt(
            format!("state of {}", place(partition, key)),
            error.to_string(),
        )),
    }
}

/// An operation that is not due yet; `None` if it has been taken.
pub fn delayed_operation(
    read: &dyn Read,
    partition: PartitionId,
    key: &InstanceKey,
    due: Timestamp,
    sequence: u64,
) -> Result<Option<Operation>, Error> {
    let entry = built(|to| key::delayed(to, partition, key, due, sequence));
    read.get(Space::State, &entry)?
        .map(|value| decode(&value, || place(partition, key)))
        .transpose()
}

/// Operations of an entity that are due at exactly this time: those that came last, in order of arrival.
pub fn delayed_operations(
    read: &dyn Read,
    partition: PartitionId,
    key: &InstanceKey,
    due: Timestamp,
) -> Result<Vec<Operation>, Error> {
    let from = built(|to| key::delayed_until(to, partition, key, due));
    read.range(
        Space::State,
        &from,
        &after_prefix(&from),
        SAME_TIME_MAX,
        true,
    )?
    .into_iter()
    .rev()
    .map(|(_, value)| decode(&value, || place(partition, key)))
    .collect()
}

/// Which entities a query asks for. All conditions hold together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntityFilter {
    /// The id begins like this.
    pub prefix: String,
    /// Last modified at this time or later.
    pub modified_from: Option<Timestamp>,
    /// Last modified at this time or earlier.
    pub modified_to: Option<Timestamp>,
    /// Those without state, too.
    pub include_transient: bool,
}

impl EntityFilter {
    fn takes(&self, record: &Record) -> bool {
        let at = record.last_modified;
        (self.include_transient || record.has_state)
            && self.modified_from.is_none_or(|from| at >= from)
            && self.modified_to.is_none_or(|to| at <= to)
    }
}

/// Some of the entities asked for, in order of their ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntityPage {
    /// Each with its record and the partition that it lives in.
    pub entities: Vec<(InstanceId, PartitionId, Record)>,
    /// Where to go on behind, if there is more. A page may be empty and not the last: its work is bounded.
    pub next: Option<InstanceId>,
}

/// Entities of a hub behind `after` in order of their ids, at most `limit` (S-12.39).
pub fn query_entities(
    read: &dyn Read,
    hub: HubId,
    partitions: u16,
    filter: &EntityFilter,
    after: Option<&InstanceId>,
    limit: usize,
) -> Result<EntityPage, Error> {
    let mut heads = (0..partitions)
        .map(|partition| Head::new(read, PartitionId(partition), hub, &filter.prefix, after))
        .collect::<Result<Vec<_>, Error>>()?;
    let mut page = EntityPage::default();
    let mut last: Option<InstanceId> = None;
    for seen in 0.. {
        let lowest = heads
            .iter()
            .enumerate()
            .filter_map(|(at, head)| Some((head.first()?, at)))
            .min();
        let Some((_, at)) = lowest else {
            return Ok(page);
        };
        if seen >= SCAN_MAX {
            page.next = last;
            return Ok(page);
        }
        let (id, record) = heads[at].pop(read)?;
        if filter.takes(&record) {
            if page.entities.len() == limit {
                page.next = page.entities.last().map(|(id, ..)| id.clone());
                return Ok(page);
            }
            page.entities
                .push((id.clone(), heads[at].partition, record));
        }
        last = Some(id);
    }
    unreachable!("the loop counts up to a bound")
}

/// The entities of one partition that come next.
struct Head {
    partition: PartitionId,
    hub: HubId,
    /// Bytes of a key before the id.
    id_at: usize,
    waiting: std::collections::VecDeque<(Bytes, Bytes)>,
    end: Bytes,
    is_last: bool,
}

impl Head {
    fn new(
        read: &dyn Read,
        partition: PartitionId,
        hub: HubId,
        prefix: &str,
        after: Option<&InstanceId>,
    ) -> Result<Self, Error> {
        let of_hub = built(|to| key::entities_of_hub(to, partition, hub));
        let with = |text: &str| {
            let mut key = BytesMut::from(&of_hub[..]);
            key.put_slice(text.as_bytes());
            key.freeze()
        };
        let begin = with(prefix);
        let end = after_prefix(&begin);
        let from = match after {
            Some(id) if id.as_str() >= prefix => behind(&with(id.as_str())),
            _ => begin,
        };
        let mut head = Self {
            partition,
            hub,
            id_at: of_hub.len(),
            waiting: Default::default(),
            end,
            is_last: false,
        };
        head.fill(read, &from)?;
        Ok(head)
    }

    fn fill(&mut self, read: &dyn Read, from: &[u8]) -> Result<(), Error> {
        let entries = read.range(Space::State, from, &self.end, STEP, false)?;
        self.is_last = entries.len() < STEP;
        self.waiting = entries.into();
        Ok(())
    }

    fn first(&self) -> Option<&[u8]> {
        self.waiting.front().map(|(entry, _)| &entry[self.id_at..])
    }

    fn pop(&mut self, read: &dyn Read) -> Result<(InstanceId, Record), Error> {
        let (entry, value) = self
            .waiting
            .pop_front()
            .expect("a head is popped when it has a first");
        if self.waiting.is_empty() && !self.is_last {
            self.fill(read, &behind(&entry))?;
        }
        let instance = Parts(&entry[self.id_at..])
            .last_instance()
            .ok_or_else(|| broken_key(Space::State, &entry))?;
        let key = InstanceKey {
            hub: self.hub,
            instance,
        };
        let record = decode(&value, || place(self.partition, &key))?;
        Ok((key.instance, record))
    }
}
