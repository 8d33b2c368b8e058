//! One tool call of a run, from its plan to what the model is told: a person is asked first if need be, and again if the call was
//! interrupted.

use mainspring_sdk::{OrchestrationContext, TaskError};
use serde_json::Value;

use crate::approval::{About, Decision, Desk, Terms, shown};
use crate::calls::{ToolInvocation, ToolOutcome};
use crate::message::ToolCall;
use crate::retry::Retry;
use crate::step::Plan;

/// What a call needs.
pub(crate) struct ToolDesk {
    pub(crate) ctx: OrchestrationContext,
    pub(crate) desk: Desk,
    pub(crate) activity: String,
    /// The call's idempotency key.
    pub(crate) key: String,
    /// What the ids of its claims begin with.
    pub(crate) claim: String,
    /// The call's number within the run, from 1.
    pub(crate) number: u32,
    pub(crate) retry: Retry,
}

/// How a call ended.
pub(crate) struct ToolEnd {
    /// What the model is told.
    pub(crate) content: String,
    /// Whether the tool was run.
    pub(crate) was_run: bool,
}

impl ToolEnd {
    fn not_run(content: String) -> Self {
        Self {
            content,
            was_run: false,
        }
    }

    fn run(content: String) -> Self {
        Self {
            content,
            was_run: true,
        }
    }
}

impl ToolDesk {
    pub(crate) async fn carry_out(self, plan: Plan, call: ToolCall) -> Result<ToolEnd, TaskError> {
        let (approval, is_unsafe_to_repeat, attempts_max) = match plan {
            Plan::Refuse(reason) => return Ok(ToolEnd::not_run(reason)),
            Plan::Run {
                approval,
                is_unsafe_to_repeat,
                attempts_max,
            } => (approval, is_unsafe_to_repeat, attempts_max),
        };
        let mut arguments = call.arguments;
        if let Some(terms) = approval {
            let about = About::ToolCall {
                tool: call.name.clone(),
                arguments: shown(&arguments),
            };
            match self.desk.ask(self.number.to_string(), about, terms).await? {
                Decision::Approve => {}
                Decision::Edit { arguments: edited } => arguments = edited,
                Decision::Result { content } => return Ok(ToolEnd::not_run(content)),
                Decision::Reject { reason } => {
                    let content = format!("A person did not allow this call. {reason}");
                    return Ok(ToolEnd::not_run(content.trim_end().to_owned()));
                }
            }
        }
        match is_unsafe_to_repeat {
            true => self.run_once(call.name, arguments).await,
            false => self.run(arguments, attempts_max).await,
        }
    }

    async fn run(self, arguments: Value, attempts_max: u32) -> Result<ToolEnd, TaskError> {
        let mut attempt = 1;
        loop {
            match self.invoke(&arguments, None).await {
                Ok(ToolOutcome::Failed(_)) if attempt < attempts_max => {
                    let pause = self.retry.pause(attempt, None, self.ctx.random());
                    self.ctx.timer(pause).await;
                    attempt += 1;
                }
                Ok(ToolOutcome::Done(content)) => return Ok(ToolEnd::run(content)),
                Ok(ToolOutcome::Failed(error)) => return Ok(error_of(&error)),
                // Never said without a claim.
                Ok(ToolOutcome::Interrupted) => return Ok(error_of("interrupted")),
                Err(error) => return Ok(activity_error(&error)),
            }
        }
    }

    /// Runs a tool that is unsafe to repeat: under a claim, and again only if a person says so.
    async fn run_once(self, tool: String, mut arguments: Value) -> Result<ToolEnd, TaskError> {
        let mut repeats = 0;
        loop {
            let claim = format!("{}-{repeats}", self.claim);
            match self.invoke(&arguments, Some(claim)).await {
                Ok(ToolOutcome::Done(content)) => return Ok(ToolEnd::run(content)),
                Ok(ToolOutcome::Failed(error)) => return Ok(error_of(&error)),
                Ok(ToolOutcome::Interrupted) => {}
                Err(error) => return Ok(activity_error(&error)),
            }
            repeats += 1;
            let about = About::InterruptedCall {
                tool: tool.clone(),
                arguments: shown(&arguments),
            };
            // Nothing is taken for an answer: both to repeat and not to may do harm.
            let question = format!("{}-again-{repeats}", self.number);
            match self.desk.ask(question, about, Terms::default()).await? {
                Decision::Approve => {}
                Decision::Edit { arguments: edited } => arguments = edited,
                Decision::Result { content } => return Ok(ToolEnd::run(content)),
                Decision::Reject { reason } => {
                    let content = format!(
                        "This call was interrupted, so it is not known whether it took effect, and a person did not allow to repeat it. {reason}"
                    );
                    return Ok(ToolEnd::run(content.trim_end().to_owned()));
                }
            }
        }
    }

    async fn invoke(
        &self,
        arguments: &Value,
        claim: Option<String>,
    ) -> Result<ToolOutcome, TaskError> {
        let invocation = ToolInvocation {
            key: self.key.clone(),
            arguments: arguments.clone(),
            claim,
        };
        self.ctx.call_by_name(&self.activity, invocation).await
    }
}

fn error_of(error: &str) -> ToolEnd {
    ToolEnd::run(format!("error: {error}"))
}

/// The tool panicked, or gave more than fits into a payload.
fn activity_error(error: &TaskError) -> ToolEnd {
    match error.failure() {
        Some(failure) => error_of(failure.message()),
        None => error_of(&error.to_string()),
    }
}
