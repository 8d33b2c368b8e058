//! The server under test, as a child process.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A store opens within 25 s by the protocol's rules (S-1.16); a loaded machine gets a little more.
const START_LIMIT: Duration = Duration::from_secs(40);

/// A drained server is gone within 10 s.
const STOP_LIMIT: Duration = Duration::from_secs(10);

const GRPC: &str = "grpc listening on ";
const HEALTH: &str = "health listening on ";

/// A server process with its data folder; both end with this value.
pub struct Scheduler {
    child: Option<Child>,
    folder: TempDir,
    flags: Vec<String>,
    grpc: String,
    health: String,
}

impl Scheduler {
    /// Starts `mainspring serve` with these flags, on an empty folder and free ports.
    pub fn start(flags: &[&str]) -> Self {
        let mut scheduler = Self {
            child: None,
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            grpc: "127.0.0.1:0".to_owned(),
            health: "127.0.0.1:0".to_owned(),
        };
        scheduler.restart();
        scheduler
    }

    /// Starts the process again, after it was killed or stopped, on the same folder and ports.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "the server is still running");
        let mut child = self.command().spawn().expect("the server can be started");
        let stdout = child.stdout.take().expect("the server's output is piped");
        let (send, lines) = channel();
        // Reads for as long as the process writes, so that it never meets a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        self.child = Some(child);
        self.grpc = self.announced(&lines, GRPC);
        self.health = self.announced(&lines, HEALTH);
    }

    fn command(&self) -> Command {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the log can be written");
        let mut command = Command::new(binary());
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--grpc-addr", &self.grpc, "--health-addr", &self.health])
            .args(&self.flags)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        command
    }

    fn announced(&mut self, lines: &Receiver<String>, prefix: &str) -> String {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(address) = line.strip_prefix(prefix) {
                        return address.to_owned();
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no '{prefix}' in time\n{}", self.log()),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the server ended while starting\n{}", self.log())
                }
            }
        }
    }

    /// `HOST:PORT` of gRPC.
    pub fn address(&self) -> &str {
        &self.grpc
    }

    /// `HOST:PORT` of the health checks.
    pub fn health_address(&self) -> &str {
        &self.health
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Ends the process as a power cut would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server is running");
        child.kill().expect("the server can be killed");
        child.wait().expect("the server can be waited for");
    }

    /// Asks the process to drain. Goes on with [`Scheduler::ended`].
    pub fn drain(&self) {
        let child = self.child.as_ref().expect("the server is running");
        kill_process(Pid::from_child(child), Signal::TERM).expect("the server can be signalled");
    }

    /// Waits until the draining process has ended, and how it did.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server was running");
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().expect("the server can be waited for") {
                return status;
            }
            // The test's own connections have to go on living, or the server waits for them.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child.kill().expect("the server can be killed");
        child.wait().expect("the server can be waited for");
        panic!(
            "the server did not end within {STOP_LIMIT:?}\n{}",
            self.log()
        );
    }

    /// Drains, and expects the exit code 0.
    pub async fn stop(&mut self) {
        self.drain();
        let status = self.ended().await;
        assert!(
            status.success(),
            "the server ended with {status}\n{}",
            self.log()
        );
    }

    /// Whether the process lives.
    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Everything the process has logged.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// Runs `mainspring` with these arguments and returns exit code, standard output and standard error.
    pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(binary())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the binary can be started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = self.log();
        if !thread::panicking() {
            assert!(!log.contains("panicked at"), "the server panicked\n{log}");
        } else {
            let start = log.len().saturating_sub(8_000);
            let start = (start..log.len())
                .find(|at| log.is_char_boundary(*at))
                .unwrap_or(0);
            eprintln!("end of the server's log:\n{}", &log[start..]);
        }
    }
}

/// A Python that has the published SDK: `SAMPLE_PYTHON`, else the one that `tests/run` has set up, else `python3`.
pub fn python() -> PathBuf {
    let prepared = Path::new(env!("CARGO_MANIFEST_DIR")).join(".env/python/bin/python");
    match std::env::var_os("SAMPLE_PYTHON") {
        Some(python) => python.into(),
        None if prepared.exists() => prepared,
        None => "python3".into(),
    }
}

/// `MAINSPRING_BIN`, else the binary that was built beside the tests.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("MAINSPRING_BIN") {
        return path.into();
    }
    let tests = std::env::current_exe().expect("the path of this test is known");
    // Tests are in `deps`, below the folder of the binaries.
    let folder = tests
        .parent()
        .and_then(Path::parent)
        .expect("a test lies in a target folder");
    let binary = folder.join("mainspring");
    assert!(
        binary.exists(),
        "{} does not exist: build it with `cargo build -p mainspring-cli`",
        binary.display(),
    );
    binary
}
