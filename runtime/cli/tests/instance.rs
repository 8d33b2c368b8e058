//! `mainspring instance …` against a running server, without a worker: what needs one is proven elsewhere.

#![allow(clippy::unwrap_used)]

mod process;

use process::{Server, run};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn an_instance_is_started_shown_and_listed() {
    let server = Server::start(&[]);
    let id = server.done(&[
        "start",
        "Order",
        "--input",
        r#"{"n":1}"#,
        "--tag",
        "team=a",
        "--version",
        "2",
    ]);
    let id = id.trim();
    assert_eq!(id.len(), 32, "{id}");
    let shown = server.done(&["get", id]);
    for part in [id, "Order", "PENDING", r#"{"n":1}"#, "team=a"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let state = json(&server.done(&["get", id, "--json"]));
    assert_eq!(state["instanceId"], id);
    assert_eq!(state["version"], "2");
    assert_eq!(state["orchestrationStatus"], "PENDING");
    assert_eq!(state["input"], r#"{"n":1}"#);
    assert_eq!(state["tags"]["team"], "a");

    let started = json(&server.done(&["start", "Bill", "--id", "bill-1", "--json"]));
    assert_eq!(started["instanceId"], "bill-1");
    let listed = server.done(&["list"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(
        lines[0].starts_with("INSTANCE")
            && lines[1].starts_with(id)
            && lines[2].starts_with("bill-1")
    );
    let listed =
        json(&server.done(&["list", "--prefix", "bill-", "--status", "pending", "--json"]));
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["name"], "Bill");
    assert_eq!(
        json(&server.done(&["list", "--status", "failed", "--json"])),
        json("[]")
    );
}

#[test]
fn a_list_stops_at_its_limit_and_says_so() {
    let server = Server::start(&[]);
    for n in 0..4 {
        server.done(&["start", "n", "--id", &format!("i{n}")]);
    }
    let ended = server.instance(&["list", "--limit", "3"]);
    assert_eq!(ended.out.lines().count(), 4);
    assert!(ended.err.contains("--limit"), "{}", ended.err);
    let ended = server.instance(&["list", "--limit", "4"]);
    assert_eq!((ended.out.lines().count(), ended.err.as_str()), (5, ""));
}

#[test]
fn an_instance_is_steered_through_its_life() {
    let server = Server::start(&[]);
    let status = || json(&server.done(&["get", "a", "--json"]))["orchestrationStatus"].clone();
    server.done(&["start", "n", "--id", "a"]);
    server.done(&["raise-event", "a", "approval", "--input", "true"]);
    server.done(&["suspend", "a", "--reason", "audit"]);
    assert_eq!(status(), "SUSPENDED");
    server.done(&["resume", "a"]);
    assert_eq!(status(), "PENDING");
    server.done(&["terminate", "a", "--output", "\"stopped\""]);
    let state = json(&server.done(&["get", "a", "--json"]));
    assert_eq!(
        (&state["orchestrationStatus"], &state["output"]),
        (&"TERMINATED".into(), &"\"stopped\"".into())
    );

    let history = json(&server.done(&["history", "a", "--json"]));
    let kinds: Vec<&str> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds.last(), Some(&"ExecutionCompleted"), "{kinds:?}");
    let table = server.done(&["history", "a"]);
    assert!(
        table.starts_with("ID") && table.contains("ExecutionTerminated"),
        "{table}"
    );

    let copy = server.done(&["restart", "a", "--new-id"]);
    assert_ne!(copy.trim(), "a");
    assert_eq!(server.done(&["restart", "a"]).trim(), "a");
    assert_eq!(status(), "PENDING");
    server.done(&["terminate", "a"]);
    assert!(server.done(&["purge", "a"]).contains("1 instance"));
    assert!(
        server
            .done(&["terminate", copy.trim()])
            .contains("terminated")
    );
    let purged = json(&server.done(&["purge", "--status", "terminated", "--json"]));
    assert_eq!(
        (&purged["deletedInstanceCount"], &purged["isComplete"]),
        (&1.into(), &true.into())
    );
}

#[test]
fn an_input_may_come_from_a_file() {
    let server = Server::start(&[]);
    let path = server.folder.path().join("input.json");
    std::fs::write(&path, "[1,\n2]").unwrap();
    server.done(&[
        "start",
        "n",
        "--id",
        "a",
        "--input-file",
        &path.to_string_lossy(),
    ]);
    assert_eq!(
        json(&server.done(&["get", "a", "--json"]))["input"],
        "[1,\n2]"
    );
}

#[test]
fn a_start_may_lie_ahead() {
    let server = Server::start(&[]);
    server.done(&["start", "n", "--id", "a", "--after", "1h"]);
    let state = json(&server.done(&["get", "a", "--json"]));
    assert!(
        state["scheduledStartTimestamp"].as_str() > state["createdTimestamp"].as_str(),
        "{state}"
    );
}

#[test]
fn a_wait_ends_with_the_instance_or_its_time() {
    let server = Server::start(&[]);
    server.done(&["start", "n", "--id", "a"]);
    let ended = server.instance(&["wait", "a", "--timeout", "200ms"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains("'a'") && ended.err.contains("PENDING"),
        "{}",
        ended.err
    );
    server.done(&["terminate", "a"]);
    // Started is whatever is not pending (S-11.5).
    server.done(&["wait", "a", "--started"]);
    let ended = server.instance(&["wait", "a"]);
    assert_eq!(ended.code, Some(1), "it did not end COMPLETED");
    assert!(
        ended.out.contains("TERMINATED") && ended.err.contains("TERMINATED"),
        "{}{}",
        ended.out,
        ended.err
    );
    let ended = server.instance(&["start", "n", "--wait", "--timeout", "200ms"]);
    assert_eq!(ended.code, Some(1));
}

#[test]
fn what_went_wrong_is_said_with_the_name_of_what_was_wrong() {
    let server = Server::start(&[]);
    server.done(&["start", "n", "--id", "a"]);
    let says =
        |arguments: &[&str], parts: &[&str]| server.instance(arguments).failed(arguments, parts);
    for action in [
        "get",
        "history",
        "suspend",
        "resume",
        "terminate",
        "rewind",
        "restart",
        "purge",
    ] {
        says(&[action, "nobody"], &["nobody"]);
    }
    says(&["raise-event", "nobody", "e"], &["nobody"]);
    says(&["start", "n", "--id", "a"], &["'a'", "already exists"]);
    says(&["rewind", "a"], &["'a'"]);
    says(&["restart", "a"], &["'a'"]);
    says(&["purge", "a"], &["'a'"]);
    says(&["list", "--hub", "nowhere"], &["nowhere"]);
    says(
        &["start", "n", "--input-file", "missing.json"],
        &["missing.json"],
    );
    server.done(&["terminate", "a"]);
    says(&["raise-event", "a", "e"], &["'a'", "TERMINATED"]);

    let ended = run(&["instance", "list", "--addr", "127.0.0.1:1"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("127.0.0.1:1"), "{}", ended.err);
}
