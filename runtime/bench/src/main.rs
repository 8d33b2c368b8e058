//! Measures a release build of `mainspring` the way its users meet it: server, worker and client are three
//! processes, and everything passes through the published gRPC protocol.
//!
//! Where the Rust SDK is measured, worker and scheduler are what it makes of them: two processes, or one.
//!
//! Reading order: [`workload`] says what is done, [`driver`] has [`client`]s do it in a closed loop, [`worker`] executes
//! it, both over [`grpc`]; [`sdk`] does so by the Rust SDK; [`process`] starts and watches the processes, [`report`] turns figures into rows and tables.
//!
//! It knows the protocol and the server's command line, and nothing of the server's inside. Worker and driver do as
//! little as the protocol allows, so that the server is what is measured.

mod client;
mod driver;
mod grpc;
mod process;
mod report;
mod sdk;
mod worker;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::report::Report;
use crate::workload::{Plan, Way, Workload};

// Work is handed from thread to thread, and freed where it ends.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures a release build of mainspring over gRPC and prints rows `workload metric value unit`.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    measure: Measure,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Execute orchestrations and activities for a server; started by the benchmark itself
    #[command(hide = true)]
    Worker {
        /// Address of the server, HOST:PORT
        #[arg(long)]
        addr: String,

        /// By the Rust SDK
        #[arg(long)]
        sdk: bool,
    },
}

#[derive(Debug, Args)]
struct Measure {
    /// Workloads, in order
    #[arg(value_enum, default_values = ["w1", "w2", "w3", "replay", "w6"])]
    workloads: Vec<Workload>,

    /// Ways in which work reaches those who do it, in order
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["published", "remote", "embedded"])]
    by: Vec<Way>,

    /// The server's binary [default: mainspring, beside this binary]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,

    /// Folder on the disk that is meant; a new folder inside it is used and removed [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Runs of each workload, each on an empty store; medians are printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,

    /// Longest time of one closed loop, in seconds
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    limit: f64,

    /// Age of the idle server whose memory is read, in seconds
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    idle: f64,

    /// Count the server's syncs with strace, in loops of their own
    #[arg(long)]
    strace: bool,

    /// Print a Markdown table instead of rows
    #[arg(long)]
    table: bool,

    /// Rows of a rival, taken on this machine in the same go; may be given once for each of its runs
    #[arg(long, value_name = "FILE")]
    rival: Vec<PathBuf>,
}

impl Measure {
    async fn run(self) -> anyhow::Result<()> {
        let rival = report::read_rows(&self.rival)?;
        let plan = Plan {
            server: self.server.map_or_else(process::server_beside_us, Ok)?,
            data_dir: self.data_dir.unwrap_or_else(std::env::temp_dir),
            limit: Duration::try_from_secs_f64(self.limit).context("--limit")?,
            idle: Duration::try_from_secs_f64(self.idle).context("--idle")?,
        };
        let mut report = Report::default();
        for run in 1..=self.runs {
            for workload in &self.workloads {
                for way in self.by.iter().filter(|way| workload.is_measured(**way)) {
                    eprintln!("run {run} of {}: {workload:?}, {way:?}", self.runs);
                    workload.run(&plan, *way, &mut report).await?;
                }
            }
            if self.strace {
                eprintln!("run {run} of {}: strace", self.runs);
                workload::count_syncs(&plan, &mut report).await?;
            }
        }
        let medians = report.medians();
        let text = if self.table {
            report::table(&medians, &rival)
        } else {
            report::rows(&medians, &rival)
        };
        print!("{text}");
        Ok(())
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread a process: on a small machine the server is to have what is left.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the async runtime cannot start");
    let outcome = runtime.and_then(|runtime| match arguments.command {
        Some(Command::Worker { addr, sdk: false }) => runtime.block_on(worker::serve(&addr)),
        Some(Command::Worker { addr, sdk: true }) => runtime.block_on(sdk::serve(&addr)),
        None => runtime.block_on(arguments.measure.run()),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
