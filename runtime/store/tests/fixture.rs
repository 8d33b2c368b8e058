//! Data folders written by each on-disk version open, and hold what was put into them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use mainspring_core::id::{HubId, PartitionId, Position};
use mainspring_core::orchestration::Status;
use mainspring_store::query::{self, Due};
use mainspring_store::{FORMAT_VERSION, FjallStore, Options, Store, inspect};

#[path = "fixtures/content.rs"]
mod content;

use content::{HUB, at, of, record};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// A copy that can be opened. Version control keeps no empty folders, and the engine wants one for the tables of each
/// keyspace.
fn opened(version: u32) -> (tempfile::TempDir, FjallStore) {
    let fixture = format!("{}/tests/fixtures/v{version}", env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    copy(Path::new(&fixture), folder.path());
    for entry in fs::read_dir(folder.path().join("store/keyspaces")).unwrap() {
        fs::create_dir_all(entry.unwrap().path().join("tables")).unwrap();
    }
    fs::write(folder.path().join("store/lock"), "").unwrap();
    let report = inspect::check(folder.path()).unwrap();
    assert!(report.is_sound(), "{report}");
    let store = FjallStore::open(folder.path(), Options::default()).unwrap();
    (folder, store)
}

#[test]
fn version_1_holds_what_was_put_into_it() {
    let (_folder, store) = opened(1);
    let read = store.read();
    let partition = PartitionId(1);
    assert_eq!(store.partitions(), 4);
    assert_eq!(query::hubs(&*read).unwrap(), [("default".to_owned(), HUB)]);
    assert_eq!(query::retired_hubs(&*read).unwrap(), [HubId(2)]);
    assert_eq!(query::hub_id_max(&*read).unwrap(), Some(HubId(2)));

    let mut running = record(Status::Running, at(0));
    running.history_chunks = 2;
    for (name, expected) in [
        ("running", running),
        ("pending ☕", record(Status::Pending, at(1))),
        ("failed", record(Status::Failed, at(2))),
    ] {
        let found = query::instance(&*read, partition, &of(name)).unwrap();
        assert_eq!(found, Some((expected, content::start())), "{name}");
    }
    let history = query::history(&*read, partition, &of("running"), 2, 2).unwrap();
    assert_eq!(history, [content::chunk(), content::chunk()]);
    let messages = query::mailbox(&*read, partition, &of("running"), Position::default(), 100);
    let messages: Vec<_> = messages
        .unwrap()
        .into_iter()
        .map(|(_, message)| message)
        .collect();
    assert_eq!(messages, content::messages());
    let entity = of(content::ENTITY);
    let messages = query::mailbox(&*read, partition, &entity, Position::default(), 100);
    let messages: Vec<_> = messages.unwrap().into_iter().map(|(_, m)| m).collect();
    assert_eq!(messages, content::entity_messages());
    let found = query::entity(&*read, partition, &entity).unwrap();
    assert_eq!(found, Some(content::entity_record()));
    let state = query::entity_state(&*read, partition, &entity).unwrap();
    assert_eq!(state.as_deref(), Some(content::ENTITY_STATE));
    let delayed = query::delayed_operation(&*read, partition, &entity, at(10_800), 17).unwrap();
    assert_eq!(delayed, Some(content::delayed_operation()));
    let timers = query::timers(&*read, partition, None, 10).unwrap();
    let due: Vec<_> = timers
        .iter()
        .map(|entry| (entry.due, &entry.what))
        .collect();
    assert_eq!(
        due,
        [
            (at(3_600), &Due::Timer(content::timer())),
            (at(7_200), &Due::Start { generation: 2 }),
            (at(10_800), &Due::Operation { sequence: 17 })
        ]
    );
    let orphans = query::orphans(&*read, partition, None, 10).unwrap();
    assert_eq!(orphans, [(of("running"), content::task())]);
    let busy = query::busy(&*read, partition, None, 10).unwrap();
    assert_eq!(busy, [entity, of("running")]);
    let completed = query::last_completed(&*read, HUB).unwrap();
    assert_eq!(completed, record(Status::Failed, at(2)).completed_at);
}

#[test]
fn the_present_version_has_a_fixture() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    assert!(fixtures.join(format!("v{FORMAT_VERSION}")).is_dir());
}
