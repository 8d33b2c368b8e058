#![allow(clippy::unwrap_used)]

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    serve: Serve,
}

/// What `mainspring serve` is told by these flags and variables.
fn config(flags: &str, variables: &[(&str, &str)]) -> anyhow::Result<Config> {
    let words = std::iter::once("serve").chain(flags.split_whitespace());
    let line = Line::try_parse_from(words)?;
    line.serve.config(|name| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn hubs(flags: &str, variables: &[(&str, &str)]) -> Vec<String> {
    config(flags, variables).unwrap().task_hubs
}

#[test]
fn without_flags_everything_has_the_servers_own_default() {
    let (ours, theirs) = (config("", &[]).unwrap(), Config::default());
    let data_dir = PathBuf::from("./mainspring-data");
    let theirs = Config { data_dir, ..theirs };
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
}

#[test]
fn sizes_and_durations_are_read_as_people_write_them() {
    let config = config(
        "--payload-bytes-max 2MiB --cache-bytes-max 64MiB --retention 30d",
        &[],
    )
    .unwrap();
    assert_eq!(config.payload_bytes_max, 2 << 20);
    assert_eq!(config.cache_bytes_max, 64 << 20);
    assert_eq!(config.retention, Some(Duration::from_secs(30 * 86_400)));
}

#[test]
fn a_flag_wins_over_the_emulators_variable() {
    let variables = [(DTS_HUBS, "x, y"), (DTS_DYNAMIC_HUBS, "true")];
    assert_eq!(hubs("", &variables), ["x", "y"]);
    assert_eq!(hubs("--task-hubs a,b", &variables), ["a", "b"]);
    assert!(config("", &variables).unwrap().dynamic_task_hubs);
    assert!(
        !config("--dynamic-task-hubs=false", &variables)
            .unwrap()
            .dynamic_task_hubs
    );
    assert!(
        config("--dynamic-task-hubs", &[])
            .unwrap()
            .dynamic_task_hubs
    );
}

#[test]
fn a_list_of_hubs_that_names_none_means_the_default() {
    assert_eq!(hubs("", &[(DTS_HUBS, " , ")]), ["default"]);
}

#[test]
fn a_variable_that_is_neither_true_nor_false_is_named() {
    let error = config("", &[(DTS_DYNAMIC_HUBS, "maybe")]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("DTS_USE_DYNAMIC_TASK_HUBS=maybe"),
        "{error}"
    );
}

/// S-1.6.
#[test]
fn requests_without_a_hub_go_to_default_or_else_to_the_first_hub() {
    let fallback = |flags| config(flags, &[]).unwrap().fallback_hub;
    assert_eq!(
        fallback("--task-hubs a,Default"),
        Some("default".to_owned())
    );
    assert_eq!(fallback("--task-hubs a,b"), Some("a".to_owned()));
    assert_eq!(
        fallback("--task-hubs a,b --fallback-hub b"),
        Some("b".to_owned())
    );
    assert_eq!(fallback("--fallback-hub="), None);
}

#[test]
fn a_lease_of_zero_lasts_as_long_as_its_stream() {
    let config = config("--orchestration-lease-max 0s --activity-lease-max 10m", &[]).unwrap();
    assert_eq!(config.orchestration_lease_max, None);
    assert_eq!(config.activity_lease_max, Some(Duration::from_secs(600)));
}

#[test]
fn what_is_true_by_default_can_be_set_to_false() {
    let is_error = |flags| config(flags, &[]).unwrap().purge_active_is_error;
    assert!(is_error(""));
    assert!(!is_error("--purge-active-is-error false"));
}

#[test]
fn half_of_a_pair_and_both_of_an_alternative_are_refused() {
    for flags in [
        "--tls-cert a.pem",
        "--tls-key a.key",
        "--token t --token-file f",
        "--payload-bytes-max lots",
        "--retention soon",
        "--grpc-addr localhost",
    ] {
        assert!(config(flags, &[]).is_err(), "{flags}");
    }
}

#[test]
fn an_address_of_all_interfaces_is_announced_as_one_that_can_be_dialled() {
    let dialled = |text: &str| reachable(text.parse().unwrap()).to_string();
    assert_eq!(dialled("0.0.0.0:8080"), "127.0.0.1:8080");
    assert_eq!(dialled("[::]:8080"), "[::1]:8080");
    assert_eq!(dialled("192.0.2.1:8080"), "192.0.2.1:8080");
}
