//! Agents: what one is, and how it is registered and started. The run itself is elsewhere.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainspring_sdk::{ActivityContext, Client, OrchestrationContext, Start, Task, Worker, named};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::budget::{Budget, Price};
use crate::calls;
use crate::compaction::Compaction;
use crate::model::{Model, ModelRequest};
use crate::page::Page;
use crate::retry::Retry;
use crate::run::{Answer, run};
use crate::schema::{Schema, json_schema_of};
use crate::session::Session;
use crate::step::Rules;
use crate::tool::{Tool, ToolRules};
use crate::transcript::{KEPT_BYTES_MAX, Transcripts};

/// A durable agent: a model, instructions and tools. Cheap to clone.
///
/// A run of it is an orchestration of name `agent.{name}`. Each model call and each tool call is an activity, and its result a
/// checkpoint: after a crash the run goes on behind the last one.
///
/// ```
/// use mainspring_agents::{Agent, Ask, ModelReply, RegisterAgents as _, ScriptedModel, Tool, ToolContext};
/// use mainspring::testing::TestScheduler;
/// use serde::Deserialize;
/// use serde_json::json;
///
/// #[derive(Deserialize, schemars::JsonSchema)]
/// struct City {
///     city: String,
/// }
///
/// async fn weather(_: ToolContext, City { city }: City) -> Result<String, std::io::Error> {
///     Ok(format!("rain in {city}"))
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// // In place of a real model, one that says what it is told to.
/// let model = ScriptedModel::new([
///     ModelReply::calls([("weather", json!({"city": "Oslo"}))]),
///     ModelReply::text("Take an umbrella."),
/// ]);
/// let agent = Agent::builder("porter", model)
///     .instructions("You tell guests what to wear.")
///     .tool(Tool::new("weather", "The weather in a city.", weather))
///     .build()?;
///
/// let scheduler = TestScheduler::start().await?;
/// let _worker = scheduler.worker().agents([agent.clone()]).start()?;
/// let run = agent.start(&scheduler.client(), Ask::new("I go to Oslo.")).await?;
/// let answer = scheduler.finish(&run).await?;
/// assert_eq!(answer.text, "Take an umbrella.");
/// assert_eq!((answer.spent.model_calls, answer.spent.tool_calls), (2, 1));
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone)]
pub struct Agent {
    definition: Arc<Definition>,
}

impl fmt::Debug for Agent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Agent({})", self.definition.name)
    }
}

/// What a run needs to know of its agent.
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) model_name: String,
    pub(crate) instructions: String,
    pub(crate) tools: Vec<Tool>,
    pub(crate) rules: Rules,
    pub(crate) temperature: Option<f64>,
    pub(crate) output_tokens_max: Option<u32>,
    pub(crate) model_within: Duration,
    pub(crate) price: Price,
    pub(crate) compaction: Option<(u64, Arc<dyn Compaction>)>,
    settings: Settings,
}

/// What decides about a run beside what activities record. It is part of the run's input, so that it stays as it was when the run was
/// started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) budget: Budget,
    pub(crate) session_budget: Budget,
    pub(crate) price: Price,
    pub(crate) retry: Retry,
    pub(crate) page_bytes_max: usize,
    pub(crate) compact_above_tokens: Option<u64>,
    pub(crate) keep_transcript: Duration,
    pub(crate) session_time_to_live: Option<Duration>,
}

/// Bounds of pages, in bytes: smaller ones are not worth an entity; larger ones might not fit into a payload of 1 MiB.
const PAGE_BYTES: std::ops::RangeInclusive<usize> = 1024..=512 * 1024;

impl Definition {
    pub(crate) fn settings(&self) -> Settings {
        self.settings.clone()
    }

    fn run_name(&self) -> String {
        format!("agent.{}", self.name)
    }

    pub(crate) fn model_activity(&self) -> String {
        format!("agent.{}.model", self.name)
    }

    pub(crate) fn compact_activity(&self) -> String {
        format!("agent.{}.compact", self.name)
    }

    pub(crate) fn tool_activity(&self, tool: &str) -> String {
        format!("agent.{}.tool.{tool}", self.name)
    }

    /// A request without messages and tools.
    pub(crate) fn request(&self, idempotency_key: String) -> ModelRequest {
        ModelRequest {
            model: self.model_name.clone(),
            messages: Vec::new(),
            tools: Vec::new(),
            output_schema: None,
            temperature: self.temperature,
            output_tokens_max: self.output_tokens_max,
            idempotency_key,
        }
    }
}

/// An agent that is being described.
#[must_use = "there is no agent until `build` is called"]
pub struct AgentBuilder {
    name: String,
    model: Arc<dyn Model>,
    model_name: String,
    instructions: String,
    tools: Vec<Tool>,
    output: Option<Value>,
    temperature: Option<f64>,
    output_tokens_max: Option<u32>,
    model_within: Duration,
    compaction: Option<(u64, Arc<dyn Compaction>)>,
    settings: Settings,
}

impl fmt::Debug for AgentBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AgentBuilder({})", self.name)
    }
}

/// An agent that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("agent '{agent}': {reason}")]
pub struct AgentError {
    /// Its name.
    pub agent: String,
    /// What is wrong.
    pub reason: String,
}

impl Agent {
    /// An agent of this name, of letters, digits, `_` and `-`, at most 64.
    pub fn builder(name: impl Into<String>, model: impl Model) -> AgentBuilder {
        AgentBuilder {
            name: name.into(),
            model: Arc::new(model),
            model_name: String::new(),
            instructions: String::new(),
            tools: Vec::new(),
            output: None,
            temperature: None,
            output_tokens_max: None,
            model_within: Duration::from_secs(300),
            compaction: None,
            settings: Settings {
                budget: Budget::default(),
                session_budget: Budget::unlimited(),
                price: Price::default(),
                retry: Retry::default(),
                page_bytes_max: 128 * 1024,
                compact_above_tokens: None,
                keep_transcript: Duration::from_secs(86_400),
                session_time_to_live: None,
            },
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Starts a run. Awaited, this gives the instance once it is durable; an id, tags and more can be set before.
    pub fn start(&self, client: &Client, ask: impl Into<Ask>) -> Start<Answer> {
        client.start_by_name(self.definition.run_name(), self.settled(ask.into()))
    }

    /// A run as part of an orchestration.
    pub fn child(&self, ctx: &OrchestrationContext, ask: impl Into<Ask>) -> Task<Answer> {
        ctx.child_by_name(self.definition.run_name(), self.settled(ask.into()))
    }

    fn settled(&self, mut ask: Ask) -> Ask {
        let mut settings = self.definition.settings();
        if let Some(budget) = ask.budget.take() {
            settings.budget = budget;
        }
        ask.settings = Some(settings);
        ask
    }
}

impl AgentBuilder {
    /// What the model is told to be, before each transcript.
    pub fn instructions(mut self, instructions: impl Into<String>) -> Self {
        self.instructions = instructions.into();
        self
    }

    /// The model's name, as its provider knows it.
    pub fn model_name(mut self, name: impl Into<String>) -> Self {
        self.model_name = name.into();
        self
    }

    /// Adds a tool.
    pub fn tool(mut self, tool: Tool) -> Self {
        self.tools.push(tool);
        self
    }

    /// The answer has to be JSON of this type. [`Answer::output_as`] gives it.
    pub fn output<T: schemars::JsonSchema>(self) -> Self {
        self.output_schema(json_schema_of::<T>())
    }

    /// The answer has to be JSON that fits this schema.
    pub fn output_schema(mut self, schema: Value) -> Self {
        self.output = Some(schema);
        self
    }

    /// Sampling temperature.
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = Some(temperature);
        self
    }

    /// Most tokens that one reply may have.
    pub fn output_tokens_max(mut self, max: u32) -> Self {
        self.output_tokens_max = Some(max);
        self
    }

    /// A model that has not replied within that time is asked again; five minutes unless set.
    pub fn model_within(mut self, within: Duration) -> Self {
        self.model_within = within;
        self
    }

    /// How often a model is asked again after errors.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = retry;
        self
    }

    /// What a run may spend, unless [`Ask::budget`] says otherwise.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.settings.budget = budget;
        self
    }

    /// What all runs of a session may spend together; its `elapsed` means nothing.
    pub fn session_budget(mut self, budget: Budget) -> Self {
        self.settings.session_budget = budget;
        self
    }

    /// What tokens cost, for budgets of money and [`Spent::money_micros`](crate::Spent::money_micros).
    pub fn price(mut self, price: Price) -> Self {
        self.settings.price = price;
        self
    }

    /// Makes the transcript shorter before a model call once it has more than `tokens`.
    pub fn compaction(mut self, tokens: u64, compaction: impl Compaction) -> Self {
        self.compaction = Some((tokens, Arc::new(compaction)));
        self
    }

    /// Longest page of a transcript, in bytes, from 1 KiB to 512 KiB; 128 KiB unless set.
    pub fn page_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.page_bytes_max = bytes;
        self
    }

    /// How long the transcript of a run without a session is kept after its end; a day unless set. That of a run that failed or was
    /// terminated is kept until [`forget_run`](crate::forget_run).
    pub fn keep_transcript(mut self, time: Duration) -> Self {
        self.settings.keep_transcript = time;
        self
    }

    /// Sessions that this agent begins are deleted so long after they were last used; never unless set.
    pub fn session_time_to_live(mut self, time_to_live: Duration) -> Self {
        self.settings.session_time_to_live = Some(time_to_live);
        self
    }

    /// The agent.
    ///
    /// # Errors
    ///
    /// When a name, a schema or a limit cannot work.
    pub fn build(self) -> Result<Agent, AgentError> {
        let agent = self.name.clone();
        let definition = self.define();
        definition
            .map(|definition| Agent {
                definition: Arc::new(definition),
            })
            .map_err(|reason| AgentError { agent, reason })
    }

    fn define(mut self) -> Result<Definition, String> {
        check_name("the agent", &self.name)?;
        let mut tools = Vec::with_capacity(self.tools.len());
        for (index, tool) in self.tools.iter().enumerate() {
            let name = &tool.name;
            check_name("tool", name)?;
            // Activities of names that differ in case alone would be one to the scheduler.
            let mut others = self.tools[..index].iter();
            if others.any(|other| other.name.eq_ignore_ascii_case(name)) {
                return Err(format!("there are two tools '{name}'"));
            }
            let rules = ToolRules::new(tool);
            tools.push(rules.map_err(|reason| format!("the schema of tool '{name}': {reason}"))?);
        }
        let output = self.output.take().map(Schema::new).transpose();
        let output = output.map_err(|reason| format!("the schema of its output: {reason}"))?;
        let page_bytes_max = self.settings.page_bytes_max;
        if !PAGE_BYTES.contains(&page_bytes_max) {
            return Err(format!(
                "pages of {page_bytes_max} bytes: from {} to {} are possible",
                PAGE_BYTES.start(),
                PAGE_BYTES.end()
            ));
        }
        if self.settings.retry.attempts_max == 0 {
            return Err("a model that is asked 0 times never replies".to_owned());
        }
        self.settings.compact_above_tokens = self.compaction.as_ref().map(|(tokens, _)| *tokens);
        Ok(Definition {
            name: self.name,
            model: self.model,
            model_name: self.model_name,
            instructions: self.instructions,
            tools: self.tools,
            rules: Rules { tools, output },
            temperature: self.temperature,
            output_tokens_max: self.output_tokens_max,
            model_within: self.model_within,
            price: self.settings.price,
            compaction: self.compaction,
            settings: self.settings,
        })
    }
}

/// Names become parts of activities' names, and providers want tools' names so.
fn check_name(of: &str, name: &str) -> Result<(), String> {
    let is_good = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    match !name.is_empty() && name.len() <= 64 && name.chars().all(is_good) {
        true => Ok(()),
        false => Err(format!(
            "{of} is called '{name}': a name has 1 to 64 letters, digits, '_' and '-'"
        )),
    }
}

/// What an agent is asked: the input of a run. As JSON `{"text": "…"}` is enough.
///
/// ```
/// use mainspring_agents::{Ask, Budget};
///
/// let ask = Ask::new("And tomorrow?")
///     .session("customer-17")
///     .budget(Budget { tool_calls: Some(3), ..Budget::default() });
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[must_use = "nothing is asked until a run is started with it"]
pub struct Ask {
    pub(crate) text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget: Option<Budget>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settings: Option<Settings>,
}

impl Ask {
    /// Without a session.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            session: None,
            budget: None,
            settings: None,
        }
    }

    /// As the next turn of the session of this key, of 80 characters at most. It waits for the runs of the session that were started
    /// before.
    pub fn session(mut self, key: impl Into<String>) -> Self {
        self.session = Some(key.into());
        self
    }

    /// What this run may spend.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }
}

impl From<&str> for Ask {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Ask {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// Lets a worker run agents.
pub trait RegisterAgents {
    /// Registers agents, their tools and all that they need. To be called once a worker, with all its agents.
    #[must_use = "a worker does nothing until it is started"]
    fn agents(self, agents: impl IntoIterator<Item = Agent>) -> Self;
}

impl RegisterAgents for Worker {
    fn agents(self, agents: impl IntoIterator<Item = Agent>) -> Self {
        let client = Client::new(self.connection().clone());
        let transcripts = Arc::new(Transcripts::new(client, KEPT_BYTES_MAX));
        let shared = self
            .entity::<Session>()
            .entity::<Page>()
            .orchestration(named(calls::CLAIM, calls::claim));
        agents.into_iter().fold(shared, |worker, agent| {
            register(worker, &agent.definition, &transcripts)
        })
    }
}

fn register(mut worker: Worker, agent: &Arc<Definition>, transcripts: &Arc<Transcripts>) -> Worker {
    let shared = || (Arc::clone(agent), Arc::clone(transcripts));
    let (definition, pages) = shared();
    worker = worker.orchestration(named(
        agent.run_name(),
        move |ctx: OrchestrationContext, ask: Ask| {
            run(Arc::clone(&definition), Arc::clone(&pages), ctx, ask)
        },
    ));
    let (definition, pages) = shared();
    worker = worker.activity(named(
        agent.model_activity(),
        move |ctx: ActivityContext, call| {
            calls::ask_model(Arc::clone(&definition), Arc::clone(&pages), ctx, call)
        },
    ));
    let (definition, pages) = shared();
    worker = worker.activity(named(
        agent.compact_activity(),
        move |ctx: ActivityContext, call| {
            calls::compact(Arc::clone(&definition), Arc::clone(&pages), ctx, call)
        },
    ));
    for (index, tool) in agent.tools.iter().enumerate() {
        let (definition, pages) = shared();
        worker = worker.activity(named(
            agent.tool_activity(&tool.name),
            move |ctx: ActivityContext, call| {
                let client = pages.client().clone();
                calls::run_tool(Arc::clone(&definition), index, client, ctx, call)
            },
        ));
    }
    worker
}
