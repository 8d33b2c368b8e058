//! `mainspring completion`: shell completion scripts.

use std::io;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use super::Arguments;

/// Print a script that completes this command in a shell.
#[derive(Debug, Args)]
pub struct Completion {
    /// Shell to complete in
    shell: SupportedShell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SupportedShell {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    /// Writes the script to standard output.
    pub fn run(self) -> anyhow::Result<()> {
        let shell = match self.shell {
            SupportedShell::Bash => Shell::Bash,
            SupportedShell::Zsh => Shell::Zsh,
            SupportedShell::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        generate(shell, &mut Arguments::command(), "mainspring", &mut script);
        io::copy(&mut script.as_slice(), &mut io::stdout())?;
        Ok(())
    }
}
