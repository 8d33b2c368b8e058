//! What a client asks of the server: to run an orchestration to its end, to signal an entity, to list states.

use std::time::Duration;

use anyhow::{Context, ensure};
use mainspring_proto::{
    CreateInstanceRequest, CreateInstanceResponse, EntityQuery, GetInstanceRequest,
    GetInstanceResponse, OrchestrationStatus, QueryEntitiesRequest, QueryEntitiesResponse,
    SignalEntityRequest, SignalEntityResponse,
};

use crate::grpc::{Connection, Method};
use crate::sdk::Inside;

/// An operation that takes longer has failed.
pub const OPERATION_LIMIT: Duration = Duration::from_secs(120);

/// Entities in one page of a listing.
const PAGE: i32 = 1_000;

/// A client of what is measured. A clone shares its connection.
#[derive(Clone)]
pub enum Client {
    /// Over the published protocol.
    Lean(Box<Lean>),
    /// In the scheduler's own process.
    Inside(Inside),
}

impl Client {
    /// Connects to `HOST:PORT`.
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        let client = Lean::connect(address).await?;
        Ok(Self::Lean(Box::new(client)))
    }

    /// Starts an orchestration, waits for its end and returns its output. Fails unless it completed.
    pub async fn run(&mut self, name: &str, input: &str) -> anyhow::Result<String> {
        match self {
            Self::Lean(client) => client.run(name, input).await,
            Self::Inside(client) => client.run(name, input, OPERATION_LIMIT).await,
        }
    }

    /// Signals an entity with a number. `number` tells this signal from all others to the same entity.
    pub async fn signal(
        &mut self,
        entity: String,
        operation: &str,
        input: u64,
        number: usize,
    ) -> anyhow::Result<()> {
        match self {
            Self::Lean(client) => {
                let input = input.to_string();
                client.signal(entity, operation, &input, number).await
            }
            Self::Inside(client) => client.signal(&entity, operation, input).await,
        }
    }

    /// States of all entities whose id begins with `prefix`.
    pub async fn entity_states(&mut self, prefix: &str) -> anyhow::Result<Vec<String>> {
        match self {
            Self::Lean(client) => client.entity_states(prefix).await,
            Self::Inside(client) => client.entity_states(prefix).await,
        }
    }
}

/// A client on one connection that does no more than the protocol wants.
#[derive(Clone)]
pub struct Lean {
    connection: Connection,
    start: Method,
    wait: Method,
    signal: Method,
    query_entities: Method,
}

impl Lean {
    async fn connect(address: &str) -> anyhow::Result<Self> {
        let connection = Connection::open(address).await?;
        Ok(Self {
            start: connection.method("StartInstance")?,
            wait: connection
                .method("WaitForInstanceCompletion")?
                .with_timeout(OPERATION_LIMIT)?,
            signal: connection.method("SignalEntity")?,
            query_entities: connection.method("QueryEntities")?,
            connection,
        })
    }

    async fn run(&mut self, name: &str, input: &str) -> anyhow::Result<String> {
        let start = CreateInstanceRequest {
            name: name.to_owned(),
            input: Some(input.to_owned()),
            ..Default::default()
        };
        let started: CreateInstanceResponse = self
            .connection
            .call(&self.start, &start)
            .await
            .context("start")?;
        let wait = GetInstanceRequest {
            instance_id: started.instance_id,
            get_inputs_and_outputs: true,
        };
        let ended: GetInstanceResponse = self
            .connection
            .call(&self.wait, &wait)
            .await
            .with_context(|| wait.instance_id.clone())?;
        let state = ended
            .orchestration_state
            .with_context(|| format!("{}: no state", wait.instance_id))?;
        ensure!(
            state.orchestration_status() == OrchestrationStatus::Completed,
            "{}: ended {}",
            wait.instance_id,
            state.orchestration_status().as_str_name(),
        );
        Ok(state.output.unwrap_or_default())
    }

    async fn signal(
        &mut self,
        entity: String,
        operation: &str,
        input: &str,
        number: usize,
    ) -> anyhow::Result<()> {
        let signal = SignalEntityRequest {
            instance_id: entity,
            name: operation.to_owned(),
            input: Some(input.to_owned()),
            request_id: format!("00000000-0000-4000-9000-{number:012x}"),
            ..Default::default()
        };
        self.connection
            .call::<SignalEntityResponse>(&self.signal, &signal)
            .await
            .with_context(|| signal.instance_id)?;
        Ok(())
    }

    async fn entity_states(&mut self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let mut states = Vec::new();
        let mut query = EntityQuery {
            instance_id_starts_with: Some(prefix.to_owned()),
            include_state: true,
            page_size: Some(PAGE),
            ..Default::default()
        };
        loop {
            let request = QueryEntitiesRequest {
                query: Some(query.clone()),
            };
            let page: QueryEntitiesResponse = self
                .connection
                .call(&self.query_entities, &request)
                .await
                .context("listing entities")?;
            let listed = page.entities.into_iter();
            states.extend(listed.filter_map(|entity| entity.serialized_state));
            query.continuation_token = page.continuation_token;
            if query.continuation_token.is_none() {
                return Ok(states);
            }
        }
    }
}
