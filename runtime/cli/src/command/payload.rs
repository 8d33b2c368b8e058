//! A payload as users give it: in the line itself, in a file, or on standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

/// A payload, sent exactly as it is given. SDKs expect JSON.
#[derive(Debug, Args)]
pub struct Payload {
    /// Input as JSON text
    #[arg(long = "input", value_name = "JSON", conflicts_with = "file")]
    text: Option<String>,

    /// File that holds the input as JSON text; - for standard input
    #[arg(long = "input-file", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Payload {
    /// The text, or nothing when none was given.
    pub fn read(self) -> anyhow::Result<Option<String>> {
        let Some(path) = self.file else {
            return Ok(self.text);
        };
        let text = if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("standard input cannot be read as text")?;
            text
        } else {
            std::fs::read_to_string(&path)
                .with_context(|| format!("{} cannot be read as text", path.display()))?
        };
        Ok(Some(text))
    }
}
