//! What the typed reads answer about entities, in memory and on disk.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainspring_core::entity::{Operation, Sender};
use mainspring_core::id::{HubId, InstanceId, InstanceKey, PartitionId};
use mainspring_core::orchestration::Status;
use mainspring_core::time::Timestamp;
use mainspring_entities::{Entity, Record};
use mainspring_store::query::{self, Due, EntityFilter, EntityPage, SCAN_MAX};
use mainspring_store::{Batch, Cache, Epoch, Error, FjallStore, MemoryStore, Op, Options};
use mainspring_store::{Space, Store};
use tempfile::TempDir;

#[path = "fixtures/content.rs"]
mod content;

use content::{ENTITY, HUB, at, entity_record, of};

const PARTITIONS: u16 = 3;
const P0: PartitionId = PartitionId(0);

/// A store with an owner for each partition.
struct World {
    store: Arc<dyn Store>,
    epochs: Vec<Epoch>,
    _folder: Option<TempDir>,
}

impl World {
    fn new(store: Arc<dyn Store>, folder: Option<TempDir>) -> Self {
        let epochs = (0..PARTITIONS)
            .map(|partition| store.acquire(PartitionId(partition)).unwrap())
            .collect();
        Self {
            store,
            epochs,
            _folder: folder,
        }
    }

    /// One in memory, one on disk.
    fn both() -> [Self; 2] {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            partitions: PARTITIONS,
            cache_bytes: 1 << 20,
            witness_interval: Duration::ZERO,
            ..Options::default()
        };
        let disk = FjallStore::open(folder.path(), options).unwrap();
        [
            Self::new(Arc::new(MemoryStore::new(PARTITIONS)), None),
            Self::new(Arc::new(disk), Some(folder)),
        ]
    }

    fn write(&self, partition: u16, change: impl FnOnce(&mut Batch)) {
        let epoch = self.epochs[usize::from(partition)];
        let mut batch = Batch::new(PartitionId(partition), epoch);
        change(&mut batch);
        self.store.write(&batch).unwrap();
    }

    fn put(&self, partition: u16, id: &str, record: &Record) {
        self.write(partition, |batch| batch.put_entity(&of(id), record));
    }

    fn query(&self, filter: &EntityFilter, after: Option<&InstanceId>, limit: usize) -> EntityPage {
        query::query_entities(&*self.store.read(), HUB, PARTITIONS, filter, after, limit).unwrap()
    }

    /// Ids of all pages; checks that a page but the last is full, and no other token is given than one that has something behind it.
    fn pages(&self, filter: &EntityFilter, limit: usize) -> Vec<String> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.query(filter, after.as_ref(), limit);
            assert!(page.entities.len() == limit || page.next.is_none());
            assert!(!page.entities.is_empty() || found.is_empty());
            found.extend(ids(&page));
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    }
}

fn ids(page: &EntityPage) -> Vec<String> {
    let ids = page.entities.iter().map(|(id, ..)| id.to_string());
    ids.collect()
}

fn modified(at: Timestamp, has_state: bool) -> Record {
    Record {
        last_modified: at,
        has_state,
        ..entity_record()
    }
}

fn with_state() -> Record {
    modified(at(0), true)
}

fn prefix(text: &str) -> EntityFilter {
    EntityFilter {
        prefix: text.to_owned(),
        ..EntityFilter::default()
    }
}

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// S-12.39: by id over all partitions; filters are ANDed, bounds are inclusive; pages of any size.
#[test]
fn pages_give_in_order_of_ids_what_the_filter_asks_for() {
    const SEED: u64 = 0x853c_49e6_748f_ea9b;
    for world in World::both() {
        let mut numbers = Numbers(SEED);
        let mut model: Vec<(String, Record)> = Vec::new();
        for number in 0..900_u64 {
            let name = ["counter", "count", "ä", "z"][numbers.below(4) as usize];
            let key = ["", "@", "a", "A"][numbers.below(4) as usize];
            let id = format!("@{name}@{key}{number}");
            let has_state = numbers.below(3) > 0;
            let record = modified(at(numbers.below(40) as i64), has_state);
            let partition = numbers.below(u64::from(PARTITIONS)) as u16;
            world.put(partition, &id, &record);
            model.push((id, record));
        }
        // Another hub's are never found, nor are orchestrations.
        world.write(0, |batch| {
            let key = InstanceKey {
                hub: HubId(2),
                instance: InstanceId::from_stored("@counter@x"),
            };
            batch.put_entity(&key, &with_state());
            let running = content::record(Status::Running, at(0));
            content::put_instance(batch, &of("order"), &running);
        });
        model.sort_by(|a, b| a.0.cmp(&b.0));
        for round in 0..60 {
            let maybe = |numbers: &mut Numbers| {
                (numbers.below(2) == 0).then(|| at(numbers.below(44) as i64 - 2))
            };
            let prefixes = ["", "@", "@count", "@counter@", "@counter@a", "@ä@", "@x"];
            let filter = EntityFilter {
                prefix: prefixes[numbers.below(7) as usize].to_owned(),
                modified_from: maybe(&mut numbers),
                modified_to: maybe(&mut numbers),
                include_transient: numbers.below(2) == 0,
            };
            let expected: Vec<_> = model
                .iter()
                .filter(|(id, record)| {
                    id.starts_with(&filter.prefix)
                        && (record.has_state || filter.include_transient)
                        && filter
                            .modified_from
                            .is_none_or(|t| record.last_modified >= t)
                        && filter.modified_to.is_none_or(|t| record.last_modified <= t)
                })
                .map(|(id, _)| id.clone())
                .collect();
            let limit = 1 + numbers.below(300) as usize;
            let found = world.pages(&filter, limit);
            assert_eq!(found, expected, "seed {SEED:#x}, round {round}: {filter:?}");
        }
    }
}

/// S-12.39: each comes with its record, and where it lives.
#[test]
fn a_page_tells_record_and_partition_of_each() {
    for world in World::both() {
        let mut expected = Vec::new();
        for partition in [2, 0, 1] {
            let id = format!("@e@{}", 9 - partition);
            let record = modified(at(i64::from(partition)), true);
            world.put(partition, &id, &record);
            expected.push((of(&id).instance, PartitionId(partition), record));
        }
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        let page = world.query(&EntityFilter::default(), None, 10);
        assert_eq!((page.entities, page.next), (expected, None));
    }
}

/// S-12.39, S-11.12: the last page has no token, so a full one has to know that it is the last.
#[test]
fn a_full_page_knows_whether_anything_follows() {
    for world in World::both() {
        for number in 0..6 {
            let record = modified(at(0), number % 2 == 0);
            world.put(number % PARTITIONS, &format!("@e@{number}"), &record);
        }
        let filter = EntityFilter::default();
        let page = world.query(&filter, None, 2);
        assert_eq!(ids(&page), ["@e@0", "@e@2"]);
        let next = page.next.unwrap();
        assert_eq!(next.as_str(), "@e@2");
        let page = world.query(&filter, Some(&next), 1);
        assert_eq!((ids(&page), page.next), (vec!["@e@4".to_owned()], None));
    }
}

/// S-12.39: a token is an id, whether there is such an entity or not, and whatever the prefix.
#[test]
fn a_page_goes_on_behind_any_id() {
    for world in World::both() {
        for (partition, id) in [(0, "@e@1"), (1, "@e@1@2"), (2, "@e@2"), (0, "@f@1")] {
            world.put(partition, id, &with_state());
        }
        let behind = |text: &str, after: &str| {
            let after = InstanceId::from_stored(after);
            ids(&world.query(&prefix(text), Some(&after), 10))
        };
        assert_eq!(behind("", "@e@1"), ["@e@1@2", "@e@2", "@f@1"]);
        assert_eq!(behind("", "@e@11"), ["@e@1@2", "@e@2", "@f@1"]);
        assert_eq!(behind("@e@", "@a@x"), ["@e@1", "@e@1@2", "@e@2"]);
        assert_eq!(behind("@e@", "@e@1@2"), ["@e@2"]);
        assert_eq!(behind("@e@", "@f@0"), [""; 0]);
        assert_eq!(behind("", "@z@"), [""; 0]);
    }
}

/// S-12.39: what is written between two pages neither repeats nor hides the others.
#[test]
fn pages_stand_writes_between_them() {
    for world in World::both() {
        for number in 0..10 {
            world.put(number % PARTITIONS, &format!("@e@{number}"), &with_state());
        }
        let filter = EntityFilter::default();
        let first = world.query(&filter, None, 4);
        world.write(0, |batch| batch.remove_entity(&of("@e@3")));
        world.put(1, "@e@00", &with_state());
        world.put(1, "@e@55", &with_state());
        let second = world.query(&filter, first.next.as_ref(), 10);
        assert_eq!(
            ids(&second),
            ["@e@4", "@e@5", "@e@55", "@e@6", "@e@7", "@e@8", "@e@9"]
        );
    }
}

/// Its work is bounded; it says where to go on.
#[test]
fn a_page_ends_early_rather_than_look_at_everything() {
    for world in World::both() {
        for part in 0..3 {
            world.write(part, |batch| {
                for number in 0..SCAN_MAX as u32 / 2 {
                    let id = format!("@e@{number:06}-{part}");
                    batch.put_entity(&of(&id), &modified(at(0), false));
                }
            });
        }
        world.put(0, "@e@last", &with_state());
        let filter = EntityFilter::default();
        let first = world.query(&filter, None, 10);
        assert_eq!(first.entities, []);
        let second = world.query(&filter, first.next.as_ref(), 10);
        assert_eq!(
            (ids(&second), second.next),
            (vec!["@e@last".to_owned()], None)
        );
    }
}

/// S-12.6: no state is told from an empty one, and both from a record that is not there.
#[test]
fn state_is_kept_apart_from_the_record() {
    for world in World::both() {
        let key = of(ENTITY);
        let state = || query::entity_state(&*world.store.read(), P0, &key).unwrap();
        let record = || query::entity(&*world.store.read(), P0, &key).unwrap();
        assert_eq!((record(), state()), (None, None));
        world.put(0, ENTITY, &entity_record());
        assert_eq!((record(), state()), (Some(entity_record()), None));
        let large = "ä".repeat(3 << 20);
        for text in [Some("5"), Some(""), Some(large.as_str()), None, Some("x")] {
            world.write(0, |batch| batch.put_entity_state(&key, text));
            assert_eq!(state().as_deref(), text);
        }
        let elsewhere = query::entity(&*world.store.read(), PartitionId(1), &key).unwrap();
        assert_eq!(elsewhere, None);
        world.write(0, |batch| batch.remove_entity(&key));
        assert_eq!((record(), state()), (None, None));
    }
}

/// S-6.7: in order of their times, those of one time in order of arrival, each until it is taken.
#[test]
fn delayed_operations_are_kept_until_they_are_taken() {
    for world in World::both() {
        let key = of(ENTITY);
        let named = |name: &str| Operation {
            name: name.to_owned(),
            ..content::delayed_operation()
        };
        let later = at(5).plus(Duration::from_nanos(1));
        world.write(0, |batch| {
            batch.arm_operation(&key, at(9), 1, &named("last"));
            batch.arm_operation(&key, at(5), 300, &named("second"));
            batch.arm_operation(&key, at(5), 2, &named("first"));
            batch.arm_operation(&key, later, 3, &named("third"));
            batch.arm_operation(&of("@counter@a\0"), at(5), 4, &named("another's"));
        });
        let read = world.store.read();
        let due = query::timers(&*read, P0, None, 10).unwrap();
        let names: Vec<_> = due
            .iter()
            .map(|entry| {
                let Due::Operation { sequence } = entry.what else {
                    panic!("{entry:?}");
                };
                let found = query::delayed_operation(&*read, P0, &entry.key, entry.due, sequence);
                found.unwrap().unwrap().name
            })
            .collect();
        assert_eq!(names, ["first", "second", "another's", "third", "last"]);
        let same_time = query::delayed_operations(&*read, P0, &key, at(5)).unwrap();
        assert_eq!(same_time, [named("first"), named("second")]);
        drop(read);
        world.write(0, |batch| batch.disarm_operation(&key, at(5), 2));
        let read = world.store.read();
        let of_sequence = |sequence| {
            let found = query::delayed_operation(&*read, P0, &key, at(5), sequence);
            found.unwrap().map(|operation| operation.name)
        };
        assert_eq!(of_sequence(2), None);
        assert_eq!(of_sequence(300).as_deref(), Some("second"));
        assert_eq!(query::timers(&*read, P0, None, 10).unwrap().len(), 4);
    }
}

/// They become due among the timers and starts of orchestrations.
#[test]
fn delayed_operations_stand_among_the_timers() {
    for world in World::both() {
        world.write(0, |batch| {
            batch.arm_timer(&of("a"), &content::timer());
            batch.arm_start(&of("b"), at(100), 2);
            batch.arm_operation(&of(ENTITY), at(200), 7, &content::delayed_operation());
        });
        let due = query::timers(&*world.store.read(), P0, None, 10).unwrap();
        let what: Vec<_> = due.into_iter().map(|entry| entry.what).collect();
        assert_eq!(
            what,
            [
                Due::Start { generation: 2 },
                Due::Operation { sequence: 7 },
                Due::Timer(content::timer())
            ]
        );
    }
}

/// A damaged entry is told of by its entity's name, never passed over.
#[test]
fn what_cannot_be_decoded_is_corrupt_and_names_the_entity() {
    for world in World::both() {
        let put = |kind: u8, rest: &[u8], value: &'static [u8]| {
            let key = [&[0, 0, 0, 0, 0, 1, kind][..], rest].concat();
            world.write(0, |batch| {
                batch.extend(vec![Op::Put {
                    space: Space::State,
                    key: key.into(),
                    value: Bytes::from_static(value),
                }]);
            });
        };
        put(2, ENTITY.as_bytes(), b"\x01\xc0");
        put(3, ENTITY.as_bytes(), b"\xff");
        let read = world.store.read();
        let record = query::entity(&*read, P0, &of(ENTITY)).err();
        let state = query::entity_state(&*read, P0, &of(ENTITY)).err();
        let filter = EntityFilter::default();
        let page = query::query_entities(&*read, HUB, PARTITIONS, &filter, None, 10).err();
        for error in [record, state, page] {
            let error = error.unwrap();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains(ENTITY), "{error}");
        }
    }
}

/// Taken once, weighed with its state; an orchestration's place in the cache is another.
#[test]
fn warm_entities_are_taken_once() {
    let cache = Cache::new(1 << 20);
    let state = Some("5".to_owned());
    let entity = Arc::new(Entity::restore(of(ENTITY).instance, with_state(), state));
    cache.put_warm_entity(of(ENTITY), Arc::clone(&entity), 1_000);
    assert!(cache.usage_bytes() >= 1_000);
    assert_eq!(cache.take_warm_entity(&of("@counter@b")), None);
    assert_eq!(cache.take_warm_entity(&of(ENTITY)), Some(entity));
    assert_eq!(cache.take_warm_entity(&of(ENTITY)), None);
    assert_eq!(cache.usage_bytes(), 0);
}

/// All kinds of senders come back as they were sent.
#[test]
fn messages_of_entities_come_back_as_they_were_put() {
    for world in World::both() {
        let key = of(ENTITY);
        world.write(0, |batch| {
            for message in content::entity_messages() {
                batch.put_message(P0, &key, &message, true);
            }
        });
        let read = world.store.read();
        let all = query::mailbox(&*read, P0, &key, Default::default(), 100).unwrap();
        let messages: Vec<_> = all.iter().map(|(_, message)| message.clone()).collect();
        assert_eq!(messages, content::entity_messages());
        // S-12.37: reading begins behind the head.
        let rest = query::mailbox(&*read, P0, &key, all[2].0, 100).unwrap();
        assert_eq!(rest, all[3..]);
        assert!(messages.iter().any(|m| matches!(m,
            mainspring_core::message::Message::Operation(o) if o.sender == Sender::Entity)));
    }
}
