//! What clients ask: start, look, wait, steer, list and purge; and the hubs themselves.

use std::time::Duration;

use mainspring_core::id::INSTANCE_ID_CHARS_MAX;
use mainspring_core::wire;
use mainspring_host::{InstanceQuery, ListQuery, Purge, RandomIds, check_batch};
use mainspring_proto as proto;
use mainspring_proto::purge_instances_request::Request as PurgeRequest;
use tonic::{Request, Status};

use crate::grpc::status::status;
use crate::grpc::task_hub::{TaskHub, user_agent};

impl TaskHub {
    pub(super) async fn start(
        &self,
        request: Request<proto::CreateInstanceRequest>,
    ) -> Result<proto::CreateInstanceResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let is_go_client = user_agent(&request).contains("grpc-go");
        let request = request.into_inner();
        let limit = self.payload_limit;
        limit.check("name", &request.name)?;
        limit.check_given("version", request.version.as_deref())?;
        limit.check_given("input", request.input.as_deref())?;
        check_execution_id(request.execution_id.as_deref())?;
        limit.check_tags(&request.tags)?;
        limit.check_trace(request.parent_trace_context.as_ref())?;
        let (instance, policy) =
            wire::new_instance(request, is_go_client, host.now(), &mut RandomIds)
                .map_err(|error| status(error.into()))?;
        let id = host
            .start_instance(hub, instance, policy)
            .await
            .map_err(status)?;
        Ok(proto::CreateInstanceResponse {
            instance_id: id.to_string(),
        })
    }

    pub(super) async fn get(
        &self,
        request: Request<proto::GetInstanceRequest>,
    ) -> Result<proto::GetInstanceResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let request = request.into_inner();
        let view = host
            .get(hub, &request.instance_id, request.get_inputs_and_outputs)
            .await
            .map_err(status)?;
        Ok(proto::GetInstanceResponse {
            exists: view.is_some(),
            orchestration_state: view.as_ref().map(wire::state),
        })
    }

    /// Waits end with the caller: a wait whose call is cancelled or late is dropped (S-11.7).
    pub(super) async fn wait(
        &self,
        request: Request<proto::GetInstanceRequest>,
        until: Until,
    ) -> Result<proto::GetInstanceResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let proto::GetInstanceRequest {
            instance_id,
            get_inputs_and_outputs,
        } = request.into_inner();
        let view = match until {
            Until::Started => {
                host.wait_started(hub, &instance_id, get_inputs_and_outputs)
                    .await
            }
            Until::Completed => {
                host.wait_completed(hub, &instance_id, get_inputs_and_outputs)
                    .await
            }
        };
        let state = wire::state(&view.map_err(status)?);
        // Never `exists = false`: .NET reads the state without looking (S-11.6).
        Ok(proto::GetInstanceResponse {
            exists: true,
            orchestration_state: Some(state),
        })
    }

    pub(super) async fn raise(
        &self,
        request: Request<proto::RaiseEventRequest>,
    ) -> Result<proto::RaiseEventResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let request = request.into_inner();
        self.payload_limit.check("name", &request.name)?;
        self.payload_limit
            .check_given("input", request.input.as_deref())?;
        host.raise_event(hub, &request.instance_id, request.name, request.input)
            .await
            .map_err(status)?;
        Ok(proto::RaiseEventResponse {})
    }

    pub(super) async fn suspend(
        &self,
        request: Request<proto::SuspendRequest>,
    ) -> Result<proto::SuspendResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let request = request.into_inner();
        self.payload_limit
            .check_given("reason", request.reason.as_deref())?;
        host.suspend(hub, &request.instance_id, request.reason)
            .await
            .map_err(status)?;
        Ok(proto::SuspendResponse {})
    }

    pub(super) async fn resume(
        &self,
        request: Request<proto::ResumeRequest>,
    ) -> Result<proto::ResumeResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let request = request.into_inner();
        self.payload_limit
            .check_given("reason", request.reason.as_deref())?;
        host.resume(hub, &request.instance_id, request.reason)
            .await
            .map_err(status)?;
        Ok(proto::ResumeResponse {})
    }

    pub(super) async fn terminate(
        &self,
        request: Request<proto::TerminateRequest>,
    ) -> Result<proto::TerminateResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let request = request.into_inner();
        self.payload_limit
            .check_given("output", request.output.as_deref())?;
        host.terminate(hub, &request.instance_id, request.output, request.recursive)
            .await
            .map_err(status)?;
        Ok(proto::TerminateResponse {})
    }

    pub(super) async fn skip_terminations(
        &self,
        request: Request<proto::SkipGracefulOrchestrationTerminationsRequest>,
    ) -> Result<proto::SkipGracefulOrchestrationTerminationsResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let request = request.into_inner();
        let ids = batch(request.instance_batch)?;
        self.payload_limit
            .check_given("reason", request.reason.as_deref())?;
        let untouched = host
            .skip_graceful_terminations(hub, ids, request.reason)
            .await
            .map_err(status)?;
        Ok(proto::SkipGracefulOrchestrationTerminationsResponse {
            unterminated_instance_ids: untouched,
        })
    }

    pub(super) async fn rewind(
        &self,
        request: Request<proto::RewindInstanceRequest>,
    ) -> Result<proto::RewindInstanceResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let request = request.into_inner();
        self.payload_limit
            .check_given("reason", request.reason.as_deref())?;
        host.rewind(hub, &request.instance_id, request.reason)
            .await
            .map_err(status)?;
        Ok(proto::RewindInstanceResponse {})
    }

    pub(super) async fn restart(
        &self,
        request: Request<proto::RestartInstanceRequest>,
    ) -> Result<proto::RestartInstanceResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let request = request.into_inner();
        let id = host
            .restart(
                hub,
                &request.instance_id,
                request.restart_with_new_instance_id,
            )
            .await
            .map_err(status)?;
        Ok(proto::RestartInstanceResponse {
            instance_id: id.to_string(),
        })
    }

    pub(super) async fn query(
        &self,
        request: Request<proto::QueryInstancesRequest>,
    ) -> Result<proto::QueryInstancesResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let query = instance_query(request.into_inner().query.unwrap_or_default());
        let page = host.query(hub, query).await.map_err(status)?;
        Ok(proto::QueryInstancesResponse {
            orchestration_state: page.views.iter().map(wire::state).collect(),
            continuation_token: page.token,
        })
    }

    pub(super) async fn list_ids(
        &self,
        request: Request<proto::ListInstanceIdsRequest>,
    ) -> Result<proto::ListInstanceIdsResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let is_python = user_agent(&request).contains("grpc-python");
        let page = host
            .list_ids(hub, list_query(request.into_inner(), is_python))
            .await
            .map_err(status)?;
        Ok(proto::ListInstanceIdsResponse {
            instance_ids: page.ids,
            last_instance_key: page.key,
        })
    }

    pub(super) async fn purge(
        &self,
        request: Request<proto::PurgeInstancesRequest>,
    ) -> Result<proto::PurgeInstancesResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let request = request.into_inner();
        let purged = host
            .purge(
                hub,
                purge(request.request)?,
                request.recursive,
                request.is_orchestration,
            )
            .await
            .map_err(status)?;
        Ok(proto::PurgeInstancesResponse {
            deleted_instance_count: i32::try_from(purged.count).unwrap_or(i32::MAX),
            // Always present: Python reads its value (S-11.22).
            is_complete: Some(purged.is_complete),
        })
    }

    pub(super) async fn create_hub(
        &self,
        request: Request<proto::CreateTaskHubRequest>,
    ) -> Result<proto::CreateTaskHubResponse, Status> {
        let (host, name) = self.enter_to_change_hub(&request).await?;
        host.create_hub(&name, request.get_ref().recreate_if_exists)
            .await
            .map_err(status)?;
        Ok(proto::CreateTaskHubResponse {})
    }

    pub(super) async fn delete_hub(
        &self,
        request: Request<proto::DeleteTaskHubRequest>,
    ) -> Result<proto::DeleteTaskHubResponse, Status> {
        let (host, name) = self.enter_to_change_hub(&request).await?;
        host.delete_hub(&name).await.map_err(status)?;
        Ok(proto::DeleteTaskHubResponse {})
    }
}

/// What a wait is for (S-11.5).
#[derive(Clone, Copy)]
pub(super) enum Until {
    Started,
    Completed,
}

/// A generation's id is part of keys, as an instance id is, and keeps to the same bounds.
fn check_execution_id(id: Option<&str>) -> Result<(), Status> {
    let Some(id) = id else { return Ok(()) };
    if id.chars().count() > INSTANCE_ID_CHARS_MAX || id.chars().any(char::is_control) {
        let message = format!(
            "executionId has at most {INSTANCE_ID_CHARS_MAX} characters and no control characters"
        );
        return Err(Status::invalid_argument(message));
    }
    Ok(())
}

fn batch(batch: Option<proto::InstanceBatch>) -> Result<Vec<String>, Status> {
    let ids = batch.unwrap_or_default().instance_ids;
    check_batch(ids.len()).map_err(status)?;
    Ok(ids)
}

fn instance_query(query: proto::InstanceQuery) -> InstanceQuery {
    InstanceQuery {
        statuses: query.runtime_status,
        created_from: query.created_time_from.map(wire::timestamp),
        created_to: query.created_time_to.map(wire::timestamp),
        hub_names: query.task_hub_names,
        page_size: query.max_instance_count,
        token: query.continuation_token,
        prefix: query.instance_id_prefix,
        include_payloads: query.fetch_inputs_and_outputs,
    }
}

fn list_query(request: proto::ListInstanceIdsRequest, is_python: bool) -> ListQuery {
    ListQuery {
        statuses: request.runtime_status,
        completed_from: request.completed_time_from.map(wire::timestamp),
        completed_to: request.completed_time_to.map(wire::timestamp),
        page_size: request.page_size,
        after: request.last_instance_key,
        is_python,
    }
}

fn purge(request: Option<PurgeRequest>) -> Result<Purge, Status> {
    match request {
        Some(PurgeRequest::InstanceId(id)) => Ok(Purge::Id(id)),
        Some(PurgeRequest::InstanceBatch(ids)) => Ok(Purge::Batch(batch(Some(ids))?)),
        Some(PurgeRequest::PurgeInstanceFilter(filter)) => Ok(Purge::Filter {
            created_from: filter.created_time_from.map(wire::timestamp),
            created_to: filter.created_time_to.map(wire::timestamp),
            statuses: filter.runtime_status,
            timeout: filter.timeout.map(duration),
        }),
        // Without this a client's mistake would purge everything or nothing, and neither is what it meant.
        None => Err(Status::invalid_argument(
            "the request names no instance, no filter and no batch to purge",
        )),
    }
}

/// A negative duration leaves no time at all.
fn duration(duration: prost_types::Duration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mainspring_core::time::Timestamp;
    use tonic::Code;

    use super::*;

    /// S-14.1, S-11.21.
    #[test]
    fn a_batch_of_more_than_500_ids_is_refused() {
        let ids = |count| proto::InstanceBatch {
            instance_ids: vec!["a".to_owned(); count],
        };
        assert_eq!(batch(Some(ids(500))).unwrap().len(), 500);
        assert_eq!(
            batch(Some(ids(501))).unwrap_err().code(),
            Code::InvalidArgument
        );
        assert_eq!(
            purge(Some(PurgeRequest::InstanceBatch(ids(501))))
                .unwrap_err()
                .code(),
            Code::InvalidArgument
        );
        assert!(batch(None).unwrap().is_empty());
    }

    /// S-10.1.
    #[test]
    fn an_execution_id_that_could_not_be_a_key_is_refused() {
        for id in [None, Some(""), Some("5f0c")] {
            assert!(check_execution_id(id).is_ok());
        }
        for id in ["x".repeat(101), "a\0b".to_owned()] {
            assert_eq!(
                check_execution_id(Some(&id)).unwrap_err().code(),
                Code::InvalidArgument
            );
        }
    }

    /// S-1.18: JS sends negative nanos, .NET the ends of the calendar.
    #[test]
    fn times_of_filters_are_normalised() {
        let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        let query = instance_query(proto::InstanceQuery {
            created_time_from: time(-1, -500_000_000),
            created_time_to: time(i64::MAX, 0),
            ..Default::default()
        });
        assert_eq!(query.created_from, Some(Timestamp::new(-2, 500_000_000)));
        assert_eq!(query.created_to, Some(Timestamp::MAX));
    }

    #[test]
    fn a_purge_of_nothing_in_particular_is_refused() {
        assert_eq!(purge(None).unwrap_err().code(), Code::InvalidArgument);
    }

    /// S-11.20.
    #[test]
    fn a_negative_time_out_of_a_purge_leaves_no_time() {
        let timeout = Some(prost_types::Duration {
            seconds: -1,
            nanos: 0,
        });
        let request = PurgeRequest::PurgeInstanceFilter(proto::PurgeInstanceFilter {
            timeout,
            ..Default::default()
        });
        assert!(matches!(
            purge(Some(request)).unwrap(),
            Purge::Filter {
                timeout: Some(Duration::ZERO),
                ..
            }
        ));
    }

    /// S-11.17.
    #[test]
    fn a_listing_keeps_the_cursor_as_it_came() {
        let request = proto::ListInstanceIdsRequest {
            last_instance_key: Some(String::new()),
            page_size: -1,
            ..Default::default()
        };
        let query = list_query(request, true);
        assert_eq!(
            (query.after.as_deref(), query.page_size, query.is_python),
            (Some(""), -1, true)
        );
    }
}
