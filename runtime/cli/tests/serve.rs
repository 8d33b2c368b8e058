//! `mainspring serve` as a process: what it prints, how it is told, how it ends.

#![allow(clippy::unwrap_used)]

mod process;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use process::{Server, mainspring, run, text};
use rustix::process::Signal;

fn health(address: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn it_prints_where_it_is_and_what_to_paste_and_tells_when_it_is_ready() {
    let server = Server::start(&["--task-hubs", "orders, billing"]);
    assert_eq!(
        server.connection_string,
        format!(
            "Endpoint=http://{};Authentication=None;TaskHub=orders",
            server.grpc
        ),
    );
    // The first answer means that the store is open.
    server.done(&["list"]);
    assert_eq!(health(&server.health), "HTTP/1.1 204 No Content");
}

#[test]
fn without_arguments_it_serves_as_the_environment_says() {
    let mut server = Server::start(&[]);
    server.stop(Signal::TERM);
    let mut command = mainspring();
    command
        .env("MAINSPRING_GRPC_ADDR", "127.0.0.1:0")
        .env("MAINSPRING_HEALTH_ADDR", "127.0.0.1:0")
        .env("MAINSPRING_DATA_DIR", server.data_dir())
        .env("DTS_TASK_HUB_NAMES", "first,second");
    server.spawn(command);
    assert!(
        server.connection_string.ends_with(";TaskHub=first"),
        "{}",
        server.connection_string
    );
    server.done(&["start", "n", "--id", "a", "--hub", "second"]);
    assert!(server.done(&["list", "--hub", "second"]).contains("a "));
    assert!(!server.done(&["list"]).contains("a "));
}

#[test]
fn sigterm_and_ctrl_c_end_it_with_zero_and_a_restart_finds_everything() {
    let mut server = Server::start(&[]);
    for (signal, id) in [(Signal::TERM, "a"), (Signal::INT, "b")] {
        server.done(&["start", "n", "--id", id]);
        let status = server.stop(signal);
        assert_eq!(status.code(), Some(0), "{}", server.log());
        server.restart();
    }
    let listed = server.done(&["list"]);
    assert!(listed.contains("a ") && listed.contains("b "), "{listed}");
}

#[test]
fn a_second_process_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let mut server = Server::start(&[]);
    server.done(&["start", "n", "--id", "a"]);
    let folder = text(&server.data_dir());
    let second = run(&[
        "serve",
        "--data-dir",
        &folder,
        "--grpc-addr",
        "127.0.0.1:0",
        "--health-addr",
        "127.0.0.1:0",
    ]);
    assert_eq!(second.code, Some(1));
    let message = second
        .err
        .lines()
        .find(|line| line.starts_with("error: "))
        .unwrap();
    assert!(message.contains(&folder), "{message}");
    assert!(server.is_running());
    server.done(&["get", "a"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let ended = run(&[
        "serve",
        "--data-dir",
        &text(folder.path()),
        "--grpc-addr",
        &address,
        "--health-addr",
        "127.0.0.1:0",
    ]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains(&address), "{}", ended.err);
}

#[test]
fn a_folder_that_cannot_be_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let ended = run(&[
        "serve",
        "--data-dir",
        &text(&file),
        "--grpc-addr",
        "127.0.0.1:0",
        "--health-addr",
        "127.0.0.1:0",
    ]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains(&text(&file)), "{}", ended.err);
}

#[test]
fn settings_that_cannot_be_served_are_refused_by_name() {
    let refused = |flags: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = text(folder.path());
        let addresses = [
            "serve",
            "--grpc-addr",
            "127.0.0.1:0",
            "--health-addr",
            "127.0.0.1:0",
            "--data-dir",
            &data_dir,
        ];
        let ended = run(&[&addresses, flags].concat());
        assert!(matches!(ended.code, Some(1 | 2)), "{flags:?}");
        ended.err
    };
    assert!(refused(&["--payload-bytes-max", "65MiB"]).contains("payload_bytes_max"));
    assert!(refused(&["--payload-bytes-max", "much"]).contains("--payload-bytes-max"));
    assert!(refused(&["--tls-cert", "a.pem"]).contains("--tls-key"));
    assert!(refused(&["--ping-interval", "2m"]).contains("ping_interval"));
    assert!(refused(&["--token-file", "missing"]).contains("missing"));

    let filter = mainspring()
        .arg("serve")
        .env("MAINSPRING_LOG", "mainspring=loud=er")
        .output()
        .unwrap();
    assert_eq!(filter.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&filter.stderr).contains("MAINSPRING_LOG"));
}

#[test]
fn the_log_is_json_where_nobody_watches() {
    let mut server = Server::start(&[]);
    server.done(&["list"]);
    server.stop(Signal::TERM);
    let log = server.log();
    assert!(!log.is_empty());
    for line in log.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for field in ["timestamp", "level", "message", "target"] {
            assert!(event.get(field).is_some(), "{line} has no {field}");
        }
    }
}

#[test]
fn with_a_token_it_serves_only_who_has_it() {
    let server = Server::start(&["--token", "secret"]);
    let refused = server.instance(&["list"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("--token"), "{}", refused.err);
    assert_eq!(server.instance(&["list", "--token", "guess"]).code, Some(1));
    server.done(&["list", "--token", "secret"]);
    assert!(!server.log().contains("secret"));
}
