//! The way out of a store that a server refuses: set it aside, keep what is whole, say what is lost.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::examine::{Finding, Fix, examine};
use super::{Report, check_locked, copies};
use crate::fjall::engine::Engine;
use crate::fjall::folder::{Folder, Format, numbered, sync_folder};
use crate::fjall::journal::{End, journals, scan};
use crate::fjall::witness::{Testimony, Witness};
use crate::fjall::{existing_witness, missing_store};
use crate::record::hex;
use crate::{Error, Options, Space, key, query};

/// Mending one thing can show another: a record that goes leaves its history. Two rounds find all there is, the third shows it.
const ROUNDS_MAX: usize = 3;

/// Changes written at a time.
const CHANGES_MAX: usize = 1_000;

/// What a repair did.
#[derive(Clone, Debug, PartialEq)]
pub struct Repair {
    /// Where the store is kept as it was; `None` when nothing was wrong.
    pub set_aside: Option<PathBuf>,
    /// The file that lists entries which were taken out; `None` when there were none.
    pub lost_and_found: Option<PathBuf>,
    /// What was done, in words.
    pub actions: Vec<String>,
    /// What a check says now.
    pub after: Report,
}

impl fmt::Display for Repair {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(folder) = &self.set_aside {
            writeln!(to, "the store as it was: {}", folder.display())?;
        }
        if let Some(file) = &self.lost_and_found {
            writeln!(to, "entries taken out: {}", file.display())?;
        }
        for action in &self.actions {
            writeln!(to, "{action}")?;
        }
        write!(to, "{}", self.after)
    }
}

/// Makes a data folder that was refused usable again, with what is whole in it.
///
/// The store, the witness and `FORMAT` are kept in `set-aside/<n>/` first. Then: a damaged journal ends before the damage, and
/// later journals go; entries that cannot be decoded or belong to nothing move to `lost-and-found-<n>.txt`; the lists by
/// created and completed time are made to agree with the records; the witness is written anew. Numbers of lost commits are
/// not given again. A missing history chunk cannot be mended: it stays a problem in the report.
///
/// Errors: `Locked`, `Version`, `Refused`; `Behind` or `Corrupt` when there is no store to repair or the engine cannot open
/// what is left. Then a backup is the only way.
pub fn repair(path: &Path) -> Result<Repair, Error> {
    let folder = Folder::lock(path, false)?;
    folder.read_format()?;
    if !folder.store().is_dir() {
        return Err(match existing_witness(&folder) {
            Ok(witness) => missing_store(&folder, witness.testimony()),
            Err(error) => error,
        });
    }
    if let Ok(report) = check_locked(&folder)
        && report.is_sound()
    {
        return Ok(Repair {
            set_aside: None,
            lost_and_found: None,
            actions: vec!["nothing to repair".to_owned()],
            after: report,
        });
    }
    let (number, set_aside) = copies::set_aside(&folder)?;
    let mut mender = Mender {
        actions: Vec::new(),
        lost_path: folder.path().join(format!("lost-and-found-{number}.txt")),
        lost_file: None,
        changes: Vec::new(),
        lost: 0,
        indexed: 0,
        unindexed: 0,
    };
    mender.cut_journals(&folder)?;
    let engine = Engine::open(&folder.store(), path, Options::default().settings())?;
    mender.mend(&engine, &folder)?;
    drop(engine);
    Ok(Repair {
        set_aside: Some(set_aside),
        lost_and_found: mender.lost_file.is_some().then_some(mender.lost_path),
        actions: mender.actions,
        after: check_locked(&folder)?,
    })
}

struct Mender {
    actions: Vec<String>,
    lost_path: PathBuf,
    lost_file: Option<File>,
    changes: Vec<Fix>,
    lost: u64,
    indexed: u64,
    unindexed: u64,
}

impl Mender {
    /// Lets the first damaged journal end before its damage and removes later ones: what follows a gap would contradict what
    /// is before it.
    fn cut_journals(&mut self, folder: &Folder) -> Result<(), Error> {
        let mut all = journals(&folder.store())?.into_iter();
        let newest = all.len().saturating_sub(1);
        for (place, path) in all.by_ref().enumerate() {
            let found = scan(&path)?;
            let is_torn = place == newest && found.end == End::Unreadable;
            if found.end == End::Blank || is_torn {
                continue;
            }
            OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|file| {
                    file.set_len(found.valid_bytes)?;
                    file.sync_all()
                })
                .map_err(Error::io("cut", &path))?;
            self.actions.push(format!(
                "cut journal {} at byte {}",
                path.display(),
                found.valid_bytes
            ));
            break;
        }
        for path in all {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            self.actions.push(format!(
                "removed journal {}, which follows the damage",
                path.display()
            ));
        }
        sync_folder(&folder.store())
    }

    fn mend(&mut self, engine: &Engine, folder: &Folder) -> Result<(), Error> {
        let commits = engine.commits()?;
        let witness = existing_witness(folder);
        let witnessed = match &witness {
            Ok(witness) => witness.testimony().commit,
            Err(_) => {
                self.actions.push(format!(
                    "wrote a new witness: whether commits after {} are missing, nobody can tell",
                    commits.last
                ));
                0
            }
        };
        if let Err(Error::Behind { stored, .. }) = commits.cover(folder.path(), witnessed) {
            self.actions.push(format!(
                "accepted that the store ends at commit {stored}, although commit {witnessed} was durable"
            ));
        }
        // Above every number that was ever given, so that no mailbox position is given twice.
        let commit = commits.last.max(commits.marked).max(witnessed) + 1;
        for _ in 0..ROUNDS_MAX {
            let mut found = 0;
            examine(&engine.read(), &mut |finding: Finding| {
                if let Some(fix) = finding.fix {
                    found += 1;
                    self.take(fix, &finding.what, engine)?;
                }
                Ok(())
            })?;
            self.write(engine)?;
            if found == 0 {
                break;
            }
        }
        self.finish(engine, folder, commit)
    }

    fn finish(&mut self, engine: &Engine, folder: &Folder, commit: u64) -> Result<(), Error> {
        let failed = |error: ::fjall::Error| Error::folder(folder.path(), error);
        let mut batch = engine.batch(1);
        batch.insert(
            engine.keyspace(Space::Index),
            key::meta::COMMIT,
            commit.to_be_bytes(),
        );
        batch.commit().map_err(failed)?;
        engine.mark(commit).map_err(failed)?;
        engine.persist().map_err(failed)?;
        let copied = numbered(&folder.journals())?
            .last()
            .map_or(0, |(run, _)| *run);
        let run = match existing_witness(folder) {
            Ok(witness) => witness.testimony().run.max(copied),
            Err(_) => copied,
        };
        let testimony = Testimony {
            commit,
            run: run + 1,
            is_clean: true,
        };
        Witness::create(&folder.witness(), testimony)?;
        if folder.read_format()?.is_none()
            && let Some(partitions) = query::partitions(&engine.read())?
        {
            folder.write_format(Format { partitions })?;
            self.actions.push("wrote a new FORMAT file".to_owned());
        }
        for (number, what) in [
            (self.lost, "took out entries that no server understands"),
            (self.indexed, "wrote missing entries by time"),
            (
                self.unindexed,
                "removed entries by time that no record supports",
            ),
        ] {
            if number > 0 {
                self.actions.push(format!("{what}: {number}"));
            }
        }
        Ok(())
    }

    fn take(&mut self, fix: Fix, what: &str, engine: &Engine) -> Result<(), Error> {
        match &fix {
            Fix::Lose { space, key, value } => {
                self.lost += 1;
                let line = format!("{}\t{}\t{}\t{what}\n", space.name(), hex(key), hex(value));
                self.keep_lost(&line)?;
            }
            Fix::Index { .. } => self.indexed += 1,
            Fix::Unindex { .. } => self.unindexed += 1,
        }
        self.changes.push(fix);
        if self.changes.len() >= CHANGES_MAX {
            self.write(engine)?;
        }
        Ok(())
    }

    fn keep_lost(&mut self, line: &str) -> Result<(), Error> {
        let path = &self.lost_path;
        if self.lost_file.is_none() {
            let file = File::create_new(path).map_err(Error::io("create", path))?;
            self.lost_file = Some(file);
        }
        match &mut self.lost_file {
            Some(file) => file
                .write_all(line.as_bytes())
                .map_err(Error::io("write", path)),
            None => Ok(()),
        }
    }

    /// Writes the changes, after the lost-and-found file is durable.
    fn write(&mut self, engine: &Engine) -> Result<(), Error> {
        if let Some(file) = &self.lost_file {
            file.sync_all()
                .map_err(Error::io("sync", &self.lost_path))?;
        }
        let mut batch = engine.batch(self.changes.len());
        let index = engine.keyspace(Space::Index);
        for fix in self.changes.drain(..) {
            match fix {
                Fix::Lose { space, key, .. } => batch.remove(engine.keyspace(space), &key[..]),
                Fix::Index { key, value } => batch.insert(index, &key[..], &value[..]),
                Fix::Unindex { key } => batch.remove(index, &key[..]),
            }
        }
        batch
            .commit()
            .map_err(|error| Error::folder(&self.lost_path, error))
    }
}
