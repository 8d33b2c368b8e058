//! What follows from a reply: a pure function of the agent's rules, the transcript and the reply. It waits for nothing, and is run within
//! the model's activity, so that what it decided is recorded: an agent whose tools or terms are changed does not disturb runs on their
//! way.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::approval::Terms;
use crate::message::{Message, ToolCall};
use crate::model::{Finish, ModelReply};
use crate::schema::{Schema, beginning};
use crate::tool::ToolRules;

/// How many tool calls of one reply are run at once; those beyond it are refused, and the model is told.
const CALLS_AT_ONCE_MAX: usize = 32;

/// How often in a row a model is told that its reply will not do.
const CORRECTIONS_MAX: usize = 3;

/// How an objection to a reply begins. The transcript is asked for it, so it must not change.
const OBJECTION: &str = "That reply will not do: ";

/// By what replies are judged.
pub(crate) struct Rules {
    pub(crate) tools: Vec<ToolRules>,
    pub(crate) output: Option<Schema>,
}

/// What is to be done after a reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// Run tools: a plan for each call, in the order of the reply's.
    CallTools(Vec<Plan>),
    /// The reply's text is the answer; whether it has to be read as JSON.
    Finish { is_structured: bool },
    /// Say this to the model and ask it again.
    AskAgain(String),
    /// End without success.
    Fail { error_type: String, reason: String },
}

/// What is to be done about a tool call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Plan {
    /// Run it, once approved if it has terms.
    Run {
        approval: Option<Terms>,
        is_unsafe_to_repeat: bool,
        attempts_max: u32,
    },
    /// Do not; the model is told why.
    Refuse(String),
}

/// The next step after `reply` to `transcript`, which ends before the reply.
pub(crate) fn next(rules: &Rules, transcript: &[Message], reply: &ModelReply) -> Step {
    if reply.finish == Finish::Refused {
        return Step::Fail {
            error_type: "ModelRefused".to_owned(),
            reason: format!(
                "the model holds its reply back: {}",
                beginning(&reply.text, 500)
            ),
        };
    }
    if reply.finish == Finish::Length {
        return object(
            transcript,
            "it was cut at the limit of its length. Be shorter.",
        );
    }
    if !reply.tool_calls.is_empty() {
        return plans(rules, transcript, &reply.tool_calls);
    }
    let Some(schema) = &rules.output else {
        return Step::Finish {
            is_structured: false,
        };
    };
    let objections = match structured(&reply.text) {
        Ok(output) => schema.objections(&output),
        Err(error) => vec![format!("it is no JSON: {error}")],
    };
    match objections.is_empty() {
        true => Step::Finish {
            is_structured: true,
        },
        false => object(
            transcript,
            &format!(
                "it does not fit the JSON schema of the answer. {}. Answer with JSON alone.",
                objections.join("; ")
            ),
        ),
    }
}

/// The answer as JSON; a fence of Markdown around it is taken off, since models will not leave that.
pub(crate) fn structured(text: &str) -> Result<Value, serde_json::Error> {
    let text = text.trim();
    let fenced = text.strip_prefix("```").and_then(|rest| {
        let (_, body) = rest.split_once('\n')?;
        body.trim_end().strip_suffix("```")
    });
    serde_json::from_str(fenced.unwrap_or(text))
}

fn plans(rules: &Rules, transcript: &[Message], calls: &[ToolCall]) -> Step {
    let plans: Vec<Plan> = calls
        .iter()
        .enumerate()
        .map(|(position, call)| match position < CALLS_AT_ONCE_MAX {
            true => plan(rules, call),
            false => Plan::Refuse(format!(
                "not run: no more than {CALLS_AT_ONCE_MAX} calls are run at once"
            )),
        })
        .collect();
    let is_refused = |plan: &Plan| matches!(plan, Plan::Refuse(_));
    // Refused altogether again and again, it will not learn.
    if plans.iter().all(is_refused) && refusals(transcript) >= CORRECTIONS_MAX {
        return Step::Fail {
            error_type: "ToolCallInvalid".to_owned(),
            reason: format!(
                "the model calls tools wrongly, though it was told {CORRECTIONS_MAX} times: {}",
                plans.iter().find_map(refusal).unwrap_or_default()
            ),
        };
    }
    Step::CallTools(plans)
}

fn refusal(plan: &Plan) -> Option<&str> {
    match plan {
        Plan::Refuse(reason) => Some(reason),
        Plan::Run { .. } => None,
    }
}

/// How refusals begin, so that the transcript can be asked for them.
const REFUSAL: &str = "not run: ";

fn plan(rules: &Rules, call: &ToolCall) -> Plan {
    let Some(tool) = rules.tools.iter().find(|tool| tool.name == call.name) else {
        let names: Vec<&str> = rules.tools.iter().map(|tool| tool.name.as_str()).collect();
        return Plan::Refuse(format!(
            "{REFUSAL}there is no tool '{}'; there are: {}",
            beginning(&call.name, 100),
            names.join(", ")
        ));
    };
    let objections = tool.schema.objections(&call.arguments);
    if !objections.is_empty() {
        return Plan::Refuse(format!(
            "{REFUSAL}the arguments do not fit the tool's schema. {}",
            objections.join("; ")
        ));
    }
    Plan::Run {
        approval: tool.approval_of(&call.arguments),
        is_unsafe_to_repeat: tool.is_unsafe_to_repeat,
        attempts_max: tool.attempts_max,
    }
}

/// Tells the model, or gives up after it was told often enough.
fn object(transcript: &[Message], objection: &str) -> Step {
    let told = transcript.iter().rev().take_while(|message| match message {
        Message::User { text } => text.starts_with(OBJECTION),
        Message::Assistant { .. } => true,
        Message::System { .. } | Message::Tool { .. } => false,
    });
    let told = told
        .filter(|message| matches!(message, Message::User { .. }))
        .count();
    match told < CORRECTIONS_MAX {
        true => Step::AskAgain(format!("{OBJECTION}{objection}")),
        false => Step::Fail {
            error_type: "ReplyInvalid".to_owned(),
            reason: format!(
                "the model's reply will not do, though it was told {CORRECTIONS_MAX} times: {objection}"
            ),
        },
    }
}

/// How many replies at the end of the transcript had all of their calls refused.
fn refusals(transcript: &[Message]) -> usize {
    let mut count = 0;
    for message in transcript.iter().rev() {
        match message {
            Message::Tool { content, .. } if content.starts_with(REFUSAL) => {}
            Message::Assistant { tool_calls, .. } if !tool_calls.is_empty() => count += 1,
            _ => break,
        }
    }
    count
}

#[cfg(test)]
mod tests;
