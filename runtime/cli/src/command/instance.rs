//! `mainspring instance …`: one file for what starts and steers, one for what looks.

mod look;
mod steer;

use anyhow::Context;
use clap::{Args, Subcommand};
use mainspring_proto::{GetInstanceRequest, OrchestrationState};
use serde_json::json;
use tonic::Status;

use super::session::Session;
use crate::client::{Target, failure};
use crate::report::{state, table};

/// Start, watch and steer orchestrations of a running scheduler.
///
/// Ends with 0, or with 1 and a message on standard error.
#[derive(Debug, Args)]
pub struct Instance {
    #[command(flatten)]
    target: Target,

    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start an orchestration and print its id
    Start(steer::Start),
    /// List instances, oldest first
    List(look::List),
    /// Show one instance
    Get(look::Get),
    /// Show the history of the current generation
    History(look::History),
    /// Wait until an instance has ended; 1 unless it ended COMPLETED
    Wait(look::Wait),
    /// Raise an external event
    RaiseEvent(steer::RaiseEvent),
    /// Hold an instance: it gets nothing to do until it is resumed
    Suspend(steer::Hold),
    /// Let a suspended instance go on
    Resume(steer::Hold),
    /// End an instance
    Terminate(steer::Terminate),
    /// Run a failed instance again from the point of its failure
    Rewind(steer::Hold),
    /// Start an instance over, with its name, input and tags
    Restart(steer::Restart),
    /// Delete ended instances with all that is stored about them
    Purge(steer::Purge),
}

impl Instance {
    /// Connects and does what was asked for.
    pub fn run(self) -> anyhow::Result<()> {
        let action = self.action;
        Session::run(&self.target, self.json, async |session| {
            action.run(session).await
        })
    }
}

impl Action {
    async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        match self {
            Action::Start(start) => start.run(session).await,
            Action::List(list) => list.run(session).await,
            Action::Get(get) => get.run(session).await,
            Action::History(history) => history.run(session).await,
            Action::Wait(wait) => wait.run(session).await,
            Action::RaiseEvent(raise) => raise.run(session).await,
            Action::Suspend(hold) => hold.suspend(session).await,
            Action::Resume(hold) => hold.resume(session).await,
            Action::Terminate(terminate) => terminate.run(session).await,
            Action::Rewind(hold) => hold.rewind(session).await,
            Action::Restart(restart) => restart.run(session).await,
            Action::Purge(purge) => purge.run(session).await,
        }
    }
}

impl Session {
    /// The state of an instance, or nothing if there is no such instance.
    async fn find(
        &mut self,
        id: &str,
        payloads: bool,
    ) -> anyhow::Result<Option<OrchestrationState>> {
        let request = GetInstanceRequest {
            instance_id: id.to_owned(),
            get_inputs_and_outputs: payloads,
        };
        let response = self
            .client
            .get_instance(request)
            .await
            .map_err(|status| failure(&instance(id), &status))?
            .into_inner();
        Ok(response.orchestration_state.filter(|_| response.exists))
    }

    /// The state of an instance that has to exist.
    async fn get(&mut self, id: &str, payloads: bool) -> anyhow::Result<OrchestrationState> {
        self.find(id, payloads)
            .await?
            .with_context(|| format!("no instance '{id}' in task hub '{}'", self.hub))
    }
}

impl Session {
    /// Prints an instance.
    fn show(&self, state: &OrchestrationState) {
        if self.json {
            table::print_json(&state::to_json(state));
        } else {
            state::print(state);
        }
    }

    /// Reports that something was done to an instance, or why not.
    fn confirm(&self, id: &str, done: &str, answer: Result<(), Status>) -> anyhow::Result<()> {
        answer.map_err(|status| failure(&instance(id), &status))?;
        self.say(&format!("{done} {id}"), json!({ "instanceId": id }));
        Ok(())
    }
}

/// The subject of a message about an instance.
fn instance(id: &str) -> String {
    format!("instance '{id}'")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use crate::command::Arguments;

    fn accepts(line: &str) -> bool {
        Arguments::try_parse_from(line.split_whitespace()).is_ok()
    }

    #[test]
    fn every_action_reads_its_arguments() {
        for line in [
            "mainspring instance start Order --id order-17 --input {} --version 2 --tag a=b --tag c=d",
            "mainspring instance start Order --at 2030-01-01T00:00:00Z",
            "mainspring instance start Order --after 1h30m --wait --timeout 10s",
            "mainspring instance list --status failed --status running --prefix order- --limit 5",
            "mainspring instance list --created-from 2030-01-01 --created-to 2030-02-01 --payloads",
            "mainspring instance get order-17",
            "mainspring instance history order-17 --json",
            "mainspring instance wait order-17 --timeout 10s --started",
            "mainspring instance raise-event order-17 approval --input true",
            "mainspring instance suspend order-17 --reason audit",
            "mainspring instance resume order-17",
            "mainspring instance terminate order-17 --output null --recursive",
            "mainspring instance rewind order-17 --reason fixed",
            "mainspring instance restart order-17 --new-id",
            "mainspring instance purge order-17 order-18 --recursive",
            "mainspring instance purge --status completed --created-to 2030-01-01",
            "mainspring instance --addr localhost:1 get order-17 --hub second --token t",
        ] {
            assert!(accepts(line), "{line}");
        }
    }

    #[test]
    fn contradictions_and_omissions_are_refused() {
        for line in [
            "mainspring instance",
            "mainspring instance start",
            "mainspring instance start Order --at 2030-01-01 --after 1h",
            "mainspring instance start Order --input 1 --input-file x",
            "mainspring instance start Order --timeout 10s",
            "mainspring instance list --status lost",
            "mainspring instance get",
            "mainspring instance raise-event order-17",
            "mainspring instance purge",
            "mainspring instance purge order-17 --status completed",
        ] {
            assert!(!accepts(line), "{line}");
        }
    }
}
