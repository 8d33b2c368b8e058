//! A start on its way: who, with what, when, and what to do if the id is taken.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::time::SystemTime;

use mainspring_proto::{CreateInstanceRequest, OrchestrationIdReusePolicy, TraceContext};
use serde::Serialize;
use tonic::Code;

use super::{Client, Instance, Status};
use crate::convert::Payload;
use crate::error::Error;
use crate::handler::BoxFuture;
use crate::time::timestamp;

/// What happens if the instance id is taken.
///
/// ```no_run
/// # use mainspring_sdk::{Client, OrchestrationContext, Result};
/// use mainspring_sdk::{Error, Reuse, Status};
///
/// # async fn bill(_: OrchestrationContext, cents: u64) -> Result<u64> { Ok(cents) }
/// # async fn run(client: Client) -> Result<(), mainspring_sdk::Error> {
/// // Once more if it failed; not if it is paid, or under way.
/// let reuse = Reuse::IfIn(vec![Status::Failed]);
/// match client.start(bill, 1200).id("bill-17").reuse(reuse).await {
///     Err(Error::AlreadyExists(id)) => println!("{id} needs no other try"),
///     started => println!("{}", started?.result().await?),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reuse {
    /// Whatever ended makes way; what is active makes the start fail.
    IfEnded,
    /// Instances of these statuses make way; others make the start fail. A list with statuses of active instances has to have
    /// [`Status::Terminated`], too, since those are terminated first.
    IfIn(Vec<Status>),
    /// Whatever is there makes way, and is terminated if it is active.
    Always,
    /// The start fails.
    Never,
}

/// An orchestration that is being started: awaited, it gives the [`Instance`] once it is durable.
///
/// ```no_run
/// # use mainspring_sdk::{Client, OrchestrationContext, Result, Reuse};
/// # async fn bill(_: OrchestrationContext, cents: u64) -> Result<u64> { Ok(cents) }
/// # async fn run(client: Client) -> Result<(), mainspring_sdk::Error> {
/// let instance = client.start(bill, 1200).id("bill-17").tag("team", "sales").reuse(Reuse::Never).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is started until this is awaited"]
#[derive(Debug)]
pub struct Start<O> {
    client: Client,
    request: Result<CreateInstanceRequest, String>,
    output: PhantomData<fn() -> O>,
}

impl<O: Payload> Start<O> {
    pub(super) fn new(client: Client, name: String, input: &impl Serialize) -> Self {
        let request = client
            .connection
            .payloads()
            .encode(input)
            .map_err(|reason| {
                format!("the input of orchestration '{name}' cannot be written: {reason}")
            })
            .map(|input| CreateInstanceRequest {
                name,
                input,
                ..Default::default()
            });
        Self {
            client,
            request,
            output: PhantomData,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut CreateInstanceRequest)) -> Self {
        if let Ok(request) = &mut self.request {
            change(request);
        }
        self
    }

    /// The instance's id, at most 100 characters; without it the scheduler chooses one.
    pub fn id(self, id: impl Into<String>) -> Self {
        self.with(|request| request.instance_id = id.into())
    }

    /// The version of the code that shall run it.
    pub fn version(self, version: impl Into<String>) -> Self {
        self.with(|request| request.version = Some(version.into()))
    }

    /// Attaches a tag.
    pub fn tag(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|request| {
            request.tags.insert(key.into(), value.into());
        })
    }

    /// Not before this time.
    pub fn at(self, at: SystemTime) -> Self {
        self.with(|request| request.scheduled_start_timestamp = Some(timestamp(at)))
    }

    /// What happens if the id is taken; [`Reuse::IfEnded`] unless set.
    pub fn reuse(self, reuse: Reuse) -> Self {
        self.with(|request| {
            let statuses = match reuse {
                Reuse::IfEnded => return,
                Reuse::IfIn(statuses) => statuses,
                Reuse::Always => Status::ALL.to_vec(),
                Reuse::Never => Vec::new(),
            };
            request.orchestration_id_reuse_policy = Some(OrchestrationIdReusePolicy {
                replaceable_status: statuses.into_iter().map(Status::wire).collect(),
                ..Default::default()
            });
        })
    }

    /// The W3C `traceparent` to go on from.
    pub fn trace_parent(self, trace_parent: impl Into<String>) -> Self {
        self.with(|request| {
            request.parent_trace_context = Some(TraceContext {
                trace_parent: trace_parent.into(),
                ..Default::default()
            });
        })
    }
}

impl<O: Payload> IntoFuture for Start<O> {
    type Output = Result<Instance<O>, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let request = self.request.map_err(Error::Payload)?;
            let (connection, id) = (&self.client.connection, request.instance_id.clone());
            let started = connection
                .service()
                .start_instance(connection.request(request))
                .await;
            let response = started.map_err(|status| match status.code() {
                Code::AlreadyExists => Error::AlreadyExists(id),
                _ => Error::from(status),
            })?;
            let id = response.into_inner().instance_id;
            Ok(Instance::new(self.client, id))
        })
    }
}
