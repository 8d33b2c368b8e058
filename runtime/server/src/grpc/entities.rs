//! What clients and workers ask about entities.

use mainspring_core::wire;
use mainspring_host::{EntityQuery, EntityView, Signal};
use mainspring_proto as proto;
use tonic::{Request, Status};

use crate::grpc::status::status;
use crate::grpc::task_hub::{TaskHub, peer};

impl TaskHub {
    pub(super) async fn signal(
        &self,
        request: Request<proto::SignalEntityRequest>,
    ) -> Result<proto::SignalEntityResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let request = request.into_inner();
        let limit = self.payload_limit;
        limit.check("name", &request.name)?;
        limit.check("requestId", &request.request_id)?;
        limit.check_given("input", request.input.as_deref())?;
        let signal = Signal {
            entity: request.instance_id,
            operation: request.name,
            input: request.input,
            request_id: request.request_id,
            scheduled_at: request.scheduled_time.map(wire::timestamp),
        };
        host.signal_entity(hub, signal).await.map_err(status)?;
        Ok(proto::SignalEntityResponse {})
    }

    pub(super) async fn entity(
        &self,
        request: Request<proto::GetEntityRequest>,
    ) -> Result<proto::GetEntityResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let request = request.into_inner();
        let view = host
            .get_entity(hub, &request.instance_id, request.include_state)
            .await
            .map_err(status)?;
        Ok(proto::GetEntityResponse {
            exists: view.is_some(),
            entity: view.map(metadata),
        })
    }

    pub(super) async fn list_entities(
        &self,
        request: Request<proto::QueryEntitiesRequest>,
    ) -> Result<proto::QueryEntitiesResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let query = entity_query(request.into_inner().query.unwrap_or_default());
        let page = host.query_entities(hub, query).await.map_err(status)?;
        Ok(proto::QueryEntitiesResponse {
            entities: page.views.into_iter().map(metadata).collect(),
            continuation_token: page.token,
        })
    }

    /// There is nothing to clean: what an entity leaves behind goes by itself (S-12.40).
    pub(super) async fn clean(
        &self,
        request: Request<proto::CleanEntityStorageRequest>,
    ) -> Result<proto::CleanEntityStorageResponse, Status> {
        self.enter(&request).await?;
        Ok(proto::CleanEntityStorageResponse::default())
    }

    pub(super) async fn complete_entity(
        &self,
        request: Request<proto::EntityBatchResult>,
    ) -> Result<proto::CompleteTaskResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let peer = peer(&request);
        host.complete_entity(hub, &peer, request.into_inner())
            .await
            .map_err(status)?;
        Ok(proto::CompleteTaskResponse {})
    }
}

fn entity_query(query: proto::EntityQuery) -> EntityQuery {
    EntityQuery {
        prefix: query.instance_id_starts_with,
        modified_from: query.last_modified_from.map(wire::timestamp),
        modified_to: query.last_modified_to.map(wire::timestamp),
        include_state: query.include_state,
        include_transient: query.include_transient,
        page_size: query.page_size.unwrap_or_default(),
        token: query.continuation_token,
    }
}

fn metadata(view: EntityView) -> proto::EntityMetadata {
    proto::EntityMetadata {
        instance_id: view.id.to_string(),
        last_modified_time: Some(wire::proto_timestamp(view.last_modified)),
        backlog_queue_size: i32::try_from(view.backlog).unwrap_or(i32::MAX),
        locked_by: view.locked_by.map(|holder| holder.to_string()),
        serialized_state: view.state,
    }
}
