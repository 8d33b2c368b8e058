//! The one door to a language model. Adapters stand behind it; nothing else here knows a provider, a socket or a secret.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::message::{Message, ToolCall, Usage};

/// A reply on its way.
pub type ModelFuture<'a> =
    Pin<Box<dyn Future<Output = Result<ModelReply, ModelError>> + Send + 'a>>;

/// A language model.
///
/// It is asked from within an activity: its reply is a checkpoint once the activity is answered, and is asked for again, with the same
/// [`ModelRequest::idempotency_key`], if the process dies before.
///
/// ```
/// use mainspring_agents::{Deltas, Model, ModelFuture, ModelReply, ModelRequest};
///
/// /// Says what it was told.
/// struct Parrot;
///
/// impl Model for Parrot {
///     fn reply<'a>(&'a self, request: &'a ModelRequest, deltas: &'a dyn Deltas) -> ModelFuture<'a> {
///         Box::pin(async move {
///             let said = request.messages.last().map_or("", |message| message.text());
///             deltas.delta(said);
///             Ok(ModelReply::text(said))
///         })
///     }
/// }
/// ```
pub trait Model: Send + Sync + 'static {
    /// Sends one request; `deltas` takes pieces of text as they come.
    ///
    /// Dropping the future gives the request up: that happens when its time is over.
    fn reply<'a>(&'a self, request: &'a ModelRequest, deltas: &'a dyn Deltas) -> ModelFuture<'a>;
}

/// Takes the pieces of a reply's text as they come. `()` ignores them.
pub trait Deltas: Send + Sync {
    /// The next piece.
    fn delta(&self, text: &str);
}

impl Deltas for () {
    fn delta(&self, _: &str) {}
}

/// All that a model is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelRequest {
    /// The model's name, as its provider knows it; empty: whatever the adapter is set up for.
    pub model: String,
    /// The transcript, the instructions first.
    pub messages: Vec<Message>,
    /// What it may call.
    pub tools: Vec<ToolSpec>,
    /// The JSON schema that its final text has to fit. The runtime checks it anyway.
    pub output_schema: Option<Value>,
    /// Sampling temperature, as the provider defines it.
    pub temperature: Option<f64>,
    /// Most tokens that it may write.
    pub output_tokens_max: Option<u32>,
    /// The same whenever this request is sent again because nobody knows whether it was answered.
    pub idempotency_key: String,
}

/// A tool as a model sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The name to call it by.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON schema of its arguments.
    pub parameters: Value,
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelReply {
    /// What it says.
    pub text: String,
    /// What it wants to be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// What it cost; zero if the provider does not tell.
    pub usage: Usage,
    /// Why it ended.
    pub finish: Finish,
}

/// Why a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It was complete.
    Stop,
    /// It waits for tools.
    ToolCalls,
    /// It was cut at the limit of its length.
    Length,
    /// The provider held it back.
    Refused,
}

impl ModelReply {
    /// A complete reply that calls nothing.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tool_calls: Vec::new(),
            usage: Usage::default(),
            finish: Finish::Stop,
        }
    }

    /// A reply that calls tools, by name and arguments. Calls are numbered from `call-1`.
    pub fn calls<'a>(calls: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let calls = calls.into_iter().zip(1..);
        Self {
            tool_calls: calls
                .map(|((name, arguments), number)| ToolCall {
                    id: format!("call-{number}"),
                    name: name.to_owned(),
                    arguments,
                })
                .collect(),
            finish: Finish::ToolCalls,
            ..Self::text("")
        }
    }

    /// The same at this cost.
    #[must_use]
    pub fn costing(mut self, input_tokens: u64, output_tokens: u64) -> Self {
        self.usage = Usage {
            input_tokens,
            output_tokens,
        };
        self
    }
}

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct ModelError {
    /// What can be done about it.
    pub kind: ModelErrorKind,
    /// What the provider said. Goes into history: no secrets.
    pub message: String,
}

/// What can be done about a model that did not reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ModelErrorKind {
    /// Too many requests: asked again later, not before `retry_after`.
    RateLimited {
        /// How long the provider wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// No answer, in time or at all: asked again with the same idempotency key.
    Unavailable,
    /// A request that will never do, such as a wrong key or an unknown model: not asked again.
    Rejected,
    /// An answer that cannot be read: asked again with another idempotency key.
    Malformed,
}

impl ModelErrorKind {
    /// As it is named in history.
    pub(crate) fn error_type(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "ModelRateLimited",
            Self::Unavailable => "ModelUnavailable",
            Self::Rejected => "ModelRejected",
            Self::Malformed => "ModelMalformed",
        }
    }
}

impl fmt::Display for ModelErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::RateLimited { .. } => "the model takes no more requests for now",
            Self::Unavailable => "the model does not answer",
            Self::Rejected => "the model refuses the request",
            Self::Malformed => "the model's answer cannot be read",
        })
    }
}

impl ModelError {
    /// Of that kind.
    pub fn new(kind: ModelErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}
