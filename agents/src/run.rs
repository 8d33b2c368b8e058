//! A run: the orchestration of an agent. Ordinary orchestrator code: everything from outside comes from activities, entities and events,
//! and what decides comes from its input or from what activities recorded, so that an agent may be changed while runs are on their way.
//!
//! ```text
//!  say ──► pages ──► model call ──► step ─┬─ answer
//!             ▲                           ├─ tools, several at once ─┐
//!             └───────────────────────────┴──── objection ───────────┘
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainspring_sdk::{Either, Failure, OrchestrationContext, Result, TaskError, Timer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::agent::{Ask, Definition, Settings};
use crate::approval::{About, Decision, Desk, Terms};
use crate::book::Book;
use crate::budget::{AtLimit, Budget, Limit, Next, Spent};
use crate::calls::{CompactCall, CompactOutcome, ModelCall, ModelOutcome};
use crate::message::Message;
use crate::model::{ModelError, ModelErrorKind, ModelReply};
use crate::page::{Forget, page_id};
use crate::session::{Open, Opened, session_id};
use crate::status::RunStatus;
use crate::step::{Plan, Step, structured};
use crate::tool_call::{ToolDesk, ToolEnd};
use crate::transcript::Transcripts;

/// Longest key of a session, in characters: entity ids have 100 at most.
const SESSION_KEY_CHARS_MAX: usize = 80;

/// How a run ended well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Answer {
    /// What the model said last.
    pub text: String,
    /// The text read as JSON, if the agent's output has a schema, which it then fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why it ended.
    pub ended: Ended,
    /// What the run has spent.
    pub spent: Spent,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The model had nothing left to do.
    Finished,
    /// At a limit, with what there was.
    AtLimit(Limit),
}

impl Answer {
    /// The structured output as a type.
    ///
    /// # Errors
    ///
    /// When there is none, or it is of another shape.
    pub fn output_as<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(self.output.as_ref().unwrap_or(&Value::Null))
    }
}

/// Why a run does not go on to its answer.
enum Stop {
    /// Something failed, and the run may be rewound to it; so nothing may be done any more.
    Failed(Failure),
    /// The run itself decided to fail.
    GivenUp(Failure),
    /// A limit was reached, and what there is shall do.
    AtLimit(Limit),
}

impl From<TaskError> for Stop {
    fn from(error: TaskError) -> Self {
        Self::Failed(error.into())
    }
}

/// Tells a run from others under the same instance id. Not its execution id: a run that is rewound gets another, and has to find its pages.
struct Life {
    began_micros: u128,
    /// Names the run's pages. Hashed, since an entity's id has 100 characters at most, which the run's may fill.
    chain: String,
}

impl Life {
    fn new(ctx: &OrchestrationContext) -> Self {
        let began = ctx.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let began_micros = began.as_micros();
        let name = format!("{}/{began_micros}", ctx.instance_id());
        Self {
            began_micros,
            chain: format!("{:032x}", xxh3_128(name.as_bytes())),
        }
    }
}

struct Run {
    ctx: OrchestrationContext,
    life: Life,
    agent: Arc<Definition>,
    settings: Settings,
    desk: Desk,
    book: Book,
    /// What was spent in the session before.
    session_spent: Spent,
    is_in_session: bool,
    spent: Spent,
    /// Allowed by people, as often as they did.
    allowed: Vec<(Limit, bool)>,
    /// When the time is over.
    deadline: Option<Timer>,
    model_calls: u32,
    tool_calls: u32,
    questions: u32,
    compactions: u32,
    /// Not compacted again before the transcript has this many tokens.
    compact_above: Option<u64>,
    last_text: String,
}

/// Runs an agent from a question to its answer.
pub(crate) async fn run(
    agent: Arc<Definition>,
    transcripts: Arc<Transcripts>,
    ctx: OrchestrationContext,
    ask: Ask,
) -> Result<Answer> {
    let settings = ask.settings.clone().unwrap_or_else(|| agent.settings());
    let life = Life::new(&ctx);
    let (lock, opened) = match &ask.session {
        None => (None, None),
        Some(key) => {
            let (lock, opened) = open(&ctx, &life, &agent, &settings, key).await?;
            (Some(lock), Some((key.clone(), opened)))
        }
    };
    let status = RunStatus {
        agent: agent.name.clone(),
        transcript: life.chain.clone(),
        session: ask.session.clone(),
        waiting: Vec::new(),
    };
    let budget = &settings.budget;
    let mut run = Run {
        desk: Desk::new(ctx.clone(), status)?,
        session_spent: opened
            .as_ref()
            .map_or(Spent::default(), |(_, opened)| opened.spent),
        is_in_session: opened.is_some(),
        deadline: budget.elapsed.map(|elapsed| ctx.timer(elapsed)),
        compact_above: settings.compact_above_tokens,
        book: Book::new(
            ctx.clone(),
            life.chain.clone(),
            transcripts,
            settings.page_bytes_max,
            opened,
        ),
        life,
        ctx,
        agent,
        settings,
        spent: Spent::default(),
        allowed: Vec::new(),
        model_calls: 0,
        tool_calls: 0,
        questions: 0,
        compactions: 0,
        last_text: String::new(),
    };
    run.book.say(Message::user(ask.text));
    let ended = match run.answer().await {
        Ok(answer) => Ok(answer),
        Err(Stop::AtLimit(limit)) => Ok(run.answered(None, Ended::AtLimit(limit))),
        Err(Stop::GivenUp(failure)) => Err(failure),
        Err(Stop::Failed(failure)) => {
            // Not unlocked by the run, since nothing may be done any more; it is when the run ends.
            if let Some(lock) = lock {
                lock.until_the_end();
            }
            return Err(failure);
        }
    };
    run.close().await?;
    drop(lock);
    ended
}

/// Takes the session's lock and begins.
async fn open(
    ctx: &OrchestrationContext,
    life: &Life,
    agent: &Definition,
    settings: &Settings,
    key: &str,
) -> Result<(mainspring_sdk::Lock, Opened)> {
    let chars = key.chars().count();
    if chars == 0 || chars > SESSION_KEY_CHARS_MAX {
        return Err(Failure::new(
            "SessionKeyInvalid",
            format!(
                "agent '{}', run '{}': a session's key has 1 to {SESSION_KEY_CHARS_MAX} characters, not {chars}",
                agent.name,
                ctx.instance_id()
            ),
        ));
    }
    let entity = session_id(key);
    let lock = ctx.lock([&entity]).await?;
    let open = Open {
        chain: life.chain.clone(),
        time_to_live: settings.session_time_to_live,
    };
    let opened = ctx.call_entity(&entity, "open", open).await?;
    Ok((lock, opened))
}

impl Run {
    async fn answer(&mut self) -> Result<Answer, Stop> {
        loop {
            self.allow(Next::ModelCall).await?;
            self.book.write()?;
            self.compact().await?;
            let (reply, step) = self.ask_model().await?;
            self.count_model_call(&reply);
            if !reply.text.is_empty() {
                self.last_text.clone_from(&reply.text);
            }
            self.book.reply(reply.text, reply.tool_calls.clone());
            match step {
                Step::Finish { is_structured } => {
                    // Recorded as fitting, so it can be read.
                    let output = is_structured.then(|| structured(&self.last_text).ok());
                    return Ok(self.answered(output.flatten(), Ended::Finished));
                }
                Step::AskAgain(objection) => {
                    self.book.results([]);
                    self.book.say(Message::user(objection));
                }
                Step::CallTools(plans) => self.call_tools(plans, reply.tool_calls).await?,
                Step::Fail { error_type, reason } => {
                    let failure = Failure::new(error_type, self.tell(&reason));
                    return Err(Stop::GivenUp(failure.non_retriable()));
                }
            }
        }
    }

    fn answered(&self, output: Option<Value>, ended: Ended) -> Answer {
        Answer {
            text: self.last_text.clone(),
            output,
            ended,
            spent: self.spent,
        }
    }

    fn tell(&self, reason: &str) -> String {
        let (agent, run) = (&self.agent.name, self.ctx.instance_id());
        format!("agent '{agent}', run '{run}': {reason}")
    }

    /// An idempotency key. The time at which the run began is in it because an instance id can be used again.
    fn key(&self, of: &str, number: u32) -> String {
        let (run, began) = (self.ctx.instance_id(), self.life.began_micros);
        format!("{run}/{began}/{of}/{number}")
    }

    fn count_model_call(&mut self, reply: &ModelReply) {
        let mut spent = Spent::default();
        spent.model_call(reply.usage, self.settings.price);
        self.count(spent);
        self.book.counted(reply.usage.tokens());
    }

    fn count(&mut self, spent: Spent) {
        self.spent = self.spent.plus(spent);
        self.book.spend(spent);
    }

    /// Asks the model until it replies, while the session is told how far the run is.
    async fn ask_model(&mut self) -> Result<(ModelReply, Step), Stop> {
        self.model_calls += 1;
        let asking = Asking {
            ctx: self.ctx.clone(),
            settings: self.settings.clone(),
            activity: self.agent.model_activity(),
        };
        let (key, view) = (
            self.key("model", self.model_calls),
            self.book.view().clone(),
        );
        let asked = async move {
            let call = |key, is_last| ModelCall {
                key,
                view: view.clone(),
                is_last,
            };
            let read = |outcome| match outcome {
                ModelOutcome::Replied { reply, step } => Ok((reply, step)),
                ModelOutcome::Failed(error) => Err(error),
            };
            asking.until_replied(&key, call, read).await
        };
        let told = self.book.advance(false);
        let ctx = self.ctx.clone();
        let (replied, told) = self.in_time(ctx.join(asked, told)).await?;
        told?;
        Ok(replied?)
    }

    /// Makes the transcript shorter if it is too long.
    async fn compact(&mut self) -> Result<(), Stop> {
        let tokens = self.book.context_tokens();
        let (Some(above), Some(replaces)) = (self.compact_above, self.book.end()) else {
            return Ok(());
        };
        if tokens <= above {
            return Ok(());
        }
        self.compactions += 1;
        let asking = Asking {
            ctx: self.ctx.clone(),
            settings: self.settings.clone(),
            activity: self.agent.compact_activity(),
        };
        let key = self.key("compact", self.compactions);
        let (view, page_bytes_max) = (self.book.view().clone(), self.settings.page_bytes_max);
        let asked = async move {
            let call = |key, is_last| CompactCall {
                key,
                view: view.clone(),
                replaces: Some(replaces.clone()),
                page_bytes_max,
                is_last,
            };
            let read = |outcome| match outcome {
                CompactOutcome::Failed(error) => Err(error),
                outcome => Ok(outcome),
            };
            asking.until_replied(&key, call, read).await
        };
        match self.in_time(asked).await?? {
            CompactOutcome::Compacted { span, bytes, spent } => {
                self.count(spent);
                self.book.begin_with(span, bytes);
            }
            CompactOutcome::Unchanged { spent } => self.count(spent),
            CompactOutcome::Failed(_) => {}
        }
        // Were it tried at each call although it does not help, a long transcript would be written again and again.
        let base = self.settings.compact_above_tokens.unwrap_or(0);
        self.compact_above = Some(base.max(self.book.context_tokens() + base / 4));
        Ok(())
    }

    async fn call_tools(
        &mut self,
        plans: Vec<Plan>,
        calls: Vec<crate::message::ToolCall>,
    ) -> Result<(), Stop> {
        let wanted = plans
            .iter()
            .filter(|plan| matches!(plan, Plan::Run { .. }))
            .count();
        self.allow(Next::ToolCalls(u32::try_from(wanted).unwrap_or(u32::MAX)))
            .await?;
        let mut ends = Vec::with_capacity(plans.len());
        for (plan, call) in plans.into_iter().zip(calls) {
            self.tool_calls += 1;
            let desk = ToolDesk {
                ctx: self.ctx.clone(),
                desk: self.desk.clone(),
                activity: self.agent.tool_activity(&call.name),
                key: self.key("tool", self.tool_calls),
                claim: format!("claim-{}-{}", self.life.chain, self.tool_calls),
                number: self.tool_calls,
                retry: self.settings.retry,
            };
            ends.push(desk.carry_out(plan, call));
        }
        let ctx = self.ctx.clone();
        let ends = self.in_time(ctx.join_all(ends)).await?;
        let ends: Vec<ToolEnd> = ends.into_iter().collect::<Result<_, TaskError>>()?;
        let tool_calls = ends.iter().filter(|end| end.was_run).count();
        self.count(Spent {
            tool_calls: u32::try_from(tool_calls).unwrap_or(u32::MAX),
            ..Spent::default()
        });
        self.book.results(ends.into_iter().map(|end| end.content));
        Ok(())
    }

    /// Waits until what is next may be done, or stops.
    async fn allow(&mut self, next: Next) -> Result<(), Stop> {
        for is_of_session in [false, true] {
            loop {
                let spent = match is_of_session {
                    false => self.spent,
                    true if !self.is_in_session => break,
                    true => self.session_spent.plus(self.spent),
                };
                let allowances = |limit| {
                    let allowed = self.allowed.iter();
                    allowed
                        .filter(|allowed| **allowed == (limit, is_of_session))
                        .count()
                };
                let budget = self.budget(is_of_session);
                let Some(limit) = budget.forbids(next, &spent, allowances) else {
                    break;
                };
                self.at_limit(limit, is_of_session).await?;
            }
        }
        Ok(())
    }

    /// Goes on only if a person allows it.
    async fn at_limit(&mut self, limit: Limit, is_of_session: bool) -> Result<(), Stop> {
        match self.budget(is_of_session).at_limit {
            AtLimit::Finish => return Err(Stop::AtLimit(limit)),
            AtLimit::Fail => return Err(self.spent_out(limit, is_of_session, "")),
            AtLimit::AskPerson => {}
        }
        self.questions += 1;
        let about = About::Budget {
            limit,
            is_of_session,
            spent: self.spent,
        };
        let id = format!("budget-{}", self.questions);
        match self.desk.ask(id, about, Terms::default()).await? {
            Decision::Reject { reason } => {
                let reason = format!(", and a person does not allow more: {reason}");
                Err(self.spent_out(limit, is_of_session, &reason))
            }
            Decision::Approve | Decision::Edit { .. } | Decision::Result { .. } => {
                self.allowed.push((limit, is_of_session));
                Ok(())
            }
        }
    }

    fn budget(&self, is_of_session: bool) -> &Budget {
        match is_of_session {
            true => &self.settings.session_budget,
            false => &self.settings.budget,
        }
    }

    fn spent_out(&self, limit: Limit, is_of_session: bool, more: &str) -> Stop {
        let whose = if is_of_session { "session" } else { "run" };
        let budget = self.budget(is_of_session);
        let reason = format!(
            "the {whose}'s limit of {limit} is reached{more} (spent {:?}, of {budget:?})",
            self.spent
        );
        Stop::GivenUp(Failure::new("BudgetSpent", self.tell(&reason)).non_retriable())
    }

    /// What the future gives, unless the run's time is over before.
    async fn in_time<F: Future>(&mut self, future: F) -> Result<F::Output, Stop> {
        let mut future = std::pin::pin!(future);
        let ctx = self.ctx.clone();
        loop {
            let Some(deadline) = &mut self.deadline else {
                return Ok(future.await);
            };
            match ctx.select(future.as_mut(), deadline).await {
                Either::Left(output) => return Ok(output),
                Either::Right(()) => {
                    self.deadline = None;
                    // What is on its way goes on meanwhile, and is waited for further if it is allowed.
                    self.at_limit(Limit::Elapsed, false).await?;
                    let elapsed = self.settings.budget.elapsed;
                    self.deadline = elapsed.map(|elapsed| ctx.timer(elapsed));
                }
            }
        }
    }

    /// Brings the transcript to its end.
    async fn close(&mut self) -> Result<(), TaskError> {
        self.book.results([]);
        self.book.write()?;
        self.book.advance(true).await?;
        if !self.is_in_session {
            let at: SystemTime = self.ctx.now() + self.settings.keep_transcript;
            let forget = Forget {
                with_previous: true,
            };
            let first = page_id(&self.life.chain, 0);
            self.ctx.signal_entity(&first, "forget", forget, Some(at))?;
        }
        Ok(())
    }
}

/// Asking a model, again and again until it replies or nobody wants to wait any longer.
struct Asking {
    ctx: OrchestrationContext,
    settings: Settings,
    activity: String,
}

impl Asking {
    async fn until_replied<C, O, T>(
        &self,
        key: &str,
        call: impl Fn(String, bool) -> C,
        read: impl Fn(O) -> Result<T, ModelError>,
    ) -> Result<T, TaskError>
    where
        C: Serialize,
        O: mainspring_sdk::Payload,
    {
        let retry = self.settings.retry;
        let mut key_of_attempt = key.to_owned();
        let mut attempt = 1;
        loop {
            let is_last = attempt >= retry.attempts_max;
            let input = call(key_of_attempt.clone(), is_last);
            let task = self.ctx.call_by_name::<O>(&self.activity, input);
            let error = match read(task.await?) {
                Ok(replied) => return Ok(replied),
                Err(error) => error,
            };
            let asked_for = match error.kind {
                ModelErrorKind::RateLimited { retry_after } => retry_after,
                // The provider would give the same again under the same key.
                ModelErrorKind::Malformed => {
                    key_of_attempt = format!("{key}.{attempt}");
                    None
                }
                ModelErrorKind::Unavailable | ModelErrorKind::Rejected => None,
            };
            let pause: Duration = retry.pause(attempt, asked_for, self.ctx.random());
            self.ctx.timer(pause).await;
            attempt += 1;
        }
    }
}
