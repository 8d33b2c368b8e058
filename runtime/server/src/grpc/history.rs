//! Histories on their way to a reader, as stored bytes that nobody here decodes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use bytes::Bytes;
use futures_util::Stream;
use mainspring_host::{HistoryGuard, HistoryStream};
use mainspring_proto::{RawHistoryChunk, StreamInstanceHistoryRequest};
use tonic::{Request, Status};

use crate::grpc::status::status;
use crate::grpc::task_hub::TaskHub;

impl TaskHub {
    pub(super) async fn history(
        &self,
        request: Request<StreamInstanceHistoryRequest>,
    ) -> Result<ChunkStream, Status> {
        let (host, hub) = self.enter(&request).await?;
        let request = request.into_inner();
        let execution_id = request.execution_id.as_deref().filter(|id| !id.is_empty());
        let history = host
            .history(
                hub,
                &request.instance_id,
                execution_id,
                request.for_work_item_processing,
            )
            .await;
        history.map(ChunkStream::new).map_err(status)
    }
}

/// The chunks of one history, complete when it starts: it cannot fail on the way (S-3.34).
///
/// When it is dropped before its end, the reader is gone, and the guard does what follows from that.
pub struct ChunkStream {
    messages: vec::IntoIter<Vec<Bytes>>,
    guard: Option<HistoryGuard>,
}

impl ChunkStream {
    fn new(history: HistoryStream) -> Self {
        Self {
            messages: history.messages.into_iter(),
            guard: history.guard,
        }
    }
}

impl Stream for ChunkStream {
    type Item = Result<RawHistoryChunk, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.messages.next();
        if next.is_none()
            && let Some(guard) = self.guard.take()
        {
            guard.finish();
        }
        Poll::Ready(next.map(|parts| Ok(RawHistoryChunk::from_parts(parts))))
    }
}
