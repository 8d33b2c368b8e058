//! `mainspring entity …` against a running server, without a worker: what needs one is proven elsewhere. Here entities
//! never get a state; what they have is a backlog.

#![allow(clippy::unwrap_used)]

mod process;

use std::time::{Duration, Instant};

use process::{Ended, Server, run};
use rustix::process::Signal;
use serde_json::Value;

/// Longest that a test waits for what has to happen.
const LIMIT: Duration = Duration::from_secs(40);

/// Runs a subcommand of `entity`.
fn entity(server: &Server, arguments: &[&str]) -> Ended {
    server.ask("entity", arguments)
}

/// The same; has to succeed, and returns what it printed.
fn done(server: &Server, arguments: &[&str]) -> String {
    entity(server, arguments).done(arguments)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Id and backlog of the entities that a list shows.
fn backlogs(server: &Server, arguments: &[&str]) -> Vec<(String, i64)> {
    let list = [&["list", "--transient", "--json"], arguments].concat();
    let listed = json(&done(server, &list));
    let entities = listed.as_array().unwrap().iter();
    entities
        .map(|entity| {
            let id = entity["instanceId"].as_str().unwrap().to_owned();
            (id, entity["backlogQueueSize"].as_i64().unwrap())
        })
        .collect()
}

fn pair(id: &str, backlog: i64) -> (String, i64) {
    (id.to_owned(), backlog)
}

/// S-12.2, S-12.6, S-12.39.
#[test]
fn signaled_entities_without_a_state_are_listed_where_transient_ones_are_asked_for() {
    let server = Server::start(&[]);
    assert_eq!(
        done(&server, &["signal", "@Counter@a", "add", "--input", "1"]),
        "signaled 'add' to @Counter@a\n"
    );
    done(&server, &["signal", "counter@a", "add", "--input", "2"]);
    done(&server, &["signal", "@counter@A", "add"]);
    done(&server, &["signal", "@cart@7", "clear"]);

    assert_eq!(json(&done(&server, &["list", "--json"])), json("[]"));
    assert_eq!(done(&server, &["list"]).lines().count(), 1);
    let all = [
        pair("@cart@7", 1),
        pair("@counter@A", 1),
        pair("@counter@a", 2),
    ];
    assert_eq!(backlogs(&server, &[]), all);
    for prefix in ["@counter@", "Counter", "COUNTER@"] {
        assert_eq!(
            backlogs(&server, &["--prefix", prefix]),
            all[1..],
            "{prefix}"
        );
    }
    assert_eq!(
        backlogs(&server, &["--prefix", "@counter@a", "--state"]),
        all[2..]
    );

    let table = done(&server, &["list", "--transient", "--prefix", "cart"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    let headings: Vec<&str> = lines[0]
        .split("  ")
        .filter(|part| !part.is_empty())
        .collect();
    let headings: Vec<&str> = headings.iter().map(|part| part.trim()).collect();
    assert_eq!(headings, ["ENTITY", "MODIFIED", "BACKLOG", "LOCKED BY"]);
    let cells: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!((cells[0], cells[2]), ("@cart@7", "1"));
    let table = done(&server, &["list", "--state"]);
    assert!(table.trim_end().ends_with("STATE"), "{table}");
}

/// S-12.39: both ends of the range belong to it.
#[test]
fn a_list_is_narrowed_by_the_time_of_the_last_change() {
    let server = Server::start(&[]);
    done(&server, &["signal", "@counter@a", "add"]);
    let listed = json(&done(&server, &["list", "--transient", "--json"]));
    let modified = listed[0]["lastModifiedTime"].as_str().unwrap().to_owned();
    let found = |arguments: &[&str]| backlogs(&server, arguments).len();
    assert_eq!(found(&["--modified-from", &modified]), 1);
    assert_eq!(found(&["--modified-to", &modified]), 1);
    assert_eq!(found(&["--modified-from", "9999-01-01"]), 0);
    assert_eq!(found(&["--modified-to", "2020-01-01"]), 0);
}

#[test]
fn a_list_stops_at_its_limit_and_says_so() {
    let server = Server::start(&[]);
    for n in 0..4 {
        done(&server, &["signal", &format!("@counter@{n}"), "add"]);
    }
    let ended = entity(&server, &["list", "--transient", "--limit", "3"]);
    assert_eq!(ended.out.lines().count(), 4);
    assert!(ended.err.contains("--limit"), "{}", ended.err);
    let ended = entity(&server, &["list", "--transient", "--limit", "4"]);
    assert_eq!((ended.out.lines().count(), ended.err.as_str()), (5, ""));
}

/// S-12.38: without a state it does not exist; what waits for it is told all the same.
#[test]
fn showing_an_entity_that_has_no_state_says_what_waits_for_it() {
    let server = Server::start(&[]);
    done(&server, &["signal", "@counter@a", "add"]);
    done(&server, &["signal", "@counter@a", "add"]);
    for id in ["@counter@a", "Counter@a"] {
        let ended = entity(&server, &["get", id]);
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""));
        assert!(
            ended.err.contains("no state") && ended.err.contains("backlog is 2"),
            "{}",
            ended.err
        );
    }
    // Not this one, though its id begins likewise.
    let ended = entity(&server, &["get", "@counter@", "--state", "--json"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""));
    assert_eq!(
        ended.err,
        "error: no entity '@counter@' in task hub 'default'\n"
    );
}

/// S-12.37.
#[test]
fn a_request_id_makes_a_repeated_signal_count_once() {
    let server = Server::start(&[]);
    let id = "0af76519-16cd-43dd-8448-eb211c80319c";
    let signal = ["signal", "@counter@a", "add", "--request-id", id, "--json"];
    for _ in 0..2 {
        assert_eq!(json(&done(&server, &signal))["requestId"], id);
    }
    assert_eq!(backlogs(&server, &[]), [pair("@counter@a", 1)]);
    done(&server, &["signal", "@counter@a", "add"]);
    assert_eq!(backlogs(&server, &[]), [pair("@counter@a", 2)]);
}

/// S-6.7, S-12.44: until its time comes a delayed signal is no backlog.
#[test]
fn a_signal_may_lie_ahead() {
    let mut server = Server::start(&[]);
    let signal = |id, when: [&str; 2]| {
        let signaled = done(&server, &["signal", id, "add", when[0], when[1], "--json"]);
        json(&signaled)["scheduledTime"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    signal("@counter@hour", ["--after", "1h"]);
    assert_eq!(
        signal("@counter@far", ["--at", "2999-01-31T12:00:00Z"]),
        "2999-01-31T12:00:00Z"
    );
    signal("@counter@past", ["--at", "2020-01-01"]);
    signal("@counter@soon", ["--in", "500ms"]);
    let text = done(
        &server,
        &["signal", "@counter@far", "add", "--at", "2999-01-31"],
    );
    assert_eq!(
        text,
        "signaled 'add' to @counter@far, not before 2999-01-31T00:00:00Z\n"
    );
    let ended = entity(&server, &["get", "@counter@hour"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("no entity '@counter@hour'"));

    server.stop(Signal::KILL);
    server.restart();
    let deadline = Instant::now() + LIMIT;
    let due = [pair("@counter@past", 1), pair("@counter@soon", 1)];
    loop {
        let listed = backlogs(&server, &[]);
        if listed == due {
            break;
        }
        assert!(Instant::now() < deadline, "{listed:?}");
    }
}

#[test]
fn an_input_may_come_from_a_file() {
    let server = Server::start(&["--payload-bytes-max", "1KiB"]);
    let path = server.folder.path().join("input.json");
    let path_text = process::text(&path);
    let signal = ["signal", "@counter@a", "add", "--input-file", &path_text];
    std::fs::write(&path, "[1,\n2]").unwrap();
    done(&server, &signal);
    // That the file is what was sent shows in its size.
    std::fs::write(&path, "1".repeat(2000)).unwrap();
    let ended = entity(&server, &signal);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains("'@counter@a'") && ended.err.contains("2000"),
        "{}",
        ended.err
    );
    assert_eq!(backlogs(&server, &[]), [pair("@counter@a", 1)]);
}

#[test]
fn what_went_wrong_is_said_with_the_name_of_what_was_wrong() {
    let server = Server::start(&[]);
    let says =
        |arguments: &[&str], parts: &[&str]| entity(&server, arguments).failed(arguments, parts);
    says(
        &["get", "@counter@nobody"],
        &["'@counter@nobody'", "'default'"],
    );
    // S-12.1: a name without a key, a key without a name, too long an id.
    for action in [&["get"][..], &["signal"]] {
        let operation: &[&str] = if action == ["signal"] { &["add"] } else { &[] };
        let with = |id| [action, &[id], operation].concat();
        says(&with("@counter"), &["'@counter'"]);
        says(&with("@@a"), &["'@@a'"]);
        let long = format!("@counter@{}", "x".repeat(100));
        says(&with(&long), &["100 characters"]);
    }
    says(&["signal", "@counter@a", ""], &["'@counter@a'", "empty"]);
    says(
        &[
            "signal",
            "@counter@a",
            "add",
            "--input-file",
            "missing.json",
        ],
        &["missing.json"],
    );
    says(&["list", "--hub", "nowhere"], &["nowhere"]);

    let ended = run(&["entity", "list", "--addr", "127.0.0.1:1"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("127.0.0.1:1"), "{}", ended.err);
    // What cannot be meant never reaches a server.
    assert_eq!(run(&["entity", "list", "--limit", "0"]).code, Some(2));
}

#[test]
fn entities_of_another_hub_are_not_seen() {
    let server = Server::start(&["--task-hubs", "orders,billing"]);
    done(
        &server,
        &["signal", "@counter@a", "add", "--hub", "billing"],
    );
    assert_eq!(backlogs(&server, &[]), []);
    assert_eq!(
        backlogs(&server, &["--hub", "billing"]),
        [pair("@counter@a", 1)]
    );
    // They are no orchestrations either (S-12.3).
    assert_eq!(server.done(&["list", "--json", "--hub", "billing"]), "[]\n");
}
