//! Durable agents: language models with tools that run for minutes or weeks, and survive everything that happens meanwhile.
//!
//! What is durable: each model reply and each tool result is a checkpoint in the history of an orchestration. After a crash nothing that
//! was checkpointed is asked or done again. What was on its way is repeated with the same idempotency key, or, for a tool that is [unsafe
//! to repeat](Tool::unsafe_to_repeat), a person is asked.
//!
//! Words: a *run* is one orchestration, from a question to its answer; a *session* is a conversation of many runs, an entity.
//!
//! In reading order: [`Agent`] is what is described and started, [`Tool`] what it may do, [`Model`] the door to a language model, `step`
//! the pure function from a reply to what is done next, `run` the orchestration, [`SessionClient`] a conversation, `page` and
//! `transcript` how it is kept, [`waiting`] and [`answer`] what people are asked, [`Budget`] what may be spent.
//!
//! It stands on the SDK alone: it never sees how a scheduler works, and talks to no provider itself.

mod agent;
mod approval;
mod book;
mod budget;
mod calls;
mod compaction;
mod message;
mod model;
mod page;
mod retry;
mod run;
mod schema;
mod scripted;
mod session;
mod status;
mod step;
mod tool;
mod tool_call;
mod transcript;

pub use agent::{Agent, AgentBuilder, AgentError, Ask, RegisterAgents};
pub use approval::{About, AnswerError, Approval, Decision, Otherwise, Question, answer, waiting};
pub use budget::{AtLimit, Budget, Limit, Price, Spent};
pub use compaction::{Compaction, CompactionContext, CompactionFuture, Summarize, Trim};
pub use message::{Message, ToolCall, Usage};
pub use model::{
    Deltas, Finish, Model, ModelError, ModelErrorKind, ModelFuture, ModelReply, ModelRequest,
    ToolSpec,
};
pub use retry::Retry;
pub use run::{Answer, Ended};
pub use schema::json_schema_of;
pub use scripted::ScriptedModel;
pub use session::{SessionClient, SessionInfo};
pub use status::forget_run;
pub use tool::{Tool, ToolContext};
