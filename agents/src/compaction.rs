//! What happens to a transcript that has grown too long for its model. Pluggable: trim it, summarise it, or what the user writes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use crate::budget::{Price, Spent};
use crate::message::Message;
use crate::model::{Model, ModelError, ModelRequest};

/// A compaction on its way.
pub type CompactionFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<Message>, ModelError>> + Send + 'a>>;

/// Makes a transcript shorter. It is run within an activity; what it gives becomes the transcript from there on, in pages of its own, and
/// the old pages stay until the session is deleted.
///
/// To keep what is written in proportion to what is said, it has to leave clearly less than it was given.
///
/// ```
/// use mainspring_agents::{Compaction, CompactionContext, CompactionFuture, Message};
///
/// /// Keeps what people said.
/// struct PeopleAlone;
///
/// impl Compaction for PeopleAlone {
///     fn compact<'a>(&'a self, messages: Vec<Message>, _: &'a CompactionContext<'a>) -> CompactionFuture<'a> {
///         let people = messages.into_iter().filter(|message| matches!(message, Message::User { .. }));
///         let kept: Vec<Message> = people.collect();
///         Box::pin(async move { Ok(kept) })
///     }
/// }
/// ```
pub trait Compaction: Send + Sync + 'static {
    /// Gives what shall stand in the place of these messages, which have no instructions among them.
    fn compact<'a>(
        &'a self,
        messages: Vec<Message>,
        ctx: &'a CompactionContext<'a>,
    ) -> CompactionFuture<'a>;
}

/// What a compaction may use.
pub struct CompactionContext<'a> {
    model: &'a dyn Model,
    template: ModelRequest,
    price: Price,
    spent: Mutex<Spent>,
}

impl std::fmt::Debug for CompactionContext<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "CompactionContext({})",
            self.template.idempotency_key
        )
    }
}

impl<'a> CompactionContext<'a> {
    pub(crate) fn new(model: &'a dyn Model, template: ModelRequest, price: Price) -> Self {
        Self {
            model,
            template,
            price,
            spent: Mutex::default(),
        }
    }

    /// Asks the agent's model, without tools and instructions. What it costs counts for the run.
    ///
    /// # Errors
    ///
    /// What the model gave.
    pub async fn ask(&self, messages: Vec<Message>) -> Result<String, ModelError> {
        let asked = self.spent().model_calls;
        let key = &self.template.idempotency_key;
        let request = ModelRequest {
            messages,
            idempotency_key: format!("{key}/{asked}"),
            ..self.template.clone()
        };
        let reply = self.model.reply(&request, &()).await?;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.model_call(reply.usage, self.price);
        Ok(reply.text)
    }

    pub(crate) fn spent(&self) -> Spent {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves out all but the last messages.
#[derive(Debug, Clone, Copy)]
pub struct Trim {
    /// How many are kept at least; one more, or a few, where a tool's result would lose its call.
    pub keep: usize,
}

impl Compaction for Trim {
    fn compact<'a>(
        &'a self,
        mut messages: Vec<Message>,
        _: &'a CompactionContext<'a>,
    ) -> CompactionFuture<'a> {
        let tail = messages.split_off(cut_before(&messages, self.keep));
        let mut kept = Vec::with_capacity(tail.len() + 1);
        if !messages.is_empty() {
            kept.push(Message::user(
                "[The earlier part of this conversation was left out.]",
            ));
        }
        kept.extend(tail);
        Box::pin(async move { Ok(kept) })
    }
}

/// Lets the agent's model put a summary in the place of all but the last messages.
#[derive(Debug, Clone, Copy)]
pub struct Summarize {
    /// How many are kept as they are, as for [`Trim`].
    pub keep: usize,
}

impl Compaction for Summarize {
    fn compact<'a>(
        &'a self,
        mut messages: Vec<Message>,
        ctx: &'a CompactionContext<'a>,
    ) -> CompactionFuture<'a> {
        Box::pin(async move {
            let tail = messages.split_off(cut_before(&messages, self.keep));
            if messages.is_empty() {
                return Ok(tail);
            }
            let told: Vec<String> = messages.iter().map(told).collect();
            let request = Message::user(format!(
                "Summarise the following conversation for the assistant that has to go on with it. Keep facts, names, numbers, decisions, \
                 what tools gave, and what is still open. Answer with the summary alone.\n\n{}",
                told.join("\n")
            ));
            let summary = ctx.ask(vec![request]).await?;
            let mut kept = Vec::with_capacity(tail.len() + 1);
            kept.push(Message::user(format!(
                "[Summary of the conversation so far]\n{summary}"
            )));
            kept.extend(tail);
            Ok(kept)
        })
    }
}

/// A message as a line of a text.
fn told(message: &Message) -> String {
    match message {
        Message::System { text } => format!("system: {text}"),
        Message::User { text } => format!("user: {text}"),
        Message::Assistant { text, tool_calls } => {
            let calls: Vec<String> = tool_calls
                .iter()
                .map(|call| format!(" [calls {} {}]", call.name, call.arguments))
                .collect();
            format!("assistant: {text}{}", calls.concat())
        }
        Message::Tool { name, content, .. } => format!("tool {name}: {content}"),
    }
}

/// Where the last `keep` messages begin; earlier, if that would part a tool's result from its call.
fn cut_before(messages: &[Message], keep: usize) -> usize {
    let mut index = messages.len().saturating_sub(keep);
    while index > 0 && matches!(messages.get(index), Some(Message::Tool { .. })) {
        index -= 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::message::ToolCall;

    #[test]
    fn a_tools_result_is_never_parted_from_its_call() {
        let call = ToolCall {
            id: "1".to_owned(),
            name: "a".to_owned(),
            arguments: json!({}),
        };
        let messages = [
            Message::user("go"),
            Message::Assistant {
                text: String::new(),
                tool_calls: vec![call.clone(), call.clone()],
            },
            Message::tool(&call, "x"),
            Message::tool(&call, "y"),
            Message::assistant("done"),
        ];
        let kept: Vec<usize> = (0..7).map(|keep| cut_before(&messages, keep)).collect();
        assert_eq!(kept, [5, 4, 1, 1, 1, 0, 0]);
    }
}
