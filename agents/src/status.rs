//! What a run shows of itself, as the custom status of its orchestration: JSON that clients in any language can read.

use mainspring_sdk::{Client, Error, InstanceState};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::approval::Question;
use crate::page::{Forget, page_id};

/// The custom status of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunStatus {
    pub(crate) agent: String,
    /// The chain of its pages.
    pub(crate) transcript: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    /// What it waits for people to decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) waiting: Vec<Question>,
}

impl RunStatus {
    /// `None`: it is no run of an agent; others have statuses of their own shape.
    pub(crate) fn of(instance: &InstanceState) -> Option<Self> {
        instance.custom_status().ok().flatten()
    }
}

/// Deletes a run that has ended, with its history and, unless it belongs to a session, its transcript. False: there is none, it has not
/// ended, or it is no run of an agent.
///
/// # Errors
///
/// When the scheduler refuses.
pub async fn forget_run(client: &Client, run: &str) -> Result<bool, Error> {
    let instance = client.instance::<Value>(run);
    let state = instance.state().await?;
    let Some(state) = state.filter(|state| state.status.is_terminal()) else {
        return Ok(false);
    };
    let Some(status) = RunStatus::of(&state) else {
        return Ok(false);
    };
    if status.session.is_none() {
        let first = page_id(&status.transcript, 0);
        let forget = Forget {
            with_previous: true,
        };
        client.signal_entity(&first, "forget", forget, None).await?;
    }
    instance.purge().await
}
