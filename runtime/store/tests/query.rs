//! What the typed reads answer, against the simplest model that could be right.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mainspring_core::id::{HubId, InstanceId, InstanceKey, PartitionId};
use mainspring_core::orchestration::{Record, Status};
use mainspring_core::time::Timestamp;
use mainspring_store::query::{self, Due, InstanceFilter, Page, SCAN_MAX};
use mainspring_store::{Batch, Epoch, Error, MemoryStore, Op, Space, Store};

#[path = "fixtures/content.rs"]
mod content;

use content::{HUB, at, of, record};

const PARTITIONS: u16 = 3;

/// A memory store with an owner for each partition.
struct World {
    store: MemoryStore,
    epochs: Vec<Epoch>,
}

impl World {
    fn new() -> Self {
        let store = MemoryStore::new(PARTITIONS);
        let epochs = (0..PARTITIONS)
            .map(|partition| store.acquire(PartitionId(partition)).unwrap())
            .collect();
        Self { store, epochs }
    }

    fn write(&self, partition: u16, change: impl FnOnce(&mut Batch)) {
        let epoch = self.epochs[usize::from(partition)];
        let mut batch = Batch::new(PartitionId(partition), epoch);
        change(&mut batch);
        self.store.write(&batch).unwrap();
    }

    fn query(
        &self,
        filter: &InstanceFilter,
        after: Option<&(Timestamp, InstanceId)>,
        limit: usize,
    ) -> Page {
        query::query_instances(&*self.store.read(), HUB, PARTITIONS, filter, after, limit).unwrap()
    }

    /// All pages of a query; checks that only the last one is short, and that none is empty unless it is the only one.
    fn pages(&self, filter: &InstanceFilter, limit: usize) -> Vec<(Timestamp, InstanceId, Status)> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.query(filter, after.as_ref(), limit);
            assert!(page.keys.len() == limit || !page.more);
            assert!(!page.keys.is_empty() || found.is_empty());
            found.extend(page.keys);
            after = page.next;
            if !page.more {
                return found;
            }
        }
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

const STATUSES: [Status; 4] = [
    Status::Running,
    Status::Completed,
    Status::Failed,
    Status::Pending,
];

#[test]
fn queries_give_in_order_what_the_filter_asks_for() {
    // S-11.9 to S-11.11: filters are ANDed, bounds are inclusive, order is (created time, id), pages of any size.
    const SEED: u64 = 0x853c_49e6_748f_ea9b;
    let mut numbers = Numbers(SEED);
    let world = World::new();
    let mut model: Vec<(Timestamp, InstanceId, Status)> = Vec::new();
    for number in 0..1_500_u64 {
        let name = format!(
            "{}-{number}",
            ["order", "or", "bill"][numbers.below(3) as usize]
        );
        let status = STATUSES[numbers.below(4) as usize];
        // Few different times, so that the id decides often.
        let created = at(numbers.below(40) as i64);
        let partition = numbers.below(u64::from(PARTITIONS)) as u16;
        world.write(partition, |batch| {
            content::put_instance(batch, &of(&name), &record(status, created));
        });
        model.push((created, of(&name).instance, status));
    }
    // Another hub's are never found.
    world.write(0, |batch| {
        let key = InstanceKey {
            hub: HubId(2),
            instance: InstanceId::from_stored("order-x"),
        };
        content::put_instance(batch, &key, &record(Status::Running, at(5)));
    });
    model.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    for round in 0..60 {
        let maybe = |numbers: &mut Numbers| {
            (numbers.below(2) == 0).then(|| at(numbers.below(44) as i64 - 2))
        };
        let filter = InstanceFilter {
            statuses: STATUSES[..numbers.below(4) as usize].to_vec(),
            created_from: maybe(&mut numbers),
            created_to: maybe(&mut numbers),
            prefix: [None, Some(""), Some("or"), Some("order-1"), Some("x")]
                [numbers.below(5) as usize]
                .map(str::to_owned),
        };
        let expected: Vec<_> = model
            .iter()
            .filter(|(created, id, status)| {
                (filter.statuses.is_empty() || filter.statuses.contains(status))
                    && filter.created_from.is_none_or(|from| *created >= from)
                    && filter.created_to.is_none_or(|to| *created <= to)
                    && id
                        .as_str()
                        .starts_with(filter.prefix.as_deref().unwrap_or(""))
            })
            .cloned()
            .collect();
        let limit = 1 + numbers.below(300) as usize;
        let found = world.pages(&filter, limit);
        assert_eq!(found, expected, "seed {SEED:#x}, round {round}: {filter:?}");
    }
}

#[test]
fn a_page_ends_early_rather_than_look_at_everything() {
    let world = World::new();
    world.write(0, |batch| {
        for number in 0..SCAN_MAX as i64 + 500 {
            let key = of(&format!("{number:08}"));
            batch.index_created(&key, at(number), Status::Running);
        }
        batch.index_created(&of("last"), at(1_000_000), Status::Failed);
    });
    let filter = InstanceFilter {
        statuses: vec![Status::Failed],
        ..InstanceFilter::default()
    };
    let first = world.query(&filter, None, 10);
    assert!(first.more && first.keys.is_empty());
    let second = world.query(&filter, first.next.as_ref(), 10);
    assert_eq!(second.keys.len(), 1);
    assert!(!second.more);
}

#[test]
fn a_full_page_knows_whether_anything_follows() {
    // S-11.12: the last page has no token, so a full one has to know that it is the last.
    let world = World::new();
    world.write(0, |batch| {
        for number in 0..20 {
            let status = STATUSES[number as usize % 2];
            batch.index_created(&of(&number.to_string()), at(number), status);
        }
    });
    let filter = InstanceFilter {
        statuses: vec![Status::Running],
        ..InstanceFilter::default()
    };
    let page = world.query(&filter, None, 5);
    assert_eq!((page.keys.len(), page.more), (5, true));
    let page = world.query(&filter, page.next.as_ref(), 5);
    assert_eq!((page.keys.len(), page.more), (5, false));
}

#[test]
fn finished_instances_are_listed_by_completed_time() {
    // S-11.14, S-11.15.
    let world = World::new();
    let list = |statuses: &[Status], from, to, after: Option<&(Timestamp, InstanceId)>, limit| {
        let read = world.store.read();
        query::list_completed(&*read, HUB, statuses, from, to, after, limit).unwrap()
    };
    assert_eq!(
        query::last_completed(&*world.store.read(), HUB).unwrap(),
        None
    );
    assert_eq!(list(&[], None, None, None, 10), Page::default());
    world.write(1, |batch| {
        for (number, status) in [
            (3, Status::Failed),
            (1, Status::Completed),
            (2, Status::Failed),
        ] {
            batch.index_completed(&of(&number.to_string()), at(number), status);
        }
    });
    let ids = |page: &Page| -> Vec<String> {
        page.keys.iter().map(|(_, id, _)| id.to_string()).collect()
    };
    let page = list(&[], None, None, None, 2);
    assert_eq!(
        (ids(&page), page.more),
        (vec!["1".to_owned(), "2".to_owned()], true)
    );
    let page = list(&[], None, None, page.next.as_ref(), 2);
    assert_eq!((ids(&page), page.more), (vec!["3".to_owned()], false));
    let page = list(&[Status::Failed], Some(at(2)), Some(at(2)), None, 2);
    assert_eq!(ids(&page), ["2"]);
    let last = query::last_completed(&*world.store.read(), HUB).unwrap();
    assert_eq!(last, Some(at(3)));
    world.write(1, |batch| batch.unindex_completed(&of("3"), at(3)));
    let last = query::last_completed(&*world.store.read(), HUB).unwrap();
    assert_eq!(last, Some(at(2)));
}

#[test]
fn instances_come_back_as_they_were_put() {
    let world = World::new();
    let key = of("order-17");
    let read = |key: &InstanceKey| query::instance(&*world.store.read(), PartitionId(1), key);
    assert_eq!(read(&key).unwrap(), None);
    let record = record(Status::Running, at(0));
    world.write(1, |batch| content::put_instance(batch, &key, &record));
    assert_eq!(
        read(&key).unwrap(),
        Some((record.clone(), content::start()))
    );
    assert_eq!(
        query::record(&*world.store.read(), PartitionId(1), &key).unwrap(),
        Some(record)
    );
    let elsewhere = query::record(&*world.store.read(), PartitionId(0), &key).unwrap();
    assert_eq!(elsewhere, None);
    world.write(1, |batch| batch.remove_instance(&key));
    assert_eq!(read(&key).unwrap(), None);
}

#[test]
fn an_unknown_record_version_is_corrupt_and_names_the_instance() {
    let world = World::new();
    world.write(0, |batch| {
        content::put_instance(batch, &of("order-17"), &record(Status::Running, at(0)));
        let key = [&[0, 0, 0, 0, 0, 1, 0][..], b"order-17"].concat();
        batch.extend(vec![Op::Put {
            space: Space::State,
            key: key.into(),
            value: vec![2, 0x90].into(),
        }]);
    });
    let error = query::record(&*world.store.read(), PartitionId(0), &of("order-17")).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }));
    let text = error.to_string();
    assert!(
        text.contains("order-17") && text.contains("version 2"),
        "{text}"
    );
}

#[test]
fn a_record_without_a_start_is_corrupt() {
    let world = World::new();
    let running: Record = record(Status::Running, at(0));
    world.write(0, |batch| batch.put_record(&of("half"), &running));
    let error = query::instance(&*world.store.read(), PartitionId(0), &of("half")).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }));
}

#[test]
fn timers_come_in_due_order_with_scheduled_starts_among_them() {
    let world = World::new();
    let mut timers = Vec::new();
    for seconds in [30, 10, 20] {
        let mut timer = content::timer();
        timer.fire_at = at(seconds);
        timer.fence.scheduling = seconds as u32;
        timers.push(timer);
    }
    world.write(1, |batch| {
        for timer in &timers {
            batch.arm_timer(&of("a"), timer);
        }
        batch.arm_start(&of("b"), at(15), 4);
    });
    world.write(2, |batch| batch.arm_start(&of("other partition"), at(1), 0));
    let due = |after: Option<&query::TimerKey>, limit| {
        query::timers(&*world.store.read(), PartitionId(1), after, limit).unwrap()
    };
    let all = due(None, 10);
    let seconds: Vec<_> = all
        .iter()
        .map(|entry| entry.due.since(at(0)).as_secs())
        .collect();
    assert_eq!(seconds, [10, 15, 20, 30]);
    assert_eq!(all[0].what, Due::Timer(timers[1].clone()));
    assert_eq!(all[1].what, Due::Start { generation: 4 });
    assert_eq!((&all[1].key, all[1].due), (&of("b"), at(15)));
    assert!(all.is_sorted_by(|a, b| a.sort < b.sort));
    assert_eq!(due(Some(&all[1].sort), 1), all[2..3]);
    world.write(1, |batch| {
        batch.disarm_timer(&of("a"), &timers[1]);
        batch.disarm_start(&of("b"), at(15), 4);
    });
    assert_eq!(due(None, 10), all[2..]);
}

#[test]
fn outliving_activities_are_kept_until_removed() {
    let world = World::new();
    let mut second = content::task();
    second.fence.scheduling += 1;
    world.write(0, |batch| {
        batch.put_orphan(&of("a"), &content::task());
        batch.put_orphan(&of("a"), &second);
    });
    let orphans = |after: Option<&(InstanceKey, _)>| {
        query::orphans(&*world.store.read(), PartitionId(0), after, 10).unwrap()
    };
    let all = orphans(None);
    assert_eq!(all, [(of("a"), content::task()), (of("a"), second.clone())]);
    assert_eq!(orphans(all.first()), all[1..]);
    world.write(0, |batch| batch.remove_orphan(&of("a"), &content::fence()));
    assert_eq!(orphans(None), all[1..]);
}

#[test]
fn hub_numbers_are_never_given_twice() {
    let world = World::new();
    let max = || query::hub_id_max(&*world.store.read()).unwrap();
    assert_eq!(max(), None);
    world.write(0, |batch| {
        batch.put_hub("b", HubId(1));
        batch.put_hub("a", HubId(2));
    });
    let hubs = query::hubs(&*world.store.read()).unwrap();
    assert_eq!(
        hubs,
        [("a".to_owned(), HubId(2)), ("b".to_owned(), HubId(1))]
    );
    world.write(0, |batch| {
        batch.remove_hub("a");
        batch.retire_hub(HubId(2));
    });
    assert_eq!(
        query::retired_hubs(&*world.store.read()).unwrap(),
        [HubId(2)]
    );
    world.write(0, |batch| batch.forget_hub(HubId(2)));
    assert_eq!(query::retired_hubs(&*world.store.read()).unwrap(), []);
    assert_eq!(max(), Some(HubId(2)));
}

#[test]
fn a_retired_hub_is_deleted_slice_by_slice_and_its_neighbour_stays() {
    let world = World::new();
    let fill = |hub: u32| {
        for partition in 0..PARTITIONS {
            world.write(partition, |batch| {
                for number in 0..20 {
                    let key = InstanceKey {
                        hub: HubId(hub),
                        instance: InstanceId::from_stored(&format!("{partition}-{number}")),
                    };
                    let record = record(Status::Completed, at(number));
                    content::put_instance(batch, &key, &record);
                    batch.append_history(&key, 2, 0, content::chunk());
                    batch.put_message(PartitionId(partition), &key, &content::messages()[0], true);
                    batch.arm_timer(&key, &content::timer());
                    batch.put_orphan(&key, &content::task());
                    let entity = InstanceKey {
                        hub: HubId(hub),
                        instance: InstanceId::from_stored(&format!("@e@{partition}-{number}")),
                    };
                    batch.put_entity(&entity, &content::entity_record());
                    batch.put_entity_state(&entity, Some(content::ENTITY_STATE));
                    batch.arm_operation(&entity, at(number), 1, &content::delayed_operation());
                    let message = &content::entity_messages()[0];
                    batch.put_message(PartitionId(partition), &entity, message, true);
                }
            });
        }
    };
    fill(1);
    let entries = || -> Vec<_> {
        let read = world.store.read();
        Space::ALL
            .into_iter()
            .flat_map(|space| read.range(space, &[], &[0xff], usize::MAX, false).unwrap())
            // The last commit's number is no hub's.
            .filter(|(key, _)| key[..] != [1, 1])
            .collect()
    };
    let before = entries();
    fill(2);
    let mut slices = 0;
    loop {
        let ops = query::hub_slice(&*world.store.read(), HubId(2), 50).unwrap();
        assert!(ops.len() <= 50);
        if ops.is_empty() {
            break;
        }
        slices += 1;
        world.write(0, |batch| batch.extend(ops));
    }
    assert!(slices > 5);
    assert!(entries() == before);
}

#[test]
fn history_is_complete_or_an_error() {
    let world = World::new();
    world.write(0, |batch| {
        for chunk in [0, 1, 3] {
            batch.append_history(&of("a"), 7, chunk, vec![chunk as u8].into());
        }
    });
    let read = |generation, chunks| {
        query::history(
            &*world.store.read(),
            PartitionId(0),
            &of("a"),
            generation,
            chunks,
        )
    };
    assert_eq!(read(7, 0).unwrap().len(), 0);
    assert_eq!(read(7, 1).unwrap(), [&[0][..]]);
    assert_eq!(read(7, 2).unwrap(), [&[0][..], &[1][..]]);
    for (generation, chunks) in [(7, 3), (7, 4), (6, 1)] {
        let error = read(generation, chunks).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}

#[test]
fn created_times_keep_their_nanoseconds_in_the_order() {
    // S-11.11: two instances of one microsecond stand in the order of their nanoseconds, not of their ids.
    let world = World::new();
    let later = at(0).plus(Duration::from_nanos(1));
    world.write(0, |batch| {
        batch.index_created(&of("a"), later, Status::Running);
        batch.index_created(&of("b"), at(0), Status::Running);
    });
    let page = world.query(&InstanceFilter::default(), None, 10);
    let ids: Vec<_> = page
        .keys
        .iter()
        .map(|(at, id, _)| (*at, id.as_str()))
        .collect();
    assert_eq!(ids, [(at(0), "b"), (later, "a")]);
}
