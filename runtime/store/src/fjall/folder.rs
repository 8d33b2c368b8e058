//! The data folder: who may use it, which version it has, and where things are.
//!
//! ```text
//! FORMAT            on-disk version and number of partitions, as text; written last, so it tells a finished creation
//! lock              held by the one process that uses the folder
//! witness           last durable commit number, see the module of that name
//! store/            the storage engine's own files
//! journals/<run>/   copies of the engine's journals, made before opening after an unclean end of that run
//! set-aside/<n>/    the store as it was before a repair
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::Error;

/// Version of the on-disk format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// A data folder that this process has locked.
pub(crate) struct Folder {
    path: PathBuf,
    /// Holds the lock until it is dropped.
    _lock: File,
}

/// What `FORMAT` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub partitions: u16,
}

impl Folder {
    /// Locks a folder, which is created when it is missing and `create` is set.
    pub fn lock(path: &Path, create: bool) -> Result<Self, Error> {
        if create {
            fs::create_dir_all(path).map_err(Error::io("create", path))?;
        } else if !["FORMAT", "witness", "store"]
            .iter()
            .any(|name| path.join(name).exists())
        {
            return Err(Error::Refused(format!(
                "there is no data folder {}",
                path.display()
            )));
        }
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(Error::io("open", &lock_path))?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(Error::io("lock", &lock_path)(error.into()));
            }
            let mut holder = String::new();
            // Who it is only makes the message kinder.
            let _ = lock.read_to_string(&mut holder);
            return Err(Error::Locked {
                folder: path.to_path_buf(),
                holder: match holder.trim() {
                    "" => "another process".to_owned(),
                    process => format!("process {process}"),
                },
            });
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(Error::io("write", &lock_path))?;
        Ok(Self {
            path: path.to_path_buf(),
            _lock: lock,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    pub fn witness(&self) -> PathBuf {
        self.path.join("witness")
    }

    pub fn journals(&self) -> PathBuf {
        self.path.join("journals")
    }

    pub fn format(&self) -> PathBuf {
        self.path.join("FORMAT")
    }

    /// Reads `FORMAT`; `None` when there is none.
    pub fn read_format(&self) -> Result<Option<Format>, Error> {
        let path = self.format();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        };
        let version = value("version").unwrap_or("unknown");
        if version != FORMAT_VERSION.to_string() {
            return Err(Error::Version {
                folder: self.path.clone(),
                found: version.to_owned(),
                known: FORMAT_VERSION,
            });
        }
        match value("partitions").and_then(|text| text.parse().ok()) {
            Some(partitions) if partitions > 0 => Ok(Some(Format { partitions })),
            _ => Err(Error::folder(
                &self.path,
                "its FORMAT file names no partitions",
            )),
        }
    }

    pub fn write_format(&self, format: Format) -> Result<(), Error> {
        let text = format!(
            "mainspring data folder\nversion {FORMAT_VERSION}\npartitions {}\n",
            format.partitions
        );
        write_whole(&self.format(), text.as_bytes())
    }

    /// Free bytes of the disk below the folder, for an ordinary user.
    pub fn free_bytes(&self) -> u64 {
        // A folder that cannot be asked about is in trouble, which a write will tell better than this number.
        rustix::fs::statvfs(&self.path).map_or(u64::MAX, |found| {
            found.f_bavail.saturating_mul(found.f_frsize)
        })
    }
}

/// Writes a small file so that, after a crash, it is there as a whole or as it was before.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(Error::io("write", &new))?;
    rename(&new, path)
}

/// Renames and makes the new name durable.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(Error::io("rename", from))?;
    match to.parent() {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// Makes the names within a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(Error::io("sync", folder))
}

/// Paths within a folder, sorted; none when it is missing.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", folder)(error)),
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::io("read", folder))?;
    paths.sort();
    Ok(paths)
}

/// Paths within a folder whose name is a number, with that number, lowest first.
pub(crate) fn numbered(folder: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut found: Vec<(u64, PathBuf)> = list(folder)?
        .into_iter()
        .filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path)))
        .collect();
    found.sort();
    Ok(found)
}

/// To compare blocks of files with.
pub(crate) static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Copies a file, leaving holes where it holds zeros: the engine's journals are preallocated and mostly empty.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> Result<(), Error> {
    let mut source = File::open(from).map_err(Error::io("open", from))?;
    let mut copy = || {
        let mut target = File::create(to)?;
        let mut block = vec![0; ZEROS.len()];
        let mut length = 0;
        loop {
            let taken = source.read(&mut block)?;
            if taken == 0 {
                break;
            }
            if block[..taken] != ZEROS[..taken] {
                target.seek(std::io::SeekFrom::Start(length))?;
                target.write_all(&block[..taken])?;
            }
            length += taken as u64;
        }
        target.set_len(length)?;
        target.sync_all()
    };
    copy().map_err(Error::io("copy to", to))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_second_opener_is_refused_and_told_who_holds_the_folder() {
        let at = tempfile::tempdir().unwrap();
        let first = Folder::lock(at.path(), true).unwrap();
        let refused = Folder::lock(at.path(), true).err().unwrap().to_string();
        assert!(
            refused.contains(&at.path().display().to_string()),
            "{refused}"
        );
        assert!(
            refused.contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(first);
        Folder::lock(at.path(), true).unwrap();
    }

    #[test]
    fn a_later_version_is_refused() {
        let at = tempfile::tempdir().unwrap();
        let folder = Folder::lock(at.path(), true).unwrap();
        folder.write_format(Format { partitions: 4 }).unwrap();
        assert_eq!(
            folder.read_format().unwrap(),
            Some(Format { partitions: 4 })
        );
        fs::write(folder.format(), "mainspring data folder\nversion 2\n").unwrap();
        let refused = folder.read_format().err().unwrap();
        assert!(
            matches!(&refused, Error::Version { found, .. } if found == "2"),
            "{refused}"
        );
    }

    #[test]
    fn sparse_copies_are_equal() {
        let at = tempfile::tempdir().unwrap();
        let (from, to) = (at.path().join("from"), at.path().join("to"));
        let mut bytes = vec![0; 300_000];
        bytes[70_000] = 1;
        fs::write(&from, &bytes).unwrap();
        copy_sparse(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), bytes);
    }
}
