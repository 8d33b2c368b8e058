//! What an orchestrator waits for: tasks, timers, events.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mainspring_proto::orchestrator_action::OrchestratorActionType as ActionType;
use mainspring_proto::{CreateSubOrchestrationAction, CreateTimerAction, ScheduleTaskAction};
use prost_types::Timestamp;

use super::state::{Key, Pending, Shared};
use crate::convert::Payload;
use crate::error::{Failure, TaskError};
use crate::handler::BoxFuture;
use crate::retry::RetryPolicy;

/// An activity or a child orchestration, and its output.
///
/// Like every future it does nothing until it is polled: awaited, joined or selected. [`Task::start`] schedules it at once, so that
/// it runs beside what the orchestrator does next. A task that was scheduled runs even if nobody waits for it any more.
///
/// ```
/// # use mainspring_sdk::{ActivityContext, OrchestrationContext, Result, RetryPolicy};
/// # use std::time::Duration;
/// async fn quote(ctx: OrchestrationContext, item: String) -> Result<u64> {
///     let mail = ctx.call(announce, item.clone()).start();
///     let policy = RetryPolicy::new(3, Duration::from_secs(1));
///     let price = ctx.call(look_up, item).retry(policy).await?;
///     mail.await?;
///     Ok(price)
/// }
/// # async fn announce(_: ActivityContext, _: String) -> Result<()> { Ok(()) }
/// # async fn look_up(_: ActivityContext, _: String) -> Result<u64> { Ok(1) }
/// ```
#[must_use = "a task does nothing until it is awaited or started"]
pub struct Task<O> {
    stage: Stage,
    shared: Arc<Shared>,
    output: PhantomData<fn() -> O>,
}

enum Stage {
    Specified(Box<Spec>),
    /// One attempt, on its way.
    Running(Pending, i32, Box<Spec>),
    /// Attempts and the timers between them.
    Retrying(BoxFuture<Result<Option<String>, TaskError>>, String),
    Over,
}

pub(crate) enum Kind {
    Activity,
    Child { instance: Option<String> },
}

struct Spec {
    kind: Kind,
    name: String,
    input: Result<Option<String>, String>,
    version: Option<String>,
    tags: BTreeMap<String, String>,
    retry: Option<RetryPolicy>,
}

impl Spec {
    fn describe(&self, id: i32) -> String {
        match self.kind {
            Kind::Activity => format!("activity '{}' (task {id})", self.name),
            Kind::Child { .. } => format!("child orchestration '{}' (task {id})", self.name),
        }
    }

    /// Sends it out once.
    fn schedule(&self, shared: &Arc<Shared>, input: Option<String>) -> (Pending, i32) {
        let (name, version, tags) = (self.name.clone(), self.version.clone(), self.tags.clone());
        let parent_trace_context = shared.origin.trace.clone();
        let action = match &self.kind {
            Kind::Activity => ActionType::ScheduleTask(ScheduleTaskAction {
                name,
                version,
                input,
                tags,
                parent_trace_context,
            }),
            Kind::Child { instance } => {
                // Ours, so that the code knows it; the scheduler would make one up.
                let instance_id = match instance {
                    Some(instance) => instance.clone(),
                    None => shared.guid(),
                };
                ActionType::CreateSubOrchestration(CreateSubOrchestrationAction {
                    instance_id,
                    name,
                    version,
                    input,
                    parent_trace_context,
                    tags,
                })
            }
        };
        let id = shared.act(action);
        (shared.wait(Key::Task(id)), id)
    }
}

impl<O: Payload> Task<O> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        kind: Kind,
        name: String,
        input: Result<Option<String>, String>,
    ) -> Self {
        let spec = Spec {
            kind,
            name,
            input,
            version: None,
            tags: BTreeMap::new(),
            retry: None,
        };
        Self {
            stage: Stage::Specified(Box::new(spec)),
            shared,
            output: PhantomData,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        match &mut self.stage {
            Stage::Specified(spec) => change(spec),
            _ => panic!("a task cannot be changed once it was started"),
        }
        self
    }

    /// Tries again after failures. Each attempt is a task of its own in history.
    pub fn retry(self, policy: RetryPolicy) -> Self {
        self.with(|spec| spec.retry = Some(policy))
    }

    pub(crate) fn version_of(self, version: Option<&str>) -> Self {
        match version {
            Some(version) => self.version(version),
            None => self,
        }
    }

    /// The version of the code that shall run it.
    pub fn version(self, version: impl Into<String>) -> Self {
        self.with(|spec| spec.version = Some(version.into()))
    }

    /// Attaches a tag, which the scheduler keeps and shows.
    pub fn tag(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|spec| {
            spec.tags.insert(key.into(), value.into());
        })
    }

    /// The instance id of a child orchestration; without it, a GUID. For activities it means nothing.
    pub fn id(self, instance: impl Into<String>) -> Self {
        self.with(|spec| {
            if let Kind::Child { instance: id } = &mut spec.kind {
                *id = Some(instance.into());
            }
        })
    }

    /// Schedules it now, without waiting for it.
    #[must_use = "what is started runs; drop it by `let _ =` to wait for nothing"]
    pub fn start(mut self) -> Self {
        self.begin();
        self
    }

    fn begin(&mut self) {
        let Stage::Specified(spec) = std::mem::replace(&mut self.stage, Stage::Over) else {
            panic!("a task is started once");
        };
        let Ok(input) = spec.input.clone() else {
            // Told when it is polled.
            self.stage = Stage::Specified(spec);
            return;
        };
        let (first, id) = spec.schedule(&self.shared, input.clone());
        self.stage = match spec.retry.clone() {
            None => Stage::Running(first, id, spec),
            Some(policy) => {
                let name = spec.name.clone();
                let shared = Arc::clone(&self.shared);
                let attempts = retry(shared, spec, input, policy, (first, id));
                Stage::Retrying(Box::pin(attempts), name)
            }
        };
    }
}

/// Attempt after attempt, with timers between them.
async fn retry(
    shared: Arc<Shared>,
    spec: Box<Spec>,
    input: Option<String>,
    policy: RetryPolicy,
    first: (Pending, i32),
) -> Result<Option<String>, TaskError> {
    let began = shared.now();
    let (mut pending, mut id) = first;
    let mut attempt = 1;
    loop {
        let failure = match pending.await {
            Ok(output) => return Ok(output),
            Err(failure) => failure,
        };
        let elapsed = shared.now().duration_since(began).unwrap_or_default();
        let Some(interval) = policy.next_interval(attempt, elapsed, &failure) else {
            return Err(failed(spec.describe(id), failure));
        };
        let due = shared.state().after(interval);
        Timer::new(Arc::clone(&shared), due).await;
        (pending, id) = spec.schedule(&shared, input.clone());
        attempt += 1;
    }
}

impl<O: Payload> Future for Task<O> {
    type Output = Result<O, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Stage::Specified(spec) = &self.stage {
            if let Err(reason) = &spec.input {
                let error = TaskError::Payload {
                    task: spec.describe(0),
                    reason: format!("the input cannot be written: {reason}"),
                };
                self.stage = Stage::Over;
                return Poll::Ready(Err(error));
            }
            self.begin();
        }
        let Self { stage, shared, .. } = &mut *self;
        let result = match stage {
            Stage::Running(pending, id, spec) => {
                let Poll::Ready(outcome) = Pin::new(pending).poll(context) else {
                    return Poll::Pending;
                };
                match outcome {
                    Ok(output) => {
                        shared.read(|| spec.describe(*id), "the output", output.as_deref())
                    }
                    Err(failure) => Err(failed(spec.describe(*id), failure)),
                }
            }
            Stage::Retrying(attempts, name) => {
                let Poll::Ready(result) = attempts.as_mut().poll(context) else {
                    return Poll::Pending;
                };
                result.and_then(|output| {
                    shared.read(|| format!("task '{name}'"), "the output", output.as_deref())
                })
            }
            Stage::Specified(_) | Stage::Over => panic!("a task was polled after it had ended"),
        };
        self.stage = Stage::Over;
        Poll::Ready(result)
    }
}

impl<O> fmt::Debug for Task<O> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stage, name) = match &self.stage {
            Stage::Specified(spec) => ("specified", spec.name.as_str()),
            Stage::Running(_, _, spec) => ("running", spec.name.as_str()),
            Stage::Retrying(_, name) => ("running", name.as_str()),
            Stage::Over => ("over", ""),
        };
        write!(formatter, "Task({name}, {stage})")
    }
}

/// Ready at a time that was fixed when it was made. Durable: it may be months ahead, and fires once it is due, whatever was
/// restarted meanwhile.
///
/// ```
/// # use std::time::Duration;
/// # use mainspring_sdk::{ActivityContext, OrchestrationContext, Result};
/// async fn look_hourly(ctx: OrchestrationContext, round: u64) -> Result<()> {
///     let hour = ctx.timer(Duration::from_secs(3600));
///     ctx.call(look, round).await?;
///     // One hour after the start of the round, however long it took to look.
///     hour.await;
///     ctx.continue_as_new(round + 1)
/// }
/// # async fn look(_: ActivityContext, _: u64) -> Result<()> { Ok(()) }
/// ```
#[must_use = "a timer does nothing until it is awaited"]
pub struct Timer {
    shared: Arc<Shared>,
    due: Timestamp,
    pending: Option<Pending>,
}

impl Timer {
    pub(crate) fn new(shared: Arc<Shared>, due: Timestamp) -> Self {
        Self {
            shared,
            due,
            pending: None,
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.pending.is_none() {
            let action = ActionType::CreateTimer(CreateTimerAction {
                fire_at: Some(self.due),
            });
            let id = self.shared.act(action);
            self.pending = Some(self.shared.wait(Key::Task(id)));
        }
        let pending = self.pending.as_mut().expect("was set above");
        Pin::new(pending).poll(context).map(|_| ())
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Timer({})", self.due)
    }
}

/// The next external event of a name, in any case of letters. Events that came earlier are kept and taken in order.
///
/// ```
/// # use mainspring_sdk::{OrchestrationContext, Result};
/// async fn collect(ctx: OrchestrationContext, parts: usize) -> Result<Vec<String>> {
///     let mut collected = Vec::new();
///     while collected.len() < parts {
///         collected.push(ctx.event::<String>("Part").await?);
///     }
///     Ok(collected)
/// }
/// ```
#[must_use = "an event is waited for only when it is awaited"]
pub struct Event<T> {
    shared: Arc<Shared>,
    name: String,
    pending: Option<Pending>,
    payload: PhantomData<fn() -> T>,
}

impl<T: Payload> Event<T> {
    pub(crate) fn new(shared: Arc<Shared>, name: String) -> Self {
        Self {
            shared,
            name,
            pending: None,
            payload: PhantomData,
        }
    }

    fn read(&self, input: Option<String>) -> Result<T, TaskError> {
        let event = || format!("event '{}'", self.name);
        self.shared.read(event, "its payload", input.as_deref())
    }
}

impl<T: Payload> Future for Event<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.pending.is_none() {
            match self.shared.listen(&self.name) {
                Ok(pending) => self.pending = Some(pending),
                Err(input) => return Poll::Ready(self.read(input)),
            }
        }
        let pending = self.pending.as_mut().expect("was set above");
        Pin::new(pending)
            .poll(context)
            .map(|outcome| match outcome {
                Ok(input) => self.read(input),
                Err(failure) => Err(failed(format!("event '{}'", self.name), failure)),
            })
    }
}

impl<T> fmt::Debug for Event<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Event({})", self.name)
    }
}

pub(crate) fn failed(task: String, failure: Failure) -> TaskError {
    TaskError::Failed { task, failure }
}
