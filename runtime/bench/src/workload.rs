//! What is measured. The names are those of the peers' drivers, so that rows of both sides can be joined.
//!
//! - **W1**: a chain of five activities; 1, 64 and 512 chains outstanding.
//! - **W2**: a fan-out of 1,000 activities; one, and 20 at a time.
//! - **W3**: a counter entity; one key, and 10,000 keys; signals, and calls by orchestrations.
//!
//! Each of these in up to three ways, see [`Way`].
//!
//! - **Replay**: a history of 1,000 events, from its bytes to where it has ended, as a worker does it after a restart.
//! - **W6**: memory of a server that has nothing to do; disk used by one completed chain.

mod counters;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::client::Client;
use crate::driver::{self, Pace};
use crate::process::{self, Process, Usage};
use crate::report::Report;
use crate::sdk::{self, Program};
use crate::worker::{CHAIN, CHAIN_STEPS, FAN};

/// Width of a fan-out.
const FAN_WIDTH: usize = 1_000;

/// Activities one after the other whose history has 1,000 events: three for each.
const REPLAYED_STEPS: usize = 333;

/// Replays of one history.
const REPLAYS: usize = 201;

/// Chains that are run to find out how much disk one needs.
const DISK_CHAINS: usize = 20_000;

/// Chains run while strace counts, for each number outstanding.
const TRACED_CHAINS: usize = 200;

/// Everything about a run but the workload.
pub struct Plan {
    /// The server's binary.
    pub server: PathBuf,
    /// Folder in which each server gets a new, empty one.
    pub data_dir: PathBuf,
    /// Longest time of one closed loop.
    pub limit: Duration,
    /// Age of the idle server whose memory is read.
    pub idle: Duration,
}

/// How work reaches those who do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// A lean worker over the published protocol
    Published,
    /// A worker by the Rust SDK, in a process of its own
    Remote,
    /// A worker by the Rust SDK and the client, in one process with the scheduler
    Embedded,
}

impl Way {
    /// A workload's name for figures taken in this way.
    fn name(self, workload: &str) -> String {
        let (first, rest) = workload.split_once('.').unwrap_or((workload, ""));
        match self {
            Way::Published => workload.to_owned(),
            Way::Remote => format!("{first}remote.{rest}"),
            Way::Embedded => format!("{first}embedded.{rest}"),
        }
    }
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Chains of five activities: throughput and latency with 1, 64 and 512 outstanding
    W1,
    /// Fan-outs of 1,000 activities: one, and 20 at a time
    W2,
    /// A counter entity, one key and 10,000 keys: signals and calls, with 64 and 512 outstanding
    W3,
    /// A history of 1,000 events
    Replay,
    /// Memory when idle, disk for each completed instance
    W6,
}

impl Workload {
    /// Whether it is measured in this way.
    pub fn is_measured(self, way: Way) -> bool {
        match self {
            Workload::W1 | Workload::W2 => true,
            // When a remote worker's operations are on disk, only its SDK is told.
            Workload::W3 => way != Way::Remote,
            Workload::Replay => way == Way::Embedded,
            Workload::W6 => way == Way::Published,
        }
    }

    /// Measures once, on an empty store, and adds the figures.
    pub async fn run(self, plan: &Plan, way: Way, report: &mut Report) -> anyhow::Result<()> {
        match self {
            Workload::W1 => chains(plan, way, report).await,
            Workload::W2 => fans(plan, way, report).await,
            Workload::W3 => counters::measure(plan, way, report).await,
            Workload::Replay => replays(plan, report).await,
            Workload::W6 => {
                idle_memory(plan, report).await?;
                disk(plan, report).await
            }
        }
    }
}

async fn chains(plan: &Plan, way: Way, report: &mut Report) -> anyhow::Result<()> {
    let bench = Bench::start(plan, way).await?;
    bench.warm_up(plan).await?;
    for (outstanding, count) in [(1, 1_000), (64, 100_000), (512, 100_000)] {
        let name = way.name(&format!("W1.c{outstanding}"));
        let pace = Pace {
            outstanding,
            count,
            limit: plan.limit,
        };
        let meter = bench.meter();
        let outcome = driver::run(bench.connect(), pace, chain).await?;
        report.add(&name, "workflows", outcome.rate(), "1/s");
        report.add(&name, "steps", outcome.rate() * CHAIN_STEPS as f64, "1/s");
        report.add(&name, "p50", outcome.quantile_ms(0.50), "ms");
        report.add(&name, "p99", outcome.quantile_ms(0.99), "ms");
        report.add(&name, "n", outcome.count() as f64, "ops");
        meter.add_to(report, &name, outcome.count());
    }
    bench.stop().await
}

async fn fans(plan: &Plan, way: Way, report: &mut Report) -> anyhow::Result<()> {
    let bench = Bench::start(plan, way).await?;
    bench.warm_up(plan).await?;
    for (outstanding, count) in [(1, 3), (20, 20)] {
        let name = way.name(&format!("W2.{outstanding}x{FAN_WIDTH}"));
        let pace = Pace {
            outstanding,
            count,
            // A fan-out in progress is always awaited; this only keeps the next one from being begun.
            limit: plan.limit * 6,
        };
        let meter = bench.meter();
        let outcome = driver::run(bench.connect(), pace, fan).await?;
        report.add(&name, "p50", outcome.quantile_ms(0.50), "ms");
        report.add(&name, "max", outcome.quantile_ms(1.0), "ms");
        report.add(
            &name,
            "activities",
            outcome.rate() * FAN_WIDTH as f64,
            "1/s",
        );
        report.add(&name, "n", outcome.count() as f64, "ops");
        meter.add_to(report, &name, outcome.count() * FAN_WIDTH);
    }
    bench.stop().await
}

async fn replays(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let folder = new_folder(plan)?;
    let program = Program::start(folder.path()).await?;
    let bytes = program.client().history(REPLAYED_STEPS).await?;
    program.stop().await?;
    let mut events = 0;
    let mut times = Vec::with_capacity(REPLAYS);
    for _ in 0..REPLAYS {
        let begun = Instant::now();
        events = sdk::replay(&bytes)?;
        times.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    times.sort_by(f64::total_cmp);
    report.add("Replay", "events", events as f64, "events");
    report.add("Replay", "p50", times[REPLAYS / 2], "ms");
    report.add("Replay", "max", times[REPLAYS - 1], "ms");
    Ok(())
}

async fn idle_memory(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let folder = new_folder(plan)?;
    let begun = Instant::now();
    let (server, address) = process::start_server(&plan.server, folder.path()).await?;
    Client::connect(&address).await?;
    report.add(
        "W6",
        "listening",
        begun.elapsed().as_secs_f64() * 1_000.0,
        "ms",
    );
    tokio::time::sleep(plan.idle).await;
    report.add("W6", "rss_idle", server.resident_mib()?, "MiB");
    server.stop(Signal::TERM).await
}

async fn disk(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let bench = Bench::start(plan, Way::Published).await?;
    let empty = process::disk_bytes(bench.folder.path())?;
    let pace = Pace {
        outstanding: 256,
        count: DISK_CHAINS,
        limit: plan.limit * 6,
    };
    let outcome = driver::run(bench.connect(), pace, chain).await?;
    let completed = outcome.count() as f64;
    let per_workflow = |folder: &Path| {
        process::disk_bytes(folder).map(|bytes| bytes.saturating_sub(empty) as f64 / completed)
    };
    report.add("W6", "disk_completed", completed, "workflows");
    report.add(
        "W6",
        "disk_per_workflow",
        per_workflow(bench.folder.path())?,
        "B",
    );
    let folder = bench.stop_and_keep().await?;
    let after = per_workflow(folder.path())?;
    report.add("W6", "disk_per_workflow_after_shutdown", after, "B");
    Ok(())
}

/// Counts the syncs of the server with strace: proof that completions wait for the disk.
pub async fn count_syncs(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let bench = Bench::start(plan, Way::Published).await?;
    bench.warm_up(plan).await?;
    for outstanding in [1, 64] {
        let name = format!("strace.c{outstanding}");
        let summary = bench.folder.path().join(format!("{name}.summary"));
        let Subject::Processes { server, .. } = &bench.subject else {
            bail!("only a process of its own can be traced");
        };
        let strace = server.strace(&summary)?;
        wait_until_traced(server).await?;
        let pace = Pace {
            outstanding,
            count: TRACED_CHAINS,
            limit: plan.limit * 6,
        };
        let outcome = driver::run(bench.connect(), pace, chain).await?;
        strace.stop(Signal::INT).await?;
        let text = std::fs::read_to_string(&summary).context("strace left no summary")?;
        report.add(&name, "workflows", outcome.count() as f64, "ops");
        let calls = sync_calls(&text);
        let total = calls.iter().map(|(_, count)| count).sum();
        report.add(&name, "sync_calls", total, "calls");
        for (call, count) in calls {
            report.add(&name, &format!("{call}_calls"), count, "calls");
        }
    }
    bench.stop().await
}

async fn wait_until_traced(server: &Process) -> anyhow::Result<()> {
    for _ in 0..250 {
        if server.is_traced() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("strace could not attach to the server: is it installed, and is tracing allowed here?")
}

/// Calls and their numbers from the table that `strace -c` writes.
fn sync_calls(summary: &str) -> Vec<(String, f64)> {
    summary
        .lines()
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let call = columns.last().filter(|call| call.contains("sync"))?;
            Some(((*call).to_owned(), columns.get(3)?.parse().ok()?))
        })
        .collect()
}

/// A scheduler on an empty store, and a worker.
struct Bench {
    subject: Subject,
    /// Operations of entities that the worker has applied so far.
    applied: watch::Receiver<u64>,
    folder: TempDir,
}

enum Subject {
    Processes {
        server: Process,
        worker: Process,
        address: String,
    },
    Program(Program),
}

impl Bench {
    async fn start(plan: &Plan, way: Way) -> anyhow::Result<Self> {
        let folder = new_folder(plan)?;
        let (subject, applied) = if way == Way::Embedded {
            let program = Program::start(folder.path()).await?;
            let applied = program.applied();
            (Subject::Program(program), applied)
        } else {
            let (server, address) = process::start_server(&plan.server, folder.path()).await?;
            let (worker, applied) = process::start_worker(&address, way == Way::Remote)?;
            let subject = Subject::Processes {
                server,
                worker,
                address,
            };
            (subject, applied)
        };
        Ok(Self {
            subject,
            applied,
            folder,
        })
    }

    /// What makes clients.
    fn connect(&self) -> impl AsyncFn() -> anyhow::Result<Client> {
        async || match &self.subject {
            Subject::Processes { address, .. } => Client::connect(address).await,
            Subject::Program(program) => Ok(Client::Inside(program.client())),
        }
    }

    /// Connections, caches and the allocator reach their working state before anything is timed.
    async fn warm_up(&self, plan: &Plan) -> anyhow::Result<()> {
        let pace = Pace {
            outstanding: 64,
            count: 1_000,
            limit: plan.limit.min(Duration::from_secs(2)),
        };
        driver::run(self.connect(), pace, chain).await.map(drop)
    }

    /// Begins to count what the processes use.
    fn meter(&self) -> Meter<'_> {
        Meter {
            bench: self,
            begun: Instant::now(),
            before: self.usages(),
        }
    }

    /// What each process has used so far, by what it does. The driver is we.
    fn usages(&self) -> Vec<(&'static str, Usage)> {
        match &self.subject {
            Subject::Processes { server, worker, .. } => vec![
                ("server", server.usage()),
                ("worker", worker.usage()),
                ("driver", Usage::of_us()),
            ],
            Subject::Program(_) => vec![("program", Usage::of_us())],
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop_and_keep().await.map(drop)
    }

    /// Stops everything and returns the data folder.
    async fn stop_and_keep(self) -> anyhow::Result<TempDir> {
        match self.subject {
            Subject::Processes { server, worker, .. } => {
                worker.stop(Signal::KILL).await?;
                server.stop(Signal::TERM).await?;
            }
            Subject::Program(program) => program.stop().await?,
        }
        Ok(self.folder)
    }
}

/// What the processes have used when it began.
struct Meter<'a> {
    bench: &'a Bench,
    begun: Instant,
    before: Vec<(&'static str, Usage)>,
}

impl Meter<'_> {
    /// Reports what has been used since for `count` operations.
    fn add_to(&self, report: &mut Report, name: &str, count: usize) {
        let (wall, count) = (self.begun.elapsed().as_secs_f64(), count as f64);
        let now = self.bench.usages();
        let used = now.iter().zip(&self.before);
        for ((process, now), (_, before)) in used {
            let used = now.since(*before);
            let cpu = used.cpu.as_secs_f64();
            report.add(name, &format!("cpu_{process}"), cpu / wall, "cores");
            let metric = format!("cpu_{process}_per_op");
            report.add(name, &metric, cpu * 1e6 / count, "us");
            if *process != "worker" && *process != "driver" {
                let metric = format!("written_{process}_per_op");
                report.add(name, &metric, used.written_bytes as f64 / count, "B");
            }
        }
    }
}

fn new_folder(plan: &Plan) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("mainspring-bench-")
        .tempdir_in(&plan.data_dir)
        .with_context(|| format!("no folder can be made in {}", plan.data_dir.display()))
}

async fn chain(client: &mut Client, number: usize) -> anyhow::Result<()> {
    let input = format!("{{\"id\":{number},\"v\":1}}");
    let output = client.run(CHAIN, &input).await?;
    ensure!(output == input, "chain {number} returned {output:?}");
    Ok(())
}

async fn fan(client: &mut Client, number: usize) -> anyhow::Result<()> {
    let width = FAN_WIDTH.to_string();
    let output = client.run(FAN, &width).await?;
    ensure!(output == width, "fan-out {number} returned {output:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_read_from_a_summary_with_or_without_errors() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
                       ------ ----------- ----------- --------- --------- ----------------\n\
                       \x20 98.10    0.912345         912      1000           fdatasync\n\
                       \x20  1.90    0.017654         882        20         3 fsync\n\
                       ------ ----------- ----------- --------- --------- ----------------\n\
                       100.00    0.930000         911      1020         3 total\n";
        let expected = [
            ("fdatasync".to_owned(), 1_000.0),
            ("fsync".to_owned(), 20.0),
        ];
        assert_eq!(sync_calls(summary), expected);
    }
}
