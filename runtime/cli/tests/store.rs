//! `mainspring store …` and `mainspring completion …` as processes.

#![allow(clippy::unwrap_used)]

mod process;

use process::{Server, mainspring, run, text};
use rustix::process::Signal;

#[test]
fn a_stopped_folder_is_checked_backed_up_and_served_from_its_backup() {
    let mut server = Server::start(&[]);
    server.done(&["start", "n", "--id", "a", "--input", "1"]);
    let folder = text(&server.data_dir());
    let in_use = run(&["store", "check", "--data-dir", &folder]);
    assert_eq!(in_use.code, Some(1));
    assert!(in_use.err.contains(&folder), "{}", in_use.err);

    server.stop(Signal::TERM);
    let checked = run(&["store", "check", "--data-dir", &folder]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    assert!(checked.out.contains("sound"), "{}", checked.out);

    let copy = text(&server.folder.path().join("copy"));
    let backed_up = run(&["store", "backup", "--data-dir", &folder, "--to", &copy]);
    assert_eq!(
        backed_up.code,
        Some(0),
        "{}{}",
        backed_up.out,
        backed_up.err
    );
    std::fs::remove_dir_all(server.data_dir()).unwrap();
    std::fs::rename(&copy, server.data_dir()).unwrap();
    server.restart();
    assert!(server.done(&["get", "a"]).contains("PENDING"));
}

#[test]
fn repairing_what_is_sound_changes_nothing() {
    let mut server = Server::start(&[]);
    server.done(&["start", "n", "--id", "a"]);
    server.stop(Signal::TERM);
    let repaired = run(&["store", "repair", "--data-dir", &text(&server.data_dir())]);
    assert_eq!(repaired.code, Some(0), "{}{}", repaired.out, repaired.err);
    server.restart();
    server.done(&["get", "a"]);
}

#[test]
fn a_folder_without_a_store_is_an_error_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let missing = text(&folder.path().join("missing"));
    for action in ["check", "repair"] {
        let ended = run(&["store", action, "--data-dir", &missing]);
        assert_eq!(ended.code, Some(1), "{action}");
        assert!(ended.err.contains(&missing), "{}", ended.err);
    }
    assert!(!folder.path().join("missing").exists());
}

#[test]
fn completion_scripts_know_the_subcommands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completion", shell]);
        assert_eq!(script.code, Some(0), "{shell}");
        for word in ["serve", "instance", "raise-event", "data-dir"] {
            assert!(script.out.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(
        mainspring()
            .args(["completion", "tcsh"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(2)
    );
}
