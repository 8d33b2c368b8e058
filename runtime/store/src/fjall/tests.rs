#![allow(clippy::unwrap_used)]

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use mainspring_core::id::{HubId, InstanceId, InstanceKey};
use tempfile::TempDir;

use super::folder::copy_sparse;
use super::*;

const PARTITION: PartitionId = PartitionId(0);

/// Small enough for many stores at a time; the witness is written with every sync.
fn options() -> Options {
    Options {
        partitions: 2,
        cache_bytes: 1 << 20,
        memtable_bytes: 1 << 20,
        witness_interval: Duration::ZERO,
    }
}

fn open(path: &Path) -> Result<FjallStore, Error> {
    FjallStore::open(path, options())
}

fn of(instance: &str) -> InstanceKey {
    InstanceKey {
        hub: HubId(1),
        instance: InstanceId::from_stored(instance),
    }
}

fn chunk(number: u32) -> Bytes {
    Bytes::from(vec![number as u8 + 1; 300])
}

/// Writes `turns` history chunks, each in a commit of its own, each synced. Returns the last commit.
fn write_turns(store: &FjallStore, turns: std::ops::Range<u32>) -> u64 {
    let epoch = store.acquire(PARTITION).unwrap();
    let mut last = 0;
    for number in turns {
        let mut batch = Batch::new(PARTITION, epoch);
        batch.append_history(&of("a"), 0, number, chunk(number));
        batch.mark_busy(&of("a"));
        last = store.write(&batch).unwrap();
        store.sync().unwrap();
    }
    last
}

fn expect_turns(store: &FjallStore, turns: u32) {
    let found = query::history(&*store.read(), PARTITION, &of("a"), 0, turns).unwrap();
    assert_eq!(found, (0..turns).map(chunk).collect::<Vec<_>>());
}

/// A closed data folder with so many turns.
fn closed(turns: u32) -> (TempDir, u64) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let commit = write_turns(&store, 0..turns);
    store.close().unwrap();
    (folder, commit)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in folder::list(from).unwrap() {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            copy_sparse(&path, &target).unwrap();
        }
    }
}

fn newest_journal(folder: &Path) -> PathBuf {
    journals(&folder.join("store")).unwrap().pop().unwrap()
}

fn testimony(folder: &Path) -> Testimony {
    Witness::open(&folder.join("witness")).unwrap().testimony()
}

fn names(folder: &Path) -> Vec<String> {
    let paths = folder::list(folder).unwrap();
    let name = |path: &PathBuf| path.file_name().unwrap().display().to_string();
    paths.iter().map(name).collect()
}

#[test]
fn it_keeps_the_contract() {
    let folders = std::sync::Mutex::new(Vec::new());
    crate::contract::check(&|partitions| {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            partitions,
            ..options()
        };
        let store = FjallStore::open(folder.path(), options).unwrap();
        folders.lock().unwrap().push(folder);
        Arc::new(store)
    });
}

#[test]
fn a_reopened_store_holds_everything_and_numbers_on() {
    let (folder, commit) = closed(50);
    let epoch = {
        let store = open(folder.path()).unwrap();
        expect_turns(&store, 50);
        assert_eq!(store.synced(), commit);
        assert_eq!(store.partitions(), 2);
        let next = write_turns(&store, 50..60);
        assert!(next > commit);
        store.acquire(PARTITION).unwrap()
        // Dropped without a close.
    };
    let store = FjallStore::open(
        folder.path(),
        Options {
            partitions: 9,
            ..options()
        },
    )
    .unwrap();
    expect_turns(&store, 60);
    assert_eq!(store.partitions(), 2, "the number of partitions is fixed");
    assert!(store.acquire(PARTITION).unwrap() > epoch);
}

#[test]
fn random_batches_survive_closed_and_dropped_stores() {
    // Method: the simplest model, a sorted map per space; after each few synced batches the store is closed or dropped and
    // opened again, and everything in it compared.
    const SEED: u64 = 0x2545_f491_4f6c_dd1d;
    let mut numbers = crate::contract::Numbers(SEED);
    let folder = tempfile::tempdir().unwrap();
    let mut model: [std::collections::BTreeMap<Bytes, Bytes>; 5] = Default::default();
    let mut last = 0;
    for round in 0..40 {
        let store = open(folder.path()).unwrap();
        for (space, model) in Space::ALL.into_iter().zip(&model) {
            let found = store.read().range(space, b"k", b"l", 1_000, false).unwrap();
            let expected: Vec<_> = model.clone().into_iter().collect();
            assert_eq!(found, expected, "seed {SEED:#x}, round {round}, {space:?}");
        }
        let epoch = store.acquire(PARTITION).unwrap();
        for _ in 0..numbers.below(20) {
            let mut batch = Batch::new(PARTITION, epoch);
            for _ in 0..1 + numbers.below(6) {
                let space = Space::ALL[numbers.below(5)];
                let key = Bytes::from(vec![b'k'; 1 + numbers.below(30)]);
                let model = &mut model[space as usize];
                if numbers.below(3) == 0 {
                    model.remove(&key);
                    batch.extend(vec![Op::Delete { space, key }]);
                } else {
                    let value = Bytes::from(vec![round as u8; numbers.below(20_000)]);
                    model.insert(key.clone(), value.clone());
                    batch.extend(vec![Op::Put { space, key, value }]);
                }
            }
            let commit = store.write(&batch).unwrap();
            assert!(commit > last);
            last = commit;
        }
        store.sync().unwrap();
        if numbers.below(2) == 0 {
            store.close().unwrap();
        }
    }
}

#[test]
fn a_second_opener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    let refused = open(folder.path()).err().unwrap();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    let text = refused.to_string();
    assert!(
        text.contains(&folder.path().display().to_string()),
        "{text}"
    );
    first.close().unwrap();
    drop(first);
    open(folder.path()).unwrap();
}

#[test]
fn the_witness_is_never_ahead_of_what_is_synced() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let epoch = store.acquire(PARTITION).unwrap();
    for number in 0..100 {
        let mut batch = Batch::new(PARTITION, epoch);
        batch.append_history(&of("a"), 0, number, chunk(number));
        let commit = store.write(&batch).unwrap();
        assert!(testimony(folder.path()).commit < commit);
        if number % 3 == 0 {
            store.sync().unwrap();
            assert_eq!(testimony(folder.path()).commit, commit);
        }
        assert!(testimony(folder.path()).commit <= store.synced());
    }
    assert!(!testimony(folder.path()).is_clean);
    store.close().unwrap();
    let at_last = testimony(folder.path());
    assert_eq!((at_last.commit, at_last.is_clean), (store.synced(), true));
}

#[test]
fn the_witness_is_written_no_more_often_than_its_interval() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        witness_interval: Duration::from_secs(3_600),
        ..options()
    };
    let store = FjallStore::open(folder.path(), options).unwrap();
    let before = testimony(folder.path());
    write_turns(&store, 0..20);
    assert_eq!(testimony(folder.path()), before);
}

/// Opens a damaged copy; gives the refusal, which must name the folder and a way out.
fn refusal(folder: &Path) -> Error {
    let refused = open(folder).err().expect("a damaged store is refused");
    let text = refused.to_string();
    assert!(text.contains(&folder.display().to_string()), "{text}");
    assert!(text.contains("mainspring store repair"), "{text}");
    refused
}

#[test]
fn a_zeroed_page_within_the_synced_journal_is_behind() {
    // Aim: the engine would open it, cut the journal and drop every later commit without a word. Method: zero each page of
    // a copy in turn; the refusal must leave the journal as it is.
    let (folder, commit) = closed(120);
    let journal = newest_journal(folder.path());
    let used = scan(&journal).unwrap().valid_bytes;
    assert!(used > 10 * 4_096, "{used}");
    for page in 1..used / 4_096 {
        let damaged = tempfile::tempdir().unwrap();
        copy(folder.path(), damaged.path());
        let journal = newest_journal(damaged.path());
        let file = fs::OpenOptions::new().write(true).open(&journal).unwrap();
        file.write_all_at(&[0; 4_096], page * 4_096).unwrap();
        let length = file.metadata().unwrap().len();
        match refusal(damaged.path()) {
            Error::Behind {
                stored, witnessed, ..
            } => {
                assert_eq!(witnessed, commit);
                assert!(stored < commit);
            }
            other => panic!("page {page}: {other}"),
        }
        assert_eq!(journal.metadata().unwrap().len(), length);
        refusal(damaged.path());
    }
}

#[test]
fn a_zeroed_first_page_is_refused() {
    // Aim: with the first batch gone the engine finds an empty journal, and its keyspaces have never been written out.
    let (folder, _) = closed(120);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(newest_journal(folder.path()))
        .unwrap();
    file.write_all_at(&[0; 4_096], 0).unwrap();
    refusal(folder.path());
}

#[test]
fn flipped_bytes_anywhere_in_the_journal_are_refused() {
    let (folder, _) = closed(20);
    let used = scan(&newest_journal(folder.path())).unwrap().valid_bytes;
    for step in 0..60 {
        let at = used * step / 60;
        let damaged = tempfile::tempdir().unwrap();
        copy(folder.path(), damaged.path());
        let journal = newest_journal(damaged.path());
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&journal)
            .unwrap();
        let mut bytes = [0; 2];
        file.read_exact_at(&mut bytes, at).unwrap();
        file.write_all_at(&bytes.map(|byte| byte ^ 0x5a), at)
            .unwrap();
        refusal(damaged.path());
    }
}

#[test]
fn a_torn_tail_behind_the_witness_is_not_held_against_the_store() {
    // Aim: a crash within a write leaves half a batch that nobody was told of; that is no damage.
    let (folder, commit) = closed(20);
    let journal = newest_journal(folder.path());
    let used = scan(&journal).unwrap().valid_bytes;
    let file = fs::OpenOptions::new().write(true).open(&journal).unwrap();
    // The start of a batch of three items, and half an item.
    file.write_all_at(&[1, 3, 0, 0, 0, 9, 9, 0, 0, 0, 0, 0, 0, 2, 0, 0, 1], used)
        .unwrap();
    let store = open(folder.path()).unwrap();
    expect_turns(&store, 20);
    assert_eq!(store.synced(), commit);
}

#[test]
fn damage_in_a_sealed_journal_is_refused() {
    // Aim: the engine would go on with the next journal, leaving a gap that commit numbers do not show. Method: write a
    // megabyte at a time, which no compression makes smaller, until the engine begins a second journal, some 64 MB later.
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    write_turns(&store, 0..60);
    let epoch = store.acquire(PARTITION).unwrap();
    let mut number = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        number.to_be_bytes()
    })
    .take(1 << 17)
    .flatten()
    .collect();
    let noise = Bytes::from(noise);
    let all = (0..1_000)
        .find_map(|chunk| {
            let mut batch = Batch::new(PARTITION, epoch);
            batch.append_history(&of("large"), 0, chunk, noise.clone());
            store.write(&batch).unwrap();
            store.sync().unwrap();
            let all = journals(&folder.path().join("store")).unwrap();
            (all.len() > 1).then_some(all)
        })
        .unwrap();
    store.close().unwrap();
    drop(store);
    let untouched = tempfile::tempdir().unwrap();
    copy(folder.path(), untouched.path());
    expect_turns(&open(untouched.path()).unwrap(), 60);

    let file = fs::OpenOptions::new().write(true).open(&all[0]).unwrap();
    file.write_all_at(&[0; 4_096], 2 * 4_096).unwrap();
    let refused = refusal(folder.path());
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
}

#[test]
fn a_keyspace_that_lost_commits_another_kept_is_noticed() {
    // Aim: the last commit number may reach the disk with its keyspace while the journal that holds the others is lost.
    // Method: write the index out, then drop all of the journals' contents.
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let commit = write_turns(&store, 0..60);
    let index = store.engine.keyspace(Space::Index);
    index.rotate_memtable_and_wait().unwrap();
    store.close().unwrap();
    drop(store);
    for journal in journals(&folder.path().join("store")).unwrap() {
        let length = journal.metadata().unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&journal).unwrap();
        file.set_len(0).unwrap();
        file.set_len(length).unwrap();
    }
    let engine = Engine::open(
        &folder.path().join("store"),
        folder.path(),
        options().settings(),
    )
    .unwrap();
    assert_eq!(engine.commits().unwrap().last, commit);
    drop(engine);
    let refused = refusal(folder.path());
    assert!(
        matches!(refused, Error::Behind { stored: 0, witnessed, .. } if witnessed == commit),
        "{refused}"
    );
}

#[test]
fn a_missing_store_is_never_replaced_by_an_empty_one() {
    let (folder, commit) = closed(5);
    fs::rename(folder.path().join("store"), folder.path().join("elsewhere")).unwrap();
    let refused = refusal(folder.path());
    assert!(
        matches!(refused, Error::Behind { stored: 0, witnessed, .. } if witnessed == commit),
        "{refused}"
    );
    fs::create_dir(folder.path().join("store")).unwrap();
    refusal(folder.path());
    assert_eq!(names(&folder.path().join("store")), [""; 0]);
    fs::remove_dir(folder.path().join("store")).unwrap();
    fs::rename(folder.path().join("elsewhere"), folder.path().join("store")).unwrap();
    expect_turns(&open(folder.path()).unwrap(), 5);
}

#[test]
fn a_missing_witness_or_format_is_refused() {
    for name in ["witness", "FORMAT"] {
        let (folder, _) = closed(5);
        fs::remove_file(folder.path().join(name)).unwrap();
        let refused = refusal(folder.path());
        assert!(refused.to_string().contains(name), "{refused}");
    }
}

#[test]
fn an_interrupted_creation_is_gone_on_with() {
    // Method: what a crash leaves at each step of a creation: witness; FORMAT; half a store under its first name.
    let whole = tempfile::tempdir().unwrap();
    drop(open(whole.path()).unwrap());
    let fresh = tempfile::tempdir().unwrap();
    Witness::create(&fresh.path().join("witness"), Testimony::default()).unwrap();
    drop(open(fresh.path()).unwrap());
    assert_eq!(names(fresh.path()), names(whole.path()));

    let half = tempfile::tempdir().unwrap();
    Witness::create(&half.path().join("witness"), Testimony::default()).unwrap();
    fs::copy(whole.path().join("FORMAT"), half.path().join("FORMAT")).unwrap();
    fs::create_dir_all(half.path().join("store.creating/keyspaces")).unwrap();
    drop(open(half.path()).unwrap());
    assert_eq!(names(half.path()), names(whole.path()));
}

#[test]
fn journals_are_copied_after_an_unclean_stop_and_the_newest_two_kept() {
    let folder = tempfile::tempdir().unwrap();
    let copies = folder.path().join("journals");
    let mut expected = Vec::new();
    for run in 0..5_u32 {
        let store = open(folder.path()).unwrap();
        expect_turns(&store, run * 10);
        expected.truncate(2);
        assert_eq!(names(&copies), expected);
        write_turns(&store, run * 10..run * 10 + 10);
        drop(store);
        expected.push((run + 1).to_string());
        if expected.len() > 2 {
            expected.remove(0);
        }
    }
    let store = open(folder.path()).unwrap();
    assert_eq!(names(&copies), ["4", "5"]);
    let copied = newest_copy(&copies.join("5"));
    assert_eq!(scan(&copied).unwrap().commit, Some(store.synced()));
    store.close().unwrap();
    drop(store);
    drop(open(folder.path()).unwrap());
    assert_eq!(names(&copies), ["4", "5"], "a clean stop needs no copy");
}

fn newest_copy(copies: &Path) -> PathBuf {
    journals(copies).unwrap().pop().unwrap()
}

#[test]
fn refused_opens_do_not_push_out_the_copy_made_first() {
    // Aim: a supervisor that restarts a refused server again and again must not replace the good copy.
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let commit = write_turns(&store, 0..40);
    drop(store);
    let journal = newest_journal(folder.path());
    let file = fs::OpenOptions::new().write(true).open(&journal).unwrap();
    let whole = scan(&journal).unwrap().valid_bytes;
    let torn = whole - 10;
    refuse_to_open_with(folder.path(), &file, torn);
    let copy = newest_copy(&folder.path().join("journals/1"));
    let first = fs::read(&copy).unwrap();
    for _ in 0..4 {
        refuse_to_open_with(folder.path(), &file, 4_096);
    }
    assert_eq!(names(&folder.path().join("journals")), ["1"]);
    assert_eq!(fs::read(&copy).unwrap(), first);
    assert!(scan(&copy).unwrap().commit.unwrap() <= commit);
}

fn refuse_to_open_with(folder: &Path, journal: &fs::File, zeros_from: u64) {
    let zeros = vec![0; 4_096];
    journal.write_all_at(&zeros, zeros_from).unwrap();
    refusal(folder);
}

#[test]
fn a_failed_write_ends_the_store() {
    // Method: note a failure as a failed engine call does.
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let epoch = store.acquire(PARTITION).unwrap();
    let error = {
        let mut writer = store.writer();
        store.fail(&mut writer, "input/output error")
    };
    assert!(matches!(error, Error::Poisoned { .. }));
    let mut batch = Batch::new(PARTITION, epoch);
    batch.mark_busy(&of("a"));
    for refused in [
        store.write(&batch).err(),
        store.sync().err(),
        store.close().err(),
    ] {
        let text = refused.unwrap().to_string();
        assert!(text.contains("input/output error"), "{text}");
        assert!(
            text.contains(&folder.path().display().to_string()),
            "{text}"
        );
    }
}
