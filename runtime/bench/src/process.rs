//! Starting, stopping and watching the processes of a run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::worker;

/// A server opens its store within 25 s; a loaded machine gets a little more.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A server has to be gone 10 s after it was asked to drain; the rest is for a loaded machine.
const STOP_LIMIT: Duration = Duration::from_secs(20);

const ANNOUNCEMENT: &str = "grpc listening on ";

/// The server's binary when none is named: `mainspring` in the folder of this one.
pub fn server_beside_us() -> anyhow::Result<PathBuf> {
    let ours = std::env::current_exe().context("the path of this binary is not known")?;
    let server = ours.with_file_name("mainspring");
    if !server.exists() {
        bail!(
            "{} does not exist: build it, or name one with --server",
            server.display()
        );
    }
    Ok(server)
}

/// A child process that does not outlive this value.
pub struct Process {
    child: Child,
    pid: Pid,
}

impl Process {
    fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.as_std().get_program().display().to_string();
        let child = command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(id as i32))
            .with_context(|| format!("{name} ended at once"))?;
        Ok(Self { child, pid })
    }

    /// What the process prints, if it was started with a pipe.
    fn lines(&mut self) -> anyhow::Result<Lines<BufReader<ChildStdout>>> {
        let output = self.child.stdout.take().context("no pipe to read from")?;
        Ok(BufReader::new(output).lines())
    }

    /// Sends `signal` and waits until the process has ended.
    pub async fn stop(mut self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.pid, signal).context("the signal cannot be sent")?;
        let status = timeout(STOP_LIMIT, self.child.wait()).await.map_err(|_| {
            anyhow!(
                "process {} has not stopped in time",
                self.pid.as_raw_nonzero()
            )
        })??;
        if signal == Signal::TERM && !status.success() {
            bail!("process {} ended with {status}", self.pid.as_raw_nonzero());
        }
        Ok(())
    }

    /// What the process has used so far.
    pub fn usage(&self) -> Usage {
        Usage::of(self.pid)
    }

    /// Resident memory, in MiB.
    pub fn resident_mib(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero()))?;
        let kib: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().split(' ').next())
            .context("no VmRSS in the process's status")?
            .parse()?;
        Ok(kib / 1_024.0)
    }

    /// Attaches strace to all threads; its summary of sync calls goes to `output`.
    pub fn strace(&self, output: &Path) -> anyhow::Result<Process> {
        Process::spawn(
            Command::new("strace")
                .args([
                    "-f",
                    "-c",
                    "-e",
                    "trace=fsync,fdatasync,sync_file_range,msync",
                    "-p",
                ])
                .arg(self.pid.as_raw_nonzero().to_string())
                .arg("-o")
                .arg(output)
                .stderr(Stdio::null()),
        )
    }

    /// Whether a tracer is attached to every thread of the process.
    pub fn is_traced(&self) -> bool {
        let tasks = format!("/proc/{}/task", self.pid.as_raw_nonzero());
        let Ok(tasks) = fs::read_dir(tasks) else {
            return false;
        };
        tasks.flatten().all(|task| {
            fs::read_to_string(task.path().join("status"))
                .is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
        })
    }
}

/// CPU time and bytes written of one process, since its start.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Bytes handed to the block layer.
    pub written_bytes: u64,
}

impl Usage {
    /// What this process has used so far.
    pub fn of_us() -> Self {
        Self::of(rustix::process::getpid())
    }

    fn of(pid: Pid) -> Self {
        let pid = pid.as_raw_nonzero();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The second field, the name, may hold blanks; the times are the 14th and 15th.
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u64 = after_name
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        let written_bytes = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "))
            .and_then(|bytes| bytes.parse().ok())
            .unwrap_or(0);
        Self {
            cpu: Duration::from_secs_f64(seconds),
            written_bytes,
        }
    }

    /// What was used between `earlier` and this.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
        }
    }
}

/// Starts `mainspring serve` on a data folder, and returns it with its address once it listens.
pub async fn start_server(binary: &Path, data_dir: &Path) -> anyhow::Result<(Process, String)> {
    let mut server = Process::spawn(
        Command::new(binary)
            .args([
                "serve",
                "--grpc-addr",
                "127.0.0.1:0",
                "--health-addr",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(data_dir)
            .env("MAINSPRING_LOG", "warn")
            .stdout(Stdio::piped()),
    )?;
    let mut lines = server.lines()?;
    let announced = timeout(START_LIMIT, async {
        while let Some(line) = lines.next_line().await? {
            if let Some(address) = line.strip_prefix(ANNOUNCEMENT) {
                return Ok(address.to_owned());
            }
        }
        bail!("the server ended while starting")
    });
    let address = announced
        .await
        .map_err(|_| anyhow!("the server printed no address in {START_LIMIT:?}"))??;
    // The pipe is kept empty for as long as the server writes to it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((server, address))
}

/// Starts this binary again as a worker: by the Rust SDK, or the lean one. With it comes the number of operations of entities that
/// the lean one has applied so far.
pub fn start_worker(
    address: &str,
    by_the_sdk: bool,
) -> anyhow::Result<(Process, watch::Receiver<u64>)> {
    let ours = std::env::current_exe().context("the path of this binary is not known")?;
    let mut worker = Process::spawn(
        Command::new(ours)
            .args(["worker", "--addr", address])
            .args(by_the_sdk.then_some("--sdk"))
            .stdout(Stdio::piped()),
    )?;
    let mut lines = worker.lines()?;
    let (told, applied) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let number = line.strip_prefix(worker::APPLIED).map(str::parse);
            if let Some(Ok(number)) = number {
                told.send_replace(number);
            }
        }
    });
    Ok((worker, applied))
}

/// Bytes allocated on disk below a folder.
pub fn disk_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            // The unit of st_blocks, whatever the file system's own block size is.
            metadata.blocks() * 512
        };
    }
    Ok(total)
}
