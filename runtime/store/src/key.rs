//! Keys whose byte order is the order that readers want.
//!
//! Numbers are big-endian. An instance id ends a key as it is; where something follows, it is closed by a zero byte, and the
//! bytes 0 and 1 within it are written as 1 1 and 1 2, which keeps the order of ids. A time is 9 bytes: seconds since
//! year 1 (40 bits), then nanoseconds (32 bits), so it keeps every digit of a [`Timestamp`].
//!
//! No key is shorter than three bytes or begins with partition 65,535, so the two-byte keys of the store's own marks never
//! meet them.

use bytes::{BufMut, Bytes, BytesMut};
use mainspring_core::id::{ExecutionId, HubId, InstanceId, InstanceKey, PartitionId, Position};
use mainspring_core::message::Fence;
use mainspring_core::time::Timestamp;

/// First byte of each kind of entry in [`crate::Space::Index`].
pub(crate) mod tag {
    /// The store's own numbers: see [`super::meta`].
    pub const META: u8 = 1;
    /// Instances of a hub by created time.
    pub const CREATED: u8 = 2;
    /// Finished instances of a hub by completed time.
    pub const COMPLETED: u8 = 3;
    /// Instances of a partition that have something to do.
    pub const BUSY: u8 = 4;
    /// Activities that outlive their generation.
    pub const ORPHAN: u8 = 5;
    /// Hub names.
    pub const HUB: u8 = 6;
    /// Hub incarnations whose entries are to be deleted.
    pub const RETIRED_HUB: u8 = 7;
    /// Every hub incarnation there ever was: numbers are never given twice.
    pub const HUB_EVER: u8 = 8;
    /// Epochs of partitions.
    pub const EPOCH: u8 = 9;
}

/// The store's own two-byte keys in [`crate::Space::Index`].
pub(crate) mod meta {
    /// Number of the last commit, written with every batch.
    pub const COMMIT: [u8; 2] = [super::tag::META, 1];
    /// Number of partitions.
    pub const PARTITIONS: [u8; 2] = [super::tag::META, 2];
}

/// Kinds of entries in [`crate::Space::State`].
pub(crate) mod kind {
    /// An orchestration's record.
    pub const RECORD: u8 = 0;
    /// What its generation started with.
    pub const START: u8 = 1;
    /// An entity's record.
    pub const ENTITY: u8 = 2;
    /// Its state.
    pub const ENTITY_STATE: u8 = 3;
    /// Its operations that are not due yet.
    pub const DELAYED: u8 = 4;
}

/// Bytes of a key's time.
pub(crate) const TIME_BYTES: usize = 9;
/// Seconds from 0001-01-01 to 1970-01-01.
const YEAR_ONE_SECONDS: i64 = 62_135_596_800;

/// What a timer entry's key says, apart from its time and instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DueKind {
    /// A scheduled start of this generation.
    Start { generation: u32 },
    /// A timer: generation and scheduling that created it.
    Timer { generation: u32, scheduling: u32 },
    /// An entity's operation that is not due yet; numbered in order of arrival.
    Operation { sequence: u64 },
}

pub(crate) fn record(to: &mut BytesMut, partition: PartitionId, key: &InstanceKey) {
    state(to, partition, key, kind::RECORD);
}

pub(crate) fn start(to: &mut BytesMut, partition: PartitionId, key: &InstanceKey) {
    state(to, partition, key, kind::START);
}

pub(crate) fn entity(to: &mut BytesMut, partition: PartitionId, key: &InstanceKey) {
    state(to, partition, key, kind::ENTITY);
}

pub(crate) fn entity_state(to: &mut BytesMut, partition: PartitionId, key: &InstanceKey) {
    state(to, partition, key, kind::ENTITY_STATE);
}

/// Start of all record keys of a hub within a partition.
pub(crate) fn records_of_hub(to: &mut BytesMut, partition: PartitionId, hub: HubId) {
    state_of_hub(to, partition, hub, kind::RECORD);
}

/// Start of all keys of entities' records of a hub within a partition.
pub(crate) fn entities_of_hub(to: &mut BytesMut, partition: PartitionId, hub: HubId) {
    state_of_hub(to, partition, hub, kind::ENTITY);
}

pub(crate) fn delayed(
    to: &mut BytesMut,
    partition: PartitionId,
    key: &InstanceKey,
    due: Timestamp,
    sequence: u64,
) {
    delayed_until(to, partition, key, due);
    to.put_u64(sequence);
}

/// Start of all keys of an entity's operations that become due at one time.
pub(crate) fn delayed_until(
    to: &mut BytesMut,
    partition: PartitionId,
    key: &InstanceKey,
    due: Timestamp,
) {
    state_of_hub(to, partition, key.hub, kind::DELAYED);
    closed(to, key.instance.as_str().as_bytes());
    time(to, due);
}

fn state(to: &mut BytesMut, partition: PartitionId, key: &InstanceKey, kind: u8) {
    state_of_hub(to, partition, key.hub, kind);
    to.put_slice(key.instance.as_str().as_bytes());
}

fn state_of_hub(to: &mut BytesMut, partition: PartitionId, hub: HubId, kind: u8) {
    hub_of_partition(to, partition, hub);
    to.put_u8(kind);
}

/// Start of all keys of a hub within a partition, in all spaces but timers and index.
pub(crate) fn hub_of_partition(to: &mut BytesMut, partition: PartitionId, hub: HubId) {
    to.put_u16(partition.0);
    to.put_u32(hub.0);
}

pub(crate) fn history(
    to: &mut BytesMut,
    partition: PartitionId,
    key: &InstanceKey,
    generation: u32,
    chunk: u32,
) {
    instance(to, partition, key);
    to.put_u32(generation);
    to.put_u32(chunk);
}

/// Start of all mailbox keys of an instance; also of its history keys.
pub(crate) fn instance(to: &mut BytesMut, partition: PartitionId, key: &InstanceKey) {
    hub_of_partition(to, partition, key.hub);
    closed(to, key.instance.as_str().as_bytes());
}

pub(crate) fn position(to: &mut BytesMut, position: Position) {
    to.put_u64(position.commit);
    to.put_u16(position.index);
}

pub(crate) fn timer(
    to: &mut BytesMut,
    partition: PartitionId,
    due: Timestamp,
    key: &InstanceKey,
    kind: DueKind,
) {
    to.put_u16(partition.0);
    time(to, due);
    to.put_u32(key.hub.0);
    closed(to, key.instance.as_str().as_bytes());
    match kind {
        DueKind::Start { generation } => to.put_u32(generation),
        DueKind::Timer {
            generation,
            scheduling,
        } => {
            to.put_u32(generation);
            to.put_u32(scheduling);
        }
        DueKind::Operation { sequence } => {
            to.put_u32(0);
            to.put_u64(sequence);
        }
    }
}

pub(crate) fn created(to: &mut BytesMut, key: &InstanceKey, at: Timestamp) {
    timed(to, tag::CREATED, key, at);
}

pub(crate) fn completed(to: &mut BytesMut, key: &InstanceKey, at: Timestamp) {
    timed(to, tag::COMPLETED, key, at);
}

fn timed(to: &mut BytesMut, tag: u8, key: &InstanceKey, at: Timestamp) {
    timed_of_hub(to, tag, key.hub);
    time(to, at);
    to.put_slice(key.instance.as_str().as_bytes());
}

/// Start of all entries of a hub under `tag::CREATED`, `tag::COMPLETED`, `tag::RETIRED_HUB` or `tag::HUB_EVER`.
pub(crate) fn timed_of_hub(to: &mut BytesMut, tag: u8, hub: HubId) {
    to.put_u8(tag);
    to.put_u32(hub.0);
}

pub(crate) fn busy(to: &mut BytesMut, partition: PartitionId, key: &InstanceKey) {
    to.put_u8(tag::BUSY);
    hub_of_partition(to, partition, key.hub);
    to.put_slice(key.instance.as_str().as_bytes());
}

pub(crate) fn orphan(to: &mut BytesMut, partition: PartitionId, key: &InstanceKey, fence: &Fence) {
    to.put_u8(tag::ORPHAN);
    instance(to, partition, key);
    closed(to, fence.execution_id.as_str().as_bytes());
    to.put_u32(fence.scheduling);
}

/// Start of all entries of a partition under `tag::BUSY`, `tag::ORPHAN` or `tag::EPOCH`.
pub(crate) fn tag_of_partition(to: &mut BytesMut, tag: u8, partition: PartitionId) {
    to.put_u8(tag);
    to.put_u16(partition.0);
}

pub(crate) fn hub(to: &mut BytesMut, name: &str) {
    to.put_u8(tag::HUB);
    to.put_slice(name.as_bytes());
}

pub(crate) fn time(to: &mut BytesMut, at: Timestamp) {
    let seconds = u64::try_from(at.seconds() + YEAR_ONE_SECONDS).unwrap_or(0);
    to.put_uint(seconds, 5);
    to.put_u32(at.nanos());
}

/// The smallest key that is above all keys beginning with `prefix`.
///
/// Every prefix in use has a byte below 255, so there always is one.
pub(crate) fn after_prefix(prefix: &[u8]) -> Bytes {
    let kept = prefix
        .iter()
        .rposition(|&byte| byte < u8::MAX)
        .map_or(0, |place| place + 1);
    let mut next = prefix[..kept].to_vec();
    if let Some(last) = next.last_mut() {
        *last += 1;
    }
    Bytes::from(next)
}

fn closed(to: &mut BytesMut, text: &[u8]) {
    let mut rest = text;
    while let Some(place) = rest.iter().position(|&byte| byte <= 1) {
        to.put_slice(&rest[..place]);
        to.put_slice(&[1, rest[place] + 1]);
        rest = &rest[place + 1..];
    }
    to.put_slice(rest);
    to.put_u8(0);
}

/// Takes keys apart again, front to back. Every step gives `None` when the key is too short or not of that form.
pub(crate) struct Parts<'a>(pub &'a [u8]);

impl<'a> Parts<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub fn partition(&mut self) -> Option<PartitionId> {
        self.u16().map(PartitionId)
    }

    pub fn hub(&mut self) -> Option<HubId> {
        self.u32().map(HubId)
    }

    pub fn time(&mut self) -> Option<Timestamp> {
        let [a, b, c, d, e] = self.take()?;
        let seconds = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
        let nanos = self.u32()?;
        let seconds = i64::try_from(seconds).ok()? - YEAR_ONE_SECONDS;
        Some(Timestamp::new(seconds, i64::from(nanos)))
    }

    pub fn position(&mut self) -> Option<Position> {
        Some(Position {
            commit: self.u64()?,
            index: self.u16()?,
        })
    }

    /// All that is left, as an instance id.
    pub fn last_instance(self) -> Option<InstanceId> {
        let text = std::str::from_utf8(self.0).ok()?;
        (!text.is_empty()).then(|| InstanceId::from_stored(text))
    }

    pub fn closed_instance(&mut self) -> Option<InstanceId> {
        let text = self.closed()?;
        Some(InstanceId::from_stored(&text))
    }

    pub fn closed_execution(&mut self) -> Option<ExecutionId> {
        let text = self.closed()?;
        Some(ExecutionId::from_stored(&text))
    }

    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    fn closed(&mut self) -> Option<String> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let (text, rest) = (&self.0[..end], &self.0[end + 1..]);
        self.0 = rest;
        if !text.contains(&1) {
            return std::str::from_utf8(text).ok().map(str::to_owned);
        }
        let mut bytes = Vec::with_capacity(text.len());
        let mut text = text.iter();
        while let Some(&byte) = text.next() {
            bytes.push(match byte {
                1 => text.next()?.checked_sub(1)?,
                plain => plain,
            });
        }
        String::from_utf8(bytes).ok()
    }
}

/// Hub, instance and kind of a timer key whose partition and time have been taken already.
pub(crate) fn timer_rest(mut parts: Parts<'_>) -> Option<(InstanceKey, DueKind)> {
    let hub = parts.hub()?;
    let instance = parts.closed_instance()?;
    let generation = parts.u32()?;
    let kind = match parts.0.len() {
        0 => DueKind::Start { generation },
        4 => DueKind::Timer {
            generation,
            scheduling: parts.u32()?,
        },
        _ => DueKind::Operation {
            sequence: parts.u64()?,
        },
    };
    parts
        .is_done()
        .then_some((InstanceKey { hub, instance }, kind))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(instance: &str) -> InstanceKey {
        InstanceKey {
            hub: HubId(7),
            instance: InstanceId::from_stored(instance),
        }
    }

    fn bytes(build: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut to = BytesMut::new();
        build(&mut to);
        to.to_vec()
    }

    /// Ids of which one begins another, with the bytes that the closing treats specially, and beyond ASCII.
    const IDS: [&str; 12] = [
        "a", "a\0", "a\0b", "a\u{1}", "a\u{1}\0", "a\u{2}", "a b", "aa", "ab", "b", "é", "𝄞",
    ];

    #[test]
    fn closed_ids_sort_like_ids_and_come_back() {
        // Aim: no id is a prefix of another within a key, whatever follows.
        let mut keys: Vec<(Vec<u8>, &str)> = IDS
            .iter()
            .map(|id| {
                let key = bytes(|to| history(to, PartitionId(3), &of(id), u32::MAX, u32::MAX));
                (key, *id)
            })
            .collect();
        keys.sort();
        let mut ids = IDS.to_vec();
        ids.sort_unstable();
        assert_eq!(keys.iter().map(|(_, id)| *id).collect::<Vec<_>>(), ids);
        for (key, id) in keys {
            let mut parts = Parts(&key);
            assert_eq!(parts.partition(), Some(PartitionId(3)));
            assert_eq!(parts.hub(), Some(HubId(7)));
            assert_eq!(parts.closed_instance().unwrap().as_str(), id);
            assert_eq!(parts.u64(), Some(u64::MAX));
            assert!(parts.is_done());
        }
    }

    #[test]
    fn times_sort_and_keep_every_nanosecond() {
        // Aim: S-11.11 and S-11.15 order by time and then id, and S-1.18 allows years 1 to 9999.
        let times = [
            Timestamp::MIN,
            Timestamp::new(-1, 999_999_999),
            Timestamp::new(0, 0),
            Timestamp::new(0, 1),
            Timestamp::new(1_700_000_000, 123_456_789),
            Timestamp::MAX,
        ];
        let keys: Vec<Vec<u8>> = times.iter().map(|&at| bytes(|to| time(to, at))).collect();
        assert!(keys.is_sorted());
        for (key, at) in keys.iter().zip(times) {
            assert_eq!(key.len(), TIME_BYTES);
            assert_eq!(Parts(key).time(), Some(at));
        }
    }

    #[test]
    fn timer_keys_tell_what_is_due() {
        for kind in [
            DueKind::Start { generation: 4 },
            DueKind::Timer {
                generation: 4,
                scheduling: 9,
            },
            DueKind::Operation { sequence: u64::MAX },
        ] {
            let key = bytes(|to| {
                timer(to, PartitionId(1), Timestamp::new(5, 6), &of("x"), kind);
            });
            let mut parts = Parts(&key);
            assert_eq!(parts.partition(), Some(PartitionId(1)));
            assert_eq!(parts.time(), Some(Timestamp::new(5, 6)));
            assert_eq!(timer_rest(parts), Some((of("x"), kind)));
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_above_all_its_keys() {
        assert_eq!(&after_prefix(&[1, 2])[..], [1, 3]);
        assert_eq!(&after_prefix(&[1, 255, 255])[..], [2]);
    }

    #[test]
    fn keys_cut_short_are_refused() {
        let key = bytes(|to| {
            let fence = Fence {
                execution_id: ExecutionId::from_stored("e"),
                scheduling: 1,
            };
            orphan(to, PartitionId(1), &of("x"), &fence);
        });
        for end in 0..key.len() {
            let mut parts = Parts(&key[..end]);
            let whole = parts.u8().is_some()
                && parts.partition().is_some()
                && parts.hub().is_some()
                && parts.closed_instance().is_some()
                && parts.closed_execution().is_some()
                && parts.u32().is_some();
            assert!(!whole, "{end} bytes");
        }
    }
}
