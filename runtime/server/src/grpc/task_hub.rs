//! `TaskHubSidecarService`: which method is answered where, and what all of them do first.
//!
//! Every call waits for the store, then finds its hub; then a method of [`clients`](super::clients),
//! [`workers`](super::workers), [`entities`](super::entities) or [`history`](super::history) translates, asks the host, and
//! translates back.

use std::sync::Arc;

use mainspring_core::id::HubId;
use mainspring_host::{Host, Peer, WorkKind};
use mainspring_proto as proto;
use mainspring_proto::server::TaskHubSidecarService;
use tonic::{Request, Response, Status};

use crate::config::Config;
use crate::grpc::clients::Until;
use crate::grpc::history::ChunkStream;
use crate::grpc::listener::ConnectionId;
use crate::grpc::payload::PayloadLimit;
use crate::grpc::status::status;
use crate::grpc::workers::WorkItemStream;
use crate::life::Life;

/// Metadata that names the hub (S-1.5).
const HUB_KEY: &str = "taskhub";

/// The service.
pub(crate) struct TaskHub {
    pub(super) life: Arc<Life>,
    pub(super) payload_limit: PayloadLimit,
    fallback_hub: Option<String>,
}

impl TaskHub {
    pub(crate) fn new(config: &Config, life: Arc<Life>) -> Self {
        Self {
            life,
            payload_limit: PayloadLimit(config.payload_bytes_max),
            fallback_hub: config.fallback_hub.clone(),
        }
    }

    /// What every call does first: waits for the store, then finds the hub (S-1.6, S-1.7, S-1.16). A server that stops
    /// refuses here, so that `Hello` and everything else fail alike (S-1.10).
    pub(super) async fn enter<T: Sync>(
        &self,
        request: &Request<T>,
    ) -> Result<(&Host, HubId), Status> {
        let host = self.life.host().await?;
        let hub = host.hub(hub_name(request)?).await.map_err(status)?;
        Ok((host, hub))
    }

    /// The same for calls that create or delete their hub, which need not exist (S-1.7).
    pub(super) async fn enter_to_change_hub<T: Sync>(
        &self,
        request: &Request<T>,
    ) -> Result<(&Host, String), Status> {
        let host = self.life.host().await?;
        if host.is_stopping() {
            return Err(Status::unavailable("the server is stopping; try again"));
        }
        let named = hub_name(request)?
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let name = named.or(self.fallback_hub.as_deref()).ok_or_else(|| {
            let message = format!("the call names no task hub; set metadata '{HUB_KEY}'");
            Status::invalid_argument(message)
        })?;
        Ok((host, name.to_owned()))
    }
}

fn hub_name<T>(request: &Request<T>) -> Result<Option<&str>, Status> {
    match request.metadata().get(HUB_KEY) {
        None => Ok(None),
        Some(name) => name.to_str().map(Some).map_err(|_| {
            Status::invalid_argument(format!("metadata '{HUB_KEY}' is not printable ASCII"))
        }),
    }
}

/// gRPC's own mark of the caller; to be matched by what it contains, as applications put names before it (S-1.19).
pub(super) fn user_agent<T>(request: &Request<T>) -> &str {
    request
        .metadata()
        .get("user-agent")
        .and_then(|agent| agent.to_str().ok())
        .unwrap_or_default()
}

/// Who calls, as far as the host needs it.
pub(super) fn peer<T>(request: &Request<T>) -> Peer {
    Peer {
        // Every connection is numbered when it is accepted; 0 is none of them.
        connection: request
            .extensions()
            .get::<ConnectionId>()
            .map_or(0, |id| id.0),
        user_agent: user_agent(request).to_owned(),
    }
}

#[tonic::async_trait]
impl TaskHubSidecarService for TaskHub {
    async fn hello(&self, request: Request<()>) -> Result<Response<()>, Status> {
        self.enter(&request).await.map(|_| Response::new(()))
    }

    async fn start_instance(
        &self,
        request: Request<proto::CreateInstanceRequest>,
    ) -> Result<Response<proto::CreateInstanceResponse>, Status> {
        self.start(request).await.map(Response::new)
    }

    async fn get_instance(
        &self,
        request: Request<proto::GetInstanceRequest>,
    ) -> Result<Response<proto::GetInstanceResponse>, Status> {
        self.get(request).await.map(Response::new)
    }

    async fn rewind_instance(
        &self,
        request: Request<proto::RewindInstanceRequest>,
    ) -> Result<Response<proto::RewindInstanceResponse>, Status> {
        self.rewind(request).await.map(Response::new)
    }

    async fn restart_instance(
        &self,
        request: Request<proto::RestartInstanceRequest>,
    ) -> Result<Response<proto::RestartInstanceResponse>, Status> {
        self.restart(request).await.map(Response::new)
    }

    async fn wait_for_instance_start(
        &self,
        request: Request<proto::GetInstanceRequest>,
    ) -> Result<Response<proto::GetInstanceResponse>, Status> {
        self.wait(request, Until::Started).await.map(Response::new)
    }

    async fn wait_for_instance_completion(
        &self,
        request: Request<proto::GetInstanceRequest>,
    ) -> Result<Response<proto::GetInstanceResponse>, Status> {
        self.wait(request, Until::Completed)
            .await
            .map(Response::new)
    }

    async fn raise_event(
        &self,
        request: Request<proto::RaiseEventRequest>,
    ) -> Result<Response<proto::RaiseEventResponse>, Status> {
        self.raise(request).await.map(Response::new)
    }

    async fn terminate_instance(
        &self,
        request: Request<proto::TerminateRequest>,
    ) -> Result<Response<proto::TerminateResponse>, Status> {
        self.terminate(request).await.map(Response::new)
    }

    async fn suspend_instance(
        &self,
        request: Request<proto::SuspendRequest>,
    ) -> Result<Response<proto::SuspendResponse>, Status> {
        self.suspend(request).await.map(Response::new)
    }

    async fn resume_instance(
        &self,
        request: Request<proto::ResumeRequest>,
    ) -> Result<Response<proto::ResumeResponse>, Status> {
        self.resume(request).await.map(Response::new)
    }

    async fn skip_graceful_orchestration_terminations(
        &self,
        request: Request<proto::SkipGracefulOrchestrationTerminationsRequest>,
    ) -> Result<Response<proto::SkipGracefulOrchestrationTerminationsResponse>, Status> {
        self.skip_terminations(request).await.map(Response::new)
    }

    async fn query_instances(
        &self,
        request: Request<proto::QueryInstancesRequest>,
    ) -> Result<Response<proto::QueryInstancesResponse>, Status> {
        self.query(request).await.map(Response::new)
    }

    async fn list_instance_ids(
        &self,
        request: Request<proto::ListInstanceIdsRequest>,
    ) -> Result<Response<proto::ListInstanceIdsResponse>, Status> {
        self.list_ids(request).await.map(Response::new)
    }

    async fn purge_instances(
        &self,
        request: Request<proto::PurgeInstancesRequest>,
    ) -> Result<Response<proto::PurgeInstancesResponse>, Status> {
        self.purge(request).await.map(Response::new)
    }

    async fn create_task_hub(
        &self,
        request: Request<proto::CreateTaskHubRequest>,
    ) -> Result<Response<proto::CreateTaskHubResponse>, Status> {
        self.create_hub(request).await.map(Response::new)
    }

    async fn delete_task_hub(
        &self,
        request: Request<proto::DeleteTaskHubRequest>,
    ) -> Result<Response<proto::DeleteTaskHubResponse>, Status> {
        self.delete_hub(request).await.map(Response::new)
    }

    type GetWorkItemsStream = WorkItemStream;

    async fn get_work_items(
        &self,
        request: Request<proto::GetWorkItemsRequest>,
    ) -> Result<Response<WorkItemStream>, Status> {
        self.open_stream(request).await.map(Response::new)
    }

    async fn complete_orchestrator_task(
        &self,
        request: Request<proto::OrchestratorResponse>,
    ) -> Result<Response<proto::CompleteTaskResponse>, Status> {
        self.complete_orchestrator(request).await.map(Response::new)
    }

    async fn complete_activity_task(
        &self,
        request: Request<proto::ActivityResponse>,
    ) -> Result<Response<proto::CompleteTaskResponse>, Status> {
        self.complete_activity(request).await.map(Response::new)
    }

    async fn abandon_task_orchestrator_work_item(
        &self,
        request: Request<proto::AbandonOrchestrationTaskRequest>,
    ) -> Result<Response<proto::AbandonOrchestrationTaskResponse>, Status> {
        self.abandon(
            &request,
            WorkKind::Orchestration,
            &request.get_ref().completion_token,
        )
        .await?;
        Ok(Response::new(proto::AbandonOrchestrationTaskResponse {}))
    }

    async fn abandon_task_activity_work_item(
        &self,
        request: Request<proto::AbandonActivityTaskRequest>,
    ) -> Result<Response<proto::AbandonActivityTaskResponse>, Status> {
        self.abandon(
            &request,
            WorkKind::Activity,
            &request.get_ref().completion_token,
        )
        .await?;
        Ok(Response::new(proto::AbandonActivityTaskResponse {}))
    }

    type StreamInstanceHistoryStream = ChunkStream;

    async fn stream_instance_history(
        &self,
        request: Request<proto::StreamInstanceHistoryRequest>,
    ) -> Result<Response<ChunkStream>, Status> {
        self.history(request).await.map(Response::new)
    }

    async fn complete_entity_task(
        &self,
        request: Request<proto::EntityBatchResult>,
    ) -> Result<Response<proto::CompleteTaskResponse>, Status> {
        self.complete_entity(request).await.map(Response::new)
    }

    async fn abandon_task_entity_work_item(
        &self,
        request: Request<proto::AbandonEntityTaskRequest>,
    ) -> Result<Response<proto::AbandonEntityTaskResponse>, Status> {
        self.abandon(
            &request,
            WorkKind::Entity,
            &request.get_ref().completion_token,
        )
        .await?;
        Ok(Response::new(proto::AbandonEntityTaskResponse {}))
    }

    async fn signal_entity(
        &self,
        request: Request<proto::SignalEntityRequest>,
    ) -> Result<Response<proto::SignalEntityResponse>, Status> {
        self.signal(request).await.map(Response::new)
    }

    async fn get_entity(
        &self,
        request: Request<proto::GetEntityRequest>,
    ) -> Result<Response<proto::GetEntityResponse>, Status> {
        self.entity(request).await.map(Response::new)
    }

    async fn query_entities(
        &self,
        request: Request<proto::QueryEntitiesRequest>,
    ) -> Result<Response<proto::QueryEntitiesResponse>, Status> {
        self.list_entities(request).await.map(Response::new)
    }

    async fn clean_entity_storage(
        &self,
        request: Request<proto::CleanEntityStorageRequest>,
    ) -> Result<Response<proto::CleanEntityStorageResponse>, Status> {
        self.clean(request).await.map(Response::new)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tonic::Code;
    use tonic::metadata::MetadataValue;

    use super::*;

    /// S-1.6.
    #[test]
    fn a_hub_name_that_is_no_text_is_refused_rather_than_taken_for_none() {
        let mut request = Request::new(());
        assert_eq!(hub_name(&request).unwrap(), None);
        request
            .metadata_mut()
            .insert(HUB_KEY, MetadataValue::try_from(&b"\xc3\xa4"[..]).unwrap());
        assert_eq!(
            hub_name(&request).unwrap_err().code(),
            Code::InvalidArgument
        );
        request
            .metadata_mut()
            .insert(HUB_KEY, MetadataValue::from_static("Orders"));
        assert_eq!(hub_name(&request).unwrap(), Some("Orders"));
    }

    /// S-1.19.
    #[test]
    fn a_peer_is_its_connection_and_its_user_agent() {
        let mut request = Request::new(());
        request.metadata_mut().insert(
            "user-agent",
            MetadataValue::from_static("my-app grpc-go/1.65"),
        );
        request.extensions_mut().insert(ConnectionId(7));
        let peer = peer(&request);
        assert_eq!(
            (peer.connection, peer.user_agent.as_str()),
            (7, "my-app grpc-go/1.65")
        );
    }
}
