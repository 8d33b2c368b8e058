//! Every entry of a store, one by one: can it be decoded, and do the entries agree with each other?
//!
//! Verified: keys have the form of their kind; records, starts, messages, timers, outliving activities, statuses and hubs
//! decode; history events decode; entities' records, states and operations that are not due decode and go together; a record's start and all of its history chunks are there, and none besides; the lists by
//! created and completed time hold exactly what the records say. Not verified: that a history is one that its orchestrator
//! could have had, or that an instance is marked busy which should be.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use mainspring_core::effect::ActivityTask;
use mainspring_core::entity::Operation;
use mainspring_core::id::{HubId, InstanceId, InstanceKey, PartitionId, Position};
use mainspring_core::message::Message;
use mainspring_core::orchestration::{Record, Start};
use mainspring_core::wire;

use crate::key::{self, DueKind, Parts, kind, tag};
use crate::query::{self, behind, broken_key, built, place};
use crate::record::{decode, decode_hub, encode_status};
use crate::{Error, Read, Space};

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Each is the number of what it is called.
pub struct Counts {
    pub instances: u64,
    pub entities: u64,
    pub history_chunks: u64,
    pub history_events: u64,
    pub messages: u64,
    pub timers: u64,
    pub scheduled_starts: u64,
    pub delayed_operations: u64,
    pub busy: u64,
    pub outliving_activities: u64,
    pub hubs: u64,
    pub retired_hubs: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            to,
            "{} instances and {} entities ({} busy), {} history events in {} chunks, {} messages, {} timers, \
             {} scheduled starts, {} delayed operations, {} outliving activities, {} hubs ({} more being deleted)",
            self.instances,
            self.entities,
            self.busy,
            self.history_events,
            self.history_chunks,
            self.messages,
            self.timers,
            self.scheduled_starts,
            self.delayed_operations,
            self.outliving_activities,
            self.hubs,
            self.retired_hubs,
        )
    }
}

/// Something that is wrong, and what would mend it.
pub(super) struct Finding {
    pub what: String,
    pub fix: Option<Fix>,
}

/// How a finding can be mended.
pub(super) enum Fix {
    /// Keep the entry in the lost-and-found file and remove it: it means nothing to a server.
    Lose {
        space: Space,
        key: Bytes,
        value: Bytes,
    },
    /// Write an index entry that follows from a record.
    Index { key: Bytes, value: Bytes },
    /// Remove an index entry that no record supports.
    Unindex { key: Bytes },
}

pub(super) type Sink<'a> = &'a mut dyn FnMut(Finding) -> Result<(), Error>;

/// Entries read at a time.
const PAGE: usize = 1_024;

/// Looks at everything; tells the sink what is wrong.
pub(super) fn examine(read: &dyn Read, sink: Sink<'_>) -> Result<Counts, Error> {
    let mut examiner = Examiner {
        read,
        sink,
        counts: Counts::default(),
        partitions: query::partitions(read)?.unwrap_or(0),
        retired: BTreeSet::new(),
        commit: query::number(read, Space::Index, &key::meta::COMMIT)?.unwrap_or(0),
        owner: None,
        entity: None,
    };
    // Retired hubs come to be known before anything of theirs is seen.
    examiner.walk(Space::Index, Examiner::hub_entry)?;
    examiner.walk(Space::State, Examiner::state_entry)?;
    examiner.walk(Space::History, Examiner::history_entry)?;
    examiner.walk(Space::Mailbox, Examiner::mailbox_entry)?;
    examiner.walk(Space::Timer, Examiner::timer_entry)?;
    examiner.walk(Space::Index, Examiner::index_entry)?;
    Ok(examiner.counts)
}

struct Examiner<'a> {
    read: &'a dyn Read,
    sink: Sink<'a>,
    counts: Counts,
    partitions: u16,
    retired: BTreeSet<HubId>,
    /// The last commit of the store.
    commit: u64,
    /// The instance looked up last, with its record if it has one that decodes.
    owner: Option<(PartitionId, InstanceKey, Option<Record>)>,
    /// The entity looked up last, with the head of its mailbox.
    entity: Option<(PartitionId, InstanceKey, Position)>,
}

type Entry = (Bytes, Bytes);

impl Examiner<'_> {
    fn walk(
        &mut self,
        space: Space,
        mut look: impl FnMut(&mut Self, Entry) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut from = Bytes::new();
        loop {
            // Below 255: the store's own marks are left out.
            let page = self.read.range(space, &from, &[0xff], PAGE, false)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            from = behind(last);
            for entry in page {
                look(self, entry)?;
            }
        }
    }

    fn tell(&mut self, what: impl fmt::Display, fix: Option<Fix>) -> Result<(), Error> {
        (self.sink)(Finding {
            what: what.to_string(),
            fix,
        })
    }

    fn lose(&mut self, what: impl fmt::Display, space: Space, entry: Entry) -> Result<(), Error> {
        let (key, value) = entry;
        self.tell(what, Some(Fix::Lose { space, key, value }))
    }

    fn lose_broken(&mut self, space: Space, entry: Entry) -> Result<(), Error> {
        let what = broken_key(space, &entry.0);
        self.lose(what, space, entry)
    }

    fn is_partition(&self, partition: PartitionId) -> bool {
        partition.0 < self.partitions
    }

    /// The record of an entry's instance; one that does not decode counts as missing, and is told of elsewhere.
    fn owner(
        &mut self,
        partition: PartitionId,
        key: &InstanceKey,
    ) -> Result<Option<&Record>, Error> {
        let is_known = matches!(&self.owner, Some((p, k, _)) if *p == partition && k == key);
        if !is_known {
            let record = match query::record(self.read, partition, key) {
                Ok(record) => record,
                Err(Error::Corrupt { .. }) => None,
                Err(error) => return Err(error),
            };
            self.owner = Some((partition, key.clone(), record));
        }
        Ok(self
            .owner
            .as_ref()
            .and_then(|(_, _, record)| record.as_ref()))
    }

    fn hub_entry(&mut self, entry: Entry) -> Result<(), Error> {
        let mut parts = Parts(&entry.0);
        match parts.u8() {
            Some(tag::HUB) => {
                self.counts.hubs += 1;
                let name = String::from_utf8_lossy(parts.0).into_owned();
                if let Err(error) = decode_hub(&entry.1, || format!("hub {name}")) {
                    return self.lose(error, Space::Index, entry);
                }
            }
            Some(tag::RETIRED_HUB) => {
                self.counts.retired_hubs += 1;
                match parts.hub() {
                    Some(hub) => {
                        self.retired.insert(hub);
                    }
                    None => return self.lose_broken(Space::Index, entry),
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn state_entry(&mut self, entry: Entry) -> Result<(), Error> {
        let mut parts = Parts(&entry.0);
        let head = (parts.partition(), parts.hub(), parts.u8());
        let (Some(partition), Some(hub), Some(kind @ kind::RECORD..=kind::DELAYED)) = head else {
            return self.lose_broken(Space::State, entry);
        };
        if kind == kind::DELAYED {
            return self.delayed_entry(parts.0, partition, hub, entry.clone());
        }
        let Some(instance) = parts
            .last_instance()
            .filter(|_| self.is_partition(partition))
        else {
            return self.lose_broken(Space::State, entry);
        };
        let key = InstanceKey { hub, instance };
        let at = place(partition, &key);
        if kind >= kind::ENTITY {
            return self.entity_entry(kind, partition, &key, entry);
        }
        if kind == kind::START {
            if let Err(error) = decode::<Start>(&entry.1, || at.clone()) {
                return self.lose(error, Space::State, entry);
            }
            if self.owner(partition, &key)?.is_none() && !self.retired.contains(&hub) {
                return self.lose(
                    format!("{at}: a start without a record"),
                    Space::State,
                    entry,
                );
            }
            return Ok(());
        }
        self.counts.instances += 1;
        match decode::<Record>(&entry.1, || at.clone()) {
            Err(error) => self.lose(error, Space::State, entry),
            Ok(_) if self.retired.contains(&hub) => Ok(()),
            Ok(record) => self.record(partition, &key, &record, entry),
        }
    }

    /// A record of an entity that has state needs the state; state needs a record that says so.
    fn entity_entry(
        &mut self,
        kind: u8,
        partition: PartitionId,
        key: &InstanceKey,
        entry: Entry,
    ) -> Result<(), Error> {
        let at = place(partition, key);
        if kind == kind::ENTITY {
            self.counts.entities += 1;
            let record = match decode::<mainspring_entities::Record>(&entry.1, || at.clone()) {
                Ok(record) => record,
                Err(error) => return self.lose(error, Space::State, entry),
            };
            let state = match query::entity_state(self.read, partition, key) {
                Ok(state) => state,
                // That is told of with the state.
                Err(Error::Corrupt { .. }) => None,
                Err(error) => return Err(error),
            };
            if record.has_state && state.is_none() {
                return self.lose(format!("{at}: its state is missing"), Space::State, entry);
            }
            return Ok(());
        }
        if let Err(error) = std::str::from_utf8(&entry.1) {
            return self.lose(format!("state of {at}: {error}"), Space::State, entry);
        }
        let has_state = match query::entity(self.read, partition, key) {
            Ok(record) => record.is_some_and(|record| record.has_state),
            Err(Error::Corrupt { .. }) => false,
            Err(error) => return Err(error),
        };
        if has_state || self.retired.contains(&key.hub) {
            return Ok(());
        }
        self.lose(
            format!("{at}: a state without a record"),
            Space::State,
            entry,
        )
    }

    fn delayed_entry(
        &mut self,
        rest: &[u8],
        partition: PartitionId,
        hub: HubId,
        entry: Entry,
    ) -> Result<(), Error> {
        self.counts.delayed_operations += 1;
        let mut parts = Parts(rest);
        let found = (parts.closed_instance(), parts.time(), parts.u64());
        let (Some(instance), Some(due), Some(sequence)) = found else {
            return self.lose_broken(Space::State, entry);
        };
        if !parts.is_done() || !self.is_partition(partition) {
            return self.lose_broken(Space::State, entry);
        }
        let key = InstanceKey { hub, instance };
        let at = place(partition, &key);
        if let Err(error) = decode::<Operation>(&entry.1, || at.clone()) {
            return self.lose(error, Space::State, entry);
        }
        let what = DueKind::Operation { sequence };
        let timer = built(|to| key::timer(to, partition, due, &key, what));
        if self.read.get(Space::Timer, &timer)?.is_none() && !self.retired.contains(&hub) {
            let what = format!("{at}: nothing wakes an operation that is not due yet");
            return self.lose(what, Space::State, entry);
        }
        Ok(())
    }

    fn record(
        &mut self,
        partition: PartitionId,
        key: &InstanceKey,
        record: &Record,
        entry: Entry,
    ) -> Result<(), Error> {
        let at = place(partition, key);
        let start = built(|to| key::start(to, partition, key));
        if self.read.get(Space::State, &start)?.is_none() {
            return self.lose(format!("{at}: its start is missing"), Space::State, entry);
        }
        let (generation, chunks) = (record.generation, record.history_chunks);
        if let Err(error) = query::history(self.read, partition, key, generation, chunks) {
            self.tell(error, None)?;
        }
        let status = encode_status(record.status);
        let created = built(|to| key::created(to, key, record.created_at));
        self.require_index("created", &at, created, &status)?;
        if let Some(completed_at) = record.completed_at.filter(|_| record.status.is_terminal()) {
            let completed = built(|to| key::completed(to, key, completed_at));
            self.require_index("completed", &at, completed, &status)?;
        }
        Ok(())
    }

    fn require_index(
        &mut self,
        list: &str,
        at: &str,
        key: Bytes,
        status: &Bytes,
    ) -> Result<(), Error> {
        let what = match self.read.get(Space::Index, &key)? {
            Some(found) if found == status => return Ok(()),
            Some(_) => "has another status",
            None => "is missing",
        };
        let value = status.clone();
        self.tell(
            format!("{at}: its entry by {list} time {what}"),
            Some(Fix::Index { key, value }),
        )
    }

    fn history_entry(&mut self, entry: Entry) -> Result<(), Error> {
        self.counts.history_chunks += 1;
        let mut parts = Parts(&entry.0);
        let owner = instance_key(&mut parts);
        let (Some((partition, key)), Some(generation), Some(chunk), true) =
            (owner, parts.u32(), parts.u32(), parts.is_done())
        else {
            return self.lose_broken(Space::History, entry);
        };
        let at = place(partition, &key);
        match wire::decode_chunk(&entry.1) {
            Ok(events) => self.counts.history_events += events.len() as u64,
            Err(error) => {
                let what =
                    format!("{at}: history chunk {chunk} of generation {generation}: {error}");
                self.tell(what, None)?;
            }
        }
        let is_known = self
            .owner(partition, &key)?
            .is_some_and(|record| record.generation == generation && chunk < record.history_chunks);
        if is_known || self.retired.contains(&key.hub) {
            return Ok(());
        }
        let what =
            format!("{at}: no record knows of history chunk {chunk} of generation {generation}");
        self.lose(what, Space::History, entry)
    }

    fn mailbox_entry(&mut self, entry: Entry) -> Result<(), Error> {
        self.counts.messages += 1;
        let mut parts = Parts(&entry.0);
        let owner = instance_key(&mut parts);
        let (Some((partition, key)), Some(position), true) =
            (owner, parts.position(), parts.is_done())
        else {
            return self.lose_broken(Space::Mailbox, entry);
        };
        let at = || format!("mailbox of {}", place(partition, &key));
        if let Err(error) = decode::<Message>(&entry.1, at) {
            return self.lose(error, Space::Mailbox, entry);
        }
        if position.commit > self.commit {
            let what = format!("{}: a message of commit {}", at(), position.commit);
            return self.tell(what, None);
        }
        let is_taken = match key.instance.is_entity() {
            true => position <= self.entity_head(partition, &key)?,
            false => self
                .owner(partition, &key)?
                .is_some_and(|record| position <= record.mailbox_head),
        };
        if is_taken && !self.retired.contains(&key.hub) {
            let what = format!("{}: a message that was taken already", at());
            return self.lose(what, Space::Mailbox, entry);
        }
        Ok(())
    }

    /// How far an entity has emptied its mailbox; one whose record does not decode counts as new.
    fn entity_head(
        &mut self,
        partition: PartitionId,
        key: &InstanceKey,
    ) -> Result<Position, Error> {
        let is_known = matches!(&self.entity, Some((p, k, _)) if *p == partition && k == key);
        if !is_known {
            let record = match query::entity(self.read, partition, key) {
                Ok(record) => record,
                Err(Error::Corrupt { .. }) => None,
                Err(error) => return Err(error),
            };
            let head = record.map_or(Position::default(), |record| record.mailbox_head);
            self.entity = Some((partition, key.clone(), head));
        }
        Ok(self
            .entity
            .as_ref()
            .map_or(Position::default(), |(.., head)| *head))
    }

    fn timer_entry(&mut self, entry: Entry) -> Result<(), Error> {
        let found = match query::timer_entry(entry.0.clone(), &entry.1) {
            Ok(found) => found,
            Err(error) => return self.lose(error, Space::Timer, entry),
        };
        match found.what {
            query::Due::Timer(_) => self.counts.timers += 1,
            query::Due::Start { .. } => self.counts.scheduled_starts += 1,
            query::Due::Operation { .. } => {}
        }
        let Some(partition) = Parts(&entry.0)
            .partition()
            .filter(|&p| self.is_partition(p))
        else {
            return self.lose_broken(Space::Timer, entry);
        };
        let key = found.key;
        // An entity may have nothing yet but what is to come.
        if matches!(found.what, query::Due::Operation { .. }) {
            return Ok(());
        }
        if self.owner(partition, &key)?.is_none() && !self.retired.contains(&key.hub) {
            let what = format!("{}: a timer without a record", place(partition, &key));
            return self.lose(what, Space::Timer, entry);
        }
        Ok(())
    }

    fn index_entry(&mut self, entry: Entry) -> Result<(), Error> {
        let mut parts = Parts(&entry.0);
        match parts.u8() {
            Some(tag @ (tag::CREATED | tag::COMPLETED)) => self.timed_entry(tag, entry),
            Some(tag::BUSY) => {
                self.counts.busy += 1;
                match (parts.partition(), parts.hub(), parts.last_instance()) {
                    (Some(partition), Some(_), Some(_)) if self.is_partition(partition) => Ok(()),
                    _ => self.lose_broken(Space::Index, entry),
                }
            }
            Some(tag::ORPHAN) => {
                self.counts.outliving_activities += 1;
                let owner = instance_key(&mut parts);
                let fence = (parts.closed_execution(), parts.u32(), parts.is_done());
                let (Some((partition, key)), (Some(_), Some(_), true)) = (owner, fence) else {
                    return self.lose_broken(Space::Index, entry);
                };
                match decode::<ActivityTask>(&entry.1, || place(partition, &key)) {
                    Ok(_) => Ok(()),
                    Err(error) => self.lose(error, Space::Index, entry),
                }
            }
            Some(tag::META | tag::HUB | tag::RETIRED_HUB | tag::HUB_EVER | tag::EPOCH) => Ok(()),
            _ => self.lose_broken(Space::Index, entry),
        }
    }

    fn timed_entry(&mut self, tag: u8, entry: Entry) -> Result<(), Error> {
        let hub = Parts(&entry.0[1..]).hub();
        let (Some(hub), Ok((at, instance))) = (hub, query::timed_entry(&entry.0)) else {
            return self.lose_broken(Space::Index, entry);
        };
        if self.retired.contains(&hub) {
            return Ok(());
        }
        let key = InstanceKey { hub, instance };
        // The list is kept over all partitions; which one an instance belongs to is the host's to know.
        for partition in (0..self.partitions).map(PartitionId) {
            let is_supported = self
                .owner(partition, &key)?
                .is_some_and(|record| match tag {
                    tag::CREATED => record.created_at == at,
                    _ => record.completed_at == Some(at) && record.status.is_terminal(),
                });
            if is_supported {
                // That the status agrees was looked at with the record.
                return Ok(());
            }
        }
        let list = if tag == tag::CREATED {
            "created"
        } else {
            "completed"
        };
        let what = format!(
            "instance {} (hub {}): an entry by {list} time without a record",
            key.instance, hub.0
        );
        self.tell(what, Some(Fix::Unindex { key: entry.0 }))
    }
}

fn instance_key(parts: &mut Parts<'_>) -> Option<(PartitionId, InstanceKey)> {
    let partition = parts.partition()?;
    let hub = parts.hub()?;
    let instance: InstanceId = parts.closed_instance()?;
    Some((partition, InstanceKey { hub, instance }))
}
