//! Copies of a store folder: for looking, for keeping, for elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::fjall::folder::{Folder, copy_sparse, list, numbered, sync_folder};

/// The engine's folder of tables: files in it are written once and never changed.
const TABLES: &str = "tables";

/// A copy of the store that the engine may write to, removed when dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub fn of_store(folder: &Folder) -> Result<Self, Error> {
        let path = folder.path().join("check.scratch");
        if path.exists() {
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
        let scratch = Self(path);
        copy_folder(&folder.store(), &scratch.0, Tables::Link)?;
        Ok(scratch)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is replaced by the next check.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Keeps the store, the witness and `FORMAT` in `set-aside/<n>/`. Tables are linked: that takes no room, and the engine only
/// ever unlinks them.
pub(super) fn set_aside(folder: &Folder) -> Result<(u64, PathBuf), Error> {
    let all = folder.path().join("set-aside");
    let number = numbered(&all)?.last().map_or(1, |(number, _)| number + 1);
    let target = all.join(number.to_string());
    fs::create_dir_all(&target).map_err(Error::io("create", &target))?;
    copy_files(folder, &target)?;
    copy_folder(&folder.store(), &target.join("store"), Tables::Link)?;
    for written in [&target, &all, &folder.path().to_path_buf()] {
        sync_folder(written)?;
    }
    Ok((number, target))
}

pub(super) fn backup(folder: &Folder, to: &Path) -> Result<(), Error> {
    if to.exists() && !list(to)?.is_empty() {
        return Err(Error::Refused(format!(
            "{} is not empty; name a new folder for the backup",
            to.display()
        )));
    }
    fs::create_dir_all(to).map_err(Error::io("create", to))?;
    copy_folder(&folder.store(), &to.join("store"), Tables::Copy)?;
    copy_files(folder, to)?;
    sync_folder(to)
}

/// The small files, `FORMAT` last. One that is missing is missing in the copy, too.
fn copy_files(folder: &Folder, to: &Path) -> Result<(), Error> {
    for from in [folder.witness(), folder.format()] {
        if from.exists() {
            copy_sparse(&from, &to.join(from.file_name().unwrap_or_default()))?;
            sync_folder(to)?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Tables {
    Link,
    Copy,
}

fn copy_folder(from: &Path, to: &Path, tables: Tables) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(Error::io("create", to))?;
    let is_tables = from.file_name().is_some_and(|name| name == TABLES);
    for path in list(from)? {
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &target, tables)?;
            continue;
        }
        // Not every file system has links.
        let is_linked =
            is_tables && matches!(tables, Tables::Link) && fs::hard_link(&path, &target).is_ok();
        if !is_linked {
            copy_sparse(&path, &target)?;
        }
    }
    sync_folder(to)
}
