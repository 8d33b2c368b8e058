//! The durable store: open and recover, commit, read.
//!
//! One database of the engine, five keyspaces, one journal. A batch becomes one atomic batch of the engine, which carries
//! its commit number; `sync` is one fdatasync of the journal. At least every half second in which something was committed,
//! a mark goes into every keyspace and the durable number into the witness.
//!
//! Opening never starts empty where there was something, never deletes, and refuses a store that has lost a durable commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::fjall::OwnedWriteBatch;
use bytes::{BufMut, BytesMut};
use mainspring_core::id::{PartitionId, Position};

use crate::{Batch, Epoch, Error, Op, Read, Space, Store, key, query};

pub(crate) mod engine;
pub(crate) mod folder;
pub(crate) mod journal;
pub(crate) mod witness;

pub use folder::FORMAT_VERSION;

use engine::{Engine, Settings};
use folder::{Folder, Format, rename};
use journal::{End, journals, keep_copy, scan};
use witness::{Testimony, Witness};

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Partitions of a new data folder; an existing one keeps its own number. Several per core leave room to spread work
    /// later; each costs a scan of its busy instances at start. At most 65,535.
    pub partitions: u16,
    /// Ceiling of the engine's cache of blocks, in bytes.
    pub cache_bytes: u64,
    /// Size at which the engine writes a keyspace's memtable out, in bytes; read when the data folder is created. Up to five
    /// times this, for a short while more, lies in memory. Smaller ones are written more often.
    pub memtable_bytes: u64,
    /// Least time between two writes of the witness. A loss of commits younger than this is not noticed.
    pub witness_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partitions: 4,
            cache_bytes: 64 << 20,
            memtable_bytes: 32 << 20,
            witness_interval: Duration::from_millis(500),
        }
    }
}

impl Options {
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            cache_bytes: self.cache_bytes,
            memtable_bytes: self.memtable_bytes,
        }
    }
}

/// A store in a data folder.
///
/// Dropping it without [`Store::close`] is an unclean stop: everything synced is kept, and the next open keeps a copy of the
/// journals.
pub struct FjallStore {
    engine: Engine,
    writer: Mutex<Writer>,
    synced: AtomicU64,
    partitions: u16,
    witness_interval: Duration,
    /// Last, so that the lock is released after the engine has let go of its files.
    folder: Folder,
}

/// What a writer changes.
struct Writer {
    /// Number of the last commit.
    commit: u64,
    /// Present epoch of each partition; 0 means never owned.
    epochs: Vec<u64>,
    witness: Witness,
    witnessed_at: Instant,
    /// Message keys are built here.
    key: BytesMut,
    /// Why nothing more is written.
    end: Option<Ended>,
}

enum Ended {
    Closed,
    Failed(String),
}

impl FjallStore {
    /// Opens a data folder, or creates one where there is none.
    ///
    /// Errors: `Locked` when another process has it open; `Version`; `Behind` when a durable commit is missing; `Corrupt` when
    /// something else about it cannot be trusted, such as a missing witness. After an unclean stop the journals are copied
    /// to `journals/<run>/` before the engine opens, and perhaps cuts, them.
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let folder = Folder::lock(path, true)?;
        let format = match folder.read_format()? {
            Some(format) => format,
            None => begin(&folder, options.partitions)?,
        };
        let mut witness = existing_witness(&folder)?;
        let testimony = witness.testimony();
        if !folder.store().is_dir() {
            if testimony != Testimony::default() {
                return Err(missing_store(&folder, testimony));
            }
            create_store(&folder, format, &options)?;
        }
        // A run of 0 has never been served from.
        if testimony.run > 0
            && !testimony.is_clean
            && let Some(copy) = keep_copy(&folder.store(), &folder.journals(), testimony.run)?
        {
            tracing::warn!(
                folder = %path.display(),
                copy = %copy.display(),
                "the last stop was not clean: the journals were copied before opening"
            );
        }
        check_journals(&folder, testimony.commit)?;
        let engine = Engine::open(&folder.store(), path, options.settings())?;
        let commits = engine.commits()?;
        commits.cover(path, testimony.commit)?;
        let epochs = epochs(&engine, path, format.partitions)?;

        // What is in the journals may be in the system's memory only, after a kill.
        let failed = |error: ::fjall::Error| poisoned(path, error);
        engine.mark(commits.last).map_err(failed)?;
        engine.persist().map_err(failed)?;
        witness.write(Testimony {
            commit: commits.last,
            run: testimony.run + 1,
            is_clean: false,
        })?;
        Ok(Self {
            engine,
            writer: Mutex::new(Writer {
                commit: commits.last,
                epochs,
                witness,
                witnessed_at: Instant::now(),
                key: BytesMut::new(),
                end: None,
            }),
            synced: AtomicU64::new(commits.last),
            partitions: format.partitions,
            witness_interval: options.witness_interval,
            folder,
        })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn require_open(&self, writer: &Writer) -> Result<(), Error> {
        match &writer.end {
            None => Ok(()),
            Some(Ended::Closed) => Err(Error::Closed),
            Some(Ended::Failed(cause)) => Err(poisoned(self.folder.path(), cause)),
        }
    }

    /// Notes a failure, after which nothing more is written.
    fn fail(&self, writer: &mut Writer, cause: impl std::fmt::Display) -> Error {
        let cause = cause.to_string();
        writer.end = Some(Ended::Failed(cause.clone()));
        poisoned(self.folder.path(), cause)
    }

    /// Commits an engine batch under the next number.
    fn commit(&self, writer: &mut Writer, mut batch: OwnedWriteBatch) -> Result<u64, Error> {
        let commit = writer.commit + 1;
        let index = self.engine.keyspace(Space::Index);
        batch.insert(index, key::meta::COMMIT, commit.to_be_bytes());
        batch.commit().map_err(|error| self.fail(writer, error))?;
        writer.commit = commit;
        Ok(commit)
    }

    fn persist(&self, writer: &mut Writer, testify: Option<Testify>) -> Result<(), Error> {
        let commit = writer.commit;
        if testify.is_some() {
            self.engine
                .mark(commit)
                .map_err(|error| self.fail(writer, error))?;
        }
        self.engine
            .persist()
            .map_err(|error| self.fail(writer, error))?;
        self.synced.store(commit, Ordering::Release);
        if let Some(testify) = testify {
            let testimony = Testimony {
                commit,
                is_clean: matches!(testify, Testify::Clean),
                ..writer.witness.testimony()
            };
            writer
                .witness
                .write(testimony)
                .map_err(|error| self.fail(writer, error))?;
            writer.witnessed_at = Instant::now();
        }
        Ok(())
    }
}

/// How a witness is to be written.
enum Testify {
    Running,
    Clean,
}

impl Store for FjallStore {
    fn acquire(&self, partition: PartitionId) -> Result<Epoch, Error> {
        let mut writer = self.writer();
        self.require_open(&writer)?;
        let place = usize::from(partition.0);
        let epoch = writer.epochs[place] + 1;
        let mut batch = self.engine.batch(2);
        let entry = query::built(|to| key::tag_of_partition(to, key::tag::EPOCH, partition));
        let index = self.engine.keyspace(Space::Index);
        batch.insert(index, &entry[..], epoch.to_be_bytes());
        self.commit(&mut writer, batch)?;
        self.persist(&mut writer, None)?;
        writer.epochs[place] = epoch;
        Ok(Epoch(epoch))
    }

    fn write(&self, batch: &Batch) -> Result<u64, Error> {
        let mut writer = self.writer();
        self.require_open(&writer)?;
        let current = writer.epochs[usize::from(batch.partition.0)];
        if batch.epoch.0 != current {
            return Err(Error::Fenced {
                partition: batch.partition,
                epoch: batch.epoch.0,
                current,
            });
        }
        if batch.is_empty() {
            return Ok(writer.commit);
        }
        let commit = writer.commit + 1;
        let mut index = 0;
        let mut out = self.engine.batch(batch.len() + 1);
        for op in batch.ops() {
            match op {
                Op::Put { space, key, value } => {
                    out.insert(self.engine.keyspace(*space), &key[..], &value[..]);
                }
                Op::Delete { space, key } => out.remove(self.engine.keyspace(*space), &key[..]),
                Op::Message { prefix, value } => {
                    let key = &mut writer.key;
                    key.clear();
                    key.put_slice(prefix);
                    key::position(key, Position { commit, index });
                    out.insert(self.engine.keyspace(Space::Mailbox), &key[..], &value[..]);
                    index = index.wrapping_add(1);
                }
            }
        }
        self.commit(&mut writer, out)
    }

    fn sync(&self) -> Result<(), Error> {
        let mut writer = self.writer();
        self.require_open(&writer)?;
        let is_due = writer.commit > writer.witness.testimony().commit
            && writer.witnessed_at.elapsed() >= self.witness_interval;
        if is_due || writer.commit > self.synced() {
            self.persist(&mut writer, is_due.then_some(Testify::Running))?;
        }
        Ok(())
    }

    fn read(&self) -> Box<dyn Read + '_> {
        Box::new(self.engine.read())
    }

    fn partitions(&self) -> u16 {
        self.partitions
    }

    fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    fn size_bytes(&self) -> u64 {
        self.engine.size_bytes()
    }

    fn free_bytes(&self) -> u64 {
        self.folder.free_bytes()
    }

    fn close(&self) -> Result<(), Error> {
        let mut writer = self.writer();
        if matches!(writer.end, Some(Ended::Closed)) {
            return Ok(());
        }
        self.require_open(&writer)?;
        self.persist(&mut writer, Some(Testify::Clean))?;
        writer.end = Some(Ended::Closed);
        Ok(())
    }
}

fn poisoned(folder: &Path, cause: impl std::fmt::Display) -> Error {
    Error::Poisoned {
        folder: folder.to_path_buf(),
        cause: cause.to_string(),
    }
}

/// Begins a data folder: witness, then `FORMAT`. The store folder follows, and only an open that succeeds with it changes the
/// witness; so an interrupted creation is told from a folder that has lost something, and is gone on with.
fn begin(folder: &Folder, partitions: u16) -> Result<Format, Error> {
    let path = folder.witness();
    let is_fresh = !path.exists() || Witness::open(&path)?.testimony() == Testimony::default();
    if !is_fresh || folder.store().exists() {
        return Err(Error::folder(
            folder.path(),
            "its FORMAT file is missing, although it was in use",
        ));
    }
    Witness::create(&path, Testimony::default())?;
    let format = Format {
        partitions: partitions.max(1),
    };
    folder.write_format(format)?;
    Ok(format)
}

/// Creates the store folder under another name, so that it is there as a whole or not at all.
fn create_store(folder: &Folder, format: Format, options: &Options) -> Result<(), Error> {
    let unfinished = folder.path().join("store.creating");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(Error::io("remove", &unfinished))?;
    }
    Engine::create(
        &unfinished,
        folder.path(),
        options.settings(),
        format.partitions,
    )?;
    rename(&unfinished, &folder.store())
}

/// The witness of a finished data folder: without one, nobody can tell whether the store is complete.
pub(crate) fn existing_witness(folder: &Folder) -> Result<Witness, Error> {
    let path = folder.witness();
    if !path.exists() {
        return Err(Error::folder(
            folder.path(),
            "its witness file is missing, so nobody can tell whether the store is complete",
        ));
    }
    Witness::open(&path)
}

pub(crate) fn missing_store(folder: &Folder, testimony: Testimony) -> Error {
    match testimony.commit {
        0 => Error::folder(folder.path(), "its store folder is missing"),
        witnessed => Error::Behind {
            folder: folder.path().to_path_buf(),
            stored: 0,
            witnessed,
        },
    }
}

/// Looks for damage that the engine would pass over, before the engine cuts anything.
pub(crate) fn check_journals(folder: &Folder, witnessed: u64) -> Result<(), Error> {
    let paths = journals(&folder.store())?;
    let Some((newest, sealed)) = paths.split_last() else {
        return Ok(());
    };
    let damaged = |path: &PathBuf, at: u64, what: &str| {
        let name = path.file_name().unwrap_or_default().display();
        Error::folder(
            folder.path(),
            format!("journal {name} is damaged at byte {at}: {what}"),
        )
    };
    for path in sealed {
        let found = scan(path)?;
        if found.end != End::Blank {
            let what = "it was synced as a whole, and later commits follow in the next journal";
            return Err(damaged(path, found.valid_bytes, what));
        }
    }
    let found = scan(newest)?;
    if let Some(stored) = found.commit
        && stored < witnessed
    {
        // Commits are numbered in journal order, so the witnessed one stood behind this one, in this journal.
        return Err(Error::Behind {
            folder: folder.path().to_path_buf(),
            stored,
            witnessed,
        });
    }
    if found.end == End::Mismatch {
        return Err(damaged(newest, found.valid_bytes, "wrong checksum"));
    }
    Ok(())
}

fn epochs(engine: &Engine, folder: &Path, partitions: u16) -> Result<Vec<u64>, Error> {
    let read = engine.read();
    let stored = query::partitions(&read)?;
    if stored != Some(partitions) {
        return Err(Error::folder(
            folder,
            format!("FORMAT names {partitions} partitions, the store {stored:?}"),
        ));
    }
    (0..partitions)
        .map(|partition| {
            let entry = query::built(|to| {
                key::tag_of_partition(to, key::tag::EPOCH, PartitionId(partition));
            });
            Ok(query::number(&read, Space::Index, &entry)?.unwrap_or(0))
        })
        .collect()
}

#[cfg(test)]
mod tests;
