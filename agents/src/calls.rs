//! What a run has done by activities: asking the model, running tools, compacting. Their inputs are small, their outputs are the
//! checkpoints.
//!
//! Outcomes that a run goes on from, such as a tool's error, are outputs. A failed activity is one that nothing goes on from, so that a
//! failed run can be rewound to it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use mainspring_sdk::{ActivityContext, Client, Failure, OrchestrationContext, Result, Reuse};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agent::Definition;
use crate::budget::Spent;
use crate::compaction::CompactionContext;
use crate::message::Message;
use crate::model::{ModelError, ModelErrorKind, ModelReply, ModelRequest};
use crate::page::{Span, json_bytes, page_id, split};
use crate::step::{self, Step};
use crate::tool::{Call, ToolContext};
use crate::transcript::{Transcripts, View};

/// The orchestration whose instances are claims.
pub(crate) const CLAIM: &str = "agents.claim";

/// Ends at once: that it was started is all that it is for.
pub(crate) async fn claim(_: OrchestrationContext, (): ()) -> Result<()> {
    Ok(())
}

/// Input of a model call. It names the transcript instead of holding it, so that the history grows only with what is new.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ModelCall {
    pub(crate) key: String,
    pub(crate) view: View,
    /// Nobody will try again: an error fails the activity, and with it the run.
    #[serde(default)]
    pub(crate) is_last: bool,
}

/// Output of a model call.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ModelOutcome {
    Replied { reply: ModelReply, step: Step },
    Failed(ModelError),
}

/// Asks the model for the next reply, and decides what follows from it.
pub(crate) async fn ask_model(
    agent: Arc<Definition>,
    transcripts: Arc<Transcripts>,
    ctx: ActivityContext,
    call: ModelCall,
) -> Result<ModelOutcome> {
    let mut messages = transcripts.read(&call.view).await?;
    if !agent.instructions.is_empty() {
        messages.insert(0, Message::system(&agent.instructions));
    }
    let request = ModelRequest {
        messages,
        tools: agent.tools.iter().map(|tool| tool.spec()).collect(),
        output_schema: agent
            .rules
            .output
            .as_ref()
            .map(|schema| schema.value().clone()),
        ..agent.request(call.key)
    };
    let replied = agent.model.reply(&request, &());
    let replied = tokio::time::timeout(agent.model_within, replied).await;
    let reply = replied.unwrap_or_else(|_| {
        let within = agent.model_within;
        Err(ModelError::new(
            ModelErrorKind::Unavailable,
            format!("no reply within {within:?}"),
        ))
    });
    match reply {
        Ok(reply) => {
            let step = step::next(&agent.rules, &request.messages, &reply);
            Ok(ModelOutcome::Replied { reply, step })
        }
        Err(error) => failed(&agent, &ctx, error, call.is_last).map(ModelOutcome::Failed),
    }
}

/// An error that is worth another try, or else the activity's failure.
fn failed(
    agent: &Definition,
    ctx: &ActivityContext,
    error: ModelError,
    is_last: bool,
) -> Result<ModelError> {
    if !is_last && error.kind != ModelErrorKind::Rejected {
        return Ok(error);
    }
    let message = format!(
        "agent '{}', run '{}': {error}",
        agent.name,
        ctx.instance_id()
    );
    Err(Failure::new(error.kind.error_type(), message).non_retriable())
}

/// Input of a compaction.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CompactCall {
    pub(crate) key: String,
    pub(crate) view: View,
    /// Where the transcript ends so far; deleted together with what stands in its place.
    pub(crate) replaces: Option<Span>,
    pub(crate) page_bytes_max: usize,
    #[serde(default)]
    pub(crate) is_last: bool,
}

/// Output of a compaction.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CompactOutcome {
    Compacted {
        span: Span,
        bytes: u64,
        spent: Spent,
    },
    /// The agent no longer has a compaction, or nothing was left out.
    Unchanged {
        spent: Spent,
    },
    Failed(ModelError),
}

/// Writes a shorter transcript into pages of its own.
pub(crate) async fn compact(
    agent: Arc<Definition>,
    transcripts: Arc<Transcripts>,
    ctx: ActivityContext,
    call: CompactCall,
) -> Result<CompactOutcome> {
    let Some((_, compaction)) = &agent.compaction else {
        let spent = Spent::default();
        return Ok(CompactOutcome::Unchanged { spent });
    };
    let messages = transcripts.read(&call.view).await?;
    let count = messages.len();
    let context =
        CompactionContext::new(agent.model.as_ref(), agent.request(call.key), agent.price);
    let compacted =
        tokio::time::timeout(agent.model_within, compaction.compact(messages, &context));
    let compacted = compacted.await.unwrap_or_else(|_| {
        Err(ModelError::new(
            ModelErrorKind::Unavailable,
            format!("no compaction within {:?}", agent.model_within),
        ))
    });
    let kept = match compacted {
        Ok(kept) => kept,
        Err(error) => return failed(&agent, &ctx, error, call.is_last).map(CompactOutcome::Failed),
    };
    let spent = context.spent();
    if kept.is_empty() || kept.len() >= count {
        return Ok(CompactOutcome::Unchanged { spent });
    }
    let bytes = kept.iter().map(json_bytes).sum::<usize>() as u64;
    // Another chain for each try: pages are written once, and a model does not say the same twice. What a try that was cut short has
    // written stays unread.
    let chance = RandomState::new().build_hasher().finish();
    let chain = format!("{}.{chance:016x}", call.view.own.chain);
    let mut pages = split(kept, call.page_bytes_max);
    if let Some(first) = pages.first_mut() {
        first.replaces = call.replaces;
    }
    let (mut to, mut seal) = (0, 0);
    for page in pages {
        let page = page.sealed(seal);
        seal = page.seal;
        let entity = page_id(&chain, to);
        transcripts
            .client()
            .signal_entity(&entity, "write", &page, None)
            .await?;
        transcripts.keep(&chain, to, Arc::new(page));
        to += 1;
    }
    let span = Span {
        chain,
        from: 0,
        to,
        seal,
    };
    Ok(CompactOutcome::Compacted { span, bytes, spent })
}

/// Input of a tool call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToolInvocation {
    pub(crate) key: String,
    pub(crate) arguments: Value,
    /// The instance that has to be started first, for a tool that is unsafe to repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claim: Option<String>,
}

/// Output of a tool call.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToolOutcome {
    Done(String),
    Failed(String),
    /// The call was begun before, and nobody knows how far it got.
    Interrupted,
}

/// Runs a tool.
pub(crate) async fn run_tool(
    agent: Arc<Definition>,
    index: usize,
    client: Client,
    ctx: ActivityContext,
    call: ToolInvocation,
) -> Result<ToolOutcome> {
    let (tool, rules) = (&agent.tools[index], &agent.rules.tools[index]);
    // Checked when the model asked, but a person may have edited them since.
    let objections = rules.schema.objections(&call.arguments);
    if !objections.is_empty() {
        return Ok(ToolOutcome::Failed(format!(
            "the arguments do not fit the tool's schema. {}",
            objections.join("; ")
        )));
    }
    if let Some(claim) = call.claim
        && !is_claimed(&client, &agent.name, &tool.name, claim).await
    {
        return Ok(ToolOutcome::Interrupted);
    }
    let context = ToolContext {
        call: Arc::new(Call {
            agent: agent.name.clone(),
            run: ctx.instance_id().to_owned(),
            key: call.key,
        }),
    };
    let called = (tool.handler)(context, call.arguments);
    Ok(match tokio::time::timeout(tool.within, called).await {
        Ok(Ok(content)) => ToolOutcome::Done(content),
        Ok(Err(error)) => ToolOutcome::Failed(error),
        Err(_) => ToolOutcome::Failed(format!("it took longer than {:?}", tool.within)),
    })
}

/// Claims a call, which succeeds once in its life: an instance of this id can be started once. What is not known to have succeeded counts
/// as claimed by somebody else, since a person can be asked and a call cannot be taken back.
async fn is_claimed(client: &Client, agent: &str, tool: &str, claim: String) -> bool {
    let started = client
        .start_by_name::<()>(CLAIM, ())
        .id(&claim)
        .reuse(Reuse::Never)
        .await;
    if let Err(error) = &started {
        tracing::warn!(agent, tool, claim, %error, "a tool call that is unsafe to repeat was begun before");
    }
    started.is_ok()
}
