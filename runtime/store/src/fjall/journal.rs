//! Looking at the engine's journals without the engine, and keeping copies of them.
//!
//! The engine takes an unreadable place in a journal for its end: it cuts the file there and says nothing. So journals are
//! read here first, which changes nothing. A sealed journal (any but the newest) was synced as a whole and has to be readable
//! to its end. The newest may end in a torn batch; whether anything durable is missing behind it, the commit numbers tell.
//!
//! Layout of a journal: batches, one after the other. A batch is a start (1, items u32, sequence u64), its items (2, type u8,
//! compression u8, keyspace u64, key length u16, plain and stored value length u32, key, value) or clears (4, keyspace u64),
//! and an end (3, xxh3-64 of the items' bytes, four magic bytes). Little-endian. Zeros follow: the file is preallocated.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::folder::{ZEROS, copy_sparse, list, numbered, rename, sync_folder};
use crate::{Error, key};

/// Journal copies kept: the newest two.
const COPIES_MAX: usize = 2;

const TRAILER: [u8; 4] = [b'F', b'J', b'L', 3];
/// Compression types in the journal's items: none is one byte, lz4 as well.
const COMPRESSIONS: std::ops::RangeInclusive<u8> = 0..=1;

/// What a journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    pub path: PathBuf,
    /// Bytes of whole, valid batches from the start.
    pub valid_bytes: u64,
    /// Number of the last commit within them.
    pub commit: Option<u64>,
    pub end: End,
}

/// What follows the valid batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing, or zeros.
    Blank,
    /// Something that is no batch: torn by a crash, or damaged.
    Unreadable,
    /// A whole batch with a wrong checksum: damaged. The engine refuses to open it.
    Mismatch,
}

/// The journals of a store, oldest first.
pub(crate) fn journals(store: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found: Vec<(u64, PathBuf)> = list(store)?
        .into_iter()
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".jnl")?;
            Some((name.parse().ok()?, path))
        })
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Reads a journal to its end.
pub(crate) fn scan(path: &Path) -> Result<Scan, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut reader = Reader {
        input: BufReader::with_capacity(256 << 10, file),
        position: 0,
        key: Vec::new(),
        value: Vec::new(),
    };
    let mut found = Scan {
        path: path.to_path_buf(),
        valid_bytes: 0,
        commit: None,
        end: End::Blank,
    };
    loop {
        match reader.batch() {
            Ok(commit) => {
                found.valid_bytes = reader.position;
                found.commit = commit.or(found.commit);
            }
            Err(Stop::Mismatch) => {
                found.end = End::Mismatch;
                return Ok(found);
            }
            Err(Stop::NoBatch) => break,
            Err(Stop::Failed(error)) => return Err(Error::io("read", path)(error)),
        }
    }
    if !is_blank(path, found.valid_bytes).map_err(Error::io("read", path))? {
        found.end = End::Unreadable;
    }
    Ok(found)
}

fn is_blank(path: &Path, from: u64) -> std::io::Result<bool> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut block = vec![0; ZEROS.len()];
    loop {
        let taken = file.read(&mut block)?;
        if taken == 0 {
            return Ok(true);
        }
        if block[..taken] != ZEROS[..taken] {
            return Ok(false);
        }
    }
}

enum Stop {
    /// What follows is no batch.
    NoBatch,
    Mismatch,
    Failed(std::io::Error),
}

struct Reader {
    input: BufReader<File>,
    position: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Reader {
    /// Reads one batch; gives the commit number it carries, if any.
    fn batch(&mut self) -> Result<Option<u64>, Stop> {
        if self.take::<1>()? != [1] {
            return Err(Stop::NoBatch);
        }
        let items = u32::from_le_bytes(self.take()?);
        self.take::<8>()?;
        let mut checksum = Xxh3::new();
        let mut commit = None;
        for _ in 0..items {
            match self.take()? {
                [2] => commit = self.item(&mut checksum)?.or(commit),
                [4] => {
                    checksum.update(&[4]);
                    checksum.update(&self.take::<8>()?);
                }
                _ => return Err(Stop::NoBatch),
            }
        }
        if self.take::<1>()? != [3] {
            return Err(Stop::NoBatch);
        }
        let expected = u64::from_le_bytes(self.take()?);
        if self.take()? != TRAILER {
            return Err(Stop::NoBatch);
        }
        if expected != checksum.digest() {
            return Err(Stop::Mismatch);
        }
        Ok(commit)
    }

    fn item(&mut self, checksum: &mut Xxh3) -> Result<Option<u64>, Stop> {
        let kinds: [u8; 2] = self.take()?;
        if !COMPRESSIONS.contains(&kinds[1]) {
            return Err(Stop::NoBatch);
        }
        let lengths: [u8; 18] = self.take()?;
        let [.., k0, k1, _, _, _, _, v0, v1, v2, v3] = lengths;
        let key_bytes = u32::from(u16::from_le_bytes([k0, k1]));
        let value_bytes = u32::from_le_bytes([v0, v1, v2, v3]);
        let (mut key, mut value) = (
            std::mem::take(&mut self.key),
            std::mem::take(&mut self.value),
        );
        let read = self
            .fill(&mut key, key_bytes)
            .and_then(|()| self.fill(&mut value, value_bytes));
        checksum.update(&[2]);
        checksum.update(&kinds);
        checksum.update(&lengths);
        checksum.update(&key);
        checksum.update(&value);
        let commit = (key == key::meta::COMMIT)
            .then(|| value[..].try_into().ok().map(u64::from_be_bytes))
            .flatten();
        (self.key, self.value) = (key, value);
        read.map(|()| commit)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(stop)?;
        self.position += N as u64;
        Ok(bytes)
    }

    /// Fills a buffer, which grows with what is really there: a length read from damage may be anything.
    fn fill(&mut self, buffer: &mut Vec<u8>, bytes: u32) -> Result<(), Stop> {
        buffer.clear();
        let read = (&mut self.input)
            .take(u64::from(bytes))
            .read_to_end(buffer)
            .map_err(stop)?;
        self.position += read as u64;
        if read < bytes as usize {
            return Err(Stop::NoBatch);
        }
        Ok(())
    }
}

fn stop(error: std::io::Error) -> Stop {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Stop::NoBatch,
        _ => Stop::Failed(error),
    }
}

/// Copies the journals to `copies/<run>/`, unless that run's copy is there already, and drops all but the newest two copies.
///
/// An existing copy is the better one: it was made before anything opened, and perhaps cut, the journals. A copy is complete
/// in a folder of another name before it gets its own.
pub(crate) fn keep_copy(store: &Path, copies: &Path, run: u64) -> Result<Option<PathBuf>, Error> {
    let target = copies.join(run.to_string());
    if target.exists() {
        return Ok(None);
    }
    let partial = copies.join(format!("{run}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(Error::io("remove", &partial))?;
    }
    // Makes room first: a disk that is nearly full must not keep the server from starting.
    let kept = numbered(copies)?;
    for (_, old) in &kept[..kept.len().saturating_sub(COPIES_MAX - 1)] {
        fs::remove_dir_all(old).map_err(Error::io("remove", old))?;
    }
    fs::create_dir_all(&partial).map_err(Error::io("create", &partial))?;
    for journal in journals(store)? {
        copy_sparse(
            &journal,
            &partial.join(journal.file_name().unwrap_or_default()),
        )?;
    }
    sync_folder(&partial)?;
    rename(&partial, &target)?;
    Ok(Some(target))
}
