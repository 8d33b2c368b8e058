//! The witness: the last durable commit number, kept outside the store.
//!
//! A damaged journal can make the storage engine forget commits without a word. The witness is what notices: a store that
//! opens with a lower number than this file has lost something. It is never ahead of the store, since a number is written
//! only after the sync that made it durable; it may lag by the interval in which it is written.
//!
//! Two slots, each in a page of its own, are overwritten in turn, in place: a write that is torn by a crash leaves the other
//! slot valid.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::folder::write_whole;
use crate::Error;

/// Distance of the two slots: a page, so that no write touches both.
const SLOT_DISTANCE: u64 = 4_096;
const MAGIC: [u8; 8] = *b"mswitns1";
/// Magic, sequence, commit, run, clean (each 8 bytes), checksum.
const SLOT_BYTES: usize = 48;

/// What the witness says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Testimony {
    /// Commits up to here were durable.
    pub commit: u64,
    /// Counts successful opens; names the journal copies made after an unclean end of that run.
    pub run: u64,
    /// Whether that run ended with a clean stop.
    pub is_clean: bool,
}

/// The witness file, open for writing.
pub(crate) struct Witness {
    path: PathBuf,
    file: File,
    /// Number of the last write; its parity is the slot.
    sequence: u64,
    testimony: Testimony,
}

impl Witness {
    /// Creates the file, or replaces it as a whole.
    pub fn create(path: &Path, testimony: Testimony) -> Result<Self, Error> {
        let mut bytes = vec![0; 2 * SLOT_DISTANCE as usize];
        bytes[..SLOT_BYTES].copy_from_slice(&encode(0, testimony));
        write_whole(path, &bytes)?;
        Self::open(path)
    }

    /// Opens an existing file. Errors: `Corrupt` when neither slot is valid.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        let newest = [0, SLOT_DISTANCE]
            .into_iter()
            .filter_map(|offset| {
                let mut slot = [0; SLOT_BYTES];
                file.read_exact_at(&mut slot, offset).ok()?;
                decode(&slot)
            })
            .max_by_key(|(sequence, _)| *sequence);
        let Some((sequence, testimony)) = newest else {
            return Err(Error::corrupt(
                format!("witness {}", path.display()),
                "both slots are unreadable, so nobody can tell whether the store is complete",
            ));
        };
        Ok(Self {
            path: path.to_path_buf(),
            file,
            sequence,
            testimony,
        })
    }

    pub fn testimony(&self) -> Testimony {
        self.testimony
    }

    /// Overwrites the older slot and makes it durable. To be called only with a commit that is durable in the store.
    pub fn write(&mut self, testimony: Testimony) -> Result<(), Error> {
        let sequence = self.sequence + 1;
        let slot = encode(sequence, testimony);
        self.file
            .write_all_at(&slot, (sequence % 2) * SLOT_DISTANCE)
            .and_then(|()| self.file.sync_data())
            .map_err(Error::io("write", &self.path))?;
        self.sequence = sequence;
        self.testimony = testimony;
        Ok(())
    }
}

fn encode(sequence: u64, testimony: Testimony) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    let words = [
        MAGIC,
        sequence.to_be_bytes(),
        testimony.commit.to_be_bytes(),
        testimony.run.to_be_bytes(),
        u64::from(testimony.is_clean).to_be_bytes(),
    ];
    for (word, to) in words.iter().zip(slot.chunks_exact_mut(8)) {
        to.copy_from_slice(word);
    }
    let checksum = xxh3_64(&slot[..SLOT_BYTES - 8]);
    slot[SLOT_BYTES - 8..].copy_from_slice(&checksum.to_be_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(u64, Testimony)> {
    let mut words = slot.chunks_exact(8).map(|word| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        u64::from_be_bytes(bytes)
    });
    let mut next = || words.next();
    let (magic, sequence, commit, run, is_clean, checksum) =
        (next()?, next()?, next()?, next()?, next()?, next()?);
    let is_valid = magic == u64::from_be_bytes(MAGIC)
        && checksum == xxh3_64(&slot[..SLOT_BYTES - 8])
        && is_clean <= 1;
    let testimony = Testimony {
        commit,
        run,
        is_clean: is_clean == 1,
    };
    is_valid.then_some((sequence, testimony))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(commit: u64) -> Testimony {
        Testimony {
            commit,
            run: 1,
            is_clean: false,
        }
    }

    #[test]
    fn the_last_write_is_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("witness");
        let mut witness = Witness::create(&path, at(0)).unwrap();
        for commit in 1..6 {
            witness.write(at(commit)).unwrap();
            assert_eq!(Witness::open(&path).unwrap().testimony(), at(commit));
        }
        assert_eq!(path.metadata().unwrap().len(), 2 * SLOT_DISTANCE);
    }

    #[test]
    fn a_torn_write_leaves_the_one_before() {
        // Aim: a crash within the write of one slot must not make the file useless. Method: spoil each byte of the newer slot.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("witness");
        let mut witness = Witness::create(&path, at(7)).unwrap();
        witness.write(at(8)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for byte in 0..SLOT_BYTES {
            let mut torn = whole.clone();
            torn[SLOT_DISTANCE as usize + byte] ^= 0x10;
            std::fs::write(&path, &torn).unwrap();
            assert_eq!(Witness::open(&path).unwrap().testimony(), at(7));
        }
    }

    #[test]
    fn without_a_valid_slot_it_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("witness");
        std::fs::write(&path, vec![0; 2 * SLOT_DISTANCE as usize]).unwrap();
        assert!(matches!(
            Witness::open(&path).err(),
            Some(Error::Corrupt { .. })
        ));
    }
}
