//! Actions that change something: start, raise, suspend, resume, terminate, rewind, restart, purge.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use mainspring_proto::purge_instances_request::Request as Selection;
use mainspring_proto::{
    CreateInstanceRequest, InstanceBatch, PurgeInstanceFilter, PurgeInstancesRequest,
    RaiseEventRequest, RestartInstanceRequest, ResumeRequest, RewindInstanceRequest,
    SuspendRequest, TerminateRequest,
};
use prost_types::Timestamp;
use serde_json::json;

use super::look::Wait;
use super::{Session, instance};
use crate::client::failure;
use crate::command::payload::Payload;
use crate::quantity;
use crate::report::state::{StatusName, is_terminal, status_name};

/// Most ids that one purge request may name.
const BATCH_IDS_MAX: usize = 500;

#[derive(Debug, Args)]
pub struct Start {
    /// Name of the orchestrator
    name: String,

    /// Instance id; the scheduler makes one up when absent
    #[arg(long)]
    id: Option<String>,

    #[command(flatten)]
    input: Payload,

    /// Version of the orchestrator
    #[arg(long)]
    version: Option<String>,

    /// Start no earlier than this time
    #[arg(long, value_name = "TIME", value_parser = quantity::time, conflicts_with = "after")]
    at: Option<Timestamp>,

    /// Start no earlier than this long from now
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration)]
    after: Option<Duration>,

    /// A tag; may be given more than once
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = quantity::tag)]
    tags: Vec<(String, String)>,

    /// Wait until the instance has ended, then show it
    #[arg(long)]
    wait: bool,

    /// Give up waiting after this long
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration, requires = "wait")]
    timeout: Option<Duration>,
}

impl Start {
    pub async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        let start_at = match (self.at, self.after) {
            (Some(at), _) => Some(at),
            (None, Some(delay)) => Some(quantity::from_now(delay).map_err(anyhow::Error::msg)?),
            (None, None) => None,
        };
        let request = CreateInstanceRequest {
            instance_id: self.id.unwrap_or_default(),
            name: self.name.clone(),
            version: self.version,
            input: self.input.read()?,
            scheduled_start_timestamp: start_at,
            tags: self.tags.into_iter().collect(),
            ..Default::default()
        };
        let subject = match request.instance_id.as_str() {
            "" => format!("orchestration '{}'", self.name),
            id => instance(id),
        };
        let id = session
            .client
            .start_instance(request)
            .await
            .map_err(|status| failure(&subject, &status))?
            .into_inner()
            .instance_id;
        if self.wait {
            return Wait::for_end(id, self.timeout).run(session).await;
        }
        session.say(&id, json!({ "instanceId": id }));
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct RaiseEvent {
    /// Instance id
    id: String,
    /// Name of the event
    name: String,
    #[command(flatten)]
    input: Payload,
}

impl RaiseEvent {
    pub async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        // The scheduler takes an event for an instance that is missing or has ended and drops it (S-8.4); people want to know.
        let state = session.get(&self.id, false).await?;
        if is_terminal(state.orchestration_status) {
            let status = status_name(state.orchestration_status);
            bail!(
                "{} is {status} and takes no more events",
                instance(&self.id)
            );
        }
        let request = RaiseEventRequest {
            instance_id: self.id.clone(),
            name: self.name.clone(),
            input: self.input.read()?,
        };
        session
            .client
            .raise_event(request)
            .await
            .map_err(|status| failure(&instance(&self.id), &status))?;
        let text = format!("raised '{}' for {}", self.name, self.id);
        session.say(&text, json!({ "instanceId": self.id, "name": self.name }));
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct Hold {
    /// Instance id
    id: String,
    /// Why; kept in the history
    #[arg(long)]
    reason: Option<String>,
}

impl Hold {
    pub async fn suspend(self, session: &mut Session) -> anyhow::Result<()> {
        let request = SuspendRequest {
            instance_id: self.id.clone(),
            reason: self.reason,
        };
        let answer = session.client.suspend_instance(request).await.map(drop);
        session.confirm(&self.id, "suspended", answer)
    }

    pub async fn resume(self, session: &mut Session) -> anyhow::Result<()> {
        let request = ResumeRequest {
            instance_id: self.id.clone(),
            reason: self.reason,
        };
        let answer = session.client.resume_instance(request).await.map(drop);
        session.confirm(&self.id, "resumed", answer)
    }

    pub async fn rewind(self, session: &mut Session) -> anyhow::Result<()> {
        let request = RewindInstanceRequest {
            instance_id: self.id.clone(),
            reason: self.reason,
        };
        let answer = session.client.rewind_instance(request).await.map(drop);
        session.confirm(&self.id, "rewound", answer)
    }
}

#[derive(Debug, Args)]
pub struct Terminate {
    /// Instance id
    id: String,
    /// Output of the instance, as JSON text
    #[arg(long, value_name = "JSON")]
    output: Option<String>,
    /// Terminate the active instances that it started, too
    #[arg(long)]
    recursive: bool,
}

impl Terminate {
    pub async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        // Terminating what is missing is no error to the scheduler (S-9.9), but a mistyped id is one to people.
        session.get(&self.id, false).await?;
        let request = TerminateRequest {
            instance_id: self.id.clone(),
            output: self.output,
            recursive: self.recursive,
        };
        let answer = session.client.terminate_instance(request).await.map(drop);
        session.confirm(&self.id, "terminated", answer)
    }
}

#[derive(Debug, Args)]
pub struct Restart {
    /// Instance id
    id: String,
    /// Leave the instance as it is and start a copy with an id of its own
    #[arg(long)]
    new_id: bool,
}

impl Restart {
    pub async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        let request = RestartInstanceRequest {
            instance_id: self.id.clone(),
            restart_with_new_instance_id: self.new_id,
        };
        let id = session
            .client
            .restart_instance(request)
            .await
            .map_err(|status| failure(&instance(&self.id), &status))?
            .into_inner()
            .instance_id;
        session.say(&id, json!({ "instanceId": id }));
        Ok(())
    }
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("selection").required(true).multiple(true).args(["ids", "statuses", "created_from", "created_to"]))]
pub struct Purge {
    /// Instance ids
    #[arg(conflicts_with_all = ["statuses", "created_from", "created_to"])]
    ids: Vec<String>,

    /// Instances with this status; may be given more than once
    #[arg(long = "status", value_name = "STATUS")]
    statuses: Vec<StatusName>,

    /// Instances created at or after this time
    #[arg(long, value_name = "TIME", value_parser = quantity::time)]
    created_from: Option<Timestamp>,

    /// Instances created at or before this time
    #[arg(long, value_name = "TIME", value_parser = quantity::time)]
    created_to: Option<Timestamp>,

    /// Purge the instances that they started, too
    #[arg(long)]
    recursive: bool,
}

impl Purge {
    pub async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        let mut count = 0_i64;
        let mut is_complete = true;
        for selection in self.selections() {
            let subject = match &selection {
                Selection::InstanceId(id) => instance(id),
                _ => "purge".to_owned(),
            };
            let single = match &selection {
                Selection::InstanceId(id) => Some(id.clone()),
                _ => None,
            };
            let request = PurgeInstancesRequest {
                request: Some(selection),
                recursive: self.recursive,
                is_orchestration: true,
            };
            let response = session
                .client
                .purge_instances(request)
                .await
                .map_err(|status| failure(&subject, &status))?
                .into_inner();
            if let (0, Some(id)) = (response.deleted_instance_count, single) {
                bail!("no instance '{id}' in task hub '{}'", session.hub);
            }
            count += i64::from(response.deleted_instance_count);
            is_complete &= response.is_complete.unwrap_or(true);
        }
        let text = match count {
            1 => "purged 1 instance".to_owned(),
            count => format!("purged {count} instances"),
        };
        session.say(
            &text,
            json!({ "deletedInstanceCount": count, "isComplete": is_complete }),
        );
        Ok(())
    }

    /// One id is asked for by name, so that an active instance is an error rather than skipped (S-11.18, S-11.21).
    fn selections(&self) -> Vec<Selection> {
        match self.ids.as_slice() {
            [] => vec![Selection::PurgeInstanceFilter(PurgeInstanceFilter {
                created_time_from: self.created_from,
                created_time_to: self.created_to,
                runtime_status: self.statuses.iter().map(|status| status.wire()).collect(),
                timeout: None,
            })],
            [id] => vec![Selection::InstanceId(id.clone())],
            ids => ids
                .chunks(BATCH_IDS_MAX)
                .map(|ids| {
                    Selection::InstanceBatch(InstanceBatch {
                        instance_ids: ids.to_vec(),
                    })
                })
                .collect(),
        }
    }
}
