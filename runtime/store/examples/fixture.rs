//! Writes the data folder that is kept as a fixture of the present on-disk version:
//! `cargo run -p mainspring-store --example fixture -- runtime/store/tests/fixtures/v1`.
//!
//! To be run once per on-disk version; the folder is then kept for ever. It refuses a folder that exists.

use std::path::Path;

use mainspring_store::{FjallStore, Options, Store};

#[path = "../tests/fixtures/content.rs"]
mod content;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: fixture FOLDER")?;
    let path = Path::new(&path);
    if path.exists() {
        return Err(format!("{} exists", path.display()).into());
    }
    let store = FjallStore::open(path, Options::default())?;
    content::fill(&store);
    store.close()?;
    drop(store);
    // Opening cuts the preallocated journal to what it holds.
    FjallStore::open(path, Options::default())?.close()?;
    for name in ["lock", "store/lock"] {
        std::fs::remove_file(path.join(name))?;
    }
    Ok(())
}
