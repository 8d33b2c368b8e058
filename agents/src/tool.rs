//! Tools: async functions that a model may call. A call is an activity, so its result is a checkpoint; what the function does is the
//! user's.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::approval::{Approval, Terms};
use crate::model::ToolSpec;
use crate::schema::{Schema, json_schema_of};

type Handled = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;
type Handler = dyn Fn(ToolContext, Value) -> Handled + Send + Sync;

/// Longest that a tool call takes unless [`Tool::within`] says otherwise.
const WITHIN: Duration = Duration::from_secs(300);

/// A tool: a name, what it does, and an async function over typed arguments.
///
/// ```
/// use mainspring_agents::{Tool, ToolContext};
/// use serde::Deserialize;
///
/// #[derive(Deserialize, schemars::JsonSchema)]
/// struct Refund {
///     /// The order's number.
///     order: u64,
///     cents: u64,
/// }
///
/// async fn refund(ctx: ToolContext, refund: Refund) -> Result<String, std::io::Error> {
///     // The same if this call is made again, so that the bank can recognise it.
///     let _key = ctx.idempotency_key();
///     Ok(format!("refunded {} for order {}", refund.cents, refund.order))
/// }
///
/// let tool = Tool::new("refund", "Gives money back for an order.", refund);
/// assert_eq!(tool.name(), "refund");
/// ```
///
/// The arguments are checked against the schema before the function is called. What it returns is told to the model as JSON, a string as
/// it is; an error is told to the model, too, which may try something else.
#[derive(Clone)]
pub struct Tool {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) parameters: Value,
    pub(crate) handler: Arc<Handler>,
    pub(crate) approval: Option<Approval>,
    pub(crate) is_unsafe_to_repeat: bool,
    pub(crate) attempts_max: u32,
    pub(crate) within: Duration,
}

impl fmt::Debug for Tool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tool({})", self.name)
    }
}

impl Tool {
    /// A tool whose arguments' schema is derived from their type. The name has to be letters, digits, `_` and `-`, at most 64.
    pub fn new<F, Fut, A, O, E>(
        name: impl Into<String>,
        description: impl Into<String>,
        function: F,
    ) -> Self
    where
        F: Fn(ToolContext, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, E>> + Send + 'static,
        A: DeserializeOwned + schemars::JsonSchema + Send + 'static,
        O: Serialize,
        E: fmt::Display,
    {
        Self::with_schema(name, description, json_schema_of::<A>(), function)
    }

    /// A tool whose arguments' JSON schema is given.
    pub fn with_schema<F, Fut, A, O, E>(
        name: impl Into<String>,
        description: impl Into<String>,
        schema: Value,
        function: F,
    ) -> Self
    where
        F: Fn(ToolContext, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, E>> + Send + 'static,
        A: DeserializeOwned + Send + 'static,
        O: Serialize,
        E: fmt::Display,
    {
        let handler = move |ctx: ToolContext, arguments: Value| -> Handled {
            let called = serde_json::from_value::<A>(arguments).map(|args| function(ctx, args));
            Box::pin(async move {
                let future =
                    called.map_err(|error| format!("the arguments do not fit: {error}"))?;
                let output = future.await.map_err(|error| error.to_string())?;
                told(&output)
            })
        };
        Self {
            name: name.into(),
            description: description.into(),
            parameters: schema,
            handler: Arc::new(handler),
            approval: None,
            is_unsafe_to_repeat: false,
            attempts_max: 1,
            within: WITHIN,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A person has to approve a call before it is made.
    #[must_use]
    pub fn needs_approval(mut self, approval: Approval) -> Self {
        self.approval = Some(approval);
        self
    }

    /// A call that was begun is never made again by itself. If the process dies in the middle of one, a person is asked whether to repeat
    /// it, or with what result to go on.
    #[must_use]
    pub fn unsafe_to_repeat(mut self) -> Self {
        self.is_unsafe_to_repeat = true;
        self
    }

    /// A call that ends with an error is tried again, up to so many attempts in all, before the model is told; 1 unless set. A tool that
    /// is unsafe to repeat is never tried again.
    #[must_use]
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts.max(1);
        self
    }

    /// A call that takes longer is given up, which counts as an error; five minutes unless set.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// As a model sees it.
    pub(crate) fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name.clone(),
            description: self.description.clone(),
            parameters: self.parameters.clone(),
        }
    }

    pub(crate) fn attempts(&self) -> u32 {
        match self.is_unsafe_to_repeat {
            true => 1,
            false => self.attempts_max,
        }
    }
}

/// A string as it is, everything else as JSON.
fn told(output: &impl Serialize) -> Result<String, String> {
    match serde_json::to_value(output) {
        Ok(Value::String(text)) => Ok(text),
        Ok(value) => Ok(value.to_string()),
        Err(error) => Err(format!(
            "the tool's output cannot be written as JSON: {error}"
        )),
    }
}

/// Which call a tool runs for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ToolContext {
    pub(crate) call: Arc<Call>,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) agent: String,
    pub(crate) run: String,
    pub(crate) key: String,
}

impl ToolContext {
    /// The agent's name.
    pub fn agent(&self) -> &str {
        &self.call.agent
    }

    /// The run's instance id.
    pub fn run_id(&self) -> &str {
        &self.call.run
    }

    /// The same whenever this call is made again, and different for every other one: give it to services that recognise repeats.
    pub fn idempotency_key(&self) -> &str {
        &self.call.key
    }
}

/// What has to be known of a tool to decide about a call of it.
pub(crate) struct ToolRules {
    pub(crate) name: String,
    pub(crate) schema: Schema,
    pub(crate) approval: Option<Approval>,
    pub(crate) is_unsafe_to_repeat: bool,
    pub(crate) attempts_max: u32,
}

impl ToolRules {
    /// Reads the schema of its arguments.
    pub(crate) fn new(tool: &Tool) -> Result<Self, String> {
        Ok(Self {
            name: tool.name.clone(),
            schema: Schema::new(tool.parameters.clone())?,
            approval: tool.approval.clone(),
            is_unsafe_to_repeat: tool.is_unsafe_to_repeat,
            attempts_max: tool.attempts(),
        })
    }

    /// On what terms a person is asked before a call with these arguments.
    pub(crate) fn approval_of(&self, arguments: &Value) -> Option<Terms> {
        self.approval.as_ref()?.terms_of(arguments)
    }
}
