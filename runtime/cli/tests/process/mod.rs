//! The binary under test: run to its end, or serving in a folder of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(40);

/// A drained server is gone within 10 s.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The binary, deaf to whatever the environment of the tests says about servers and logs.
pub fn mainspring() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainspring"));
    for (name, _) in std::env::vars() {
        if ["MAINSPRING_", "DTS_", "RUST_LOG"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// How a run ended: exit code, standard output, standard error.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

#[allow(dead_code, reason = "each test binary uses its share of this module")]
impl Ended {
    /// What it printed; it has to have succeeded.
    pub fn done(self, arguments: &[&str]) -> String {
        assert_eq!(
            self.code,
            Some(0),
            "{arguments:?}: {}{}",
            self.out,
            self.err
        );
        self.out
    }

    /// It has to have failed, and to have said all of `parts`.
    pub fn failed(self, arguments: &[&str], parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{arguments:?}");
        assert!(self.err.starts_with("error: "), "{}", self.err);
        assert_eq!(self.out, "", "{arguments:?}");
        for part in parts {
            assert!(
                self.err.contains(part),
                "{arguments:?}: '{part}' is missing in {}",
                self.err
            );
        }
    }
}

/// Runs the binary to its end.
#[allow(dead_code, reason = "each test binary uses its share of this module")]
pub fn run(arguments: &[&str]) -> Ended {
    mainspring().args(arguments).output().unwrap().into()
}

/// A serving process.
pub struct Server {
    child: Option<Child>,
    pub folder: TempDir,
    flags: Vec<String>,
    pub grpc: String,
    pub health: String,
    pub connection_string: String,
}

#[allow(dead_code, reason = "each test binary uses its share of this module")]
impl Server {
    pub fn start(flags: &[&str]) -> Self {
        let mut server = Self {
            child: None,
            folder: tempfile::tempdir().unwrap(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            grpc: String::new(),
            health: String::new(),
            connection_string: String::new(),
        };
        server.restart();
        server
    }

    pub fn restart(&mut self) {
        let mut command = mainspring();
        command
            .args([
                "serve",
                "--grpc-addr",
                "127.0.0.1:0",
                "--health-addr",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(&self.flags);
        self.spawn(command);
    }

    /// Starts a process of any command line and takes note of what it announces.
    pub fn spawn(&mut self, mut command: Command) {
        let log = std::fs::File::create(self.log_path()).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        self.child = Some(child);
        self.grpc = self.announced(&lines, "grpc listening on ");
        self.health = self.announced(&lines, "health listening on ");
        self.connection_string = self.announced(&lines, "connection string: ");
    }

    fn announced(&self, lines: &Receiver<String>, prefix: &str) -> String {
        let line = lines
            .recv_timeout(START_LIMIT)
            .unwrap_or_else(|error| panic!("no '{prefix}': {error}\n{}", self.log()));
        let announced = line.strip_prefix(prefix);
        announced
            .unwrap_or_else(|| panic!("expected '{prefix}…', got '{line}'"))
            .to_owned()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Runs a subcommand of `group`, such as `instance`, against this server.
    pub fn ask(&self, group: &str, arguments: &[&str]) -> Ended {
        mainspring()
            .args([group, "--addr", &self.grpc])
            .args(arguments)
            .output()
            .unwrap()
            .into()
    }

    /// Runs a subcommand of `instance`.
    pub fn instance(&self, arguments: &[&str]) -> Ended {
        self.ask("instance", arguments)
    }

    /// The same; has to succeed, and returns what it printed.
    pub fn done(&self, arguments: &[&str]) -> String {
        self.instance(arguments).done(arguments)
    }

    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends a signal and waits for the end.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        panic!(
            "the server did not end within {STOP_LIMIT:?}\n{}",
            self.log()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Lines of a pipe, read for as long as it is open.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    lines
}

/// The path as text for a command line.
#[allow(dead_code, reason = "each test binary uses its share of this module")]
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
