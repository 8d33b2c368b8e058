//! `mainspring.v1.WorkStream`: work items and answers of one worker over one stream, in batches.
//!
//! Whatever is ready is gathered into one message, so a busy stream batches by itself and an idle one waits for nothing. Answers
//! are worked on all at once, within the stream's own task; each is decided by the same calls as the published protocol's, and
//! has its receipt when what it says is durable. Nothing here knows what an answer means.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use mainspring_core::id::HubId;
use mainspring_host::{Host, Peer, StreamId, WorkItems, WorkKind};
use mainspring_proto::RawWorkItem;
use mainspring_proto::v1::server::{Item, ToWorker, WorkStream};
use mainspring_proto::v1::{
    self, Abandon, Answer, Answers, Open, Receipt, ToScheduler, answer, to_scheduler,
};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::config::INBOUND_BYTES_MAX;
use crate::grpc::status::status;
use crate::grpc::task_hub::{TaskHub, peer};
use crate::grpc::workers::{options, worker_name};

/// Largest message taken. An answer above the limit of the published protocol still arrives, to be turned into a failure (S-14.4);
/// there, it would end the worker's streams and come again.
pub(crate) const ANSWERS_BYTES_MAX: usize = 2 * INBOUND_BYTES_MAX;

/// How long a worker may take to say what it wants.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Answers of one stream that are worked on at once. Beyond this it is not read, until some have their receipts.
const UNANSWERED_MAX: usize = 4_096;

/// What one message holds at most: as much as is worth a write of its own. A larger item goes alone.
const ITEMS_MAX: usize = 256;
const ITEM_BYTES_MAX: usize = 1 << 20;
const RECEIPTS_MAX: usize = 1_024;

#[tonic::async_trait]
impl WorkStream for TaskHub {
    type WorkStream = Shift;

    async fn work(
        &self,
        mut request: Request<Streaming<ToScheduler>>,
    ) -> Result<Response<Shift>, Status> {
        let (host, hub) = self.enter(&request).await?;
        let (peer, worker) = (peer(&request), worker_name(&request));
        let Open {
            options: asked,
            keeps_instances,
        } = self.opening(request.get_mut()).await?;
        let mut options = options(peer.clone(), worker, asked.unwrap_or_default());
        options.keeps_instances = keeps_instances;
        let items = host.open_stream(hub, options).map_err(status)?;
        Ok(Response::new(Shift {
            id: items.id(),
            host: host.clone(),
            hub,
            peer: Arc::new(peer),
            items: Some(items),
            incoming: request.into_inner(),
            answers: FuturesUnordered::new(),
            end: None,
        }))
    }
}

impl TaskHub {
    /// What a worker says first.
    async fn opening(&self, incoming: &mut Streaming<ToScheduler>) -> Result<Open, Status> {
        let first = tokio::select! {
            first = tokio::time::timeout(OPEN_WAIT_MAX, incoming.message()) => first,
            () = self.life.drained() => {
                return Err(Status::unavailable("the server is stopping; try again"));
            }
        };
        let message = match first {
            Ok(Ok(message)) => message.and_then(|message| message.message),
            // Undecodable is malformed, whatever the transport calls it (section 19).
            Ok(Err(error)) => return Err(Status::invalid_argument(error.message())),
            Err(_) => None,
        };
        match message {
            Some(to_scheduler::Message::Open(open)) => Ok(open),
            _ => Err(Status::invalid_argument(
                "the first message of a work stream must be Open",
            )),
        }
    }
}

/// One worker's stream, from Open to its end.
pub struct Shift {
    id: StreamId,
    host: Host,
    /// As it was last known: a hub that is created anew takes its streams with it.
    hub: HubId,
    peer: Arc<Peer>,
    /// `None`: nothing goes out any more.
    items: Option<WorkItems>,
    incoming: Streaming<ToScheduler>,
    /// Answers that have no receipt yet.
    answers: FuturesUnordered<BoxFuture<'static, Receipt>>,
    /// Set once nothing more is read: how the stream ends when the last receipt is out.
    end: Option<End>,
}

enum End {
    /// The worker has given its last answer.
    Drained,
    /// It sent what cannot be read; like one that is drained, it will answer nothing more (S-13.28).
    Unreadable(Status),
    /// It is gone, or the work is: what it holds follows S-13.19.
    Broken(Status),
    /// The end was told.
    Over,
}

impl Stream for Shift {
    type Item = Result<ToWorker, Status>;

    /// A message with all that is ready. Wakes for each of its three sources, unless that is not looked at since another is full.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut message = ToWorker::default();
        this.read(context);
        this.gather_receipts(context, &mut message);
        this.gather_items(context, &mut message);
        if !(message.items.is_empty() && message.receipts.is_empty()) {
            return Poll::Ready(Some(Ok(message)));
        }
        match this.end {
            Some(_) if this.answers.is_empty() => Poll::Ready(this.finish().map(Err)),
            _ => Poll::Pending,
        }
    }
}

impl Shift {
    /// Takes in what the worker has sent, while there is room.
    fn read(&mut self, context: &mut Context<'_>) {
        while self.end.is_none() && self.answers.len() < UNANSWERED_MAX {
            match Pin::new(&mut self.incoming).poll_next(context) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(message))) => match message.message {
                    Some(to_scheduler::Message::Answers(answers)) => self.begin(answers),
                    Some(to_scheduler::Message::NoMore(_)) => self.take_no_more(),
                    Some(to_scheduler::Message::Open(_)) => {
                        let error = Status::invalid_argument("a work stream is opened once");
                        self.end = Some(End::Unreadable(error));
                    }
                    // Something that a later worker may say.
                    None => {}
                },
                Poll::Ready(None) => {
                    self.take_no_more();
                    self.end = Some(End::Drained);
                }
                Poll::Ready(Some(Err(error))) => self.end = Some(unread(error)),
            }
        }
    }

    fn take_no_more(&self) {
        if let Some(items) = &self.items {
            items.take_no_more();
        }
    }

    /// Begins to work on answers. They are looked at for the first time in the order in which they came.
    fn begin(&mut self, answers: Answers) {
        self.hub = self
            .items
            .as_ref()
            .and_then(WorkItems::hub)
            .unwrap_or(self.hub);
        for answer in answers.answers {
            let (host, hub, id) = (self.host.clone(), self.hub, self.id);
            let peer = Arc::clone(&self.peer);
            self.answers.push(Box::pin(async move {
                let number = answer.number;
                match take(host, hub, &peer, id, answer).await {
                    Ok(()) => Receipt {
                        number,
                        ..Receipt::default()
                    },
                    Err(status) => Receipt {
                        number,
                        code: status.code() as i32,
                        message: status.message().to_owned(),
                    },
                }
            }));
        }
    }

    fn gather_receipts(&mut self, context: &mut Context<'_>, message: &mut ToWorker) {
        while message.receipts.len() < RECEIPTS_MAX {
            match Pin::new(&mut self.answers).poll_next(context) {
                Poll::Ready(Some(receipt)) => message.receipts.push(receipt),
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn gather_items(&mut self, context: &mut Context<'_>, message: &mut ToWorker) {
        let mut bytes = 0;
        while self.end.is_none()
            && message.items.len() < ITEMS_MAX
            && bytes < ITEM_BYTES_MAX
            && let Some(items) = &mut self.items
        {
            match Pin::new(items).poll_next(context) {
                Poll::Ready(Some(Ok(item))) => {
                    bytes += item.bytes();
                    message.items.push(Item {
                        kept_events: item.kept_events,
                        item: Some(RawWorkItem::from_parts(item.parts)),
                    });
                }
                Poll::Ready(Some(Err(error))) => self.end = Some(End::Broken(status(error))),
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    /// All receipts are out. `None`: the stream ends with OK.
    fn finish(&mut self) -> Option<Status> {
        let end = self.end.replace(End::Over)?;
        let items = self.items.take();
        if let (End::Drained | End::Unreadable(_), Some(items)) = (&end, items) {
            items.finish();
        }
        match end {
            End::Unreadable(status) | End::Broken(status) => Some(status),
            End::Drained | End::Over => None,
        }
    }
}

/// Why nothing more can be read from a worker.
fn unread(error: Status) -> End {
    match error.code() {
        // The transport's words for a message above the limit, and for one that is none.
        Code::OutOfRange | Code::Internal => {
            tracing::warn!(%error, "a worker's message cannot be read; its stream is ended");
            let message = format!("the message cannot be read: {}", error.message());
            End::Unreadable(Status::unavailable(message))
        }
        _ => End::Broken(error),
    }
}

/// Does what an answer says.
async fn take(
    host: Host,
    hub: HubId,
    peer: &Peer,
    id: StreamId,
    answer: Answer,
) -> Result<(), Status> {
    let taken = match answer.answer {
        Some(answer::Answer::Orchestration(response)) => {
            host.complete_orchestration(hub, peer, Some(id), response)
                .await
        }
        Some(answer::Answer::Activity(response)) => {
            host.complete_activity(hub, peer, response).await
        }
        Some(answer::Answer::Entity(result)) => host.complete_entity(hub, peer, result).await,
        Some(answer::Answer::Abandon(abandon)) => {
            let kind = kind(&abandon)?;
            host.abandon(hub, peer, kind, &abandon.completion_token)
                .await
        }
        None => {
            return Err(Status::invalid_argument(
                "the answer says nothing that is known here",
            ));
        }
    };
    taken.map_err(status)
}

fn kind(abandon: &Abandon) -> Result<WorkKind, Status> {
    match abandon.kind() {
        v1::WorkKind::Orchestration => Ok(WorkKind::Orchestration),
        v1::WorkKind::Activity => Ok(WorkKind::Activity),
        v1::WorkKind::Entity => Ok(WorkKind::Entity),
        v1::WorkKind::Unspecified => Err(Status::invalid_argument(
            "the kind of the item that is given back is not known",
        )),
    }
}
