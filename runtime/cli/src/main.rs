//! The binary `mainspring`: serves the scheduler, and asks a running one.
//!
//! Reading order: [`command`] holds everything a user can type, one file per subcommand; [`client`] connects to a
//! server, [`report`] shows what it answers, [`quantity`] reads sizes, durations and times, [`logging`] sets up the
//! log of `serve`. This crate holds no rule of the protocol: it parses, calls and prints.

mod client;
mod command;
mod logging;
mod quantity;
mod report;

use std::process::ExitCode;

use clap::Parser;

// Work is handed from thread to thread, and freed where it ends.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = command::Arguments::parse();
    match arguments.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
