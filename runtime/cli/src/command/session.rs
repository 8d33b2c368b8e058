//! What every action against a running scheduler needs: the connection, and how to print.

use anyhow::Context;
use serde_json::Value;

use crate::client::{Client, Target};
use crate::report::table;

/// A connection, for as long as one command runs.
pub struct Session {
    pub client: Client,
    /// The hub as messages name it.
    pub hub: String,
    pub json: bool,
}

impl Session {
    /// Connects and runs one action to its end.
    pub fn run(
        target: &Target,
        json: bool,
        action: impl AsyncFnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the async runtime cannot start")?;
        runtime.block_on(async {
            let mut session = Self {
                client: target.connect().await?,
                hub: target.hub_name().to_owned(),
                json,
            };
            action(&mut session).await
        })
    }

    /// Prints an answer, in whichever form was asked for.
    pub fn say(&self, text: &str, json: Value) {
        if self.json {
            table::print_json(&json);
        } else {
            table::print_line(text);
        }
    }
}
