//! People: what a run asks them, how it waits, and how they answer.
//!
//! ```text
//!  run ──custom status──► waiting(&client) ──► a person
//!   ▲                                             │
//!   └──external event `approval:{question}`── answer(&client, ..)
//! ```
//!
//! A run that waits holds no thread and no memory worth naming; the wait survives restarts. Nothing here decides what an answer leads to.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainspring_sdk::{
    Client, Either, InstanceQuery, InstanceState, OrchestrationContext, Status, TaskError,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::budget::{Limit, Spent};
use crate::schema::beginning;
use crate::status::RunStatus;

type Applies = dyn Fn(&Value) -> bool + Send + Sync;

/// When a person has to approve a tool's calls, for how long the run waits, and what happens if nobody answers.
///
/// ```
/// use std::time::Duration;
/// use mainspring_agents::{Approval, Otherwise};
///
/// let approval = Approval::required()
///     .within(Duration::from_secs(2 * 86_400))
///     .otherwise(Otherwise::Reject)
///     .only_if(|arguments| arguments["cents"].as_u64().is_none_or(|cents| cents > 5_000));
/// ```
#[derive(Clone)]
pub struct Approval {
    terms: Terms,
    applies: Option<Arc<Applies>>,
}

impl fmt::Debug for Approval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Approval({:?})", self.terms)
    }
}

impl Approval {
    /// For every call, waiting as long as it takes.
    pub fn required() -> Self {
        Self {
            terms: Terms::default(),
            applies: None,
        }
    }

    /// Waits no longer than that.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.terms.within = Some(within);
        self
    }

    /// What happens if nobody answers in time; [`Otherwise::Reject`] unless set.
    #[must_use]
    pub fn otherwise(mut self, otherwise: Otherwise) -> Self {
        self.terms.otherwise = otherwise;
        self
    }

    /// Only for calls with such arguments.
    #[must_use]
    pub fn only_if(mut self, applies: impl Fn(&Value) -> bool + Send + Sync + 'static) -> Self {
        self.applies = Some(Arc::new(applies));
        self
    }

    pub(crate) fn terms_of(&self, arguments: &Value) -> Option<Terms> {
        let applies = self
            .applies
            .as_ref()
            .is_none_or(|applies| applies(arguments));
        applies.then_some(self.terms)
    }
}

/// How long a run waits for an answer, and what it takes for one then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Terms {
    pub(crate) within: Option<Duration>,
    pub(crate) otherwise: Otherwise,
}

/// What happens if nobody answers in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// As if it had been approved.
    Approve,
    /// As if it had been rejected.
    #[default]
    Reject,
}

/// An answer to a [`Question`]. As JSON: `{"decision":"approve"}`, `{"decision":"reject","reason":"…"}`,
/// `{"decision":"edit","arguments":{…}}`, `{"decision":"result","content":"…"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Do it: run the tool, repeat the interrupted call, spend as much again.
    Approve,
    /// Do not. The model is told the reason.
    Reject {
        /// Why.
        #[serde(default)]
        reason: String,
    },
    /// Run the tool with these arguments instead.
    Edit {
        /// All of them.
        arguments: Value,
    },
    /// Do not run the tool, and tell the model that it gave this.
    Result {
        /// As the model reads it.
        content: String,
    },
}

/// What a run waits for a person to decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Question {
    /// The run's instance id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// The agent's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// By which it is answered, within the run.
    pub id: String,
    /// What is asked.
    pub about: About,
    /// When it was asked, in milliseconds since 1970.
    pub asked_at_ms: u64,
    /// Until when it is waited for, in milliseconds since 1970; `None`: as long as it takes.
    pub answer_by_ms: Option<u64>,
    /// What happens then.
    pub otherwise: Otherwise,
}

/// What a person is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum About {
    /// Whether a tool may be run.
    ToolCall {
        /// The tool's name.
        tool: String,
        /// The arguments; the beginning of their JSON as a string, if they are longer than 16 KiB.
        arguments: Value,
    },
    /// Whether a tool that is unsafe to repeat shall be run again: a process died in the middle of the call, and nobody knows how far it
    /// got. [`Decision::Result`] tells what it gave.
    InterruptedCall {
        /// The tool's name.
        tool: String,
        /// The arguments, as above.
        arguments: Value,
    },
    /// Whether as much again may be spent.
    Budget {
        /// What is spent.
        limit: Limit,
        /// Whether it is the session's limit, not the run's.
        is_of_session: bool,
        /// What was spent so far.
        spent: Spent,
    },
}

/// Longest arguments that a question shows, in bytes of JSON. All questions of a run together have to fit into its custom status, of 1
/// MiB at most, and a run asks up to 32 at once.
const SHOWN_BYTES_MAX: usize = 16 * 1024;

/// The arguments as a question shows them.
pub(crate) fn shown(arguments: &Value) -> Value {
    let text = arguments.to_string();
    match text.len() <= SHOWN_BYTES_MAX {
        true => arguments.clone(),
        false => Value::String(format!("{}…", beginning(&text, SHOWN_BYTES_MAX))),
    }
}

fn event_of(question: &str) -> String {
    format!("approval:{question}")
}

/// Where a run asks. All clones share what is open.
#[derive(Clone)]
pub(crate) struct Desk {
    ctx: OrchestrationContext,
    status: Arc<Mutex<RunStatus>>,
}

impl Desk {
    /// Shows the status from now on.
    pub(crate) fn new(ctx: OrchestrationContext, status: RunStatus) -> Result<Self, TaskError> {
        let status = Arc::new(Mutex::new(status));
        let desk = Self { ctx, status };
        desk.change(|_| ())?;
        Ok(desk)
    }

    /// Asks, and waits for an answer or until nobody gave one in time. `id` has to be new within the run.
    pub(crate) async fn ask(
        &self,
        id: String,
        about: About,
        terms: Terms,
    ) -> Result<Decision, TaskError> {
        let now = self.ctx.now();
        self.change(|open| {
            open.push(Question {
                run: String::new(),
                agent: String::new(),
                id: id.clone(),
                about,
                asked_at_ms: millis(now),
                answer_by_ms: terms.within.map(|within| millis(now + within)),
                otherwise: terms.otherwise,
            });
        })?;
        let decision = self.wait(&id, terms).await?;
        self.change(|open| open.retain(|question| question.id != id))?;
        Ok(decision)
    }

    async fn wait(&self, id: &str, terms: Terms) -> Result<Decision, TaskError> {
        let Some(within) = terms.within else {
            loop {
                if let Some(decision) = read(self.ctx.event(event_of(id)).await?) {
                    return Ok(decision);
                }
            }
        };
        let mut timer = self.ctx.timer(within);
        loop {
            let event = self.ctx.event(event_of(id));
            match self.ctx.select(event, &mut timer).await {
                Either::Left(payload) => {
                    if let Some(decision) = read(payload?) {
                        return Ok(decision);
                    }
                }
                Either::Right(()) => {
                    return Ok(match terms.otherwise {
                        Otherwise::Approve => Decision::Approve,
                        Otherwise::Reject => Decision::Reject {
                            reason: "nobody answered in time".to_owned(),
                        },
                    });
                }
            }
        }
    }

    /// Changes what is open and shows it.
    fn change(&self, change: impl FnOnce(&mut Vec<Question>)) -> Result<(), TaskError> {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut status.waiting);
        self.ctx.set_custom_status(&*status)
    }
}

/// A decision, or a plain yes or no; anything else is no answer, and is passed over.
fn read(payload: Value) -> Option<Decision> {
    match payload {
        Value::Bool(true) => Some(Decision::Approve),
        Value::Bool(false) => Some(Decision::Reject {
            reason: String::new(),
        }),
        other => serde_json::from_value(other).ok(),
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Most questions that are listed at once.
const LISTED_MAX: usize = 1000;

/// What waits for people, in the order in which the runs were started; the first 1,000 of it.
///
/// # Errors
///
/// When the scheduler refuses, or is away for longer than ten seconds.
pub async fn waiting(client: &Client) -> Result<Vec<Question>, mainspring_sdk::Error> {
    let mut query = InstanceQuery {
        statuses: vec![Status::Running, Status::Suspended],
        ..InstanceQuery::default()
    };
    let mut questions = Vec::new();
    loop {
        let page = client.instances(query.clone()).await?;
        for instance in &page.instances {
            questions.extend(questions_of(instance));
            if questions.len() >= LISTED_MAX {
                questions.truncate(LISTED_MAX);
                return Ok(questions);
            }
        }
        match page.continue_from {
            None => return Ok(questions),
            next => query.continue_from = next,
        }
    }
}

/// What an instance waits for; nothing if it is no agent's run.
fn questions_of(instance: &InstanceState) -> Vec<Question> {
    let Some(status) = RunStatus::of(instance) else {
        return Vec::new();
    };
    let waiting = status.waiting.into_iter();
    waiting
        .map(|question| Question {
            run: instance.id.clone(),
            agent: status.agent.clone(),
            ..question
        })
        .collect()
}

/// Why a question could not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// It was answered before, was not asked yet, or its time is over. Nothing was changed.
    #[error("run '{run}' does not wait for an answer to '{question}'")]
    NotWaiting {
        /// The run's instance id.
        run: String,
        /// The question's id.
        question: String,
    },
    /// The scheduler refused.
    #[error(transparent)]
    Scheduler(#[from] mainspring_sdk::Error),
}

/// Answers a question of a run. The first answer counts.
///
/// # Errors
///
/// [`AnswerError`].
pub async fn answer(
    client: &Client,
    run: &str,
    question: &str,
    decision: &Decision,
) -> Result<(), AnswerError> {
    let instance = client.instance::<Value>(run);
    let state = instance.state().await?;
    let is_waiting = state.is_some_and(|state| {
        let open = questions_of(&state);
        !state.status.is_terminal() && open.iter().any(|open| open.id == question)
    });
    if !is_waiting {
        return Err(AnswerError::NotWaiting {
            run: run.to_owned(),
            question: question.to_owned(),
        });
    }
    Ok(instance.raise_event(event_of(question), decision).await?)
}
