//! Entities as clients see them: signals in, state out.

use std::fmt;
use std::marker::PhantomData;
use std::time::SystemTime;

use mainspring_proto::{
    EntityMetadata, EntityQuery as WireQuery, GetEntityRequest, QueryEntitiesRequest,
    SignalEntityRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Client, question_deadline};
use crate::convert::Payloads;
use crate::entity::{Entity, EntityId, Operation};
use crate::error::Error;
use crate::time::{system_time, timestamp};

/// An entity of a known type: only operations that it has can be asked for.
///
/// With the counter that the example of [`Entity`] has:
///
/// ```no_run
/// # use mainspring_sdk::{Client, Entity, EntityContext, Operation, Operations, Result};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Default, Serialize, Deserialize)] struct Counter { value: i64 }
/// # impl Entity for Counter { fn operations(operations: &mut Operations<Self>) { operations.add::<Add>(); } }
/// # #[derive(Serialize, Deserialize)] struct Add(i64);
/// # impl Operation<Counter> for Add {
/// #     type Output = i64;
/// #     async fn apply(self, counter: &mut Counter, _: &EntityContext) -> Result<i64> { counter.value += self.0; Ok(counter.value) }
/// # }
/// # async fn run(client: Client) -> Result<(), mainspring_sdk::Error> {
/// let visits = client.entity::<Counter>("visits");
/// visits.signal(Add(1)).await?;
/// if let Some(counter) = visits.state().await? {
///     println!("{} stands at {}", visits.id(), counter.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EntityClient<E> {
    client: Client,
    id: EntityId,
    entity: PhantomData<fn() -> E>,
}

impl<E> fmt::Debug for EntityClient<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EntityClient({})", self.id)
    }
}

impl<E: Entity> EntityClient<E> {
    pub(super) fn new(client: Client, id: EntityId) -> Self {
        Self {
            client,
            id,
            entity: PhantomData,
        }
    }

    /// Its id.
    pub fn id(&self) -> &EntityId {
        &self.id
    }

    /// Asks for an operation. It is durable when this returns, and is applied later.
    ///
    /// # Errors
    ///
    /// When the operation cannot be written, or the scheduler refuses.
    pub async fn signal<Op: Operation<E>>(&self, operation: Op) -> Result<(), Error> {
        self.client
            .signal_entity(&self.id, Op::name(), operation, None)
            .await
    }

    /// Asks for an operation at a time to come.
    ///
    /// # Errors
    ///
    /// As [`EntityClient::signal`].
    pub async fn signal_at<Op: Operation<E>>(
        &self,
        at: SystemTime,
        operation: Op,
    ) -> Result<(), Error> {
        self.client
            .signal_entity(&self.id, Op::name(), operation, Some(at))
            .await
    }

    /// Its state; `None`: it has none.
    ///
    /// # Errors
    ///
    /// When the state is of another shape, or the scheduler refuses.
    pub async fn state(&self) -> Result<Option<E>, Error> {
        match self.client.entity_state(&self.id).await? {
            None => Ok(None),
            Some(state) => state.state().map(Some),
        }
    }
}

/// How an entity was when it was asked about.
///
/// ```no_run
/// # use mainspring_sdk::{Client, Result};
/// use mainspring_sdk::EntityId;
///
/// # async fn run(client: Client) -> Result<(), mainspring_sdk::Error> {
/// let visits = EntityId::new("counter", "visits");
/// if let Some(entity) = client.entity_state(&visits).await? {
///     // A program in another language may keep no more than a number.
///     let value: i64 = entity.state()?;
///     println!("{} stands at {value}, with {} operations to come", entity.id, entity.backlog);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EntityState {
    /// Its id.
    pub id: EntityId,
    /// When its state last changed.
    pub updated_at: Option<SystemTime>,
    /// Operations that have not been applied yet.
    pub backlog: u32,
    /// The orchestration whose critical section holds it.
    pub locked_by: Option<String>,
    state: Option<String>,
    payloads: Payloads,
}

impl EntityState {
    fn new(metadata: EntityMetadata, payloads: Payloads) -> Result<Self, Error> {
        Ok(Self {
            id: metadata
                .instance_id
                .parse()
                .map_err(|error| Error::Payload(format!("{error}")))?,
            updated_at: system_time(metadata.last_modified_time),
            backlog: u32::try_from(metadata.backlog_queue_size).unwrap_or(0),
            locked_by: metadata.locked_by,
            state: metadata.serialized_state,
            payloads,
        })
    }

    /// The state, read as `T`.
    ///
    /// # Errors
    ///
    /// When it is of another shape.
    pub fn state<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.payloads
            .decode(self.state.as_deref())
            .map_err(|reason| Error::Payload(format!("the state of '{}' {reason}", self.id)))
    }

    /// The state as it is stored.
    pub fn raw_state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// Which entities are looked for; the default asks for all that have a state.
///
/// ```no_run
/// # use mainspring_sdk::{Client, Result};
/// use mainspring_sdk::EntityQuery;
///
/// # async fn run(client: Client) -> Result<(), mainspring_sdk::Error> {
/// let query = EntityQuery {
///     name: Some("counter".to_owned()),
///     key_prefix: Some("page-".to_owned()),
///     ..EntityQuery::default()
/// };
/// for entity in client.entities(query).await?.entities {
///     println!("{}", entity.id);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct EntityQuery {
    /// Of this name.
    pub name: Option<String>,
    /// Whose key begins so; for this a name is needed.
    pub key_prefix: Option<String>,
    /// Whose state changed at or after.
    pub updated_from: Option<SystemTime>,
    /// Whose state changed at or before.
    pub updated_to: Option<SystemTime>,
    /// Those, too, that merely have operations waiting or are locked.
    pub include_transient: bool,
    /// Without states.
    pub without_states: bool,
    /// Entities a page; 0: the scheduler's choice.
    pub page_size: u32,
    /// Where the last page ended.
    pub continue_from: Option<String>,
}

/// One page of entities.
///
/// ```no_run
/// # use mainspring_sdk::{Client, EntityQuery, Result};
/// # async fn run(client: Client, mut query: EntityQuery) -> Result<(), mainspring_sdk::Error> {
/// loop {
///     let page = client.entities(query.clone()).await?;
///     for entity in page.entities {
///         println!("{}", entity.id);
///     }
///     if page.continue_from.is_none() {
///         break;
///     }
///     query.continue_from = page.continue_from;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct EntityPage {
    /// In order of their ids.
    pub entities: Vec<EntityState>,
    /// To be given for the next page; `None`: this was the last.
    pub continue_from: Option<String>,
}

impl Client {
    /// Asks an entity of any program for an operation, now or at a time to come.
    ///
    /// # Errors
    ///
    /// When the input cannot be written, or the scheduler refuses.
    pub async fn signal_entity(
        &self,
        entity: &EntityId,
        operation: impl Into<String>,
        input: impl Serialize,
        at: Option<SystemTime>,
    ) -> Result<(), Error> {
        let input = self
            .connection
            .payloads()
            .encode(&input)
            .map_err(Error::Payload)?;
        let request = self.connection.request(SignalEntityRequest {
            instance_id: entity.to_string(),
            name: operation.into(),
            input,
            scheduled_time: at.map(timestamp),
            ..Default::default()
        });
        self.connection.service().signal_entity(request).await?;
        Ok(())
    }

    /// How an entity of any program is; `None`: it has no state.
    ///
    /// # Errors
    ///
    /// When the scheduler refuses, or is away for longer than ten seconds.
    pub async fn entity_state(&self, entity: &EntityId) -> Result<Option<EntityState>, Error> {
        let response = self
            .patiently(question_deadline(), || async {
                let request = self.connection.request(GetEntityRequest {
                    instance_id: entity.to_string(),
                    include_state: true,
                });
                self.connection.service().get_entity(request).await
            })
            .await?
            .into_inner();
        match response.entity.filter(|_| response.exists) {
            None => Ok(None),
            Some(metadata) => {
                EntityState::new(metadata, self.connection.payloads().clone()).map(Some)
            }
        }
    }

    /// One page of entities that match.
    ///
    /// # Errors
    ///
    /// When the scheduler refuses, or is away for longer than ten seconds.
    pub async fn entities(&self, query: EntityQuery) -> Result<EntityPage, Error> {
        let prefix = match (&query.name, &query.key_prefix) {
            (None, None) => None,
            (Some(name), None) => Some(EntityId::new(name, "").to_string()),
            (Some(name), Some(key)) => Some(EntityId::new(name, key).to_string()),
            (None, Some(_)) => {
                return Err(Error::Setting(
                    "entities can be looked for by their key only together with a name".to_owned(),
                ));
            }
        };
        let wire = WireQuery {
            instance_id_starts_with: prefix,
            last_modified_from: query.updated_from.map(timestamp),
            last_modified_to: query.updated_to.map(timestamp),
            include_state: !query.without_states,
            include_transient: query.include_transient,
            page_size: (query.page_size > 0)
                .then(|| i32::try_from(query.page_size).unwrap_or(i32::MAX)),
            continuation_token: query.continue_from,
        };
        let response = self
            .patiently(question_deadline(), || async {
                let query = Some(wire.clone());
                let request = self.connection.request(QueryEntitiesRequest { query });
                self.connection.service().query_entities(request).await
            })
            .await?
            .into_inner();
        let payloads = self.connection.payloads();
        let entities = response
            .entities
            .into_iter()
            .map(|metadata| EntityState::new(metadata, payloads.clone()))
            .collect::<Result<_, _>>()?;
        Ok(EntityPage {
            entities,
            continue_from: response
                .continuation_token
                .filter(|token| !token.is_empty()),
        })
    }
}
