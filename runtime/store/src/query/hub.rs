//! Hubs: names, incarnations, and the entries that a retired one leaves behind.

use bytes::{Bytes, BytesMut};
use mainspring_core::id::{HubId, PartitionId};

use super::{broken_key, built, partitions};
use crate::key::{self, Parts, after_prefix, tag};
use crate::record::decode_hub;
use crate::{Error, Op, Read, Space};

/// Hubs known at once, at most. Their names are set by an operator or, one call each, by clients.
const HUBS_MAX: usize = 1 << 20;

/// Timers looked at in one slice. Timers are kept by due time over all hubs, so a retired hub's are found by looking at all.
const TIMERS_MAX: usize = 1 << 20;

/// All hub names with their present incarnation, by name.
pub fn hubs(read: &dyn Read) -> Result<Vec<(String, HubId)>, Error> {
    read.range(Space::Index, &[tag::HUB], &[tag::HUB + 1], HUBS_MAX, false)?
        .into_iter()
        .map(|(entry, value)| {
            let name = std::str::from_utf8(&entry[1..])
                .map_err(|_| broken_key(Space::Index, &entry))?
                .to_owned();
            let id = decode_hub(&value, || format!("hub {name}"))?;
            Ok((name, id))
        })
        .collect()
}

/// The highest incarnation number ever given.
pub fn hub_id_max(read: &dyn Read) -> Result<Option<HubId>, Error> {
    let (from, to) = ([tag::HUB_EVER], [tag::HUB_EVER + 1]);
    read.range(Space::Index, &from, &to, 1, true)?
        .first()
        .map(|(entry, _)| hub_of(entry))
        .transpose()
}

/// Incarnations that were retired and not forgotten yet, lowest first.
pub fn retired_hubs(read: &dyn Read) -> Result<Vec<HubId>, Error> {
    let (from, to) = ([tag::RETIRED_HUB], [tag::RETIRED_HUB + 1]);
    read.range(Space::Index, &from, &to, HUBS_MAX, false)?
        .iter()
        .map(|(entry, _)| hub_of(entry))
        .collect()
}

fn hub_of(entry: &[u8]) -> Result<HubId, Error> {
    Parts(&entry[1..])
        .hub()
        .ok_or_else(|| broken_key(Space::Index, entry))
}

/// The next deletions of a retired hub, at most `limit`; none once nothing of it is left.
///
/// The lists by created and completed time go first, so that what is half deleted is not found by a query; timers go last,
/// since finding them means looking at those of other hubs as well.
pub fn hub_slice(read: &dyn Read, hub: HubId, limit: usize) -> Result<Vec<Op>, Error> {
    let mut slice = Slice {
        read,
        limit,
        ops: Vec::new(),
    };
    for tag in [tag::CREATED, tag::COMPLETED] {
        slice.take(Space::Index, |to| key::timed_of_hub(to, tag, hub))?;
    }
    let partitions = partitions(read)?.unwrap_or(0);
    for partition in (0..partitions).map(PartitionId) {
        let of_hub = |to: &mut BytesMut| key::hub_of_partition(to, partition, hub);
        slice.take(Space::State, of_hub)?;
        slice.take(Space::History, of_hub)?;
        slice.take(Space::Mailbox, of_hub)?;
        for tag in [tag::BUSY, tag::ORPHAN] {
            slice.take(Space::Index, |to| {
                key::tag_of_partition(to, tag, partition);
                to.extend_from_slice(&hub.0.to_be_bytes());
            })?;
        }
    }
    for partition in (0..partitions).map(PartitionId) {
        slice.take_timers(partition, hub)?;
    }
    Ok(slice.ops)
}

struct Slice<'a> {
    read: &'a dyn Read,
    limit: usize,
    ops: Vec<Op>,
}

impl Slice<'_> {
    /// Takes entries that begin with `prefix`, as far as there is room.
    fn take(&mut self, space: Space, prefix: impl FnOnce(&mut BytesMut)) -> Result<(), Error> {
        let room = self.limit - self.ops.len();
        if room == 0 {
            return Ok(());
        }
        let from = built(prefix);
        let entries = self
            .read
            .range(space, &from, &after_prefix(&from), room, false)?;
        self.ops.extend(
            entries
                .into_iter()
                .map(|(key, _)| Op::Delete { space, key }),
        );
        Ok(())
    }

    fn take_timers(&mut self, partition: PartitionId, hub: HubId) -> Result<(), Error> {
        const PAGE: usize = 1_024;
        let prefix = partition.0.to_be_bytes();
        let to = after_prefix(&prefix);
        let mut from = Bytes::copy_from_slice(&prefix);
        let mut seen = 0;
        while self.ops.len() < self.limit && seen < TIMERS_MAX {
            let page = self.read.range(Space::Timer, &from, &to, PAGE, false)?;
            let Some((last, _)) = page.last() else {
                break;
            };
            from = super::behind(last);
            seen += page.len();
            for (key, _) in page {
                let at = 2 + key::TIME_BYTES;
                let is_of_hub = key.get(at..at + 4) == Some(&hub.0.to_be_bytes()[..]);
                if is_of_hub && self.ops.len() < self.limit {
                    self.ops.push(Op::Delete {
                        space: Space::Timer,
                        key,
                    });
                }
            }
        }
        Ok(())
    }
}
