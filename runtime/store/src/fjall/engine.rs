//! The storage engine as this crate sets it up: five keyspaces in one database with one journal.
//!
//! Nothing here knows what an entry means. The engine's errors are turned into ours, and its panics on damaged files into
//! errors.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ::fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable, Snapshot,
};
use bytes::Bytes;

use crate::committer::panic_text;
use crate::{Error, Read, Space, key, query};

/// Key of a mark, in every keyspace: the commit number up to which that keyspace held everything when the mark was written.
///
/// Keyspaces reach the disk one by one, so one can keep a commit that a damaged journal has lost for another. A witness
/// number is covered when every keyspace has a mark of at least that number.
const MARK: [u8; 2] = [0xff, 0xff];

/// Journals may pin this much disk before the engine writes memtables out.
const JOURNALS_BYTES_MAX: u64 = 128 << 20;

/// What the engine may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Ceiling of the engine's cache of blocks.
    pub cache_bytes: u64,
    /// A keyspace's memtable is written out at this size.
    pub memtable_bytes: u64,
}

/// An open database.
pub(crate) struct Engine {
    spaces: [Keyspace; 5],
    database: Database,
    /// The data folder, for messages.
    folder: PathBuf,
}

impl Engine {
    /// Creates a database in `store`, which must not exist, and closes it again: it is durable when this returns.
    pub fn create(
        store: &Path,
        folder: &Path,
        settings: Settings,
        partitions: u16,
    ) -> Result<(), Error> {
        let failed = |error| opening_failed(folder, error);
        let database = builder(store, settings).open().map_err(failed)?;
        let mut spaces = Vec::with_capacity(Space::ALL.len());
        for space in Space::ALL {
            let options = || keyspace_options(space, settings);
            spaces.push(database.keyspace(space.name(), options).map_err(failed)?);
        }
        let mut batch = database.batch();
        let index = &spaces[Space::Index.place()];
        batch.insert(index, key::meta::PARTITIONS, partitions.to_be_bytes());
        batch.insert(index, key::meta::COMMIT, 0_u64.to_be_bytes());
        for keyspace in &spaces {
            batch.insert(keyspace, MARK, 0_u64.to_be_bytes());
        }
        batch.commit().map_err(failed)?;
        database.persist(PersistMode::SyncAll).map_err(failed)
    }

    /// Opens an existing database; nothing is ever created here. The engine may cut journals while it opens them.
    pub fn open(store: &Path, folder: &Path, settings: Settings) -> Result<Self, Error> {
        if !store.join("version").is_file() {
            return Err(Error::folder(
                folder,
                format!("{} holds no database", store.display()),
            ));
        }
        let opened = catch_unwind(AssertUnwindSafe(|| builder(store, settings).open()));
        let database = match opened {
            Ok(opened) => opened.map_err(|error| opening_failed(folder, error))?,
            Err(panic) => {
                let cause = format!("the storage engine panicked: {}", panic_text(&*panic));
                return Err(Error::folder(folder, cause));
            }
        };
        let names = database.list_keyspace_names();
        let missing = |space: &&Space| !names.iter().any(|name| **name == *space.name());
        if let Some(space) = Space::ALL.iter().find(missing) {
            let cause = format!("keyspace {} is missing", space.name());
            return Err(Error::folder(folder, cause));
        }
        let open = |space: Space| database.keyspace(space.name(), KeyspaceCreateOptions::default);
        let spaces = Space::ALL
            .into_iter()
            .map(open)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| opening_failed(folder, error))?;
        Ok(Self {
            spaces: spaces
                .try_into()
                .unwrap_or_else(|_| unreachable!("there are as many keyspaces as spaces")),
            database,
            folder: folder.to_path_buf(),
        })
    }

    pub fn keyspace(&self, space: Space) -> &Keyspace {
        &self.spaces[space.place()]
    }

    pub fn batch(&self, ops: usize) -> OwnedWriteBatch {
        OwnedWriteBatch::with_capacity(self.database.clone(), ops)
    }

    /// Puts a mark into every keyspace.
    pub fn mark(&self, commit: u64) -> ::fjall::Result<()> {
        let mut batch = self.batch(self.spaces.len());
        for keyspace in &self.spaces {
            batch.insert(keyspace, MARK, commit.to_be_bytes());
        }
        batch.commit()
    }

    /// Makes everything committed so far durable.
    pub fn persist(&self) -> ::fjall::Result<()> {
        self.database.persist(PersistMode::SyncData)
    }

    /// Bytes on disk, journals included; 0 when the engine cannot tell.
    pub fn size_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }

    pub fn read(&self) -> EngineRead<'_> {
        EngineRead {
            snapshot: self.database.snapshot(),
            engine: self,
        }
    }

    /// The last commit, and the last one up to which all keyspaces are known to be complete, or less.
    pub fn commits(&self) -> Result<Commits, Error> {
        let read = self.read();
        let last = query::number(&read, Space::Index, &key::meta::COMMIT)?.unwrap_or(0);
        let mut marked = u64::MAX;
        for space in Space::ALL {
            marked = marked.min(query::number(&read, space, &MARK)?.unwrap_or(0));
        }
        Ok(Commits { last, marked })
    }
}

/// How far a store reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commits {
    /// Number of the last commit.
    pub last: u64,
    /// Lowest mark of all keyspaces.
    pub marked: u64,
}

impl Commits {
    /// Refuses a store that lacks a commit which was durable.
    pub fn cover(self, folder: &Path, witnessed: u64) -> Result<(), Error> {
        if self.last >= witnessed && self.marked >= witnessed {
            return Ok(());
        }
        Err(Error::Behind {
            folder: folder.to_path_buf(),
            stored: if self.last < witnessed {
                self.last
            } else {
                self.marked
            },
            witnessed,
        })
    }
}

fn builder(store: &Path, settings: Settings) -> ::fjall::DatabaseBuilder<Database> {
    Database::builder(store)
        .manual_journal_persist(true)
        .worker_threads(1)
        .max_journaling_size(JOURNALS_BYTES_MAX)
        .cache_size(settings.cache_bytes)
}

fn keyspace_options(space: Space, settings: Settings) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(settings.memtable_bytes)
        // History is read by known chunk numbers: a filter for keys that are not there would earn nothing.
        .expect_point_read_hits(matches!(space, Space::History))
}

fn opening_failed(folder: &Path, error: ::fjall::Error) -> Error {
    match error {
        ::fjall::Error::Locked => Error::Locked {
            folder: folder.to_path_buf(),
            holder: "another process".to_owned(),
        },
        ::fjall::Error::InvalidVersion(found) => Error::Version {
            folder: folder.to_path_buf(),
            found: format!("of its storage engine {found:?}"),
            known: super::folder::FORMAT_VERSION,
        },
        other => Error::folder(
            folder,
            format!("the storage engine cannot open it: {other}"),
        ),
    }
}

/// A snapshot of all keyspaces.
pub(crate) struct EngineRead<'a> {
    snapshot: Snapshot,
    engine: &'a Engine,
}

impl EngineRead<'_> {
    fn failed(&self, space: Space, error: &::fjall::Error) -> Error {
        let cause = format!("reading {} failed: {error}", space.name());
        Error::folder(&self.engine.folder, cause)
    }
}

impl Read for EngineRead<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self.snapshot.get(self.engine.keyspace(space), key) {
            // Copied: the engine's own slice may keep a whole block in memory.
            Ok(found) => Ok(found.map(|value| Bytes::copy_from_slice(&value))),
            Err(error) => Err(self.failed(space, &error)),
        }
    }

    fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let entries = self
            .snapshot
            .range::<&[u8], _>(self.engine.keyspace(space), bounds);
        let owned = |guard: ::fjall::Guard| {
            let (key, value) = guard
                .into_inner()
                .map_err(|error| self.failed(space, &error))?;
            Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
        };
        if reverse {
            entries.rev().take(limit).map(owned).collect()
        } else {
            entries.take(limit).map(owned).collect()
        }
    }
}
