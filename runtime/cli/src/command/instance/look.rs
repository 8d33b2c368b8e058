//! Actions that change nothing: list, get, history, wait.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use mainspring_proto::{
    GetInstanceRequest, InstanceQuery, OrchestrationState, QueryInstancesRequest,
    StreamInstanceHistoryRequest,
};
use prost_types::Timestamp;
use serde_json::Value;
use tonic::{Code, Request};

use super::{Session, instance};
use crate::client::failure;
use crate::quantity;
use crate::report::state::{self, StatusName, status_name};
use crate::report::{history, table};

#[derive(Debug, Args)]
pub struct List {
    /// Only instances with this status; may be given more than once
    #[arg(long = "status", value_name = "STATUS")]
    statuses: Vec<StatusName>,

    /// Only instances whose id begins with this
    #[arg(long)]
    prefix: Option<String>,

    /// Only instances created at or after this time
    #[arg(long, value_name = "TIME", value_parser = quantity::time)]
    created_from: Option<Timestamp>,

    /// Only instances created at or before this time
    #[arg(long, value_name = "TIME", value_parser = quantity::time)]
    created_to: Option<Timestamp>,

    /// Show at most this many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    /// Read inputs, outputs, custom statuses and failures, too (shown with --json)
    #[arg(long)]
    payloads: bool,
}

impl List {
    pub async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut states = Vec::new();
        let mut token = None;
        loop {
            let wanted = i32::try_from(limit - states.len()).unwrap_or(i32::MAX);
            let page = session
                .client
                .query_instances(self.page(wanted, token))
                .await
                .map_err(|status| failure("list", &status))?
                .into_inner();
            states.extend(page.orchestration_state);
            token = page.continuation_token;
            if token.is_none() || states.len() >= limit {
                break;
            }
        }
        let has_more = token.is_some() || states.len() > limit;
        states.truncate(limit);
        if session.json {
            let states: Vec<Value> = states.iter().map(state::to_json).collect();
            table::print_json(&Value::Array(states));
        } else {
            table::print(&state::HEADINGS, states.iter().map(state::to_row));
        }
        if has_more {
            eprintln!("there are more: see --limit");
        }
        Ok(())
    }

    fn page(&self, size: i32, token: Option<String>) -> QueryInstancesRequest {
        QueryInstancesRequest {
            query: Some(InstanceQuery {
                runtime_status: self.statuses.iter().map(|status| status.wire()).collect(),
                created_time_from: self.created_from,
                created_time_to: self.created_to,
                max_instance_count: size,
                continuation_token: token,
                instance_id_prefix: self.prefix.clone(),
                fetch_inputs_and_outputs: self.payloads,
                ..Default::default()
            }),
        }
    }
}

#[derive(Debug, Args)]
pub struct Get {
    /// Instance id
    id: String,
}

impl Get {
    pub async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        let state = session.get(&self.id, true).await?;
        session.show(&state);
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct History {
    /// Instance id
    id: String,
    /// Fail unless this is the current generation
    #[arg(long)]
    execution_id: Option<String>,
}

impl History {
    pub async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        let request = StreamInstanceHistoryRequest {
            instance_id: self.id.clone(),
            execution_id: self.execution_id,
            for_work_item_processing: false,
        };
        let subject = instance(&self.id);
        let mut chunks = session
            .client
            .stream_instance_history(request)
            .await
            .map_err(|status| failure(&subject, &status))?
            .into_inner();
        let mut events = Vec::new();
        while let Some(chunk) = chunks
            .message()
            .await
            .map_err(|status| failure(&subject, &status))?
        {
            events.extend(chunk.events);
        }
        if session.json {
            let events: Vec<Value> = events.iter().map(history::to_json).collect();
            table::print_json(&Value::Array(events));
        } else {
            table::print(&history::HEADINGS, events.iter().map(history::to_row));
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct Wait {
    /// Instance id
    id: String,

    /// Give up after this long
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration)]
    timeout: Option<Duration>,

    /// Wait for the start only: the instance has run at least once
    #[arg(long)]
    started: bool,
}

impl Wait {
    pub fn for_end(id: String, timeout: Option<Duration>) -> Self {
        Self {
            id,
            timeout,
            started: false,
        }
    }

    pub async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        // The scheduler waits for instances that do not exist yet (S-11.6), which looks like a hang after a mistyped id.
        if session.find(&self.id, false).await?.is_none() {
            eprintln!(
                "no instance '{}' yet in task hub '{}': waiting for it",
                self.id, session.hub
            );
        }
        let state = self.ask(session).await?;
        session.show(&state);
        let status = status_name(state.orchestration_status);
        if !self.started && status != "COMPLETED" {
            match state.failure_details {
                Some(details) => bail!(
                    "{} ended {status}: {}",
                    instance(&self.id),
                    details.error_message
                ),
                None => bail!("{} ended {status}", instance(&self.id)),
            }
        }
        Ok(())
    }

    async fn ask(&self, session: &mut Session) -> anyhow::Result<OrchestrationState> {
        let mut request = Request::new(GetInstanceRequest {
            instance_id: self.id.clone(),
            get_inputs_and_outputs: true,
        });
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        let answer = if self.started {
            session.client.wait_for_instance_start(request).await
        } else {
            session.client.wait_for_instance_completion(request).await
        };
        let subject = instance(&self.id);
        match answer {
            Ok(response) => match response.into_inner().orchestration_state {
                Some(state) => Ok(state),
                None => bail!("{subject}: the answer holds no state"),
            },
            Err(status) if is_timeout(&status) => {
                let goal = if self.started { "started" } else { "ended" };
                match session.find(&self.id, false).await? {
                    Some(state) => {
                        let status = status_name(state.orchestration_status);
                        bail!("{subject} has not {goal} in time: it is {status}")
                    }
                    None => bail!("no instance '{}' in task hub '{}'", self.id, session.hub),
                }
            }
            Err(status) => Err(failure(&subject, &status)),
        }
    }
}

/// Both ends watch the deadline: the server says so with its own code, this side cancels its call.
fn is_timeout(status: &tonic::Status) -> bool {
    match status.code() {
        Code::DeadlineExceeded => true,
        Code::Cancelled => status.message().contains("Timeout"),
        _ => false,
    }
}
