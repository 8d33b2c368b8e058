//! What comes out of a work item.

use mainspring_proto::{
    ActivityResponse, CompleteOrchestrationAction, EntityBatchResult, OrchestrationStatus,
    OrchestratorAction, OrchestratorResponse,
    orchestrator_action::OrchestratorActionType as ActionType,
};
use tonic::Code;

use crate::error::Failure;

/// The answer to one work item.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) token: String,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Orchestration(OrchestratorResponse),
    Activity(ActivityResponse),
    Entity(EntityBatchResult),
    /// It is given back, to be delivered again later.
    Abandon(Kind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Orchestration,
    Activity,
    Entity,
}

impl Answered {
    pub(crate) fn abandon(token: String, kind: Kind) -> Self {
        Self {
            token,
            answer: Answer::Abandon(kind),
        }
    }

    /// An episode whose instance is no longer in memory, though the scheduler left its history out (S-3.32).
    pub(crate) fn ask_for_history(token: String, instance: String) -> Self {
        let response = OrchestratorResponse {
            instance_id: instance,
            completion_token: token.clone(),
            requires_history: true,
            ..Default::default()
        };
        Self {
            token,
            answer: Answer::Orchestration(response),
        }
    }

    /// An episode that ends its instance with this failure.
    pub(crate) fn failed_episode(token: String, instance: String, failure: Failure) -> Self {
        let completion = CompleteOrchestrationAction {
            orchestration_status: OrchestrationStatus::Failed as i32,
            failure_details: Some(failure.into_details()),
            ..Default::default()
        };
        let response = OrchestratorResponse {
            instance_id: instance,
            actions: vec![OrchestratorAction {
                // As other SDKs number what the framework decided, not the code (S-3.8).
                id: -1,
                orchestrator_action_type: Some(ActionType::CompleteOrchestration(completion)),
            }],
            completion_token: token.clone(),
            ..Default::default()
        };
        Self {
            token,
            answer: Answer::Orchestration(response),
        }
    }

    /// What to send instead of an answer that the scheduler refused; `None`: nothing, the item comes again by itself.
    pub(crate) fn instead_of_refused(&self, code: Code, reason: &str) -> Option<Self> {
        tracing::error!(?code, reason, "an answer was refused");
        match code {
            Code::OutOfRange | Code::ResourceExhausted | Code::InvalidArgument => {
                self.too_large(reason)
            }
            _ => None,
        }
    }

    /// The same item, failed, for an answer that was too large to be taken; `None`: there is no such answer.
    pub(crate) fn too_large(&self, reason: &str) -> Option<Self> {
        let failure = Failure::new("PayloadTooLarge", reason).non_retriable();
        match &self.answer {
            Answer::Orchestration(response) => Some(Self::failed_episode(
                self.token.clone(),
                response.instance_id.clone(),
                failure,
            )),
            Answer::Activity(response) => Some(Self {
                token: self.token.clone(),
                answer: Answer::Activity(ActivityResponse {
                    result: None,
                    failure_details: Some(failure.into_details()),
                    ..response.clone()
                }),
            }),
            Answer::Entity(_) | Answer::Abandon(_) => None,
        }
    }
}
