//! What an orchestrator's code sees: activities, children, timers, events, entities, time, and its own fate.

mod join;
mod lock;
mod state;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mainspring_proto::orchestrator_action::OrchestratorActionType as ActionType;
use mainspring_proto::send_entity_message_action::EntityMessageType;
use mainspring_proto::{
    EntityOperationCalledEvent, EntityOperationSignaledEvent, OrchestrationInstance,
    SendEventAction,
};
use serde::Serialize;

use crate::convert::Payload;
use crate::entity::{EntityId, Operation};
use crate::error::{Failure, Result, TaskError};
use crate::handler::{Activity, Orchestration};
use crate::time::timestamp;

pub use join::Either;
pub use lock::Lock;
pub(crate) use state::{Continuation, Key, LATEST_SECOND, Origin, Outcome, Shared};
pub use task::{Event, Task, Timer};

use task::Kind;

/// Everything that an orchestrator may do. Cheap to clone; all clones are one.
///
/// An orchestrator is run again from its start whenever its worker no longer has it in memory, and has to do the same each time.
/// So it may wait for nothing but what this context gives, and may take time, random numbers and ids only from here.
///
/// ```
/// use std::time::Duration;
/// use mainspring_sdk::{ActivityContext, Either, OrchestrationContext, Result};
///
/// async fn expense(ctx: OrchestrationContext, cents: u64) -> Result<String> {
///     ctx.call(ask_manager, cents).await?;
///     let approval = ctx.event::<bool>("Approval");
///     match ctx.select(approval, ctx.timer(Duration::from_secs(3 * 86_400))).await {
///         Either::Left(approved) => Ok(if approved? { "paid" } else { "rejected" }.to_owned()),
///         Either::Right(()) => Ok("nobody answered".to_owned()),
///     }
/// }
///
/// async fn ask_manager(_: ActivityContext, cents: u64) -> Result<()> {
///     println!("please approve {cents}");
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct OrchestrationContext {
    shared: Arc<Shared>,
}

impl fmt::Debug for OrchestrationContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "OrchestrationContext({})", self.instance_id())
    }
}

/// Who an instance is.
impl OrchestrationContext {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The instance's id.
    pub fn instance_id(&self) -> &str {
        &self.shared.origin.instance
    }

    /// The id of this generation: another one after each continue-as-new.
    pub fn execution_id(&self) -> &str {
        &self.shared.origin.execution
    }

    /// The name that it was started under.
    pub fn name(&self) -> &str {
        &self.shared.origin.name
    }

    /// The version that it was started with.
    pub fn version(&self) -> Option<&str> {
        self.shared.origin.version.as_deref()
    }

    /// The tags that it was started with.
    pub fn tags(&self) -> &BTreeMap<String, String> {
        &self.shared.origin.tags
    }

    /// The instance whose child it is.
    pub fn parent_instance_id(&self) -> Option<&str> {
        self.shared.origin.parent.as_deref()
    }

    /// The W3C `traceparent` that it was started with. Its activities and children get the same.
    pub fn trace_parent(&self) -> Option<&str> {
        let trace = self.shared.origin.trace.as_ref()?;
        Some(&trace.trace_parent)
    }
}

/// Time and chance that are the same at every replay.
impl OrchestrationContext {
    /// The time of this episode: it stands still while the code runs, and never goes back.
    pub fn now(&self) -> SystemTime {
        self.shared.now()
    }

    /// A new GUID.
    pub fn guid(&self) -> String {
        self.shared.guid()
    }

    /// A random number, evenly distributed over all that a `u64` can be. Not for secrets.
    pub fn random(&self) -> u64 {
        self.shared.draw()
    }

    /// Whether what happens now has happened before. `tracing` events are left out then, so this is hardly ever needed.
    pub fn is_replaying(&self) -> bool {
        self.shared.state().is_replaying
    }
}

/// Activities and child orchestrations.
impl OrchestrationContext {
    /// An activity of this program.
    pub fn call<A, I, O>(&self, activity: A, input: I) -> Task<O>
    where
        A: Activity<I, O>,
        I: Payload,
        O: Payload,
    {
        self.call_by_name(activity.name(), input)
            .version_of(activity.version())
    }

    /// An activity that another program, perhaps in another language, has under this name.
    pub fn call_by_name<O: Payload>(
        &self,
        name: impl Into<String>,
        input: impl Serialize,
    ) -> Task<O> {
        self.task(Kind::Activity, name.into(), &input)
    }

    /// A child orchestration of this program.
    pub fn child<C, I, O>(&self, orchestration: C, input: I) -> Task<O>
    where
        C: Orchestration<I, O>,
        I: Payload,
        O: Payload,
    {
        self.child_by_name(orchestration.name(), input)
            .version_of(orchestration.version())
    }

    /// A child orchestration that another program has under this name.
    pub fn child_by_name<O: Payload>(
        &self,
        name: impl Into<String>,
        input: impl Serialize,
    ) -> Task<O> {
        self.task(Kind::Child { instance: None }, name.into(), &input)
    }

    fn task<O: Payload>(&self, kind: Kind, name: String, input: &impl Serialize) -> Task<O> {
        let input = self.shared.payloads.encode(input);
        Task::new(Arc::clone(&self.shared), kind, name, input)
    }
}

/// Waiting.
impl OrchestrationContext {
    /// Ready `after` from now.
    pub fn timer(&self, after: Duration) -> Timer {
        let due = self.shared.state().after(after);
        Timer::new(Arc::clone(&self.shared), due)
    }

    /// Ready at that time; at once, in an episode of its own, if it is past.
    pub fn timer_at(&self, at: SystemTime) -> Timer {
        Timer::new(Arc::clone(&self.shared), timestamp(at))
    }

    /// The next external event of that name.
    pub fn event<T: Payload>(&self, name: impl Into<String>) -> Event<T> {
        Event::new(Arc::clone(&self.shared), name.into())
    }

    /// What `future` gives, or `None` if it does not within that time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mainspring_sdk::{OrchestrationContext, Result};
    /// async fn wait_a_day(ctx: OrchestrationContext, _: ()) -> Result<bool> {
    ///     let approval = ctx.event::<bool>("Approval");
    ///     match ctx.timeout(Duration::from_secs(86_400), approval).await {
    ///         Some(approved) => Ok(approved?),
    ///         None => Ok(false),
    ///     }
    /// }
    /// ```
    pub async fn timeout<F: Future>(&self, within: Duration, future: F) -> Option<F::Output> {
        match self.select(future, self.timer(within)).await {
            Either::Left(output) => Some(output),
            Either::Right(()) => None,
        }
    }

    /// All outputs, in the order in which the futures were given.
    pub async fn join_all<F: Future>(
        &self,
        futures: impl IntoIterator<Item = F>,
    ) -> Vec<F::Output> {
        join::join_all(futures).await
    }

    /// All outputs, or the first failure; the other tasks go on unseen.
    ///
    /// # Errors
    ///
    /// The first that came.
    pub async fn try_join_all<F, T, E>(
        &self,
        futures: impl IntoIterator<Item = F>,
    ) -> std::result::Result<Vec<T>, E>
    where
        F: Future<Output = std::result::Result<T, E>>,
    {
        join::TryJoinAll::new(futures).await
    }

    /// Both outputs.
    pub async fn join<A: Future, B: Future>(&self, a: A, b: B) -> (A::Output, B::Output) {
        join::join(a, b).await
    }

    /// The first of two that is ready; the first one, if both are.
    pub async fn select<A: Future, B: Future>(&self, a: A, b: B) -> Either<A::Output, B::Output> {
        join::select(a, b).await
    }

    /// The first of many that is ready: its index, its output, and the others, to be waited for further.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub async fn select_all<F: Future>(
        &self,
        futures: impl IntoIterator<Item = F>,
    ) -> (usize, F::Output, Vec<Pin<Box<F>>>) {
        join::SelectAll::new(futures).await
    }
}

/// Other instances and entities.
impl OrchestrationContext {
    /// Sends an event to another orchestration; it is lost if there is none of that id.
    ///
    /// # Errors
    ///
    /// When the payload cannot be written.
    pub fn send_event(
        &self,
        instance: impl Into<String>,
        name: impl Into<String>,
        payload: impl Serialize,
    ) -> std::result::Result<(), TaskError> {
        let (instance_id, name) = (instance.into(), name.into());
        let data = self.encode(|| format!("event '{name}'"), &payload)?;
        self.shared.act(ActionType::SendEvent(SendEventAction {
            instance: Some(OrchestrationInstance {
                instance_id,
                execution_id: None,
            }),
            name,
            data,
        }));
        Ok(())
    }

    /// An entity of a type of this program.
    pub fn entity<E: crate::entity::Entity>(&self, key: impl Into<String>) -> EntityHandle<E> {
        EntityHandle {
            ctx: self.clone(),
            id: EntityId::of::<E>(key),
            entity: std::marker::PhantomData,
        }
    }

    /// Calls an entity of any program and waits for its answer.
    ///
    /// # Errors
    ///
    /// When the operation failed, or within a critical section that did not lock the entity.
    pub async fn call_entity<O: Payload>(
        &self,
        entity: &EntityId,
        operation: impl Into<String>,
        input: impl Serialize,
    ) -> std::result::Result<O, TaskError> {
        let operation = operation.into();
        let task = || format!("operation '{operation}' of entity '{entity}'");
        let input = self.encode(task, &input)?;
        let request_id = self.shared.guid();
        let shared = &self.shared;
        let called = EntityOperationCalledEvent {
            request_id: request_id.clone(),
            operation: operation.clone(),
            scheduled_time: None,
            input,
            parent_instance_id: Some(shared.origin.instance.clone()),
            parent_execution_id: Some(shared.origin.execution.clone()),
            target_instance_id: Some(entity.to_string()),
        };
        {
            let mut state = shared.state();
            if let Some(section) = &mut state.section {
                section.begin_call(entity)?;
            }
            state.act(lock::message(EntityMessageType::EntityOperationCalled(
                called,
            )));
        }
        let outcome = shared.wait(Key::Request(request_id)).await;
        if let Some(section) = &mut shared.state().section {
            section.end_call(entity);
        }
        match outcome {
            Ok(output) => shared.read(task, "the output", output.as_deref()),
            Err(failure) => Err(task::failed(task(), failure)),
        }
    }

    /// Sends an operation to an entity of any program, now or at a time to come, and waits for nothing.
    ///
    /// # Errors
    ///
    /// When the input cannot be written, or this critical section has locked the entity.
    pub fn signal_entity(
        &self,
        entity: &EntityId,
        operation: impl Into<String>,
        input: impl Serialize,
        at: Option<SystemTime>,
    ) -> std::result::Result<(), TaskError> {
        let operation = operation.into();
        let input = self.encode(
            || format!("operation '{operation}' of entity '{entity}'"),
            &input,
        )?;
        let signaled = EntityOperationSignaledEvent {
            request_id: self.shared.guid(),
            operation,
            scheduled_time: at.map(timestamp),
            input,
            target_instance_id: Some(entity.to_string()),
        };
        let mut state = self.shared.state();
        if let Some(section) = &state.section {
            section.allows_signal(entity)?;
        }
        state.act(lock::message(EntityMessageType::EntityOperationSignaled(
            signaled,
        )));
        Ok(())
    }

    /// Holds several entities together, so that nobody else changes them between two calls. One lock at a time; name all entities
    /// that are needed. They are unlocked when the lock is dropped, and when the orchestration ends, however it does.
    ///
    /// ```
    /// # use mainspring_sdk::{Entity, Operation, Operations, OrchestrationContext, EntityContext, Result};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Default, Serialize, Deserialize)] struct Account(i64);
    /// # impl Entity for Account { fn operations(operations: &mut Operations<Self>) { operations.add::<Change>(); } }
    /// # #[derive(Serialize, Deserialize)] struct Change(i64);
    /// # impl Operation<Account> for Change {
    /// #     type Output = i64;
    /// #     async fn apply(self, account: &mut Account, _: &EntityContext) -> Result<i64> { account.0 += self.0; Ok(account.0) }
    /// # }
    /// async fn transfer(ctx: OrchestrationContext, cents: i64) -> Result<()> {
    ///     let (from, to) = (ctx.entity::<Account>("a"), ctx.entity::<Account>("b"));
    ///     let _lock = ctx.lock([from.id(), to.id()]).await?;
    ///     from.call(Change(-cents)).await?;
    ///     to.call(Change(cents)).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// When locks are held already, or no entity is named.
    pub async fn lock<'a>(
        &self,
        entities: impl IntoIterator<Item = &'a EntityId>,
    ) -> std::result::Result<Lock, TaskError> {
        let entities: BTreeSet<EntityId> = entities.into_iter().cloned().collect();
        lock::lock(Arc::clone(&self.shared), entities).await
    }

    fn encode(
        &self,
        task: impl FnOnce() -> String,
        value: &impl Serialize,
    ) -> std::result::Result<Option<String>, TaskError> {
        self.shared
            .payloads
            .encode(value)
            .map_err(|reason| TaskError::Payload {
                task: task(),
                reason: format!("the input cannot be written: {reason}"),
            })
    }
}

/// Its own fate.
impl OrchestrationContext {
    /// Shows clients how far it is. The last value before the end stays; `()` clears it.
    ///
    /// # Errors
    ///
    /// When the value cannot be written.
    pub fn set_custom_status(&self, status: impl Serialize) -> std::result::Result<(), TaskError> {
        let status = self.encode(|| "the custom status".to_owned(), &status)?;
        self.shared.state().custom_status = Some(status);
        Ok(())
    }

    /// Begins again with a new input and an empty history; events that nobody took yet are kept. What it returns has to be
    /// returned by the orchestrator.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mainspring_sdk::{OrchestrationContext, Result};
    /// async fn every_hour(ctx: OrchestrationContext, round: u64) -> Result<()> {
    ///     ctx.timer(Duration::from_secs(3600)).await;
    ///     ctx.continue_as_new(round + 1)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Always: that is how the orchestrator ends.
    pub fn continue_as_new<T>(&self, input: impl Serialize) -> Result<T> {
        self.continue_with(ContinueAsNew::new(), input)
    }

    /// The same, with more to say about it.
    ///
    /// # Errors
    ///
    /// Always: that is how the orchestrator ends.
    pub fn continue_with<T>(&self, how: ContinueAsNew, input: impl Serialize) -> Result<T> {
        let input = self.encode(|| "continue-as-new".to_owned(), &input)?;
        self.shared.state().continuation = Some(Continuation {
            input,
            version: how.version,
            keeps_events: how.keeps_events,
        });
        Err(Failure::new(
            "ContinueAsNew",
            "the orchestration goes on as a new generation",
        ))
    }
}

/// How an orchestration begins again.
///
/// ```
/// # use std::time::Duration;
/// # use mainspring_sdk::{ContinueAsNew, OrchestrationContext, Result};
/// async fn every_night(ctx: OrchestrationContext, night: u64) -> Result<()> {
///     ctx.timer(Duration::from_secs(86_400)).await;
///     // From now on with the code of version 2, and without events that nobody took.
///     ctx.continue_with(ContinueAsNew::new().version("2").drop_events(), night + 1)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct ContinueAsNew {
    version: Option<String>,
    keeps_events: bool,
}

impl Default for ContinueAsNew {
    fn default() -> Self {
        Self::new()
    }
}

impl ContinueAsNew {
    /// The same version, and events that nobody took yet are kept.
    pub fn new() -> Self {
        Self {
            version: None,
            keeps_events: true,
        }
    }

    /// The next generation is for code of this version.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Events that nobody took are forgotten.
    #[must_use]
    pub fn drop_events(mut self) -> Self {
        self.keeps_events = false;
        self
    }
}

/// An entity as an orchestrator sees it: only operations that its type has can be asked for.
///
/// With the counter that the example of [`Entity`](crate::Entity) has:
///
/// ```
/// # use mainspring_sdk::{Entity, EntityContext, Operation, Operations, OrchestrationContext, Result};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Default, Serialize, Deserialize)] struct Counter { value: i64 }
/// # impl Entity for Counter { fn operations(operations: &mut Operations<Self>) { operations.add::<Add>(); } }
/// # #[derive(Serialize, Deserialize)] struct Add(i64);
/// # impl Operation<Counter> for Add {
/// #     type Output = i64;
/// #     async fn apply(self, counter: &mut Counter, _: &EntityContext) -> Result<i64> { counter.value += self.0; Ok(counter.value) }
/// # }
/// async fn visit(ctx: OrchestrationContext, page: String) -> Result<i64> {
///     ctx.entity::<Counter>("all").signal(Add(1))?;
///     Ok(ctx.entity::<Counter>(page).call(Add(1)).await?)
/// }
/// ```
pub struct EntityHandle<E> {
    ctx: OrchestrationContext,
    id: EntityId,
    entity: std::marker::PhantomData<fn() -> E>,
}

impl<E> fmt::Debug for EntityHandle<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EntityHandle({})", self.id)
    }
}

impl<E: crate::entity::Entity> EntityHandle<E> {
    /// Its id.
    pub fn id(&self) -> &EntityId {
        &self.id
    }

    /// Asks for an operation and waits for its answer.
    ///
    /// # Errors
    ///
    /// As [`OrchestrationContext::call_entity`].
    pub async fn call<Op: Operation<E>>(
        &self,
        operation: Op,
    ) -> std::result::Result<Op::Output, TaskError> {
        self.ctx.call_entity(&self.id, Op::name(), operation).await
    }

    /// Asks for an operation and waits for nothing.
    ///
    /// # Errors
    ///
    /// As [`OrchestrationContext::signal_entity`].
    pub fn signal<Op: Operation<E>>(&self, operation: Op) -> std::result::Result<(), TaskError> {
        self.ctx
            .signal_entity(&self.id, Op::name(), operation, None)
    }

    /// Asks for an operation at a time to come.
    ///
    /// # Errors
    ///
    /// As [`OrchestrationContext::signal_entity`].
    pub fn signal_at<Op: Operation<E>>(
        &self,
        at: SystemTime,
        operation: Op,
    ) -> std::result::Result<(), TaskError> {
        self.ctx
            .signal_entity(&self.id, Op::name(), operation, Some(at))
    }
}
