//! The log of a serving process: to standard error, for people on a terminal, as JSON otherwise.

use std::env;
use std::io::{self, IsTerminal};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Variables that hold a filter such as `info,mainspring_host=debug`, first found first used.
const FILTER_VARIABLES: [&str; 2] = ["MAINSPRING_LOG", "RUST_LOG"];

/// The storage engine tells at `info` what concerns its own authors.
const FILTER_DEFAULT: &str = "info,fjall=warn,lsm_tree=warn";

/// Starts logging for the whole process. Fails when a filter variable cannot be read, naming it.
pub fn start() -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter()?)
        .with_writer(io::stderr);
    let is_terminal = io::stderr().is_terminal();
    let started = if is_terminal {
        builder.with_ansi(true).try_init()
    } else {
        // One flat object a line, with the fields of the enclosing span, which name hub, instance and generation.
        builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init()
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot start: {error}"))
}

fn filter() -> anyhow::Result<EnvFilter> {
    for variable in FILTER_VARIABLES {
        match env::var(variable) {
            Ok(text) if !text.trim().is_empty() => {
                return EnvFilter::try_new(&text)
                    .with_context(|| format!("{variable}={text} is no log filter"));
            }
            _ => {}
        }
    }
    Ok(EnvFilter::new(FILTER_DEFAULT))
}
