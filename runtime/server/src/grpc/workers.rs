//! What workers ask: a stream of work items, and to hand each item back.
//!
//! This is the busy part: two completions and two items for every step of an orchestration. Nothing here copies a payload.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use mainspring_host::{Filter, Filters, Peer, StreamOptions, WorkItems, WorkKind};
use mainspring_proto as proto;
use mainspring_proto::{RawWorkItem, WorkerCapability};
use tonic::{Request, Status};

use crate::grpc::status::status;
use crate::grpc::task_hub::{TaskHub, peer};

/// Metadata with which some workers name themselves (S-1.5). For logs alone.
const WORKER_KEY: &str = "workerid";

impl TaskHub {
    pub(super) async fn open_stream(
        &self,
        request: Request<proto::GetWorkItemsRequest>,
    ) -> Result<WorkItemStream, Status> {
        let (host, hub) = self.enter(&request).await?;
        let (peer, worker) = (peer(&request), worker_name(&request));
        host.open_stream(hub, options(peer, worker, request.into_inner()))
            .map(WorkItemStream)
            .map_err(status)
    }

    pub(super) async fn complete_orchestrator(
        &self,
        request: Request<proto::OrchestratorResponse>,
    ) -> Result<proto::CompleteTaskResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let peer = peer(&request);
        host.complete_orchestration(hub, &peer, None, request.into_inner())
            .await
            .map_err(status)?;
        Ok(proto::CompleteTaskResponse {})
    }

    pub(super) async fn complete_activity(
        &self,
        request: Request<proto::ActivityResponse>,
    ) -> Result<proto::CompleteTaskResponse, Status> {
        let (host, hub) = self.enter(&request).await?;
        let peer = peer(&request);
        host.complete_activity(hub, &peer, request.into_inner())
            .await
            .map_err(status)?;
        Ok(proto::CompleteTaskResponse {})
    }

    /// Gives an item back (S-13.17).
    pub(super) async fn abandon<T: Sync>(
        &self,
        request: &Request<T>,
        kind: WorkKind,
        token: &str,
    ) -> Result<(), Status> {
        let (host, hub) = self.enter(request).await?;
        host.abandon(hub, &peer(request), kind, token)
            .await
            .map_err(status)
    }
}

/// Work items on their way to a worker. Ends with an error, never with success (S-1.14).
pub struct WorkItemStream(WorkItems);

impl Stream for WorkItemStream {
    type Item = Result<RawWorkItem, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.0).poll_next(context);
        next.map(|item| {
            item.map(|item| {
                item.map(|item| RawWorkItem::from_parts(item.parts))
                    .map_err(status)
            })
        })
    }
}

/// What a worker calls itself besides its message.
pub(super) fn worker_name<T>(request: &Request<T>) -> Option<String> {
    let name = request.metadata().get(WORKER_KEY)?;
    name.to_str().ok().map(str::to_owned)
}

/// What a worker asks for, whichever stream it opens. It keeps no instances unless it says so.
pub(super) fn options(
    peer: Peer,
    worker: Option<String>,
    request: proto::GetWorkItemsRequest,
) -> StreamOptions {
    StreamOptions {
        peer,
        orchestrations_max: limit(request.max_concurrent_orchestration_work_items),
        activities_max: limit(request.max_concurrent_activity_work_items),
        entities_max: limit(request.max_concurrent_entity_work_items),
        can_stream_history: request
            .capabilities
            .contains(&(WorkerCapability::HistoryStreaming as i32)),
        keeps_instances: false,
        filters: filters(request.work_item_filters),
        worker: worker.unwrap_or(request.worker_instance_id),
    }
}

/// A limit below zero says as little as none (S-13.6).
fn limit(stated: i32) -> u32 {
    u32::try_from(stated).unwrap_or(0)
}

/// Absent, or without a single entry: everything. With one: what is listed, and nothing of a kind that is not (S-13.9).
fn filters(filters: Option<proto::WorkItemFilters>) -> Option<Filters> {
    let filters = filters?;
    if filters.orchestrations.is_empty()
        && filters.activities.is_empty()
        && filters.entities.is_empty()
    {
        return None;
    }
    Some(Filters {
        orchestrations: filters
            .orchestrations
            .into_iter()
            .map(|f| Filter {
                name: f.name,
                versions: f.versions,
            })
            .collect(),
        activities: filters
            .activities
            .into_iter()
            .map(|f| Filter {
                name: f.name,
                versions: f.versions,
            })
            .collect(),
        entities: filters.entities.into_iter().map(|f| f.name).collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// S-13.9: the default .NET worker sends the message with three empty lists.
    #[test]
    fn a_filter_message_without_entries_means_everything() {
        assert!(filters(None).is_none());
        assert!(filters(Some(proto::WorkItemFilters::default())).is_none());
    }

    /// S-13.9.
    #[test]
    fn beside_an_entry_an_empty_list_means_nothing_of_that_kind() {
        let filters = filters(Some(proto::WorkItemFilters {
            activities: vec![proto::ActivityFilter {
                name: "Pay".to_owned(),
                versions: vec!["2".to_owned(), String::new()],
            }],
            ..Default::default()
        }))
        .unwrap();
        assert!(filters.orchestrations.is_empty() && filters.entities.is_empty());
        assert_eq!(filters.activities[0].name, "Pay");
        assert_eq!(filters.activities[0].versions, ["2", ""]);
    }

    /// S-13.6.
    #[test]
    fn limits_that_state_nothing_are_zero() {
        assert_eq!([limit(-1), limit(0), limit(7)], [0, 0, 7]);
    }
}
