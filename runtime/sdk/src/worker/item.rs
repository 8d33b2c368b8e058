//! Work items as the crew takes them, whichever lane they came over.

use std::borrow::Cow;

use mainspring_proto::lazy::WorkItem;
use mainspring_proto::lazy::work_item::Request;
use mainspring_proto::{ActivityRequest, EntityRequest, HistoryEvent};
use prost::bytes::Bytes;
use prost::{DecodeError, Message as _};

/// One thing to do, and the token that its answer has to carry.
pub(crate) struct Item {
    pub(crate) token: String,
    pub(crate) work: Work,
}

pub(crate) enum Work {
    Episode(Episode),
    Activity(Box<ActivityRequest>),
    Entity(EntityRequest),
}

/// An episode of an orchestration.
pub(crate) struct Episode {
    pub(crate) instance: String,
    pub(crate) execution: String,
    pub(crate) past: Past,
    pub(crate) new: Vec<HistoryEvent>,
}

/// What has happened before.
pub(crate) enum Past {
    /// All of it.
    Events(History),
    /// To be fetched: there is too much of it for one message.
    Elsewhere,
    /// That many events, which this worker's last answer left it knowing.
    Known(usize),
}

/// Past events, as they came.
pub(crate) enum History {
    Encoded(Vec<Bytes>),
    Decoded(Vec<HistoryEvent>),
}

impl Item {
    /// `known`: events of the past that were left out. `None`: a ping, or something that nobody knows yet.
    pub(crate) fn read(item: WorkItem, known: u32) -> Option<Self> {
        let work = match item.request? {
            Request::OrchestratorRequest(request) => Work::Episode(Episode {
                instance: request.instance_id,
                execution: request.execution_id.unwrap_or_default(),
                past: match (known, request.requires_history_streaming) {
                    (0, true) => Past::Elsewhere,
                    (0, false) => Past::Events(History::Encoded(request.past_events)),
                    (known, _) => Past::Known(known as usize),
                },
                new: request.new_events,
            }),
            Request::ActivityRequest(request) => Work::Activity(Box::new(request)),
            Request::EntityRequestV2(request) => Work::Entity(request),
            Request::EntityRequest(_) | Request::HealthPing(_) => return None,
        };
        Some(Self {
            token: item.completion_token,
            work,
        })
    }
}

impl History {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Encoded(events) => events.len(),
            Self::Decoded(events) => events.len(),
        }
    }

    /// The event at a position from 0, which is below the number of events.
    pub(crate) fn at(&self, position: usize) -> Result<Cow<'_, HistoryEvent>, DecodeError> {
        match self {
            Self::Encoded(events) => HistoryEvent::decode(events[position].clone()).map(Cow::Owned),
            Self::Decoded(events) => Ok(Cow::Borrowed(&events[position])),
        }
    }
}
