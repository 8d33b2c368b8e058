//! The process is killed at each step of a run of ten, with two tools and an approval, and started again on the same folder.
//!
//! Each life is a process of its own (`crash/life.rs`), which kills itself at a given point: before or after a call of the model or of a
//! tool has had its effect, or after its result is durable. All calls are counted by their idempotency key in a file that is only ever
//! appended to, as an outside service would.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// The program is built beside the tests, as an example of this package.
fn life(folder: &Path, kill_at: Option<&str>) -> ExitStatus {
    let tests = std::env::current_exe().unwrap();
    let target = tests.parent().and_then(Path::parent).unwrap();
    let program: PathBuf = target.join("examples/agents_life");
    assert!(
        program.exists(),
        "{} does not exist: build it with `cargo build -p mainspring-agents --examples`",
        program.display()
    );
    let mut command = Command::new(program);
    command.arg(folder);
    if let Some(point) = kill_at {
        command.arg(point);
    }
    command.status().unwrap()
}

/// How often each line was written, in the order in which it first was.
fn counted(folder: &Path) -> BTreeMap<String, usize> {
    let lines = std::fs::read_to_string(folder.join("calls")).unwrap_or_default();
    let mut counts = BTreeMap::new();
    for line in lines.lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

/// The calls of the run, as its script has them: five of the model, four of tools, an approval between.
const CALLS: [&str; 9] = [
    "model/1", "tool/1", "model/2", "tool/2", "tool/3", "model/3", "tool/4", "model/4", "model/5",
];

#[test]
fn no_call_is_made_again_after_its_checkpoint_wherever_the_process_is_killed() {
    // What an undisturbed run does.
    let folder = tempfile::tempdir().unwrap();
    assert!(life(folder.path(), None).success());
    let whole = counted(folder.path());
    assert_eq!(whole.len(), CALLS.len() + 1, "{whole:?}");
    assert!(whole.values().all(|times| *times == 1), "{whole:?}");

    for call in CALLS {
        for moment in ["begun", "done", "durable"] {
            let point = format!("{moment}:{call}");
            let folder = tempfile::tempdir().unwrap();
            let killed = life(folder.path(), Some(&point));
            assert!(!killed.success(), "{point}: it was to be killed");
            assert!(life(folder.path(), None).success(), "{point}");
            check(&point, call, moment, &counted(folder.path()));
        }
    }
    // While a person is waited for, and once they have answered.
    for point in ["asked", "answered"] {
        let folder = tempfile::tempdir().unwrap();
        assert!(!life(folder.path(), Some(point)).success(), "{point}");
        assert!(life(folder.path(), None).success(), "{point}");
        check(point, "", "durable", &counted(folder.path()));
    }
}

/// The call at which it was killed is made twice if it had its effect and its result was not durable; all others once. The fourth tool
/// call is never repeated by itself, and the person who is asked finds out that it was made.
fn check(point: &str, call: &str, moment: &str, counts: &BTreeMap<String, usize>) {
    assert_eq!(counts.len(), CALLS.len() + 1, "{point}: {counts:?}");
    for (key, times) in counts {
        let is_of_call = !call.is_empty() && key.ends_with(call);
        match (is_of_call, moment) {
            (true, "done") if call != "tool/4" => {
                assert_eq!(*times, 2, "{point}: {key} is repeated with its key")
            }
            _ => assert_eq!(*times, 1, "{point}: {key}"),
        }
    }
}
