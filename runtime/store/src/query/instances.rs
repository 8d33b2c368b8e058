//! Pages of instances by created time and by completed time.

use bytes::{Bytes, BytesMut};
use mainspring_core::id::{HubId, InstanceId, InstanceKey, PartitionId};
use mainspring_core::orchestration::{Record, Status};
use mainspring_core::time::Timestamp;

use super::{behind, broken_key, built, of_hub, place};
use crate::key::{self, Parts, after_prefix, tag};
use crate::record::{decode, decode_status};
use crate::{Error, Read, Space};

/// Index entries looked at for one page, at most: about 10 ms of work. A page that meets it ends early and says where.
pub const SCAN_MAX: usize = 10_000;

/// Entries read at a time while scanning: not many more than asked for, and enough to get over those that do not fit.
const STEP: std::ops::RangeInclusive<usize> = 64..=512;

/// Instances with an id prefix up to this number are found by id and sorted, rather than sought in the list by time.
const BY_PREFIX_MAX: usize = 1_000;

/// An instance as the lists by time have it.
type Listed = (Timestamp, InstanceId, Status);

/// Which instances a query asks for. All conditions hold together; an empty one does not restrict.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstanceFilter {
    /// Any of these; empty: all.
    pub statuses: Vec<Status>,
    /// Created at this time or later.
    pub created_from: Option<Timestamp>,
    /// Created at this time or earlier.
    pub created_to: Option<Timestamp>,
    /// The id begins like this.
    pub prefix: Option<String>,
}

/// Some of the instances asked for, in order of (time, id).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Time, id and status of each.
    pub keys: Vec<(Timestamp, InstanceId, Status)>,
    /// How far the search has come: go on behind it. `None` when nothing was looked at.
    pub next: Option<(Timestamp, InstanceId)>,
    /// Whether there is more: a further match, or entries that this page's bound of work left unseen.
    pub more: bool,
}

/// Instances of a hub by (created time, id), behind `after`, at most `limit` (S-11.9, S-11.11).
///
/// A prefix that few instances have is looked up by id; otherwise the list by created time is filtered. Either way the order
/// and the meaning of `after` are the same, so pages of one query may be found by different ways. `more` is exact unless
/// [`SCAN_MAX`] entries were looked at: then it is true, and the next page may be empty.
pub fn query_instances(
    read: &dyn Read,
    hub: HubId,
    partitions: u16,
    filter: &InstanceFilter,
    after: Option<&(Timestamp, InstanceId)>,
    limit: usize,
) -> Result<Page, Error> {
    if let Some(prefix) = filter.prefix.as_deref().filter(|text| !text.is_empty())
        && let Some(found) = by_prefix(read, hub, partitions, prefix)?
    {
        return Ok(page_of(found, filter, after, limit));
    }
    scan(read, tag::CREATED, hub, filter, after, limit)
}

/// Finished instances of a hub by (completed time, id), behind `after`, at most `limit` (S-11.14, S-11.15). `statuses`
/// empty: all.
pub fn list_completed(
    read: &dyn Read,
    hub: HubId,
    statuses: &[Status],
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    after: Option<&(Timestamp, InstanceId)>,
    limit: usize,
) -> Result<Page, Error> {
    let filter = InstanceFilter {
        statuses: statuses.to_vec(),
        created_from: from,
        created_to: to,
        prefix: None,
    };
    scan(read, tag::COMPLETED, hub, &filter, after, limit)
}

/// The latest completed time of a hub: the next one has to be later (S-11.15).
pub fn last_completed(read: &dyn Read, hub: HubId) -> Result<Option<Timestamp>, Error> {
    let from = built(|to| key::timed_of_hub(to, tag::COMPLETED, hub));
    read.range(Space::Index, &from, &after_prefix(&from), 1, true)?
        .first()
        .map(|(entry, _)| Ok(timed_entry(entry)?.0))
        .transpose()
}

/// Time and id of an entry of the created or completed index.
pub(crate) fn timed_entry(entry: &[u8]) -> Result<(Timestamp, InstanceId), Error> {
    let parse = || {
        let mut parts = Parts(entry);
        parts.u8()?;
        parts.hub()?;
        Some((parts.time()?, parts.last_instance()?))
    };
    parse().ok_or_else(|| broken_key(Space::Index, entry))
}

/// Collects matches up to a limit, and finds out whether there is one more.
struct Collect<'a> {
    filter: &'a InstanceFilter,
    limit: usize,
    page: Page,
}

impl Collect<'_> {
    /// Returns false once the page is complete.
    fn offer(&mut self, at: Timestamp, id: InstanceId, status: Status) -> bool {
        let filter = self.filter;
        let fits = (filter.statuses.is_empty() || filter.statuses.contains(&status))
            && filter
                .prefix
                .as_ref()
                .is_none_or(|prefix| id.as_str().starts_with(prefix.as_str()));
        if fits && self.page.keys.len() == self.limit {
            self.page.more = true;
            return false;
        }
        self.page.next = Some((at, id.clone()));
        if fits {
            self.page.keys.push((at, id, status));
        }
        true
    }
}

fn scan(
    read: &dyn Read,
    tag: u8,
    hub: HubId,
    filter: &InstanceFilter,
    after: Option<&(Timestamp, InstanceId)>,
    limit: usize,
) -> Result<Page, Error> {
    let mut from = built(|to| lower(to, tag, hub, filter, after));
    let to = built(|to| upper(to, tag, hub, filter));
    let mut collect = Collect {
        filter,
        limit,
        page: Page::default(),
    };
    let mut seen = 0;
    loop {
        if seen >= SCAN_MAX {
            collect.page.more = true;
            return Ok(collect.page);
        }
        let step = limit.saturating_add(1).clamp(*STEP.start(), *STEP.end());
        let entries = read.range(Space::Index, &from, &to, step, false)?;
        let is_last = entries.len() < step;
        seen += entries.len();
        if let Some((entry, _)) = entries.last() {
            from = behind(entry);
        }
        for (entry, value) in entries {
            let (at, id) = timed_entry(&entry)?;
            let status = decode_status(&value, || of_hub(hub))?;
            if !collect.offer(at, id, status) {
                return Ok(collect.page);
            }
        }
        if is_last {
            return Ok(collect.page);
        }
    }
}

/// Where a scan begins: at the later of the lower bound and the entry behind `after`.
fn lower(
    to: &mut BytesMut,
    tag: u8,
    hub: HubId,
    filter: &InstanceFilter,
    after: Option<&(Timestamp, InstanceId)>,
) {
    key::timed_of_hub(to, tag, hub);
    match (filter.created_from, after) {
        (from, Some((at, id))) if from.is_none_or(|from| *at >= from) => {
            key::time(to, *at);
            to.extend_from_slice(id.as_str().as_bytes());
            to.extend_from_slice(&[0]);
        }
        (Some(from), _) => key::time(to, from),
        (None, _) => {}
    }
}

fn upper(to: &mut BytesMut, tag: u8, hub: HubId, filter: &InstanceFilter) {
    key::timed_of_hub(to, tag, hub);
    if let Some(last) = filter.created_to {
        key::time(to, last);
    }
    let end = after_prefix(to);
    to.clear();
    to.extend_from_slice(&end);
}

/// All instances whose id begins with `prefix`, unless they are too many.
fn by_prefix(
    read: &dyn Read,
    hub: HubId,
    partitions: u16,
    prefix: &str,
) -> Result<Option<Vec<Listed>>, Error> {
    let mut found: Vec<(Bytes, Bytes, PartitionId)> = Vec::new();
    for partition in (0..partitions).map(PartitionId) {
        let from = built(|to| {
            key::records_of_hub(to, partition, hub);
            to.extend_from_slice(prefix.as_bytes());
        });
        let room = BY_PREFIX_MAX + 1 - found.len();
        let entries = read.range(Space::State, &from, &after_prefix(&from), room, false)?;
        found.extend(
            entries
                .into_iter()
                .map(|(entry, value)| (entry, value, partition)),
        );
        if found.len() > BY_PREFIX_MAX {
            return Ok(None);
        }
    }
    let id_at = built(|to| key::records_of_hub(to, PartitionId(0), hub)).len();
    let mut instances = Vec::with_capacity(found.len());
    for (entry, value, partition) in found {
        let instance = Parts(&entry[id_at..])
            .last_instance()
            .ok_or_else(|| broken_key(Space::State, &entry))?;
        let key = InstanceKey { hub, instance };
        let record: Record = decode(&value, || place(partition, &key))?;
        instances.push((record.created_at, key.instance, record.status));
    }
    instances.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    Ok(Some(instances))
}

fn page_of(
    sorted: Vec<Listed>,
    filter: &InstanceFilter,
    after: Option<&(Timestamp, InstanceId)>,
    limit: usize,
) -> Page {
    let mut collect = Collect {
        filter,
        limit,
        page: Page::default(),
    };
    for (at, id, status) in sorted {
        let is_behind = after.is_none_or(|(last, name)| (at, &id) > (*last, name));
        let is_within = filter.created_from.is_none_or(|from| at >= from)
            && filter.created_to.is_none_or(|to| at <= to);
        if is_behind && is_within && !collect.offer(at, id, status) {
            break;
        }
    }
    collect.page
}
