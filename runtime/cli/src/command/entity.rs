//! `mainspring entity …`: lists, shows and signals entities.
//!
//! An entity is named by its id, `@name@key`, as lists show it. The first '@' may be left out, as in a list's prefix:
//! some shells read it as their own.

use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use mainspring_proto::{
    EntityMetadata, EntityQuery, GetEntityRequest, QueryEntitiesRequest, QueryEntitiesResponse,
    SignalEntityRequest,
};
use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use super::payload::Payload;
use super::session::Session;
use crate::client::{Target, failure};
use crate::quantity;
use crate::report::{entity, table};

/// List, show and signal entities of a running scheduler.
///
/// Ends with 0, or with 1 and a message on standard error.
#[derive(Debug, Args)]
pub struct Entity {
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
    /// List entities that have a state, in order of their ids
    List(List),
    /// Show one entity
    Get(Get),
    /// Ask an entity for an operation, without waiting for it
    Signal(Signal),
}

impl Entity {
    /// Connects and does what was asked for.
    pub fn run(self) -> anyhow::Result<()> {
        let action = self.action;
        Session::run(&self.target, self.json, async |session| match action {
            Action::List(list) => list.run(session).await,
            Action::Get(get) => get.run(session).await,
            Action::Signal(signal) => signal.run(session).await,
        })
    }
}

#[derive(Debug, Args)]
struct List {
    /// Only entities whose id begins with this; @counter@ for all that are named counter
    #[arg(long)]
    prefix: Option<String>,

    /// Only entities modified at or after this time
    #[arg(long, value_name = "TIME", value_parser = quantity::time)]
    modified_from: Option<Timestamp>,

    /// Only entities modified at or before this time
    #[arg(long, value_name = "TIME", value_parser = quantity::time)]
    modified_to: Option<Timestamp>,

    /// Also entities that have no state, but a lock or operations waiting for them
    #[arg(long)]
    transient: bool,

    /// Show states, too
    #[arg(long)]
    state: bool,

    /// Show at most this many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl List {
    async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut entities = Vec::new();
        let mut token = None;
        loop {
            let wanted = i32::try_from(limit - entities.len()).unwrap_or(i32::MAX);
            let page = query(session, "list", self.page(wanted, token)).await?;
            entities.extend(page.entities);
            token = page.continuation_token;
            if token.is_none() || entities.len() >= limit {
                break;
            }
        }
        let has_more = token.is_some() || entities.len() > limit;
        entities.truncate(limit);
        if session.json {
            let entities: Vec<Value> = entities.iter().map(entity::to_json).collect();
            table::print_json(&Value::Array(entities));
        } else if self.state {
            let rows = entities.iter().map(entity::to_row_with_state);
            table::print(&entity::HEADINGS_WITH_STATE, rows);
        } else {
            table::print(&entity::HEADINGS, entities.iter().map(entity::to_row));
        }
        if has_more {
            eprintln!("there are more: see --limit");
        }
        Ok(())
    }

    fn page(&self, size: i32, token: Option<String>) -> EntityQuery {
        EntityQuery {
            instance_id_starts_with: self.prefix.clone(),
            last_modified_from: self.modified_from,
            last_modified_to: self.modified_to,
            include_state: self.state,
            include_transient: self.transient,
            page_size: Some(size),
            continuation_token: token,
        }
    }
}

#[derive(Debug, Args)]
struct Get {
    /// Entity id: @name@key
    #[arg(value_parser = entity_id)]
    id: String,

    /// Show its state, too
    #[arg(long)]
    state: bool,
}

impl Get {
    async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        let request = GetEntityRequest {
            instance_id: self.id.clone(),
            include_state: self.state,
        };
        let response = session
            .client
            .get_entity(request)
            .await
            .map_err(|status| failure(&subject(&self.id), &status))?
            .into_inner();
        let Some(entity) = response.entity.filter(|_| response.exists) else {
            return Err(self.missing(session).await?);
        };
        if session.json {
            table::print_json(&entity::to_json(&entity));
        } else {
            entity::print(&entity);
        }
        Ok(())
    }

    /// Why there is nothing to show. To the scheduler an entity exists once it has a state (S-12.6); people who have just
    /// signaled one that no worker serves want to know that the signal is there.
    async fn missing(&self, session: &mut Session) -> anyhow::Result<anyhow::Error> {
        // Ids that only begin with this one come after it (S-12.39).
        let first = EntityQuery {
            instance_id_starts_with: Some(self.id.clone()),
            include_transient: true,
            page_size: Some(1),
            ..Default::default()
        };
        let page = query(session, &subject(&self.id), first).await?;
        let found = page.entities.into_iter().find(|found| self.is(found));
        let mut traces = Vec::new();
        if let Some(entity) = found {
            if entity.backlog_queue_size > 0 {
                traces.push(format!("its backlog is {}", entity.backlog_queue_size));
            }
            traces.extend(entity.locked_by.map(|id| format!("'{id}' holds its lock")));
        }
        Ok(match traces.is_empty() {
            true => anyhow!("no entity '{}' in task hub '{}'", self.id, session.hub),
            false => anyhow!(
                "{} has no state in task hub '{}': {}",
                subject(&self.id),
                session.hub,
                traces.join(", ")
            ),
        })
    }

    /// Whether this is the entity asked for, given that its id begins likewise: names have no case (S-12.2).
    fn is(&self, found: &EntityMetadata) -> bool {
        found.instance_id.to_lowercase() == self.id.to_lowercase()
    }
}

#[derive(Debug, Args)]
struct Signal {
    /// Entity id: @name@key; it need not exist
    #[arg(value_parser = entity_id)]
    id: String,

    /// Name of the operation
    operation: String,

    #[command(flatten)]
    input: Payload,

    /// Not before this time
    #[arg(long, value_name = "TIME", value_parser = quantity::time, conflicts_with = "after")]
    at: Option<Timestamp>,

    /// Not before this long from now
    #[arg(long, visible_alias = "in", value_name = "DURATION", value_parser = quantity::duration)]
    after: Option<Duration>,

    /// Names the request: sent twice within a minute, it counts once; the scheduler makes one up when absent
    #[arg(long, value_name = "GUID")]
    request_id: Option<String>,
}

impl Signal {
    async fn run(self, session: &mut Session) -> anyhow::Result<()> {
        let scheduled_time = match (self.at, self.after) {
            (Some(at), _) => Some(at),
            (None, Some(delay)) => Some(quantity::from_now(delay).map_err(anyhow::Error::msg)?),
            (None, None) => None,
        };
        let request = SignalEntityRequest {
            instance_id: self.id.clone(),
            name: self.operation.clone(),
            input: self.input.read()?,
            request_id: self.request_id.clone().unwrap_or_default(),
            scheduled_time,
            ..Default::default()
        };
        session
            .client
            .signal_entity(request)
            .await
            .map_err(|status| failure(&subject(&self.id), &status))?;
        let mut text = format!("signaled '{}' to {}", self.operation, self.id);
        let mut fields = Map::new();
        fields.insert("instanceId".to_owned(), json!(self.id));
        fields.insert("name".to_owned(), json!(self.operation));
        if let Some(request_id) = self.request_id {
            fields.insert("requestId".to_owned(), json!(request_id));
        }
        if let Some(time) = scheduled_time {
            text.push_str(&format!(", not before {time}"));
            fields.insert("scheduledTime".to_owned(), json!(time.to_string()));
        }
        session.say(&text, Value::Object(fields));
        Ok(())
    }
}

async fn query(
    session: &mut Session,
    subject: &str,
    query: EntityQuery,
) -> anyhow::Result<QueryEntitiesResponse> {
    let request = QueryEntitiesRequest { query: Some(query) };
    let answer = session.client.query_entities(request).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| failure(subject, &status))
}

/// The subject of a message about an entity.
fn subject(id: &str) -> String {
    format!("entity '{id}'")
}

/// Puts the first '@' where it belongs. Whether this is an entity's id is for the scheduler to say.
fn entity_id(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(match text.starts_with('@') {
        true => text.to_owned(),
        false => format!("@{text}"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;
    use crate::command::Arguments;

    fn accepts(line: &str) -> bool {
        Arguments::try_parse_from(line.split_whitespace()).is_ok()
    }

    #[test]
    fn every_action_reads_its_arguments() {
        for line in [
            "mainspring entity list",
            "mainspring entity list --prefix @counter@ --transient --state --limit 5 --json",
            "mainspring entity list --modified-from 2030-01-01 --modified-to 2030-02-01T12:00:00Z",
            "mainspring entity get @counter@a --state --json",
            "mainspring entity signal @counter@a add --input 1",
            "mainspring entity signal @counter@a add --input-file - --at 2030-01-01",
            "mainspring entity signal @counter@a add --after 1h30m --request-id 0af7651916cd43dd8448eb211c80319c",
            "mainspring entity signal @counter@a add --in 10s",
            "mainspring entity --addr localhost:1 get @counter@a --hub second --token t",
        ] {
            assert!(accepts(line), "{line}");
        }
    }

    #[test]
    fn contradictions_and_omissions_are_refused() {
        for line in [
            "mainspring entity",
            "mainspring entity list --limit 0",
            "mainspring entity list --modified-from tomorrow",
            "mainspring entity get",
            "mainspring entity signal @counter@a",
            "mainspring entity signal @counter@a add --input 1 --input-file x",
            "mainspring entity signal @counter@a add --at 2030-01-01 --after 1h",
        ] {
            assert!(!accepts(line), "{line}");
        }
    }

    #[test]
    fn the_first_at_sign_of_an_id_may_be_left_out() {
        for (typed, meant) in [
            ("@counter@a", "@counter@a"),
            ("counter@a", "@counter@a"),
            ("Counter@a@b", "@Counter@a@b"),
        ] {
            assert_eq!(entity_id(typed), Ok(meant.to_owned()));
        }
    }
}
