//! All that the machine may ask of the world, once its turn is durable.
//!
//! Performing an effect twice must do no harm: each names the generation and scheduling it
//! belongs to, so that the host can tell a repetition after a crash from a new one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{ExecutionId, InstanceId};
use crate::message::{Fence, Message, TraceContext};
use crate::time::Timestamp;

/// An activity to be run by some worker (S-5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityTask {
    /// Generation and scheduling that its outcome belongs to.
    pub fence: Fence,
    /// Id of the action that scheduled it; may repeat within a generation (S-4.13).
    pub task_id: i32,
    /// Name of the activity.
    pub name: String,
    /// Version as the action had it.
    pub version: Option<String>,
    /// Input, opaque.
    pub input: Option<String>,
    /// Tags, verbatim.
    pub tags: BTreeMap<String, String>,
    /// Trace context, verbatim.
    pub trace: Option<TraceContext>,
    /// Version of the scheduling orchestration's generation: filters match by it when the
    /// activity has none (S-13.11).
    pub orchestration_version: Option<String>,
}

/// A timer to be armed (S-6.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Number of the generation that created it.
    pub generation: u32,
    /// Generation and scheduling that its firing belongs to.
    pub fence: Fence,
    /// Id of the action that created it.
    pub timer_id: i32,
    /// Never fires before this time.
    pub fire_at: Timestamp,
}

/// Something to be done once the turn is durable, in the order in which the turn lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Queue an activity.
    RunActivity {
        /// What to run.
        task: ActivityTask,
        /// Its generation ended in this very turn (S-3.20, S-5.7): no history will name it, so
        /// the host keeps it durable apart from history.
        outlives: bool,
    },
    /// Have a [`Message::TimerFired`] arrive when the time has come.
    ArmTimer(Timer),
    /// Forget a timer: its generation is over.
    DisarmTimer(Timer),
    /// Make a message durable in the target's mailbox, together with this turn. The target is
    /// never the sender.
    Send {
        /// To whom.
        target: InstanceId,
        /// What.
        message: Message,
    },
    /// Drop this generation's activities that no worker holds yet (S-5.7).
    DropActivities {
        /// The generation.
        execution_id: ExecutionId,
    },
    /// The generation is over, and its open activities go on without it (S-3.20).
    ReleaseActivities {
        /// The generation.
        execution_id: ExecutionId,
        /// Those without an outcome.
        schedulings: Vec<u32>,
    },
    /// A scheduled start lies ahead: dispatch nothing before it (S-6.6).
    StartAt(Timestamp),
    /// The leased episode, if any, is void: ignore its completion (S-4.16, S-9.7).
    FenceEpisode,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// S-0.5: what is rebuilt after a restart is what was scheduled.
    #[test]
    fn activities_and_timers_are_read_back_as_they_were_stored() {
        let fence = Fence {
            execution_id: ExecutionId::from_stored("e"),
            scheduling: 1,
        };
        let task = ActivityTask {
            fence: fence.clone(),
            task_id: 4,
            name: "Charge".into(),
            version: None,
            input: Some(String::new()),
            tags: BTreeMap::from([("a".into(), String::new())]),
            trace: None,
            orchestration_version: Some("1.0".into()),
        };
        let stored = rmp_serde::to_vec(&task).unwrap();
        assert_eq!(
            rmp_serde::from_slice::<ActivityTask>(&stored).unwrap(),
            task
        );

        let timer = Timer {
            generation: 2,
            fence,
            timer_id: 5,
            fire_at: Timestamp::MAX,
        };
        let stored = rmp_serde::to_vec(&timer).unwrap();
        assert_eq!(rmp_serde::from_slice::<Timer>(&stored).unwrap(), timer);
    }
}
