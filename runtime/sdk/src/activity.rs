//! What an activity's code sees.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainspring_proto::{ActivityRequest, TraceContext};

/// Which task an activity runs for. Cheap to clone.
///
/// ```
/// use mainspring_sdk::{ActivityContext, Result};
///
/// async fn charge(ctx: ActivityContext, cents: u64) -> Result<String> {
///     println!("{} for {}: {cents} cents", ctx.name(), ctx.instance_id());
///     // Delivered again, it comes with the same key, and the provider charges nobody twice.
///     Ok(provider::charge(cents, ctx.idempotency_key()).await?)
/// }
/// # mod provider {
/// #     pub async fn charge(cents: u64, key: String) -> std::io::Result<String> { Ok(format!("{cents} {key}")) }
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ActivityContext {
    task: Arc<Task>,
}

#[derive(Debug)]
struct Task {
    name: String,
    version: Option<String>,
    instance: String,
    execution: String,
    id: i32,
    tags: BTreeMap<String, String>,
    trace: Option<TraceContext>,
}

impl ActivityContext {
    pub(crate) fn new(request: &ActivityRequest) -> Self {
        let instance = request.orchestration_instance.clone().unwrap_or_default();
        Self {
            task: Arc::new(Task {
                name: request.name.clone(),
                version: request.version.clone(),
                instance: instance.instance_id,
                execution: instance.execution_id.unwrap_or_default(),
                id: request.task_id,
                tags: request.tags.clone(),
                trace: request.parent_trace_context.clone(),
            }),
        }
    }

    /// The name that it was called by.
    pub fn name(&self) -> &str {
        &self.task.name
    }

    /// The version that it was called with.
    pub fn version(&self) -> Option<&str> {
        self.task.version.as_deref()
    }

    /// The orchestration that called it.
    pub fn instance_id(&self) -> &str {
        &self.task.instance
    }

    /// The task's number within that generation of the orchestration.
    pub fn task_id(&self) -> i32 {
        self.task.id
    }

    /// The tags that the caller attached.
    pub fn tags(&self) -> &BTreeMap<String, String> {
        &self.task.tags
    }

    /// The W3C `traceparent` of the caller.
    pub fn trace_parent(&self) -> Option<&str> {
        self.task
            .trace
            .as_ref()
            .map(|trace| trace.trace_parent.as_str())
    }

    /// The same whenever this task is delivered, and different for every other task of Rust orchestrators: give it to services
    /// that recognise repeats, since an activity is run again if its worker dies before the result is stored. Attempts of a retry
    /// policy are tasks of their own.
    pub fn idempotency_key(&self) -> String {
        format!(
            "{}/{}/{}",
            self.task.instance, self.task.execution, self.task.id
        )
    }
}
