//! `mainspring store check|backup|repair`: a data folder that no server uses.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};
use mainspring_store::inspect;

use crate::report::table;

/// Look after a data folder while no scheduler uses it.
#[derive(Debug, Args)]
pub struct Store {
    /// Data folder
    #[arg(
        long,
        global = true,
        env = "MAINSPRING_DATA_DIR",
        value_name = "DIR",
        default_value = "./mainspring-data"
    )]
    data_dir: PathBuf,

    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read everything and report what is wrong; changes nothing
    Check,
    /// Copy the folder, and check the copy
    Backup {
        /// Folder for the copy; must be missing or empty
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Make a refused folder usable with what is whole in it; the store as it was is kept aside
    Repair,
}

impl Store {
    /// Does what was asked for; fails when what it looked at is not sound.
    pub fn run(self) -> anyhow::Result<()> {
        let (text, report) = match self.action {
            Action::Check => {
                let report = inspect::check(&self.data_dir)?;
                (report.to_string(), report)
            }
            Action::Backup { to } => {
                let report = inspect::backup(&self.data_dir, &to)?;
                (report.to_string(), report)
            }
            Action::Repair => {
                let repair = inspect::repair(&self.data_dir)?;
                (repair.to_string(), repair.after)
            }
        };
        table::print_line(&text);
        if !report.is_sound() {
            bail!(
                "{} is not sound: {} problems",
                report.folder.display(),
                report.problems_total
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        store: Store,
    }

    #[test]
    fn the_folder_may_be_named_before_and_after_the_action() {
        for words in [
            ["store", "--data-dir", "x", "check"],
            ["store", "check", "--data-dir", "x"],
        ] {
            let line = Line::try_parse_from(words).unwrap();
            assert_eq!(line.store.data_dir, PathBuf::from("x"));
        }
    }

    #[test]
    fn a_backup_needs_a_place_to_go() {
        assert!(Line::try_parse_from(["store", "backup"]).is_err());
        assert!(Line::try_parse_from(["store", "backup", "--to", "y"]).is_ok());
    }

    #[test]
    fn a_folder_that_holds_no_store_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store {
            data_dir: folder.path().join("nothing"),
            action: Action::Check,
        };
        let error = store.run().unwrap_err().to_string();
        assert!(error.contains("nothing"), "{error}");
    }
}
