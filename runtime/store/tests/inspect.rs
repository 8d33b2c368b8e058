//! Check, backup and repair of data folders, whole and damaged.
#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use mainspring_core::id::{PartitionId, Position};
use mainspring_core::orchestration::Status;
use mainspring_store::inspect::{backup, check, repair};
use mainspring_store::{Batch, Error, FjallStore, Op, Options, Space, Store, query};
use tempfile::TempDir;

#[path = "fixtures/content.rs"]
mod content;

use content::{ENTITY, at, of, record};

const PARTITION: PartitionId = PartitionId(1);

fn open(path: &Path) -> FjallStore {
    try_open(path).unwrap()
}

fn try_open(path: &Path) -> Result<FjallStore, Error> {
    let options = Options {
        cache_bytes: 1 << 20,
        witness_interval: Duration::ZERO,
        ..Options::default()
    };
    FjallStore::open(path, options)
}

/// A closed data folder with one entry of each kind, changed by one more batch.
fn folder_with(change: impl FnOnce(&mut Batch)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    content::fill(&store);
    let epoch = store.acquire(PARTITION).unwrap();
    let mut batch = Batch::new(PARTITION, epoch);
    change(&mut batch);
    store.write(&batch).unwrap();
    store.close().unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn journal(folder: &Path) -> PathBuf {
    folder.join("store/0.jnl")
}

fn zero(journal: &Path, from: u64, bytes: usize) {
    let file = OpenOptions::new().write(true).open(journal).unwrap();
    file.write_all_at(&vec![0; bytes], from).unwrap();
}

#[test]
fn a_whole_store_is_sound_and_stays_as_it_is() {
    let folder = folder_with(|_| {});
    let before = (
        names(folder.path()),
        fs::read(journal(folder.path())).unwrap(),
    );
    let report = check(folder.path()).unwrap();
    assert!(report.is_sound(), "{report}");
    assert!(report.is_clean);
    assert_eq!(report.partitions, 4);
    assert_eq!(report.witnessed, Some(report.commit));
    let counts = &report.counts;
    assert_eq!(
        (counts.instances, counts.busy, counts.history_chunks),
        (3, 2, 2)
    );
    assert_eq!((counts.entities, counts.delayed_operations), (1, 1));
    assert_eq!(
        (counts.messages, counts.timers, counts.scheduled_starts),
        (22, 1, 1)
    );
    assert_eq!(
        (
            counts.outliving_activities,
            counts.hubs,
            counts.retired_hubs
        ),
        (1, 1, 1)
    );
    let after = (
        names(folder.path()),
        fs::read(journal(folder.path())).unwrap(),
    );
    assert!(after == before);
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = folder_with(|_| {});
    let _store = open(folder.path());
    let elsewhere = tempfile::tempdir().unwrap();
    for refused in [
        check(folder.path()).err(),
        backup(folder.path(), &elsewhere.path().join("copy")).err(),
        repair(folder.path()).err(),
    ] {
        let refused = refused.unwrap();
        assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    }
}

#[test]
fn a_folder_that_is_none_is_refused() {
    let nowhere = tempfile::tempdir().unwrap();
    let path = nowhere.path().join("nothing");
    for refused in [check(&path).err(), repair(&path).err()] {
        assert!(matches!(refused, Some(Error::Refused(_))));
    }
    assert!(!path.exists());
}

#[test]
fn a_backup_serves_like_the_original() {
    // Also after an unclean stop: what the journals hold is in the copy.
    let folder = folder_with(|_| {});
    {
        let store = open(folder.path());
        let epoch = store.acquire(PARTITION).unwrap();
        let mut batch = Batch::new(PARTITION, epoch);
        content::put_instance(&mut batch, &of("late"), &record(Status::Pending, at(9)));
        store.write(&batch).unwrap();
        store.sync().unwrap();
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy");
    let report = backup(folder.path(), &copy).unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!(report.folder, copy);
    assert_eq!(report.counts.instances, 4);
    let store = open(&copy);
    let found = query::instance(&*store.read(), PARTITION, &of("late")).unwrap();
    assert_eq!(
        found,
        Some((record(Status::Pending, at(9)), content::start()))
    );
    let again = backup(folder.path(), &copy).err().unwrap();
    assert!(matches!(again, Error::Refused(_)), "{again}");
}

#[test]
fn a_check_finds_what_the_lists_lack_and_what_they_have_too_much() {
    let folder = folder_with(|batch| {
        batch.unindex_created(&of("running"), at(0));
        batch.index_created(&of("failed"), at(2), Status::Completed);
        batch.index_completed(&of("nobody"), at(3), Status::Failed);
        batch.index_created(&of("running"), at(77), Status::Running);
    });
    let report = check(folder.path()).unwrap();
    let text = report.to_string();
    assert_eq!(report.problems_total, 4, "{text}");
    for part in [
        "instance running (hub 1, partition 1): its entry by created time is missing",
        "instance failed (hub 1, partition 1): its entry by created time has another status",
        "instance nobody (hub 1): an entry by completed time without a record",
        "instance running (hub 1): an entry by created time without a record",
    ] {
        assert!(text.contains(part), "{text}");
    }

    let repaired = repair(folder.path()).unwrap();
    assert!(repaired.after.is_sound(), "{repaired}");
    assert_eq!(repaired.lost_and_found, None);
    let kept = check(&repaired.set_aside.unwrap());
    assert_eq!(kept.unwrap().problems, report.problems);
    let store = open(folder.path());
    let filter = query::InstanceFilter::default();
    let page = query::query_instances(&*store.read(), content::HUB, 4, &filter, None, 10).unwrap();
    let listed: Vec<_> = page
        .keys
        .iter()
        .map(|(_, id, status)| (id.as_str(), *status))
        .collect();
    assert_eq!(
        listed,
        [
            ("running", Status::Running),
            ("pending ☕", Status::Pending),
            ("failed", Status::Failed)
        ]
    );
}

/// The key of an entry of an instance's own, as the crate's documentation tells it.
fn state_key(kind: u8, instance: &str) -> Bytes {
    Bytes::from([&[0, 1, 0, 0, 0, 1, kind][..], instance.as_bytes()].concat())
}

fn put_state(batch: &mut Batch, key: Bytes, value: &'static [u8]) {
    batch.extend(vec![Op::Put {
        space: Space::State,
        key,
        value: Bytes::from_static(value),
    }]);
}

/// Checks a changed folder, which has this one problem, and repairs it; the entity's record and state that are left, and how many
/// entries went to the lost-and-found file.
fn repaired(change: impl FnOnce(&mut Batch), problem: &str) -> (bool, bool, usize) {
    let folder = folder_with(change);
    let report = check(folder.path()).unwrap();
    assert!(report.to_string().contains(problem), "{report}");
    let total = report.problems_total;
    let repaired = repair(folder.path()).unwrap();
    assert!(repaired.after.is_sound(), "{repaired}");
    let lost = fs::read_to_string(repaired.lost_and_found.unwrap()).unwrap();
    assert_eq!(lost.lines().count() as u64, total, "{lost}");
    let store = open(folder.path());
    let read = store.read();
    let record = query::entity(&*read, PARTITION, &of(ENTITY)).unwrap();
    let state = query::entity_state(&*read, PARTITION, &of(ENTITY)).unwrap();
    (record.is_some(), state.is_some(), total as usize)
}

#[test]
fn a_check_finds_entities_whose_record_and_state_do_not_agree() {
    // Nobody knows what the state was: what is left of the entity begins anew.
    let problem = "instance @counter@a (hub 1, partition 1): its state is missing";
    let left = repaired(|batch| batch.put_entity_state(&of(ENTITY), None), problem);
    assert_eq!(left, (false, false, 1));

    let problem = "instance @counter@a (hub 1, partition 1): a state without a record";
    let without_record = |batch: &mut Batch| {
        batch.extend(vec![Op::Delete {
            space: Space::State,
            key: state_key(2, ENTITY),
        }]);
    };
    assert_eq!(repaired(without_record, problem), (false, false, 1));

    let without_state = mainspring_entities::Record {
        has_state: false,
        ..content::entity_record()
    };
    let left = repaired(
        |batch| batch.put_entity(&of(ENTITY), &without_state),
        problem,
    );
    assert_eq!(left, (true, false, 1));
}

#[test]
fn a_check_finds_entries_of_entities_that_cannot_be_decoded() {
    // A record goes with the state that it was to vouch for.
    let undecodable = |batch: &mut Batch| put_state(batch, state_key(2, ENTITY), b"\x63");
    let problem = "unknown record version 99";
    assert_eq!(repaired(undecodable, problem), (false, false, 2));

    let undecodable = |batch: &mut Batch| {
        let mut key = state_key(4, ENTITY).to_vec();
        // Closed, a time, and a number.
        key.extend_from_slice(&[0; 1 + 9 + 8]);
        put_state(batch, key.into(), b"\x01\xc0");
    };
    let problem = "operation of instance @counter@a";
    assert_eq!(repaired(undecodable, problem), (true, true, 1));

    let cut_short = |batch: &mut Batch| {
        let key = state_key(4, "@counter@a\0short");
        put_state(batch, key, b"\x01\xc0");
    };
    assert_eq!(
        repaired(cut_short, "does not have the form"),
        (true, true, 1)
    );
}

#[test]
fn a_check_finds_a_state_that_is_no_text() {
    // Such an entity cannot be loaded.
    let no_text = |batch: &mut Batch| put_state(batch, state_key(3, ENTITY), b"\xff\xfe");
    let (_, has_state, _) = repaired(no_text, "state of instance @counter@a");
    assert!(!has_state);
}

#[test]
fn entities_of_other_partitions_than_there_are_are_found() {
    let elsewhere = |batch: &mut Batch| {
        let mut key = state_key(2, ENTITY).to_vec();
        key[1] = 9;
        put_state(batch, key.into(), b"\x01\xc0");
    };
    assert_eq!(
        repaired(elsewhere, "does not have the form"),
        (true, true, 1)
    );
}

/// The key of an instance's mailbox, as the crate's documentation tells it.
fn mailbox_prefix(instance: &str) -> Bytes {
    let mut key = vec![0, 1, 0, 0, 0, 1];
    key.extend_from_slice(instance.as_bytes());
    key.push(0);
    Bytes::from(key)
}

#[test]
fn a_repair_takes_out_what_cannot_be_decoded() {
    let folder = folder_with(|batch| {
        batch.extend(vec![
            Op::Message {
                prefix: mailbox_prefix("running"),
                value: Bytes::from_static(b"\x01garbage"),
            },
            Op::Put {
                space: Space::Timer,
                key: Bytes::from_static(b"\x00\x01x"),
                value: Bytes::new(),
            },
        ]);
        batch.append_history(&of("nobody"), 0, 0, content::chunk());
    });
    let report = check(folder.path()).unwrap();
    assert_eq!(report.problems_total, 3, "{report}");
    assert!(
        report.to_string().contains("mailbox of instance running"),
        "{report}"
    );

    let repaired = repair(folder.path()).unwrap();
    assert!(repaired.after.is_sound(), "{repaired}");
    let lost = fs::read_to_string(repaired.lost_and_found.as_ref().unwrap()).unwrap();
    assert_eq!(lost.lines().count(), 3, "{lost}");
    assert!(lost.contains("0167617262616765"), "{lost}");
    let store = open(folder.path());
    let messages = query::mailbox(
        &*store.read(),
        PARTITION,
        &of("running"),
        Position::default(),
        100,
    );
    let messages: Vec<_> = messages
        .unwrap()
        .into_iter()
        .map(|(_, message)| message)
        .collect();
    assert_eq!(messages, content::messages());
}

#[test]
fn a_repair_keeps_what_remains_of_an_undecodable_record() {
    // The record goes to the lost-and-found file with all that hangs on it; its neighbours are untouched.
    let folder = folder_with(|batch| {
        let key = [&[0, 1, 0, 0, 0, 1, 0][..], b"running"].concat();
        batch.extend(vec![Op::Put {
            space: Space::State,
            key: Bytes::from(key),
            value: Bytes::from_static(b"\x63"),
        }]);
    });
    let report = check(folder.path()).unwrap();
    assert!(
        report.to_string().contains("unknown record version 99"),
        "{report}"
    );
    let repaired = repair(folder.path()).unwrap();
    assert!(repaired.after.is_sound(), "{repaired}");
    assert_eq!(repaired.after.counts.instances, 2);
    let store = open(folder.path());
    let read = store.read();
    assert_eq!(
        query::record(&*read, PARTITION, &of("running")).unwrap(),
        None
    );
    assert!(
        query::instance(&*read, PARTITION, &of("failed"))
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_missing_history_chunk_is_told_and_cannot_be_mended() {
    let folder = folder_with(|batch| batch.remove_history(&of("running"), 2, 1));
    let report = check(folder.path()).unwrap();
    assert_eq!(report.problems_total, 1, "{report}");
    let repaired = repair(folder.path()).unwrap();
    assert_eq!(repaired.after.problems, report.problems);
}

#[test]
fn a_repair_accepts_a_store_that_is_behind() {
    let folder = folder_with(|_| {});
    let witnessed = check(folder.path()).unwrap().commit;
    let path = journal(folder.path());
    let length = fs::read(&path)
        .unwrap()
        .iter()
        .rposition(|&byte| byte != 0)
        .unwrap();
    zero(&path, length as u64 / 2, length);
    let refused = try_open(folder.path()).err().unwrap();
    let Error::Behind { stored, .. } = refused else {
        panic!("{refused}");
    };
    let report = check(folder.path()).unwrap();
    assert!(!report.is_sound());
    assert_eq!((report.commit, report.witnessed), (stored, Some(witnessed)));

    let repaired = repair(folder.path()).unwrap();
    assert!(repaired.after.is_sound(), "{repaired}");
    let text = repaired.to_string();
    let told = format!("ends at commit {stored}, although commit {witnessed} was durable");
    assert!(text.contains(&told), "{text}");
    assert!(
        repaired.after.commit > witnessed,
        "lost numbers are not given again"
    );
    let store = open(folder.path());
    assert!(store.synced() > witnessed);
    // What was refused is kept as it was.
    let refused = try_open(&repaired.set_aside.unwrap()).err().unwrap();
    assert!(matches!(refused, Error::Behind { .. }), "{refused}");
}

#[test]
fn a_repair_cuts_a_journal_that_the_engine_refuses() {
    let folder = folder_with(|_| {});
    let path = journal(folder.path());
    let whole = fs::read(&path).unwrap();
    let place = whole
        .windows(8)
        .rposition(|bytes| bytes == b"approval")
        .unwrap();
    zero(&path, place as u64, 1);
    let refused = try_open(folder.path()).err().unwrap();
    assert!(matches!(refused, Error::Behind { .. }), "{refused}");
    assert!(matches!(check(folder.path()), Err(Error::Corrupt { .. })));
    let repaired = repair(folder.path()).unwrap();
    assert!(repaired.after.is_sound(), "{repaired}");
    assert!(repaired.to_string().contains("cut journal"), "{repaired}");
    assert_eq!(repaired.after.counts.messages, 0);
    assert_eq!(repaired.after.counts.instances, 3);
    open(folder.path());
}

#[test]
fn a_repair_writes_a_missing_witness_and_format() {
    for name in ["witness", "FORMAT"] {
        let folder = folder_with(|_| {});
        fs::remove_file(folder.path().join(name)).unwrap();
        assert!(!check(folder.path()).unwrap().is_sound());
        let repaired = repair(folder.path()).unwrap();
        assert!(repaired.after.is_sound(), "{repaired}");
        assert_eq!(open(folder.path()).partitions(), 4);
    }
}

#[test]
fn a_repair_of_a_sound_folder_does_nothing() {
    let folder = folder_with(|_| {});
    let before = names(folder.path());
    let repaired = repair(folder.path()).unwrap();
    assert_eq!(repaired.set_aside, None);
    assert_eq!(names(folder.path()), before);
}

#[test]
fn there_is_nothing_to_repair_without_a_store() {
    let folder = folder_with(|_| {});
    fs::remove_dir_all(folder.path().join("store")).unwrap();
    for refused in [check(folder.path()).err(), repair(folder.path()).err()] {
        assert!(matches!(refused, Some(Error::Behind { stored: 0, .. })));
    }
}
