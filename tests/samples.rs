//! Every Rust sample does what it shows, in a folder of its own; the first also through a kill -9 in the middle, as the README says.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mainspring_tests::python;
use tempfile::TempDir;

/// The program of a sample, which `cargo test --workspace` has built beside the tests.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(Path::parent).unwrap();
    let program = folder.join("examples").join(name);
    assert!(
        program.exists(),
        "{} does not exist: build it with `cargo build -p mainspring-samples --examples`",
        program.display()
    );
    program
}

/// The file of a sample names the command that runs it.
fn check_command(name: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../samples/{name}.rs"));
    let text = std::fs::read_to_string(file).unwrap();
    let command = format!("cargo run -p mainspring-samples --example {name}");
    assert!(text.contains(&command), "{name} does not say: {command}");
}

fn start(name: &str, arguments: &[&str], folder: &TempDir) -> Child {
    check_command(name);
    Command::new(program(name))
        .args(arguments)
        .env("SAMPLE_PYTHON", python())
        .current_dir(folder.path())
        .env("SAMPLE_ADDRESS", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a sample prints, line by line.
fn printed(name: &str, arguments: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let output = start(name, arguments, &folder).wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {error}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn sequence() {
    let expected = ["a cup of coffee of ground arabica"];
    assert_eq!(printed("sequence", &[]), expected);
}

#[test]
fn fan_out_fan_in() {
    assert_eq!(printed("fan_out_fan_in", &[]), ["5050 words on 100 pages"]);
}

#[test]
fn human_interaction() {
    for (arguments, outcome) in [
        (&[][..], "paid"),
        (&["reject"], "rejected"),
        (&["ignore"], "nobody answered"),
    ] {
        let expected = ["please approve 120 euros", outcome];
        assert_eq!(printed("human_interaction", arguments), expected);
    }
}

#[test]
fn monitor() {
    let mut expected = vec!["looking at build-7"; 4];
    expected.push("build-7 passed");
    assert_eq!(printed("monitor", &[]), expected);
}

#[test]
fn eternal() {
    let lines = printed("eternal", &[]);
    assert_eq!(lines[..2], ["round 1", "round 2"]);
    assert_eq!(lines.last().unwrap(), "stopped: enough for today");
}

#[test]
fn sub_orchestrations() {
    let expected = [
        "signed binary for linux",
        "signed binary for macos",
        "signed binary for windows",
        "release-9-linux is COMPLETED",
    ];
    assert_eq!(printed("sub_orchestrations", &[]), expected);
}

#[test]
fn saga() {
    let expected = [
        "payment provider is busy",
        "charged 1200",
        "mail to ada@example.com",
        "book: book on its way",
        "payment provider is busy",
        "charged 1200",
        "refunded",
    ];
    let lines = printed("saga", &[]);
    assert_eq!(lines[..7], expected);
    assert!(lines[7].contains("no unicorn is left"), "{lines:?}");
}

#[test]
fn http_api() {
    let folder = tempfile::tempdir().unwrap();
    let mut api = start("http_api", &[], &folder);
    let mut line = String::new();
    BufReader::new(api.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .trim()
        .trim_start_matches("http://")
        .trim_end_matches("/reports")
        .to_owned();
    let ask = |request: String| {
        let mut connection = TcpStream::connect(&address).unwrap();
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    };
    let rest = "host: localhost\r\nconnection: close\r\n";
    let started = ask(format!(
        "POST /reports HTTP/1.1\r\n{rest}content-type: application/json\r\ncontent-length: 7\r\n\r\n\"sales\""
    ));
    assert!(started.starts_with("HTTP/1.1 202"), "{started}");
    let location = started
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .unwrap();
    loop {
        let progress = ask(format!("GET {location} HTTP/1.1\r\n{rest}\r\n"));
        if progress.contains("COMPLETED") {
            assert!(progress.contains("sales: 500 rows"), "{progress}");
            break;
        }
        assert!(progress.starts_with("HTTP/1.1 200"), "{progress}");
    }
    let missing = ask(format!("GET /reports/none HTTP/1.1\r\n{rest}\r\n"));
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    api.kill().unwrap();
    api.wait().unwrap();
}

#[test]
fn counter() {
    assert_eq!(printed("counter", &[]), ["8", "3"]);
}

#[test]
fn aggregator() {
    let expected = [r#"{"attic": 22.4, "cellar": 13.4}"#];
    assert_eq!(printed("aggregator", &[]), expected);
}

#[test]
fn bank_transfer() {
    let lines = printed("bank_transfer", &[]);
    assert_eq!(lines[0], "alice 70, bob 30");
    assert!(lines[1].contains("70 cents"), "{lines:?}");
}

#[test]
fn data_pipeline() {
    assert_eq!(printed("data_pipeline", &[]), ["mean 24.5"]);
}

#[test]
fn provisioning() {
    let lines = printed("provisioning", &[]);
    let expected = [
        "set up network",
        "set up disk",
        "set up vm",
        "network, disk, vm are up",
        "set up network",
        "set up disk",
        "set up gpu",
        "set up gpu",
        "take down disk",
        "take down network",
    ];
    assert_eq!(lines[..10], expected);
    assert!(lines[10].contains("no gpu is left"), "{lines:?}");
}

/// Killed in the middle and started again, it greets no city twice that was recorded, and counts each once.
#[test]
fn first_steps_go_on_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start("first_steps", &[], &folder);
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "1: hello Tokyo");
    assert_eq!(lines.next().unwrap().unwrap(), "2: hello Lisbon");
    first.kill().unwrap();
    first.wait().unwrap();
    let second = start("first_steps", &[], &folder)
        .wait_with_output()
        .unwrap();
    let text = String::from_utf8(second.stdout).unwrap();
    // Lisbon's greeting may have been on its way, and comes again then; Tokyo's was recorded.
    assert!(!text.contains("Tokyo"), "{text}");
    assert_eq!(text.lines().last(), Some("3: hello Quito"), "{text}");
}

/// What the README shows is this sample, in under forty lines.
#[test]
fn the_readme_shows_the_first_steps() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file: &str| std::fs::read_to_string(repository.join(file)).unwrap();
    let sample = read("samples/first_steps.rs");
    let code: Vec<&str> = sample
        .lines()
        .filter(|line| !line.starts_with("//!"))
        .collect();
    assert!(code.iter().filter(|line| !line.is_empty()).count() < 40);
    let shown = format!("```rust\n{}\n```", code.join("\n"));
    assert!(
        read("README.md").contains(&shown),
        "the README shows something else"
    );
}
