//! What is said between a person, a model and its tools. Plain data, in the shape in which pages keep it; knows nothing of any provider.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One message of a transcript.
///
/// ```
/// use mainspring_agents::Message;
///
/// let message = Message::user("where is my parcel?");
/// assert_eq!(
///     serde_json::to_string(&message).unwrap(),
///     r#"{"role":"user","text":"where is my parcel?"}"#
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Message {
    /// What the model is told to be. An agent's instructions come as the first one.
    System {
        /// What is said.
        text: String,
    },
    /// From a person, or from the runtime, which tells the model what was wrong with a reply.
    User {
        /// What is said.
        text: String,
    },
    /// From the model.
    Assistant {
        /// What is said; empty if it only calls tools.
        text: String,
        /// What it wants to be done, all at once.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ToolCall>,
    },
    /// What a tool gave.
    Tool {
        /// Of [`ToolCall::id`].
        call_id: String,
        /// The tool's name.
        name: String,
        /// The result as the model reads it, or what went wrong.
        content: String,
    },
}

impl Message {
    /// From a person.
    pub fn user(text: impl Into<String>) -> Self {
        Self::User { text: text.into() }
    }

    /// What the model is told to be.
    pub fn system(text: impl Into<String>) -> Self {
        Self::System { text: text.into() }
    }

    /// From the model, without tool calls.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::Assistant {
            text: text.into(),
            tool_calls: Vec::new(),
        }
    }

    /// What a tool gave for a call.
    pub fn tool(call: &ToolCall, content: impl Into<String>) -> Self {
        Self::Tool {
            call_id: call.id.clone(),
            name: call.name.clone(),
            content: content.into(),
        }
    }

    /// Its text, or a tool's result.
    pub fn text(&self) -> &str {
        match self {
            Self::System { text } | Self::User { text } | Self::Assistant { text, .. } => text,
            Self::Tool { content, .. } => content,
        }
    }
}

/// A tool call that a model asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's id of the call, by which it finds the result. Not unique within a run: providers repeat themselves.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, a JSON object. What the model wrote and is no JSON is kept as a string, which fits no tool's schema, so that the
    /// model is told.
    pub arguments: Value,
}

/// Tokens that a model has read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Read: the whole request.
    pub input_tokens: u64,
    /// Written.
    pub output_tokens: u64,
}

impl Usage {
    /// Read and written.
    pub fn tokens(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
