//! Looking at a data folder that no server uses: check, back up, repair.
//!
//! `check` changes nothing but a scratch folder of its own. `backup` copies, and checks the copy. `repair` first sets the store
//! aside as it is; it deletes nothing that is not kept there. All three refuse a folder that is in use.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::fjall::engine::{Commits, Engine};
use crate::fjall::folder::Folder;
use crate::fjall::witness::Witness;
use crate::fjall::{existing_witness, missing_store};
use crate::{Error, Options};

mod copies;
mod examine;
mod repair;

pub use examine::Counts;
pub use repair::{Repair, repair};

use copies::Scratch;
use examine::Finding;

/// Problems listed in a report, at most; all are counted.
const PROBLEMS_MAX: usize = 100;

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The data folder.
    pub folder: PathBuf,
    /// Number of partitions.
    pub partitions: u16,
    /// Number of the last commit in the store.
    pub commit: u64,
    /// Last commit that the witness says was durable; `None` when the witness is missing or unreadable.
    pub witnessed: Option<u64>,
    /// Whether the last stop was clean.
    pub is_clean: bool,
    /// What is stored.
    pub counts: Counts,
    /// The first hundred problems, in words.
    pub problems: Vec<String>,
    /// Number of all problems.
    pub problems_total: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems_total == 0
    }

    fn note(&mut self, problem: String) {
        self.problems_total += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "data folder {}", self.folder.display())?;
        write!(to, "commit {}, ", self.commit)?;
        match self.witnessed {
            Some(commit) => write!(to, "witnessed {commit}, ")?,
            None => write!(to, "no witness, ")?,
        }
        let stop = if self.is_clean { "clean" } else { "unclean" };
        writeln!(to, "last stop {stop}, {} partitions", self.partitions)?;
        writeln!(to, "{}", self.counts)?;
        for problem in &self.problems {
            writeln!(to, "problem: {problem}")?;
        }
        match self.problems_total {
            0 => write!(to, "sound"),
            total => write!(to, "{total} problems"),
        }
    }
}

/// Examines a data folder: its commit number against the witness, every entry, and every index both ways.
///
/// Works on a scratch copy within the data folder (files that never change are linked), because the engine writes while it
/// opens. Errors: `Locked` when the folder is in use, `Version`, `Refused` when there is none, and `Corrupt` or `Behind` when
/// the store cannot be opened at all. What is wrong in a store that opens is in the report.
pub fn check(path: &Path) -> Result<Report, Error> {
    let folder = Folder::lock(path, false)?;
    check_locked(&folder)
}

fn check_locked(folder: &Folder) -> Result<Report, Error> {
    let format = folder.read_format()?;
    if !folder.store().is_dir() {
        return Err(match existing_witness(folder) {
            Ok(witness) => missing_store(folder, witness.testimony()),
            Err(error) => error,
        });
    }
    let scratch = Scratch::of_store(folder)?;
    let engine = Engine::open(scratch.path(), folder.path(), Options::default().settings())?;
    let mut report = begin_report(folder, engine.commits()?);
    match crate::fjall::check_journals(folder, report.witnessed.unwrap_or(0)) {
        // The numbers were compared already.
        Ok(()) | Err(Error::Behind { .. }) => {}
        Err(problem) => report.note(problem.to_string()),
    }
    let stored = crate::query::partitions(&engine.read())?;
    let partitions = format.map(|format| format.partitions);
    if partitions != stored {
        report.note(format!(
            "FORMAT names {partitions:?} partitions, the store {stored:?}"
        ));
    }
    report.partitions = stored.or(partitions).unwrap_or(0);
    report.counts = examine::examine(&engine.read(), &mut |finding: Finding| {
        report.note(finding.what);
        Ok(())
    })?;
    Ok(report)
}

fn begin_report(folder: &Folder, commits: Commits) -> Report {
    let mut report = Report {
        folder: folder.path().to_path_buf(),
        partitions: 0,
        commit: commits.last,
        witnessed: None,
        is_clean: false,
        counts: Counts::default(),
        problems: Vec::new(),
        problems_total: 0,
    };
    match existing_witness(folder).as_ref().map(Witness::testimony) {
        Ok(testimony) => {
            report.witnessed = Some(testimony.commit);
            report.is_clean = testimony.is_clean;
            if let Err(behind) = commits.cover(folder.path(), testimony.commit) {
                report.note(behind.to_string());
            }
        }
        Err(error) => report.note(error.to_string()),
    }
    report
}

/// Copies a stopped data folder to `to`, which must not exist or be empty, makes the copy durable, and checks it.
///
/// `FORMAT` is written last: a copy that was interrupted has none and is refused by every open. Journal copies and what
/// repairs set aside are not part of a backup.
pub fn backup(path: &Path, to: &Path) -> Result<Report, Error> {
    let folder = Folder::lock(path, false)?;
    if folder.read_format()?.is_none() {
        return Err(Error::Refused(format!(
            "{} is no data folder: it has no FORMAT file",
            path.display()
        )));
    }
    copies::backup(&folder, to)?;
    check(to)
}
