//! What a client sees of an instance.

use mainspring_proto::{OrchestrationState, TaskFailureDetails};
use prost::Message as _;

use super::encode::status_number;
use super::request::proto_timestamp;
use crate::message::FailureDetails;
use crate::orchestration::{Status, View};

/// An instance's state as `GetInstance` and the queries return it (S-2.8).
///
/// Input, output, custom status and failure details are there only if the view was taken with
/// them (S-11.2), and failure details only if the instance failed (S-11.4).
pub fn state(view: &View) -> OrchestrationState {
    let is_shown = view.include_payloads;
    OrchestrationState {
        instance_id: view.id.as_str().into(),
        name: view.name.clone(),
        version: view.version.clone(),
        orchestration_status: status_number(view.status),
        scheduled_start_timestamp: view.scheduled_start_at.map(proto_timestamp),
        created_timestamp: Some(proto_timestamp(view.created_at)),
        last_updated_timestamp: Some(proto_timestamp(view.updated_at)),
        input: view.input.clone().filter(|_| is_shown),
        output: view.output.clone().filter(|_| is_shown),
        custom_status: view.custom_status.clone().filter(|_| is_shown),
        failure_details: view
            .failure
            .as_ref()
            .filter(|_| is_shown && view.status == Status::Failed)
            .map(details),
        execution_id: Some(view.execution_id.as_str().into()),
        completed_timestamp: view.completed_at.map(proto_timestamp),
        parent_instance_id: view.parent.as_ref().map(|parent| parent.as_str().into()),
        tags: view.tags.clone(),
    }
}

fn details(failure: &FailureDetails) -> TaskFailureDetails {
    TaskFailureDetails::decode(failure.encoded().clone()).unwrap_or_else(|_| {
        // Nested deeper than the ordinary decoding goes, or garbled: show what can be read.
        let (error_type, error_message) = failure.error_type_and_message();
        TaskFailureDetails {
            error_type,
            error_message,
            ..Default::default()
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::id::{ExecutionId, InstanceId};
    use crate::time::Timestamp;
    use crate::wire::failure;
    use crate::wire::fixtures::{deep_failure, tags};

    fn view(status: Status, include_payloads: bool) -> View {
        View {
            id: InstanceId::from_stored("order-17"),
            name: "Order".into(),
            version: None,
            status,
            execution_id: ExecutionId::from_stored("e1"),
            created_at: Timestamp::new(1, 1_000),
            updated_at: Timestamp::new(2, 0),
            completed_at: Some(Timestamp::new(2, 0)),
            scheduled_start_at: None,
            parent: Some(InstanceId::from_stored("parent-1")),
            tags: tags(),
            include_payloads,
            input: Some(String::new()),
            output: None,
            custom_status: Some("\"half\"".into()),
            failure: Some(failure(deep_failure())),
        }
    }

    /// S-2.8, S-11.3: absent values are left unset.
    #[test]
    fn a_state_with_payloads_shows_everything_that_is_there() {
        let state = state(&view(Status::Failed, true));
        assert_eq!(state.instance_id, "order-17");
        assert_eq!(state.name, "Order");
        assert_eq!(state.version, None);
        assert_eq!(state.orchestration_status, 3);
        assert_eq!(state.execution_id.as_deref(), Some("e1"));
        assert_eq!(state.parent_instance_id.as_deref(), Some("parent-1"));
        assert_eq!(state.created_timestamp.unwrap().nanos, 1_000);
        assert_eq!(state.last_updated_timestamp.unwrap().seconds, 2);
        assert_eq!(state.completed_timestamp.unwrap().seconds, 2);
        assert_eq!(state.scheduled_start_timestamp, None);
        assert_eq!(state.input.as_deref(), Some(""));
        assert_eq!(state.output, None);
        assert_eq!(state.custom_status.as_deref(), Some("\"half\""));
        assert_eq!(state.failure_details, Some(deep_failure()));
        assert_eq!(state.tags, tags());
    }

    /// S-11.2, S-2.8: payloads are held back, tags never.
    #[test]
    fn a_state_without_payloads_still_shows_tags_and_times() {
        let state = state(&view(Status::Failed, false));
        assert_eq!(
            (state.input, state.output, state.custom_status),
            (None, None, None)
        );
        assert_eq!(state.failure_details, None);
        assert_eq!(state.tags, tags());
        assert!(state.created_timestamp.is_some() && state.last_updated_timestamp.is_some());
    }

    /// S-11.4.
    #[test]
    fn failure_details_are_shown_for_failed_instances_alone() {
        for status in [Status::Terminated, Status::Completed, Status::Canceled] {
            assert_eq!(state(&view(status, true)).failure_details, None);
        }
    }

    #[test]
    fn failure_details_that_cannot_be_decoded_show_what_can_be_read() {
        let mut deep = deep_failure();
        for _ in 0..120 {
            deep = TaskFailureDetails {
                error_type: "Wrapped".into(),
                inner_failure: Some(Box::new(deep)),
                ..Default::default()
            };
        }
        let mut view = view(Status::Failed, true);
        view.failure = Some(failure(deep));
        assert_eq!(state(&view).failure_details.unwrap().error_type, "Wrapped");
    }
}
